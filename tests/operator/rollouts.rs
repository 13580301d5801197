//! A new proxy image of the operator reaches caches a few at a time, and stops at the first that it does not suit.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::process::NewOperator;
use super::proxies::{Proxy, make_ready, on_no_node};
use super::stage::{Stage, stage, stage_alone};
use super::storage::provide;
use super::{await_children, without_names};

const OLD: &str = "registry.example/proxy:1";
const BROKEN: &str = "registry.example/proxy:2";
const GOOD: &str = "registry.example/proxy:3";

/// What every operator of these tests is started with; each says its image and pace besides.
async fn operator(stage: &Stage) -> NewOperator {
    // Caches of tests that ended would stand in the queue.
    stage.eventually("no other test has caches", async || stage.caches_of_others().await == 0).await;
    stage.new_operator()
}

async fn deployment(stage: &Stage, cache: &str) -> DynamicObject {
    stage.get("Deployment", &format!("{cache}-proxy")).await.unwrap()
}

fn image(deployment: &DynamicObject) -> String {
    deployment.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

/// Those of these caches whose Deployment is like that.
async fn those<'a>(stage: &Stage, caches: &[&'a str], is_like_that: impl Fn(&DynamicObject) -> bool) -> Vec<&'a str> {
    let mut found = Vec::new();
    for cache in caches {
        if is_like_that(&deployment(stage, cache).await) {
            found.push(*cache);
        }
    }
    found
}

async fn with_image<'a>(stage: &Stage, caches: &[&'a str], wanted: &str) -> Vec<&'a str> {
    those(stage, caches, |deployment| image(deployment) == wanted).await
}

async fn reason(stage: &Stage, cache: &str) -> String {
    stage.condition(cache, "RolledOut").await.1
}

/// Says what a kubelet would, of a pod with this image.
async fn run_pod(stage: &Stage, cache: &str, image: &str, address: &str) {
    let is_it =
        |pod: &DynamicObject| pod.labels()["app.kubernetes.io/instance"] == cache && pod.data["spec"]["containers"][0]["image"] == image;
    let pod = async || stage.list("Pod").await.into_iter().find(is_it).map(|pod| pod.name_any());
    stage.eventually(&format!("a pod of {cache} with {image}"), async || pod().await.is_some()).await;
    make_ready(stage, &pod().await.unwrap(), address).await;
}

/// Caches that serve, each with its proxy, under an operator of the old image.
async fn serving(stage: &Stage, new: &NewOperator, caches: &[(&str, &str)]) -> Vec<Proxy> {
    let operator = new.clone().with(&["--proxy-image", OLD]).start("pod-old");
    let mut proxies = Vec::new();
    for (cache, address) in caches {
        stage.cache(cache, &on_no_node(without_names())).await;
        await_children(stage, cache).await;
        run_pod(stage, cache, OLD, address).await;
        proxies.push(Proxy::start(stage, cache, address).await);
    }
    for (cache, _) in caches {
        stage.eventually("it serves", async || stage.condition(cache, "ConfigurationApplied").await.0 == "True").await;
        stage.eventually("it is rolled out", async || stage.condition(cache, "RolledOut").await.0 == "True").await;
    }
    operator.signal("TERM");
    operator.ended();
    proxies
}

fn is_available(deployment: &DynamicObject) -> bool {
    deployment.data["status"]["availableReplicas"] != Value::Null
}

async fn versions(stage: &Stage, caches: &[&str]) -> Vec<String> {
    let mut versions = Vec::new();
    for cache in caches {
        versions.extend(super::all_versions(stage, cache).await);
        versions.push(stage.get("GoModuleCache", cache).await.unwrap().resource_version().unwrap());
    }
    versions
}

