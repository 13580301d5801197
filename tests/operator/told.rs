//! What a user is told besides conditions: events, and what a paused cache says.

use serde_json::{Value, json};

use super::proxies::Proxy;
use super::stage::{Stage, stage};
use super::storage::{provide, run_pods};
use super::{all_versions, await_children, without_names};

/// Type and reason of each event about the cache, oldest first.
async fn events(stage: &Stage, cache: &str) -> Vec<(String, String)> {
    let mut events = stage.list("Event").await;
    events.retain(|event| event.data["regarding"]["name"] == cache && event.data["reportingController"] == "gomodcache-operator");
    events.sort_by_key(|event| event.data["eventTime"].as_str().unwrap_or_default().to_owned());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| (text(&event.data["type"]), text(&event.data["reason"]))).collect()
}

fn expected(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(kind, reason)| ((*kind).to_owned(), (*reason).to_owned())).collect()
}

#[tokio::test]
async fn an_event_is_told_when_ready_turns_and_only_then() {
    let Some(stage) = stage("events").await else { return };
    let class = format!("events-{}", stage.namespace);
    stage
        .apply(&json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class}, "provisioner": "tests.example/none"}))
        .await;
    let spec = |url: &str| {
        json!({"upstreams": [{"url": url}], "storage": {"size": "1Gi", "storageClassName": class},
               "podTemplate": {"nodeSelector": {"tests.example/nowhere": "yes"}}})
    };
    let turns = [("Warning", "InvalidSpec"), ("Normal", "Ready")];
    stage.cache("lime", &spec("https://203.0.113.7:99999/go")).await;
    stage.eventually("what is wrong is told", async || events(&stage, "lime").await == expected(&turns[..1])).await;
    stage.cache("lime", &spec("https://203.0.113.7/go")).await;
    await_children(&stage, "lime").await;
    let volume = provide(&stage, "lime", &class, "1Gi").await;
    let _proxy = Proxy::start(&stage, "lime", "127.77.7.1").await;
    run_pods(&stage, "lime", "127.77.7.1").await;
    stage.eventually("it is ready", async || stage.condition("lime", "Ready").await.0 == "True").await;
    stage.eventually("that is told", async || events(&stage, "lime").await == expected(&turns)).await;
    for round in 0..3 {
        stage.annotate("lime", "tests.example/round", &round.to_string()).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert_eq!(events(&stage, "lime").await, expected(&turns), "nothing turned");
    let pods = stage.list("Pod").await;
    stage.delete("Pod", pods[0].metadata.name.as_ref().unwrap()).await;
    let lost = async || {
        let told = events(&stage, "lime").await;
        told.starts_with(&expected(&turns)) && told.get(2).is_some_and(|(kind, _)| kind == "Warning")
    };
    stage.eventually("that it is not is told", lost).await;
    stage.delete("PersistentVolume", &volume).await;
    stage.delete("StorageClass", &class).await;
}

