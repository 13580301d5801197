//! A child that someone changed by hand is put right.

use serde_json::{Value, json};

use super::stage::stage;
use super::{await_children, with_secret, without_names};

#[tokio::test]
async fn a_child_changed_by_hand_is_put_right() {
    let Some(stage) = stage("drift").await else { return };
    stage.cache("figs", &without_names()).await;
    await_children(&stage, "figs").await;
    stage.settle("figs").await;
    // Kind, name, the change, and where to look for what was there before it.
    let changes: [(&str, &str, Value, &str); 9] = [
        ("ServiceAccount", "figs-proxy", json!({"automountServiceAccountToken": true}), "/automountServiceAccountToken"),
        ("NetworkPolicy", "figs-proxy", json!({"spec": {"egress": [{}]}}), "/spec/egress"),
        ("NetworkPolicy", "figs-proxy", json!({"spec": {"policyTypes": ["Ingress"]}}), "/spec/policyTypes"),
        ("ConfigMap", "figs-config", json!({"data": {"proxy.yaml": "{}"}}), "/data"),
        ("ConfigMap", "figs-env", json!({"data": {"GOPROXY": "http://elsewhere.example"}}), "/data"),
        ("Service", "figs", json!({"spec": {"ports": [{"name": "http", "port": 81}]}}), "/spec/ports/0/port"),
        ("Service", "figs-admin", json!({"spec": {"selector": {"app.kubernetes.io/instance": "plum"}}}), "/spec/selector"),
        ("ConfigMap", "figs-env", json!({"data": {"GOFLAGS": "-toolexec=evil"}}), "/data"),
        ("Deployment", "figs-proxy", json!({"spec": {"replicas": 3}}), "/spec/replicas"),
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
