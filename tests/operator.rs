//! The real binary against a real API server. Needs KUBECONFIG.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, clippy::panic, clippy::indexing_slicing)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};

const NAMESPACE: &str = "operator-test";

fn api(client: &Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "NetworkPolicy" {
        resource.plural = "networkpolicies".to_owned();
    }
    if matches!(kind, "Namespace" | "CustomResourceDefinition") {
        return Api::all_with(client.clone(), &resource);
    }
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

async fn put(api: &Api<DynamicObject>, name: &str, body: Value) {
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&body)).await.unwrap();
}

async fn until(what: &str, api: &Api<DynamicObject>, name: &str, test: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    let mut last = Value::Null;
    while start.elapsed() < Duration::from_secs(20) {
        last = api.get_opt(name).await.unwrap().map_or(Value::Null, |object| serde_json::to_value(object).unwrap());
        if test(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 20 s: {what}: {last}");
}

fn reason(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().find(|c| c["type"] == kind).map_or_else(String::new, |c| c["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn children_appear_come_back_and_then_nothing_is_written() {
    if std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("not run: no cluster");
        return;
    }
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.unwrap();
    let crd: Value = serde_saphyr::from_str(&gomodcache::api::crd_yaml().unwrap()).unwrap();
    put(&api(&client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition"), "gomodulecaches.gomodcache.io", crd).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    put(&api(&client, "", "v1", "Namespace"), NAMESPACE, namespace).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _operator = Operator(
        Command::new(env!("CARGO_BIN_EXE_gomodcache"))
            .args(["operator", "--admin-listen", "127.0.0.1:0", "--goproxy", "https://203.0.113.7", "--gosumdb", "sum.example"])
            .args(["--proxy-image", "registry.example/proxy:1", "--name-server", "127.0.0.1:9"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let caches = api(&client, "gomodcache.io", "v1alpha1", "GoModuleCache");
    let secrets = api(&client, "", "v1", "Secret");
    // One run must not see what another left behind, and claims stay: a name of its own.
    let name = format!("t{:x}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis());
    let source = format!("{name}-source");
    let upstream = json!([{"url": "https://203.0.113.9/go", "credentialsRef": {"name": source}}]);
    let body = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name},
        "spec": {"upstreams": upstream, "storage": {"storageClassName": "nowhere"}}});
    put(&caches, &name, body).await;

    let children = [
        (api(&client, "", "v1", "ServiceAccount"), format!("{name}-proxy")),
        (api(&client, "networking.k8s.io", "v1", "NetworkPolicy"), format!("{name}-proxy")),
        (api(&client, "", "v1", "ConfigMap"), format!("{name}-config")),
        (api(&client, "", "v1", "ConfigMap"), format!("{name}-env")),
        (api(&client, "", "v1", "Service"), name.clone()),
        (api(&client, "", "v1", "Service"), format!("{name}-admin")),
        (secrets.clone(), format!("{name}-credentials")),
        (api(&client, "apps", "v1", "Deployment"), format!("{name}-proxy")),
    ];
    for (api, child) in &children {
        until(child, api, child, |v| !v.is_null()).await;
    }
    let object = until("status", &caches, &name, |v| reason(v, "CredentialsReady") == "SecretMissing").await;
    assert_eq!(reason(&object, "StorageReady"), "StorageClassMissing");

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": source}, "stringData": {"token": "t1"}});
    put(&secrets, &source, secret).await;
    until("host not allowed", &caches, &name, |v| reason(v, "CredentialsReady") == "HostNotAllowed").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"token": "t1"},
        "metadata": {"name": source, "annotations": {"gomodcache.io/hosts": "203.0.113.9"}}});
    put(&secrets, &source, secret).await;
    until("in use", &caches, &name, |v| reason(v, "CredentialsReady") == "InUse").await;

    for (api, child) in &children {
        let old = api.get(child).await.unwrap().metadata.uid;
        api.delete(child, &Default::default()).await.unwrap();
        until(child, api, child, |v| !v.is_null() && v["metadata"]["uid"].as_str() != old.as_deref()).await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut versions = Vec::new();
    for (api, child) in &children {
        versions.push(api.get(child).await.unwrap().metadata.resource_version);
    }
    let object = caches.get(&name).await.unwrap().metadata.resource_version;
    tokio::time::sleep(Duration::from_secs(6)).await;
    for ((api, child), version) in children.iter().zip(versions) {
        assert_eq!(api.get(child).await.unwrap().metadata.resource_version, version, "{child} was written");
    }
    assert_eq!(caches.get(&name).await.unwrap().metadata.resource_version, object, "the status was written");
    caches.delete(&name, &Default::default()).await.unwrap();
}
