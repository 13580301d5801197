//! Helm itself, on a real API server.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::tools::{home, of_the_project};
use crate::{apply, cache, cluster, namespace, objects};

fn helm(arguments: &[&str]) -> Output {
    Command::new(home().join("bin/helm")).args(arguments).output().unwrap()
}

/// What helm prints when it has nothing to complain of.
fn succeeds(arguments: &[&str]) -> String {
    let output = helm(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn helm_installs_upgrades_and_uninstalls_the_chart_and_the_caches_stay() {
    let Some(client) = cluster().await else { return };
    for kind in ["podmonitors", "prometheusrules"] {
        let file = home().join(format!("schemas/monitoring.coreos.com_{kind}.yaml"));
        apply(&client, &serde_saphyr::from_str::<Value>(&std::fs::read_to_string(file).unwrap()).unwrap()).await;
    }
    let (own, other) = (namespace(&client, "chart").await, namespace(&client, "chart-other").await);
    let chart = of_the_project("charts/gomodcache-operator");
    let values = ["--set", "goproxy=https://modules.corp.example/go,gosumdb=off,image.repository=registry.corp.example/gomodcache"];
    let install = |verb, namespace| [&[verb, "gomodcache", chart.to_str().unwrap(), "--namespace", namespace], &values[..]].concat();

    // The other tests' definition is there already.
    let notes = succeeds(&[&install("install", &own)[..], &["--take-ownership"]].concat());
    assert!(notes.contains("kubectl -n build wait --for=condition=Ready gomodulecache/ci"), "{notes}");
    // As a shell reads it.
    let command = notes.lines().find(|line| line.contains("{apiVersion")).expect("a manifest in the notes");
    let echoed = Command::new("sh").args(["-c", &command.replace("kubectl apply -f -", "cat")]).output().unwrap();
    let mut sample: Value = serde_saphyr::from_str(&String::from_utf8(echoed.stdout).unwrap()).unwrap();
    sample["metadata"]["namespace"] = json!(own);
    apply(&client, &sample).await;

    let second = helm(&[&install("install", &other)[..], &["--set", "crds.install=false"]].concat());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("invalid ownership metadata"), "a cluster has one operator: {said}");

    let everything = ["podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true"].join(",");
    // A kind that was defined a moment ago may not be served yet.
    let mut upgraded = helm(&[&install("upgrade", &own)[..], &["--set", &everything]].concat());
    for _ in 0..50 {
        if upgraded.status.success() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        upgraded = helm(&[&install("upgrade", &own)[..], &["--set", &everything]].concat());
    }
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    let role = async || objects(&client, "ClusterRole", "").get_opt("gomodcache-operator").await.unwrap();
    assert!(role().await.is_some());
    for (kind, name) in [("Deployment", "gomodcache-operator"), ("PodMonitor", "gomodcache-proxies"), ("ConfigMap", "gomodcache-dashboard")]
    {
        assert!(objects(&client, kind, &own).get_opt(name).await.unwrap().is_some(), "{kind} {name}");
    }

    apply(&client, &cache(&own, "sky", &json!({}))).await;
    succeeds(&["uninstall", "gomodcache", "--namespace", &own]);
    assert!(role().await.is_none());
    for cache in ["ci", "sky"] {
        let cache = objects(&client, "GoModuleCache", &own).get(cache).await.expect("an uninstall that takes the caches takes their data");
        assert!(cache.metadata.deletion_timestamp.is_none());
    }
    let definition = objects(&client, "CustomResourceDefinition", "").get("gomodulecaches.gomodcache.io").await.unwrap();
    assert!(definition.metadata.deletion_timestamp.is_none());
}
