//! The same end whatever came in between: an operator that is killed after each of its writes, and one whose API server fails.
#![allow(clippy::print_stdout, reason = "the figures are for `make soak`")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::meddler::Meddler;
use super::stage::{Stage, stage_alone};
use super::{account, dns};

const CACHE: &str = "moss";

fn first() -> Value {
    json!({"upstreams": [{"url": "https://modules.corp.example/go", "credentialsRef": {"name": "corp"}}, {"url": "https://203.0.113.7/go"}],
           "storage": {"size": "1Gi", "storageClassName": "absent"}})
}

fn second() -> Value {
    json!({"upstreams": [{"url": "https://203.0.113.9/go", "credentialsRef": {"name": "corp"}}], "privateModules": [{"pattern": "git.corp.example"}],
           "storage": {"size": "1Gi", "storageClassName": "absent", "deletionPolicy": "Delete"},
           "podTemplate": {"resources": {"requests": {"memory": "64Mi"}}}})
}

/// What a user does. After each step the operator's writes are counted, and its end state is compared.
const STEPS: [&str; 4] = ["create", "update", "delete", "create again"];

async fn take(stage: &Stage, namespace: &str, step: &str) {
    match step {
        "create" | "create again" => stage.cache_in(namespace, CACHE, &first()).await,
        "update" => stage.cache_in(namespace, CACHE, &second()).await,
        _ => stage.delete_in(namespace, "GoModuleCache", CACHE).await,
    }
}

/// All of ours in the namespace without what differs from run to run.
async fn snapshot(stage: &Stage, namespace: &str) -> BTreeMap<String, Value> {
    const KINDS: [&str; 8] =
        ["GoModuleCache", "ServiceAccount", "ConfigMap", "Secret", "Service", "PersistentVolumeClaim", "Deployment", "NetworkPolicy"];
    let mut objects = BTreeMap::new();
    for kind in KINDS {
        for object in stage.list_in(namespace, kind).await {
            let meta = &object.metadata;
            if kind != "GoModuleCache" && meta.labels.as_ref().is_none_or(|labels| labels.get("app.kubernetes.io/managed-by").is_none()) {
                continue;
            }
            let name = format!("{kind} {}", meta.name.clone().unwrap_or_default());
            let owners: Vec<Value> =
                meta.owner_references.iter().flatten().map(|owner| json!([owner.kind, owner.name, owner.controller])).collect();
            let mut data = object.data.clone();
            strip(&mut data);
            if kind != "GoModuleCache" {
                data.as_object_mut().unwrap().remove("status");
            }
            let text =
                json!({"labels": meta.labels, "owners": owners, "data": data, "deleting": meta.deletion_timestamp.is_some()}).to_string();
            let text = text.replace(namespace, "NAMESPACE").replace(meta.uid.as_deref().unwrap_or("none"), "UID");
            objects.insert(name, serde_json::from_str(&text).unwrap());
        }
    }
    objects
}

