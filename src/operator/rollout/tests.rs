#![allow(clippy::unwrap_used)]

use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;

const OLD: &str = "registry.example/proxy:1";
const NEW: &str = "registry.example/proxy:2";
const NOW: i64 = 1_000_000;

fn deployment(cache: &str, image: &str, changes: &Value) -> Deployment {
    let mut object = json!({
        "metadata": {
            "name": format!("{cache}-proxy"), "namespace": "shop", "uid": cache, "generation": 2,
            "labels": {IMAGE_FROM: IMAGE_FROM_OPERATOR, PODS_ASKED: "asked", PODS_MADE: "made"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "GoModuleCache", "name": cache, "uid": "u", "controller": true}],
        },
        "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": [{"name": "proxy", "image": image}]}}},
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
    });
    json_patch(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn json_patch(object: &mut Value, changes: &Value) {
    match (object, changes) {
        (Value::Object(object), Value::Object(changes)) => {
            changes.iter().for_each(|(key, change)| json_patch(object.entry(key).or_insert(Value::Null), change));
            object.retain(|_, value| !value.is_null());
        }
        (object, changes) => *object = changes.clone(),
    }
}

fn since(seconds: i64) -> Value {
    json!({"metadata": {"labels": {ROLLING_SINCE: seconds.to_string()}}})
}

fn made(by: &str) -> Value {
    json!({"metadata": {"labels": {PODS_MADE: by}}})
}

/// What becomes of a cache with the old image among these.
fn queue(rollouts: &Rollouts, others: &[Deployment]) -> Option<Turn> {
    let (store, mut writer) = reflector::store();
    let own = deployment("own", OLD, &json!({}));
    for deployment in others.iter().chain([&own]) {
        writer.apply_watcher_event(&Event::Apply(deployment.clone()));
    }
    rollouts.queue(&store, &own, NOW, true)
}

fn rollouts(at_once: usize) -> Rollouts {
    Rollouts::new(RolloutLimits { at_once, deadline: Duration::from_secs(60) })
}

#[test]
fn no_more_have_their_turn_than_the_pace_says() {
    let rolling = |cache: &str| deployment(cache, NEW, &since(NOW - 5));
    let waiting = Some(Turn::Waiting { stopped: false });
    assert_eq!(queue(&rollouts(1), &[deployment("a", NEW, &json!({}))]), None, "it has had its turn");
    assert_eq!(queue(&rollouts(1), &[rolling("a")]), waiting);
    assert_eq!(queue(&rollouts(2), &[rolling("a")]), None);
    assert_eq!(queue(&rollouts(2), &[rolling("a"), rolling("b")]), waiting);
}

#[test]
fn one_that_is_late_stops_all_also_where_others_have_room() {
    let late = deployment("a", NEW, &since(NOW - 61));
    assert_eq!(queue(&rollouts(9), &[late]), Some(Turn::Waiting { stopped: true }));
}

#[test]
fn a_turn_counts_before_the_watch_shows_it_and_not_twice() {
    let rollouts = rollouts(1);
    rollouts.memory.lock().unwrap().given.insert("a".to_owned(), pods(&deployment("a", OLD, &json!({}))));
    let waiting = Some(Turn::Waiting { stopped: false });
    assert_eq!(queue(&rollouts, &[deployment("a", OLD, &json!({}))]), waiting);
    assert_eq!(queue(&rollouts, &[deployment("a", NEW, &since(NOW))]), waiting);
    assert_eq!(queue(&rollouts, &[deployment("a", NEW, &json!({}))]), None);
    // It has its turn now; one that was deleted in between has none.
    assert_eq!(rollouts.memory.lock().unwrap().given.keys().collect::<Vec<_>>(), ["own"]);
}

#[test]
fn a_turn_for_a_pod_template_counts_before_the_watch_shows_it_too() {
    let rollouts = rollouts(1);
    let before = deployment("a", NEW, &made("earlier"));
    rollouts.memory.lock().unwrap().given.insert("a".to_owned(), pods(&before));
    assert_eq!(queue(&rollouts, &[before]), Some(Turn::Waiting { stopped: false }));
    assert_eq!(queue(&rollouts, &[deployment("a", NEW, &made("made"))]), None, "it has had it, unseen");
}

#[test]
fn neither_a_paused_cache_nor_what_only_bears_the_label_holds_up_others() {
    let rollouts = rollouts(1);
    let paused = deployment("a", NEW, &since(NOW - 61));
    rollouts.note_pause(&paused, true);
    let foreign = deployment("b", NEW, &json!({"metadata": {"name": "other", "labels": {ROLLING_SINCE: "1"}}}));
    let unowned = deployment("c", NEW, &json!({"metadata": {"ownerReferences": [], "labels": {ROLLING_SINCE: "1"}}}));
    assert_eq!(queue(&rollouts, &[paused.clone(), foreign, unowned]), None);
    rollouts.note_pause(&paused, false);
    assert_eq!(queue(&rollouts, &[paused]), Some(Turn::Waiting { stopped: true }));
}

#[test]
fn only_the_operators_image_and_template_are_rolled_out() {
    let cache = |spec: &Value| -> GoModuleCache {
        let object = json!({"apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache", "metadata": {"name": "own"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    };
    let (plain, own) = (cache(&json!({})), cache(&json!({"image": "registry.example/own:1"})));
    let wanted = Marks { asked: "asked".to_owned(), made: "made".to_owned() };
    let due = |image: &str, changes: &Value, cache: &GoModuleCache| due(&deployment("own", image, changes), cache, NEW, &wanted);
    let labels = |labels: &Value| json!({"metadata": {"labels": labels}});
    assert_eq!(due(OLD, &json!({}), &plain), Ok(Due::Image));
    assert_eq!(due(NEW, &json!({}), &plain), Err(Turn::None));
    assert_eq!(due(NEW, &since(7), &plain), Err(Turn::Rolling(7)));
    assert_eq!(due(OLD, &since(7), &own), Err(Turn::Left));
    let (from_spec, changed) = (labels(&json!({IMAGE_FROM: "spec"})), labels(&json!({IMAGE_FROM: "spec", PODS_ASKED: "else"})));
    assert_eq!(due(OLD, &from_spec, &own), Err(Turn::None));
    assert_eq!(due(OLD, &changed, &plain), Err(Turn::None), "an image of the spec's own was taken back");

    // Another release, also where it changes the image as well, and where the image is no matter of its.
    for image in [OLD, NEW] {
        assert_eq!(due(image, &made("earlier"), &plain), Ok(Due::Template));
    }
    assert_eq!(due(NEW, &labels(&json!({PODS_ASKED: null, PODS_MADE: null})), &plain), Ok(Due::Template), "it knew no marks");
    assert_eq!(due(OLD, &labels(&json!({IMAGE_FROM: "spec", PODS_MADE: "earlier"})), &own), Ok(Due::Template));
    // A user's change takes the template along, and no image.
    let both = labels(&json!({PODS_ASKED: "else", PODS_MADE: "earlier"}));
    assert_eq!((due(NEW, &both, &plain), due(OLD, &both, &plain)), (Err(Turn::None), Ok(Due::Image)));
}

#[test]
fn the_note_of_a_turn_says_since_when_and_for_which_pods() {
    let noted = |note: &str| deployment("own", OLD, &json!({"metadata": {"labels": {ROLLING_SINCE: note}}}));
    let read = |note: &str| (rolling_since(&noted(note)), rolling_to(&noted(note)).map(str::to_owned));
    assert_eq!(read("7.to"), (Some(7), Some("to".to_owned())));
    assert_eq!(read("7"), (Some(7), None));
    assert_eq!(read("soon"), (Some(0), None), "long ago, so that it can't last for ever");
    let marks = |made: &str| Marks { asked: "asked".to_owned(), made: made.to_owned() };
    let to = marks("made").with_image(NEW);
    assert!(to != marks("made").with_image(OLD) && to != marks("else").with_image(NEW));
}

#[test]
fn an_image_is_proved_by_every_pod_and_by_nothing_older() {
    let why = |image: &str, changes: &Value| {
        let applied = Applied { deployment: Some(deployment("own", image, changes)), ..Applied::default() };
        unproved(NEW, &applied, &Survey::default()).unwrap()
    };
    let pods = "not every pod is available: see the pods of the Deployment";
    assert_ne!(why(NEW, &json!({})), pods, "then the pods' reports count");
    for status in
        [json!({"observedGeneration": 1}), json!({"replicas": 2}), json!({"updatedReplicas": 0}), json!({"availableReplicas": null})]
    {
        assert_eq!(why(NEW, &json!({"status": status})), pods, "{status}");
    }
    assert_eq!(why(OLD, &json!({})), pods);
}

type Bodies = std::sync::Arc<Mutex<Vec<Value>>>;

/// A client whose requests are all granted, and what they carried.
fn granting() -> (kube::Client, Bodies) {
    let bodies = Bodies::default();
    let seen = std::sync::Arc::clone(&bodies);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let seen = std::sync::Arc::clone(&seen);
        async move {
            use http_body_util::BodyExt;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let answer = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "own-proxy"}});
            Ok::<_, tower::BoxError>(http::Response::new(kube::client::Body::from(answer.to_string().into_bytes())))
        }
    });
    (kube::Client::new(service, "shop"), bodies)
}

