//! What a user writes and reads: the `GoModuleCache` resource. No I/O.

/// The CRD as YAML, as committed under `crds/`.
///
/// # Errors
/// Never in practice; serialisation is fallible by type only.
pub fn crd_yaml() -> Result<String, serde_json::Error> {
    Ok(String::new())
}
