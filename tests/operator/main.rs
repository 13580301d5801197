//! The real operator binary against a real API server: what it makes, what it leaves alone, what it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod account;
mod admission;
mod ca_bundles;
mod clients;
mod config_versions;
mod credentials;
mod dns;
mod drift;
mod egress;
mod fixpoint;
mod leader;
mod meddler;
mod namespace_mode;
mod outage;
mod pods;
mod process;
mod proxies;
mod quiet;
mod refused;
mod reports;
mod restart;
mod rollouts;
mod stage;
mod storage;
mod told;
mod unavailable;
mod undecodable;
mod volumes;
mod walks;

use serde_json::{Value, json};
use stage::{Stage, stage};

/// Kind and name of every child of a cache, the claim apart.
fn children(cache: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ServiceAccount", format!("{cache}-proxy")),
        ("ConfigMap", format!("{cache}-config")),
        ("ConfigMap", format!("{cache}-env")),
        ("Secret", format!("{cache}-credentials")),
        ("Deployment", format!("{cache}-proxy")),
        ("Service", cache.to_owned()),
        ("Service", format!("{cache}-admin")),
        ("NetworkPolicy", format!("{cache}-proxy")),
    ]
}

/// No name to look up again every few seconds.
fn without_names() -> Value {
    json!({"upstreams": [{"url": "https://203.0.113.7/go"}]})
}

fn with_upstream(host: &str) -> Value {
    json!({"upstreams": [{"url": format!("https://{host}/go")}]})
}

fn with_secret(host: &str) -> Value {
    json!({"upstreams": [{"url": format!("https://{host}/go"), "credentialsRef": {"name": "corp"}}]})
}

fn secret(annotations: &Value, password: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth", "metadata": {"name": "corp", "annotations": annotations},
           "stringData": {"username": "ci", "password": password}})
}

async fn all_versions(stage: &Stage, cache: &str) -> Vec<String> {
    let mut versions = Vec::new();
    for (kind, name) in children(cache).into_iter().chain([("PersistentVolumeClaim", format!("{cache}-proxy"))]) {
        let object = stage.get(kind, &name).await.unwrap_or_else(|| panic!("{kind} {name} is missing"));
        versions.push(format!("{kind} {name} {}", object.metadata.resource_version.unwrap()));
    }
    versions
}

async fn await_children(stage: &Stage, cache: &str) {
    for (kind, name) in children(cache).into_iter().chain([("PersistentVolumeClaim", format!("{cache}-proxy"))]) {
        stage.eventually(&format!("{kind} {name} exists"), async || stage.get(kind, &name).await.is_some()).await;
    }
}

#[tokio::test]
async fn an_empty_spec_becomes_every_child_owned_by_the_cache() {
    let Some(stage) = stage("children").await else { return };
    children_are_made(&stage).await;
}

async fn children_are_made(stage: &Stage) {
    let cache = stage.cache("tea", &json!({})).await;
    await_children(stage, "tea").await;
    for (kind, name) in children("tea") {
        let object = stage.get(kind, &name).await.unwrap();
        let owner =
            object.metadata.owner_references.unwrap_or_default().into_iter().next().unwrap_or_else(|| panic!("{kind} {name} has no owner"));
        assert_eq!(Some(owner.uid), cache.metadata.uid, "{kind} {name}");
        assert_eq!(owner.controller, Some(true), "{kind} {name}");
    }
    let env = stage.get("ConfigMap", "tea-env").await.unwrap();
    assert_eq!(env.data["data"]["GOPROXY"], format!("http://tea.{}.svc:8080", stage.namespace));
    assert_eq!(env.data["data"]["GONOPROXY"], "none");
    let service = stage.get("Service", "tea").await.unwrap();
    assert_eq!(service.data["spec"]["ports"][0]["port"], 8080);
    stage.eventually("the status has seen the generation", async || stage.status("tea").await["observedGeneration"] == 1).await;
}

#[tokio::test]
async fn every_child_deleted_by_hand_comes_back() {
    let Some(stage) = stage("recreate").await else { return };
    children_come_back(&stage).await;
}

async fn children_come_back(stage: &Stage) {
    stage.cache("oak", &without_names()).await;
    await_children(stage, "oak").await;
    // Each follows a reconcile that the one before it caused, so that the next unasked look is far away; the first is for that.
    let (secrets, watched): (Vec<_>, Vec<_>) = children("oak").into_iter().partition(|(kind, _)| *kind == "Secret");
    for (i, (kind, name)) in watched.iter().take(1).chain(&watched).chain(&secrets).enumerate() {
        let old = stage.get(kind, name).await.unwrap().metadata.uid;
        stage.delete(kind, name).await;
        let is_back = async || stage.get(kind, name).await.is_some_and(|object| object.metadata.uid != old);
        let claim = format!("{kind} {name} is back");
        // The operator may not watch Secrets, so it has to look.
        if i == 0 || *kind == "Secret" { stage.eventually(&claim, is_back).await } else { stage.at_once(&claim, is_back).await }
    }
}

#[tokio::test]
async fn a_second_reconcile_of_an_unchanged_object_makes_no_write() {
    let Some(stage) = stage("quiet").await else { return };
    nothing_is_written(&stage).await;
}

