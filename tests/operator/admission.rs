//! The admission policies that `deploy/base` ships, in force for the operator under test, and what they refuse it.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::proxies::own_pod;
use super::stage::{Stage, stage};
use super::{await_children, without_names};

const SHIPPED_USER: &str = "system:serviceaccount:gomodcache-system:gomodcache-operator";

/// Applies the shipped policies under names that begin with `name`, for `user` in place of the shipped one.
pub(crate) async fn make(admin: &Client, name: &str, user: &str) {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base/admission.yaml")).unwrap();
    assert!(shipped.contains(SHIPPED_USER));
    let ours = shipped.replace(SHIPPED_USER, user).replace("name: gomodcache-operator-", &format!("name: {name}-"));
    let ours = ours.replace("policyName: gomodcache-operator-", &format!("policyName: {name}-"));
    let parameters = PatchParams::apply("tests").force();
    for document in serde_saphyr::from_multiple::<Value>(&ours).unwrap() {
        let name = document["metadata"]["name"].as_str().unwrap();
        let patch = Patch::Apply(&document);
        match document["kind"].as_str().unwrap() {
            "ValidatingAdmissionPolicy" => {
                let made = Api::<ValidatingAdmissionPolicy>::all(admin.clone()).patch(name, &parameters, &patch).await.unwrap();
                assert!(made.spec.is_some());
            }
            _ => drop(Api::<ValidatingAdmissionPolicyBinding>::all(admin.clone()).patch(name, &parameters, &patch).await.unwrap()),
        }
    }
}

/// A patch by the operator's own account.
async fn as_operator(stage: &Stage, pod: &str, patch: Value) -> Result<(), String> {
    let pods: Api<Pod> = Api::namespaced(stage.account().client(), &stage.namespace);
    pods.patch(pod, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(|_| ()).map_err(|error| error.to_string())
}

fn annotation(key: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

#[tokio::test]
async fn the_operator_may_annotate_its_own_pods_and_change_nothing_else_of_any() {
    let Some(stage) = stage("admission").await else { return };
    stage.cache("rye", &without_names()).await;
    await_children(&stage, "rye").await;
    let own = own_pod(&stage, "rye").await;
    let container = json!({"name": "c", "image": "registry.example/other:1"});
    let foreign = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreign"}, "spec": {"containers": [container]}});
    stage.apply(&foreign).await;

    let image = json!({"spec": {"containers": [{"name": "proxy", "image": "registry.example/evil:1"}]}});
    // A policy is in force a moment after it was made.
    stage
        .eventually("a foreign pod is refused", async || {
            let refused = as_operator(&stage, "foreign", annotation("gomodcache.io/refresh", "1")).await;
            refused.is_err_and(|error| error.contains("may only touch its own pods"))
        })
        .await;
    for (patch, message) in [
        (image, "may only annotate pods"),
        (json!({"metadata": {"labels": {"app.kubernetes.io/instance": "other"}}}), "may only annotate pods"),
        (json!({"metadata": {"finalizers": ["tests.example/hold"]}}), "may only annotate pods"),
        (json!({"metadata": {"ownerReferences": [{"$patch": "replace"}]}}), "may only annotate pods"),
        (annotation("tests.example/other", "1"), "may only write the annotation gomodcache.io/refresh"),
    ] {
        let error = as_operator(&stage, &own, patch.clone()).await.expect_err(&format!("{patch} was let through"));
        assert!(error.contains(message), "{patch}: {error}");
    }
    as_operator(&stage, &own, annotation("gomodcache.io/refresh", "1")).await.expect("its own pod's annotation");

    stage.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign"}})).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(stage.account().client(), &stage.namespace);
    let error = config_maps.delete("foreign", &DeleteParams::default()).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("may only delete what it made"), "{error}");
    config_maps.delete("rye-env", &DeleteParams::default()).await.expect("its own");

    // Claims that hold nothing of anybody's, and no others.
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(stage.account().client(), &stage.namespace);
    let claim = |name: &str, labels: Value, changes: Value| {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "labels": labels}, "spec": spec})
    };
    let ours = json!({"app.kubernetes.io/managed-by": "gomodcache-operator"});
    let bound_before = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
    for (object, message) in [
        (claim("foreign", json!({}), json!({})), "may only delete what it made"),
        (claim("full", ours.clone(), json!({"volumeName": "theirs"})), "may only delete claims that never had a volume"),
        (claim("was-full", ours.clone(), json!({})), "may only delete claims that never had a volume"),
    ] {
        stage.apply(&object).await;
        let name = object["metadata"]["name"].as_str().unwrap();
        if name == "was-full" {
            stage.patch("PersistentVolumeClaim", name, &bound_before).await;
        }
        let error = claims.delete(name, &DeleteParams::default()).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
    stage.apply(&claim("empty", ours, json!({}))).await;
    claims.delete("empty", &DeleteParams::default()).await.expect("one of its own without a volume");
}
