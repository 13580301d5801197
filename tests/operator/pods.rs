//! What a pod of a cache is made of.

use serde_json::{Value, json};

use super::await_children;
use super::stage::{Stage, stage};

async fn template(stage: &Stage, cache: &str) -> Value {
    stage.get("Deployment", &format!("{cache}-proxy")).await.unwrap().data["spec"]["template"].clone()
}

fn everything() -> Value {
    let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]});
    json!({
        "storage": {"accessMode": "ReadWriteMany"},
        "replicas": 2,
        "podTemplate": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
            "annotations": {"tests.example/note": "x"},
            "imagePullSecrets": [{"name": "registry"}],
            "labels": {"team": "a"},
            "nodeSelector": {"zone": "b"},
            "priorityClassName": "system-cluster-critical",
            "resources": {"limits": {"memory": "1Gi"}},
            "serviceAccountName": "theirs",
            "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        },
    })
}

#[tokio::test]
async fn the_pods_of_a_plain_and_of_an_elaborate_cache_keep_to_the_restricted_standard() {
    let Some(stage) = stage("restricted").await else { return };
    let (guest, _) = stage.guest(&json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    stage.cache("fern", &json!({})).await;
    stage.cache("moss", &everything()).await;
    await_children(&stage, "fern").await;
    await_children(&stage, "moss").await;
    let (plain, elaborate) = (template(&stage, "fern").await, template(&stage, "moss").await);

    // Accounts and priorities exist elsewhere; the standard is what is looked at.
    let pod = |template: &Value, change: &dyn Fn(&mut Value)| {
        let mut spec = template["spec"].clone();
        spec["serviceAccountName"] = json!("default");
        spec.as_object_mut().unwrap().remove("serviceAccount");
        spec.as_object_mut().unwrap().remove("priorityClassName");
        change(&mut spec);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": spec})
    };
    let trial = async |pod: Value| stage.try_pod(&guest, &pod).await;
    stage.eventually("the namespace has its account", async || trial(pod(&plain, &|_| {})).await.is_ok()).await;
    trial(pod(&elaborate, &|_| {})).await.unwrap();
    let error = trial(pod(&plain, &|spec| spec["securityContext"]["seccompProfile"]["type"] = json!("Unconfined"))).await.unwrap_err();
    assert!(error.contains("violates PodSecurity"), "the standard is enforced here: {error}");

    let (spec, metadata) = (&elaborate["spec"], &elaborate["metadata"]);
    let wish = everything()["podTemplate"].clone();
    for key in ["affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "serviceAccountName"] {
        assert_eq!(spec[key], wish[key], "{key}");
    }
    assert_eq!((&metadata["labels"]["team"], &metadata["annotations"]), (&json!("a"), &wish["annotations"]));
    assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "moss");
    assert_eq!(spec["topologySpreadConstraints"][0]["topologyKey"], "kubernetes.io/hostname");
    let seconds = |template: &Value, key: &str| {
        let all = template["spec"]["tolerations"].as_array().unwrap();
        let of_key: Vec<Value> = all.iter().filter(|one| one["key"] == key).map(|one| one["tolerationSeconds"].clone()).collect();
        of_key
    };
    assert_eq!(seconds(&plain, "node.kubernetes.io/unreachable"), [json!(30)]);
    assert_eq!(seconds(&plain, "node.kubernetes.io/not-ready"), [json!(30)]);
    assert_eq!(seconds(&elaborate, "node.kubernetes.io/unreachable"), [json!(5)], "the user's own stands");
    assert!(plain["spec"]["topologySpreadConstraints"].is_null() && plain["metadata"]["annotations"].is_null());
}

#[tokio::test]
async fn a_disruption_budget_comes_with_the_second_pod_and_goes_with_it() {
    let Some(stage) = stage("budget").await else { return };
    let many = |replicas: i32| json!({"storage": {"accessMode": "ReadWriteMany"}, "replicas": replicas});
    let budget = async || stage.get("PodDisruptionBudget", "reed-proxy").await;
    stage.cache("reed", &many(1)).await;
    await_children(&stage, "reed").await;
    assert!(budget().await.is_none());
    stage.cache("reed", &many(2)).await;
    stage.eventually("a budget", async || budget().await.is_some_and(|b| b.data["spec"]["maxUnavailable"] == 1)).await;
    stage.cache("reed", &many(1)).await;
    stage.eventually("no budget", async || budget().await.is_none()).await;
    // One that someone else made is left alone.
    let theirs = json!({"maxUnavailable": 0, "selector": {"matchLabels": {"a": "b"}}});
    stage
        .apply(&json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "reed-proxy"}, "spec": theirs}))
        .await;
    stage.annotate("reed", "tests.example/look", "again").await;
    stage.settle("reed").await;
    assert_eq!(budget().await.unwrap().data["spec"]["maxUnavailable"], 0);
}