#[tokio::test]
async fn a_paused_cache_is_left_alone_and_says_what_waits() {
    let Some(stage) = stage("paused").await else { return };
    let spec = |address: &str, paused: bool| json!({"upstreams": [{"url": format!("https://{address}/go")}], "paused": paused});
    stage.cache("palm", &without_names()).await;
    await_children(&stage, "palm").await;
    stage.settle("palm").await;
    let before = all_versions(&stage, "palm").await;
    let ready = stage.condition("palm", "Ready").await;

    stage.cache("palm", &spec("203.0.113.7", true)).await;
    stage
        .eventually("the condition says that nothing waits", async || {
            let (status, reason, message) = stage.condition("palm", "Paused").await;
            status == "True" && reason == "PausedBySpec" && message.contains("nothing waits") && message.contains("set it to false")
        })
        .await;
    let generation = async || stage.get("GoModuleCache", "palm").await.unwrap().metadata.generation;
    assert_eq!(stage.status("palm").await["observedGeneration"].as_i64(), generation().await);
    assert_eq!(stage.condition("palm", "Ready").await, ready, "a pause is no verdict on readiness");

    let carried_out = generation().await;
    stage.cache("palm", &spec("203.0.113.9", true)).await;
    stage.delete("ConfigMap", "palm-env").await;
    stage
        .eventually("the condition says what waits", async || {
            let message = stage.condition("palm", "Paused").await.2;
            ["ConfigMap palm-config", "ConfigMap palm-env", "NetworkPolicy palm-proxy"].iter().all(|child| message.contains(child))
        })
        .await;
    stage.settle("palm").await;
    assert!(stage.get("ConfigMap", "palm-env").await.is_none());
    let status = stage.status("palm").await;
    assert_eq!(status["observedGeneration"].as_i64(), carried_out, "a change that was held back counts as seen");
    let upstream = status["effective"]["upstreams"][0].as_str().unwrap().to_owned();
    assert!(upstream.contains("203.0.113.7"), "{upstream} is not in force");
    let told =
        |kind: &str| status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()["observedGeneration"].as_i64();
    assert_eq!((told("Ready"), told("Paused")), (carried_out, generation().await));

    stage.cache("palm", &spec("203.0.113.9", false)).await;
    await_children(&stage, "palm").await;
    stage.eventually("the condition goes", async || stage.condition("palm", "Paused").await.0.is_empty()).await;
    stage.eventually("all is carried out", async || stage.status("palm").await["observedGeneration"].as_i64() == generation().await).await;
    let after = all_versions(&stage, "palm").await;
    let same = before.iter().filter(|version| after.contains(version)).count();
    assert!((3..before.len()).contains(&same), "{before:?} {after:?}");

    stage.cache("pine", &json!({"paused": true})).await;
    stage.eventually("a cache that begins paused", async || stage.condition("pine", "StorageReady").await.1 == "Paused").await;
    stage.settle("pine").await;
    assert!(stage.get("Service", "pine").await.is_none() && stage.get("PersistentVolumeClaim", "pine-proxy").await.is_none());
    assert_eq!(stage.condition("pine", "Ready").await.0, "False");
}

#[tokio::test]
async fn a_name_conflict_that_goes_away_is_noticed_without_a_touch_of_the_cache() {
    let Some(stage) = stage("gone").await else { return };
    let foreign = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    // No label of ours, so no watch tells that it went.
    stage.apply(&foreign("ConfigMap", "vine-config")).await;
    stage.cache("vine", &without_names()).await;
    stage.eventually("the conflict is named", async || stage.condition("vine", "Ready").await.1 == "NameConflict").await;
    stage.settle("vine").await;
    let version = async || stage.get("GoModuleCache", "vine").await.unwrap().metadata.generation;
    let before = version().await;
    stage.delete("ConfigMap", "vine-config").await;
    await_children(&stage, "vine").await;
    stage.eventually("the conflict is over", async || stage.condition("vine", "Ready").await.1 != "NameConflict").await;
    assert_eq!(version().await, before);
}

#[tokio::test]
async fn each_line_of_the_log_says_which_cache_and_generation_it_is_about() {
    let Some(stage) = stage("log").await else { return };
    let mut uids = Vec::new();
    for cache in ["aloe", "basil"] {
        uids.push((cache, stage.cache(cache, &without_names()).await.metadata.uid.unwrap()));
    }
    let lines = || -> Vec<Value> { stage.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    for (cache, uid) in uids {
        await_children(&stage, cache).await;
        stage.cache(cache, &json!({"upstreams": [{"url": "https://203.0.113.9/go"}]})).await;
        for generation in [1, 2] {
            // The object is the cache's own; the span is what tells whose.
            let is_it = |line: &Value| {
                let span = &line["span"];
                let is_of_it = span["namespace"] == stage.namespace.as_str() && span["cache"] == cache && span["uid"] == uid.as_str();
                is_of_it && span["generation"] == generation && line["name"] == format!("{cache}-config") && line["message"] == "applied"
            };
            stage.eventually(&format!("{cache}, generation {generation}"), async || lines().iter().any(is_it)).await;
        }
    }
}