#[tokio::test]
async fn a_new_image_stops_at_the_first_cache_that_does_not_become_ready_until_a_better_one_comes() {
    let Some(stage) = stage_alone("rollouts").await else { return };
    let _stopped = stage.without_the_operator().await;
    let new = operator(&stage).await;
    let caches = ["ash", "bay", "box"];
    let addresses = [("ash", "127.77.20.1"), ("bay", "127.77.20.2"), ("box", "127.77.20.3")];
    let _proxies = serving(&stage, &new, &[addresses[0], addresses[1], addresses[2], ("elm", "127.77.20.4"), ("fir", "127.77.20.5")]).await;
    let mut paused = on_no_node(without_names());
    paused["paused"] = json!(true);
    stage.cache("elm", &paused).await;
    let mut own = on_no_node(without_names());
    own["image"] = json!(OLD);
    stage.cache("fir", &own).await;

    // The first has all the time it wants, so that the others are sure to be seen waiting.
    let patient = new.clone().with(&["--proxy-image", BROKEN]).start("pod-patient");
    stage.eventually("one begins", async || with_image(&stage, &caches, BROKEN).await.len() == 1).await;
    let first = with_image(&stage, &caches, BROKEN).await[0];
    let others: Vec<&str> = caches.into_iter().filter(|cache| *cache != first).collect();
    for other in &others {
        stage.eventually("another waits", async || reason(&stage, other).await == "WaitingForTurn").await;
    }
    patient.signal("TERM");
    patient.ended();

    let broken = new.clone().with(&["--proxy-image", BROKEN, "--rollout-deadline", "4s"]).start("pod-broken");
    for (cache, expected) in [(first, "RolloutFailed"), (others[0], "RolloutStopped"), (others[1], "RolloutStopped")] {
        stage.eventually(&format!("{cache} says {expected}"), async || reason(&stage, cache).await == expected).await;
    }
    assert!(stage.condition(others[0], "Available").await.0 == "True", "who waits serves");
    assert_eq!(stage.status(others[0]).await["effective"]["image"], OLD);
    let metric = "gomodcache_operator_rollouts{reason=\"RolloutStopped\"}";
    stage.eventually("the metric says so", async || broken.metric(metric).await == Some(2.0)).await;

    // Neither new caches nor what users change wait for anything, and neither take part.
    stage.cache("yew", &on_no_node(without_names())).await;
    await_children(&stage, "yew").await;
    assert_eq!(image(&deployment(&stage, "yew").await), BROKEN);
    let mut changed = on_no_node(without_names());
    changed["podTemplate"]["labels"] = json!({"team": "a"});
    stage.cache(others[0], &changed).await;
    let label = async || deployment(&stage, others[0]).await.data["spec"]["template"]["metadata"]["labels"]["team"] == "a";
    stage.eventually("a change by the user is carried out", label).await;
    let address = addresses.iter().find(|(cache, _)| *cache == others[0]).unwrap().1;
    stage.eventually("the old pod is gone", async || !is_available(&deployment(&stage, others[0]).await)).await;
    run_pod(&stage, others[0], OLD, address).await;
    assert_eq!(with_image(&stage, &["elm", "fir", others[0], others[1]], OLD).await.len(), 4);
    assert_eq!((reason(&stage, "fir").await.as_str(), reason(&stage, "elm").await.as_str()), ("Current", "Paused"));

    // A new leader knows all of it, and has nothing to write.
    for cache in &caches {
        stage.settle(cache).await;
    }
    let before = versions(&stage, &caches).await;
    broken.signal("KILL");
    broken.ended();
    let again = new.clone().with(&["--proxy-image", BROKEN, "--rollout-deadline", "4s"]).start("pod-again");
    stage.eventually("it leads", async || stage.leader().await == "pod-again").await;
    stage.eventually("it knows what stopped", async || again.metric(metric).await == Some(2.0)).await;
    assert_eq!(versions(&stage, &caches).await, before);
    again.signal("TERM");
    again.ended();

    // The one that failed gets the better image at once, and has to prove it before the others follow.
    let _good = new.with(&["--proxy-image", GOOD]).start("pod-good");
    stage.eventually("the failed one is first", async || with_image(&stage, &caches, GOOD).await == [first]).await;
    let mut done = Vec::new();
    while done.len() < caches.len() {
        let next = async || with_image(&stage, &caches, GOOD).await.into_iter().find(|cache| !done.contains(cache));
        stage.eventually("another begins", async || next().await.is_some()).await;
        let cache = next().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(with_image(&stage, &caches, GOOD).await.len(), done.len() + 1, "one at a time");
        run_pod(&stage, cache, GOOD, addresses.iter().find(|(name, _)| *name == cache).unwrap().1).await;
        stage.eventually("it is rolled out", async || reason(&stage, cache).await == "Current").await;
        done.push(cache);
    }
    assert_eq!(done[0], first);
    for cache in caches {
        assert!(!deployment(&stage, cache).await.labels().contains_key("gomodcache.io/rolling-since"), "{cache} still has its turn");
        stage.eventually("nothing is stopped", async || stage.status(cache).await["effective"]["image"] == GOOD).await;
    }
}

