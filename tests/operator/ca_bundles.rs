//! Certificates of a user's own: named, missing, wrong, mended.

use serde_json::{Value, json};

use super::await_children;
use super::stage::{Stage, stage};

fn with_bundle() -> Value {
    json!({"upstreams": [{"url": "https://modules.corp.example/go", "caBundleRef": {"name": "corp-ca", "key": "ca.crt"}}]})
}

fn config_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": data})
}

/// A ConfigMap `corp-ca` with a good one under `ca.crt`.
pub(crate) fn bundle() -> Value {
    config_map(&json!({"ca.crt": certificate()}))
}

fn certificate() -> String {
    rcgen::generate_simple_self_signed(["ca.corp.example".to_owned()]).unwrap().cert.pem()
}

/// The bundle of the only upstream in the proxy's configuration.
async fn rendered(stage: &Stage, cache: &str) -> Value {
    let Some(config) = stage.get("ConfigMap", &format!("{cache}-config")).await else { return Value::Null };
    let text = config.data["data"]["proxy.yaml"].as_str().unwrap_or_default().to_owned();
    serde_saphyr::from_str::<Value>(&text).unwrap()["upstreams"][0]["caBundle"].clone()
}

async fn await_reason(stage: &Stage, cache: &str, reason: &str, words: &[&str]) {
    stage
        .eventually(&format!("the condition says {reason} and {words:?}"), async || {
            let (status, is, message) = stage.condition(cache, "CredentialsReady").await;
            status == "False" && is == reason && words.iter().all(|word| message.contains(word))
        })
        .await;
    assert_eq!(stage.condition(cache, "Ready").await.0, "False");
}

async fn await_in_use(stage: &Stage, cache: &str, bundle: &str) {
    stage.eventually("the bundle is in the configuration", async || rendered(stage, cache).await == bundle).await;
    stage.eventually("the condition is true", async || stage.condition(cache, "CredentialsReady").await.0 == "True").await;
}

#[tokio::test]
async fn a_missing_bundle_or_key_is_named_and_its_appearance_is_noticed() {
    let Some(stage) = stage("bundle").await else { return };
    stage.cache("kale", &with_bundle()).await;
    await_reason(&stage, "kale", "CABundleMissing", &["ConfigMap corp-ca does not exist", &stage.namespace, "ca.crt"]).await;
    await_children(&stage, "kale").await;
    assert_eq!(rendered(&stage, "kale").await, Value::Null);

    stage.apply(&config_map(&json!({"other.crt": certificate()}))).await;
    await_reason(&stage, "kale", "CABundleMissing", &["ConfigMap corp-ca has no key ca.crt"]).await;

    let bundle = certificate();
    stage.apply(&config_map(&json!({"ca.crt": bundle}))).await;
    await_in_use(&stage, "kale", &bundle).await;
}

#[tokio::test]
async fn a_bundle_that_goes_bad_or_away_stays_in_use_until_nothing_names_it() {
    let Some(stage) = stage("kept").await else { return };
    let bundle = certificate();
    stage.apply(&config_map(&json!({"ca.crt": bundle}))).await;
    stage.cache("mint", &with_bundle()).await;
    await_in_use(&stage, "mint", &bundle).await;

    stage.apply(&config_map(&json!({"ca.crt": "hello"}))).await;
    await_reason(&stage, "mint", "CABundleMalformed", &["keeps the last good one"]).await;
    stage.delete("ConfigMap", "corp-ca").await;
    await_reason(&stage, "mint", "CABundleMissing", &["keeps the last good one"]).await;
    assert_eq!(rendered(&stage, "mint").await, bundle);

    let rotated = certificate();
    stage.apply(&config_map(&json!({"ca.crt": rotated}))).await;
    await_in_use(&stage, "mint", &rotated).await;
    stage.cache("mint", &json!({"upstreams": [{"url": "https://modules.corp.example/go"}]})).await;
    stage.eventually("without a reference the bundle goes", async || rendered(&stage, "mint").await.is_null()).await;
}

#[tokio::test]
async fn a_bundle_that_is_no_pem_is_reported_and_never_reaches_the_proxy() {
    let Some(stage) = stage("pem").await else { return };
    let torn = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    for (cache, wrong) in [("leek", "hello"), ("dill", torn)] {
        stage.apply(&config_map(&json!({"ca.crt": wrong}))).await;
        stage.cache(cache, &with_bundle()).await;
        await_reason(&stage, cache, "CABundleMalformed", &["ConfigMap corp-ca", "ca.crt", "PEM"]).await;
        await_children(&stage, cache).await;
        assert_eq!(rendered(&stage, cache).await, Value::Null);
    }
    let bundle = format!("# ours\n{}# and theirs\n{}", certificate(), certificate());
    stage.apply(&config_map(&json!({"ca.crt": bundle}))).await;
    await_in_use(&stage, "leek", &bundle).await;
    await_in_use(&stage, "dill", &bundle).await;
}
