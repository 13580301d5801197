//! Users' Secrets, and the copies that the proxies get.

use serde_json::{Value, json};

use super::stage::{Stage, stage};
use super::{secret, with_secret, with_upstream};

#[tokio::test]
async fn a_missing_secret_is_named_and_its_appearance_is_noticed() {
    let Some(stage) = stage("secret").await else { return };
    stage.cache("bay", &with_secret("modules.corp.example")).await;
    stage
        .eventually("the condition names the Secret", async || {
            let (status, reason, message) = stage.condition("bay", "CredentialsReady").await;
            status == "False" && reason == "SecretMissing" && message.contains("corp")
        })
        .await;
    stage.apply(&secret(&json!({}), "first")).await;
    stage
        .eventually("the condition has the command to run", async || {
            let (_, reason, message) = stage.condition("bay", "CredentialsReady").await;
            reason == "HostNotAllowed"
                && message.contains("kubectl")
                && message.contains("annotate")
                && message.contains("modules.corp.example")
        })
        .await;
    stage.apply(&secret(&json!({"gomodcache.io/hosts": "modules.corp.example"}), "first")).await;
    stage.eventually("credentials are ready", async || stage.condition("bay", "CredentialsReady").await.0 == "True").await;
}

#[tokio::test]
async fn a_changed_secret_is_copied_as_a_new_generation_and_a_deleted_one_stays_in_use() {
    let Some(stage) = stage("rotate").await else { return };
    a_secret_is_rotated(&stage).await;
}

pub(crate) async fn a_secret_is_rotated(stage: &Stage) {
    let hosts = json!({"gomodcache.io/hosts": "modules.corp.example"});
    stage.apply(&secret(&hosts, "first")).await;
    stage.cache("fig", &with_secret("modules.corp.example")).await;
    stage.eventually("the copy has the password", async || stage.credential("fig", "corp").await.contains("first")).await;
    let generation = stage.credential_generation("fig").await;

    stage.patch("Secret", "corp", &json!({"metadata": {"labels": {"tests.example/touched": "yes"}}})).await;
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert_eq!(stage.credential_generation("fig").await, generation, "a label is no rotation");

    stage.apply(&secret(&hosts, "second")).await;
    stage.eventually("the copy is new", async || stage.credential("fig", "corp").await.contains("second")).await;
    assert_ne!(stage.credential_generation("fig").await, generation);

    stage.delete("Secret", "corp").await;
    stage
        .eventually("the condition says it is missing", async || stage.condition("fig", "CredentialsReady").await.1 == "SecretMissing")
        .await;
    assert!(stage.credential("fig", "corp").await.contains("second"), "the last good content was dropped");

    stage.cache("fig", &with_upstream("modules.corp.example")).await;
    stage.eventually("without a reference the copy goes", async || stage.credential("fig", "corp").await.is_empty()).await;
    stage.eventually("none are needed", async || stage.condition("fig", "CredentialsReady").await.1 == "NotNeeded").await;
}

#[tokio::test]
async fn a_token_is_copied_with_its_hosts_and_a_malformed_one_leaves_the_last_good_in_use() {
    let Some(stage) = stage("token").await else { return };
    let token = |key: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": {key: value},
               "metadata": {"name": "corp", "annotations": {"gomodcache.io/hosts": "modules.corp.example, Git.corp.example"}}})
    };
    stage.apply(&token("token", "first\n")).await;
    stage.cache("hop", &with_secret("modules.corp.example")).await;
    let copied = json!({"hosts": ["modules.corp.example", "git.corp.example"], "secret": {"token": "first"}});
    let copy = async || serde_json::from_str::<Value>(&stage.credential("hop", "corp").await).unwrap_or_default();
    stage.eventually("the copy is complete", async || copy().await == copied).await;
    stage.eventually("credentials are ready", async || stage.condition("hop", "CredentialsReady").await.1 == "InUse").await;

    stage.delete("Secret", "corp").await;
    stage.apply(&token("password", "hunter2")).await;
    stage
        .eventually("the condition says what is wrong and what goes on", async || {
            let (_, reason, message) = stage.condition("hop", "CredentialsReady").await;
            reason == "SecretMalformed" && message.contains("key token") && message.contains("keeps the last good content")
        })
        .await;
    assert_eq!(copy().await, copied);
    assert!(!stage.status("hop").await.to_string().contains("hunter2"));
}
