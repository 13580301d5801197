//! Why no pod of a cache is available, by what the cluster says of its pods. Pure. The reasons are few, and no message holds a
//! count or a time, or it would be written again and again while nothing changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use kube::ResourceExt;

use super::apply::Applied;
use super::verdict::Verdict;
use crate::report::sentence;

/// What a kubelet says of an image that it can't get.
const NO_IMAGE: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
/// And of a container that it can't make.
const NO_CONTAINER: [&str; 2] = ["CreateContainerConfigError", "CreateContainerError"];

/// The verdict, from all pods that the Deployment made.
#[must_use]
pub(crate) fn why(applied: &Applied, pods: &[Arc<Pod>]) -> Verdict {
    let not_yet = || (false, "NoPodAvailable", "no pod is available yet: see the pods of the Deployment".to_owned());
    let Some(deployment) = &applied.deployment else { return not_yet() };
    let (lost, answering): (Vec<_>, Vec<_>) = pods.iter().map(AsRef::as_ref).partition(|pod: &&Pod| is_on_lost_node(pod));
    let (going, coming): (Vec<&Pod>, Vec<&Pod>) = answering.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
    // Evicted ones stay as a memory; the Deployment makes others.
    let coming: Vec<&Pod> = coming.into_iter().filter(|pod| !has_ended(pod)).collect();
    let volume = Volume::of(applied);
    // A container was tried, so that its pod has a node and the volume.
    let containers = || coming.iter().find_map(|pod| statuses(pod).find_map(|status| container(deployment, pod, status)));
    containers()
        .or_else(|| lost.first().map(|pod| node_lost(pod, volume)))
        .or_else(|| coming.iter().find_map(|pod| going.iter().find_map(|other| attached_elsewhere(pod, other, volume))))
        .or_else(|| coming.iter().find_map(|pod| unschedulable(pod)))
        .or_else(|| refused(deployment))
        .unwrap_or_else(not_yet)
}

/// Who may mount the volume at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Volume {
    OnePod,
    OneNode,
    Anyone,
}