#[tokio::test]
async fn a_turn_is_noted_on_the_very_deployment_that_was_seen() {
    let (client, bodies) = granting();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    note(&Api::<Deployment>::namespaced(client, "shop"), &metrics, &deployment("own", OLD, &json!({})), json!("7")).await.unwrap();
    assert_eq!(*bodies.lock().unwrap(), [json!({"metadata": {"uid": "own", "labels": {ROLLING_SINCE: "7"}}})]);
}

#[tokio::test]
async fn a_cache_that_gets_an_image_of_its_own_gives_back_its_turn_by_a_live_view() {
    use crate::operator::{ca_bundles::Bundles, defaults::Defaults, pace::Pace, polled::Polls, validate::validate, view, watched::Watched};
    let (client, bodies) = granting();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let cache = json!({
        "apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache",
        "metadata": {"name": "own", "namespace": "shop", "uid": "u"}, "spec": {"image": OLD},
    });
    let defaults = Defaults::parse("https://origin.example", "off", &[], &[]).unwrap();
    let valid = validate(&serde_json::from_value(cache).unwrap(), &Bundles::default(), &defaults, NEW).unwrap();
    let memory = view::Memory { watched: Watched::default(), polls: Polls::new(Pace::new(None)) };
    let applied = |paused: bool| Applied { deployment: Some(deployment("own", OLD, &since(7))), paused, ..Applied::default() };
    let (rollouts, survey) = (rollouts(1), Survey::default());
    let end = async |live: bool, paused: bool| {
        let view = View { client: &client, memory: &memory, live };
        rollouts.end(view, &metrics, &valid, &Turn::Left, &applied(paused), &survey).await.unwrap().map(|rolled_out| rolled_out.verdict.1)
    };
    assert_eq!(end(false, false).await, None, "an old view is no ground for a write");
    assert_eq!(end(true, true).await, Some("Current"));
    assert!(bodies.lock().unwrap().is_empty(), "a paused cache is left alone");
    assert_eq!(end(true, false).await, Some("Current"));
    assert_eq!(*bodies.lock().unwrap(), [json!({"metadata": {"uid": "own", "labels": {ROLLING_SINCE: null}}})]);
}

