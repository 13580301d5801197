#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;

use super::*;
use crate::config::PinnedHost;
use crate::config::Versions;
use crate::operator::ca_bundles::Bundles;
use crate::operator::defaults::Defaults;
use crate::operator::validate::validate;

const FIXTURES: [&str; 3] = [
    "{}",
    "upstreams: [{url: 'https://modules.corp.example:8443/go', redirectHosts: [storage.example]}, {url: 'https://modules.corp.example/x'}]",
    "network: {ingress: {from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchExpressions: []}}]}}\nstorage: {deletionPolicy: Delete}",
];

fn validated(spec: &str) -> Validated {
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    let cache = serde_json::from_value(serde_json::json!({
        "apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache",
        "metadata": {"name": "ci", "namespace": "shop", "uid": "u-1"}, "spec": spec,
    }))
    .unwrap();
    let defaults = Defaults::parse("https://origin.example", "sum.example", &[]).unwrap();
    validate(&cache, &Bundles::default(), &defaults, "registry.example/proxy:1").unwrap()
}

fn prepared(spec: &str, pins: &[(&str, &[&str])]) -> Prepared {
    let pins: Vec<PinnedHost> = pins
        .iter()
        .map(|(host, addresses)| PinnedHost { host: (*host).to_owned(), addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() })
        .collect();
    build(
        &validated(spec),
        &Resolved { allowed: pins.clone(), pins, ..Resolved::default() },
        Data::new(),
        None,
        &admins(),
        &Versions::default(),
    )
    .unwrap()
}

fn admins() -> Vec<String> {
    vec!["ops".to_owned(), "monitoring".to_owned()]
}

fn assert_no_empty_list(path: &str, value: &Value) {
    match value {
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} is empty");
            items.iter().enumerate().for_each(|(i, item)| assert_no_empty_list(&format!("{path}[{i}]"), item));
        }
        Value::Object(fields) => {
            // An empty selector selects everything and is meant; any other empty map is a mistake.
            assert!(!fields.is_empty() || path.ends_with("Selector"), "{path} is empty");
            fields.iter().for_each(|(key, value)| assert_no_empty_list(&format!("{path}.{key}"), value));
        }
        _ => {}
    }
}

#[test]
fn no_policy_holds_an_empty_list() {
    for fixture in FIXTURES {
        for pins in [&[][..], &[("modules.corp.example", &["203.0.113.7"][..])]] {
            assert_no_empty_list("policy", &serde_json::to_value(prepared(fixture, pins).policy).unwrap());
        }
    }
}

#[test]
fn without_an_address_nothing_leaves() {
    let spec = prepared("{}", &[]).policy.spec.unwrap();
    assert_eq!(spec.egress, None);
    assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
}

#[test]
fn addresses_are_sorted_once_and_by_port() {
    let pins: &[(&str, &[&str])] =
        &[("modules.corp.example", &["203.0.113.9", "203.0.113.7", "2001:db8::1"]), ("storage.example", &["203.0.113.7"])];
    let rules = prepared(FIXTURES[1], pins).policy.spec.unwrap().egress.unwrap();
    let cidrs = |i: usize| -> Vec<String> {
        rules[i].to.as_ref().unwrap().iter().map(|peer| peer.ip_block.as_ref().unwrap().cidr.clone()).collect()
    };
    assert_eq!(rules.len(), 2);
    assert_eq!(cidrs(0), ["203.0.113.7/32", "203.0.113.9/32", "2001:db8::1/128"]);
    assert_eq!(cidrs(1), cidrs(0));
}

#[test]
fn upstreams_and_pins_leave_the_pods_alone() {
    let pins: &[(&str, &[&str])] = &[("modules.corp.example", &["203.0.113.9"])];
    assert_eq!(prepared(FIXTURES[0], &[]).deployment, prepared(FIXTURES[1], pins).deployment);
}

#[test]
fn a_claim_has_an_owner_only_under_delete() {
    assert_eq!(prepared("{}", &[]).claim.metadata.owner_references, None);
    assert_eq!(prepared(FIXTURES[2], &[]).claim.metadata.owner_references.unwrap()[0].uid, "u-1");
}

