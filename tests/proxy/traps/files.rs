//! The files of a version, and what is not there.

use crate::stage::{Stage, config};
use crate::upstream::{Answer, Asked, Upstream, honest, packed};

#[tokio::test]
async fn info_mod_and_zip_exist_independently_of_each_other() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", "info") | ("v1.1.0", "mod") | ("v1.2.0", "zip")) => honest(asked),
        _ => Answer::not_found(),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for (version, here) in [("v1.0.0", "info"), ("v1.1.0", "mod"), ("v1.2.0", "zip")] {
        for kind in ["info", "mod", "zip"] {
            let expected = if kind == here { 200 } else { 404 };
            assert_eq!(stage.tea(&format!("{version}.{kind}")).await.status, expected, "{version}.{kind}");
        }
    }
    // Nobody was asked for anything but what the client asked for.
    assert_eq!(upstream.take_paths().len(), 9);
}

#[tokio::test]
async fn a_mod_that_does_not_parse_and_an_info_in_another_zone_are_byte_equal_from_the_upstream_and_from_the_cache() {
    let go_mod = b"modul \xff\xfe {{ corp.example/Tea\r\n";
    let info = r#"{"Time":"2024-01-01T00:00:00+02:00",  "Version":"v1.0.0","Origin":{"VCS":"git","Ref":"x"},"New":[1]}"#;
    let upstream = Upstream::start(move |asked: &Asked| Answer::ok(if asked.is("mod") { &go_mod[..] } else { info.as_bytes() })).await;
    let mut stage = Stage::start(&config(&[&upstream])).await;
    for round in ["from the upstream", "from memory", "from the disk"] {
        assert_eq!(stage.tea("v1.0.0.mod").await.body.as_deref(), Some(&go_mod[..]), "{round}");
        assert_eq!(stage.tea("v1.0.0.info").await.text(), info, "{round}");
        stage.kept("corp.example/!tea/@v/v1.0.0.mod").await;
        stage.kept("corp.example/!tea/@v/v1.0.0.info").await;
        if round == "from memory" {
            stage.restart(&config(&[])).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_a_power_cut_left_empty_is_fetched_and_replaced() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let files = ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip"];
    let kept = |file: &str| stage.folder().join("cache/corp.example/!tea/@v").join(file);
    std::fs::create_dir_all(kept("")).unwrap();
    for file in files {
        std::fs::write(kept(file), "").unwrap();
        assert_eq!(stage.tea(file).await.status, 200, "{file}");
        crate::stage::eventually(file, async || std::fs::metadata(kept(file)).unwrap().len() > 0).await;
    }
}

#[tokio::test]
async fn a_branch_a_hash_and_a_version_with_build_data_are_not_immutable() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("main" | "abcdef0" | "v1.0.0+meta", "info")) => Answer::ok(format!(r#"{{"Version":"v1.0.{}"}}"#, asked.before)),
        _ => Answer::not_found(),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for name in ["main", "abcdef0", "v1.0.0+meta"] {
        assert_eq!(stage.tea(&format!("{name}.info")).await.text(), r#"{"Version":"v1.0.0"}"#);
        let below = format!(".gomodcache/mutable/corp.example/!tea/@v/{name}.info");
        stage.kept(&below).await;
        super::lists::grow_old(&stage, &below, 120).await;
        // The other spelling is not in memory.
        assert_eq!(stage.get(&format!("/corp.example/%21tea/@v/{name}.info")).await.text(), r#"{"Version":"v1.0.1"}"#, "{name}");
        assert!(!stage.has(&format!("{name}.info")));
    }
}

#[tokio::test]
async fn a_branch_has_neither_a_mod_nor_a_zip_and_nobody_is_asked() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for file in ["main.mod", "main.zip", "v2.0.0.mod", "v1.0.0+meta.zip"] {
        assert_eq!(stage.tea(file).await.status, 404, "{file}");
    }
    assert!(upstream.take_paths().is_empty());
}

/// As the go command asks for `example.com/m@v2.0.0` of a module that has tags from v2 on and no `/v2` in its path.
#[tokio::test]
async fn a_tag_of_another_major_version_than_the_path_stands_for_its_incompatible_version() {
    let info = r#"{"Version":"v2.0.0+incompatible","Time":"2024-01-01T00:00:00Z"}"#;
    let upstream = Upstream::start(move |asked: &Asked| match asked.file() {
        Some(("v2.0.0", "info")) => Answer::ok(info),
        Some(("v1.0.0", "info")) => Answer::ok(r#"{"Version":"v1.0.1","Time":"2024-01-01T00:00:00Z"}"#),
        _ => Answer::not_found(),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert!(stage.tea("v2.0.0.info").await.is(info.as_bytes()));
    stage.kept(".gomodcache/mutable/corp.example/!tea/@v/v2.0.0.info").await;
    assert!(!stage.has("v2.0.0.info"), "no list may name it");
    assert_eq!(stage.tea("v1.0.0.info").await.status, 502, "a version that the module can have is what it is");
}

#[tokio::test]
async fn an_upstreams_own_words_on_an_absence_reach_the_client_unchanged() {
    let words = "not found: corp.example/Tea@v1.0.0: invalid version: unknown revision v1.0.0\nsecond line é\n";
    for status in ["404 Not Found", "410 Gone"] {
        let upstream = Upstream::start(move |_: &Asked| Answer::new(status, words)).await;
        let stage = Stage::start(&config(&[&upstream])).await;
        for _uncached_then_remembered in 0..2 {
            let got = stage.tea("v1.0.0.info").await;
            assert_eq!((got.status.to_string().as_str(), got.text().as_str()), (&status[..3], words));
        }
    }
}

/// Over TLS the go command asks a second time after each 404.
#[tokio::test]
async fn an_absence_that_is_asked_for_twice_is_one_upstream_request() {
    let upstream = Upstream::start(|_: &Asked| Answer::not_found()).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for file in ["@v/v1.0.0.info", "@v/v1.0.0.zip", "@v/list", "@latest", "@v/main.info"] {
        let path = format!("/corp.example/!tea/{file}");
        let first = stage.get(&path).await;
        assert_eq!((first.status, stage.get(&path).await), (404, first), "{file}");
        assert_eq!(upstream.take_seen().len(), 1, "{file}");
    }
    assert_eq!(stage.metric("gomodcache_upstream_requests_total", &["class=\"not_found\""]).await, 5.0);
    assert_eq!(stage.metric("gomodcache_requests_total", &["result=\"negative\""]).await, 5.0);
}

#[tokio::test]
async fn an_absence_is_forgotten_before_it_hides_a_new_tag() {
    let upstream = Upstream::start(|asked: &Asked| if asked.before == 0 { Answer::not_found() } else { honest(asked) }).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("v1.0.0.info").await.status, 404);
    crate::stage::eventually("the new tag", async || stage.tea("v1.0.0.info").await.status == 200).await;
}

/// The go command takes 204, 206 and 304 for errors. From an upstream nobody asked for a part, or whether anything is new.
#[tokio::test]
async fn a_success_that_is_no_200_is_a_fault_and_is_never_kept_as_the_whole() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", _)) => Answer::rest(b"module corp.example/Tea\n// and more\n", 10),
        Some(("v1.1.0", _)) => Answer::new("304 Not Modified", ""),
        Some(("v1.2.0", _)) => Answer::new("203 Non-Authoritative Information", "module corp.example/Tea\n"),
        _ => Answer::new("204 No Content", ""),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for version in ["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"] {
        assert_eq!(stage.tea(&format!("{version}.mod")).await.status, 502, "{version}");
        assert!(!stage.has(&format!("{version}.mod")));
    }
}

#[tokio::test]
async fn a_web_page_is_no_go_mod_file_however_its_type_is_spelled_and_a_long_lie_is_quoted_in_a_line() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", "mod")) => Answer::ok("<h1>log in</h1>").with("Content-Type", "Text/HTML; charset=utf-8"),
        // A go command looks at no type, and without a checksum database nobody knows better.
        Some(("v1.1.0", "mod")) => Answer::ok("<!DOCTYPE html>\n<h1>log in</h1>"),
        Some(("v1.2.0", "mod")) => Answer::ok("<?xml version=\"1.0\"?><Error/>").with("Content-Type", "application/xml"),
        Some((_, "mod")) => Answer::ok(r#"{"errors": [{"status": 404}]}"#),
        _ if asked.path.ends_with("/list") => Answer::ok(r#"{"errors": [{"status": 404}]}"#),
        _ => Answer::ok(format!(r#"{{"Version":"{}"}}"#, "v".repeat(1 << 20))),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for (file, what) in [
        ("v1.0.0.mod", "a web page"),
        ("v1.1.0.mod", "a web page"),
        ("v1.2.0.mod", "a web page"),
        ("v1.3.0.mod", "a JSON object"),
        ("list", "a JSON object"),
    ] {
        let got = stage.tea(file).await;
        assert!(got.status == 502 && got.text().contains(&format!("answered with {what}\n")), "{file}: {got:?}");
        assert!(!stage.has(file), "{file}");
    }
    let got = stage.tea("v1.0.0.info").await;
    assert!(got.status == 502 && got.text().contains("answered for") && got.text().len() < 1_000, "{got:?}");
}

/// As a store of files answers, which knows nothing of modules, and as a go command takes it.
#[tokio::test]
async fn what_a_store_of_files_calls_its_bytes_does_not_matter() {
    let upstream = Upstream::start(|asked: &Asked| {
        let called = |answer: Answer, encoding: &str| answer.with("Content-Encoding", encoding);
        match asked.file() {
            Some(("v1.0.0", _)) => called(honest(asked), "aws-chunked"),
            Some(("v1.1.0", _)) => called(honest(asked), "UTF-8"),
            Some(("v1.2.0", "zip")) => called(honest(asked), "binary, none"),
            Some(("v1.2.0", _)) => called(Answer::ok(packed(&honest(asked).into_body())), "aws-chunked,gzip"),
            Some(("v1.3.0", _)) => called(honest(asked), "br"),
            Some(("v1.4.0", _)) => honest(asked).with("X-Y ", "1").with("X Z", "2"),
            _ if asked.path.ends_with("/list") => Answer::ok("v1.0.0\n").with("Content-Type", "text/html"),
            _ if asked.path.ends_with("/@latest") => Answer::ok(" \n<html>").with("Content-Type", "text/html"),
            _ => Answer::not_found(),
        }
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for version in ["v1.0.0", "v1.1.0", "v1.2.0", "v1.4.0"] {
        for kind in ["info", "mod", "zip"] {
            let file = format!("{version}.{kind}");
            let honest = honest(&Asked::of(&format!("/corp.example/!tea/@v/{file}"))).into_body();
            let got = stage.tea(&file).await;
            assert!(got.is(&honest), "{file}: {got:?}");
        }
    }
    let got = stage.tea("v1.3.0.mod").await;
    assert!(got.status == 502 && got.text().contains("Content-Encoding \"br\""), "{got:?}");
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    let got = stage.get("/corp.example/!tea/@latest").await;
    assert!(got.status == 502 && got.text().contains("web page"), "{got:?}");
}

#[tokio::test]
async fn while_an_upstream_is_held_back_a_request_is_answered_at_once() {
    let mut config = config(&[]);
    // Port 1 of the loopback network: nobody listens there.
    config.upstreams.push(crate::stage::entry("http://127.0.0.1:1", gomodcache::config::Fallback::OnNotFound));
    let stage = Stage::start(&config).await;
    let held_back = async || stage.metric("gomodcache_upstream_requests_total", &["class=\"breaker\""]).await;
    for i in 0..5 {
        stage.tea(&format!("v1.{i}.0.info")).await;
    }
    let before = held_back().await;
    assert_eq!(stage.tea("v1.5.0.info").await.status, 502);
    assert_eq!(held_back().await, before + 1.0, "asked once, and not again after a pause");
}
