//! The claim: class and access modes as stored, never smaller than someone else made it.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Validated, owned, unowned};
use crate::api::DeletionPolicy;
use crate::quantity::millis;

pub(super) fn build(cache: &Validated, stored: Option<&PersistentVolumeClaim>) -> PersistentVolumeClaim {
    let storage = &cache.cache.spec.storage;
    let stored = stored.filter(|claim| claim.metadata.deletion_timestamp.is_none()).and_then(|claim| claim.spec.as_ref());
    let requested = stored.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    let size = match requested {
        Some(Quantity(requested)) if millis(requested) >= millis(&storage.size) => requested.clone(),
        _ => storage.size.clone(),
    };
    let name = &cache.names.proxy;
    PersistentVolumeClaim {
        metadata: match storage.deletion_policy {
            DeletionPolicy::Retain => unowned(cache, name),
            DeletionPolicy::Delete => owned(cache, name),
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: stored.and_then(|s| s.access_modes.clone()).or_else(|| Some(vec![storage.access_mode.as_str().to_owned()])),
            storage_class_name: stored.map_or_else(|| storage.storage_class_name.clone(), |s| s.storage_class_name.clone()),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
