//! Hosts that are Services of the cluster with an address of their own. Most network plugins look at a packet after that address
//! was replaced by a pod's, so that no rule of a NetworkPolicy about it lets anything through. Needs a client.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::egress::Resolved;
use super::scope::Scope;
use super::validate::Validated;
use super::view::View;

/// The hosts that this cache needs and that are such Services, each with that address. Nothing is asked but for hosts that are named
/// as Services are, in namespaces where the operator may look.
///
/// # Errors
/// The API server's.
pub(crate) async fn among(
    view: View<'_>,
    scope: &Scope,
    valid: &Validated,
    resolved: &Resolved,
) -> Result<Vec<(String, IpAddr)>, kube::Error> {
    let mut found = Vec::new();
    for host in valid.needs.keys() {
        let Some((name, namespace)) = service_of(host).filter(|(_, namespace)| may_look(scope, namespace)) else { continue };
        let pinned = resolved.pins.iter().filter(|pin| pin.host == *host).flat_map(|pin| &pin.addresses);
        if let Some(service) = view.service(namespace, name).await?
            && let Some(address) = pinned.copied().find(|address| has_address(&service, *address))
        {
            found.push((host.clone(), address));
        }
    }
    Ok(found)
}

/// Name and namespace of the Service that a host such as `athens.tools.svc` or `athens.tools.svc.cluster.local` is.
fn service_of(host: &str) -> Option<(&str, &str)> {
    let mut labels = host.split('.');
    let (name, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc" && !name.is_empty() && !namespace.is_empty()).then_some((name, namespace))
}

fn may_look(scope: &Scope, namespace: &str) -> bool {
    match scope {
        Scope::Cluster => true,
        Scope::Namespace(own) => own == namespace,
    }
}

/// Whether it is the address of the Service itself: a headless one has none, and its name leads to pods.
fn has_address(service: &Service, address: IpAddr) -> bool {
    let addresses = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
    addresses.filter_map(|own| own.parse().ok()).any(|own: IpAddr| own == address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_host_is_a_service_by_its_third_label() {
        assert_eq!(service_of("athens.tools.svc"), Some(("athens", "tools")));
        assert_eq!(service_of("athens.tools.svc.cluster.local"), Some(("athens", "tools")));
        for host in ["athens.tools", "modules.corp.example", "pod.athens.tools.svc.cluster.local", "svc", ".tools.svc", "10.1.2.3"] {
            assert_eq!(service_of(host), None, "{host}");
        }
        let own = Scope::Namespace("tools".to_owned());
        assert!(may_look(&own, "tools") && !may_look(&own, "build") && may_look(&Scope::Cluster, "build"));
    }

    #[test]
    fn a_headless_service_has_no_address_of_its_own() {
        let has = |spec: &Value| has_address(&serde_json::from_value(json!({ "spec": spec })).unwrap(), IpAddr::from([10, 96, 0, 7]));
        assert!(has(&json!({"clusterIP": "10.96.0.7"})));
        assert!(has(&json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7", "10.96.0.7"]})));
        for spec in
            [json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!({"clusterIP": "10.96.0.8"}), json!({"type": "ExternalName"})]
        {
            assert!(!has(&spec), "{spec}");
        }
    }
}
