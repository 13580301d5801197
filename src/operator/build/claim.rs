//! The claim: class and access modes as stored, never smaller than someone else made it, unless it never had a volume.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Validated, owned, unowned};
use crate::api::{AccessMode, DeletionPolicy, GoModuleCacheSpec};
use crate::operator::volume::{Growth, MANY, capacity, growth, modes, requested};
use crate::quantity::millis;

/// The mark of a claim that was bound at some time.
const WAS_BOUND: &str = "pv.kubernetes.io/bind-completed";

/// How many pods share the volume. What nodes can't mount at a time, no two pods of a roll can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// The number of pods.
    pub replicas: i32,
    /// Whether pods of several nodes may have it at a time.
    pub by_nodes: bool,
}

impl Sharing {
    /// What the spec asks for.
    #[must_use]
    pub(crate) fn asked(spec: &GoModuleCacheSpec) -> Self {
        Self { replicas: spec.replicas, by_nodes: spec.storage.access_mode == AccessMode::ReadWriteMany }
    }

    /// What of that the claim lets the pods do: a claim that was kept has the modes that it was made with.
    #[must_use]
    pub(crate) fn with(cache: &Validated, claim: Option<&PersistentVolumeClaim>) -> Self {
        let asked = Self::asked(&cache.cache.spec);
        let is_shared = claim.filter(|claim| !gives_way(cache, claim)).is_none_or(|claim| modes(claim).contains(&MANY));
        if is_shared { asked } else { Self { replicas: asked.replicas.min(1), by_nodes: false } }
    }
}

pub(super) fn build(cache: &Validated, stored: Option<&PersistentVolumeClaim>) -> PersistentVolumeClaim {
    let storage = &cache.cache.spec.storage;
    let living = stored.filter(|claim| claim.metadata.deletion_timestamp.is_none());
    // What never had a volume can't be changed, but made anew: then all of it is as the spec has it.
    let kept = living.filter(|claim| !gives_way(cache, claim));
    let spec = kept.and_then(|claim| claim.spec.as_ref());
    let name = &cache.names.proxy;
    PersistentVolumeClaim {
        metadata: match storage.deletion_policy {
            DeletionPolicy::Retain => unowned(cache, name),
            DeletionPolicy::Delete => owned(cache, name),
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: spec.and_then(|s| s.access_modes.clone()).or_else(|| Some(vec![storage.access_mode.as_str().to_owned()])),
            storage_class_name: spec.map_or_else(|| storage.storage_class_name.clone(), |s| s.storage_class_name.clone()),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size(kept, &storage.size)))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// What is requested. What the volume has already need not be asked for, what someone else raised stays, and what no volume can
/// grow to is taken back: the API server lets that be as long as it stays above what the volume has.
fn size(stored: Option<&PersistentVolumeClaim>, wanted: &str) -> String {
    let Some((claim, requested)) = stored.and_then(|claim| Some((claim, requested(claim)?))) else { return wanted.to_owned() };
    let suffices = |size: Option<&str>| size.and_then(millis) >= millis(wanted);
    let stays = suffices(capacity(claim)) || suffices(Some(requested)) && growth(claim) != Growth::Failed;
    if stays { requested.to_owned() } else { wanted.to_owned() }
}

/// The claim that is stored, if another has to take its place, which costs nothing.
pub(super) fn to_be_replaced(cache: &Validated, stored: Option<&PersistentVolumeClaim>) -> Option<PersistentVolumeClaim> {
    stored.filter(|claim| claim.metadata.deletion_timestamp.is_none() && gives_way(cache, claim)).cloned()
}

fn gives_way(cache: &Validated, claim: &PersistentVolumeClaim) -> bool {
    never_had_a_volume(claim) && differs(cache, claim)
}

fn never_had_a_volume(claim: &PersistentVolumeClaim) -> bool {
    let was_bound = claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(WAS_BOUND));
    let has_volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()).is_some_and(|name| !name.is_empty());
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    !was_bound && !has_volume && matches!(phase, None | Some("Pending"))
}

/// Whether the spec asks for something else. A class that it does not name may be any.
fn differs(cache: &Validated, claim: &PersistentVolumeClaim) -> bool {
    let (storage, stored) = (&cache.cache.spec.storage, claim.spec.clone().unwrap_or_default());
    let other_class = storage.storage_class_name.is_some() && storage.storage_class_name != stored.storage_class_name;
    let other_mode = stored.access_modes.as_deref() != Some(&[storage.access_mode.as_str().to_owned()]);
    other_class || other_mode || requested(claim).and_then(millis) != millis(&storage.size)
}
