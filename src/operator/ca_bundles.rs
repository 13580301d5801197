//! From the users' ConfigMaps to the certificates that an upstream is trusted by. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use url::Url;

use crate::api::ConfigMapKeyRef;
use crate::config::check_ca_bundle;

/// A reason from a fixed set, and what to do.
pub(crate) type Problem = (&'static str, String);

/// What the cluster holds of them.
#[derive(Default)]
pub(crate) struct Bundles {
    /// The users' ConfigMaps that exist.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// What the proxy was told last, by upstream.
    pub last_good: BTreeMap<Url, String>,
}

impl Bundles {
    /// The bundle for an upstream. A bad one is never passed on, since it would stop the proxy's whole configuration and not
    /// only this upstream; as with credentials, the last good one stays until the reference is removed.
    pub(crate) fn choose(
        &self,
        reference: &ConfigMapKeyRef,
        upstream: &Url,
        namespace: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<String> {
        self.read(reference, namespace)
            .map_err(|(reason, message)| {
                let last_good = self.last_good.get(upstream);
                let still = if last_good.is_some() { "; the proxy keeps the last good one" } else { "" };
                problems.push((reason, format!("{message}{still}")));
                last_good.cloned()
            })
            .map_or_else(|last_good| last_good, Some)
    }

    fn read(&self, reference: &ConfigMapKeyRef, namespace: &str) -> Result<String, Problem> {
        let ConfigMapKeyRef { name, key } = reference;
        let missing = |message: String| ("CABundleMissing", message);
        let config_map = self
            .config_maps
            .get(name)
            .ok_or_else(|| missing(format!("ConfigMap {name} does not exist: create it in namespace {namespace} with the key {key}")))?;
        let pem = config_map
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .ok_or_else(|| missing(format!("ConfigMap {name} has no key {key}: add it, or name another in caBundleRef.key")))?;
        check_ca_bundle(pem)
            .map_err(|fault| ("CABundleMalformed", format!("ConfigMap {name}, key {key}: {fault}; it must hold certificates in PEM")))?;
        Ok(pem.clone())
    }
}
