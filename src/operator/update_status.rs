//! Step 5: says what is, from what was applied. Needs a client; writes only what differs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::apply::{Applied, FIELD_MANAGER, is_ours};
use super::conditions::{self, condition};
use super::credentials::Credentials;
use super::dereference::ClassState;
use super::egress::Resolved;
use super::metrics::Metrics;
use super::paused::PAUSED;
use super::reports::{self, Survey};
use super::rollout::RolledOut;
use super::validate::Validated;
use super::verdict::{ROLLED_OUT, Verdict};
use super::volume::{capacity, requested};
use crate::api::{ClientNamespace, ClientNamespaceState, Effective, EgressHost, GoModuleCache, GoModuleCacheStatus, StorageStatus};
use crate::config::HTTP_PORT;

/// What clients set as GOPROXY.
#[must_use]
pub(crate) fn url(cache: &Validated) -> String {
    format!("http://{}.{}.svc:{HTTP_PORT}", cache.names.cache, cache.namespace)
}

/// The status of a cache whose children were applied.
#[must_use]
pub(crate) fn status(
    cache: &Validated,
    applied: &Applied,
    credentials: &Credentials,
    resolved: &Resolved,
    class: &ClassState,
    survey: &Survey,
    rolled_out: RolledOut,
) -> GoModuleCacheStatus {
    let previous = cache.cache.status.clone().unwrap_or_default();
    let now = Time(Timestamp::now());
    let generation = cache.cache.meta().generation;
    let with_reports = conditions::with_reports;
    let storage =
        with_reports(conditions::storage(applied, class, &cache.names.proxy, &cache.cache.spec.storage), reports::storage(survey));
    let secrets = conditions::credentials(credentials, &cache.bundle_problems);
    // What no upstream needs, no pod has to take up.
    let in_use = if credentials.states.is_empty() { None } else { reports::credentials(survey, cache) };
    let secrets = with_reports(secrets, in_use);
    let egress = with_reports(conditions::egress(resolved, cache), reports::egress(survey, cache));
    let available = conditions::available(applied, survey);
    let was_applied = |c: &Condition| c.type_ == "ConfigurationApplied" && c.status == "True" && c.observed_generation == generation;
    let configuration = conditions::configuration(applied, survey, previous.conditions.iter().any(was_applied));
    let unfulfilled = conditions::refused(applied).or_else(|| conditions::beyond(&cache.beyond, &cache.names.env));
    let ready = conditions::ready(&available, unfulfilled.as_ref(), [&storage, &secrets, &egress], &rolled_out, &configuration);
    let all: [(&str, Verdict); 7] = [
        ("Ready", ready),
        ("Available", available),
        ("StorageReady", storage),
        ("CredentialsReady", secrets),
        ("EgressReady", egress),
        ("ConfigurationApplied", configuration),
        (ROLLED_OUT, rolled_out.verdict),
    ];
    let deployment = applied.deployment.as_ref().and_then(|d| d.status.as_ref());
    GoModuleCacheStatus {
        observed_generation: generation,
        url: Some(url(cache)),
        effective: Some(Effective {
            upstreams: cache.upstreams.iter().map(|u| u.url.to_string()).collect(),
            checksum_database: cache
                .checksum_database
                .as_ref()
                .map_or_else(|| "off".to_owned(), |db| format!("{} ({:?})", db.name, db.mode)),
            image: cache.image.clone(),
        }),
        conditions: all.into_iter().map(|(kind, verdict)| condition(kind, verdict, generation, &previous.conditions, &now)).collect(),
        egress: egress_hosts(resolved, &previous, &now),
        credentials: reports::states(&credentials.states, survey, cache),
        clients: client_namespaces(cache, applied),
        storage: Some(storage_status(cache, applied, &previous)),
        replicas: Some(deployment.and_then(|s| s.replicas).unwrap_or(0)),
        ready_replicas: Some(deployment.and_then(|s| s.ready_replicas).unwrap_or(0)),
    }
}

fn egress_hosts(resolved: &Resolved, previous: &GoModuleCacheStatus, now: &Time) -> Vec<EgressHost> {
    let count = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    resolved
        .pins
        .iter()
        .map(|pin| {
            let addresses = count(pin.addresses.len());
            let unchanged = previous.egress.iter().find(|old| old.host == pin.host && old.addresses == addresses);
            let last_changed = unchanged.and_then(|old| old.last_changed.clone()).or_else(|| Some(now.clone()));
            EgressHost { host: pin.host.clone(), addresses, last_changed }
        })
        .collect()
}

/// Every other namespace that the spec lists, in its order.
fn client_namespaces(cache: &Validated, applied: &Applied) -> Vec<ClientNamespace> {
    let state_of = |namespace: &String| {
        if cache.beyond.contains(namespace) {
            return ClientNamespace { namespace: namespace.clone(), state: ClientNamespaceState::NotInNamespaceMode };
        }
        let published = applied.published.iter().find(|published| published.namespace == *namespace);
        let state = published.map_or(ClientNamespaceState::NotAsked, |published| published.state);
        ClientNamespace { namespace: namespace.clone(), state }
    };
    cache.cache.spec.listed_namespaces(&cache.namespace).map(state_of).collect()
}

fn storage_status(cache: &Validated, applied: &Applied, previous: &GoModuleCacheStatus) -> StorageStatus {
    let claim = applied.claim.as_ref();
    let before = previous.storage.as_ref();
    let uid = cache.cache.meta().uid.clone().unwrap_or_default();
    StorageStatus {
        requested: claim.and_then(requested).map(str::to_owned).or_else(|| before.and_then(|b| b.requested.clone())),
        capacity: claim.and_then(capacity).map(str::to_owned),
        // By the owner that the claim has, not by the policy: the API server may have refused to change it.
        on_delete: if claim.is_some_and(|claim| is_ours(&claim.metadata, &uid)) { "Deleted" } else { "Retained" }.to_owned(),
    }
}

/// The status of a cache that can't be built at all: what was there, and why not more.
#[must_use]
pub(crate) fn invalid(cache: &GoModuleCache, message: String) -> GoModuleCacheStatus {
    let mut status = cache.status.clone().unwrap_or_default();
    let generation = cache.meta().generation;
    let ready = condition("Ready", (false, "InvalidSpec", message), generation, &status.conditions, &Time(Timestamp::now()));
    status.conditions.retain(|c| c.type_ != "Ready" && (c.type_ != PAUSED || cache.spec.paused));
    status.conditions.insert(0, ready);
    status.observed_generation = generation;
    status
}

/// Writes the status if it differs from the one that was read. Times change only with what they are about, so plain
/// equality ignores them.
///
/// # Errors
/// The API server's.
pub(crate) async fn update_status(
    client: &Client,
    metrics: &Metrics,
    cache: &GoModuleCache,
    status: GoModuleCacheStatus,
) -> Result<(), kube::Error> {
    if cache.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<GoModuleCache> = Api::namespaced(client.clone(), &cache.namespace().unwrap_or_default());
    let body = json!({
        "apiVersion": GoModuleCache::api_version(&()),
        "kind": GoModuleCache::kind(&()),
        // The UID keeps a status from a re-created object of the same name.
        "metadata": {"uid": cache.meta().uid},
        "status": status,
    });
    api.patch_status(&cache.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await?;
    metrics.write("apply", "GoModuleCache/status");
    Ok(())
}
