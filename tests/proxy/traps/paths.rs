//! Endpoints, methods and escapes.

use crate::stage::{Stage, config};
use crate::upstream::{Answer, Asked, Upstream, honest, packed, zip};
use crate::wire::Wire;

async fn stage(answer: fn(&Asked) -> Answer) -> (Upstream, Stage) {
    let upstream = Upstream::start(answer).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    (upstream, stage)
}

#[tokio::test]
async fn head_has_the_headers_of_get_for_every_kind_cached_or_not() {
    let (_upstream, stage) = stage(|asked| match asked.path.as_str() {
        "/corp.example/!tea/@v/list" => Answer::ok("v1.0.0\n"),
        "/corp.example/!tea/@latest" => Answer::ok(r#"{"Version":"v1.0.0"}"#),
        "/corp.example/!tea/@v/v4.0.0.info" => Answer::new("403 Forbidden", ""),
        "/corp.example/!tea/@v/v5.0.0.info" => Answer::not_found(),
        _ => honest(asked),
    })
    .await;
    for file in ["@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/list", "@latest", "@v/v4.0.0.info", "@v/v5.0.0.info"] {
        let path = format!("/corp.example/!tea/{file}");
        let uncached = stage.request(reqwest::Method::HEAD, &path).await;
        let get = stage.get(&path).await;
        let cached = stage.request(reqwest::Method::HEAD, &path).await;
        assert!(!get.header("content-length").is_empty(), "{path}");
        for head in [uncached, cached] {
            assert_eq!((head.status, &head.headers, head.body), (get.status, &get.headers, Some(Vec::new())), "{path}");
        }
    }
}

#[tokio::test]
async fn other_methods_are_405_with_what_is_allowed_and_reach_no_upstream() {
    let (upstream, stage) = stage(honest).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let got = stage.request(method.parse().unwrap(), "/corp.example/!tea/@v/v1.0.0.info").await;
        assert_eq!((got.status, got.header("allow"), got.header("content-type")), (405, "GET, HEAD", "text/plain; charset=utf-8"));
    }
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
}

