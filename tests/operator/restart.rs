//! A new operator knows what the old one knew: everything that it needs lies in the cluster.

use serde_json::json;

use super::stage::{Stage, stage_alone};
use super::{all_versions, await_children, dns, secret, with_secret};

async fn holds(stage: &Stage, address: &str) -> bool {
    let policy = stage.get("NetworkPolicy", "kiwi-proxy").await.map(|p| p.data["spec"]["egress"].to_string()).unwrap_or_default();
    let config = stage.get("ConfigMap", "kiwi-config").await.map(|c| c.data["data"].to_string()).unwrap_or_default();
    policy.contains(&format!("{address}/32")) && config.contains(address)
}

#[tokio::test]
async fn a_new_operator_keeps_addresses_and_credentials_and_writes_nothing() {
    let Some(stage) = stage_alone("restart").await else { return };
    let host = "wandering.corp.example";
    dns::set(host, "203.0.113.7");
    stage.apply(&secret(&json!({"gomodcache.io/hosts": host}), "first")).await;
    stage.cache("kiwi", &with_secret(host)).await;
    stage.eventually("the first address is open", async || holds(&stage, "203.0.113.7").await).await;
    dns::set(host, "203.0.113.8");
    stage.eventually("the second address is open", async || holds(&stage, "203.0.113.8").await).await;
    stage.delete("Secret", "corp").await;
    stage.eventually("the Secret is missed", async || stage.condition("kiwi", "CredentialsReady").await.1 == "SecretMissing").await;
    stage.settle("kiwi").await;
    let before = (all_versions(&stage, "kiwi").await, stage.status("kiwi").await);

    stage.crash_the_operator();
    // It lists both, so that it has looked at the old one by the time that the new one is served.
    stage.cache("pine", &with_secret(host)).await;
    await_children(&stage, "pine").await;
    stage.settle("kiwi").await;
    assert_eq!((all_versions(&stage, "kiwi").await, stage.status("kiwi").await), before);
    assert!(holds(&stage, "203.0.113.7").await, "an address that is still in its hour was forgotten");
    assert!(stage.credential("kiwi", "corp").await.contains("first"), "the last good credential was dropped");
}
