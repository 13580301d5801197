//! What is said of a volume that has another size than it is to have. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::apply::Applied;
use super::verdict::Verdict;
use crate::api::{AccessMode, Storage};
use crate::quantity::millis;

/// How far a claim's volume is on the way to the size that the claim requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// It is there.
    Done,
    /// It is on the way.
    UnderWay,
    /// The volume is large enough; the file system on it grows when a pod mounts it.
    FileSystem,
    /// The storage can't do it.
    Failed,
}

/// The access mode of a volume that pods of several nodes may have at a time.
pub(crate) const MANY: &str = "ReadWriteMany";

/// The access modes that a claim asks for.
pub(crate) fn modes(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.into_iter().flatten().map(String::as_str).collect()
}

/// The verdict on a claim that was made with another access mode than the pods need. It can be used, by one pod at a time.
fn mismatched(claim: &PersistentVolumeClaim, name: &str, wanted: AccessMode) -> Option<Verdict> {
    let modes = modes(claim);
    let message = format!(
        "PersistentVolumeClaim {name} was made with {has} and spec.storage.accessMode asks for {MANY}, so that one pod at a time uses it: copy what is cached elsewhere or give it up, delete the claim and the pod, and a new one is made as the spec has it; or make a cache of this name anew with accessMode: {has}",
        has = modes.join(", ")
    );
    (wanted == AccessMode::ReadWriteMany && !modes.contains(&MANY)).then_some((false, "ClaimMismatch", message))
}

/// The size that a claim requests.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> Option<&str> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.as_str())
}

/// The size of its volume.
pub(crate) fn capacity(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage").map(|size| size.0.as_str())
}

/// How far it is.
pub(crate) fn growth(claim: &PersistentVolumeClaim) -> Growth {
    let Some((requested, capacity)) = requested(claim).and_then(millis).zip(capacity(claim).and_then(millis)) else {
        return Growth::Done;
    };
    if requested <= capacity {
        return Growth::Done;
    }
    let status = claim.status.as_ref();
    let stage = status.and_then(|status| status.allocated_resource_statuses.as_ref()?.get("storage")).map(String::as_str);
    let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    match stage {
        Some("ControllerResizeInfeasible" | "NodeResizeInfeasible") => Growth::Failed,
        Some("NodeResizePending" | "NodeResizeInProgress") => Growth::FileSystem,
        _ if conditions.any(|one| one.type_ == "FileSystemResizePending" && one.status == "True") => Growth::FileSystem,
        _ => Growth::UnderWay,
    }
}

/// The verdict on a bound claim.
#[must_use]
pub(crate) fn bound(claim: &PersistentVolumeClaim, applied: &Applied, name: &str, spec: &Storage) -> Verdict {
    if let Some(mismatched) = mismatched(claim, name, spec.access_mode) {
        return mismatched;
    }
    let wanted = spec.size.as_str();
    if let Some(not_allowed) = not_allowed(applied, claim, name, wanted) {
        return not_allowed;
    }
    let (from, to) = (capacity(claim).unwrap_or_default(), requested(claim).unwrap_or_default());
    let can_be_used = format!("PersistentVolumeClaim {name} is bound and can be used");
    match growth(claim) {
        // Whoever takes back a size that can't be had is content with the volume that there is.
        Growth::Failed if millis(wanted) > millis(from) => {
            let message = format!(
                "the storage can't grow PersistentVolumeClaim {name} from {from} to {to}: set spec.storage.size to what it can, or back to {from}; `kubectl describe persistentvolumeclaim {name}` has what it said"
            );
            (false, "ExpansionFailed", message)
        }
        Growth::UnderWay => (true, "Growing", format!("{can_be_used}; its volume grows from {from} to {to}")),
        Growth::FileSystem => {
            (true, "Growing", format!("{can_be_used}; its volume has grown to {to}, and the file system follows when a pod mounts it"))
        }
        Growth::Done | Growth::Failed => (true, "Bound", format!("PersistentVolumeClaim {name} is bound")),
    }
}

fn not_allowed(applied: &Applied, claim: &PersistentVolumeClaim, name: &str, wanted: &str) -> Option<Verdict> {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    let has = capacity(claim).or_else(|| requested(claim)).unwrap_or_default();
    let message = format!(
        "StorageClass {class} of PersistentVolumeClaim {name} does not let volumes grow, so it stays at {has} and not {wanted}: set spec.storage.size back to {has}, or allowVolumeExpansion: true on the class if its driver can, or make a second cache with a class that has it"
    );
    applied.refused.iter().any(|refusal| is_of_expansion(refusal)).then_some((false, "ExpansionNotAllowed", message))
}

