//! What may stand among the chart's values, what each does, and what a wrong one is answered.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::chart::{REQUIRED, folder, template};
use crate::tools::{of_the_project, run};

fn read(file: &str) -> String {
    std::fs::read_to_string(of_the_project("charts/gomodcache-operator").join(file)).unwrap()
}

/// The values that a user may set, as helm's `--set` spells them: down to what is empty, a list or a text.
fn values() -> BTreeSet<String> {
    fn walk(path: &str, value: &Value, into: &mut BTreeSet<String>) {
        match value.as_object().filter(|map| !map.is_empty() && !FREE.contains(&path)) {
            Some(map) => map.iter().for_each(|(key, value)| walk(&format!("{path}.{key}"), value, into)),
            None => drop(into.insert(path.trim_start_matches('.').to_owned())),
        }
    }
    /// Whose keys are the user's.
    const FREE: [&str; 2] = [".resources", ".dashboard.labels"];
    let mut found = BTreeSet::new();
    walk("", &serde_saphyr::from_str(&read("values.yaml")).unwrap(), &mut found);
    found
}

#[test]
fn every_value_does_something() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let (image, proxy) = (format!("image.digest={digest}"), format!("proxyImage.digest={digest}"));
    // Each with what must be on for it to matter.
    let settings: [(&str, &[&str]); 32] = [
        ("goproxy=https://other.corp.example", &[]),
        ("gosumdb=off", &[]),
        ("redirectHosts={files.corp.example}", &[]),
        ("internalHosts={modules.corp.example}", &[]),
        ("nameServers={10.96.0.10:53}", &[]),
        ("monitoringNamespaces={monitoring}", &[]),
        ("allowSecretsWithoutHosts=true", &[]),
        ("image.repository=registry.corp.example:5000/gomodcache", &[]),
        ("image.tag=v2", &[]),
        (&image, &[]),
        ("image.pullPolicy=Always", &[]),
        ("imagePullSecrets[0].name=pull", &[]),
        ("proxyImage.repository=other", &[]),
        ("proxyImage.tag=v1", &["proxyImage.repository=other"]),
        (&proxy, &["proxyImage.repository=other"]),
        ("scope=Namespace", &[]),
        ("admissionPolicies.install=false", &[]),
        ("maxConcurrentRollouts=2", &[]),
        ("rolloutDeadline=90s", &[]),
        ("replicas=1", &[]),
        ("resources.limits.memory=512Mi", &[]),
        ("nodeSelector.pool=system", &[]),
        ("tolerations[0].operator=Exists", &[]),
        ("affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1", &[]),
        ("priorityClassName=system-cluster-critical", &[]),
        ("podLabels.team=builds", &[]),
        ("podAnnotations.team=builds", &[]),
        ("crds.install=false", &[]),
        ("podMonitor.interval=15s", &["podMonitor.enabled=true"]),
        ("podMonitor.labels.release=prometheus", &["podMonitor.enabled=true"]),
        ("dashboard.annotations.folder=Builds", &["dashboard.enabled=true"]),
        ("prometheusRule.labels.release=prometheus", &["prometheusRule.enabled=true"]),
    ];
    let switches =
        ["podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true"].map(|switch| (switch, &[] as &[&str]));
    let label = ("dashboard.labels.grafana_dashboard=builds", &["dashboard.enabled=true"] as &[&str]);
    let mut unset = values();
    for (setting, with) in settings.into_iter().chain(switches).chain([label]) {
        let path = setting.split_once('=').unwrap().0;
        let known = |value: &String| path == value || path.strip_prefix(value.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']));
        unset.retain(|value| !known(value));
        let both: Vec<&str> = with.iter().copied().chain([setting]).collect();
        assert_ne!(template(with), template(&both), "{setting} changes nothing");
    }
    assert_eq!(unset, BTreeSet::new(), "values that this test does not set");
}

#[test]
fn every_value_has_a_line_in_the_readme_and_a_place_in_the_schema() {
    let (readme, schema) = (read("README.md"), serde_json::from_str::<Value>(&read("values.schema.json")).unwrap());
    let in_readme: BTreeSet<String> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(value, _)| value.to_owned()).collect();
    assert_eq!(in_readme, values());
    for value in values() {
        let place = value.split('.').fold(&schema, |schema, key| &schema["properties"][key]);
        assert!(place.is_object(), "{value} is not in values.schema.json");
    }
}