#[tokio::test]
async fn pods_that_a_user_asked_for_are_a_roll_out_until_all_are_there_and_none_when_they_are_lost() {
    use crate::operator::{ca_bundles::Bundles, defaults::Defaults, pace::Pace, polled::Polls, validate::validate, view, watched::Watched};
    let (client, bodies) = granting();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let defaults = Defaults::parse("https://origin.example", "off", &[], &[]).unwrap();
    let memory = view::Memory { watched: Watched::default(), polls: Polls::new(Pace::new(None)) };
    let (view, rollouts, survey) = (View { client: &client, memory: &memory, live: true }, rollouts(1), Survey::default());
    let end = async |turn: Turn, condition: &Value, changes: &Value| {
        let cache = json!({
            "apiVersion": "gomodcache.io/v1alpha1", "kind": "GoModuleCache",
            "metadata": {"name": "own", "namespace": "shop", "uid": "u", "generation": 3}, "spec": {"image": NEW},
            "status": {"conditions": [condition]},
        });
        let valid = validate(&serde_json::from_value(cache).unwrap(), &Bundles::default(), &defaults, OLD).unwrap();
        let applied = Applied { deployment: Some(deployment("own", NEW, changes)), ..Applied::default() };
        let RolledOut { verdict, is_asked } = rollouts.end(view, &metrics, &valid, &turn, &applied, &survey).await.unwrap().unwrap();
        (verdict.1, is_asked)
    };
    let rolled_out = |status: &str, generation: i64| {
        json!({"type": ROLLED_OUT, "status": status, "observedGeneration": generation, "reason": "x", "message": "",
            "lastTransitionTime": "2026-01-01T10:00:00Z"})
    };
    let (unseen, lost) = (json!({"status": {"observedGeneration": 1}}), json!({"status": {"replicas": 0, "updatedReplicas": 0}}));
    let old = json!({"status": {"replicas": 2}});
    for turn in [Turn::None, Turn::Left] {
        assert_eq!(end(turn.clone(), &rolled_out("True", 2), &json!({})).await, ("Current", false));
        for lacking in [&unseen, &lost, &old] {
            assert_eq!(end(turn.clone(), &rolled_out("True", 2), lacking).await, ("RollingOut", true), "{lacking}");
            assert_eq!(end(turn.clone(), &rolled_out("False", 3), lacking).await, ("RollingOut", true), "{lacking}");
        }
        assert_eq!(end(turn.clone(), &rolled_out("True", 3), &lost).await, ("Current", false));
        assert_eq!(end(turn, &rolled_out("True", 3), &unseen).await, ("RollingOut", true));
    }
    for (turn, reason) in [(Turn::Waiting { stopped: false }, "WaitingForTurn"), (Turn::Waiting { stopped: true }, "RolloutStopped")] {
        assert_eq!(end(turn.clone(), &rolled_out("False", 2), &unseen).await, (reason, true), "it gets all else at once");
        assert_eq!(end(turn.clone(), &rolled_out("False", 3), &json!({})).await, (reason, false), "all is there but for the turn");
        let ready = json!({"type": "Ready", "status": "True", "observedGeneration": 3, "reason": "x", "message": "",
            "lastTransitionTime": "2026-01-01T10:00:00Z"});
        assert_eq!(end(turn, &ready, &lost).await, (reason, false), "one is made anew");
    }
    assert_eq!(end(Turn::Paused, &rolled_out("False", 2), &unseen).await, ("Paused", false));
    assert!(!bodies.lock().unwrap().is_empty(), "one that left its turn gives it back");
}