impl Volume {
    fn of(applied: &Applied) -> Self {
        let spec = applied.claim.as_ref().and_then(|claim| claim.spec.as_ref());
        let has = |wanted: &str| spec.and_then(|spec| spec.access_modes.as_ref()).into_iter().flatten().any(|mode| mode == wanted);
        match (has("ReadWriteOncePod"), has("ReadWriteMany")) {
            (true, _) => Self::OnePod,
            (_, true) => Self::Anyone,
            (false, false) => Self::OneNode,
        }
    }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// A kubelet that is silent says nothing of it, but the node controller does: it turns Ready to False and leaves all the rest as
/// the kubelet left it, so that the containers of a pod that is not ready are said to be. After a while it deletes the pod.
fn is_on_lost_node(pod: &Pod) -> bool {
    let is_named = |reason: Option<&String>| reason.is_some_and(|reason| reason == "NodeLost");
    let is_turned = condition(pod, "Ready").is_some_and(|ready| match ready.status.as_str() {
        "Unknown" => true,
        "False" => {
            let contradicts = condition(pod, "ContainersReady").is_some_and(|containers| containers.status == "True");
            is_named(ready.reason.as_ref()) || ready.reason.as_ref().is_none_or(String::is_empty) && contradicts
        }
        _ => false,
    });
    let is_evicted = condition(pod, "DisruptionTarget")
        .is_some_and(|target| target.status == "True" && target.reason.as_deref() == Some("DeletionByTaintManager"));
    let is_going = pod.metadata.deletion_timestamp.is_some();
    let is_bound = node(pod).is_some() && !has_ended(pod);
    is_bound && (is_turned || is_evicted && is_going || is_named(pod.status.as_ref().and_then(|status| status.reason.as_ref())))
}

fn node_lost(pod: &Pod, volume: Volume) -> Verdict {
    let (node, name, namespace) = (node(pod).unwrap_or_default(), pod.name_any(), pod.namespace().unwrap_or_default());
    let remedy = if volume == Volume::Anyone {
        "its pods are made anew on other nodes that have room for them; bring it back, or delete it if it is gone for good".to_owned()
    } else {
        format!(
            "pod {name} on it keeps the volume, since nobody knows whether it still writes. Bring the node back; or, if it is surely off, free the volume with one of `kubectl taint nodes {node} node.kubernetes.io/out-of-service=off:NoExecute`, `kubectl delete node {node}` and `kubectl -n {namespace} delete pod {name} --force`"
        )
    };
    (false, "NodeLost", format!("node {node} no longer answers: {remedy}"))
}

fn attached_elsewhere(pod: &Pod, other: &Pod, volume: Volume) -> Option<Verdict> {
    let holder = node(other).filter(|_| !has_ended(other))?;
    let (mode, is_kept) = match volume {
        Volume::OnePod => ("ReadWriteOncePod", true),
        Volume::OneNode => ("ReadWriteOnce", node(pod).is_some_and(|node| node != holder)),
        Volume::Anyone => return None,
    };
    let (name, namespace) = (other.name_any(), other.namespace().unwrap_or_default());
    let message = format!(
        "the volume is {mode}, and pod {name} on node {holder} still has it while it ends, which takes up to half a minute. If it does not end, see `kubectl -n {namespace} describe pod {name}` and whether the node is well"
    );
    is_kept.then_some((false, "VolumeAttachedElsewhere", message))
}

fn unschedulable(pod: &Pod) -> Option<Verdict> {
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False")?;
    let why = without_counts(scheduled.message.as_deref().unwrap_or_default());
    let why = if why.is_empty() { "the scheduler does not say why".to_owned() } else { why };
    let message = format!(
        "no node takes the pod: {why}; make room, or change spec.podTemplate (resources, nodeSelector, affinity, tolerations) or the nodes"
    );
    Some((false, "PodUnschedulable", message))
}

/// What the scheduler says, without how many nodes it says it of: nodes come and go.
fn without_counts(message: &str) -> String {
    let said = message.split(" preemption:").next().unwrap_or_default();
    let said = said.split_once(" nodes are available: ").map_or(said, |(_, rest)| rest);
    let parts: BTreeSet<&str> = said
        .split(", ")
        .map(|part| part.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim().trim_end_matches('.'))
        .filter(|part| !part.is_empty())
        .collect();
    sentence(&parts.into_iter().collect::<Vec<_>>().join(", "))
}

fn container(deployment: &Deployment, pod: &Pod, status: &ContainerStatus) -> Option<Verdict> {
    let state = status.state.as_ref()?;
    let waits_for = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let (namespace, name, container) = (deployment.namespace().unwrap_or_default(), deployment.name_any(), &status.name);
    if NO_IMAGE.contains(&waits_for) {
        let message = format!(
            "the image {} can't be pulled: check its name and spec.podTemplate.imagePullSecrets, and whether the node reaches its registry; `kubectl -n {namespace} describe pod {}` has what the registry said",
            status.image,
            pod.name_any()
        );
        return Some((false, "ImagePullFailed", message));
    }
    if NO_CONTAINER.contains(&waits_for) {
        let message = format!(
            "the container {container} can't be made ({waits_for}): `kubectl -n {namespace} describe pod {}` tells why",
            pod.name_any()
        );
        return Some((false, "ContainerNotStarted", message));
    }
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let ended = state.terminated.as_ref().or(last);
    let is_kept_back = matches!(waits_for, "CrashLoopBackOff" | "RunContainerError");
    // One that runs again is no better than it was until it was ready once.
    let runs_again = last.is_some() && state.running.as_ref().is_some_and(|run| !was_ready_since(pod, run.started_at.as_ref()));
    if state.terminated.is_none() && !is_kept_back && !runs_again {
        return None;
    }
    let how = match ended {
        Some(ended) if ended.reason.as_deref() == Some("OOMKilled") => {
            let message = format!(
                "the container {container} had not enough memory and was ended (OOMKilled): raise spec.podTemplate.resources.limits.memory, or requests.memory if it is the node that ran short"
            );
            return Some((false, "ContainerCrashes", message));
        }
        Some(ended) => format!("ended with exit code {} ({})", ended.exit_code, ended.reason.as_deref().unwrap_or("no reason given")),
        None => "can't be started".to_owned(),
    };
    let message = format!(
        "the container {container} {how} and is started again: `kubectl -n {namespace} logs deployment/{name} -c {container} --previous` tells why"
    );
    Some((false, "ContainerCrashes", message))
}

/// Whether the pod stopped being ready after this time, so that it was ready in between.
fn was_ready_since(pod: &Pod, started: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> bool {
    let turned = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    turned.zip(started).is_some_and(|(turned, started)| turned.0 > started.0)
}

/// The Deployment's controller could not make a pod: a quota, or an admission policy.
fn refused(deployment: &Deployment) -> Option<Verdict> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let message = format!("the API server refuses the pods: {}", sentence(failure.message.as_deref().unwrap_or_default()));
    Some((false, "PodRefused", message))
}

#[cfg(test)]
mod tests;
