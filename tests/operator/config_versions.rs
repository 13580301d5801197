//! Operator and proxies of different releases: one before or after the other, and back again. There is one version of the
//! configuration's format so far, so both are told to take a second one for theirs, that differs in its number alone.

use gomodcache::report::config_digest;
use serde_json::{Value, json};

use super::process::Process;
use super::proxies::{Proxy, make_ready, on_no_node, own_pod};
use super::stage::{Stage, stage_alone};
use super::{await_children, without_names};

const ADDRESS: &str = "127.77.21.1";
/// This release, the next, and the one after that.
const N: &str = "1";
const NEXT: &str = "1,2";
const AFTER_NEXT: &str = "2,3";

async fn files(stage: &Stage) -> serde_json::Map<String, Value> {
    stage.get("ConfigMap", "ivy-config").await.unwrap().data["data"].as_object().unwrap().clone()
}

/// The name of the file that the proxy runs by its own report.
async fn runs(stage: &Stage) -> Option<String> {
    let token = stage.credential_key("ivy", "admin-token").await;
    let url = format!("http://{ADDRESS}:{}/report", gomodcache::config::ADMIN_PORT);
    let report = reqwest::Client::new().get(url).bearer_auth(token).send().await.ok()?.text().await.ok()?;
    let report: Value = serde_json::from_str(&report).ok()?;
    files(stage).await.into_iter().find(|(_, text)| report["config"] == config_digest(text.as_str().unwrap())).map(|(name, _)| name)
}

async fn reason(stage: &Stage) -> String {
    stage.condition("ivy", "ConfigurationApplied").await.1
}

/// An operator that writes these versions leads, and its word on the cache is known.
async fn operator(stage: &Stage, versions: &str, written: &[&str]) -> Process {
    let operator = stage.new_operator().with(&["--config-versions", versions]).start(&format!("pod-{}", versions.replace(',', "-")));
    let names = async || files(stage).await.keys().cloned().collect::<Vec<_>>();
    stage.eventually(&format!("{written:?} is written"), async || names().await == written).await;
    operator
}

fn stop(operator: Process) {
    operator.signal("TERM");
    operator.ended();
}

#[tokio::test]
async fn an_operator_and_a_proxy_of_neighbouring_releases_understand_each_other_also_after_a_rollback() {
    let Some(stage) = stage_alone("versions").await else { return };
    let _stopped = stage.without_the_operator().await;
    let first = stage.new_operator().start("pod-first");
    stage.cache("ivy", &on_no_node(without_names())).await;
    await_children(&stage, "ivy").await;
    let pod = own_pod(&stage, "ivy").await;
    let mut proxy = Proxy::start(&stage, "ivy", ADDRESS).await;
    make_ready(&stage, &pod, ADDRESS).await;
    stage.eventually("both of one release", async || reason(&stage).await == "Applied").await;
    let generation = stage.get("Deployment", "ivy-proxy").await.unwrap().metadata.generation;
    stop(first);

    // The operator is upgraded first.
    let next = operator(&stage, NEXT, &["proxy.v2.yaml", "proxy.yaml"]).await;
    proxy.refresh(&stage, "ivy").await;
    stage.settle("ivy").await;
    assert_eq!((reason(&stage).await.as_str(), runs(&stage).await.unwrap().as_str()), ("Applied", "proxy.yaml"));
    // It has a change for the proxy, too.
    let mut spec = on_no_node(without_names());
    spec["privateModules"] = json!([{"pattern": "git.corp.example/*"}]);
    stage.cache("ivy", &spec).await;
    stage.eventually("a change is pending", async || reason(&stage).await == "Pending").await;
    proxy.refresh(&stage, "ivy").await;
    stage.eventually("a change reaches the older proxy", async || reason(&stage).await == "Applied").await;

    // Then the proxy, and the operator goes back.
    proxy.becomes_one_that_reads(&stage, NEXT).await;
    stage.eventually("the newer file", async || runs(&stage).await.as_deref() == Some("proxy.v2.yaml")).await;
    stage.eventually("both are upgraded", async || reason(&stage).await == "Applied").await;
    stop(next);
    let back = operator(&stage, N, &["proxy.yaml"]).await;
    proxy.refresh(&stage, "ivy").await;
    stage.eventually("the older file", async || runs(&stage).await.as_deref() == Some("proxy.yaml")).await;
    stage.settle("ivy").await;
    assert_eq!(reason(&stage).await, "Applied", "the operator alone was rolled back");
    stop(back);

    // Forward again, and the proxy goes back, with the last good configuration of the newer one on its volume.
    let next = operator(&stage, NEXT, &["proxy.v2.yaml", "proxy.yaml"]).await;
    proxy.refresh(&stage, "ivy").await;
    stage.eventually("the newer file", async || runs(&stage).await.as_deref() == Some("proxy.v2.yaml")).await;
    proxy.becomes_one_that_reads(&stage, N).await;
    stage.eventually("the older file", async || runs(&stage).await.as_deref() == Some("proxy.yaml")).await;
    stage.settle("ivy").await;
    assert_eq!(reason(&stage).await, "Applied", "the proxy alone was rolled back");
    stop(next);

    // Two releases apart is too far, and that is said.
    let after_next = operator(&stage, AFTER_NEXT, &["proxy.v2.yaml", "proxy.v3.yaml"]).await;
    stage.eventually("it is named", async || reason(&stage).await == "ConfigVersionUnsupported").await;
    let message = stage.condition("ivy", "ConfigurationApplied").await.2;
    assert!(message.contains("(2, 3)") && message.contains("use a proxy image"), "{message}");
    assert_eq!(stage.get("Deployment", "ivy-proxy").await.unwrap().metadata.generation, generation, "a format restarts no pod");
    stop(after_next);
}
