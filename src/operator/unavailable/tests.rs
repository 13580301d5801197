#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;
use crate::operator::watched::forget_the_rest;

const EARLY: &str = "2026-01-01T10:00:00Z";
const LATE: &str = "2026-01-01T11:00:00Z";

fn applied(mode: &str, deployment_status: &Value) -> Applied {
    let deployment = json!({"metadata": {"name": "ci-proxy", "namespace": "shop"}, "status": deployment_status});
    let claim = json!({"spec": {"accessModes": [mode]}});
    Applied {
        deployment: Some(serde_json::from_value(deployment).unwrap()),
        claim: Some(serde_json::from_value(claim).unwrap()),
        ..Applied::default()
    }
}

/// As the operator keeps it.
fn pod(name: &str, on: Option<&str>, going: bool, status: &Value) -> Arc<Pod> {
    let metadata = json!({"name": name, "namespace": "shop", "deletionTimestamp": going.then_some(LATE)});
    let object = json!({"metadata": metadata, "spec": {"nodeName": on, "containers": []}, "status": status});
    let mut pod: Pod = serde_json::from_value(object).unwrap();
    forget_the_rest(&mut pod);
    Arc::new(pod)
}

fn verdict(mode: &str, pods: &[Arc<Pod>]) -> Verdict {
    why(&applied(mode, &json!({})), pods)
}

fn conditions(all: &[(&str, &str, &str)]) -> Value {
    let one = |(kind, status, reason): &(&str, &str, &str)| json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": EARLY});
    json!({"conditions": all.iter().map(one).collect::<Vec<_>>()})
}

fn with_container(status: &Value) -> Value {
    let mut container = json!({"name": "proxy", "image": "registry.example/p:1", "imageID": "", "ready": false, "restartCount": 3});
    container.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
    json!({"phase": "Running", "containerStatuses": [container], "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": EARLY}]})
}

fn waits(reason: &str) -> Value {
    with_container(&json!({"state": {"waiting": {"reason": reason, "message": "Back-off 40s"}}}))
}

fn crashed(state: &Value, reason: &str, code: i32) -> Value {
    with_container(&json!({"state": state, "lastState": {"terminated": {"reason": reason, "exitCode": code}}}))
}

fn serves() -> Value {
    conditions(&[("Ready", "True", ""), ("ContainersReady", "True", "")])
}

/// What the node controller leaves of a pod that served.
fn turned() -> Value {
    conditions(&[("Ready", "False", ""), ("ContainersReady", "True", "")])
}

fn unscheduled(message: &str) -> Value {
    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]})
}

