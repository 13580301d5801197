//! Random walks over the spec: A, then anything, then A again ends where A alone ends; and what is invalid is said and got over.
#![allow(clippy::print_stdout, reason = "the seeds are for whoever repeats a walk")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use super::fixpoint::strip;
use super::stage::{Stage, stage};
use super::storage::provide;
use super::{dns, secret};

/// The largest claim of a walk, and the only field that can't go back.
const LARGEST: &str = "3Gi";

/// splitmix64, so that a seed is a walk on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Every field that may change, and what it may be; null is its absence.
fn fields(guest: &str) -> Vec<(&'static str, Vec<Value>)> {
    let upstream = |url: &str| json!({"url": url});
    let with = |url: &str, key: &str, value: Value| json!({"url": url, key: value});
    let moved = "https://modules.corp.example/go";
    let corp = |name: &str| json!({ "name": name });
    vec![
        (
            "/upstreams",
            vec![
                json!([upstream("https://203.0.113.7/go")]),
                json!([upstream(moved), upstream("https://203.0.113.9/go")]),
                json!([with(moved, "credentialsRef", corp("corp"))]),
                json!([with(moved, "credentialsRef", corp("other"))]),
                json!([with(moved, "caBundleRef", json!({"name": "corp-ca", "key": "ca.crt"}))]),
                json!([with("http://10.1.2.3:8080/go", "internal", json!(true))]),
                Value::Null,
            ],
        ),
        ("/checksumDatabase/mode", vec![json!("Verify"), json!("Relay"), json!("Disabled")]),
        ("/checksumDatabase/whenUnavailable", vec![json!("Serve"), json!("Refuse")]),
        (
            "/privateModules",
            vec![json!([{"pattern": "git.corp.example/*"}]), json!([{"pattern": "a.example"}, {"pattern": "b.example"}]), Value::Null],
        ),
        ("/policy", vec![json!({"deny": ["evil.example/*"]}), json!({"minimumReleaseAge": "72h"}), Value::Null]),
        ("/lookAhead", vec![json!("All"), json!("Certain"), json!("Disabled")]),
        ("/storage/size", vec![json!("1Gi"), json!("2Gi"), json!(LARGEST)]),
        ("/storage/deletionPolicy", vec![json!("Retain"), json!("Delete")]),
        ("/storage/evictAbovePercent", vec![json!(50), json!(90)]),
        ("/network/ingress", vec![json!({"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}), Value::Null]),
        ("/network/httpProxy", vec![json!({"url": "http://203.0.113.20:3128", "noProxy": [".corp.example"]}), Value::Null, Value::Null]),
        ("/clients", vec![json!({"fallback": "DirectOnError"}), json!({"publishTo": {"namespaces": [guest]}}), Value::Null]),
        ("/replicas", vec![json!(1), json!(2), json!(3)]),
        ("/image", vec![json!("gomodcache:other"), Value::Null]),
        ("/podTemplate/resources", vec![json!({"requests": {"memory": "64Mi"}}), json!({"limits": {"memory": "1Gi"}}), Value::Null]),
        ("/podTemplate/labels", vec![json!({"team": "a"}), json!({"team": "b", "tests.example/x": "y"}), Value::Null]),
        ("/podTemplate/annotations", vec![json!({"tests.example/a": "1"}), Value::Null]),
        ("/podTemplate/tolerations", vec![json!([{"key": "tests.example/t", "operator": "Exists"}]), Value::Null]),
        ("/paused", vec![json!(true), Value::Null, Value::Null]),
    ]
}

/// What the API server refuses.
fn refused() -> Vec<(&'static str, Value)> {
    vec![
        ("/storage/size", json!("many")),
        ("/storage/storageClassName", json!("another")),
        ("/storage/accessMode", json!("ReadWriteOnce")),
        ("/replicas", json!(0)),
        ("/upstreams", json!([{"url": "ftp://modules.corp.example"}])),
        ("/privateModules", json!([{"pattern": "a//b"}])),
        ("/podTemplate/labels", json!({"app.kubernetes.io/name": "x"})),
    ]
}

/// What is stored, and the condition and reason that name it.
fn named() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let moved = "https://modules.corp.example/go";
    vec![
        ("/upstreams", json!([{"url": "https://203.0.113.7:99999/go"}]), "Ready", "InvalidSpec"),
        ("/upstreams", json!([{"url": moved, "credentialsRef": {"name": "absent"}}]), "CredentialsReady", "SecretMissing"),
        ("/upstreams", json!([{"url": moved, "caBundleRef": {"name": "absent", "key": "ca.crt"}}]), "CredentialsReady", "CABundleMissing"),
        ("/upstreams", json!([{"url": "https://nowhere.corp.example/go"}]), "EgressReady", "HostNotResolved"),
        ("/podTemplate/nodeSelector", json!({"not a label": "x"}), "Ready", "ChildRefused"),
    ]
}

fn set(spec: &mut Value, path: &str, value: Value) {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let mut place = spec;
    for step in parent.split('/').filter(|step| !step.is_empty()) {
        place = place.as_object_mut().unwrap().entry(step).or_insert_with(|| json!({}));
    }
    if value.is_null() {
        place.as_object_mut().unwrap().remove(key);
    } else {
        place[key] = value;
    }
}

fn change(dice: &mut Dice, spec: &mut Value, guest: &str) {
    for _ in 0..=dice.below(3) {
        let (path, values) = dice.one_of(&fields(guest)).clone();
        set(spec, path, dice.one_of(&values).clone());
    }
}

/// All of one cache without what differs from run to run.
async fn snapshot(stage: &Stage, cache: &str) -> BTreeMap<String, Value> {
    const KINDS: [&str; 9] = [
        "GoModuleCache",
        "ServiceAccount",
        "ConfigMap",
        "Secret",
        "Service",
        "PersistentVolumeClaim",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
    ];
    let mut objects = BTreeMap::new();
    for kind in KINDS {
        for object in stage.list(kind).await {
            let meta = &object.metadata;
            let name = meta.name.clone().unwrap_or_default();
            let is_of_it =
                meta.labels.as_ref().is_some_and(|labels| labels.get("app.kubernetes.io/instance").is_some_and(|of| of == cache));
            if !is_of_it && (kind != "GoModuleCache" || name != cache) {
                continue;
            }
            let owners: Vec<Value> =
                meta.owner_references.iter().flatten().map(|owner| json!([owner.kind, owner.name, owner.controller])).collect();
            let mut data = object.data.clone();
            strip(&mut data);
            if kind == "GoModuleCache" {
                // No pod becomes ready here, so a roll-out on the way leaves one more, and never ends.
                data["status"].as_object_mut().unwrap().remove("replicas");
                data["status"]["conditions"].as_array_mut().unwrap().retain(|condition| condition["type"] != "RolledOut");
            } else {
                data.as_object_mut().unwrap().remove("status");
            }
            // The names are in this digest.
            let labels: BTreeMap<_, _> = meta.labels.iter().flatten().filter(|(key, _)| *key != "gomodcache.io/pods-made").collect();
            let text = json!({"labels": labels, "owners": owners, "data": data, "deleting": meta.deletion_timestamp.is_some()});
            let text = text.to_string().replace(cache, "CACHE");
            objects.insert(format!("{kind} {name}").replace(cache, "CACHE"), serde_json::from_str(&text).unwrap());
        }
    }
    objects
}

async fn is_observed(stage: &Stage, cache: &str) -> bool {
    let object = stage.get("GoModuleCache", cache).await.unwrap();
    object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation
}

async fn observed(stage: &Stage, cache: &str) {
    stage.eventually(&format!("the spec of {cache} is carried out"), async || is_observed(stage, cache).await).await;
}

/// To the largest claim and back to A, for those that walked and for those that did not.
async fn end(stage: &Stage, cache: &str, a: &Value) {
    let mut large = a.clone();
    set(&mut large, "/storage/size", json!(LARGEST));
    stage.cache(cache, &large).await;
    let grown = async || {
        stage.get("PersistentVolumeClaim", &format!("{cache}-proxy")).await.unwrap().data["spec"]["resources"]["requests"]["storage"]
            == LARGEST
    };
    stage.eventually(&format!("the claim of {cache} has grown"), grown).await;
    stage.cache(cache, a).await;
    observed(stage, cache).await;
}

/// An invalid spec is refused, and nothing happens, or it is stored, and a condition names what is wrong.
async fn stumble(stage: &Stage, dice: &mut Dice, cache: &str, a: &Value) -> String {
    let mut spec = a.clone();
    if dice.below(2) == 0 {
        let (path, value) = dice.one_of(&refused()).clone();
        set(&mut spec, path, value);
        let refusal = stage.try_cache(cache, &spec).await.expect_err(&format!("{spec} was taken"));
        return format!("refused: {}", refusal.lines().next().unwrap_or_default());
    }
    let (path, value, condition, reason) = dice.one_of(&named()).clone();
    // Through a proxy of its own, a cache needs no upstream's address.
    set(&mut spec, "/network", Value::Null);
    set(&mut spec, path, value);
    stage.cache(cache, &spec).await;
    let said = async || {
        let (status, now, message) = stage.condition(cache, condition).await;
        (status.as_str(), now.as_str()) == ("False", reason) && !message.is_empty()
    };
    stage.eventually(&format!("{condition} of {cache} says {reason}"), said).await;
    reason.to_owned()
}

async fn walk(stage: &Stage, seed: u64, steps: u64, class: &str, guest: &str) {
    let mut dice = Dice(seed);
    let mut a = json!({"storage": {"size": "1Gi", "storageClassName": class, "accessMode": "ReadWriteMany"}});
    for _ in 0..4 {
        change(&mut dice, &mut a, guest);
    }
    set(&mut a, "/paused", Value::Null);
    set(&mut a, "/storage/size", json!("1Gi"));
    println!("seed {seed}: A is {a}");
    let (alone, walker) = (format!("alone-{seed}"), format!("walker-{seed}"));
    let mut volumes = Vec::new();
    for cache in [&alone, &walker] {
        stage.cache(cache, &a).await;
        volumes.push(provide(stage, cache, class, "1Gi").await);
        stage.eventually(&format!("{cache} has its volume"), async || stage.condition(cache, "StorageReady").await.1 == "Bound").await;
    }
    let mut spec = a.clone();
    for step in 1..=steps {
        if step % 4 == 0 {
            println!("seed {seed}, step {step}: {}", stumble(stage, &mut dice, &walker, &a).await);
        } else {
            change(&mut dice, &mut spec, guest);
            println!("seed {seed}, step {step}: {spec}");
            stage.cache(&walker, &spec).await;
            tokio::time::sleep(Duration::from_millis(u64::try_from(dice.below(1200)).unwrap())).await;
        }
    }
    for cache in [&alone, &walker] {
        end(stage, cache, &a).await;
    }
    let (mut there, mut here) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..120 {
        (there, here) = (snapshot(stage, &alone).await, snapshot(stage, &walker).await);
        if there == here {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for (name, object) in there.iter().filter(|(name, object)| here.get(*name) != Some(object)) {
        eprintln!("{name} should be {object}\n and is {:?}", here.get(name).map(Value::to_string));
    }
    assert_eq!(there, here, "seed {seed}: the way shows in the end");
    for volume in volumes {
        stage.delete("PersistentVolume", &volume).await;
    }
}

/// WALK_SEEDS walks of WALK_STEPS; the long form is in `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_through_specs_ends_where_its_last_spec_alone_ends() {
    let Some(stage) = stage("walk").await else { return };
    let number = |variable: &str, default| std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"));
    let (seeds, steps) = (number("WALK_SEEDS", 2_u64), number("WALK_STEPS", 12_u64));
    dns::set("modules.corp.example", "203.0.113.7");
    let class = format!("walk-{}", stage.namespace);
    stage
        .apply(&json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
            "provisioner": "tests.example/none", "allowVolumeExpansion": true}))
        .await;
    let hosts = json!({"gomodcache.io/hosts": "modules.corp.example"});
    let mut other = secret(&hosts, "hunter3");
    other["metadata"]["name"] = json!("other");
    stage.apply(&secret(&hosts, "hunter2")).await;
    stage.apply(&other).await;
    stage.apply(&super::ca_bundles::bundle()).await;
    // It asks for the environment of one of them.
    let (guest, config_maps) = stage.guest(&json!({"gomodcache.io/env-from": format!("{}.walker-1", stage.namespace)})).await;

    futures::stream::iter(1..=seeds).for_each_concurrent(4, |seed| walk(&stage, seed, steps, &class, &guest)).await;

    let lists = stage.get("GoModuleCache", "walker-1").await.unwrap().data["spec"]["clients"]["publishTo"].is_object();
    let published = async || config_maps.get_opt("walker-1-env").await.unwrap().is_some() == lists;
    stage.eventually("what is published is what the last spec lists", published).await;
    println!("walks: {seeds} seeds of {steps} steps");
    stage.delete("StorageClass", &class).await;
}
