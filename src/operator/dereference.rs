//! Step 1: reads everything that a cache refers to. Needs a client.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::Settings;
use super::build::names::Names;
use super::ca_bundles::Bundles;
use super::scope::Scope;
use crate::api::GoModuleCache;
use crate::config::{PinnedHost, ProxyConfig, Resolution, Versions, file_name};

/// What the cluster holds that the spec only names.
#[derive(Default)]
pub(crate) struct Referenced {
    /// The user's Secrets that exist.
    pub secrets: BTreeMap<String, Secret>,
    /// The user's CA bundles, and those of our own ConfigMap, if it is ours.
    pub ca_bundles: Bundles,
    /// The content of our own Secret, if it is ours.
    pub previous: super::credentials::Data,
    /// The pins of our own ConfigMap, if it is ours.
    pub pinned: Vec<PinnedHost>,
    /// The claim of that name, whoever owns it.
    pub claim: Option<PersistentVolumeClaim>,
    /// What is known of the claim's class.
    pub class: ClassState,
}

/// Whether the class that an unbound claim waits for exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClassState {
    /// It exists, or nobody needed to know.
    #[default]
    Fine,
    /// The named class does not exist.
    Missing(String),
    /// No class is named and none is the default.
    NoDefault,
    /// Classes are in no namespace, and the operator works in one.
    NotRead,
}

/// Reads.
///
/// # Errors
/// The API server's, except that what is absent is an answer.
pub(crate) async fn dereference(
    client: &Client,
    cache: &GoModuleCache,
    namespace: &str,
    uid: &str,
    settings: &Settings,
) -> Result<Referenced, kube::Error> {
    let names = Names::new(&cache.name_any());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut out = Referenced::default();
    for reference in cache.spec.secrets() {
        if !out.secrets.contains_key(&reference.name)
            && let Some(secret) = secrets.get_opt(&reference.name).await?
        {
            out.secrets.insert(reference.name.clone(), secret);
        }
    }
    for upstream in &cache.spec.upstreams {
        if let Some(reference) = &upstream.ca_bundle_ref
            && !out.ca_bundles.config_maps.contains_key(&reference.name)
            && let Some(config_map) = config_maps.get_opt(&reference.name).await?
        {
            out.ca_bundles.config_maps.insert(reference.name.clone(), config_map);
        }
    }
    // What someone else put under our names is no memory of ours.
    out.previous = secrets
        .get_opt(&names.credentials)
        .await?
        .filter(|secret| super::apply::is_ours(&secret.metadata, uid))
        .and_then(|secret| secret.data)
        .unwrap_or_default();
    let told = config_maps.get_opt(&names.config).await?.filter(|config| super::apply::is_ours(&config.metadata, uid));
    if let Some(told) = told.as_ref().and_then(|told| parse(told, &settings.config_versions)) {
        out.ca_bundles.last_good = told.upstreams.into_iter().filter_map(|u| Some((u.url, u.ca_bundle?))).collect();
        if let Resolution::Pinned { hosts } = told.resolution {
            out.pinned = hosts;
        }
    }
    out.claim = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).get_opt(&names.proxy).await?;
    out.class = class_state(client, cache, out.claim.as_ref(), &settings.scope).await?;
    Ok(out)
}

/// The newest file of those that this operator reads; another may have written more.
fn parse(config: &ConfigMap, versions: &Versions) -> Option<ProxyConfig> {
    let files = config.data.as_ref()?;
    let newest = versions.newest_first().iter().find_map(|version| files.get(&file_name(*version)))?;
    ProxyConfig::parse_any(newest, versions).ok()
}

async fn class_state(
    client: &Client,
    cache: &GoModuleCache,
    claim: Option<&PersistentVolumeClaim>,
    scope: &Scope,
) -> Result<ClassState, kube::Error> {
    let phase = claim.and_then(|c| c.status.as_ref()).and_then(|s| s.phase.as_deref());
    if phase == Some("Bound") {
        return Ok(ClassState::Fine);
    }
    if *scope != Scope::Cluster {
        return Ok(ClassState::NotRead);
    }
    let api: Api<StorageClass> = Api::all(client.clone());
    let stored = claim.and_then(|c| c.spec.as_ref()).and_then(|s| s.storage_class_name.clone());
    match stored.or_else(|| cache.spec.storage.storage_class_name.clone()) {
        Some(name) => Ok(if api.get_opt(&name).await?.is_some() { ClassState::Fine } else { ClassState::Missing(name) }),
        None => {
            let default =
                api.list(&ListParams::default()).await?.into_iter().any(|class| {
                    class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
                });
            Ok(if default { ClassState::Fine } else { ClassState::NoDefault })
        }
    }
}
