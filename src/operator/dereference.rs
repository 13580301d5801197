//! Step 1: reads everything that a cache refers to. Needs a client.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::ResourceExt;

use super::Settings;
use super::build::names::Names;
use super::ca_bundles::Bundles;
use super::scope::Scope;
use super::view::View;
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

/// Reads. What is `seeded` has its pins elsewhere; for one that is not they are asked for in any case, since an address that an
/// old look does not show would be closed.
///
/// # Errors
/// The API server's, except that what is absent is an answer.
pub(crate) async fn dereference(
    view: View<'_>,
    cache: &GoModuleCache,
    namespace: &str,
    uid: &str,
    seeded: bool,
    settings: &Settings,
) -> Result<Referenced, kube::Error> {
    let names = Names::new(&cache.name_any());
    let mut out = Referenced::default();
    for reference in cache.spec.secrets() {
        if !out.secrets.contains_key(&reference.name)
            && let Some(secret) = view.secret(namespace, &reference.name).await?
        {
            out.secrets.insert(reference.name.clone(), secret);
        }
    }
    for upstream in &cache.spec.upstreams {
        if let Some(reference) = &upstream.ca_bundle_ref
            && !out.ca_bundles.config_maps.contains_key(&reference.name)
            && let Some(config_map) = view.bundle(namespace, &reference.name).await?
        {
            out.ca_bundles.config_maps.insert(reference.name.clone(), config_map);
        }
    }
    // What someone else put under our names is no memory of ours.
    out.previous = view
        .credentials(namespace, &names.credentials)
        .await?
        .filter(|secret| super::apply::is_ours(&secret.metadata, uid))
        .and_then(|secret| secret.data)
        .unwrap_or_default();
    let for_config = View { live: view.live || !seeded, ..view };
    let told: Option<ConfigMap> = for_config.child(namespace, &names.config).await?;
    let told = told.filter(|config| super::apply::is_ours(&config.metadata, uid));
    if let Some(told) = told.as_ref().and_then(|told| parse(told, &settings.config_versions)) {
        out.ca_bundles.last_good = told.upstreams.into_iter().filter_map(|u| Some((u.url, u.ca_bundle?))).collect();
        if let Resolution::Pinned { hosts } = told.resolution {
            out.pinned = hosts;
        }
    }
    out.claim = view.child(namespace, &names.proxy).await?;
    out.class = class_state(view, cache, out.claim.as_ref(), &settings.scope).await?;
    Ok(out)
}

/// When to look again at what is polled for this cache.
pub(crate) fn next_turn(view: View<'_>, cache: &GoModuleCache, namespace: &str) -> Option<std::time::Duration> {
    let polls = &view.memory.polls;
    let own = polls.credentials.turn(namespace, &Names::new(&cache.name_any()).credentials);
    let secrets = cache.spec.secrets().filter_map(|reference| polls.secrets.turn(namespace, &reference.name));
    let references = cache.spec.upstreams.iter().filter_map(|upstream| upstream.ca_bundle_ref.as_ref());
    let bundles = references.filter_map(|reference| polls.bundles.turn(namespace, &reference.name));
    own.into_iter().chain(secrets).chain(bundles).min()
}

/// The newest file of those that this operator reads; another may have written more.
fn parse(config: &ConfigMap, versions: &Versions) -> Option<ProxyConfig> {
    let files = config.data.as_ref()?;
    let newest = versions.newest_first().iter().find_map(|version| files.get(&file_name(*version)))?;
    ProxyConfig::parse_any(newest, versions).ok()
}

async fn class_state(
    view: View<'_>,
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
    let stored = claim.and_then(|c| c.spec.as_ref()).and_then(|s| s.storage_class_name.clone());
    let wanted = stored.or_else(|| cache.spec.storage.storage_class_name.clone());
    let find = |classes: Vec<(String, bool)>| match &wanted {
        Some(name) if classes.iter().any(|(class, _)| class == name) => ClassState::Fine,
        Some(name) => ClassState::Missing(name.clone()),
        None if classes.iter().any(|(_, is_default)| *is_default) => ClassState::Fine,
        None => ClassState::NoDefault,
    };
    let classes = &view.memory.polls.classes;
    match find(classes.look(view.client, false).await?) {
        ClassState::Fine => Ok(ClassState::Fine),
        // Before anybody is told, it is made sure of.
        _ if view.live => classes.look(view.client, true).await.map(find),
        absent => Ok(absent),
    }
}
