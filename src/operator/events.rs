//! Events for people: one when Ready turns, none while it stays. Needs a client; what can't be told is logged and forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Resource};

use super::apply::FIELD_MANAGER;
use super::conditions::NOT_IN_NAMESPACE_MODE;
use super::metrics::Metrics;
use super::undecodable::UNDECODABLE;
use crate::api::{GoModuleCache, GoModuleCacheStatus};

/// Events of one object at once, and how long until it may have another; client-go's figures.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// Objects that are remembered.
const LIMIT: usize = 20_000;
/// Reasons for which a new cache just needs time.
const PROGRESS: [&str; 7] =
    ["NoPodAvailable", "NoPodReady", "Pending", "PodUnschedulable", "Provisioning", "RollingOut", NOT_IN_NAMESPACE_MODE];

/// Tells of transitions.
pub(crate) struct Events {
    client: Client,
    metrics: Metrics,
    pod: String,
    told: Mutex<HashMap<String, Told>>,
}

/// What was told of one object last; what the watch shows may be older.
struct Told {
    status: String,
    reason: String,
    left: u32,
    refilled: Instant,
}

impl Events {
    /// Has told nothing yet.
    #[must_use]
    pub(crate) fn new(client: Client, metrics: Metrics, pod: String) -> Self {
        Self { client, metrics, pod, told: Mutex::default() }
    }

    /// An event if `status` is a turn from what the object had.
    pub(crate) async fn tell(&self, cache: &GoModuleCache, status: &GoModuleCacheStatus) {
        let Some(ready) = status.conditions.iter().find(|c| c.type_ == "Ready") else { return };
        let before = cache.status.as_ref().and_then(|s| s.conditions.iter().find(|c| c.type_ == "Ready"));
        let before = before.map_or(("", ""), |c| (c.status.as_str(), c.reason.as_str()));
        if self.is_turn(&cache.metadata, before, (&ready.status, &ready.reason)) {
            let kind = if ready.status == "True" { "Normal" } else { "Warning" };
            self.publish(cache.object_ref(&()), kind, &ready.reason, &ready.message).await;
        }
    }

    /// An event about an object that this operator can't read; once for each generation of it.
    pub(crate) async fn undecodable(&self, meta: &ObjectMeta, error: &str) {
        let generation = meta.generation.unwrap_or(0).to_string();
        if self.is_turn(meta, ("", ""), (&generation, UNDECODABLE)) {
            let regarding = ObjectReference {
                api_version: Some(GoModuleCache::api_version(&()).into_owned()),
                kind: Some(GoModuleCache::kind(&()).into_owned()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                ..ObjectReference::default()
            };
            let note = format!("this version of the operator can't read the object and leaves all of it alone: {error}");
            self.publish(regarding, "Warning", UNDECODABLE, &note).await;
        }
    }

    fn is_turn(&self, meta: &ObjectMeta, stored: (&str, &str), now: (&str, &str)) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= LIMIT {
            told.clear();
        }
        let uid = meta.uid.clone().unwrap_or_default();
        let entry = told.entry(uid).or_insert_with(|| Told {
            status: stored.0.to_owned(),
            reason: stored.1.to_owned(),
            left: BURST,
            refilled: Instant::now(),
        });
        if (entry.status.as_str(), entry.reason.as_str()) == now {
            return false;
        }
        let begins = entry.status != "True" && PROGRESS.contains(&now.1);
        (entry.status, entry.reason) = (now.0.to_owned(), now.1.to_owned());
        if begins {
            return false;
        }
        let refill = u32::try_from(entry.refilled.elapsed().as_secs() / REFILL.as_secs()).unwrap_or(BURST);
        if refill > 0 {
            (entry.left, entry.refilled) = (entry.left.saturating_add(refill).min(BURST), Instant::now());
        }
        let may = entry.left > 0;
        entry.left = entry.left.saturating_sub(1);
        may
    }

    async fn publish(&self, regarding: ObjectReference, kind: &str, reason: &str, note: &str) {
        let (namespace, name) = (regarding.namespace.clone().unwrap_or_default(), regarding.name.clone().unwrap_or_default());
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta { name: Some(format!("{name}.{:x}", now.as_nanosecond())), ..ObjectMeta::default() },
            event_time: Some(MicroTime(now)),
            action: Some("Reconcile".to_owned()),
            reason: Some(reason.to_owned()),
            // At most 1024 bytes.
            note: Some(note.chars().take(250).collect()),
            type_: Some(kind.to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.pod.chars().take(128).collect()),
            ..Event::default()
        };
        match Api::<Event>::namespaced(self.client.clone(), &namespace).create(&PostParams::default(), &event).await {
            Ok(_) => self.metrics.write("create", "Event"),
            Err(error) => tracing::warn!(%error, reason, "an event could not be told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Option<Events> {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, tower::BoxError>(http::Response::new(kube::client::Body::empty()))
        });
        Some(Events::new(Client::new(service, "default"), Metrics::new(&prometheus::Registry::new()).ok()?, "pod".to_owned()))
    }

    #[tokio::test]
    async fn only_a_turn_is_told_and_a_new_cache_is_given_time() {
        let Some(events) = events() else { return };
        let meta = |uid: &str| ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() };
        let turn = |uid: &str, now: (&str, &str)| events.is_turn(&meta(uid), ("", ""), now);
        assert!(!turn("a", ("False", "Provisioning")));
        assert!(!turn("a", ("False", "NoPodAvailable")));
        assert!(turn("a", ("True", "Ready")));
        assert!(!turn("a", ("True", "Ready")), "the watch was late, not the cache");
        assert!(turn("a", ("False", "NoPodAvailable")));
        assert!(turn("a", ("False", "NameConflict")));
        assert!(turn("b", ("False", "InvalidSpec")));
        assert!(!events.is_turn(&meta("c"), ("True", "Ready"), ("True", "Ready")), "a new operator is no turn");
    }

    #[tokio::test]
    async fn one_object_tells_only_so_much() {
        let Some(events) = events() else { return };
        let meta = ObjectMeta { uid: Some("a".to_owned()), ..ObjectMeta::default() };
        let told = (0..200).filter(|i| events.is_turn(&meta, ("", ""), (if i % 2 == 0 { "True" } else { "False" }, "Reason"))).count();
        assert_eq!(told, BURST as usize);
    }
}