/// What it is, the pods, the reason, and words of the message.
type Row = (&'static str, Vec<Arc<Pod>>, &'static str, Vec<&'static str>);

#[test]
fn each_thing_that_keeps_pods_away_has_a_reason_and_says_what_to_do() {
    let creating = waits("ContainerCreating");
    let again = json!({"running": {"startedAt": EARLY}});
    let of_one = |on: Option<&str>, going: bool, status: &Value| vec![pod("ci-proxy-1", on, going, status)];
    let evicted =
        conditions(&[("Ready", "True", ""), ("ContainersReady", "True", ""), ("DisruptionTarget", "True", "DeletionByTaintManager")]);
    let after =
        |old: &Value, on: Option<&str>, new: &Value| vec![pod("ci-proxy-1", Some("a"), true, old), pod("ci-proxy-2", on, false, new)];
    let away = "out-of-service=off:NoExecute";
    let table: Vec<Row> = vec![
        ("no pod", vec![], "NoPodAvailable", vec!["see the pods"]),
        ("new", of_one(Some("a"), false, &creating), "NoPodAvailable", vec![]),
        ("not ready yet", of_one(Some("a"), false, &with_container(&json!({"state": again}))), "NoPodAvailable", vec![]),
        ("going", of_one(Some("a"), true, &serves()), "NoPodAvailable", vec![]),
        // Nodes.
        (
            "node turned",
            of_one(Some("a"), false, &turned()),
            "NodeLost",
            vec!["node a no longer", away, "delete node a", "delete pod ci-proxy-1 --force"],
        ),
        ("node unknown", of_one(Some("a"), false, &conditions(&[("Ready", "Unknown", "NodeStatusUnknown")])), "NodeLost", vec![away]),
        ("named by condition", of_one(Some("a"), false, &conditions(&[("Ready", "False", "NodeLost")])), "NodeLost", vec![away]),
        ("named by status", of_one(Some("a"), true, &json!({"reason": "NodeLost"})), "NodeLost", vec![away]),
        ("evicted from it", of_one(Some("a"), true, &evicted), "NodeLost", vec![away]),
        (
            "a probe fails",
            of_one(Some("a"), false, &conditions(&[("Ready", "False", "ContainersNotReady"), ("ContainersReady", "False", "")])),
            "NoPodAvailable",
            vec![],
        ),
        (
            "a gate",
            of_one(Some("a"), false, &conditions(&[("Ready", "False", "ReadinessGatesNotReady"), ("ContainersReady", "True", "")])),
            "NoPodAvailable",
            vec![],
        ),
        ("lost, and another waits", after(&turned(), Some("b"), &creating), "NodeLost", vec!["pod ci-proxy-1 on it keeps the volume"]),
        ("lost, and another can't be placed", after(&turned(), None, &unscheduled("0/1 nodes are available: 1 x.")), "NodeLost", vec![]),
        ("lost, and another has the volume", after(&turned(), Some("b"), &waits("ImagePullBackOff")), "ImagePullFailed", vec![]),
        // Volumes.
        (
            "attached elsewhere",
            after(&serves(), Some("b"), &creating),
            "VolumeAttachedElsewhere",
            vec!["pod ci-proxy-1 on node a", "ReadWriteOnce,"],
        ),
        ("on the same node", after(&serves(), Some("a"), &creating), "NoPodAvailable", vec![]),
        ("the other ended", after(&json!({"phase": "Failed"}), Some("b"), &creating), "NoPodAvailable", vec![]),
        // Scheduling.
        (
            "no room",
            of_one(
                None,
                false,
                &unscheduled("0/3 nodes are available: 2 Insufficient memory, 1 Insufficient cpu. preemption: 0/3 nodes are available."),
            ),
            "PodUnschedulable",
            vec![": Insufficient cpu, Insufficient memory;", "spec.podTemplate"],
        ),
        (
            "no nodes",
            of_one(None, false, &unscheduled("no nodes available to schedule pods")),
            "PodUnschedulable",
            vec!["no nodes available"],
        ),
        ("no words", of_one(None, false, &unscheduled("")), "PodUnschedulable", vec!["does not say why"]),
        // Images and containers.
        (
            "no image",
            of_one(Some("a"), false, &waits("ErrImagePull")),
            "ImagePullFailed",
            vec!["registry.example/p:1", "imagePullSecrets", "pod ci-proxy-1"],
        ),
        ("a bad name", of_one(Some("a"), false, &waits("InvalidImageName")), "ImagePullFailed", vec![]),
        (
            "no container",
            of_one(Some("a"), false, &waits("CreateContainerConfigError")),
            "ContainerNotStarted",
            vec!["CreateContainerConfigError"],
        ),
        (
            "crashes",
            of_one(Some("a"), false, &crashed(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), "Error", 2)),
            "ContainerCrashes",
            vec!["exit code 2 (Error)", "logs deployment/ci-proxy -c proxy --previous"],
        ),
        (
            "crashed for the first time",
            of_one(Some("a"), false, &with_container(&json!({"state": {"terminated": {"exitCode": 1}}}))),
            "ContainerCrashes",
            vec!["exit code 1"],
        ),
        ("runs again", of_one(Some("a"), false, &crashed(&again, "Error", 2)), "ContainerCrashes", vec!["exit code 2"]),
        (
            "was ready after it crashed",
            of_one(Some("a"), false, &crashed(&json!({"running": {"startedAt": "2026-01-01T09:00:00Z"}}), "Error", 2)),
            "NoPodAvailable",
            vec![],
        ),
        (
            "no memory",
            of_one(Some("a"), false, &crashed(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), "OOMKilled", 137)),
            "ContainerCrashes",
            vec!["OOMKilled", "spec.podTemplate.resources.limits.memory"],
        ),
        ("can't be started", of_one(Some("a"), false, &waits("RunContainerError")), "ContainerCrashes", vec!["can't be started"]),
        (
            "evicted, long ago",
            vec![pod(
                "ci-proxy-0",
                Some("a"),
                false,
                &json!({"phase": "Failed", "containerStatuses": [{"name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 137}}}]}),
            )],
            "NoPodAvailable",
            vec![],
        ),
    ];
    for (what, pods, reason, words) in table {
        let (status, said, message) = verdict("ReadWriteOnce", &pods);
        assert_eq!((status, said), (false, reason), "{what}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{what}: {message}");
    }
}

#[test]
fn what_holds_a_volume_depends_on_who_may_mount_it() {
    let pods = [pod("ci-proxy-1", Some("a"), true, &serves()), pod("ci-proxy-2", Some("a"), false, &waits("ContainerCreating"))];
    let (_, reason, message) = verdict("ReadWriteOncePod", &pods);
    assert_eq!(reason, "VolumeAttachedElsewhere");
    assert!(message.contains("ReadWriteOncePod, and pod ci-proxy-1"), "{message}");
    assert_eq!(verdict("ReadWriteMany", &pods).1, "NoPodAvailable");
    let (_, reason, message) = verdict("ReadWriteMany", &[pod("ci-proxy-1", Some("a"), false, &turned())]);
    assert!(reason == "NodeLost" && !message.contains("volume") && message.contains("other nodes"), "{message}");
}

#[test]
fn pods_that_the_api_server_refuses_are_told_in_its_words() {
    let failure = json!({"type": "ReplicaFailure", "status": "True", "message": "pods \"ci\" is forbidden: exceeded quota\nmore"});
    let (_, reason, message) = why(&applied("ReadWriteOnce", &json!({"conditions": [failure]})), &[]);
    assert!(reason == "PodRefused" && message.ends_with("forbidden: exceeded quota"), "{message}");
}

#[test]
fn no_message_changes_with_the_number_of_nodes_or_of_restarts() {
    let said = |message: &str| verdict("ReadWriteOnce", &[pod("p", None, false, &unscheduled(message))]);
    assert_eq!(
        said(
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}. preemption: 0/3 nodes are available: 3 x."
        ),
        said(
            "0/9 nodes are available: 7 node(s) had untolerated taint {a: b}, 2 Insufficient cpu. preemption: 0/9 nodes are available: 9 x."
        ),
    );
    let crash = |restarts: i32, state: &Value| {
        let status = json!({"state": state, "restartCount": restarts, "lastState": {"terminated": {"reason": "Error", "exitCode": 2}}});
        verdict("ReadWriteOnce", &[pod("p", Some("a"), false, &with_container(&status))])
    };
    let held = crash(3, &json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}));
    assert_eq!(held, crash(4, &json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 80s"}})));
    assert_eq!(held, crash(4, &json!({"running": {"startedAt": LATE}})));
    assert_eq!(held, crash(4, &json!({"terminated": {"reason": "Error", "exitCode": 2}})));
}
