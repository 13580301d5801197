//! Several operators, of which one works.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::stage::{Stage, audited, stage_alone};
use super::{all_versions, await_children, without_names};

/// The writes of one pod's operator that the API server received after this time.
fn writes_of(pod: &str, after: Timestamp) -> Option<Vec<String>> {
    let by = format!("({pod})");
    let is_write = |event: &&Value| ["create", "update", "patch", "delete"].iter().any(|verb| event["verb"] == *verb);
    let events = audited()?;
    let writes = events.iter().filter(|event| event["userAgent"].as_str().is_some_and(|agent| agent.ends_with(&by))).filter(is_write);
    let later = writes.filter(|event| event["requestReceivedTimestamp"].as_str().unwrap().parse::<Timestamp>().unwrap() > after);
    Some(later.map(|event| format!("{} {}", event["verb"], event["requestURI"])).collect())
}

async fn has_children(stage: &Stage, cache: &str) {
    stage.cache(cache, &without_names()).await;
    await_children(stage, cache).await;
}

#[tokio::test]
async fn another_takes_over_when_the_leader_is_killed_and_at_once_when_it_gives_back_the_lead() {
    let Some(stage) = stage_alone("leader").await else { return };
    let _stopped = stage.without_the_operator().await;
    let begin = Timestamp::now();
    let new = stage.new_operator().with_lease("6s", "4s", "400ms");
    let first = new.start("pod-first");
    stage.eventually("the first leads", async || stage.leader().await == "pod-first").await;
    has_children(&stage, "acer").await;
    let second = new.start("pod-second");
    stage.eventually("the standby is ready", async || second.admin("/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    stage.settle("acer").await;
    let before = all_versions(&stage, "acer").await;
    assert_eq!(
        (first.metric("gomodcache_operator_leader").await, second.metric("gomodcache_operator_leader").await),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(stage.leader().await, "pod-first");
    assert_eq!(writes_of("pod-second", begin).unwrap_or_default(), Vec::<String>::new(), "a standby wrote");

    first.signal("KILL");
    first.ended();
    stage.eventually("the second leads", async || stage.leader().await == "pod-second").await;
    has_children(&stage, "beech").await;
    stage.eventually("the metric says so", async || second.metric("gomodcache_operator_leader").await == Some(1.0)).await;

    let third = new.start("pod-third");
    stage.eventually("the third is ready", async || third.admin("/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    second.signal("TERM");
    second.ended();
    assert_ne!(stage.leader().await, "pod-second", "the lead was not given back");
    stage.eventually("the third leads", async || stage.leader().await == "pod-third").await;
    has_children(&stage, "cedar").await;
    assert_eq!(all_versions(&stage, "acer").await, before, "a change of the leader is no reason to write");
}

#[tokio::test]
async fn a_leader_that_was_stopped_past_its_lease_writes_nothing_when_it_wakes() {
    let Some(stage) = stage_alone("frozen").await else { return };
    let _stopped = stage.without_the_operator().await;
    let new = stage.new_operator();
    let first = new.start("pod-frozen");
    stage.eventually("the first leads", async || stage.leader().await == "pod-frozen").await;
    has_children(&stage, "dill").await;
    let second = new.start("pod-awake");
    first.signal("STOP");
    stage.eventually("the second leads", async || stage.leader().await == "pod-awake").await;
    // Work for whoever believes that it leads.
    let moved = json!({"upstreams": [{"url": "https://203.0.113.9/go"}]});
    stage.cache("dill", &moved).await;
    has_children(&stage, "elder").await;
    let told = async || stage.get("ConfigMap", "dill-config").await.unwrap().data.to_string().contains("203.0.113.9");
    stage.eventually("the change is applied", told).await;
    stage.settle("dill").await;
    stage.settle("elder").await;
    let before = (all_versions(&stage, "dill").await, all_versions(&stage, "elder").await);

    let woken = Timestamp::now();
    first.signal("CONT");
    stage.annotate("dill", "tests.example/touched", "yes").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(first.metric("gomodcache_operator_leader").await, Some(0.0));
    assert_eq!(stage.leader().await, "pod-awake");
    assert_eq!((all_versions(&stage, "dill").await, all_versions(&stage, "elder").await), before);
    match writes_of("pod-frozen", woken) {
        Some(writes) => assert_eq!(writes, Vec::<String>::new()),
        None => eprintln!("the audit log was not looked at (GOMODCACHE_AUDIT_LOG is not set)"),
    }
    // It is a candidate again.
    drop(second);
    stage.eventually("the first leads again", async || stage.leader().await == "pod-frozen").await;
    has_children(&stage, "ferns").await;
}
