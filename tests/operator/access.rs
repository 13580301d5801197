//! What the shipped role lets the operator do, and what it does not. Every other test of this folder runs under it.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

use super::account::{self, Account};
use super::stage::{Stage, audited, stage, stage_alone};
use super::{await_children, children, secret, with_secret};

#[tokio::test]
async fn the_operators_account_is_refused_what_the_operator_has_no_need_of() {
    let Some(stage) = stage("access").await else { return };
    let (account, namespace) = (stage.account(), stage.namespace.as_str());
    let refused = [
        ("list", "", "secrets"),
        ("watch", "", "secrets"),
        ("delete", "", "secrets"),
        ("update", "", "secrets"),
        ("get", "", "pods"),
        ("create", "", "pods"),
        ("delete", "", "pods"),
        ("patch", "", "pods/status"),
        ("create", "", "pods/eviction"),
        ("create", "", "pods/exec"),
        ("patch", "", "pods/ephemeralcontainers"),
        ("get", "", "namespaces"),
        ("delete", "", "services"),
        ("delete", "apps", "deployments"),
        ("create", "apps", "daemonsets"),
        ("list", "apps", "replicasets"),
        ("patch", "apps", "replicasets"),
        ("delete", "networking.k8s.io", "networkpolicies"),
        ("create", "", "serviceaccounts/token"),
        ("impersonate", "", "serviceaccounts"),
        ("patch", "", "namespaces"),
        ("get", "", "nodes"),
        ("create", "rbac.authorization.k8s.io", "rolebindings"),
        ("patch", "rbac.authorization.k8s.io", "roles"),
        ("patch", "gomodcache.io", "gomodulecaches"),
        ("create", "gomodcache.io", "gomodulecaches"),
        ("delete", "gomodcache.io", "gomodulecaches"),
        ("create", "storage.k8s.io", "storageclasses"),
        ("get", "storage.k8s.io", "storageclasses"),
        ("watch", "storage.k8s.io", "storageclasses"),
        ("get", "coordination.k8s.io", "leases"),
        ("create", "coordination.k8s.io", "leases"),
        ("update", "coordination.k8s.io", "leases"),
    ];
    for (verb, group, resource) in refused {
        assert!(!account.may(verb, group, resource, "", Some(namespace)).await, "may {verb} {resource}");
    }

    // Its own lease and no other of its own namespace.
    let own = account::own_name();
    for (verb, name, may) in [
        ("get", "gomodcache-operator", true),
        ("update", "gomodcache-operator", true),
        ("update", "other", false),
        ("list", "", false),
        ("delete", "gomodcache-operator", false),
    ] {
        assert_eq!(account.may(verb, "coordination.k8s.io", "leases", name, Some(&own)).await, may, "{verb} lease {name}");
    }

    let shown = |error: kube::Error| error.to_string();
    let secrets: Api<Secret> = Api::namespaced(account.client(), namespace);
    let error = secrets.list(&ListParams::default()).await.map(|_| ()).map_err(shown).unwrap_err();
    assert!(error.contains("cannot list resource \"secrets\""), "{error}");
    let deployments: Api<Deployment> = Api::namespaced(account.client(), namespace);
    let error = deployments.delete("victim", &DeleteParams::default()).await.map(|_| ()).map_err(shown).unwrap_err();
    assert!(error.contains("cannot delete resource \"deployments\""), "{error}");
}

/// RBAC knows kinds and names, not owners. This is the list of what it can't hold back, so that nobody believes more.
#[tokio::test]
async fn the_role_cannot_tell_our_objects_from_those_of_others() {
    let Some(stage) = stage("power").await else { return };
    let (account, namespace) = (stage.account(), stage.namespace.as_str());
    for (verb, group, resource) in [
        ("get", "", "secrets"),
        ("patch", "", "secrets"),
        ("patch", "", "configmaps"),
        ("patch", "", "services"),
        ("patch", "", "persistentvolumeclaims"),
        ("patch", "networking.k8s.io", "networkpolicies"),
        ("patch", "apps", "deployments"),
        ("create", "apps", "deployments"),
    ] {
        assert!(account.may(verb, group, resource, "of-someone-else", Some(namespace)).await, "{verb} {resource}: say so in SECURITY.md");
    }
}

#[tokio::test]
async fn the_shipped_role_grants_what_the_operator_uses_and_nothing_more() {
    // Alone: other tests' refusals by quota or by this role would stand in the log as well.
    let Some(stage) = stage_alone("role").await else { return };
    if audited().is_none() {
        eprintln!("not run: no audit log (GOMODCACHE_AUDIT_LOG is not set)");
        return;
    }
    let (guest, config_maps) = stage.guest(&json!({"gomodcache.io/env-from": format!("{}.sun", stage.namespace)})).await;
    let published = async || config_maps.get_opt("sun-env").await.unwrap().is_some();
    have_everything_done(&stage, &[guest.as_str()], published).await;
    uses_its_roles_and_nothing_more(&stage, stage.account()).await;
}