#[tokio::test]
async fn a_cache_is_not_ready_with_its_old_pods_while_its_user_asks_for_others() {
    let Some(stage) = stage("asked").await else { return };
    let class = format!("many-{}", stage.namespace);
    stage
        .apply(&json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class}, "provisioner": "tests.example/none"}))
        .await;
    let spec = |image: &str| {
        let mut spec = on_no_node(without_names());
        spec["image"] = json!(image);
        spec["storage"] = json!({"size": "1Gi", "storageClassName": class, "accessMode": "ReadWriteMany"});
        spec
    };
    stage.cache("fig", &spec(OLD)).await;
    await_children(&stage, "fig").await;
    let volume = provide(&stage, "fig", &class, "1Gi").await;
    let address = "127.77.20.21";
    run_pod(&stage, "fig", OLD, address).await;
    let _proxy = Proxy::start(&stage, "fig", address).await;
    stage.eventually("it is ready", async || stage.condition("fig", "Ready").await.0 == "True").await;

    // At no moment is it ready in the new generation, though the old pod serves all the while.
    let generation = stage.cache("fig", &spec(BROKEN)).await.metadata.generation;
    let observed = async || {
        let status = stage.status("fig").await;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let is_new = |condition: &Value| condition["observedGeneration"].as_i64() == generation;
        let is_ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True" && is_new(c));
        assert!(!is_ready, "ready before its new pods: {status}");
        conditions.into_iter().find(|c| c["type"] == "RolledOut" && is_new(c)).unwrap_or_default()
    };
    let half = "1 of 1 pod(s) are new, and 1 old one(s) are left";
    stage.eventually("half-way", async || observed().await["message"].as_str().is_some_and(|message| message.contains(half))).await;
    assert_eq!(observed().await["reason"], "RollingOut");
    let (ready, available) = (stage.condition("fig", "Ready").await, stage.condition("fig", "Available").await);
    assert_eq!((ready.0.as_str(), ready.1.as_str(), available.0.as_str()), ("False", "RollingOut", "True"));

    run_pod(&stage, "fig", BROKEN, address).await;
    stage.eventually("it has its new pods", async || reason(&stage, "fig").await == "Current").await;
    stage.eventually("it is ready again", async || stage.condition("fig", "Ready").await.0 == "True").await;
    stage.delete("PersistentVolume", &volume).await;
    stage.delete("StorageClass", &class).await;
}

/// As an earlier release would have made the pods: with another time to end. Without a mark, as one that knew of none.
async fn as_of_an_earlier_release(stage: &Stage, cache: &str, mark: &Value) {
    let patch = json!({
        "metadata": {"labels": {"gomodcache.io/pods-made": mark}},
        "spec": {"template": {"spec": {"terminationGracePeriodSeconds": EARLIER}}},
    });
    stage.patch("Deployment", &format!("{cache}-proxy"), &patch).await;
}

const EARLIER: i64 = 31;

