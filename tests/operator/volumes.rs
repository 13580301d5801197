//! Volumes that are to grow: where they may, where they may not, and the way back.

use serde_json::{Value, json};

use super::await_children;
use super::stage::{Stage, stage};
use super::storage::provide;

fn spec(size: &str, class: &str, image: &str) -> Value {
    json!({"upstreams": [{"url": "https://203.0.113.7/go"}], "storage": {"size": size, "storageClassName": class}, "image": image,
           "podTemplate": {"nodeSelector": {"tests.example/nowhere": "yes"}}})
}

async fn await_storage(stage: &Stage, cache: &str, truth: &str, reason: &str, words: &[&str]) {
    let told = async || {
        let (status, why, message) = stage.condition(cache, "StorageReady").await;
        status == truth && why == reason && words.iter().all(|word| message.contains(word))
    };
    stage.eventually(&format!("StorageReady={truth}, {reason} with {words:?}"), told).await;
}

async fn request(stage: &Stage, cache: &str) -> Value {
    stage.get("PersistentVolumeClaim", &format!("{cache}-proxy")).await.unwrap().data["spec"]["resources"]["requests"]["storage"].clone()
}

#[tokio::test]
async fn a_class_that_lets_no_volume_grow_is_named_and_the_rest_goes_on_until_the_size_is_taken_back() {
    let Some(stage) = stage("fixed").await else { return };
    let class = format!("static-{}", stage.namespace);
    stage.cache("plum", &spec("2Gi", &class, "proxy.example/p:1")).await;
    await_children(&stage, "plum").await;
    let volume = provide(&stage, "plum", &class, "3Gi").await;
    await_storage(&stage, "plum", "True", "Bound", &[]).await;
    let uid = async || stage.get("PersistentVolumeClaim", "plum-proxy").await.unwrap().metadata.uid;
    let before = uid().await;

    stage.cache("plum", &spec("9Gi", &class, "proxy.example/p:2")).await;
    await_storage(
        &stage,
        "plum",
        "False",
        "ExpansionNotAllowed",
        &[&class, "stays at 3Gi and not 9Gi", "set spec.storage.size back to 3Gi"],
    )
    .await;
    assert_eq!(stage.condition("plum", "Ready").await.1, "ExpansionNotAllowed");
    assert_eq!(stage.condition("plum", "ConfigurationApplied").await.1, "NoPodReady", "the size of the volume is no part of it");
    assert_eq!(stage.status("plum").await["observedGeneration"], 2);
    let deployment = stage.get("Deployment", "plum-proxy").await.unwrap();
    assert_eq!(deployment.data["spec"]["template"]["spec"]["containers"][0]["image"], "proxy.example/p:2", "the refusal held up the rest");
    assert_eq!(stage.status("plum").await["storage"]["requested"], "2Gi");

    // Not below what the volume has, which the schema forbids; and that much need not be asked for.
    stage.cache("plum", &spec("3Gi", &class, "proxy.example/p:2")).await;
    await_storage(&stage, "plum", "True", "Bound", &[]).await;
    assert_eq!(request(&stage, "plum").await, "2Gi");
    assert_ne!(stage.condition("plum", "Ready").await.1, "ExpansionNotAllowed");
    assert_eq!(uid().await, before, "a claim with a volume was made anew");
    stage.delete("PersistentVolume", &volume).await;
}

#[tokio::test]
async fn a_volume_is_in_use_while_it_grows_and_a_size_that_cannot_be_had_is_taken_back() {
    let Some(stage) = stage("growing").await else { return };
    let class = format!("grows-{}", stage.namespace);
    stage
        .apply(&json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
            "provisioner": "tests.example/none", "allowVolumeExpansion": true}))
        .await;
    let sized = async |size: &str| drop(stage.cache("plum", &spec(size, &class, "proxy.example/p:1")).await);
    sized("2Gi").await;
    await_children(&stage, "plum").await;
    let volume = provide(&stage, "plum", &class, "3Gi").await;
    await_storage(&stage, "plum", "True", "Bound", &[]).await;

    sized("9Gi").await;
    await_storage(&stage, "plum", "True", "Growing", &["from 3Gi to 9Gi"]).await;
    // What a driver's controller says, since none is at work here.
    let claim_says = async |status: Value| stage.patch_status("PersistentVolumeClaim", "plum-proxy", &json!({ "status": status })).await;
    let pending = json!({"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    claim_says(json!({"conditions": [pending]})).await;
    await_storage(&stage, "plum", "True", "Growing", &["the file system follows"]).await;
    let stage_of = |stage: &str| json!({"conditions": null, "allocatedResources": {"storage": "9Gi"}, "allocatedResourceStatuses": {"storage": stage}});
    claim_says(stage_of("ControllerResizeInfeasible")).await;
    await_storage(&stage, "plum", "False", "ExpansionFailed", &["from 3Gi to 9Gi", "back to 3Gi"]).await;

    // To less than was asked for, and to no more than there is: the API server lets the first be requested.
    sized("5Gi").await;
    stage.eventually("the request is taken back", async || request(&stage, "plum").await == "5Gi").await;
    claim_says(stage_of("ControllerResizeInfeasible")).await;
    await_storage(&stage, "plum", "False", "ExpansionFailed", &["from 3Gi to 5Gi"]).await;
    sized("3Gi").await;
    await_storage(&stage, "plum", "True", "Bound", &[]).await;
    assert_ne!(stage.condition("plum", "Ready").await.1, "ChildRefused");
    stage.settle("plum").await;

    // What is on the way, or was raised by someone else, stays.
    claim_says(json!({"allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"}})).await;
    await_storage(&stage, "plum", "True", "Growing", &["from 3Gi to 5Gi"]).await;
    assert_eq!(request(&stage, "plum").await, "5Gi");
    stage.delete("PersistentVolume", &volume).await;
    stage.delete("StorageClass", &class).await;
}

