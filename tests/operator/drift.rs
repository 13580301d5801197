//! A child that someone changed by hand is put right.

use serde_json::{Value, json};

use super::stage::stage;
use super::{await_children, with_secret, with_upstream, without_names};

#[tokio::test]
async fn a_child_changed_by_hand_is_put_right() {
    let Some(stage) = stage("drift").await else { return };
    stage.cache("figs", &without_names()).await;
    await_children(&stage, "figs").await;
    stage.settle("figs").await;
    // Kind, name, the change, and where to look for what was there before it.
    let changes: [(&str, &str, Value, &str); 10] = [
        ("ServiceAccount", "figs-proxy", json!({"automountServiceAccountToken": true}), "/automountServiceAccountToken"),
        ("NetworkPolicy", "figs-proxy", json!({"spec": {"egress": [{}]}}), "/spec/egress"),
        ("NetworkPolicy", "figs-proxy", json!({"spec": {"policyTypes": ["Ingress"]}}), "/spec/policyTypes"),
        ("ConfigMap", "figs-config", json!({"data": {"proxy.yaml": "{}"}}), "/data"),
        ("ConfigMap", "figs-env", json!({"data": {"GOPROXY": "http://elsewhere.example"}}), "/data"),
        ("Service", "figs", json!({"spec": {"ports": [{"name": "http", "port": 81}]}}), "/spec/ports/0/port"),
        ("Service", "figs-admin", json!({"spec": {"selector": {"app.kubernetes.io/instance": "plum"}}}), "/spec/selector"),
        ("ConfigMap", "figs-env", json!({"data": {"GOFLAGS": "-toolexec=evil"}}), "/data"),
        ("Deployment", "figs-proxy", json!({"spec": {"replicas": 3}}), "/spec/replicas"),
        ("Deployment", "figs-proxy", json!({"spec": {"strategy": {"type": "RollingUpdate"}}}), "/spec/strategy"),
    ];
    for (kind, name, change, place) in changes {
        let now = async || stage.get(kind, name).await.unwrap().data.pointer(place).cloned();
        let before = now().await;
        assert!(before.is_some(), "{kind} {name} has no {place}");
        stage.patch(kind, name, &change).await;
        stage.eventually(&format!("{place} of {kind} {name} is put right"), async || now().await == before).await;
    }
}

#[tokio::test]
async fn what_is_added_inside_the_fence_is_taken_out() {
    let Some(stage) = stage("fence").await else { return };
    stage.cache("pear", &without_names()).await;
    stage.cache("nut", &with_upstream("nowhere.corp.example")).await;
    for cache in ["pear", "nut"] {
        await_children(&stage, cache).await;
        stage.settle(cache).await;
    }
    let fence = async |cache: &str| stage.get("NetworkPolicy", &format!("{cache}-proxy")).await.unwrap().data["spec"].clone();
    // Who may reach the cache, to which ports it may go, which pods are meant, and all the way out of a cache that has none.
    let additions = [
        ("pear", "/ingress/0/from/0", "namespaceSelector", json!({})),
        ("pear", "/egress/0/ports/0", "endPort", json!(65535)),
        ("pear", "/podSelector/matchLabels", "team", json!("a")),
        ("nut", "", "egress", json!([{}])),
    ];
    for (cache, place, key, added) in additions {
        let before = fence(cache).await;
        let mut open = before.clone();
        open.pointer_mut(place).unwrap().as_object_mut().unwrap().insert(key.to_owned(), added);
        let patched = stage.try_patch("NetworkPolicy", &format!("{cache}-proxy"), &json!({"spec": open})).await.unwrap();
        assert_ne!(patched.data["spec"], before, "the API server takes {key}");
        stage.eventually(&format!("{key} at {place} of the fence of {cache} is taken out"), async || fence(cache).await == before).await;
    }
}

#[tokio::test]
async fn what_others_add_to_the_credentials_is_no_endless_rotation() {
    let Some(stage) = stage("added").await else { return };
    stage.cache("date", &with_secret("203.0.113.7")).await;
    await_children(&stage, "date").await;
    stage.patch("Secret", "date-credentials", &json!({"stringData": {"credential.theirs": "x"}})).await;
    stage.eventually("it is taken out", async || stage.credential_key("date", "credential.theirs").await.is_empty()).await;
    let generation = stage.credential_generation("date").await;
    // The Secret is looked at every 5 s.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    assert_eq!(stage.credential_generation("date").await, generation);
}
