//! The environment of clients in other namespaces: only where the cache lists them and they ask.

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::await_children;
use super::stage::{Stage, stage};

const ASKS: &str = "gomodcache.io/env-from";

fn publishing(namespaces: &Value) -> Value {
    json!({"upstreams": [{"url": "https://203.0.113.7/go"}], "clients": {"publishTo": {"namespaces": namespaces}, "fallback": "DirectOnNotFound"}})
}

async fn data(config_maps: &Api<DynamicObject>, name: &str) -> Option<Value> {
    config_maps.get_opt(name).await.unwrap().map(|found| found.data["data"].clone())
}

async fn admits(stage: &Stage, cache: &str, namespace: &str) -> bool {
    let policy = stage.get("NetworkPolicy", &format!("{cache}-proxy")).await.unwrap();
    let from = policy.data["spec"]["ingress"][0]["from"].as_array().unwrap().clone();
    from.iter().any(|peer| peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace)
}

#[tokio::test]
async fn a_namespace_gets_the_environment_while_it_is_listed_and_asks_and_no_longer() {
    let Some(stage) = stage("clients").await else { return };
    let (guest, config_maps) = stage.guest(&json!({})).await;
    let ask = async |value: Value| stage.patch("Namespace", &guest, &json!({"metadata": {"labels": {ASKS: value}}})).await;
    let state = async || stage.status("lime").await["clients"].clone();
    let is = |state: &str| json!([{"namespace": guest, "state": state}]);
    stage.cache("lime", &publishing(&json!([guest]))).await;
    await_children(&stage, "lime").await;
    let own = stage.get("ConfigMap", "lime-env").await.unwrap().data["data"].clone();
    assert_eq!(own["GOPROXY"], format!("http://lime.{}.svc:8080,direct", stage.namespace));
    stage.eventually("listed, and it does not ask", async || state().await == is("NotAsked")).await;
    // It asks for another one.
    ask(json!(format!("{}.other", stage.namespace))).await;
    stage.annotate("lime", "tests.example/look", "again").await;
    stage.settle("lime").await;
    assert_eq!(data(&config_maps, "lime-env").await, None);
    assert!(!admits(&stage, "lime", &guest).await);

    let asked = json!(format!("{}.lime", stage.namespace));
    ask(asked.clone()).await;
    stage.at_once("listed, and it asks", async || data(&config_maps, "lime-env").await == Some(own.clone())).await;
    stage.eventually("it says so", async || state().await == is("Published")).await;
    assert!(admits(&stage, "lime", &guest).await);

    // What others write there is put right, as at home.
    let evil = json!({"data": {"GOFLAGS": "-toolexec=evil"}});
    config_maps.patch("lime-env", &PatchParams::default(), &Patch::Merge(evil)).await.unwrap();
    stage.eventually("it is put right", async || data(&config_maps, "lime-env").await == Some(own.clone())).await;

    ask(Value::Null).await;
    stage.eventually("it asks no more", async || data(&config_maps, "lime-env").await.is_none()).await;
    stage.eventually("it says so", async || state().await == is("NotAsked")).await;
    assert!(!admits(&stage, "lime", &guest).await);

    ask(asked).await;
    stage.eventually("it asks again", async || data(&config_maps, "lime-env").await.is_some()).await;
    stage.cache("lime", &publishing(&json!([]))).await;
    stage.eventually("it is not listed", async || data(&config_maps, "lime-env").await.is_none()).await;

    stage.cache("lime", &publishing(&json!([guest]))).await;
    stage.eventually("it is listed again", async || data(&config_maps, "lime-env").await.is_some()).await;
    stage.delete("GoModuleCache", "lime").await;
    stage.eventually("the cache is gone", async || data(&config_maps, "lime-env").await.is_none()).await;
}

#[tokio::test]
async fn a_foreign_config_map_in_another_namespace_stays_and_harms_the_cache_nothing() {
    let Some(stage) = stage("squat").await else { return };
    let (guest, config_maps) = stage.guest(&json!({ASKS: format!("{}.nut", stage.namespace)})).await;
    let foreign =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nut-env"}, "data": {"GOPROXY": "http://theirs.example"}});
    config_maps.patch("nut-env", &PatchParams::apply("tests"), &Patch::Apply(&foreign)).await.unwrap();
    stage.cache("nut", &publishing(&json!([guest]))).await;
    await_children(&stage, "nut").await;
    let conflict = json!([{"namespace": guest, "state": "NameConflict"}]);
    stage.eventually("the conflict is told", async || stage.status("nut").await["clients"] == conflict).await;
    assert_eq!(stage.condition("nut", "Available").await.1, "NoPodAvailable");
    // Longer than a sweep takes to come.
    tokio::time::sleep(std::time::Duration::from_secs(16)).await;
    assert_eq!(data(&config_maps, "nut-env").await, Some(foreign["data"].clone()));
}