#[tokio::test]
async fn a_claim_that_never_had_a_volume_is_made_anew_as_the_spec_has_it() {
    let Some(stage) = stage("anew").await else { return };
    let claim = async || stage.get("PersistentVolumeClaim", "pear-proxy").await.unwrap();
    stage.cache("pear", &spec("1Gi", "absent", "proxy.example/p:1")).await;
    await_children(&stage, "pear").await;
    for (size, image) in [("2Gi", "proxy.example/p:2"), ("1Gi", "proxy.example/p:3")] {
        stage.eventually("the claim has its phase", async || claim().await.data["status"]["phase"] == "Pending").await;
        let before = claim().await.metadata.uid;
        stage.cache("pear", &spec(size, "absent", image)).await;
        stage
            .eventually(&format!("another claim of {size}"), async || {
                let found = stage.get("PersistentVolumeClaim", "pear-proxy").await;
                found.is_some_and(|claim| claim.metadata.uid != before && claim.data["spec"]["resources"]["requests"]["storage"] == size)
            })
            .await;
        stage.eventually("the status says so", async || stage.status("pear").await["storage"]["requested"] == size).await;
        assert_ne!(stage.condition("pear", "Ready").await.1, "ChildRefused");
        let deployment = stage.get("Deployment", "pear-proxy").await.unwrap();
        assert_eq!(deployment.data["spec"]["template"]["spec"]["containers"][0]["image"], image);
    }
    stage.settle("pear").await;
    let before = claim().await;
    stage.annotate("pear", "tests.example/look", "again").await;
    stage.settle("pear").await;
    assert_eq!(claim().await.metadata.uid, before.metadata.uid, "once is enough");

    // Under Retain it outlives its cache, and the next one of that name wants another.
    stage.delete("GoModuleCache", "pear").await;
    stage.eventually("the Deployment has gone", async || stage.get("Deployment", "pear-proxy").await.is_none()).await;
    let mut of_one_pod = spec("1Gi", "other", "proxy.example/p:3");
    of_one_pod["storage"]["accessMode"] = json!("ReadWriteOncePod");
    stage.cache("pear", &of_one_pod).await;
    await_children(&stage, "pear").await;
    let is_new = async || {
        let spec = &stage.get("PersistentVolumeClaim", "pear-proxy").await.map(|claim| claim.data["spec"].clone()).unwrap_or_default();
        spec["accessModes"] == json!(["ReadWriteOncePod"]) && spec["storageClassName"] == "other"
    };
    stage.eventually("the claim is the new cache's", is_new).await;
    assert_eq!(stage.get("Deployment", "pear-proxy").await.unwrap().data["spec"]["strategy"]["type"], "Recreate");
}

#[tokio::test]
async fn a_claim_that_is_another_than_was_applied_by_no_wish_of_the_user_is_left_alone() {
    let Some(stage) = stage("webhook").await else { return };
    // What a webhook that rounds up would have stored: the operator's own mark, and a size that it never asked for.
    stage.cache("pear", &spec("1Gi", "absent", "proxy.example/p:1")).await;
    await_children(&stage, "pear").await;
    stage.settle("pear").await;
    let original = stage.get("PersistentVolumeClaim", "pear-proxy").await.unwrap();
    stage.cache("pear", &json!({"paused": true, "storage": {"size": "1Gi", "storageClassName": "absent"}})).await;
    stage.eventually("it is paused", async || stage.condition("pear", "Paused").await.0 == "True").await;
    stage.delete("PersistentVolumeClaim", "pear-proxy").await;
    stage.eventually("the claim has gone", async || stage.get("PersistentVolumeClaim", "pear-proxy").await.is_none()).await;
    let mut spec_of = original.data["spec"].clone();
    spec_of["resources"]["requests"]["storage"] = json!("2Gi");
    let metadata = json!({"name": "pear-proxy", "labels": original.metadata.labels, "annotations": original.metadata.annotations});
    stage.apply(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec_of})).await;
    let rounded = stage.get("PersistentVolumeClaim", "pear-proxy").await.unwrap().metadata.uid;
    stage.cache("pear", &spec("1Gi", "absent", "proxy.example/p:2")).await;
    stage.eventually("it goes on", async || stage.condition("pear", "Paused").await.0.is_empty()).await;
    stage.settle("pear").await;
    assert_eq!(stage.get("PersistentVolumeClaim", "pear-proxy").await.unwrap().metadata.uid, rounded);
    assert_ne!(stage.condition("pear", "Ready").await.1, "ChildRefused");
}
