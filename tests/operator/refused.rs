//! What the API server or the operator's own checks refuse becomes a sentence in the status, never silence.

use serde_json::{Value, json};

use super::await_children;
use super::stage::stage;

#[tokio::test]
async fn a_child_that_the_api_server_refuses_is_reported_and_no_pod_runs_without_it() {
    let Some(stage) = stage("quota").await else { return };
    let hard = json!({"services": "1", "persistentvolumeclaims": "0"});
    stage.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}, "spec": {"hard": hard}})).await;
    let taken_up = async || stage.list("ResourceQuota").await.iter().any(|quota| !quota.data["status"]["hard"].is_null());
    stage.eventually("the quota is in force", taken_up).await;
    stage.cache("palm", &json!({})).await;
    stage
        .eventually("the condition has the server's words", async || {
            let (status, reason, message) = stage.condition("palm", "Ready").await;
            status == "False" && reason == "ChildRefused" && message.contains("Service palm") && message.contains("exceeded quota")
        })
        .await;
    for kind in ["Available", "StorageReady"] {
        let (status, reason, message) = stage.condition("palm", kind).await;
        assert_eq!((status.as_str(), reason.as_str()), ("False", "ChildRefused"), "{kind}");
        assert!(message.contains("PersistentVolumeClaim palm-proxy"), "{kind}: {message}");
    }
    assert!(stage.get("Deployment", "palm-proxy").await.is_none(), "pods without the Service that was refused");
    assert!(stage.get("ConfigMap", "palm-env").await.is_some(), "one refusal held up the other children");
    stage.delete("ResourceQuota", "tight").await;
    await_children(&stage, "palm").await;
    stage.eventually("the refusal is over", async || stage.condition("palm", "Ready").await.1 != "ChildRefused").await;
}

#[tokio::test]
async fn a_pod_template_that_no_pod_can_have_is_reported_until_it_is_mended() {
    let Some(stage) = stage("template").await else { return };
    let spec = |memory: &Value| json!({"podTemplate": {"resources": {"requests": {"memory": memory}, "limits": {"memory": "64Mi"}}}});
    stage.cache("bean", &spec(&json!("1Gi"))).await;
    stage
        .eventually("the condition names the Deployment and the fault", async || {
            let (status, reason, message) = stage.condition("bean", "Ready").await;
            status == "False" && reason == "ChildRefused" && message.contains("Deployment bean-proxy") && message.contains("memory limit")
        })
        .await;
    assert_eq!(stage.condition("bean", "Available").await.1, "ChildRefused");
    stage.cache("bean", &spec(&json!(1_000_000))).await;
    await_children(&stage, "bean").await;
}

#[tokio::test]
async fn a_url_that_only_the_schema_lets_through_is_an_invalid_spec() {
    let Some(stage) = stage("url").await else { return };
    for (cache, url) in [("port", "https://modules.corp.example:99999/go"), ("loud", "HTTP://modules.corp.example/go")] {
        stage.cache(cache, &json!({"upstreams": [{"url": url}]})).await;
        stage
            .eventually("the condition names the field", async || {
                let (status, reason, message) = stage.condition(cache, "Ready").await;
                status == "False" && reason == "InvalidSpec" && message.contains("spec.upstreams[0].url")
            })
            .await;
        assert_eq!(stage.status(cache).await["observedGeneration"], 1);
        stage.cache(cache, &json!({"upstreams": [{"url": "https://modules.corp.example/go"}]})).await;
        await_children(&stage, cache).await;
        stage.eventually("the reason is gone", async || stage.condition(cache, "Ready").await.1 != "InvalidSpec").await;
    }
}
