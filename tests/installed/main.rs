//! What a user installs, at work: the chart on a real API server, and the dashboard and the rules in a real Prometheus that
//! scrapes a real proxy and a real operator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, missing_docs)]

mod chart;
#[path = "../common/mod.rs"]
mod common;
mod dashboard;
mod load;
mod prometheus;
#[path = "../proxy/stage.rs"]
#[allow(dead_code, reason = "shared with the tests of the proxy")]
mod stage;
#[path = "../packaging/tools.rs"]
#[allow(dead_code, reason = "shared with the packaging tests")]
mod tools;
#[path = "../proxy/upstream.rs"]
#[allow(dead_code, reason = "shared with the tests of the proxy")]
mod upstream;

use gomodcache::api;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

/// The API server; nothing without a cluster of our own, since what is installed here is for the whole cluster.
async fn cluster() -> Option<Client> {
    if std::env::var_os("KUBECONFIG").is_none() || std::env::var_os("GOMODCACHE_AUDIT_LOG").is_none() {
        eprintln!("not run: no cluster of our own (KUBECONFIG and GOMODCACHE_AUDIT_LOG are not both set)");
        return None;
    }
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.expect("a client from KUBECONFIG");
    let definition: Value = serde_saphyr::from_str(&api::crd_yaml().unwrap()).unwrap();
    apply(&client, &definition).await;
    Some(client)
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "ClusterRole" => ("rbac.authorization.k8s.io", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "Deployment" => ("apps", "v1"),
        "GoModuleCache" => ("gomodcache.io", "v1alpha1"),
        "PodMonitor" => ("monitoring.coreos.com", "v1"),
        _ => ("", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// In a namespace, or in none: `""`.
fn objects(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    if namespace.is_empty() {
        return Api::all_with(client.clone(), &resource(kind));
    }
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

/// Makes or changes an object. One of a kind that is new takes until the API server knows the kind.
async fn apply(client: &Client, object: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    let api = objects(client, &kind, &text(&object["metadata"]["namespace"]));
    for attempt in 0.. {
        match api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(object)).await {
            Ok(_) => return,
            Err(error) => assert!(attempt < 100, "{kind} {name}: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// A namespace that this run alone uses.
async fn namespace(client: &Client, purpose: &str) -> String {
    let name = format!("{purpose}-{}", std::process::id());
    apply(client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    name
}

fn cache(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}