/// Whatever the operator has a right to, it has to do for this.
pub(crate) async fn have_everything_done(stage: &Stage, guests: &[&str], published: impl AsyncFn() -> bool) {
    stage.apply(&secret(&json!({"gomodcache.io/hosts": "modules.corp.example"}), "first")).await;
    let mut spec = super::proxies::on_no_node(with_secret("modules.corp.example"));
    spec["storage"] = json!({"storageClassName": "absent"});
    stage.cache("sky", &spec).await;
    stage.cache("sea", &json!({})).await;
    await_children(stage, "sky").await;
    await_children(stage, "sea").await;
    stage.eventually("the status is written", async || stage.status("sky").await["observedGeneration"] == 1).await;
    for (kind, name) in children("sky") {
        // A change by someone else is undone by a patch of what exists.
        stage.patch(kind, &name, &json!({"metadata": {"labels": {"app.kubernetes.io/name": "other"}}})).await;
    }
    // A claim that never had a volume is made anew.
    spec["storage"]["size"] = json!("11Gi");
    stage.cache("sky", &spec).await;
    // One cache of several pods and with guests, and then of one and without.
    let many = |replicas: i32, namespaces: &[&str]| json!({"storage": {"accessMode": "ReadWriteMany"}, "replicas": replicas, "clients": {"publishTo": {"namespaces": namespaces}}});
    stage.cache("sun", &many(2, guests)).await;
    stage.eventually("a budget", async || stage.get("PodDisruptionBudget", "sun-proxy").await.is_some()).await;
    stage.eventually("a published environment", published).await;
    stage.patch("PodDisruptionBudget", "sun-proxy", &json!({"metadata": {"labels": {"app.kubernetes.io/name": "other"}}})).await;
    stage.cache("sun", &many(1, &[])).await;
    // A pod that says nothing: it is asked, and its mounts are refreshed.
    let pod = super::proxies::own_pod(stage, "sky").await;
    super::proxies::make_ready(stage, &pod, "127.77.9.9").await;
}

/// By the audit log, if there is one.
pub(crate) async fn uses_its_roles_and_nothing_more(stage: &Stage, account: &Account) {
    if audited().is_none() {
        eprintln!("the audit log was not looked at (GOMODCACHE_AUDIT_LOG is not set)");
        return;
    }
    let granted: BTreeSet<String> = account.roles.iter().flat_map(granted).collect();
    let used = || used(account);
    stage.eventually("every granted verb is used", async || granted.is_subset(&used())).await;
    let unknown: Vec<String> = used().difference(&granted).cloned().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let forbidden = forbidden(account);
    assert!(forbidden.is_empty(), "the operator was refused: {forbidden:?}");
}

fn granted(role: &Value) -> BTreeSet<String> {
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                granted.extend(texts(&rule["verbs"]).into_iter().map(|verb| format!("{verb} {group}/{resource}")));
            }
        }
    }
    granted
}

/// The operator's finished and allowed requests; a server-side apply that made an object needed `create` as well as `patch`.
fn used(account: &Account) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    // What was looked for and not found was allowed, too.
    let allowed = |event: &&Value| event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 400 || code == 404);
    for event in requests_of_the_operator(account).iter().filter(allowed) {
        let (verb, object) = (event["verb"].as_str().unwrap_or_default(), &event["objectRef"]);
        if !object["resource"].is_string() || object["apiGroup"] == "authorization.k8s.io" {
            continue;
        }
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let resource = [text("resource"), text("subresource")].join("/");
        let target = format!("{}/{}", text("apiGroup"), resource.trim_end_matches('/'));
        if event["responseStatus"]["code"] == 201 {
            used.insert(format!("create {target}"));
        }
        used.insert(format!("{verb} {target}"));
    }
    used
}

/// What RBAC refused to the operator itself; the test above this one asks in a namespace of its own.
fn forbidden(account: &Account) -> Vec<String> {
    let by_us = |event: &&Value| !event["objectRef"]["namespace"].as_str().is_some_and(|namespace| namespace.starts_with("op-access-"));
    let decision = |event: &&Value| event["annotations"]["authorization.k8s.io/decision"] == "forbid";
    requests_of_the_operator(account).iter().filter(decision).filter(by_us).map(|event| event["requestURI"].to_string()).collect()
}

fn requests_of_the_operator(account: &Account) -> Vec<Value> {
    let events = audited().unwrap_or_default();
    events.into_iter().filter(|event| event["user"]["username"] == account.user.as_str()).collect()
}
