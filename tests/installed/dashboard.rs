//! The dashboard and the rules find what they ask for. DASHBOARD_SECONDS (8) says how long the load lasts, and
//! DASHBOARD_DATA a folder for what Prometheus scraped, so that the dashboard can be drawn.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::prometheus::Prometheus;
use crate::tools::of_the_project;
use crate::{apply, cache, cluster, common, load, namespace};

/// An operator under the tests' own account.
fn operator(namespace: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gomodcache"));
    command
        .args(["operator", "--admin-listen", "127.0.0.1:0", "--proxy-image", "localhost/gomodcache:dev"])
        .args(["--goproxy", "https://203.0.113.7/go", "--gosumdb", "off"])
        .env("POD_NAMESPACE", namespace);
    command
}

/// A query with what Grafana puts into it.
fn filled_in(query: &str) -> String {
    let values = [("$__rate_interval", "10s"), ("$__range", "1m"), ("$namespace", ".*"), ("$cache", ".*")];
    let filled = values.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!filled.contains('$'), "{filled}: a variable that the dashboard does not have");
    filled
}

/// What the panels ask, with their titles.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        let title = |target: &Value| format!("{} ({})", panel["title"].as_str().unwrap(), target["refId"].as_str().unwrap());
        queries.extend(targets.iter().map(|target| (title(target), filled_in(target["expr"].as_str().unwrap()))));
    }
    queries
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    text.split(|letter| !is_part(letter)).filter(|word| word.contains("gomodcache_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_query_of_the_dashboard_and_every_rule_finds_something_of_caches_and_an_operator_at_work() {
    let Some(client) = cluster().await else { return };
    let seconds: u32 = std::env::var("DASHBOARD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let data = std::env::var_os("DASHBOARD_DATA").map(PathBuf::from);
    let own = namespace(&client, "dashboard").await;
    let folder = tempfile::tempdir().unwrap();
    let (_operator, serving) = common::start(operator(&own), &folder.path().join("log"));
    let admin = serving.unwrap()["admin"].as_str().unwrap().to_owned();
    // Little enough to be full when the load ends.
    let caches = load::caches(u64::from(seconds.clamp(8, 96)) << 19).await;
    let [build, nightly] = [&caches.build, &caches.nightly].map(|stage| stage.admin().trim_start_matches("http://").to_owned());
    let targets = [(admin.as_str(), own.as_str(), None), (&build, "build", Some("ci")), (&nightly, "team-a", Some("nightly"))];
    let prometheus = Prometheus::start(&targets, data).await;

    let changes = async {
        for round in 0..4 {
            for name in ["sky", "sea", "kiwi"] {
                let upstreams = json!([{"url": format!("https://203.0.113.{round}/go")}]);
                apply(&client, &cache(&own, name, &json!({"upstreams": upstreams}))).await;
            }
            tokio::time::sleep(Duration::from_secs_f64(f64::from(seconds) / 4.0)).await;
        }
    };
    tokio::join!(load::run(&caches, Duration::from_secs(u64::from(seconds))), changes);

    let dashboard = std::fs::read_to_string(of_the_project("deploy/dashboards/gomodcache.json")).unwrap();
    let rules = std::fs::read_to_string(of_the_project("deploy/rules/gomodcache.rules.yaml")).unwrap();
    let mut asked = queries(&serde_json::from_str(&dashboard).unwrap());
    let recorded = rules.lines().filter_map(|line| line.split_once("record: ")).map(|(_, name)| name.to_owned());
    asked.extend(recorded.map(|name| (format!("the rule {name}"), name)));
    assert!(asked.len() > 30, "{asked:?}");
    let (deadline, mut empty) = (Instant::now() + Duration::from_secs(5), Vec::new());
    loop {
        empty.clear();
        for (title, query) in &asked {
            if prometheus.query(query).await.is_empty() {
                empty.push(format!("{title}: {query}"));
            }
        }
        if empty.is_empty() || Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(empty.is_empty(), "nothing is found by\n{}", empty.join("\n"));

    let known: BTreeSet<String> = prometheus.values("__name__", "{__name__=~\".*gomodcache_.*\"}").await.into_iter().collect();
    let unknown: Vec<String> = names(&(dashboard + &rules)).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
    assert_eq!(prometheus.values("cache", "gomodcache_build_info").await, ["ci", "nightly"]);
    assert_eq!(prometheus.values("namespace", "gomodcache_build_info").await, ["build", "team-a"]);
    let endpoints = prometheus.values("endpoint", "gomodcache_requests_total").await;
    assert!(endpoints.contains(&"zip".to_owned()) && !endpoints.contains(&"admin".to_owned()), "{endpoints:?}");
}
