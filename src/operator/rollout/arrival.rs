//! Whether the pods that a user asked for are there, by what the Deployment's controller says of them. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

use crate::operator::verdict::Verdict;

/// What is still lacking. `was_complete`: in this generation of the spec they were all there before, so that what is missing now was
/// lost and is made anew, which is no roll-out. `why`: what is known of pods that do not start.
pub(super) fn lacking(deployment: &Deployment, was_complete: bool, why: &Verdict) -> Option<String> {
    let status = deployment.status.as_ref();
    if status.and_then(|status| status.observed_generation) != deployment.metadata.generation {
        return Some("its newest pod template was not taken up by the cluster's Deployment controller yet".to_owned());
    }
    let count = |of: Option<i32>| of.unwrap_or(0);
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let new = count(status.and_then(|status| status.updated_replicas));
    let old = (count(status.and_then(|status| status.replicas)) - new).max(0);
    if old == 0 && (new >= wanted || was_complete) {
        return None;
    }
    let mut message = format!("{new} of {wanted} pod(s) are new");
    if old > 0 {
        message.push_str(&format!(", and {old} old one(s) are left"));
    }
    if why.1 != "NoPodAvailable" {
        message.push_str(&format!("; {}", why.2));
    }
    if has_stopped(deployment) {
        let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
        message.push_str(&format!(
            "; this has made no progress for long (ProgressDeadlineExceeded): see `kubectl -n {namespace} describe deployment {name}` and its newest pods, and mend spec.image or spec.podTemplate"
        ));
    }
    Some(message)
}

fn has_stopped(deployment: &Deployment) -> bool {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        condition.type_ == "Progressing" && condition.status == "False" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(replicas: i32, status: &Value, was_complete: bool) -> Option<String> {
        let object = json!({
            "metadata": {"name": "ci-proxy", "namespace": "shop", "generation": 7},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": status,
        });
        lacking(&serde_json::from_value(object).unwrap(), was_complete, &(false, "NoPodAvailable", "no pod yet".to_owned()))
    }

    #[test]
    fn all_pods_are_there_when_the_controller_has_seen_the_template_and_none_is_old_or_missing() {
        let now = |all: i32, new: i32| json!({"observedGeneration": 7, "replicas": all, "updatedReplicas": new, "availableReplicas": 2});
        assert_eq!(of(2, &now(2, 2), false), None);
        assert_eq!(of(0, &json!({"observedGeneration": 7}), false), None);
        let table = [
            (2, json!({}), "not taken up"),
            (2, json!({"observedGeneration": 6, "replicas": 2, "updatedReplicas": 2}), "not taken up"),
            (2, now(3, 1), "1 of 2 pod(s) are new, and 2 old one(s) are left"),
            (2, now(3, 2), "2 of 2 pod(s) are new, and 1 old one(s) are left"),
            (1, json!({"observedGeneration": 7, "replicas": 1}), "0 of 1 pod(s) are new, and 1 old one(s) are left"),
            (1, json!({"observedGeneration": 7}), "0 of 1 pod(s) are new"),
            (2, now(1, 1), "1 of 2 pod(s) are new"),
            (0, now(1, 0), "0 of 0 pod(s) are new, and 1 old one(s) are left"),
        ];
        for (replicas, status, words) in table {
            let said = of(replicas, &status, false).unwrap();
            assert!(said.contains(words) && !said.contains("no pod yet"), "{status}: {said}");
        }
    }

    #[test]
    fn pods_that_are_lost_after_all_were_there_are_no_roll_out() {
        let status = |all: i32, new: i32| json!({"observedGeneration": 7, "replicas": all, "updatedReplicas": new});
        assert_eq!(of(2, &status(1, 1), true), None);
        assert_eq!(of(1, &status(0, 0), true), None);
        assert!(of(2, &status(3, 2), true).is_some(), "an old one is");
        assert!(of(2, &json!({"observedGeneration": 6, "replicas": 2, "updatedReplicas": 2}), true).is_some(), "a new template is");
    }

    #[test]
    fn pods_that_do_not_start_are_said_with_what_to_look_at() {
        let stuck = json!({"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}],
            "observedGeneration": 7, "replicas": 3, "updatedReplicas": 1});
        let said = of(2, &stuck, false).unwrap();
        assert!(said.contains("1 of 2") && said.contains("kubectl -n shop describe deployment ci-proxy"), "{said}");
        let object = json!({"metadata": {"generation": 7}, "status": {"observedGeneration": 7, "replicas": 2, "updatedReplicas": 1}});
        let why = (false, "ImagePullFailed", "the image x can't be pulled".to_owned());
        let said = lacking(&serde_json::from_value(object).unwrap(), false, &why).unwrap();
        assert!(said.ends_with("; the image x can't be pulled") && !said.contains("ProgressDeadline"), "{said}");
    }
}