async fn nothing_is_written(stage: &Stage) {
    stage.cache("elm", &with_upstream("modules.corp.example")).await;
    await_children(stage, "elm").await;
    stage.eventually("egress is ready", async || stage.condition("elm", "EgressReady").await.0 == "True").await;
    stage.settle("elm").await;
    let (before, status) = (all_versions(stage, "elm").await, stage.status("elm").await);
    let writes = stage.audited_writes();
    for round in 0..3 {
        stage.annotate("elm", "tests.example/round", &round.to_string()).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    assert_eq!(all_versions(stage, "elm").await, before);
    assert_eq!(stage.status("elm").await, status);
    if let (Some(before), Some(after)) = (writes, stage.audited_writes()) {
        // The three annotations are this test's own.
        assert_eq!(after - before, 3, "the audit log has writes that are not this test's");
    }
}

#[tokio::test]
async fn a_claim_being_deleted_is_reported_and_replaced_when_it_has_gone() {
    let Some(stage) = stage("claim").await else { return };
    a_claim_is_replaced(&stage).await;
}

async fn a_claim_is_replaced(stage: &Stage) {
    stage.cache("ash", &without_names()).await;
    await_children(stage, "ash").await;
    let old = stage.get("PersistentVolumeClaim", "ash-proxy").await.unwrap().metadata.uid;
    stage.patch("PersistentVolumeClaim", "ash-proxy", &json!({"metadata": {"finalizers": ["tests.example/hold"]}})).await;
    stage.delete("PersistentVolumeClaim", "ash-proxy").await;
    stage
        .eventually("the condition says ClaimTerminating", async || stage.condition("ash", "StorageReady").await.1 == "ClaimTerminating")
        .await;
    stage.patch("PersistentVolumeClaim", "ash-proxy", &json!({"metadata": {"finalizers": null}})).await;
    stage
        .at_once("a new claim", async || {
            stage
                .get("PersistentVolumeClaim", "ash-proxy")
                .await
                .is_some_and(|claim| claim.metadata.uid != old && claim.metadata.deletion_timestamp.is_none())
        })
        .await;
}

#[tokio::test]
async fn under_retain_the_claim_outlives_the_cache_and_under_delete_it_is_owned() {
    let Some(stage) = stage("retain").await else { return };
    claims_are_kept(&stage).await;
}

async fn claims_are_kept(stage: &Stage) {
    stage.cache("fir", &json!({})).await;
    stage.cache("yew", &json!({"storage": {"deletionPolicy": "Delete"}})).await;
    await_children(stage, "fir").await;
    await_children(stage, "yew").await;
    let kept = stage.get("PersistentVolumeClaim", "fir-proxy").await.unwrap();
    assert_eq!(kept.metadata.owner_references, None);
    let owned = stage.get("PersistentVolumeClaim", "yew-proxy").await.unwrap();
    assert_eq!(owned.metadata.owner_references.unwrap()[0].name, "yew");
    stage.delete("GoModuleCache", "fir").await;
    stage.eventually("the cache has gone", async || stage.get("GoModuleCache", "fir").await.is_none()).await;
    stage.cache("fir", &json!({})).await;
    await_children(stage, "fir").await;
    assert_eq!(
        stage.get("PersistentVolumeClaim", "fir-proxy").await.unwrap().metadata.uid,
        kept.metadata.uid,
        "the claim was not adopted again"
    );
}

#[tokio::test]
async fn objects_of_someone_else_are_left_alone_and_named_until_they_go() {
    let Some(stage) = stage("conflict").await else { return };
    for (kind, name) in children("gum") {
        stage.apply(&foreign(kind, &name)).await;
    }
    // The Deployment is not asked about while its configuration is someone else's.
    let named: Vec<(&str, String)> = children("gum").into_iter().filter(|(kind, _)| *kind != "Deployment").collect();
    let content = async || {
        let mut content = Vec::new();
        for (kind, name) in children("gum") {
            let object = stage.get(kind, &name).await.unwrap();
            content.push((
                kind,
                name,
                object.metadata.labels,
                object.metadata.owner_references,
                object.data["data"].clone(),
                object.data["spec"].clone(),
            ));
        }
        content
    };
    let before = content().await;
    stage.cache("gum", &json!({})).await;
    stage
        .eventually("the condition names the objects", async || {
            let (status, reason, message) = stage.condition("gum", "Ready").await;
            status == "False" && reason == "NameConflict" && named.iter().all(|(kind, name)| message.contains(&format!("{kind} {name}")))
        })
        .await;
    assert_eq!(content().await, before);
    for (kind, name) in named {
        stage.delete(kind, &name).await;
    }
    stage.eventually("the Deployment is next", async || stage.condition("gum", "Ready").await.2.contains("Deployment gum-proxy")).await;
    assert_eq!(content().await[4], before[4]);
    stage.delete("Deployment", "gum-proxy").await;
    stage.eventually("the conflict is over", async || stage.condition("gum", "Ready").await.1 != "NameConflict").await;
    await_children(&stage, "gum").await;
}

/// The least that the API server takes of a kind, with no sign of an operator's.
fn foreign(kind: &str, name: &str) -> Value {
    let pod = json!({"containers": [{"name": "c", "image": "registry.example/c:1"}]});
    let labels = json!({"app": "theirs"});
    let (api_version, spec) = match kind {
        "Deployment" => {
            let template = json!({"metadata": {"labels": labels}, "spec": pod});
            ("apps/v1", json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template}))
        }
        "NetworkPolicy" => ("networking.k8s.io/v1", json!({"podSelector": {"matchLabels": labels}})),
        "Service" => ("v1", json!({"ports": [{"port": 81}]})),
        _ => ("v1", Value::Null),
    };
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": labels}});
    if !spec.is_null() {
        object["spec"] = spec;
    }
    object
}