/// Takes out times, addresses and what is drawn by lot.
pub(crate) fn strip(value: &mut Value) {
    const RANDOM: [&str; 8] = [
        "lastTransitionTime",
        "lastChanged",
        "clusterIP",
        "clusterIPs",
        "generation",
        "admin-token",
        "observedGeneration",
        "gomodcache.io/applied",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !RANDOM.contains(&key.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The status is about the object as it is now, where there is one.
async fn is_observed(stage: &Stage, namespace: &str) -> bool {
    let caches = stage.list_in(namespace, "GoModuleCache").await;
    caches.iter().all(|cache| cache.data["status"]["observedGeneration"].as_i64() == cache.metadata.generation)
}

/// A namespace with what the user has before, a proxy and how to run an operator behind it.
async fn world(stage: &Stage, name: &str, seed: u64) -> (String, Meddler, super::process::NewOperator) {
    let namespace = format!("{}-{name}", stage.namespace);
    stage.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await;
    account::grant_the_lease(stage.client(), &namespace).await;
    let secret = super::secret(&json!({"gomodcache.io/hosts": "modules.corp.example, 203.0.113.9"}), "hunter2");
    stage.apply_in(&namespace, &secret).await;
    let proxy = Meddler::start(stage.account().config(), &namespace, seed).await;
    let operator = stage.new_operator().behind(&proxy.kubeconfig, &namespace).with_lease("2s", "1500ms", "300ms");
    (namespace, proxy, operator)
}

async fn await_end(stage: &Stage, namespace: &str, end: &BTreeMap<String, Value>, what: &str) {
    // Faults go on all the while, and after each the operator waits longer, up to a minute.
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let now = snapshot(stage, namespace).await;
        if now == *end && is_observed(stage, namespace).await {
            return;
        }
        if Instant::now() > deadline {
            for (name, object) in end.iter().filter(|(name, object)| now.get(*name) != Some(object)) {
                eprintln!("{name} should be {object}\n and is {:?}", now.get(name).map(Value::to_string));
            }
            panic!("{namespace}: {what}: not the end of an undisturbed run; {} objects and not {}", now.len(), end.len());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The end of each step of an undisturbed run, and the operator's writes in it; for all tests the same.
async fn undisturbed(stage: &Stage) -> &'static [(BTreeMap<String, Value>, usize)] {
    static ENDS: OnceCell<Vec<(BTreeMap<String, Value>, usize)>> = OnceCell::const_new();
    ENDS.get_or_init(|| run_undisturbed(stage)).await
}

async fn run_undisturbed(stage: &Stage) -> Vec<(BTreeMap<String, Value>, usize)> {
    let (namespace, proxy, operator) = world(stage, "quiet", 0).await;
    let _operator = operator.start(&namespace);
    let mut ends = Vec::new();
    for step in STEPS {
        take(stage, &namespace, step).await;
        let expected = if step == "delete" { 0 } else { 10 };
        let (mut last, mut since) = (snapshot(stage, &namespace).await, Instant::now());
        // In a cluster that is a moment old the garbage collector needs half a minute to learn of the kind of the owners.
        let deadline = Instant::now() + Duration::from_secs(90);
        while since.elapsed() < Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = snapshot(stage, &namespace).await;
            let is_late = Instant::now() > deadline;
            if now != last || !is_observed(stage, &namespace).await || (now.len() != expected && !is_late) {
                (last, since) = (now, Instant::now());
            }
        }
        assert_eq!(last.len(), expected, "{step}: {:?}", last.keys());
        ends.push((last, proxy.writes()));
    }
    ends
}

/// How often it was killed: how many writes a step takes differs by one or two with what the cluster's own controllers do.
async fn killed_at(stage: &Stage, ends: &[(BTreeMap<String, Value>, usize)], k: usize) -> usize {
    let (namespace, proxy, operator) = world(stage, &format!("k{k}"), 0).await;
    let (mut process, mut kills) = (operator.start(&namespace), 0);
    for (step, (end, _)) in STEPS.iter().zip(ends) {
        proxy.kill_at(&process, k);
        take(stage, &namespace, step).await;
        let is_end = async || is_observed(stage, &namespace).await && snapshot(stage, &namespace).await == *end;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !process.has_ended() && Instant::now() < deadline && !is_end().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        proxy.kill_at(&process, 0);
        if process.has_ended() {
            kills += 1;
            process = operator.start(&namespace);
        }
        await_end(stage, &namespace, end, &format!("{step}, killed at write {k}")).await;
    }
    stage.delete_in("", "Namespace", &namespace).await;
    kills
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_killed_after_any_of_its_writes_ends_where_an_undisturbed_one_does() {
    let Some(stage) = stage_alone("crash").await else { return };
    let _stopped = stage.without_the_operator().await;
    dns::set("modules.corp.example", "203.0.113.7");
    let ends = undisturbed(&stage).await;
    let writes: Vec<usize> = ends.iter().map(|(_, writes)| *writes).collect();
    println!("writes of an undisturbed run: {STEPS:?} {writes:?}");
    assert!((10..30).contains(&writes[0]) && writes[1] >= 3 && writes[3] >= 9, "{writes:?}");
    // In the short form after every second write; in the long one, which sets the seeds, after each.
    let stride = if std::env::var_os("FAULT_SEEDS").is_some() { 1 } else { 2 };
    let runs = (1..=*writes.iter().max().unwrap()).step_by(stride).map(|k| killed_at(&stage, ends, k));
    let kills: usize = futures::stream::iter(runs).buffer_unordered(6).collect::<Vec<usize>>().await.iter().sum();
    println!("killed {kills} times");
    assert!(kills * stride + 8 >= writes.iter().sum(), "killed {kills} times at {writes:?} writes");
}

async fn with_faults(stage: &Stage, ends: &[(BTreeMap<String, Value>, usize)], seed: u64) -> (usize, Meddler) {
    let (namespace, proxy, operator) = world(stage, &format!("f{seed}"), seed.wrapping_mul(0x5851_f42d_4c95_7f2d)).await;
    let mut most = 0;
    proxy.play_faults();
    let _operator = operator.start(&namespace);
    for (step, (end, writes)) in STEPS.iter().zip(ends) {
        take(stage, &namespace, step).await;
        await_end(stage, &namespace, end, &format!("{step}, seed {seed}")).await;
        let count = proxy.writes();
        most = most.max(count);
        assert!(count <= 5 * writes + 30, "{step}, seed {seed}: {count} writes in place of {writes}");
    }
    stage.delete_in("", "Namespace", &namespace).await;
    (most, proxy)
}

/// FAULT_SEEDS runs; the long form is in `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_api_server_changes_the_way_and_not_the_end() {
    let Some(stage) = stage_alone("faulty").await else { return };
    let _stopped = stage.without_the_operator().await;
    dns::set("modules.corp.example", "203.0.113.7");
    let seeds: u64 = std::env::var("FAULT_SEEDS").ok().map_or(4, |seeds| seeds.parse().expect("FAULT_SEEDS is a number"));
    let ends = undisturbed(&stage).await;
    let runs = (1..=seeds).map(|seed| with_faults(&stage, ends, seed));
    let runs: Vec<(usize, Meddler)> = futures::stream::iter(runs).buffer_unordered(6).collect().await;
    let mut played = BTreeMap::new();
    for (fault, count) in runs.iter().flat_map(|(_, proxy)| proxy.played()) {
        *played.entry(fault).or_insert(0) += count;
    }
    println!("at most {} writes in a step; faults: {played:?}", runs.iter().map(|(most, _)| *most).max().unwrap_or(0));
    assert!(played.len() >= 8, "{played:?}");
}
