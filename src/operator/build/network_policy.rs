//! The fence: nothing leaves a proxy but for the pinned addresses, and no name server is asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Validated, owned, selector};
use crate::config::{ADMIN_PORT, HTTP_PORT, PinnedHost};

pub(super) fn build(cache: &Validated, pins: &[PinnedHost], admin_namespaces: &[String]) -> NetworkPolicy {
    let egress = egress(cache, pins);
    NetworkPolicy {
        metadata: owned(cache, &cache.names.proxy),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(selector(cache)), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule { from: Some(clients(cache)), ports: Some(vec![port(HTTP_PORT)]) },
                NetworkPolicyIngressRule {
                    from: Some(admin_namespaces.iter().map(|namespace| namespace_peer(namespace)).collect()),
                    ports: Some(vec![port(ADMIN_PORT)]),
                },
            ]),
            // Absent and not empty: an empty list moves the generation at every apply. Both deny everything.
            egress: (!egress.is_empty()).then_some(egress),
        }),
    }
}

/// An empty `from` would let everybody in; so nobody's list is empty here.
fn clients(cache: &Validated) -> Vec<NetworkPolicyPeer> {
    let listed = cache.cache.spec.network.as_ref().and_then(|n| n.ingress.as_ref()).map(|i| i.from.as_slice()).unwrap_or_default();
    let own = NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    let guests = cache.guests.iter().map(|namespace| namespace_peer(namespace));
    listed
        .iter()
        .map(|peer| NetworkPolicyPeer {
            namespace_selector: peer.namespace_selector.clone().map(without_empty),
            pod_selector: peer.pod_selector.clone().map(without_empty),
            ip_block: None,
        })
        .chain(listed.is_empty().then_some(own))
        .chain(guests)
        .collect()
}

fn without_empty(selector: LabelSelector) -> LabelSelector {
    LabelSelector {
        match_labels: selector.match_labels.filter(|labels| !labels.is_empty()),
        match_expressions: selector.match_expressions.filter(|expressions| !expressions.is_empty()),
    }
}

fn namespace_peer(namespace: &str) -> NetworkPolicyPeer {
    let labels = [("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())].into();
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
        ..NetworkPolicyPeer::default()
    }
}

/// One rule a port, its addresses sorted and each once.
fn egress(cache: &Validated, pins: &[PinnedHost]) -> Vec<NetworkPolicyEgressRule> {
    let mut open: std::collections::BTreeMap<u16, BTreeSet<IpAddr>> = std::collections::BTreeMap::new();
    for pin in pins {
        for port in cache.needs.get(&pin.host).map(|need| need.ports.as_slice()).unwrap_or_default() {
            open.entry(*port).or_default().extend(&pin.addresses);
        }
    }
    open.into_iter()
        .filter(|(_, addresses)| !addresses.is_empty())
        .map(|(number, addresses)| NetworkPolicyEgressRule {
            to: Some(addresses.into_iter().map(address_peer).collect()),
            ports: Some(vec![port(number)]),
        })
        .collect()
}

fn address_peer(address: IpAddr) -> NetworkPolicyPeer {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: format!("{address}/{bits}"), except: None }), ..NetworkPolicyPeer::default() }
}

fn port(number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(i32::from(number))), protocol: Some("TCP".to_owned()), end_port: None }
}
