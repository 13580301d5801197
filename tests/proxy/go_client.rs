//! The real `go` command behind the cache.

use std::path::Path;
use std::process::Output;

use crate::stage::{Stage, config};
use crate::upstream::{Answer, Asked, Upstream, honest};

/// Runs `go` in a module that requires `corp.example/Tea` v1.0.0, with nothing downloaded yet.
async fn go(folder: &Path, goproxy: &str, arguments: &[&str]) -> Output {
    std::fs::write(folder.join("go.mod"), "module corp.example/main\n\ngo 1.21\n\nrequire corp.example/Tea v1.0.0\n").unwrap();
    tokio::process::Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .envs([("GOPROXY", goproxy), ("GOSUMDB", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-modcacherw"), ("GOVCS", "*:off")])
        .env("GOMODCACHE", folder.join("modcache"))
        .output()
        .await
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn download(stage: &Stage) {
    let folder = tempfile::tempdir().unwrap();
    let output = go(folder.path(), &stage.url, &["mod", "download"]).await;
    assert!(output.status.success(), "{}", errors(&output));
    assert!(folder.path().join("modcache/corp.example/!tea@v1.0.0/go.mod").exists());
}

#[tokio::test]
async fn a_second_download_asks_the_upstream_for_nothing_also_after_kill_9_and_offline() {
    let upstream = Upstream::start(honest).await;
    let mut stage = Stage::start(&config(&[&upstream])).await;
    download(&stage).await;
    assert!(upstream.take_paths().iter().any(|path| path.ends_with("v1.0.0.zip")));
    download(&stage).await;
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
    for file in ["info", "mod", "zip"] {
        stage.kept(&format!("corp.example/!tea/@v/v1.0.0.{file}")).await;
    }
    stage.restart(&config(&[])).await;
    download(&stage).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
}

#[tokio::test]
async fn a_branch_becomes_a_version_of_the_go_command() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("main", "info")) => Answer::ok(r#"{"Version":"v1.2.0","Time":"2024-01-01T00:00:00Z"}"#),
        _ => honest(asked),
    });
    let stage = Stage::start(&config(&[&upstream.await])).await;
    let folder = tempfile::tempdir().unwrap();
    let output = go(folder.path(), &stage.url, &["list", "-m", "corp.example/Tea@main"]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "corp.example/Tea v1.2.0\n", "{}", errors(&output));
}

#[tokio::test]
async fn an_outage_ends_the_build_with_our_words_and_does_not_send_the_path_to_the_next_proxy() {
    let upstream = Upstream::start(|_: &Asked| Answer::new("503 Service Unavailable", "")).await;
    let world = Upstream::start(|_: &Asked| Answer::not_found()).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let folder = tempfile::tempdir().unwrap();
    let output = go(folder.path(), &format!("{},{}", stage.url, world.url()), &["mod", "download"]).await;
    assert!(!output.status.success());
    let said = errors(&output);
    assert!(said.contains("502 Bad Gateway") && said.contains("answered 503 Service Unavailable"), "{said}");
    assert!(said.contains("the upstream has a problem; try again later"), "{said}");
    assert_eq!(world.take_paths(), Vec::<String>::new());
}

#[tokio::test]
async fn an_absence_lets_the_go_command_ask_its_next_proxy() {
    let upstream = Upstream::start(|_: &Asked| Answer::not_found()).await;
    let next = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let folder = tempfile::tempdir().unwrap();
    let output = go(folder.path(), &format!("{},{}", stage.url, next.url()), &["mod", "download"]).await;
    assert!(output.status.success(), "{}", errors(&output));
}
