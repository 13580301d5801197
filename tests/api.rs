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

/// Before a test as well, in case an earlier run left something behind.
async fn remove(client: &Client, name: &str) {
    let _may_not_exist = caches(client).delete(name, &kube::api::DeleteParams::default()).await;
}

#[tokio::test]
async fn an_empty_spec_is_a_useful_cache_and_its_defaults_show() {
    let Some(client) = client().await else { return };
    let complete = json!({
        "checksumDatabase": {"mode": "Verify", "whenUnavailable": "Serve"},
        "lookAhead": "All",
        "replicas": 1,
        "storage": {"accessMode": "ReadWriteOnce", "deletionPolicy": "Retain", "evictAbovePercent": 90, "size": "10Gi"},
    });
    // A part that is there but empty gets the same defaults as one that is absent; the schema has them twice.
    for spec in [json!({}), json!({"storage": {}, "checksumDatabase": {}})] {
        let cache = apply(&client, "empty", &spec).await.unwrap();
        remove(&client, "empty").await;
        assert_eq!(cache.data["spec"], complete, "from {spec}");
    }
}

/// What is wrong, the object's name, its spec, and what the refusal must say.
type Row = (&'static str, &'static str, Value, &'static str);

fn wrong_upstreams() -> Vec<Row> {
    let upstream = |value: Value| json!({"upstreams": [value]});
    let url = |url: &str| upstream(json!({"url": url}));
    vec![
        ("not-a-url", "ok", url("modules.corp.example"), "url must be an absolute http or https URL"),
        ("no-scheme", "ok", url("ci:hunter2@modules.corp.example"), "url must be an absolute http or https URL"),
        ("ftp", "ok", url("ftp://modules.corp.example"), "url must be an absolute http or https URL"),
        ("no-host", "ok", url("https:///go"), "url must be an absolute http or https URL with a host"),
        ("userinfo", "ok", url("https://ci:hunter2@modules.corp.example"), "must not carry a user name or password"),
        ("user-only", "ok", url("https://hunter2@modules.corp.example"), "must not carry a user name or password"),
        ("query", "ok", url("https://modules.corp.example?a=b"), "url must not have a query or a fragment"),
        ("fragment", "ok", url("https://modules.corp.example#x"), "url must not have a query or a fragment"),
        ("no-url", "ok", upstream(json!({"internal": true})), "spec.upstreams[0].url: Required value"),
        ("plain-http", "ok", url("http://modules.corp.example"), "plain http is for upstreams that are declared internal only"),
        (
            "credentials-over-http",
            "ok",
            upstream(json!({"url": "http://modules.corp.example", "credentialsRef": {"name": "corp"}})),
            "credentials are sent over https only",
        ),
        ("fallback", "ok", upstream(json!({"url": "https://modules.corp.example", "fallback": "Always"})), "OnNotFound"),
        (
            "redirect-url",
            "ok",
            upstream(json!({"url": "https://modules.corp.example", "redirectHosts": ["https://ci:hunter2@storage.corp.example"]})),
            "redirectHosts are host names in lower case, without scheme, port or path",
        ),
        (
            "proxy-password",
            "ok",
            json!({"network": {"httpProxy": {"url": "http://ci:hunter2@egress.corp.example:3128"}}}),
            "url must not carry a user name or password",
        ),
        (
            "proxy-path",
            "ok",
            json!({"network": {"httpProxy": {"url": "http://egress.corp.example:3128/x"}}}),
            "url must not have a path, a query or a fragment",
        ),
        (
            "no-proxy-list",
            "ok",
            json!({"network": {"httpProxy": {"url": "http://egress.corp.example:3128", "noProxy": ["a.example,b.example"]}}}),
            "noProxy holds one host, domain, address or range of addresses an entry",
        ),
        (
            "timeout",
            "ok",
            upstream(json!({"url": "https://modules.corp.example", "timeouts": {"head": "0s"}})),
            "head must be a whole number and a unit, such as 75s or 2m",
        ),
        (
            "secret-name",
            "ok",
            upstream(json!({"url": "https://modules.corp.example", "credentialsRef": {"name": "a/b"}})),
            "spec.upstreams[0].credentialsRef.name",
        ),
        (
            "bundle-key",
            "ok",
            upstream(json!({"url": "https://modules.corp.example", "caBundleRef": {"name": "corp-ca"}})),
            "spec.upstreams[0].caBundleRef.key: Required value",
        ),
    ]
}

fn wrong_elsewhere() -> Vec<Row> {
    let template = |value: Value| json!({"podTemplate": value});
    let own_labels = "labels of app.kubernetes.io/ and gomodcache.io/ are the operator's own";
    vec![
        ("own-label", "ok", template(json!({"labels": {"app.kubernetes.io/instance": "x"}})), own_labels),
        (
            "own-annotation",
            "ok",
            template(json!({"annotations": {"gomodcache.io/refresh": "x"}})),
            "annotations of gomodcache.io/ are the operator's own",
        ),
        ("affinity-typo", "ok", template(json!({"affinity": {"nodeAfinity": {}}})), "nodeAfinity"),
        ("pull-secret", "ok", template(json!({"imagePullSecrets": [{"name": "A b"}]})), "spec.podTemplate.imagePullSecrets[0].name"),
        ("fallback-word", "ok", json!({"clients": {"fallback": "Always"}}), "DirectOnNotFound"),
        (
            "namespace-glob",
            "ok",
            json!({"clients": {"publishTo": {"namespaces": ["team-*"]}}}),
            "publishTo.namespaces holds names of namespaces, without patterns",
        ),
        ("unknown-field", "ok", json!({"upstream": []}), "upstream"),
        ("unknown-nested", "ok", json!({"storage": {"sise": "1Gi"}}), "sise"),
        ("size-word", "ok", json!({"storage": {"size": "pear"}}), "size must be a positive quantity"),
        ("size-zero", "ok", json!({"storage": {"size": "0"}}), "size must be a positive quantity"),
        ("size-gb", "ok", json!({"storage": {"size": "50GB"}}), "size must be a positive quantity"),
        ("size-negative", "ok", json!({"storage": {"size": "-1Gi"}}), "size must be a positive quantity"),
        ("evict-early", "ok", json!({"storage": {"evictAbovePercent": 5}}), "greater than or equal to 10"),
        ("two-replicas", "ok", json!({"replicas": 2}), "more than one replica needs storage.accessMode ReadWriteMany"),
        (
            "two-of-one-pod",
            "ok",
            json!({"replicas": 2, "storage": {"accessMode": "ReadWriteOncePod"}}),
            "more than one replica needs storage.accessMode ReadWriteMany",
        ),
        ("no-replica", "ok", json!({"replicas": 0}), "greater than or equal to 1"),
        ("access-mode", "ok", json!({"storage": {"accessMode": "ReadOnlyMany"}}), "ReadWriteOnce"),
        ("everybody", "ok", json!({"network": {"ingress": {"from": [{}]}}}), "set namespaceSelector, podSelector or both"),
        (
            "two-patterns",
            "ok",
            json!({"privateModules": [{"pattern": "a.example,b.example"}]}),
            "pattern must be one glob in GOPRIVATE's syntax",
        ),
        ("slashed-pattern", "ok", json!({"privateModules": [{"pattern": "git.corp.example/"}]}), "without commas, spaces, scheme or slash"),
        ("deny-url", "ok", json!({"policy": {"deny": ["https://ci:hunter2@evil.example"]}}), "deny holds globs of module paths"),
        ("deny-branch", "ok", json!({"policy": {"deny": ["evil.example/m@main"]}}), "a.example/m@v1.2.3"),
        ("deny-major", "ok", json!({"policy": {"deny": ["evil.example/m@v1"]}}), "a.example/m@v1.2.3"),
        ("deny-minor", "ok", json!({"policy": {"deny": ["evil.example/m@v1.2"]}}), "a.example/m@v1.2.3"),
        ("deny-zero", "ok", json!({"policy": {"deny": ["evil.example/m@v1.02.3"]}}), "a.example/m@v1.2.3"),
        ("allow-build", "ok", json!({"policy": {"allow": ["good.example/m@v1.2.3+meta"]}}), "a.example/m@v1.2.3"),
        ("allow-comma", "ok", json!({"policy": {"allow": ["a.example,b.example"]}}), "allow holds globs of module paths"),
        ("age-words", "ok", json!({"policy": {"minimumReleaseAge": "3 weeks"}}), "such as 90m, 72h or 14d"),
        ("look-ahead", "ok", json!({"lookAhead": "Off"}), "Disabled"),
        ("dotted", "a.b", json!({}), "metadata.name names a Service"),
        ("digit-first", "1cache", json!({}), "metadata.name names a Service"),
        ("too-long", "a23456789-123456789-123456789-123456789-123456789-123", json!({}), "at most 52 characters"),
    ]
}

#[tokio::test]
async fn wrong_manifests_are_refused_with_a_sentence_that_echoes_no_password() {
    let Some(client) = client().await else { return };
    let mut wrong = Vec::new();
    for (what, name, spec, sentence) in wrong_upstreams().into_iter().chain(wrong_elsewhere()) {
        match apply(&client, name, &spec).await {
            Ok(_) => wrong.push(format!("{what}: accepted")),
            Err(error) if error.contains("hunter2") => wrong.push(format!("{what}: the message echoes the password: {error}")),
            Err(error) if !error.contains(sentence) => wrong.push(format!("{what}: {error}")),
            Err(_) => {}
        }
        remove(&client, name).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn unknown_fields_are_refused_as_kubectl_sends_them_and_by_plain_server_side_apply() {
    let Some(client) = client().await else { return };
    let manifest = |name: &str| json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": name}, "spec": {"storage": {"sise": "1Gi"}}});
    // kubectl create and kubectl apply ask for strict validation; a server-side apply is strict of itself.
    let request = http::Request::post("/apis/gomodcache.io/v1alpha1/namespaces/default/gomodulecaches?fieldValidation=Strict")
        .header("Content-Type", "application/json")
        .body(manifest("posted").to_string().into_bytes());
    let error = client.request_text(request.unwrap()).await.expect_err("create stored an unknown field").to_string();
    assert!(error.contains("unknown field \"spec.storage.sise\""), "{error}");
    let applied = caches(&client).patch("applied", &PatchParams::apply("tests"), &Patch::Apply(&manifest("applied"))).await;
    let error = applied.map_err(|error| error.to_string()).expect_err("apply stored an unknown field");
    assert!(error.contains(".spec.storage.sise: field not declared in schema"), "{error}");
}

#[tokio::test]
async fn storage_grows_and_goes_back_but_never_below_its_capacity() {
    let Some(client) = client().await else { return };
    let size = |size: &str| json!({"storage": {"size": size}});
    remove(&client, "shrink").await;
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
    let class = |class: &str| json!({"storage": {"storageClassName": class}});
    for (name, first, then) in [
        ("class-set", json!({}), class("fast")),
        ("class-changed", class("fast"), class("slow")),
        ("class-removed", class("fast"), json!({})),
    ] {
        remove(&client, name).await;
        apply(&client, name, &first).await.unwrap();
        let error = apply(&client, name, &then).await.expect_err(name);
        assert!(error.contains("storageClassName cannot be changed, set or removed"), "{name}: {error}");
        apply(&client, name, &first).await.expect("the same again is no change");
        remove(&client, name).await;
    }
    remove(&client, "mode").await;
    apply(&client, "mode", &json!({})).await.unwrap();
    let error = apply(&client, "mode", &json!({"storage": {"accessMode": "ReadWriteMany"}})).await.unwrap_err();
    assert!(error.contains("accessMode cannot be changed"), "{error}");
    remove(&client, "mode").await;
}

/// Defaults may be added, but nothing is changed and nothing is pruned.
fn assert_holds(path: &str, stored: &Value, written: &Value) {
    match written {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| assert_holds(&format!("{path}.{key}"), &stored[key], value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| assert_holds(&format!("{path}[{i}]"), &stored[i], value)),
        scalar => assert_eq!(stored, scalar, "{path}"),
    }
}

#[tokio::test]
async fn a_right_manifest_is_stored_as_written() {
    let Some(client) = client().await else { return };
    let spec = json!({
        "upstreams": [
            {"url": "https://modules.corp.example/go", "fallback": "OnError", "credentialsRef": {"name": "corp"}, "redirectHosts": ["storage.corp.example"],
             "caBundleRef": {"name": "corp-ca", "key": "ca.crt"}},
            {"url": "http://athens.corp.example", "internal": true},
        ],
        "checksumDatabase": {"mode": "Relay", "whenUnavailable": "Refuse"},
        "privateModules": [{"pattern": "git.corp.example/*"}],
        "policy": {
            "deny": ["evil.example/*", "a.example/m@v1.2.3", "a.example/m@v1.2.3-rc.1", "a.example/m@v2.0.0+incompatible"],
            "allow": ["*.example", "b.example/m@v0.0.0-20260101000000-0123456789ab"],
        },
        "storage": {"size": "1.5Gi", "accessMode": "ReadWriteMany", "storageClassName": "fast", "deletionPolicy": "Delete", "evictAbovePercent": 80},
        "network": {
            "ingress": {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}, {"podSelector": {}}]},
            "httpProxy": {"url": "http://egress.corp.example:3128", "noProxy": [".corp.example", "10.0.0.0/8", "[2001:db8::1]:443", "*"]},
        },
        "replicas": 2,
        "image": "registry.example/proxy:1",
        "podTemplate": {"resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}]},
    });
    let cache = apply(&client, "right", &spec).await.unwrap();
    assert_eq!(cache.name_any(), "right");
    assert_holds("spec", &cache.data["spec"], &spec);
    remove(&client, "right").await;
}
