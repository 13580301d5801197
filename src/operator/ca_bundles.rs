//! From the users' ConfigMaps to the certificates that an upstream is trusted by. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::api::ConfigMapKeyRef;
use crate::config::check_ca_bundle;

/// A reason from a fixed set, and what to do.
pub(crate) type Problem = (&'static str, String);

/// The bundle, if the proxy can use it. One that it can't would stop its whole configuration, not only this upstream.
pub(crate) fn read(reference: &ConfigMapKeyRef, config_maps: &BTreeMap<String, ConfigMap>, namespace: &str) -> Result<String, Problem> {
    let ConfigMapKeyRef { name, key } = reference;
    let missing = |message: String| ("CABundleMissing", message);
    let config_map = config_maps
        .get(name)
        .ok_or_else(|| missing(format!("ConfigMap {name} does not exist: create it in namespace {namespace} with the key {key}")))?;
    let pem = config_map
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| missing(format!("ConfigMap {name} has no key {key}: add it, or name another in caBundleRef.key")))?;
    check_ca_bundle(pem).map_err(|fault| {
        (
            "CABundleMalformed",
            format!("ConfigMap {name}, key {key}: {fault}; it must hold certificates in PEM and is not used until it does"),
        )
    })?;
    Ok(pem.clone())
}