/// What helm answers to these values beside the required ones.
fn refusal(set: &[&str]) -> String {
    let folder = folder();
    let mut arguments = vec!["template", "any-name", folder.as_str()];
    arguments.extend(set.iter().flat_map(|set| ["--set", *set]));
    let output = run("helm", &arguments);
    assert!(!output.status.success(), "{set:?} is accepted");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_is_required_is_asked_for_with_the_command_that_knows_it() {
    let without = |name: &str| refusal(&REQUIRED.into_iter().filter(|set| !set.starts_with(name)).collect::<Vec<_>>());
    assert!(without("goproxy").contains("goproxy is required") && without("goproxy").contains("$(go env GOPROXY)"));
    assert!(without("gosumdb").contains("gosumdb is required") && without("gosumdb").contains("$(go env GOSUMDB)"));
    assert!(without("image.repository").contains("image.repository is required") && without("image.repository").contains("make image"));
}

#[test]
fn a_wrong_value_is_named_with_what_it_must_be() {
    let table = BTreeMap::from([
        ("replicaz=2", "additional properties 'replicaz' not allowed"),
        ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("image.repo=x", "at '/image': additional properties 'repo' not allowed"),
        ("scope=Everywhere", "at '/scope': value must be one of 'Cluster', 'Namespace'"),
        ("maxConcurrentRollouts=0", "at '/maxConcurrentRollouts': minimum: got 0, want 1"),
        ("rolloutDeadline=5", "at '/rolloutDeadline': got number, want string"),
        ("crds.install=yes", "at '/crds/install': got string, want boolean"),
        ("crds.install=null", "at '/crds': missing property 'install'"),
        ("goproxy=7", "at '/goproxy': got number, want string"),
        ("goproxy=https://ci:hunter2@modules.corp.example", "goproxy must not carry a user name or password"),
        ("gosumdb=sum.corp.example https://ci:hunter2@sum.corp.example", "gosumdb must not carry a user name or password"),
        ("image.repository=https://registry.corp.example/gomodcache", "image.repository must be an image's name without tag or scheme"),
        ("image.repository=gomodcache:dev", "a tag goes into image.tag"),
        ("proxyImage.repository=gomodcache:dev", "a tag goes into proxyImage.tag"),
        ("proxyImage.tag=v1", "go with proxyImage.repository, which is empty"),
        ("image.tag=a:b", "at '/image/tag': 'a:b' does not match pattern"),
        ("image.digest=sha256:1", "image.digest must be sha256: and 64 hexadecimal digits"),
        ("image.pullPolicy=Sometimes", "'IfNotPresent', 'Always', 'Never'"),
        ("nameServers={10.96.0.10}", "\"10.96.0.10\" must be address:port, such as 10.96.0.10:53"),
        ("nameServers=10.96.0.10:53", "at '/nameServers': got string, want array"),
        ("redirectHosts={https://files.corp.example}", "at '/redirectHosts/0'"),
        ("internalHosts={https://modules.corp.example}", "at '/internalHosts/0'"),
        ("monitoringNamespaces={Monitoring}", "at '/monitoringNamespaces/0'"),
        ("allowSecretsWithoutHosts=1", "at '/allowSecretsWithoutHosts': got number, want boolean"),
        ("resources.memory=1Gi", "at '/resources': additional properties 'memory' not allowed"),
        ("tolerations.key=x", "at '/tolerations': got object, want array"),
        ("nodeSelector.pool=1", "at '/nodeSelector/pool': got number, want string"),
        ("podMonitor.interval=30", "at '/podMonitor/interval': got number, want string"),
        ("dashboard.labels.grafana_dashboard=1", "at '/dashboard/labels/grafana_dashboard': got number, want string"),
    ]);
    for (set, expected) in table {
        let mut all = REQUIRED.to_vec();
        all.push(set);
        let said = refusal(&all);
        assert!(said.contains(expected), "{set}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
