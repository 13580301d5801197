//! Why no pod is available, by what the scheduler, kubelets and the node controller would say of the pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::proxies::{on_no_node, own_pod};
use super::stage::{Stage, stage};
use super::{await_children, without_names};

const EARLIER: &str = "2026-01-01T10:00:00Z";

/// A node without a kubelet, which nothing else is placed on.
async fn node(stage: &Stage, letter: &str) -> String {
    let name = format!("{}-{letter}", stage.namespace);
    stage.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": true}})).await;
    name
}

/// What the scheduler does with a pod.
async fn bind(stage: &Stage, pod: &str, node: &str) {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    let pods: Api<Pod> = Api::namespaced(stage.client().clone(), &stage.namespace);
    let _bound: Value = pods.create_subresource("binding", pod, &PostParams::default(), &binding).await.unwrap();
}

async fn says(stage: &Stage, pod: &str, conditions: &[(&str, &str)], containers: Value) {
    let one = |(kind, status): &(&str, &str)| json!({"type": kind, "status": status, "lastTransitionTime": EARLIER});
    let conditions: Vec<Value> = conditions.iter().map(one).collect();
    let status = json!({"phase": "Running", "podIP": "127.77.30.1", "podIPs": [{"ip": "127.77.30.1"}], "conditions": conditions, "containerStatuses": containers});
    stage.patch_status("Pod", pod, &json!({ "status": status })).await;
}

fn container(state: &Value, last: &Value) -> Value {
    json!([{"name": "proxy", "image": "registry.example/proxy:1", "imageID": "", "ready": false, "restartCount": 2, "state": state, "lastState": last}])
}

async fn await_reason(stage: &Stage, reason: &str, words: &[&str]) {
    let told = async || {
        let (status, why, message) = stage.condition("rue", "Available").await;
        status == "False" && why == reason && words.iter().all(|word| message.contains(word))
    };
    stage.eventually(&format!("{reason} with {words:?}"), told).await;
}

async fn pods(stage: &Stage) -> BTreeSet<String> {
    stage.list("Pod").await.into_iter().filter_map(|pod| pod.metadata.name).collect()
}

#[tokio::test]
async fn the_condition_says_why_no_pod_is_available_and_stays_while_that_stays() {
    let Some(stage) = stage("away").await else { return };
    stage.cache("rue", &on_no_node(without_names())).await;
    await_children(&stage, "rue").await;
    let first = own_pod(&stage, "rue").await;
    let message = "0/2 nodes are available: 2 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 x.";
    let unscheduled =
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": EARLIER}]);
    stage.patch_status("Pod", &first, &json!({"status": {"conditions": unscheduled}})).await;
    await_reason(&stage, "PodUnschedulable", &[": node(s) were unschedulable; make room"]).await;

    let unready = [("Ready", "False"), ("ContainersReady", "False"), ("PodScheduled", "True")];
    let nothing = json!({});
    says(&stage, &first, &unready, container(&json!({"waiting": {"reason": "ErrImagePull"}}), &nothing)).await;
    await_reason(&stage, "ImagePullFailed", &["registry.example/proxy:1"]).await;

    // A container that falls over, is held back, and runs again for a while, is all one and worth one write.
    let fell = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    says(&stage, &first, &unready, container(&fell, &nothing)).await;
    await_reason(&stage, "ContainerCrashes", &["OOMKilled", "limits.memory"]).await;
    stage.settle("rue").await;
    let version = async || stage.get("GoModuleCache", "rue").await.unwrap().metadata.resource_version;
    let before = version().await;
    for state in [
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
        json!({"running": {"startedAt": "2026-01-01T11:00:00Z"}}),
        fell.clone(),
    ] {
        says(&stage, &first, &unready, container(&state, &fell)).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    assert_eq!(version().await, before, "a write for a container that goes on crashing");

    // Made when they are needed: the node controller waits a minute for a kubelet.
    let (a, b) = (node(&stage, "a").await, node(&stage, "b").await);
    bind(&stage, &first, &a).await;
    let ready = [("Ready", "True"), ("ContainersReady", "True"), ("PodScheduled", "True")];
    says(&stage, &first, &ready, json!([])).await;
    stage.eventually("it is available", async || stage.condition("rue", "Available").await.0 == "True").await;

    // Without a kubelet it never ends, and it is not said that its node is lost.
    stage.delete("Pod", &first).await;
    let next = async || pods(&stage).await.into_iter().find(|name| *name != first);
    stage.eventually("another pod", async || next().await.is_some()).await;
    let second = next().await.unwrap();
    bind(&stage, &second, &b).await;
    says(&stage, &second, &unready, container(&json!({"waiting": {"reason": "ContainerCreating"}}), &nothing)).await;
    await_reason(&stage, "VolumeAttachedElsewhere", &[&first, &a, "ReadWriteOnce"]).await;

    // What the node controller does when it hears no more of a node.
    says(&stage, &first, &[("Ready", "False"), ("ContainersReady", "True"), ("PodScheduled", "True")], json!([])).await;
    await_reason(&stage, "NodeLost", &[&first, &a, "out-of-service", "--force"]).await;
    for node in [a, b] {
        stage.delete("Node", &node).await;
    }
}
