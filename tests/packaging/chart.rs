//! The chart beside `deploy/base`, which is where a change begins.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::schemas;
use crate::tools::{objects, of_the_project, stdout};

/// The namespace that `deploy/base` uses.
const NAMESPACE: &str = "gomodcache-system";

/// What has no default.
pub(crate) const REQUIRED: [&str; 4] =
    ["goproxy=https://modules.corp.example/go", "gosumdb=sum.corp.example", "image.repository=localhost/gomodcache", "image.tag=dev"];

pub(crate) fn folder() -> String {
    of_the_project("charts/gomodcache-operator").to_str().unwrap().to_owned()
}

/// `helm template` with the required values, then these.
pub(crate) fn template(set: &[&str]) -> Vec<Value> {
    template_in(NAMESPACE, set)
}

fn template_in<'a>(namespace: &'a str, set: &[&'a str]) -> Vec<Value> {
    let folder = folder();
    let mut arguments = vec!["template", "any-name", folder.as_str(), "--namespace", namespace];
    arguments.extend(REQUIRED.iter().chain(set).flat_map(|set: &&'a str| ["--set", *set]));
    objects(&stdout("helm", &arguments))
}

/// Each object by its kind and name, which must be its own.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let mut named = BTreeMap::new();
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name =
            format!("{} {} in '{}'", text(&object["kind"]), text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
        assert!(named.insert(name.clone(), object).is_none(), "two of {name}");
    }
    named
}

fn removed(value: &mut Value, parent: &str, key: &str) -> Value {
    let Some(map) = value.pointer_mut(parent).and_then(Value::as_object_mut) else { return Value::Null };
    let taken = map.remove(key).unwrap_or_default();
    if map.is_empty()
        && let Some((above, name)) = parent.rsplit_once('/')
    {
        value.pointer_mut(above).unwrap().as_object_mut().unwrap().remove(name);
    }
    taken
}

/// Where two values differ.
fn differences(path: &str, chart: &Value, base: &Value) -> Vec<String> {
    match (chart, base) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            keys.into_iter().flat_map(|key| differences(&format!("{path}.{key}"), &chart[key], &base[key])).collect()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            left.iter().zip(right).enumerate().flat_map(|(i, (left, right))| differences(&format!("{path}[{i}]"), left, right)).collect()
        }
        _ if chart == base => Vec::new(),
        _ => vec![format!("{path}: the chart has {chart}, deploy/ has {base}")],
    }
}

#[test]
fn the_chart_renders_what_deploy_holds() {
    let definition = std::fs::read_to_string(of_the_project("crds/gomodulecaches.yaml")).unwrap();
    for (folder, set) in [("deploy/base", &[] as &[&str]), ("deploy/overlays/namespace", &["scope=Namespace"])] {
        let shipped = stdout("kustomize", &["build", of_the_project(folder).to_str().unwrap()]);
        for namespace in [NAMESPACE, "elsewhere"] {
            let mut shipped = shipped.replace(NAMESPACE, namespace);
            // Operators of one namespace each stand side by side, and these objects are in none.
            for policy in ["pods", "deletes"].into_iter().filter(|_| !set.is_empty()) {
                shipped = shipped.replace(&format!("gomodcache-operator-{policy}"), &format!("gomodcache-operator-{namespace}-{policy}"));
            }
            let mut shipped = objects(&shipped);
            shipped.extend(objects(&definition));
            are_the_same(namespace, by_name(template_in(namespace, set)), by_name(shipped));
        }
    }
}

/// Each verb on each resource that a role of this kind grants.
fn granted(objects: &[Value], kind: &str, name: &str) -> BTreeSet<String> {
    let role = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap();
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let of_rule = |rule: &Value| {
        let mut all = Vec::new();
        for (group, resource) in
            texts(&rule["apiGroups"]).iter().flat_map(|group| texts(&rule["resources"]).into_iter().map(move |r| (group.clone(), r)))
        {
            all.extend(texts(&rule["verbs"]).into_iter().map(|verb| format!("{verb} {group}/{resource}")));
        }
        all
    };
    role["rules"].as_array().unwrap().iter().flat_map(of_rule).collect()
}

#[test]
fn in_one_namespace_the_operator_may_do_what_it_may_in_all_but_for_what_is_beyond_it() {
    let (all, one) = (template(&[]), template(&["scope=Namespace"]));
    let in_all = granted(&all, "ClusterRole", "gomodcache-operator");
    let in_one = granted(&one, "Role", "gomodcache-operator-caches");
    assert!(one.iter().all(|object| !object["kind"].as_str().unwrap().starts_with("ClusterRole")));
    let beyond = ["delete /configmaps", "list /namespaces", "list storage.k8s.io/storageclasses", "watch /namespaces"];
    assert_eq!(in_all.difference(&in_one).collect::<Vec<_>>(), beyond);
    assert_eq!(in_one.difference(&in_all).collect::<Vec<_>>(), Vec::<&String>::new());
}

