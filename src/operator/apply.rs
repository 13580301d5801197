//! Step 4: makes the cluster hold what was built, writes nothing that it holds already, and never touches what is not ours.
//! Needs a client.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::{Budget, ENV_FROM, INSTANCE, MANAGED_BY, Prepared};
use super::compare::{additions, is_stored};
use super::metrics::Metrics;
use super::view::{Child, View};
use crate::api::{ClientNamespace, ClientNamespaceState};

/// Who we are to server-side apply.
pub(crate) const FIELD_MANAGER: &str = "gomodcache-operator";
/// A digest of what was applied last: a field that is no longer wanted is seen by it, since a subset can't show it.
const APPLIED: &str = "gomodcache.io/applied";

/// What the server stored. A status is made of this and not of wishes.
#[derive(Default)]
pub(crate) struct Applied {
    /// The Deployment, unless a conflict forbids it.
    pub deployment: Option<Deployment>,
    /// What the proxy reads, unless a conflict forbids it.
    pub config: Option<ConfigMap>,
    /// What the proxy sends, unless a conflict forbids it.
    pub credentials: Option<Secret>,
    /// The claim, unless another owner has it.
    pub claim: Option<PersistentVolumeClaim>,
    /// What became of the clients' environment in each of the other namespaces that ask for it.
    pub published: Vec<ClientNamespace>,
    /// Objects of our names that are not ours, as `Kind name`.
    pub conflicts: Vec<String>,
    /// Objects that the API server refused, as `Kind name: its sentence`.
    pub refused: Vec<String>,
    /// Objects that were held back, because the cache is paused or the view is no ground for a write, as `Kind name`.
    pub pending: Vec<String>,
    /// Nothing may be written for this cache but its status.
    pub paused: bool,
}

/// Whether this cache is the controller of an object.
#[must_use]
pub(crate) fn is_ours(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Whether a claim may be taken up: it carries our labels and nobody else controls it.
fn may_adopt(meta: &ObjectMeta, cache: &str, uid: &str) -> bool {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let foreign = meta.owner_references.iter().flatten().any(|owner| owner.uid != uid);
    !foreign && label(MANAGED_BY.0) == Some(MANAGED_BY.1) && label(INSTANCE) == Some(cache)
}

/// Applies in the order that is safe: the policy before the configuration that uses it, the pods last. Paused, or by a view that
/// may be old, it only looks what there would be to write.
///
/// # Errors
/// The API server's; what was written stays and the next attempt goes on from there.
pub(crate) async fn apply(
    view: View<'_>,
    metrics: &Metrics,
    cache: &str,
    uid: &str,
    paused: bool,
    prepared: Prepared,
) -> Result<Applied, kube::Error> {
    let Prepared { account, policy, config, credentials, claim, unbound, service, admin, env, published, budget, deployment } = prepared;
    let dry = paused || !view.live;
    let mut step = Step { view, metrics, uid, dry, conflicts: Vec::new(), refused: Vec::new(), pending: Vec::new(), lacking: false };
    let owned = |meta: &ObjectMeta| is_ours(meta, uid);
    step.one(&account, owned).await?;
    step.one(&policy, owned).await?;
    let config = step.one(&config, owned).await?;
    let credentials = step.one(&credentials, owned).await?;
    let claim = step.claim(&claim, unbound, |meta| may_adopt(meta, cache, uid)).await?;
    step.one(&service, owned).await?;
    step.one(&admin, owned).await?;
    step.one(&env, owned).await?;
    match budget {
        Budget::Wanted(budget) => drop(step.one(&*budget, owned).await?),
        Budget::Unwanted { namespace, name } => step.remove::<PodDisruptionBudget>(&namespace, &name).await?,
        Budget::Impossible => {}
    }
    // Pods without their own policy or with someone else's configuration are worse than none.
    let published = step.publish(published).await?;
    let deployment = if step.conflicts.is_empty() && !step.lacking { step.one(&deployment, owned).await? } else { None };
    let Step { conflicts, refused, pending, .. } = step;
    Ok(Applied { deployment, config, credentials, claim, published, conflicts, refused, pending, paused })
}

struct Step<'a> {
    view: View<'a>,
    metrics: &'a Metrics,
    uid: &'a str,
    /// Nothing is written.
    dry: bool,
    conflicts: Vec<String>,
    refused: Vec<String>,
    pending: Vec<String>,
    /// Something was refused that does not exist either; a refused change leaves what was there before.
    lacking: bool,
}

