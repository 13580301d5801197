//! Step 3: every child of a cache, from validated input only. Pure; one file a kind.

mod account;
mod claim;
mod config_map;
mod deployment;
mod disruption;
mod env;
pub(crate) mod names;
mod network_policy;
mod secret;
mod services;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::credentials::Data;
use super::egress::Resolved;
use super::validate::Validated;
use crate::config::{ConfigError, Versions};
pub(crate) use claim::Sharing;
pub(crate) use deployment::{Kept, Marks, marks};
pub(crate) use disruption::Budget;

/// The label by which the operator finds its children.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "gomodcache-operator");
/// The label that names the cache.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";

/// The label by which a namespace asks for the clients' environment of one cache, as `<namespace>.<name>`, and by which the
/// ConfigMap there says whose it is.
pub(crate) const ENV_FROM: &str = "gomodcache.io/env-from";
/// The label of such a ConfigMap that names the cache's UID.
pub(crate) const ENV_CACHE_UID: &str = "gomodcache.io/cache-uid";

/// The label of a Deployment that says who chose its image: the operator's setting, or the spec.
pub(crate) const IMAGE_FROM: &str = "gomodcache.io/image-from";
/// The value of [`IMAGE_FROM`] for the operator's setting.
pub(crate) const IMAGE_FROM_OPERATOR: &str = "operator";
/// The label of a Deployment with a digest of what the spec asks of its pod template.
pub(crate) const PODS_ASKED: &str = "gomodcache.io/pods-asked";
/// The label of a Deployment with a digest of what an operator made of that, but for the image.
pub(crate) const PODS_MADE: &str = "gomodcache.io/pods-made";

/// The value of [`ENV_FROM`] for a cache.
pub(crate) fn asked_name(namespace: &str, cache: &str) -> String {
    format!("{namespace}.{cache}")
}

/// Everything that a cache consists of; wished for, not yet applied.
pub(crate) struct Prepared {
    /// Without a token.
    pub account: ServiceAccount,
    /// Closed but for the pins.
    pub policy: NetworkPolicy,
    /// What the proxy reads.
    pub config: ConfigMap,
    /// What the proxy sends.
    pub credentials: Secret,
    /// The volume.
    pub claim: PersistentVolumeClaim,
    /// A claim that never had one and has to make room for it.
    pub unbound: Option<PersistentVolumeClaim>,
    /// The module port.
    pub service: Service,
    /// The admin port.
    pub admin: Service,
    /// What clients set.
    pub env: ConfigMap,
    /// The same in other namespaces.
    pub published: Vec<ConfigMap>,
    /// How many pods a drain may take at once.
    pub budget: Budget,
    /// The pods.
    pub deployment: Deployment,
}

/// Builds.
///
/// # Errors
/// The configuration can't be written; by type only.
pub(crate) fn build(
    cache: &Validated,
    resolved: &Resolved,
    credentials: Data,
    claim: Option<&PersistentVolumeClaim>,
    admin_namespaces: &[String],
    config_versions: &Versions,
) -> Result<Prepared, ConfigError> {
    Ok(Prepared {
        account: account::build(cache),
        policy: network_policy::build(cache, &resolved.allowed, admin_namespaces),
        config: config_map::build(cache, &resolved.pins, config_versions)?,
        credentials: secret::build(cache, credentials),
        claim: claim::build(cache, claim),
        unbound: claim::to_be_replaced(cache, claim),
        service: services::http(cache),
        admin: services::admin(cache),
        env: env::build(cache),
        published: cache.guests.iter().map(|namespace| env::published(cache, namespace)).collect(),
        budget: disruption::build(cache),
        deployment: deployment::build(cache),
    })
}

/// The labels that select the pods of a cache.
fn selector(cache: &Validated) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name".to_owned(), "gomodcache".to_owned()),
        (INSTANCE.to_owned(), cache.names.cache.clone()),
        ("app.kubernetes.io/component".to_owned(), "proxy".to_owned()),
    ]
    .into()
}

/// The labels of every child.
fn labels(cache: &Validated) -> BTreeMap<String, String> {
    let mut labels = selector(cache);
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels
}

fn owner(cache: &Validated) -> Option<Vec<OwnerReference>> {
    cache.cache.controller_owner_ref(&()).map(|owner| vec![owner])
}

/// The metadata of a child that goes with its cache.
fn owned(cache: &Validated, name: &str) -> ObjectMeta {
    ObjectMeta { owner_references: owner(cache), ..unowned(cache, name) }
}

/// The metadata of a child that stays.
fn unowned(cache: &Validated, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(cache.namespace.clone()),
        labels: Some(labels(cache)),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
