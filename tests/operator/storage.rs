//! Claims, classes and volumes.

use serde_json::{Value, json};

use super::await_children;
use super::proxies::{Proxy, make_ready, own_pod};
use super::stage::{Stage, stage, stage_alone};

fn sized(size: &str) -> Value {
    json!({"storage": {"size": size}})
}

/// A volume for the claim of a cache, so that the claim is bound: no provisioner is at work here.
pub(crate) async fn provide(stage: &Stage, cache: &str, class: &str, size: &str) -> String {
    let name = format!("{}-{cache}", stage.namespace);
    stage
        .apply(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadWriteMany"], "hostPath": {"path": "/nowhere"}, "storageClassName": class,
            "claimRef": {"namespace": stage.namespace, "name": format!("{cache}-proxy")},
        }}))
        .await;
    name
}

/// No node may have the pods of this test, so it says what a kubelet would.
pub(crate) async fn run_pods(stage: &Stage, cache: &str, address: &str) {
    let pod = own_pod(stage, cache).await;
    make_ready(stage, &pod, address).await;
}

async fn has_default_class(stage: &Stage) -> bool {
    stage
        .list("StorageClass")
        .await
        .iter()
        .any(|class| class.metadata.annotations.iter().flatten().any(|(key, value)| key.ends_with("/is-default-class") && value == "true"))
}

#[tokio::test]
async fn no_default_class_is_reported_with_the_remedy_and_one_that_appears_is_noticed() {
    let Some(stage) = stage_alone("default").await else { return };
    if has_default_class(&stage).await {
        eprintln!("not run: the cluster has a default StorageClass, and a test must not take it away");
        return;
    }
    stage.cache("rye", &json!({})).await;
    stage
        .eventually("the condition says that there is none and what to do", async || {
            let (status, reason, message) = stage.condition("rye", "StorageReady").await;
            let says = |words: &str| message.contains(words);
            status == "False" && reason == "NoDefaultStorageClass" && says("mark one as the default") && says("storageClassName")
        })
        .await;
    assert_eq!(stage.condition("rye", "Ready").await.1, "NoDefaultStorageClass");
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "tests.example/none",
        "metadata": {"name": stage.namespace, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    stage.apply(&class).await;
    stage.eventually("the class is noticed", async || stage.condition("rye", "StorageReady").await.1 == "Provisioning").await;
    stage.delete("StorageClass", &stage.namespace).await;
}

#[tokio::test]
async fn a_missing_storage_class_is_named_and_its_appearance_is_noticed() {
    let Some(stage) = stage("class").await else { return };
    let class = format!("slow-{}", stage.namespace);
    stage.cache("box", &json!({"storage": {"storageClassName": class}})).await;
    stage
        .eventually("the condition names the class", async || {
            let (status, reason, message) = stage.condition("box", "StorageReady").await;
            status == "False" && reason == "StorageClassMissing" && message.contains(&class)
        })
        .await;
    // At rest, and with a class for whose sake no controller touches the claim: nothing but the operator's own look finds it.
    stage.settle("box").await;
    let made = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": "tests.example/none", "volumeBindingMode": "WaitForFirstConsumer"});
    stage.apply(&made).await;
    stage.eventually("the class is noticed", async || stage.condition("box", "StorageReady").await.1 == "Provisioning").await;
    stage.delete("StorageClass", &class).await;
}

#[tokio::test]
async fn a_cache_is_ready_with_a_volume_a_pod_and_an_upstream_and_its_capacity_binds_the_size() {
    let Some(stage) = stage("ready").await else { return };
    let class = format!("static-{}", stage.namespace);
    let spec = |url: &str| {
        json!({"upstreams": [{"url": url}], "storage": {"size": "2Gi", "storageClassName": class},
               "podTemplate": {"nodeSelector": {"tests.example/nowhere": "yes"}}})
    };
    stage.cache("plum", &spec("https://203.0.113.7/go")).await;
    await_children(&stage, "plum").await;
    let ready = async || {
        let (status, reason, _) = stage.condition("plum", "Ready").await;
        (status, reason)
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    stage.eventually("it wants a volume", async || ready().await == is("False", "StorageClassMissing")).await;
    assert_eq!(stage.condition("plum", "Available").await.1, "NoPodAvailable");

    let volume = provide(&stage, "plum", &class, "3Gi").await;
    stage.eventually("the storage is ready", async || stage.condition("plum", "StorageReady").await.0 == "True").await;
    assert_eq!(ready().await, is("False", "NoPodAvailable"), "a volume alone serves nobody");
    assert_eq!(stage.status("plum").await["storage"], json!({"requested": "2Gi", "capacity": "3Gi", "onDelete": "Retained"}));

    let _proxy = Proxy::start(&stage, "plum", "127.77.2.1").await;
    run_pods(&stage, "plum", "127.77.2.1").await;
    stage.eventually("the cache is ready", async || ready().await == is("True", "Ready")).await;
    for kind in ["Available", "CredentialsReady", "EgressReady", "ConfigurationApplied"] {
        assert_eq!(stage.condition("plum", kind).await.0, "True", "{kind}");
    }
    assert_eq!(stage.status("plum").await["readyReplicas"], 1);

    let error = stage.try_patch("GoModuleCache", "plum", &json!({"spec": {"storage": {"size": "1Gi"}}})).await.unwrap_err();
    assert!(error.contains("not shrink below the volume's present capacity"), "{error}");

    stage.cache("plum", &spec("https://nowhere.corp.example/go")).await;
    stage.eventually("pods alone are not enough", async || ready().await == is("False", "HostNotResolved")).await;
    assert_eq!(stage.condition("plum", "Available").await.0, "True");
    stage.delete("PersistentVolume", &volume).await;
}

#[tokio::test]
async fn a_claim_of_someone_else_is_not_taken_up() {
    let Some(stage) = stage("foreign").await else { return };
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "teak-proxy"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "7Gi"}}}});
    stage.apply(&claim).await;
    let before = stage.get("PersistentVolumeClaim", "teak-proxy").await.unwrap();
    stage.cache("teak", &sized("9Gi")).await;
    stage
        .eventually("the condition says ClaimMismatch", async || {
            let (status, reason, message) = stage.condition("teak", "StorageReady").await;
            status == "False" && reason == "ClaimMismatch" && message.contains("teak-proxy")
        })
        .await;
    let after = stage.get("PersistentVolumeClaim", "teak-proxy").await.unwrap();
    assert_eq!((after.metadata.labels, &after.data["spec"]), (before.metadata.labels, &before.data["spec"]));
    assert!(stage.get("Deployment", "teak-proxy").await.is_none(), "pods would write to someone else's volume");
    stage.delete("PersistentVolumeClaim", "teak-proxy").await;
    stage.eventually("the cache gets a claim of its own", async || stage.status("teak").await["storage"]["requested"] == "9Gi").await;
}