/// Whether this is what the API server says to a claim that is to grow and whose class does not let it, or does not exist. It
/// has a condition of its own, and holds up nothing else.
pub(crate) fn is_of_expansion(refusal: &str) -> bool {
    refusal.starts_with("PersistentVolumeClaim ") && refusal.contains("must support resize")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sized(size: &str) -> Storage {
        Storage { size: size.to_owned(), ..Storage::default() }
    }

    fn claim(requested: &str, status: &Value) -> PersistentVolumeClaim {
        let object = json!({"spec": {"storageClassName": "slow", "resources": {"requests": {"storage": requested}}}, "status": status});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_volume_can_be_used_while_it_grows_and_what_it_cannot_grow_to_is_said_while_it_is_wanted() {
        let stage = |stage: &str| json!({"capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": stage}});
        let condition = |kind: &str| json!({"capacity": {"storage": "2Gi"}, "conditions": [{"type": kind, "status": "True"}]});
        let table = [
            ("2Gi", json!({"capacity": {"storage": "2Gi"}}), "2Gi", (true, "Bound"), ""),
            ("2Gi", json!({"capacity": {"storage": "3Gi"}}), "1Gi", (true, "Bound"), ""),
            ("2Gi", json!({}), "2Gi", (true, "Bound"), ""),
            ("5Gi", json!({"capacity": {"storage": "2Gi"}}), "5Gi", (true, "Growing"), "from 2Gi to 5Gi"),
            ("5Gi", stage("ControllerResizeInProgress"), "5Gi", (true, "Growing"), "from 2Gi to 5Gi"),
            ("5Gi", condition("Resizing"), "5Gi", (true, "Growing"), "from 2Gi to 5Gi"),
            ("5Gi", condition("FileSystemResizePending"), "5Gi", (true, "Growing"), "the file system follows"),
            ("5Gi", stage("NodeResizePending"), "5Gi", (true, "Growing"), "the file system follows"),
            ("5Gi", stage("ControllerResizeInfeasible"), "5Gi", (false, "ExpansionFailed"), "back to 2Gi"),
            ("5Gi", stage("NodeResizeInfeasible"), "5Gi", (false, "ExpansionFailed"), "back to 2Gi"),
            ("5Gi", stage("ControllerResizeInfeasible"), "2Gi", (true, "Bound"), ""),
        ];
        for (requested, status, wanted, (truth, reason), words) in table {
            let (is_true, said, message) = bound(&claim(requested, &status), &Applied::default(), "ci-proxy", &sized(wanted));
            assert_eq!((is_true, said), (truth, reason), "{requested} {status}");
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn only_a_refusal_to_grow_is_one_of_expansion() {
        let stored = claim("2Gi", &json!({"capacity": {"storage": "3Gi"}}));
        let verdict = |refusal: &str| {
            let applied = Applied { refused: vec![refusal.to_owned()], ..Applied::default() };
            bound(&stored, &applied, "ci-proxy", &sized("9Gi"))
        };
        let (is_true, reason, message) = verdict("PersistentVolumeClaim ci-proxy: the storageclass must support resize");
        assert_eq!((is_true, reason), (false, "ExpansionNotAllowed"));
        assert!(message.contains("StorageClass slow") && message.contains("stays at 3Gi and not 9Gi"), "{message}");
        assert_eq!(verdict("PersistentVolumeClaim ci-proxy: exceeded quota").1, "Bound");
    }

    #[test]
    fn a_claim_that_one_node_may_have_is_no_claim_for_many() {
        let made_with = |mode: &str| serde_json::from_value::<PersistentVolumeClaim>(json!({"spec": {"accessModes": [mode]}})).unwrap();
        let verdict = |has: &str, wanted: AccessMode| {
            let spec = Storage { access_mode: wanted, ..Storage::default() };
            bound(&made_with(has), &Applied::default(), "ci-proxy", &spec)
        };
        for mode in ["ReadWriteOnce", "ReadWriteOncePod"] {
            let (is_true, reason, message) = verdict(mode, AccessMode::ReadWriteMany);
            assert_eq!((is_true, reason), (false, "ClaimMismatch"));
            assert!(
                ["ci-proxy", mode, "asks for ReadWriteMany", "delete the claim"].iter().all(|words| message.contains(words)),
                "{message}"
            );
        }
        assert_eq!(verdict("ReadWriteMany", AccessMode::ReadWriteMany).1, "Bound");
        assert_eq!(verdict("ReadWriteMany", AccessMode::ReadWriteOnce).1, "Bound", "it can do more than is needed");
        assert_eq!(verdict("ReadWriteOnce", AccessMode::ReadWriteOnce).1, "Bound");
    }
}
