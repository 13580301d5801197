//! What a real API server says to wrong and right manifests: every rule of the schema, and its sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, missing_docs)]

use gomodcache::api;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

async fn client() -> Option<Client> {
    if std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("not run: no cluster (KUBECONFIG is not set)");
        return None;
    }
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.expect("a client from KUBECONFIG");
    install_crd(&client).await;
    Some(client)
}

async fn install_crd(client: &Client) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let crd: Value = serde_saphyr::from_str(&api::crd_yaml().unwrap()).unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "gomodulecaches.gomodcache.io";
    crds.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await.expect("the API server accepts the CRD");
    for _ in 0..100 {
        let established = crds.get(name).await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
        if established.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the CRD was not established within 10 s");
}

fn caches(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gomodcache.io", "v1alpha1", "GoModuleCache");
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk_with_plural(&kind, "gomodulecaches"))
}

/// Server-side apply as kubectl does it: strict about unknown fields.
async fn apply(client: &Client, name: &str, spec: &Value) -> Result<DynamicObject, String> {
    let manifest = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
    let mut parameters = PatchParams::apply("tests").force();
    parameters.field_validation = Some(ValidationDirective::Strict);
    caches(client).patch(name, &parameters, &Patch::Apply(&manifest)).await.map_err(|error| error.to_string())
}

async fn remove(client: &Client, name: &str) {
    let _may_not_exist = caches(client).delete(name, &kube::api::DeleteParams::default()).await;
}

#[tokio::test]
async fn an_empty_spec_is_a_useful_cache_and_its_defaults_show() {
    let Some(client) = client().await else { return };
    let cache = apply(&client, "empty", &json!({})).await.unwrap();
    let storage = &cache.data["spec"]["storage"];
    assert_eq!(storage["size"], "10Gi");
    assert_eq!(storage["accessMode"], "ReadWriteOnce");
    assert_eq!(storage["deletionPolicy"], "Retain");
    remove(&client, "empty").await;
}

#[tokio::test]
async fn wrong_manifests_are_refused_with_a_sentence_that_echoes_no_password() {
    let Some(client) = client().await else { return };
    let upstream = |value: Value| json!({"upstreams": [value]});
    let table: Vec<(&str, &str, Value, &str)> = vec![
        ("unknown-field", "ok", json!({"upstream": []}), "upstream"),
        ("unknown-nested", "ok", json!({"storage": {"sise": "1Gi"}}), "sise"),
        ("not-a-url", "ok", upstream(json!({"url": "modules.corp.example"})), "url must be an absolute http or https URL"),
        ("ftp", "ok", upstream(json!({"url": "ftp://modules.corp.example"})), "url must be an absolute http or https URL"),
        ("userinfo", "ok", upstream(json!({"url": "https://ci:hunter2@modules.corp.example"})), "must not carry a user name or password"),
        ("user-only", "ok", upstream(json!({"url": "https://hunter2@modules.corp.example"})), "must not carry a user name or password"),
        ("query", "ok", upstream(json!({"url": "https://modules.corp.example?a=b"})), "query"),
        ("fragment", "ok", upstream(json!({"url": "https://modules.corp.example#x"})), "fragment"),
        (
            "credentials-over-http",
            "ok",
            upstream(json!({"url": "http://modules.corp.example", "credentialsRef": {"name": "corp"}})),
            "credentials are sent over https only",
        ),
        ("fallback", "ok", upstream(json!({"url": "https://modules.corp.example", "fallback": "Always"})), "OnNotFound"),
        ("size-word", "ok", json!({"storage": {"size": "pear"}}), "size must be a positive quantity"),
        ("size-zero", "ok", json!({"storage": {"size": "0"}}), "size must be a positive quantity"),
        ("size-gb", "ok", json!({"storage": {"size": "50GB"}}), "size must be a positive quantity"),
        ("size-negative", "ok", json!({"storage": {"size": "-1Gi"}}), "size must be a positive quantity"),
        ("two-replicas", "ok", json!({"replicas": 2}), "more than one replica needs storage.accessMode ReadWriteMany"),
        ("access-mode", "ok", json!({"storage": {"accessMode": "ReadOnlyMany"}}), "ReadWriteOnce"),
        ("dotted", "a.b", json!({}), "metadata.name names a Service"),
        ("digit-first", "1cache", json!({}), "metadata.name names a Service"),
        ("too-long", "a23456789-123456789-123456789-123456789-123456789-123", json!({}), "at most 52 characters"),
    ];
    for (what, name, spec, sentence) in table {
        let error = match apply(&client, name, &spec).await {
            Ok(_) => panic!("{what}: accepted"),
            Err(error) => error,
        };
        assert!(error.contains(sentence), "{what}: {error}");
        assert!(!error.contains("hunter2"), "{what}: the message echoes the password: {error}");
    }
}

#[tokio::test]
async fn storage_grows_and_goes_back_but_never_below_its_capacity() {
    let Some(client) = client().await else { return };
    let size = |size: &str| json!({"storage": {"size": size}});
    apply(&client, "shrink", &size("20Gi")).await.unwrap();
    apply(&client, "shrink", &size("10Gi")).await.expect("nothing is bound yet, so any size goes");
    let mut cache = caches(&client).get("shrink").await.unwrap();
    cache.data["status"] = json!({"storage": {"requested": "10Gi", "capacity": "10Gi", "onDelete": "Retained"}});
    caches(&client).replace_status("shrink", &PostParams::default(), &cache).await.unwrap();
    apply(&client, "shrink", &size("30Gi")).await.unwrap();
    apply(&client, "shrink", &size("10Gi")).await.expect("back to the capacity");
    let error = apply(&client, "shrink", &size("5Gi")).await.unwrap_err();
    assert!(error.contains("not shrink below the volume's present capacity"), "{error}");
    remove(&client, "shrink").await;
}

#[tokio::test]
async fn class_and_access_mode_cannot_change() {
    let Some(client) = client().await else { return };
    apply(&client, "class", &json!({})).await.unwrap();
    let error = apply(&client, "class", &json!({"storage": {"storageClassName": "fast"}})).await.unwrap_err();
    assert!(error.contains("storageClassName cannot be changed"), "{error}");
    let error = apply(&client, "class", &json!({"storage": {"accessMode": "ReadWriteMany"}})).await.unwrap_err();
    assert!(error.contains("accessMode cannot be changed"), "{error}");
    remove(&client, "class").await;
}

#[tokio::test]
async fn a_right_manifest_is_stored_as_written() {
    let Some(client) = client().await else { return };
    let spec = json!({
        "upstreams": [
            {"url": "https://modules.corp.example/go", "fallback": "OnError", "credentialsRef": {"name": "corp"}, "redirectHosts": ["storage.corp.example"]},
            {"url": "http://athens.corp.example", "internal": true},
        ],
        "storage": {"size": "1.5Gi", "accessMode": "ReadWriteMany"},
        "replicas": 2,
    });
    let cache = apply(&client, "right", &spec).await.unwrap();
    assert_eq!(cache.data["spec"]["upstreams"][0]["redirectHosts"][0], "storage.corp.example");
    assert_eq!(cache.name_any(), "right");
    remove(&client, "right").await;
}
