//! What clients may not have, and that no endpoint says otherwise than the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gomodcache::config::{Policy, ProxyConfig};

use crate::stage::{Stage, config, eventually};
use crate::traps::lists::{LIST, grow_old};
use crate::upstream::{Answer, Asked, Upstream, honest};

const OLD: &str = r#"{"Version":"v1.0.0","Time":"2020-01-01T00:00:00Z"}"#;

fn young(version: &str) -> String {
    format!(r#"{{"Version":"{version}","Time":"{}"}}"#, jiff::Timestamp::now())
}

/// v1.0.0 is years old; v1.1.0, the newest, and the branch `main` are of this moment.
async fn tea() -> Upstream {
    Upstream::start(|asked: &Asked| match asked.path.strip_prefix("/corp.example/!tea/").unwrap_or_default() {
        "@v/list" => Answer::ok("v1.0.0\nv1.1.0\n"),
        "@latest" | "@v/v1.1.0.info" => Answer::ok(young("v1.1.0")),
        "@v/v1.0.0.info" => Answer::ok(OLD),
        "@v/v1.1.0.mod" => Answer::ok("module corp.example/Tea\n"),
        "@v/main.info" => Answer::ok(young("v1.1.1-0.20250102030405-abcdefabcdef")),
        _ => honest(asked),
    })
    .await
}

fn with_policy(upstream: &Upstream, policy: Policy) -> ProxyConfig {
    ProxyConfig { policy, ..config(&[upstream]) }
}

fn three_days() -> Policy {
    Policy { minimum_release_age: Some("72h".to_owned()), ..Policy::default() }
}

#[tokio::test]
async fn a_denied_module_is_a_403_with_its_rule_and_nobody_is_asked() {
    let upstream = tea().await;
    let stage = Stage::start(&with_policy(&upstream, Policy { deny: vec!["corp.example/T*".to_owned()], ..Policy::default() })).await;
    for file in ["list", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "main.info"] {
        let got = stage.tea(file).await;
        assert_eq!((got.status, got.text().as_str()), (403, "this cache's policy does not allow it: deny corp.example/T*\n"), "{file}");
    }
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
    assert!(stage.metric("gomodcache_requests_total", &["result=\"denied\""]).await >= 5.0);
}

#[tokio::test]
async fn a_version_that_is_too_young_is_refused_at_every_endpoint_that_brings_code() {
    let upstream = tea().await;
    let stage = Stage::start(&with_policy(&upstream, three_days())).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    let latest = stage.get("/corp.example/!tea/@latest").await;
    assert_eq!(latest.text(), OLD);
    // Twice: neither memory nor disk knows better.
    for file in ["v1.1.0.info", "v1.1.0.zip", "main.info", "v1.1.0.info", "v1.1.0.zip", "main.info"] {
        let got = stage.tea(file).await;
        assert!(got.status == 403 && got.text().contains("minimumReleaseAge 72h: v1.1."), "{file}: {got:?}");
    }
    assert!(!upstream.take_paths().iter().any(|path| path.ends_with("v1.1.0.zip")));
    // A go.mod file is asked for while versions are chosen.
    assert_eq!(stage.tea("v1.1.0.mod").await.status, 200);
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
}

#[tokio::test]
async fn a_pseudo_version_has_its_time_in_its_name() {
    let upstream = tea().await;
    let stage = Stage::start(&with_policy(&upstream, three_days())).await;
    let now = jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string();
    let got = stage.tea(&format!("v1.1.1-0.{now}-abcdefabcdef.zip")).await;
    assert!(got.status == 403 && got.text().contains("minimumReleaseAge"), "{got:?}");
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
}

#[tokio::test]
async fn a_private_module_has_no_minimum_age() {
    let upstream = tea().await;
    let private = ProxyConfig { private_modules: vec!["corp.example".to_owned()], ..with_policy(&upstream, three_days()) };
    let stage = Stage::start(&private).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\nv1.1.0\n");
    assert_eq!(stage.tea("v1.1.0.info").await.status, 200);
}

#[tokio::test]
async fn a_denied_version_is_not_listed_and_the_real_go_command_takes_the_next() {
    let upstream = tea().await;
    let stage = Stage::start(&with_policy(&upstream, three_days())).await;
    let folder = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new("go")
        .args(["list", "-m", "corp.example/Tea@latest"])
        .current_dir(folder.path())
        .envs([("GOPROXY", stage.url.as_str()), ("GOSUMDB", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-modcacherw")])
        .env("GOMODCACHE", folder.path().join("modcache"))
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "corp.example/Tea v1.0.0\n", "{}", String::from_utf8_lossy(&output.stderr));
}

fn denied(version: &str) -> Policy {
    Policy { deny: vec![format!("corp.example/Tea@{version}")], ..Policy::default() }
}

#[tokio::test]
async fn a_denied_version_is_named_neither_by_latest_nor_by_a_branch() {
    let upstream = Upstream::start(|asked: &Asked| match asked.path.strip_prefix("/corp.example/!tea/").unwrap_or_default() {
        "@v/list" => Answer::ok("v1.0.0\nv1.1.0\n"),
        "@latest" | "@v/main.info" => Answer::ok(young("v1.1.0")),
        "@v/v1.0.0.info" => Answer::ok(OLD),
        _ => honest(asked),
    })
    .await;
    let only_the_first = Policy { allow: vec!["corp.example/Tea@v1.0.0".to_owned()], ..Policy::default() };
    for (policy, rule) in [(denied("v1.1.0"), "deny corp.example/Tea@v1.1.0"), (only_the_first, "only the modules of its allow list")] {
        let stage = Stage::start(&with_policy(&upstream, policy)).await;
        // Twice: neither memory nor disk knows better.
        for _ in 0..2 {
            let latest = stage.get("/corp.example/!tea/@latest").await;
            assert_eq!((latest.status, latest.text().as_str()), (200, OLD), "{rule}");
            let branch = stage.tea("main.info").await;
            assert!(branch.status == 403 && branch.text().contains(rule), "{branch:?}");
        }
    }
}

#[tokio::test]
async fn the_latest_allowed_version_is_the_one_that_the_go_command_would_choose() {
    let latest = async |go_mod: &'static str| {
        let upstream = Upstream::start(move |asked: &Asked| match asked.path.strip_prefix("/corp.example/!tea/").unwrap_or_default() {
            "@v/list" => Answer::ok("v1.0.0\nv1.1.0\nv1.0.1-rc.1\nv2.0.0+incompatible\nv3.0.0-rc.1+incompatible\n"),
            "@latest" | "@v/v1.1.0.info" => Answer::ok(young("v1.1.0")),
            "@v/v1.0.1-rc.1.mod" => Answer::ok(go_mod),
            _ => honest(asked),
        })
        .await;
        let stage = Stage::start(&with_policy(&upstream, three_days())).await;
        let info: serde_json::Value = serde_json::from_str(&stage.get("/corp.example/!tea/@latest").await.text()).unwrap();
        info["Version"].as_str().unwrap().to_owned()
    };
    // A go.mod file of its own: what is incompatible with it was made for another time.
    assert_eq!(latest("module corp.example/Tea\n\ngo 1.21\n").await, "v1.0.0");
    assert_eq!(latest("module corp.example/Tea\n").await, "v2.0.0+incompatible");
}

#[tokio::test]
async fn one_bad_entry_of_a_list_keeps_no_other_from_being_listed_and_an_outage_keeps_all() {
    let upstream = Upstream::start(|asked: &Asked| match asked.path.strip_prefix("/corp.example/!tea/").unwrap_or_default() {
        "@v/list" => Answer::ok("v1.0.0\nv1.1.0\nrelease-1\nv1\nv1.2.0\nv1.3.0\n"),
        "@v/v1.0.0.info" => Answer::ok(OLD),
        "@v/v1.1.0.info" | "@v/release-1.info" | "@v/v1.info" => Answer::new("400 Bad Request", "no version\n"),
        // For another version than was asked for.
        "@v/v1.2.0.info" => Answer::ok(OLD),
        _ => honest(asked),
    })
    .await;
    let stage = Stage::start(&with_policy(&upstream, three_days())).await;
    let got = stage.tea("list").await;
    assert_eq!((got.status, got.text().as_str()), (200, "v1.0.0\nv1.3.0\n"));
    assert!(!upstream.paths().iter().any(|path| path.ends_with("release-1.info") || path.ends_with("v1.info")));
    let away = Upstream::start(|asked: &Asked| match asked.path.as_str() {
        "/corp.example/!tea/@v/list" => Answer::ok("v1.0.0\nv1.1.0\n"),
        "/corp.example/!tea/@v/v1.1.0.info" => Answer::new("401 Unauthorized", ""),
        _ => honest(asked),
    })
    .await;
    let stage = Stage::start(&with_policy(&away, three_days())).await;
    assert_eq!(stage.tea("list").await.status, 502);
}

/// With a minimum age as without one: a version that could not be judged before an outage keeps no list from being shown in it.
#[tokio::test]
async fn a_list_is_better_than_nothing_in_an_outage_though_one_of_its_versions_has_no_info() {
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    let upstream = Upstream::start(move |asked: &Asked| match asked.path.strip_prefix("/corp.example/!tea/").unwrap_or_default() {
        _ if away.load(Ordering::Relaxed) => Answer::new("503 Service Unavailable", ""),
        "@v/list" => Answer::ok("v1.0.0\nv1.1.0\n"),
        "@v/v1.0.0.info" => Answer::ok(OLD),
        "@v/v1.1.0.info" => Answer::not_found(),
        _ => honest(asked),
    })
    .await;
    let mut stage = Stage::start(&with_policy(&upstream, three_days())).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    for file in [LIST, "corp.example/!tea/@v/v1.0.0.info"] {
        stage.kept(file).await;
    }
    is_away.store(true, Ordering::Relaxed);
    let offline = ProxyConfig { policy: three_days(), ..config(&[]) };
    for config in [with_policy(&upstream, three_days()), offline] {
        // Nothing is known to be absent any more.
        stage.restart(&config).await;
        grow_old(&stage, LIST, 600).await;
        let got = stage.tea("list").await;
        assert_eq!((got.status, got.text().as_str()), (200, "v1.0.0\n"));
    }
    std::fs::remove_file(stage.path("corp.example/!tea/@v/v1.0.0.info")).unwrap();
    stage.restart(&with_policy(&upstream, three_days())).await;
    assert_eq!(stage.tea("list").await.status, 502, "nothing of it can be judged");
}

#[tokio::test]
async fn a_new_rule_holds_for_what_is_in_memory() {
    let upstream = tea().await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.status, 200);
    stage.configure(&with_policy(&upstream, denied("v1.0.0")));
    eventually("the rule", async || stage.tea("v1.0.0.mod").await.status == 403).await;
    assert_eq!(stage.tea("list").await.text(), "v1.1.0\n");
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_leaves_the_running_one() {
    let upstream = tea().await;
    let stage = Stage::start(&with_policy(&upstream, Policy { deny: vec!["corp.example/T*".to_owned()], ..Policy::default() })).await;
    stage.configure(&with_policy(&upstream, Policy { minimum_release_age: Some("soon".to_owned()), ..Policy::default() }));
    let says = r#"policy.minimumReleaseAge: \"soon\" is not a duration such as 90m, 72h or 14d"#;
    eventually("the refusal", async || stage.log().replace("\\\\\\\"", "\\\"").contains(says)).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.status, 403);
}
