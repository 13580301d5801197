//! What is true of a cache, and what to do where it is not. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::apply::Applied;
use super::credentials::Credentials;
use super::dereference::ClassState;
use super::egress::Resolved;
use super::reports::{self, Survey};
use super::rollout::RolledOut;
use super::validate::Validated;
use super::verdict::Verdict;
use super::{unavailable, volume};
use crate::api::Storage;

/// What an operator of one namespace can't do.
pub(crate) const NOT_IN_NAMESPACE_MODE: &str = "NotInNamespaceMode";

/// What the spec wants of namespaces that are beyond the operator's.
#[must_use]
pub(crate) fn beyond(namespaces: &[String], env: &str) -> Option<Verdict> {
    let message = format!(
        "this operator works in one namespace and can't publish to {}: take them out of spec.clients.publishTo and copy ConfigMap {env} there, or install the operator with scope: Cluster",
        namespaces.join(", ")
    );
    (!namespaces.is_empty()).then_some((false, NOT_IN_NAMESPACE_MODE, message))
}

/// Whether the claim can be used as the spec has it.
#[must_use]
pub(crate) fn storage(applied: &Applied, class: &ClassState, name: &str, spec: &Storage) -> Verdict {
    let Some(claim) = &applied.claim else {
        if let Some(refused) = refused(applied).filter(|_| claim_was_refused(applied)) {
            return refused;
        }
        if applied.conflicts.is_empty() && !applied.pending.is_empty() {
            return (false, "Paused", format!("PersistentVolumeClaim {name} does not exist, and spec.paused keeps it from being made"));
        }
        return (false, "ClaimMismatch", format!("PersistentVolumeClaim {name} belongs to someone else: rename it or this cache"));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        let message =
            format!("PersistentVolumeClaim {name} is being deleted; a new one is made when it is gone, which waits for pods that use it");
        return (false, "ClaimTerminating", message);
    }
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    match (phase, class) {
        (Some("Bound"), _) => volume::bound(claim, applied, name, spec),
        (Some("Lost"), _) => (
            false,
            "VolumeLost",
            format!("the volume of PersistentVolumeClaim {name} is gone: delete the claim to start with an empty one"),
        ),
        (_, ClassState::Missing(class)) => {
            (false, "StorageClassMissing", format!("StorageClass {class} does not exist: create it, or a cache that names another"))
        }
        (_, ClassState::NoDefault) => (
            false,
            "NoDefaultStorageClass",
            "the cluster has no default StorageClass: mark one as the default, or create the cache with spec.storage.storageClassName"
                .to_owned(),
        ),
        (_, ClassState::NotRead) => (
            false,
            NOT_IN_NAMESPACE_MODE,
            format!(
                "PersistentVolumeClaim {name} waits for its volume, or for the first pod; whether its StorageClass exists is beyond an operator of one namespace: see `kubectl describe persistentvolumeclaim {name}`"
            ),
        ),
        (_, ClassState::Fine) => {
            (false, "Provisioning", format!("PersistentVolumeClaim {name} waits for its volume, or for the first pod"))
        }
    }
}

