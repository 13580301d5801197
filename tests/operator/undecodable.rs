//! An object that was stored under a looser schema than this operator's types.

use gomodcache::api;
use serde_json::{Value, json};

use super::await_children;
use super::stage::stage_alone;

fn crd() -> Value {
    serde_saphyr::from_str(&api::crd_yaml().unwrap()).unwrap()
}

/// The CRD as an earlier or later release might have had it: any text is a fallback.
fn looser() -> Value {
    let mut crd = crd();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let fallback = spec["properties"]["upstreams"]["items"]["properties"]["fallback"].as_object_mut().unwrap();
    assert!(fallback.remove("enum").is_some(), "the schema has no list of fallbacks to loosen");
    crd
}

fn spec(fallback: &str) -> Value {
    json!({"upstreams": [{"url": "https://modules.corp.example/go", "fallback": fallback}]})
}

#[tokio::test]
async fn an_object_that_does_not_decode_is_told_of_in_log_event_and_status_and_holds_up_no_other() {
    let Some(stage) = stage_alone("undecodable").await else { return };
    stage.cache("old", &spec("OnError")).await;
    await_children(&stage, "old").await;

    stage.apply(&looser()).await;
    stage.cache("odd", &spec("OnSunday")).await;
    stage.apply(&crd()).await;
    stage
        .eventually("the log names the object", async || {
            stage.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|line| {
                line["span"]["cache"] == "odd"
                    && line["span"]["namespace"] == stage.namespace.as_str()
                    && line["error"].to_string().contains("OnSunday")
            })
        })
        .await;

    stage
        .eventually("an event tells it to whoever looks at the object", async || {
            stage.list("Event").await.iter().any(|event| event.data["regarding"]["name"] == "odd" && event.data["reason"] == "Undecodable")
        })
        .await;

    // What came before it is still kept, and what comes after it is taken up.
    let uid = stage.get("Service", "old").await.unwrap().metadata.uid;
    stage.delete("Service", "old").await;
    stage.cache("new", &spec("OnError")).await;
    await_children(&stage, "new").await;
    stage.eventually("a child is back", async || stage.get("Service", "old").await.is_some_and(|s| s.metadata.uid != uid)).await;
    assert!(stage.get("Service", "odd").await.is_none());

    // In its status, once, whoever looks and however often it is looked at.
    stage
        .eventually("the condition names the field and what to do", async || {
            let (status, reason, message) = stage.condition("odd", "Ready").await;
            let says = |words: &str| message.contains(words);
            status == "False"
                && reason == "Undecodable"
                && says("spec.upstreams[0].fallback")
                && says("OnSunday")
                && says("Correct the field")
        })
        .await;
    assert_eq!(stage.status("odd").await["observedGeneration"], 1);
    stage.settle("odd").await;
    stage.annotate("odd", "tests.example/look", "again").await;
    stage.crash_the_operator();
    let version = async || stage.get("GoModuleCache", "odd").await.unwrap().metadata.resource_version;
    let before = version().await;
    let looked = async || stage.log().lines().filter(|line| line.contains("\"undecodable\"") && line.contains("\"odd\"")).count();
    let looks = looked().await;
    stage.eventually("another operator looks at it", async || looked().await > looks).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(version().await, before, "told twice");

    stage.cache("odd", &spec("OnNotFound")).await;
    await_children(&stage, "odd").await;
    stage.eventually("the word is taken back", async || stage.condition("odd", "Ready").await.1 != "Undecodable").await;
    assert_eq!(
        stage.status("odd").await["observedGeneration"].as_i64(),
        stage.get("GoModuleCache", "odd").await.unwrap().metadata.generation
    );
}
