//! An object that this release can't read: stored under a looser schema, or by a later one. That is said in its status, by a
//! dynamic API, and all else of it is left alone. When it can be read again, the reconcile takes the word back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::apply::{FIELD_MANAGER, is_refusal};
use super::conditions::condition;
use super::metrics::Metrics;
use crate::api::GoModuleCache;

/// The reason of the condition and of the event.
pub(crate) const UNDECODABLE: &str = "Undecodable";

/// What is wrong with the object: as far as the watch knows.
#[must_use]
pub(crate) fn fault(invalid: &InvalidObject) -> String {
    without_value(&invalid.error)
}

/// Writes the condition, unless it stands there already.
///
/// # Errors
/// The API server's.
pub(crate) async fn tell(client: &Client, metrics: &Metrics, invalid: &InvalidObject) -> Result<(), kube::Error> {
    let (name, namespace) = (invalid.metadata.name.clone().unwrap_or_default(), invalid.metadata.namespace.clone().unwrap_or_default());
    let resource = ApiResource::erase::<GoModuleCache>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    // The role has no get, and needs none.
    let found = api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await?.items.into_iter().next();
    let Some(object) = found.filter(|object| object.metadata.deletion_timestamp.is_none()) else { return Ok(()) };
    let Some(status) = status(&object) else { return Ok(()) };
    let body = json!({
        "apiVersion": GoModuleCache::api_version(&()),
        "kind": GoModuleCache::kind(&()),
        "metadata": {"uid": object.metadata.uid},
        "status": status,
    });
    match api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await {
        // The event has told it all the same.
        Err(kube::Error::Api(status)) if is_refusal(status.code) => {
            tracing::warn!(reason = status.message, "the status of an undecodable object was refused");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => {
            metrics.write("apply", "GoModuleCache/status");
            Ok(())
        }
    }
}

/// The status with the condition in it; nothing if it is there already, or if the object can be read after all.
fn status(object: &DynamicObject) -> Option<Value> {
    let value = serde_json::to_value(object).ok()?;
    let error = serde_path_to_error::deserialize::<_, GoModuleCache>(&value).err()?;
    let (field, fault) = (error.path().to_string(), without_value(&error.inner().to_string()));
    let message = format!(
        "this version of the operator can't read {field}: {fault}. Correct the field, or install an operator that knows it; until then nothing of this cache is made, changed or repaired"
    );
    let mut status = object.data.get("status").filter(|status| status.is_object()).cloned().unwrap_or_else(|| json!({}));
    let conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let before: Vec<Condition> = conditions.iter().filter_map(|one| serde_json::from_value(one.clone()).ok()).collect();
    let generation = object.metadata.generation;
    let ready = condition("Ready", (false, UNDECODABLE, message), generation, &before, &Time(Timestamp::now()));
    if before.contains(&ready) {
        return None;
    }
    let others = conditions.into_iter().filter(|one| one.get("type").and_then(Value::as_str) != Some("Ready"));
    let all: Vec<Value> = serde_json::to_value(ready).ok().into_iter().chain(others).collect();
    let fields = status.as_object_mut()?;
    fields.insert("conditions".to_owned(), json!(all));
    fields.insert("observedGeneration".to_owned(), json!(generation));
    Some(status)
}

/// A text that stands where none belongs may be a URL with a password, or a Secret's content.
fn without_value(error: &str) -> String {
    match error.split_once("string \"").and_then(|(before, rest)| Some((before, rest.rsplit_once('"')?))) {
        Some((before, (_, after))) => format!("{before}string{after}"),
        None => error.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn object(spec: &Value, status: &Value) -> DynamicObject {
        let metadata = json!({"name": "odd", "namespace": "shop", "uid": "u", "generation": 3});
        let object =
            json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": metadata, "spec": spec, "status": status});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_field_is_named_and_the_rest_of_the_status_stays() {
        let spec = json!({"upstreams": [{"url": "https://a.example", "fallback": "OnSunday"}]});
        let old =
            json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let other = json!({"type": "Available", "status": "True"});
        let told = status(&object(&spec, &json!({"url": "http://x", "conditions": [old, other]}))).unwrap();
        let (ready, rest) = (&told["conditions"][0], &told["conditions"][1]);
        assert_eq!((&ready["status"], &ready["reason"], &ready["observedGeneration"]), (&json!("False"), &json!("Undecodable"), &json!(3)));
        let message = ready["message"].as_str().unwrap();
        assert!(message.contains("spec.upstreams[0].fallback") && message.contains("OnSunday") && message.contains("install"), "{message}");
        assert_eq!((rest, &told["url"], &told["observedGeneration"]), (&other, &json!("http://x"), &json!(3)));
        assert_eq!(status(&object(&spec, &told)), None, "once is enough");
        assert_eq!(status(&object(&json!({}), &json!({}))), None, "it can be read");
    }

    #[test]
    fn no_text_of_the_object_is_repeated_where_it_may_be_a_secret() {
        let spec = json!({"upstreams": "https://ci:hunter2@\"a\".example"});
        let told = status(&object(&spec, &json!({}))).unwrap().to_string();
        assert!(told.contains("spec.upstreams: invalid type: string, expected a sequence") && !told.contains("hunter2"), "{told}");
    }
}
