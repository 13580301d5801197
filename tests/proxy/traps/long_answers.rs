//! Answers that are far longer than any honest one of their kind.

use gomodcache::config::{LookAhead, ProxyConfig, Timeouts};

use crate::stage::{PATIENCE, Stage, config, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest, packed};

const LENGTH: usize = 15 << 20;
const MANY: usize = 14;
/// Of the whole process.
const MOST: u64 = 170 << 20;

/// Every go.mod file but that of v1.0.0 is some kilobytes of gzip, and megabytes when it is unpacked.
async fn bombs() -> (Upstream, ProxyConfig) {
    let bomb = packed(&[b"module corp.example/Tea\n".as_slice(), &vec![b'\n'; LENGTH]].concat());
    let requires: Vec<String> = (1..=MANY).map(|i| format!("require corp.example/Tea v1.{i}.0\n")).collect();
    let first = format!("module corp.example/Tea\n\ngo 1.16\n\n{}", requires.concat());
    let upstream = Upstream::start(move |asked: &Asked| match asked.file() {
        Some(("v1.0.0", "mod")) => Answer::ok(first.clone()),
        Some((_, "mod")) => Answer::ok(bomb.clone()).with("Content-Encoding", "gzip"),
        _ => honest(asked),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].timeouts = Timeouts { connect: PATIENCE, head: PATIENCE, idle: PATIENCE };
    (upstream, config)
}

#[tokio::test]
async fn go_mod_files_that_unpack_to_megabytes_are_served_and_do_not_fill_the_memory() {
    let (_upstream, config) = bombs().await;
    let stage = Stage::start(&config).await;
    let asked = (1..=MANY).map(async |i| stage.tea(&format!("v1.{i}.0.mod")).await.body.map(|body| body.len()));
    for length in futures::future::join_all(asked).await {
        assert!(length.is_some_and(|length| length > LENGTH));
    }
    let peak = stage.peak_memory();
    assert!(peak < MOST, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn what_is_fetched_ahead_does_not_fill_the_memory_either() {
    let (_upstream, config) = bombs().await;
    let stage = Stage::start(&ProxyConfig { look_ahead: LookAhead::All, ..config }).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.status, 200);
    eventually("all were tried", async || stage.metric("gomodcache_look_ahead_total", &[]).await >= MANY as f64).await;
    let peak = stage.peak_memory();
    assert!(peak < MOST, "{} MiB", peak >> 20);
    assert_eq!(stage.metric("gomodcache_look_ahead_total", &["result=\"failed\""]).await, 0.0, "no upstream is in trouble");
    // One that there was no room for ahead is there for who asks for it.
    assert_eq!(stage.tea(&format!("v1.{MANY}.0.mod")).await.status, 200);
}