#[test]
fn a_claim_is_never_lowered() {
    let cache = validated("{storage: {size: 1Gi}}");
    let stored: PersistentVolumeClaim =
        serde_json::from_value(serde_json::json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}, "storageClassName": "fast"}}))
            .unwrap();
    let claim =
        build(&cache, &Resolved::default(), Data::new(), Some(&stored), &admins(), &Versions::default()).unwrap().claim.spec.unwrap();
    assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "3Gi");
    assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
}

#[test]
fn guests_may_reach_the_module_port_beside_those_who_could_before() {
    let peers = |spec: &str, guests: &[&str]| {
        let cache = Validated { guests: guests.iter().map(|&guest| guest.to_owned()).collect(), ..validated(spec) };
        let policy = build(&cache, &Resolved::default(), Data::new(), None, &admins(), &Versions::default()).unwrap().policy;
        serde_json::to_value(&policy.spec.unwrap().ingress.unwrap()[0].from).unwrap()
    };
    let own = serde_json::json!({"podSelector": {}});
    let guest = |name: &str| serde_json::json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    assert_eq!(peers("{}", &[]), serde_json::json!([own]));
    assert_eq!(peers("{}", &["a", "b"]), serde_json::json!([own, guest("a"), guest("b")]));
    assert_eq!(peers(FIXTURES[2], &["b"])[1], guest("b"));
}

#[test]
fn a_fallback_is_spelled_as_go_reads_it() {
    let proxy = |fallback: &str| prepared(&format!("clients: {{fallback: {fallback}}}"), &[]).env.data.unwrap()["GOPROXY"].clone();
    let url = "http://ci.shop.svc:8080";
    assert_eq!(proxy("None"), url);
    assert_eq!((proxy("DirectOnNotFound"), proxy("DirectOnError")), (format!("{url},direct"), format!("{url}|direct")));
}

#[test]
fn clients_get_a_fixed_set_of_variables() {
    let env = prepared("{}", &[]).env.data.unwrap();
    assert_eq!(env["GOPROXY"], "http://ci.shop.svc:8080");
    assert_eq!(env["GOSUMDB"], "sum.example");
    assert_eq!(prepared("{checksumDatabase: {mode: Disabled}}", &[]).env.data.unwrap()["GOSUMDB"], "off");
}

#[test]
fn behind_an_http_proxy_the_policy_is_open_to_the_proxy_and_to_what_goes_round_it() {
    let cache = validated(
        "upstreams: [{url: 'https://modules.example'}, {url: 'https://git.corp.example', internal: true}]\n\
         network: {httpProxy: {url: 'http://egress.corp.example:3128', noProxy: [.corp.example], credentialsRef: {name: egress}}}",
    );
    let needs: Vec<(&str, &[u16], bool)> = cache.needs.iter().map(|(host, need)| (host.as_str(), &need.ports[..], need.internal)).collect();
    assert_eq!(needs, [("egress.corp.example", &[3128][..], true), ("git.corp.example", &[443], true)]);
    assert!(cache.wanted["egress"].contains("egress.corp.example"));
    let config = build(&cache, &Resolved::default(), Data::new(), None, &admins(), &Versions::default())
        .unwrap()
        .config
        .data
        .unwrap()
        .remove("proxy.yaml")
        .unwrap();
    assert_eq!(crate::config::ProxyConfig::parse(&config).unwrap().http_proxy, cache.http_proxy);
}

#[test]
fn the_admin_port_is_open_to_the_operators_namespace_and_to_those_that_monitor() {
    let policy = serde_json::to_value(prepared("{}", &[]).policy).unwrap();
    let rule = policy["spec"]["ingress"].as_array().unwrap().iter().find(|rule| rule["ports"][0]["port"] == 9090).unwrap();
    let names: Vec<&Value> = rule["from"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| &peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
        .collect();
    assert_eq!(names, ["ops", "monitoring"]);
}
