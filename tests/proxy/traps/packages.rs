//! What a go command asks of the prefixes of a package's path, when nobody can say what is a module.

use std::io::{Cursor, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stage::{Stage, config};
use crate::upstream::{Answer, Asked, Upstream, honest};

const INFO: &str = "/corp.example/!tea/cmd/brew/@v/v1.0.0.info";

/// The zip of a module with a command in it.
fn with_a_command() -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [("go.mod", "module corp.example/Tea\n"), ("cmd/brew/main.go", "package main\n")] {
        writer.start_file(format!("corp.example/Tea@v1.0.0/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn a_package_of_a_cached_module_is_no_module_whoever_is_away() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let upstream = Upstream::start(move |asked: &Asked| match asked.file() {
        _ if down.load(Ordering::Relaxed) => Answer::new("503 Service Unavailable", "no\n"),
        Some(("v1.0.0", "zip")) => Answer::ok(with_a_command()),
        _ => honest(asked),
    })
    .await;
    let mut stage = Stage::start(&config(&[&upstream])).await;
    for file in ["v1.0.0.zip", "v1.0.0.info"] {
        assert_eq!(stage.tea(file).await.status, 200);
        stage.kept(&format!("corp.example/!tea/@v/{file}")).await;
    }
    is_down.store(true, Ordering::Relaxed);
    for (who, unknown) in [("the upstream", 502), ("offline", 503)] {
        for path in
            [INFO, "/corp.example/!tea/cmd/@v/v1.0.0.info", "/corp.example/!tea/cmd/brew/@v/list", "/corp.example/!tea/cmd/brew/@latest"]
        {
            let got = stage.get(path).await;
            assert_eq!(got.status, 404, "{path}, {who} away");
            // Offline there is no list of what is not cached, whatever it is.
            let text = "not found: no module, but a package of corp.example/Tea@v1.0.0, which is cached\n";
            assert!(got.text() == text || (who == "offline" && !path.ends_with(".info")), "{path}, {who} away: {}", got.text());
        }
        // Another version may have made a module of it, and a folder that is not there may be one.
        for path in
            ["/corp.example/!tea/cmd/brew/@v/v1.1.0.info", "/corp.example/!tea/pot/@v/v1.0.0.info", "/corp.example/!tea/v2/@v/v2.0.0.info"]
        {
            assert_eq!(stage.get(path).await.status, unknown, "{path}, {who} away");
        }
        stage.restart(&config(&[])).await;
    }
}

/// What was a folder at one version was made a module of its own later.
#[tokio::test]
async fn a_package_that_is_a_module_since_is_no_package_in_an_outage() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let upstream = Upstream::start(move |asked: &Asked| match asked.file() {
        _ if down.load(Ordering::Relaxed) => Answer::new("503 Service Unavailable", "no\n"),
        Some(("v1.0.0", "zip")) => Answer::ok(with_a_command()),
        _ if asked.path.ends_with("/cmd/brew/@v/v1.1.0.mod") => Answer::ok("module corp.example/Tea/cmd/brew\n"),
        _ => honest(asked),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    assert_eq!(stage.get("/corp.example/!tea/cmd/brew/@v/v1.1.0.mod").await.status, 200);
    stage.kept("corp.example/!tea/cmd/brew/@v/v1.1.0.mod").await;
    is_down.store(true, Ordering::Relaxed);
    for path in [INFO, "/corp.example/!tea/cmd/brew/@v/list", "/corp.example/!tea/cmd/brew/@latest"] {
        assert_eq!(stage.get(path).await.status, 502, "{path}");
    }
}

/// It may be the one module of a path below another's that is blocked, and the other's code is not what was asked for.
#[tokio::test]
async fn a_path_that_an_upstream_refuses_is_no_package() {
    for status in ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "451 Unavailable For Legal Reasons"] {
        let upstream = Upstream::start(move |asked: &Asked| match asked.file() {
            Some(("v1.0.0", "zip")) => Answer::ok(with_a_command()),
            _ if asked.path.contains("/cmd") => Answer::new(status, "blocked\n"),
            _ => honest(asked),
        })
        .await;
        let stage = Stage::start(&config(&[&upstream])).await;
        assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
        stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
        for path in [INFO, "/corp.example/!tea/cmd/brew/@v/list", "/corp.example/!tea/cmd/brew/@latest"] {
            let got = stage.get(path).await;
            assert!(matches!(got.status, 502 | 503), "{path}, {status}: {got:?}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_answers_is_believed() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", "zip")) => Answer::ok(with_a_command()),
        _ if asked.path == INFO => Answer::ok(r#"{"Version":"v1.0.0"}"#),
        _ => honest(asked),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    assert_eq!(stage.get(INFO).await.status, 200);
}
