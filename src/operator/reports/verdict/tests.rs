#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::CONFIG_VERSION;
use crate::operator::ca_bundles::Bundles;
use crate::operator::defaults::Defaults;
use crate::operator::reports::Wanted;
use crate::operator::validate::validate;

fn cache(spec: &Value) -> Validated {
    let object = json!({
        "apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache",
        "metadata": {"name": "ci", "namespace": "shop", "uid": "u-1"}, "spec": spec,
    });
    let defaults = Defaults::parse("https://origin.example", "off", &[], &[]).unwrap();
    validate(&serde_json::from_value(object).unwrap(), &Bundles::default(), &defaults, "registry.example/proxy:1").unwrap()
}

/// One pod that has what is wanted, but for these.
fn survey(changes: &Value) -> Survey {
    let mut report = json!({"version": 1, "configVersions": [CONFIG_VERSION], "config": "c2", "credentials": "g2"});
    report.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let seen = Seen { name: "ci-proxy-1".to_owned(), answer: Ok(serde_json::from_value(report).unwrap()) };
    let wanted = Wanted { configs: [(CONFIG_VERSION, "c2".to_owned())].into(), credentials: "g2".to_owned() };
    Survey { wanted, pods: vec![seen], age: Duration::from_secs(1), ..Survey::default() }
}

#[test]
fn only_a_moments_lag_in_the_configuration_alone_is_passed_over() {
    let lagging = survey(&json!({"config": "c1"}));
    assert_eq!(configuration(&lagging).1, "Pending");
    assert!(is_known_to_lag(&lagging));
    assert!(!is_known_to_lag(&Survey { age: FLICKER, ..lagging }));
    assert!(!is_known_to_lag(&survey(&json!({"config": "c1", "credentials": "g1"}))));
    assert!(!is_known_to_lag(&survey(&json!({"config": "c1", "refused": {"config": "c2", "credentials": "g2", "reason": "x"}}))));
}

#[test]
fn a_refusal_of_what_is_no_longer_wanted_is_old_news() {
    let refused = |config: &str| survey(&json!({"config": "c1", "refused": {"config": config, "credentials": "g2", "reason": "x"}}));
    assert_eq!(configuration(&refused("c1")).1, "Pending");
    assert_eq!(configuration(&refused("c2")).1, "Rejected");
}

#[test]
fn a_report_tells_nothing_of_secrets_and_hosts_that_the_spec_does_not_have() {
    let spec =
        json!({"upstreams": [{"url": "https://Modules.example/go", "credentialsRef": {"name": "corp"}, "redirectHosts": ["a.example"]}]});
    let cache = cache(&spec);
    let verdicts =
        |secret: &str, upstream: &str| survey(&json!({"verdicts": [{"secret": secret, "upstream": upstream, "accepted": false}]}));
    assert_eq!(credentials(&verdicts("corp", "modules.example"), &cache).unwrap().1, "CredentialRejected");
    assert_eq!(credentials(&verdicts("corp", "other.example"), &cache), None);
    assert_eq!(credentials(&verdicts("other", "modules.example"), &cache), None);
    let redirect = |upstream: &str, host: &str| egress(&survey(&json!({"redirects": [{"upstream": upstream, "host": host}]})), &cache);
    assert!(redirect("modules.example", "b.example").unwrap().2.ends_with("redirectHosts: [a.example, b.example]"));
    assert_eq!(redirect("modules.example", "a.example"), None, "it is declared, and the pod lags");
    assert_eq!(redirect("other.example", "b.example"), None);
    assert_eq!(redirect("modules.example", "b.example]\nx: ["), None);
}

#[test]
fn an_old_verdict_on_a_credential_that_was_changed_is_not_repeated() {
    let cache = cache(&json!({"upstreams": [{"url": "https://modules.example/go", "credentialsRef": {"name": "corp"}}]}));
    let verdict = json!([{"secret": "corp", "upstream": "modules.example", "accepted": false}]);
    assert_eq!(credentials(&survey(&json!({"credentials": "g1", "verdicts": verdict})), &cache).unwrap().1, "Pending");
}

#[test]
fn a_redirect_of_a_default_upstream_is_the_installations_business() {
    let survey = survey(&json!({"redirects": [{"upstream": "origin.example", "host": "b.example"}]}));
    assert!(egress(&survey, &cache(&json!({}))).unwrap().2.contains("the operator's setting GOMODCACHE_REDIRECT_HOSTS"));
}
