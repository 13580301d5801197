#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use k8s_openapi::api::core::v1::PodTemplateSpec;
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
    let defaults = Defaults::parse("https://origin.example", "sum.example", &[], &[]).unwrap();
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
    let stored: PersistentVolumeClaim = serde_json::from_value(
        serde_json::json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}, "storageClassName": "fast", "volumeName": "v"}}),
    )
    .unwrap();
    let claim =
        build(&cache, &Resolved::default(), Data::new(), Some(&stored), &admins(), &Versions::default()).unwrap().claim.spec.unwrap();
    assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "3Gi");
    assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
}

/// A claim of the size 2Gi and the class fast, but for these.
fn stored(changes: &Value) -> PersistentVolumeClaim {
    let mut claim = serde_json::json!({
        "metadata": {},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Pending"},
    });
    for (part, fields) in changes.as_object().unwrap() {
        claim[part].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    serde_json::from_value(claim).unwrap()
}

fn prepared_with(storage: &str, claim: &PersistentVolumeClaim) -> Prepared {
    prepared_over(&format!("{{storage: {storage}}}"), claim)
}

fn prepared_over(spec: &str, claim: &PersistentVolumeClaim) -> Prepared {
    let cache = validated(spec);
    let cache = Validated { sharing: Sharing::with(&cache, Some(claim)), ..cache };
    build(&cache, &Resolved::default(), Data::new(), Some(claim), &admins(), &Versions::default()).unwrap()
}

#[test]
fn pods_share_a_volume_only_as_far_as_its_claim_lets_them() {
    let bound =
        |modes: Value| stored(&serde_json::json!({"spec": {"volumeName": "v", "accessModes": modes}, "status": {"phase": "Bound"}}));
    let going = |claim: PersistentVolumeClaim| {
        let deletion_timestamp = serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).unwrap();
        PersistentVolumeClaim { metadata: ObjectMeta { deletion_timestamp, ..claim.metadata.clone() }, ..claim }
    };
    let (one, many) = (serde_json::json!(["ReadWriteOnce"]), serde_json::json!(["ReadWriteOnce", "ReadWriteMany"]));
    let wants_many = "{replicas: 3, storage: {accessMode: ReadWriteMany, size: 2Gi}}";
    let table = [
        (wants_many, bound(one.clone()), "Recreate", 1),
        (wants_many, going(bound(one.clone())), "Recreate", 1),
        (wants_many, bound(many.clone()), "RollingUpdate", 3),
        // It never had a volume, and is made anew.
        (wants_many, stored(&serde_json::json!({})), "RollingUpdate", 3),
        ("{storage: {size: 2Gi}}", bound(many), "Recreate", 1),
        ("{storage: {size: 2Gi}}", bound(one), "Recreate", 1),
    ];
    for (spec, claim, strategy, replicas) in table {
        let prepared = prepared_over(spec, &claim);
        let deployment = prepared.deployment.spec.unwrap();
        let pod = deployment.template.spec.unwrap();
        let are_spread = pod.topology_spread_constraints.is_some();
        assert_eq!(pod.containers[0].env.is_some(), replicas > 1, "one that ends goes on to take connections");
        let seen = (deployment.strategy.unwrap().type_.unwrap(), deployment.replicas.unwrap(), are_spread);
        assert_eq!(seen, (strategy.to_owned(), replicas, replicas > 1), "{spec} {:?}", claim.spec);
        let is_as_it_should = match prepared.budget {
            Budget::Wanted(_) => replicas > 1,
            Budget::Unwanted { .. } => spec == wants_many && replicas == 1,
            Budget::Impossible => spec != wants_many,
        };
        assert!(is_as_it_should, "{spec} {:?}", claim.spec);
    }
}

#[test]
fn what_a_claim_lets_the_pods_do_is_no_change_by_another_release() {
    let cache = validated("{replicas: 2, storage: {accessMode: ReadWriteMany, size: 2Gi}}");
    let claim = stored(&serde_json::json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}));
    let held_up = Validated { sharing: Sharing::with(&cache, Some(&claim)), ..cache.clone() };
    let (free, held_up) = (marks(&cache), marks(&held_up));
    assert!(free.asked != held_up.asked && free.made != held_up.made, "or it would wait for its turn");
}

