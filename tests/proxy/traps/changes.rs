//! A configuration or a credential that changes while requests run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use gomodcache::config::{PinnedHost, Resolution};

use crate::report::report;
use crate::stage::{PATIENCE, Stage, config, eventually, put};
use crate::upstream::{Answer, Asked, Gate, Upstream, honest, zip};

const LONG: usize = 300_000;

fn header(password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("u:{password}")))
}

fn write_credential(folder: &Path, password: &str, generation: &str) {
    let text = format!(r#"{{"hosts":["127.0.0.1"],"secret":{{"basic":{{"username":"u","password":"{password}"}}}}}}"#);
    put(&folder.join("credentials/credential.corp"), &text);
    put(&folder.join("credentials/generation"), generation);
}

/// Whether the proxy says that it uses this generation.
async fn uses(stage: &Stage, generation: &str) -> bool {
    stage.metric("gomodcache_config_info", &[&format!("credentials=\"{generation}\"")]).await == 1.0
}

#[tokio::test]
async fn a_credential_that_is_swapped_during_a_download_breaks_neither_it_nor_the_next() {
    let (gate, revoked) = (Gate::closed(), Arc::new(AtomicBool::new(false)));
    let (held, is_revoked) = (gate.clone(), Arc::clone(&revoked));
    let upstream = Upstream::start(move |asked: &Asked| {
        let good = header(if is_revoked.load(Ordering::Relaxed) { "new" } else { "old" });
        match asked.file() {
            _ if asked.header("authorization") != Some(&good) => Answer::new("401 Unauthorized", ""),
            Some(("v1.0.0", "zip")) => Answer::ok(zip("v1.0.0", LONG)).held_after(LONG / 2, &held),
            _ => honest(asked),
        }
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    // The proxy looks once a second, and the download waits for that.
    config.upstreams[0].timeouts.idle = PATIENCE;
    let stage = Stage::prepared(&config, |folder| write_credential(folder, "old", "first")).await;
    let running = stage.tea("v1.0.0.zip");
    let rotation = async {
        eventually("the download", async || !upstream.take_seen().is_empty()).await;
        write_credential(stage.folder(), "new", "second");
        eventually("the new credential", async || uses(&stage, "second").await).await;
        revoked.store(true, Ordering::Relaxed);
        assert_eq!(stage.tea("v1.1.0.zip").await.status, 200, "the next download uses the new one");
        gate.open();
    };
    let (got, ()) = tokio::join!(running, rotation);
    assert!(got.is(&zip("v1.0.0", LONG)), "{got:?}");
}

#[tokio::test]
async fn a_download_that_breaks_after_a_rotation_goes_on_with_the_new_credential() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |asked: &Asked| match (asked.from(), asked.header("authorization")) {
        (None, Some(value)) if value == header("old") => Answer::ok(zip("v1.0.0", LONG)).broken_after(LONG / 2, &held),
        (Some(from), Some(value)) if value == header("third") => Answer::rest(&zip("v1.0.0", LONG), from),
        _ => Answer::new("401 Unauthorized", ""),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    config.upstreams[0].timeouts.idle = PATIENCE;
    let stage = Stage::prepared(&config, |folder| write_credential(folder, "old", "first")).await;
    let rotation = async {
        eventually("the download", async || !upstream.take_seen().is_empty()).await;
        // Twice: the configuration of the download's beginning is not the last but one.
        for (password, generation) in [("new", "second"), ("third", "third")] {
            write_credential(stage.folder(), password, generation);
            eventually("the new credential", async || uses(&stage, generation).await).await;
        }
        gate.open();
    };
    let (got, ()) = tokio::join!(stage.tea("v1.0.0.zip"), rotation);
    assert!(got.is(&zip("v1.0.0", LONG)), "{got:?}");
}

#[tokio::test]
async fn a_new_credential_that_is_refused_leaves_the_old_one_in_use_until_one_is_accepted() {
    let good = Arc::new(std::sync::Mutex::new(header("old")));
    let is_good = Arc::clone(&good);
    let upstream = Upstream::start(move |asked: &Asked| {
        let good = is_good.lock().unwrap().clone();
        if asked.header("authorization") == Some(&good) { honest(asked) } else { Answer::new("401 Unauthorized", "") }
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::prepared(&config, |folder| write_credential(folder, "old", "first")).await;
    let accepted = async || report(&stage).await.verdicts.first().map(|verdict| verdict.accepted);
    assert_eq!(stage.tea("v1.0.0.info").await.status, 200);
    write_credential(stage.folder(), "wrong", "second");
    eventually("the wrong credential", async || uses(&stage, "second").await).await;
    for i in 1..=20 {
        assert_eq!(stage.tea(&format!("v1.{i}.0.info")).await.status, 200);
    }
    assert_eq!(accepted().await, Some(false), "and it is told that the new one is refused");
    assert_eq!(upstream.take_seen().len(), 22, "the wrong one was sent once");
    // The next one is ahead of its upstream; then the upstream takes it, and the old one no more.
    write_credential(stage.folder(), "early", "third");
    eventually("the early credential", async || uses(&stage, "third").await).await;
    assert_eq!(stage.tea("v1.30.0.mod").await.status, 200);
    *good.lock().unwrap() = header("early");
    assert_eq!(stage.tea("v1.31.0.mod").await.status, 200);
    assert_eq!(accepted().await, Some(true));
    *good.lock().unwrap() = header("old");
    assert_eq!(stage.tea("v1.32.0.mod").await.status, 502, "what was accepted has no other beside it");
    assert_eq!(upstream.last().header("authorization"), Some(header("early").as_str()));
}

#[tokio::test]
async fn a_credential_that_was_withdrawn_is_sent_no_more() {
    let upstream = Upstream::start(|asked: &Asked| {
        if asked.header("authorization") == Some(&header("old")) { honest(asked) } else { Answer::new("401 Unauthorized", "") }
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::prepared(&config, |folder| write_credential(folder, "old", "first")).await;
    assert_eq!(stage.tea("v1.0.0.info").await.status, 200);
    std::fs::remove_file(stage.folder().join("credentials/credential.corp")).unwrap();
    put(&stage.folder().join("credentials/generation"), "second");
    eventually("the withdrawal", async || uses(&stage, "second").await).await;
    let got = stage.tea("v1.1.0.info").await;
    assert!(got.status == 502 && got.text().contains("the credential corp is missing"), "{got:?}");
    assert_eq!(upstream.take_seen().len(), 1);
}

#[tokio::test]
async fn a_new_configuration_waits_for_the_credential_that_it_names_but_not_for_ever() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let named = |name: &str| {
        let mut config = config(&[&upstream]);
        config.upstreams[0].credential = Some(name.to_owned());
        config
    };
    let before = report(&stage).await.config;
    stage.configure(&named("corp"));
    // Longer than the proxy takes to see it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(report(&stage).await.config, before);
    assert_eq!(stage.tea("v1.0.0.info").await.status, 200, "the ConfigMap is here before the Secret");
    write_credential(stage.folder(), "good", "first");
    eventually("the credential", async || uses(&stage, "first").await).await;
    assert_eq!(stage.tea("v1.1.0.info").await.status, 200);
    assert_eq!(upstream.last().header("authorization"), Some(header("good").as_str()));

    let before = report(&stage).await.config;
    stage.configure(&named("nobodys"));
    eventually("a configuration whose credential does not come", async || report(&stage).await.config != before).await;
    let got = stage.tea("v1.2.0.info").await;
    assert!(got.status == 502 && got.text().contains("the credential nobodys is missing"), "{got:?}");
}

#[tokio::test]
async fn files_that_cannot_be_read_are_no_new_configuration() {
    let upstream = Upstream::start(|asked: &Asked| {
        if asked.header("authorization") == Some(&header("good")) { honest(asked) } else { Answer::new("401 Unauthorized", "") }
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::prepared(&config, |folder| write_credential(folder, "good", "first")).await;
    for (i, name) in ["credentials/credential.corp", "config/proxy.yaml"].into_iter().enumerate() {
        // A link that leads nowhere takes the file's place, as while the kubelet writes; a look does not see names with a dot.
        let (file, aside) = (stage.folder().join(name), stage.folder().join(name).with_file_name(".aside"));
        std::fs::rename(&file, &aside).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        let unread = || stage.log().matches("can't be read").count();
        let changed = || ["configuration reloaded", "can't be used"].iter().any(|say| stage.log().contains(say));
        eventually("a look at it", async || unread() > i || changed()).await;
        let now = report(&stage).await;
        assert_eq!((changed(), now.credentials.as_str(), now.refused), (false, "first", None), "{name}");
        assert_eq!(stage.tea(&format!("v1.{i}.0.info")).await.status, 200, "{name}");
        std::fs::rename(&aside, &file).unwrap();
    }
    write_credential(stage.folder(), "good", "second");
    eventually("the next generation", async || uses(&stage, "second").await).await;
    let said = |what: &str| stage.log().matches(what).count();
    assert_eq!((said("can't be read"), said("configuration reloaded")), (2, 1), "each once");
}

#[tokio::test]
async fn a_limit_that_is_taken_out_of_the_configuration_is_in_force_no_more() {
    let upstream = Upstream::start(honest).await;
    let unlimited = config(&[&upstream]);
    let limited = gomodcache::config::ProxyConfig { cache_limit: Some(1 << 30), ..unlimited.clone() };
    let stage = Stage::start(&limited).await;
    let limit = async || stage.metric("gomodcache_cache_limit_bytes", &[]).await;
    assert_eq!(limit().await, f64::from(1 << 30));
    stage.configure(&unlimited);
    eventually("the file system's", async || limit().await != f64::from(1 << 30)).await;
}

#[tokio::test]
async fn what_one_upstream_does_not_have_is_asked_of_the_one_that_takes_its_place() {
    let (empty, full) = (Upstream::start(|_: &Asked| Answer::not_found()).await, Upstream::start(honest).await);
    let stage = Stage::start(&config(&[&empty])).await;
    assert_eq!(stage.tea("v1.0.0.info").await.status, 404);
    let reloaded = std::time::Instant::now();
    stage.configure(&config(&[&full]));
    eventually("the other upstream", async || stage.tea("v1.0.0.info").await.status == 200).await;
    assert!(reloaded.elapsed() < Duration::from_secs(8), "not when the absence was forgotten anyway");
}

#[tokio::test]
async fn an_absence_that_comes_after_a_change_is_one_of_the_sources_before() {
    let gate = Gate::closed();
    let held = gate.clone();
    let empty = Upstream::start(move |_: &Asked| Answer::not_found().held_after(0, &held)).await;
    let full = Upstream::start(honest).await;
    let mut patient = config(&[&empty]);
    patient.upstreams[0].timeouts.idle = PATIENCE;
    let stage = Stage::start(&patient).await;
    let change = async {
        eventually("both questions", async || empty.paths().len() == 2).await;
        stage.configure(&config(&[&full]));
        eventually("the other upstream", async || stage.log().contains("configuration reloaded")).await;
        gate.open();
    };
    let (info, list, ()) = tokio::join!(stage.tea("v1.0.0.info"), stage.tea("main.info"), change);
    assert_eq!((info.status, list.status), (404, 404), "who asked then has that answer");
    assert_eq!((stage.tea("v1.0.0.info").await.status, stage.tea("main.info").await.status), (200, 200));
}

#[tokio::test]
async fn a_list_is_of_the_sources_in_use_and_an_old_one_helps_in_an_outage_only() {
    let list = |text: &'static str| move |asked: &Asked| if asked.path.ends_with("/list") { Answer::ok(text) } else { Answer::not_found() };
    let (old, new) = (Upstream::start(list("v1.0.0\n")).await, Upstream::start(list("v1.1.0\n")).await);
    let stage = Stage::start(&config(&[&old])).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    stage.kept(".gomodcache/mutable/corp.example/!tea/@v/list").await;
    let reloaded = std::time::Instant::now();
    stage.configure(&config(&[&new]));
    eventually("the new list", async || stage.tea("list").await.text() == "v1.1.0\n").await;
    assert!(reloaded.elapsed() < Duration::from_secs(15), "not when the old list was no longer fresh anyway");
    let broken = Upstream::start(|_: &Asked| Answer::new("503 Service Unavailable", "")).await;
    stage.configure(&config(&[&broken]));
    eventually("an outage", async || stage.tea("list").await.header("cache-status").ends_with("detail=stale")).await;
    assert_eq!(stage.tea("list").await.text(), "v1.1.0\n");
}

#[tokio::test]
async fn nobody_joins_a_download_of_an_earlier_configuration_and_it_is_not_kept() {
    let gate = Gate::closed();
    let held = gate.clone();
    let slow =
        Upstream::start(
            move |asked: &Asked| {
                if asked.is("info") { Answer::ok(r#"{"Version":"v1.0.0","Old":1}"#).held_after(10, &held) } else { honest(asked) }
            },
        )
        .await;
    let quick =
        Upstream::start(|asked: &Asked| if asked.is("info") { Answer::ok(r#"{"Version":"v1.0.0","New":1}"#) } else { honest(asked) });
    let quick = quick.await;
    let mut patient = config(&[&slow]);
    patient.upstreams[0].timeouts.idle = PATIENCE;
    let stage = Stage::start(&patient).await;
    let change = async {
        eventually("the download", async || !slow.take_seen().is_empty()).await;
        stage.configure(&config(&[&quick]));
        eventually("the other upstream", async || stage.log().contains("configuration reloaded")).await;
        assert!(stage.tea("v1.0.0.info").await.text().contains("New"));
        gate.open();
    };
    let (old, ()) = tokio::join!(stage.tea("v1.0.0.info"), change);
    assert!(old.text().contains("Old"), "who asked then has that answer");
    assert!(stage.tea("v1.0.0.info").await.text().contains("New"));
    stage.kept("corp.example/!tea/@v/v1.0.0.info").await;
    assert!(std::fs::read_to_string(stage.path("corp.example/!tea/@v/v1.0.0.info")).unwrap().contains("New"));
}

/// Those of some hosts change every few minutes.
#[tokio::test]
async fn a_download_that_was_begun_before_new_addresses_and_another_limit_is_joined_and_kept() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream =
        Upstream::start(
            move |asked: &Asked| if asked.is("zip") { Answer::ok(zip("v1.0.0", LONG)).held_after(LONG / 2, &held) } else { honest(asked) },
        )
        .await;
    let pinned = |addresses: &[&str]| PinnedHost {
        host: "storage.example".to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let mut config = config(&[&upstream]);
    config.upstreams[0].timeouts.idle = PATIENCE;
    config.resolution = Resolution::Pinned { hosts: vec![pinned(&["203.0.113.7"])] };
    let stage = Stage::start(&config).await;
    let change = async {
        eventually("the download", async || !upstream.paths().is_empty()).await;
        config.resolution = Resolution::Pinned { hosts: vec![pinned(&["203.0.113.8"])] };
        config.cache_limit = Some(1 << 40);
        stage.configure(&config);
        eventually("the new addresses", async || stage.log().contains("configuration reloaded")).await;
        let joins = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            gate.open();
        };
        tokio::join!(stage.tea("v1.0.0.zip"), joins).0
    };
    let (first, second) = tokio::join!(stage.tea("v1.0.0.zip"), change);
    assert!(first.is(&zip("v1.0.0", LONG)) && second.is(&zip("v1.0.0", LONG)));
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    assert_eq!(upstream.take_paths().len(), 1);
}

#[tokio::test]
async fn a_malformed_new_credential_or_configuration_keeps_the_old_one_and_counts() {
    let upstream = Upstream::start(|asked: &Asked| {
        if asked.header("authorization") == Some(&header("old")) { honest(asked) } else { Answer::new("401 Unauthorized", "") }
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::prepared(&config, |folder| write_credential(folder, "old", "first")).await;
    let failures = async || stage.metric("gomodcache_config_reload_failures_total", &[]).await;
    put(&stage.folder().join("credentials/credential.corp"), "{\"password\": \"hunter2");
    eventually("the refusal of the credential", async || failures().await == 1.0).await;
    assert_eq!(stage.tea("v1.0.0.info").await.status, 200);
    put(&stage.folder().join("config/proxy.yaml"), "version: 1\nupstream: []\n");
    eventually("the refusal of the configuration", async || failures().await == 2.0).await;
    assert_eq!(stage.tea("v1.1.0.info").await.status, 200);
    assert!(uses(&stage, "first").await);
    assert!(!stage.log().contains("hunter2"));
}