async fn of_this_release<'a>(stage: &Stage, caches: &[&'a str]) -> Vec<&'a str> {
    those(stage, caches, |deployment| deployment.data["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] != EARLIER).await
}

#[tokio::test]
async fn pods_that_another_release_makes_differently_come_by_turns_and_a_user_waits_for_none() {
    let Some(stage) = stage_alone("templates").await else { return };
    let _stopped = stage.without_the_operator().await;
    let new = operator(&stage).await;
    let (caches, addresses) = (["oak", "pea", "rue"], ["127.77.20.11", "127.77.20.12", "127.77.20.13"]);
    let _proxies = serving(&stage, &new, &[(caches[0], addresses[0]), (caches[1], addresses[1]), (caches[2], addresses[2])]).await;
    let run = async |cache: &str| {
        stage.eventually("the old pod is gone", async || !is_available(&deployment(&stage, cache).await)).await;
        run_pod(&stage, cache, OLD, addresses[caches.iter().position(|name| *name == cache).unwrap()]).await;
        stage.eventually("it serves", async || is_available(&deployment(&stage, cache).await)).await;
    };
    for (cache, mark) in caches.into_iter().zip([json!("earlier"), json!("earlier"), Value::Null]) {
        as_of_an_earlier_release(&stage, cache, &mark).await;
        run(cache).await;
    }

    let release = new.clone().with(&["--proxy-image", OLD, "--rollout-deadline", "4s"]).start("pod-release");
    stage.eventually("one begins", async || of_this_release(&stage, &caches).await.len() == 1).await;
    let first = of_this_release(&stage, &caches).await[0];
    let others: Vec<&str> = caches.into_iter().filter(|cache| *cache != first).collect();
    for (cache, expected) in [(first, "RolloutFailed"), (others[0], "RolloutStopped"), (others[1], "RolloutStopped")] {
        stage.eventually(&format!("{cache} says {expected}"), async || reason(&stage, cache).await == expected).await;
    }
    assert_eq!(of_this_release(&stage, &caches).await, [first]);
    for other in &others {
        stage.settle(other).await;
    }
    let before = versions(&stage, &others).await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(versions(&stage, &others).await, before, "who waits is left alone");

    // What a running pod takes does not take the template along; what a user asks of the pods does.
    let mut changed = on_no_node(without_names());
    changed["privateModules"] = json!([{"pattern": "git.corp.example/*"}]);
    stage.cache(others[0], &changed).await;
    stage.eventually("a hot change", async || super::proxies::config_of(&stage, others[0]).await.contains("git.corp.example")).await;
    stage.settle(others[0]).await;
    assert_eq!(of_this_release(&stage, &caches).await, [first]);
    changed["podTemplate"]["labels"] = json!({"team": "a"});
    stage.cache(others[0], &changed).await;
    let label = async || deployment(&stage, others[0]).await.data["spec"]["template"]["metadata"]["labels"]["team"] == "a";
    stage.eventually("a change by the user is carried out", label).await;
    assert_eq!(of_this_release(&stage, &others).await, [others[0]]);

    // Once the first is ready, the last has its turn.
    assert_eq!(of_this_release(&stage, &[others[1]]).await.len(), 0);
    run(others[0]).await;
    run(first).await;
    stage.eventually("the last begins", async || of_this_release(&stage, &caches).await.len() == 3).await;
    run(others[1]).await;
    for cache in caches {
        stage.eventually("all are rolled out", async || reason(&stage, cache).await == "Current").await;
    }
    release.signal("TERM");
    release.ended();

    // Pods that the API server refuses, here for an image without a name, fail in their time too, and are no reason to write again at
    // each look.
    let _refused = new.with(&["--proxy-image", "", "--rollout-deadline", "4s"]).start("pod-refused");
    let reasons = async || {
        let mut reasons = Vec::new();
        for cache in caches {
            reasons.push(reason(&stage, cache).await);
        }
        reasons.sort();
        reasons
    };
    stage
        .eventually("one has failed, and the others have stopped", async || {
            reasons().await == ["RolloutFailed", "RolloutStopped", "RolloutStopped"]
        })
        .await;
    for cache in caches {
        stage.settle(cache).await;
    }
    let before = versions(&stage, &caches).await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(versions(&stage, &caches).await, before);
}
