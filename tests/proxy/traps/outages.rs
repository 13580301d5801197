//! An upstream that does not answer for a while, and what becomes of those who ask for something when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gomodcache::config::Timeouts;

use crate::stage::{PATIENCE, Stage, config, eventually};
use crate::upstream::{Asked, Gate, Upstream, honest};

const HELD_BACK: &str = "has not answered lately";

/// Asks for one thing after the other until the upstream is left alone. Says how many were tried.
async fn until_it_is_held_back(stage: &Stage) -> usize {
    let mut asked = 0;
    eventually("that it is left alone", async || {
        asked += 1;
        stage.tea(&format!("v0.{asked}.0.info")).await.text().contains(HELD_BACK)
    })
    .await;
    asked - 1
}

/// As a go command asks, which ends the build at the first error.
#[tokio::test]
async fn all_that_is_asked_for_at_once_after_an_outage_is_answered() {
    let (is_away, gate) = (Arc::new(AtomicBool::new(true)), Gate::closed());
    let (away, held) = (Arc::clone(&is_away), gate.clone());
    let upstream = Upstream::start(move |asked: &Asked| match away.load(Ordering::Relaxed) {
        true => honest(asked).closed_after(0),
        // Far away.
        false => honest(asked).held_after(0, &held),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].timeouts = Timeouts { connect: PATIENCE, head: PATIENCE, idle: PATIENCE };
    let stage = Stage::start(&config).await;
    until_it_is_held_back(&stage).await;
    is_away.store(false, Ordering::Relaxed);
    let is_held_back = async || stage.metric("gomodcache_upstream_breaker_open", &[]).await == 1.0;
    eventually("the end of the pause", async || !is_held_back().await).await;
    upstream.take_paths();
    let builds = futures::future::join_all((0..8).map(async |i| stage.tea(&format!("v1.{i}.0.mod")).await.status));
    let answer = async {
        eventually("a probe", async || !upstream.paths().is_empty()).await;
        // The others come meanwhile.
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.open();
    };
    let (statuses, ()) = tokio::join!(builds, answer);
    assert_eq!(statuses, [200; 8]);
}

/// As one file that makes a server crash.
#[tokio::test]
async fn what_fails_each_time_it_is_tried_counts_once_against_its_upstream() {
    let upstream = Upstream::start(|asked: &Asked| honest(asked).closed_after(0)).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    // More of them, where the machine is so slow that a pause is over before the next one.
    let asked = until_it_is_held_back(&stage).await;
    assert!(asked >= 5, "after {asked} of them");
}

#[tokio::test]
async fn a_change_of_something_else_is_no_reason_to_ask_an_upstream_that_does_not_answer() {
    let upstream = Upstream::start(|asked: &Asked| honest(asked).closed_after(0)).await;
    let mut config = config(&[&upstream]);
    let stage = Stage::start(&config).await;
    until_it_is_held_back(&stage).await;
    config.policy.deny = vec!["denied.example/*".to_owned()];
    stage.configure(&config);
    eventually("the new configuration", async || stage.get("/denied.example/m/@v/v1.0.0.mod").await.status == 403).await;
    // A probe, if the pause is over by now, and not five requests.
    let asked = until_it_is_held_back(&stage).await;
    assert!(asked < 5, "after {asked} of them");
}
