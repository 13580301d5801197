//! The schema's rules against a real API server. Needs KUBECONFIG.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, clippy::panic)]

use gomodcache::api::{GoModuleCache, crd_yaml};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Api, Client};
use serde_json::{Value, json};

async fn client() -> Option<Client> {
    if std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("not run: no cluster");
        return None;
    }
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.unwrap();
    let crds: Api<Value2> = Api::all(client.clone());
    let crd: Value = serde_saphyr::from_str(&crd_yaml().unwrap()).unwrap();
    crds.patch("gomodulecaches.gomodcache.io", &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("api-rules".to_owned());
    let _exists = namespaces.create(&PostParams::default(), &namespace).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    Some(client)
}

type Value2 = k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

async fn apply(client: &Client, name: &str, spec: Value) -> Result<GoModuleCache, String> {
    let api: Api<GoModuleCache> = Api::namespaced(client.clone(), "api-rules");
    let body = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name}, "spec": spec});
    let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("test").force() };
    api.patch(name, &params, &Patch::Apply(&body)).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn bad_manifests_are_refused_with_a_message_that_helps() {
    let Some(client) = client().await else { return };
    let upstream = |url: &str| json!({"upstreams": [{"url": url}]});
    let table = [
        ("bad", json!({"replicas": 2}), "more than one replica needs"),
        ("bad", upstream("https://u:hunter2@modules.example"), "must not carry a user name or password"),
        ("bad", upstream("modules"), "absolute http or https URL"),
        ("bad", upstream("ftp://modules.example"), "absolute http or https URL"),
        ("bad", upstream("https://modules.example/?q=1"), "query or a fragment"),
        ("bad", upstream("http://modules.example"), "declared internal"),
        ("bad", json!({"storage": {"size": "50GB"}}), "positive quantity"),
        ("bad", json!({"storage": {"size": "0"}}), "positive quantity"),
        ("bad", json!({"upstreamz": []}), "upstreamz"),
        ("bad", json!({"network": {"ingress": {"from": [{}]}}}), "set namespaceSelector"),
        ("1bad", json!({}), "metadata.name names a Service"),
    ];
    for (name, spec, message) in table {
        let error = apply(&client, name, spec.clone()).await.err().unwrap_or_else(|| panic!("accepted: {spec}"));
        assert!(error.contains(message), "{spec}: {error}");
        assert!(!error.contains("hunter2"), "a password was echoed");
    }
}

#[tokio::test]
async fn storage_grows_and_does_not_shrink_below_its_volume() {
    let Some(client) = client().await else { return };
    let api: Api<GoModuleCache> = Api::namespaced(client.clone(), "api-rules");
    let _absent = api.delete("sized", &Default::default()).await;
    apply(&client, "sized", json!({"storage": {"size": "2Gi"}})).await.unwrap();
    let body = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache",
        "status": {"storage": {"capacity": "2Gi", "onDelete": "Retained"}}});
    api.patch_status("sized", &PatchParams::apply("test").force(), &Patch::Apply(&body)).await.unwrap();
    apply(&client, "sized", json!({"storage": {"size": "5Gi"}})).await.unwrap();
    apply(&client, "sized", json!({"storage": {"size": "2Gi"}})).await.unwrap();
    let error = apply(&client, "sized", json!({"storage": {"size": "1Gi"}})).await.unwrap_err();
    assert!(error.contains("not shrink below"), "{error}");
    let error = apply(&client, "sized", json!({"storage": {"size": "2Gi", "storageClassName": "fast"}})).await.unwrap_err();
    assert!(error.contains("storageClassName cannot be changed"), "{error}");
}