impl Step<'_> {
    /// What others do in their namespaces is no concern of the cache itself: it is neither its conflict nor its refusal.
    async fn publish(&mut self, published: Vec<ConfigMap>) -> Result<Vec<ClientNamespace>, kube::Error> {
        let mut states = Vec::new();
        for env in published {
            let Step { view, metrics, uid, dry, .. } = *self;
            let mut abroad =
                Step { view, metrics, uid, dry, conflicts: Vec::new(), refused: Vec::new(), pending: Vec::new(), lacking: false };
            let labels = env.metadata.labels.clone().unwrap_or_default();
            let label = |meta: &ObjectMeta, key: &str| meta.labels.as_ref().and_then(|all| all.get(key)) == labels.get(key);
            abroad.one(&env, |meta| label(meta, MANAGED_BY.0) && label(meta, ENV_FROM)).await?;
            if !abroad.pending.is_empty() {
                let namespace = env.metadata.namespace.unwrap_or_default();
                self.pending.extend(abroad.pending.into_iter().map(|object| format!("{object} in namespace {namespace}")));
                continue;
            }
            let state = match (abroad.conflicts.is_empty(), abroad.refused.is_empty()) {
                (false, _) => ClientNamespaceState::NameConflict,
                (true, false) => ClientNamespaceState::Refused,
                (true, true) => ClientNamespaceState::Published,
            };
            states.push(ClientNamespace { namespace: env.metadata.namespace.unwrap_or_default(), state });
        }
        Ok(states)
    }

    /// Deletes what is ours and no longer wanted.
    async fn remove<K: Child>(&mut self, namespace: &str, name: &str) -> Result<(), kube::Error> {
        let api: Api<K> = Api::namespaced(self.view.client.clone(), namespace);
        let stored: Option<K> = self.view.child(namespace, name).await?;
        match stored.as_ref().map(Resource::meta).filter(|meta| is_ours(meta, self.uid) && meta.deletion_timestamp.is_none()) {
            Some(_) if self.dry => {
                self.pending.push(format!("{} {name}, to be deleted", K::kind(&())));
                Ok(())
            }
            Some(meta) => delete(&api, self.metrics, meta).await,
            None => Ok(()),
        }
    }

    /// A claim that never had a volume and has other fields than are wanted is deleted first, since they can't be changed. It is
    /// left alone where just that was applied before: what a webhook makes of every claim, it would make of the next one, too.
    async fn claim(
        &mut self,
        wanted: &PersistentVolumeClaim,
        unbound: Option<PersistentVolumeClaim>,
        ours: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<Option<PersistentVolumeClaim>, kube::Error> {
        if let Some(unbound) = unbound.filter(|unbound| ours(&unbound.metadata)) {
            let body = serde_json::to_value(wanted).map_err(kube::Error::SerdeError)?;
            if unbound.metadata.annotations.as_ref().and_then(|all| all.get(APPLIED)) == Some(&digest(&body)) {
                return Ok(Some(unbound));
            }
            if !self.dry {
                let api = Api::<PersistentVolumeClaim>::namespaced(
                    self.view.client.clone(),
                    unbound.metadata.namespace.as_deref().unwrap_or_default(),
                );
                delete(&api, self.metrics, &unbound.metadata).await?;
            }
        }
        self.one(wanted, ours).await
    }

    async fn one<K: Child>(&mut self, wanted: &K, ours: impl Fn(&ObjectMeta) -> bool) -> Result<Option<K>, kube::Error> {
        let (Some(name), Some(namespace)) = (&wanted.meta().name, &wanted.meta().namespace) else { return Ok(None) };
        let api: Api<K> = Api::namespaced(self.view.client.clone(), namespace);
        let mut body = serde_json::to_value(wanted).map_err(kube::Error::SerdeError)?;
        let digest = digest(&body);
        merge_annotation(&mut body, &digest);
        let stored: Option<K> = self.view.child(namespace, name).await?;
        let mut params = PatchParams::apply(FIELD_MANAGER);
        if let Some(stored) = &stored {
            if !ours(stored.meta()) {
                self.conflicts.push(format!("{} {name}", K::kind(&())));
                return Ok(None);
            }
            // What is going away is waited for; the watch says when it is gone.
            if stored.meta().deletion_timestamp.is_some() {
                return Ok(Some(stored.clone()));
            }
            let value = serde_json::to_value(stored).map_err(kube::Error::SerdeError)?;
            if is_stored(&value, &body) {
                return Ok(Some(stored.clone()));
            }
            if let Some(mut undo) = additions(&value, &body).filter(|_| !self.dry) {
                undo.insert("metadata".to_owned(), json!({"uid": stored.meta().uid}));
                api.patch(name, &PatchParams::default(), &Patch::Merge(&undo)).await?;
                self.metrics.write("patch", &K::kind(&()));
                tracing::info!(kind = %K::kind(&()), %namespace, %name, "undid additions of others");
            }
            if let (Some(meta), Some(uid)) = (body.get_mut("metadata").and_then(Value::as_object_mut), &stored.meta().uid) {
                meta.insert("uid".to_owned(), json!(uid));
            }
            params = params.force();
        }
        if self.dry {
            self.pending.push(format!("{} {name}", K::kind(&())));
            return Ok(stored);
        }
        // Without force a foreign object that appears in between is a conflict and not ours by accident.
        let result = match api.patch(name, &params, &Patch::Apply(&body)).await {
            Err(kube::Error::Api(status)) if is_refusal(status.code) => {
                // The other children do not wait for what only a person can mend, and the status says it.
                tracing::warn!(kind = %K::kind(&()), %namespace, %name, code = status.code, reason = status.message, "refused");
                self.refused.push(format!("{} {name}: {}", K::kind(&()), status.message));
                self.lacking |= stored.is_none();
                return Ok(stored);
            }
            result => result?,
        };
        self.metrics.write("apply", &K::kind(&()));
        tracing::info!(kind = %K::kind(&()), %namespace, %name, "applied");
        Ok(Some(result))
    }
}

