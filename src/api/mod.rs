//! What a user writes and reads: the `GoModuleCache` resource. No I/O.

pub mod clients;
pub mod network;
pub mod references;
pub mod spec;
pub mod status;

pub use clients::*;
pub use network::*;
pub use references::*;
pub use spec::*;
pub use status::*;

use kube::CustomResourceExt;

/// The CRD as YAML, as committed under `crds/`.
///
/// # Errors
/// Never in practice; serialisation is fallible by type only.
pub fn crd_yaml() -> Result<String, Box<dyn std::error::Error>> {
    Ok(serde_saphyr::to_string(&GoModuleCache::crd())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_crd_is_the_one_that_the_types_make() {
        let committed = include_str!("../../crds/gomodulecaches.yaml");
        assert!(crd_yaml().unwrap() == committed, "run: cargo run -- crd > crds/gomodulecaches.yaml");
    }

    #[test]
    fn the_committed_crd_reads_back() {
        let read: serde_json::Value = serde_saphyr::from_str(include_str!("../../crds/gomodulecaches.yaml")).unwrap();
        assert_eq!(read, serde_json::to_value(GoModuleCache::crd()).unwrap());
    }

    #[test]
    fn an_empty_spec_is_complete() {
        let spec: GoModuleCacheSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec.storage.size, "10Gi");
        assert_eq!(spec.replicas, 1);
    }
}