#[tokio::test]
async fn errors_of_every_kind_are_text_and_keep_the_connection() {
    let (_upstream, stage) = stage(|asked| match asked.file() {
        Some(("v1.0.0", _)) => Answer::html("404 Not Found"),
        Some(("v1.1.0", _)) => Answer::html("403 Forbidden"),
        Some(("v1.2.0", _)) => Answer::html("429 Too Many Requests"),
        Some(("v1.3.0", _)) => Answer::new("410 Gone", r#"{"gone":true}"#).with("Content-Type", "application/json"),
        _ => Answer::html("502 Bad Gateway"),
    })
    .await;
    let mut wire = Wire::open(&stage.url).await;
    for (method, path, status) in [
        ("GET", "/corp.example/!tea/@v/v1.0.0.info", 404),
        ("GET", "/corp.example/!tea/@v/v1.1.0.info", 502),
        ("GET", "/corp.example/!tea/@v/v1.2.0.info", 503),
        ("GET", "/corp.example/!tea/@v/v1.3.0.info", 410),
        ("GET", "/corp.example/!tea/@v/v1.4.0.info", 502),
        ("GET", "/nonsense", 404),
        ("GET", "/sumdb/sum.example/supported", 404),
        ("DELETE", "/corp.example/!tea/@v/list", 405),
    ] {
        let (got, kind, text) = wire.ask(method, path).await;
        assert_eq!((got, kind.as_str()), (status, "text/plain; charset=utf-8"), "{path}");
        // What the go command shows of an error.
        assert!(text.len() <= 648 && text.lines().count() <= 8 && !text.contains('<') && !text.contains("\n\n"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
    }
}

#[tokio::test]
async fn both_spellings_of_an_upper_case_letter_are_one_object() {
    let (upstream, stage) = stage(honest).await;
    let mut wire = Wire::open(&stage.url).await;
    let first = wire.ask("GET", "/corp.example/%21tea/@v/v1.0.0-%21r!c.info").await;
    assert_eq!(first.0, 200);
    assert_eq!(wire.ask("GET", "/corp.example/!tea/@v/v1.0.0-!r!c.info").await, first);
    assert_eq!(wire.ask("GET", "/corp.example/%21tea/%40v/v1.0.0-!r%21c.info").await, first);
    assert_eq!(wire.ask("GET", "/corp%2Eexample/!t%65a/@v/v1.0.0-!r!c.info").await, first);
    assert!(first.2.contains("v1.0.0-RC"), "{}", first.2);
    assert_eq!(upstream.take_paths(), ["/corp.example/!tea/@v/v1.0.0-!r!c.info"]);
}

#[tokio::test]
async fn upper_case_letters_of_versions_and_branches_are_escaped_upstream() {
    let (upstream, stage) = stage(|asked| match asked.file() {
        Some(("v1.0.0-!r!c", "info")) => Answer::ok(r#"{"Version":"v1.0.0-RC"}"#),
        Some(("!release", "info")) => Answer::ok(r#"{"Version":"v1.0.0"}"#),
        _ => honest(asked),
    })
    .await;
    for version in ["v1.0.0-!r!c", "!release"] {
        assert_eq!(stage.tea(&format!("{version}.info")).await.status, 200, "{version}");
    }
    assert_eq!(upstream.take_paths(), ["/corp.example/!tea/@v/v1.0.0-!r!c.info", "/corp.example/!tea/@v/!release.info"]);
    stage.kept("corp.example/!tea/@v/v1.0.0-!r!c.info").await;
    stage.kept(".gomodcache/mutable/corp.example/!tea/@v/!release.info").await;
}

#[tokio::test]
async fn an_incompatible_version_is_one_object_with_a_bare_plus_or_an_escaped_one() {
    let (upstream, stage) = stage(honest).await;
    let first = stage.tea("v2.0.0+incompatible.mod").await;
    assert_eq!((first.status, stage.tea("v2.0.0%2Bincompatible.mod").await), (200, first));
    assert_eq!(upstream.take_paths(), ["/corp.example/!tea/@v/v2.0.0+incompatible.mod"]);
    stage.kept("corp.example/!tea/@v/v2.0.0+incompatible.mod").await;
}

#[tokio::test]
async fn percent_40_is_an_at_sign() {
    let (_upstream, stage) = stage(|asked| match asked.path.as_str() {
        "/corp.example/!tea/@v/list" => Answer::ok("v1.0.0\n"),
        "/corp.example/!tea/@latest" => Answer::ok(r#"{"Version":"v1.0.0"}"#),
        _ => honest(asked),
    })
    .await;
    let mut wire = Wire::open(&stage.url).await;
    for path in ["/corp.example/!tea/%40v/list", "/corp.example/!tea/%40latest", "/corp.example/!tea/%40v/v1.0.0.mod"] {
        assert_eq!(wire.ask("GET", path).await.0, 200, "{path}");
    }
}

/// A path that no go command makes: answered here, and not told to anybody.
#[tokio::test]
async fn raw_upper_case_double_encoding_and_traversal_are_404_and_never_reach_the_disk_or_an_upstream() {
    let (upstream, stage) = stage(honest).await;
    // It is written once the proxy serves.
    stage.kept(".gomodcache/last-good.yaml").await;
    let before = stage.files();
    let mut wire = Wire::open(&stage.url).await;
    for path in [
        "/",
        "/corp.example/Tea/@v/list",
        "/corp.example/!tea/@v/v1.0.0-RC.info",
        "/corp.example/!Tea/@v/list",
        "/corp.example/tea!/@v/list",
        "/corp.example/!1/@v/list",
        "/corp.example/%2521tea/@v/list",
        "/corp.example/!tea/@v/v1.0.0%252dx.info",
        "/corp.example/!tea/%2540v/list",
        "/corp.example/../../etc/@v/list",
        "/corp.example/%2e%2e/%2e%2e/x/@v/v1.0.0.mod",
        "/corp.example/%2e%2e%2fx/@v/v1.0.0.mod",
        "/corp.example/a/@v/../../../x.mod",
        "/corp.example/a/@v/%2e%2e%2f%2e%2e%2fx.mod",
        "/corp.example/a/@v/..%5cx.mod",
        "/../.gomodcache/x/@v/list",
        "/.gomodcache/tmp/@v/list",
        "/corp.example/t%C3%A9a/@v/list",
        "/corp.example/a%00b/@v/list",
        "/corp.example/a%0ab/@v/list",
        "/corp.example/a//b/@v/list",
        "/corp.example/a/@v/",
        "/corp.example/a/@v/.info",
        "/corp.example/a/@v/v1.0.0.ziphash",
        "/corp.example/a/@v/v1.0.0.lock",
        "/corp.example/CON/@v/list",
        "/corp.example/con/@v/list",
        "/corp/%zz/@v/list",
    ] {
        let (status, kind, _) = wire.ask("GET", path).await;
        assert_eq!((status, kind.as_str()), (404, "text/plain; charset=utf-8"), "{path}");
    }
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
    assert_eq!(stage.files(), before);
}

#[tokio::test]
async fn an_upstream_may_have_a_path_and_a_trailing_slash() {
    for base in ["/a/b", "/a/b/"] {
        let upstream = Upstream::start(|asked: &Asked| honest(&Asked::of(asked.path.strip_prefix("/a/b").unwrap_or_default()))).await;
        let mut config = config(&[&upstream]);
        config.upstreams[0].url = format!("{}{base}", upstream.url()).parse().unwrap();
        let stage = Stage::start(&config).await;
        assert_eq!(stage.tea("v1.0.0.info").await.status, 200);
        assert_eq!(upstream.take_paths(), ["/a/b/corp.example/!tea/@v/v1.0.0.info"]);
    }
}

/// On the upstream's side as on the go command's: only these two headers are of use to anybody.
#[tokio::test]
async fn an_upstream_is_asked_for_plain_bytes_and_told_nothing_of_the_client() {
    let (upstream, stage) = stage(honest).await;
    stage.tea("v1.0.0.zip").await;
    let asked = upstream.take_seen().remove(0);
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    for header in ["authorization", "cookie", "x-forwarded-for", "referer", "range"] {
        assert_eq!(asked.header(header), None, "{header}");
    }
}

#[tokio::test]
async fn an_upstream_that_compresses_all_the_same_is_unpacked_or_refused_and_never_kept_packed() {
    let (_upstream, stage) = stage(|asked| match asked.file() {
        Some(("v1.0.0", "mod")) => Answer::ok(packed(b"module corp.example/Tea\n")).with("Content-Encoding", "gzip"),
        Some(("v1.0.0", "info")) => Answer::ok(packed(br#"{"Version":"v1.0.0"}"#)).with("Content-Encoding", "gzip"),
        Some(("v1.0.0", "zip")) => Answer::ok(packed(&zip("v1.0.0", 100))).with("Content-Encoding", "gzip"),
        Some(("v1.1.0", "mod")) => Answer::ok("???").with("Content-Encoding", "br"),
        Some(("v1.2.0", "mod")) => Answer::ok("no gzip").with("Content-Encoding", "gzip"),
        Some(("v1.3.0", _)) => honest(asked).with("Content-Encoding", "identity"),
        _ => Answer::not_found(),
    })
    .await;
    assert_eq!(stage.tea("v1.0.0.mod").await.text(), "module corp.example/Tea\n");
    assert_eq!(stage.tea("v1.0.0.info").await.text(), r#"{"Version":"v1.0.0"}"#);
    for (file, encoding) in [("v1.0.0.zip", "gzip"), ("v1.1.0.mod", "br"), ("v1.2.0.mod", "gzip")] {
        let got = stage.tea(file).await;
        assert!(got.status == 502 && got.text().contains(encoding), "{file}: {got:?}");
        assert!(!stage.has(file));
    }
    assert_eq!(stage.tea("v1.3.0.zip").await.status, 200);
    stage.kept("corp.example/!tea/@v/v1.0.0.mod").await;
    assert_eq!(std::fs::read(stage.path("corp.example/!tea/@v/v1.0.0.mod")).unwrap(), b"module corp.example/Tea\n");
}