#[tokio::test]
async fn a_cache_for_many_nodes_over_a_claim_for_one_has_one_pod_and_says_why_until_the_claim_is_another() {
    let Some(stage) = stage("modes").await else { return };
    let class = format!("modes-{}", stage.namespace);
    let spec = |mode: &str, replicas: i32| {
        json!({"upstreams": [{"url": "https://203.0.113.7/go"}], "replicas": replicas,
            "storage": {"size": "1Gi", "storageClassName": class, "accessMode": mode},
            "podTemplate": {"nodeSelector": {"tests.example/nowhere": "yes"}}})
    };
    stage.cache("oak", &spec("ReadWriteOnce", 1)).await;
    await_children(&stage, "oak").await;
    let volume = provide(&stage, "oak", &class, "1Gi").await;
    stage.eventually("the claim is bound", async || stage.condition("oak", "StorageReady").await.0 == "True").await;
    stage.delete("GoModuleCache", "oak").await;
    stage.eventually("the pods have gone", async || stage.get("Deployment", "oak-proxy").await.is_none()).await;

    stage.cache("oak", &spec("ReadWriteMany", 2)).await;
    stage
        .eventually("the condition says ClaimMismatch", async || {
            let (status, reason, message) = stage.condition("oak", "StorageReady").await;
            let says = ["oak-proxy", "made with ReadWriteOnce", "asks for ReadWriteMany", "delete the claim"];
            status == "False" && reason == "ClaimMismatch" && says.iter().all(|words| message.contains(words))
        })
        .await;
    let pods = async || {
        let spec = stage.get("Deployment", "oak-proxy").await.map(|deployment| deployment.data["spec"].clone()).unwrap_or_default();
        (spec["strategy"]["type"].as_str().unwrap_or_default().to_owned(), spec["replicas"].as_i64())
    };
    stage.eventually("one pod, replaced at once", async || pods().await == ("Recreate".to_owned(), Some(1))).await;
    assert!(stage.get("PodDisruptionBudget", "oak-proxy").await.is_none());

    stage.delete("PersistentVolumeClaim", "oak-proxy").await;
    stage.eventually("two pods, one by one", async || pods().await == ("RollingUpdate".to_owned(), Some(2))).await;
    stage.eventually("a budget", async || stage.get("PodDisruptionBudget", "oak-proxy").await.is_some()).await;
    stage.eventually("the mismatch is over", async || stage.condition("oak", "StorageReady").await.1 != "ClaimMismatch").await;

    stage.delete("PersistentVolume", &volume).await;
}

#[tokio::test]
async fn a_claim_follows_the_deletion_policy_back_and_forth() {
    let Some(stage) = stage("policy").await else { return };
    let owners = async || {
        stage.get("PersistentVolumeClaim", "lime-proxy").await.and_then(|claim| claim.metadata.owner_references).unwrap_or_default()
    };
    for (policy, said, count) in [("Delete", "Deleted", 1), ("Retain", "Retained", 0), ("Delete", "Deleted", 1)] {
        stage.cache("lime", &json!({"storage": {"deletionPolicy": policy}})).await;
        stage.eventually(&format!("under {policy} the claim has {count} owners"), async || owners().await.len() == count).await;
        stage.eventually("the status says so", async || stage.status("lime").await["storage"]["onDelete"] == said).await;
    }
}

#[tokio::test]
async fn deleting_a_cache_takes_its_children_and_under_delete_the_claim() {
    let Some(stage) = stage("delete").await else { return };
    stage.cache("keep", &json!({})).await;
    stage.cache("lose", &json!({"storage": {"deletionPolicy": "Delete"}})).await;
    for cache in ["keep", "lose"] {
        await_children(&stage, cache).await;
        stage.delete("GoModuleCache", cache).await;
        for (kind, name) in super::children(cache) {
            stage.eventually(&format!("{kind} {name} has gone"), async || stage.get(kind, &name).await.is_none()).await;
        }
    }
    stage.eventually("the claim has gone", async || stage.get("PersistentVolumeClaim", "lose-proxy").await.is_none()).await;
    let kept = stage.get("PersistentVolumeClaim", "keep-proxy").await.expect("the claim stays under Retain");
    assert_eq!(kept.metadata.deletion_timestamp, None);
}