#[test]
fn only_a_claim_that_never_had_a_volume_and_is_not_as_wanted_is_replaced() {
    let unbound = serde_json::json!({});
    let volume = serde_json::json!({"spec": {"volumeName": "v"}});
    let was_bound = serde_json::json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
    let going = serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let table = [
        ("{size: 2Gi}", &unbound, false, "2Gi"),
        ("{size: 2048Mi}", &unbound, false, "2Gi"),
        ("{size: 2Gi, storageClassName: fast}", &unbound, false, "2Gi"),
        ("{size: 3Gi}", &unbound, true, "3Gi"),
        ("{size: 1Gi}", &unbound, true, "1Gi"),
        ("{size: 2Gi, storageClassName: slow}", &unbound, true, "2Gi"),
        ("{size: 2Gi, accessMode: ReadWriteOncePod}", &unbound, true, "2Gi"),
        ("{size: 3Gi, storageClassName: slow}", &volume, false, "3Gi"),
        ("{size: 1Gi}", &volume, false, "2Gi"),
        ("{size: 3Gi}", &serde_json::json!({"status": {"phase": "Bound", "capacity": {"storage": "3Gi"}}}), false, "2Gi"),
        ("{size: 1Gi}", &was_bound, false, "2Gi"),
        ("{size: 1Gi}", &serde_json::json!({"status": {"phase": "Lost"}}), false, "2Gi"),
        ("{size: 1Gi}", &going, false, "1Gi"),
    ];
    for (storage, changes, is_replaced, size) in table {
        let prepared = prepared_with(storage, &stored(changes));
        assert_eq!(prepared.unbound.is_some(), is_replaced, "{storage} {changes}");
        let spec = prepared.claim.spec.unwrap();
        assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, size, "{storage} {changes}");
        if is_replaced && storage.contains("slow") {
            assert_eq!(spec.storage_class_name.as_deref(), Some("slow"));
        }
    }
}

#[test]
fn what_no_volume_can_grow_to_is_taken_back_as_far_as_the_api_server_lets_it() {
    let claim = |stage: &str| {
        stored(&serde_json::json!({
            "spec": {"volumeName": "v", "resources": {"requests": {"storage": "9Gi"}}},
            "status": {"phase": "Bound", "capacity": {"storage": "3Gi"}, "allocatedResourceStatuses": {"storage": stage}},
        }))
    };
    let size = |wanted: &str, stage: &str| {
        let claim = prepared_with(&format!("{{size: {wanted}}}"), &claim(stage)).claim;
        claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0.clone()
    };
    assert_eq!(size("5Gi", "ControllerResizeInfeasible"), "5Gi");
    assert_eq!(size("12Gi", "NodeResizeInfeasible"), "12Gi");
    assert_eq!(size("3Gi", "ControllerResizeInfeasible"), "9Gi", "no less than it has more of");
    assert_eq!(size("5Gi", "ControllerResizeInProgress"), "9Gi", "someone else may have raised it");
}

#[test]
fn a_volume_of_one_pod_has_one_pod_that_makes_room_for_the_next() {
    let prepared = prepared("{storage: {accessMode: ReadWriteOncePod}}", &[]);
    assert_eq!(prepared.claim.spec.unwrap().access_modes.unwrap(), ["ReadWriteOncePod"]);
    assert_eq!(prepared.deployment.spec.unwrap().strategy.unwrap().type_.as_deref(), Some("Recreate"));
    assert!(matches!(prepared.budget, Budget::Impossible));
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

#[test]
fn the_marks_tell_what_a_user_asks_of_the_pods_from_what_is_made_of_it() {
    let of = |spec: &str| marks(&validated(spec));
    let plain = of("{}");
    for hot in ["upstreams: [{url: 'https://modules.example'}]", "privateModules: [{pattern: git.corp.example/*}]", "replicas: 1"] {
        assert_eq!(of(hot), plain, "{hot}");
    }
    for asked in ["podTemplate: {labels: {team: a}}", "{replicas: 2, storage: {accessMode: ReadWriteMany}}"] {
        let changed = of(asked);
        assert!(changed.asked != plain.asked && changed.made != plain.made, "{asked}");
    }
    let own = of("image: registry.example/own:1");
    assert!(own.asked != plain.asked && own.made == plain.made, "an image is no part of what is made");
    // A spec that did not change must look so to every release: otherwise an upgrade would look like a change by all users at once.
    let digests = [plain.asked, of("podTemplate: {labels: {team: a}, nodeSelector: {disk: fast}}").asked];
    assert_eq!(digests, ["d0c06f5cabaeb2e06ebef933184a3372", "42cc6c4136a1bd6b9f0cf30df65c4108"]);
}

#[test]
fn pods_that_are_kept_stay_as_they_are_stored_with_the_label_that_tells_so() {
    let earlier = PodTemplateSpec { metadata: Some(ObjectMeta { name: Some("earlier".to_owned()), ..ObjectMeta::default() }), spec: None };
    let deployment = |kept: Option<Kept>| {
        let cache = Validated { kept, ..validated("{}") };
        deployment::build(&cache)
    };
    let label = |deployment: &Deployment| deployment.metadata.labels.as_ref().unwrap().get(PODS_MADE).cloned();
    for made in [None, Some("earlier".to_owned())] {
        let kept = deployment(Some(Kept { template: earlier.clone(), made: made.clone() }));
        assert_eq!((label(&kept), kept.spec.unwrap().template), (made, earlier.clone()));
    }
    assert_eq!(label(&deployment(None)), Some(marks(&validated("{}")).made));
}