/// Deletes this very object; one of the same name that was made since stays, and one that has gone is no error.
///
/// # Errors
/// The API server's.
pub(crate) async fn delete<K>(api: &Api<K>, metrics: &Metrics, meta: &ObjectMeta) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(meta.name.as_deref().unwrap_or_default(), &parameters).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            metrics.write("delete", &K::kind(&()));
            tracing::info!(kind = %K::kind(&()), namespace = meta.namespace, name = meta.name, "deleted");
            Ok(())
        }
    }
}

/// Answers about the object that was sent (a quota, a field that can't change, too many bytes), which trying again alone
/// does not cure; unlike a conflict, a rate limit or an outage.
pub(crate) fn is_refusal(code: u16) -> bool {
    matches!(code, 400 | 403 | 413 | 422)
}

fn digest(body: &Value) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, body.to_string().as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn merge_annotation(body: &mut Value, digest: &str) {
    if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.insert("annotations".to_owned(), json!({ APPLIED: digest }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_of_another_owner_is_not_taken() {
        let meta = |owner: &str, instance: &str| -> ObjectMeta {
            serde_json::from_value(json!({
                "labels": {MANAGED_BY.0: MANAGED_BY.1, INSTANCE: instance},
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}],
            }))
            .unwrap_or_default()
        };
        assert!(may_adopt(&meta("me", "ci"), "ci", "me"));
        assert!(!may_adopt(&meta("other", "ci"), "ci", "me"));
        assert!(!may_adopt(&meta("me", "edge"), "ci", "me"));
        assert!(!may_adopt(&ObjectMeta::default(), "ci", "me"));
    }
}