/// Whether every Secret and CA bundle is in use.
#[must_use]
pub(crate) fn credentials(credentials: &Credentials, bundle_problems: &[(&'static str, String)]) -> Verdict {
    let problems: Vec<(&'static str, String)> = credentials.problems.iter().chain(bundle_problems).cloned().collect();
    match problems.first() {
        Some((reason, _)) => (false, reason, join(problems.iter().map(|(_, message)| message.as_str()))),
        None if credentials.states.is_empty() => (true, "NotNeeded", "no upstream names a Secret".to_owned()),
        None => (true, "InUse", "every Secret was copied to the proxy".to_owned()),
    }
}

/// Whether every host has an address that the proxy may dial.
#[must_use]
pub(crate) fn egress(resolved: &Resolved, cache: &Validated) -> Verdict {
    let unresolved = (!resolved.unresolved.is_empty())
        .then(|| format!("no address found for {}: check the name and the operator's name servers", resolved.unresolved.join(", ")));
    let refused = resolved.refused.iter().map(|(host, count)| {
        let remedy = if cache.names_host(host) {
            "set internal: true on the upstream if it is yours"
        } else {
            "if it is yours, the operator's setting GOMODCACHE_INTERNAL_HOSTS must have it, or the default upstream that redirects to it"
        };
        format!("{host}: {count} private address(es) are not opened; {remedy}")
    });
    let services = resolved.services.iter().map(|(host, address)| {
        format!(
            "{host} is a Service of this cluster, and most network plugins let no NetworkPolicy open its own address {address}: make it headless (clusterIP: None), which leads to the ports of its pods, or name a host outside of the cluster's Services, such as a load balancer"
        )
    });
    let all: Vec<String> = refused.chain(unresolved).chain(services).collect();
    let message = join(all.iter().map(String::as_str));
    if !resolved.refused.is_empty() {
        (false, "AddressNotAllowed", message)
    } else if !resolved.unresolved.is_empty() {
        (false, "HostNotResolved", message)
    } else if !resolved.services.is_empty() {
        (false, "ServiceNotReachable", message)
    } else {
        (true, "Pinned", format!("{} host(s) are open", resolved.pins.len()))
    }
}

/// Whether a pod serves.
#[must_use]
pub(crate) fn available(applied: &Applied, survey: &Survey) -> Verdict {
    if !applied.conflicts.is_empty() {
        let message =
            format!("not ours and left alone: {}; rename or delete what is in the way, or rename this cache", applied.conflicts.join(", "));
        return (false, "NameConflict", message);
    }
    if let (None, Some(refused)) = (&applied.deployment, refused(applied)) {
        return refused;
    }
    let status = applied.deployment.as_ref().and_then(|d| d.status.as_ref());
    match status.and_then(|s| s.available_replicas).unwrap_or(0) {
        0 => unavailable::why(applied, &survey.made),
        count => (true, "PodsAvailable", format!("{count} pod(s) available")),
    }
}

/// What the API server refused. The cache goes on with what was stored before, so this is no statement about availability.
#[must_use]
pub(crate) fn refused(applied: &Applied) -> Option<Verdict> {
    let refused: Vec<&str> = applied.refused.iter().map(String::as_str).filter(|refusal| !volume::is_of_expansion(refusal)).collect();
    (!refused.is_empty()).then(|| (false, "ChildRefused", format!("refused by the API server: {}", refused.join("; "))))
}

fn claim_was_refused(applied: &Applied) -> bool {
    applied.refused.iter().any(|message| message.starts_with("PersistentVolumeClaim "))
}

/// Whether every ready pod runs what is wanted. What was refused on the way is not in the cluster, whatever the pods run.
/// `is_true_now`: this generation of the spec was applied before.
#[must_use]
pub(crate) fn configuration(applied: &Applied, survey: &Survey, is_true_now: bool) -> Verdict {
    match refused(applied) {
        Some(refused) => refused,
        None if is_true_now && reports::is_known_to_lag(survey) => (true, "Applied", reports::APPLIED.to_owned()),
        None => reports::configuration(survey),
    }
}

/// What was found out in the cluster, or else what the pods add to it.
#[must_use]
pub(crate) fn with_reports(verdict: Verdict, reported: Option<Verdict>) -> Verdict {
    if verdict.0 { reported.unwrap_or(verdict) } else { verdict }
}

/// The summary: the first that is false, the ones that the user can do something about before the ones that follow from them.
#[must_use]
pub(crate) fn ready(
    available: &Verdict,
    refused: Option<&Verdict>,
    others: [&Verdict; 3],
    rolled_out: &RolledOut,
    configuration: &Verdict,
) -> Verdict {
    let conflict = (available.1 == "NameConflict").then_some(available);
    let RolledOut { verdict: rolled_out, is_asked } = rolled_out;
    // One that waits for a new image is ready with the one that it has. Who asked for other pods waits for these.
    let failed = (rolled_out.1 == "RolloutFailed").then_some(rolled_out);
    let asked = is_asked.then_some(rolled_out);
    conflict
        .into_iter()
        .chain(refused)
        .chain(others)
        .chain(failed)
        .chain([available])
        .chain(asked)
        .chain([configuration])
        .find(|verdict| !verdict.0)
        .cloned()
        .unwrap_or_else(|| (true, "Ready", "the cache serves".to_owned()))
}

/// A condition that keeps the time of its last transition.
#[must_use]
pub(crate) fn condition(kind: &str, verdict: Verdict, generation: Option<i64>, previous: &[Condition], now: &Time) -> Condition {
    let (truth, reason, message) = verdict;
    let status = if truth { "True" } else { "False" };
    let last = previous.iter().find(|c| c.type_ == kind && c.status == status).map(|c| c.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(4096).collect(),
        observed_generation: generation,
        last_transition_time: last.unwrap_or_else(|| now.clone()),
    }
}

fn join<'a>(messages: impl Iterator<Item = &'a str>) -> String {
    messages.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::ca_bundles::Bundles;
    use crate::operator::defaults::Defaults;
    use crate::operator::validate::validate;

    fn verdict(truth: bool, reason: &'static str) -> Verdict {
        (truth, reason, String::new())
    }

    #[test]
    fn a_cache_is_not_ready_before_the_pods_that_its_user_asked_for_are_there() {
        let fine = verdict(true, "Fine");
        let reason = |available: bool, rolled_out: &'static str, is_asked: bool, configuration: bool| {
            let (available, configuration) = (verdict(available, "NoPodAvailable"), verdict(configuration, "Pending"));
            let rolled_out = RolledOut { verdict: verdict(false, rolled_out), is_asked };
            ready(&available, None, [&fine, &fine, &fine], &rolled_out, &configuration).1
        };
        assert_eq!(reason(true, "RollingOut", true, true), "RollingOut");
        assert_eq!(reason(true, "RollingOut", true, false), "RollingOut", "the new pods' configuration follows from it");
        assert_eq!(reason(false, "RollingOut", true, true), "NoPodAvailable", "that explains more");
        for waits in ["RollingOut", "WaitingForTurn", "RolloutStopped", "Paused"] {
            assert_eq!(reason(true, waits, false, true), "Ready", "{waits}: it is ready with the image that it has");
        }
        assert_eq!(reason(true, "RolloutFailed", false, true), "RolloutFailed");
    }

    #[test]
    fn a_private_address_is_allowed_in_the_spec_or_in_the_setting_wherever_its_host_is_named() {
        let cache = json!({
            "apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": "ci", "namespace": "shop", "uid": "u"},
            "spec": {"upstreams": [{"url": "https://Modules.corp.example/go", "redirectHosts": ["files.corp.example"]}]},
        });
        let defaults = Defaults::parse("https://origin.example", "sum.example https://sum.corp.example", &[], &[]).unwrap();
        let cache = validate(&serde_json::from_value(cache).unwrap(), &Bundles::default(), &defaults, "registry.example/proxy:1").unwrap();
        let said = |host: &str| egress(&Resolved { refused: vec![(host.to_owned(), 1)], ..Resolved::default() }, &cache).2;
        for host in ["modules.corp.example", "files.corp.example"] {
            assert!(said(host).ends_with("set internal: true on the upstream if it is yours"), "{}", said(host));
        }
        assert!(said("sum.corp.example").contains("GOMODCACHE_INTERNAL_HOSTS"), "{}", said("sum.corp.example"));

        let services = vec![("athens.tools.svc".to_owned(), [10, 96, 0, 7].into())];
        let (is_true, reason, message) = egress(&Resolved { services, ..Resolved::default() }, &cache);
        assert_eq!((is_true, reason), (false, "ServiceNotReachable"));
        assert!(["athens.tools.svc", "10.96.0.7", "headless"].iter().all(|words| message.contains(words)), "{message}");
    }
}