fn are_the_same(namespace: &str, mut chart: BTreeMap<String, Value>, mut base: BTreeMap<String, Value>) {
    // What each has alone: helm makes no namespaces, and `deploy/` leaves the settings to whoever installs it.
    assert!(base.remove(&format!("Namespace {namespace} in ''")).is_some());
    let settings = chart.remove(&format!("ConfigMap gomodcache-operator in '{namespace}'")).unwrap();
    let [proxies, database] = ["GOPROXY", "GOSUMDB"].map(|key| settings["data"][key].as_str().unwrap());
    assert_eq!((proxies, database), ("https://modules.corp.example/go", "sum.corp.example"));
    assert_eq!(settings["data"].as_object().unwrap().len(), 2);

    assert_eq!(chart.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    let mut found = Vec::new();
    for (name, object) in &mut chart {
        let base = base.get_mut(name).unwrap();
        let labels = removed(object, "/metadata", "labels");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{name}");
        for (key, value) in removed(base, "/metadata", "labels").as_object().into_iter().flatten() {
            assert_eq!(&labels[key], value, "{name}: label {key}");
        }
        if name.starts_with("CustomResourceDefinition ") {
            assert_eq!(removed(object, "/metadata/annotations", "helm.sh/resource-policy"), "keep");
        }
        if name.starts_with("Deployment ") {
            assert!(removed(object, "/spec/template/metadata/annotations", "checksum/settings").is_string());
        }
        found.extend(differences(name, object, base));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_charts_copies_are_those_of_the_project() {
    let folder = |path: &str| std::fs::read_dir(of_the_project(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let in_folder = |path: &str| folder(path).map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>();
    let files = "charts/gomodcache-operator/files";
    // The chart has a Deployment of its own, and helm makes the namespace.
    let mut base = in_folder("deploy/base");
    base.retain(|file| !["kustomization.yaml", "namespace.yaml", "operator.yaml"].contains(&file.as_str()));
    let shared = [("crds", "gomodulecaches.yaml"), ("deploy/dashboards", "gomodcache.json"), ("deploy/rules", "gomodcache.rules.yaml")];
    let copies = shared.map(|(source, file)| (format!("{source}/{file}"), format!("{files}/{file}"))).into_iter();
    for (source, copy) in copies.chain(base.iter().map(|file| (format!("deploy/base/{file}"), format!("{files}/base/{file}")))) {
        let read = |path: &str| std::fs::read_to_string(of_the_project(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(read(&source) == read(&copy), "{copy} is not {source}; run: make chart");
    }
    let role = |folder: &str| std::fs::read_to_string(of_the_project(&format!("{folder}/role.yaml"))).unwrap();
    assert!(role("deploy/overlays/namespace") == role(&format!("{files}/namespace")), "run: make chart");
    assert_eq!((in_folder(files).len(), in_folder(&format!("{files}/base"))), (shared.len() + 2, base));
}

#[test]
fn the_charts_version_is_the_programs() {
    let chart: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(of_the_project("charts/gomodcache-operator/Chart.yaml")).unwrap()).unwrap();
    assert_eq!(
        (chart["version"].as_str(), chart["appVersion"].as_str()),
        (Some(env!("CARGO_PKG_VERSION")), Some(env!("CARGO_PKG_VERSION")))
    );
}

/// Everything on, so that every template is read.
const EVERYTHING: [&str; 13] = [
    "podMonitor.enabled=true",
    "podMonitor.labels.release=prometheus",
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "dashboard.annotations.folder=Builds",
    "redirectHosts={files.corp.example}",
    "nameServers={10.96.0.10:53}",
    "imagePullSecrets[0].name=pull",
    "nodeSelector.pool=system",
    "tolerations[0].operator=Exists",
    "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
    "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey=zone",
    "priorityClassName=system-cluster-critical",
];

#[test]
fn helm_lint_has_nothing_to_say() {
    for set in [&[] as &[&str], &EVERYTHING] {
        let folder = folder();
        let mut arguments = vec!["lint", "--strict", "--quiet", folder.as_str()];
        arguments.extend(REQUIRED.iter().chain(set).flat_map(|set| ["--set", *set]));
        stdout("helm", &arguments);
    }
}

#[test]
fn every_object_fits_the_schema_of_its_kind() {
    let schemas = schemas::write();
    for set in [&[] as &[&str], &EVERYTHING] {
        let mut objects = template(set);
        // kubeconform knows no schema of schemas; the API server reads this one in the tests of the operator.
        objects.retain(|object| object["kind"] != "CustomResourceDefinition");
        assert_eq!(schemas::complaints(schemas.path(), &objects), "");
    }
    let mut wrong = template(&EVERYTHING);
    wrong.retain(|object| object["kind"] == "Deployment" || object["kind"] == "PodMonitor");
    wrong[0]["spec"]["replicaz"] = 2.into();
    wrong[1]["spec"]["podMetricsEndpoint"] = Value::Array(Vec::new());
    let said = schemas::complaints(schemas.path(), &wrong);
    assert!(said.contains("replicaz") && said.contains("podMetricsEndpoint"), "kubeconform does not look: {said}");
}
