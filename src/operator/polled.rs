//! What no watch may show, so that it is asked for again and again: Secrets, and ConfigMaps and Services of the users'. Each object
//! once, however many caches name it, and all of a kind together no more often than [`PER_SECOND`].

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::pace::Pace;

/// No object is asked for more often, but by who is about to write.
const PERIOD: Duration = Duration::from_secs(5);
/// How many objects of a kind are asked for: 300 are round in 50 s, and four kinds stay below 25.
const PER_SECOND: f64 = 6.0;
/// What nobody has asked about for so long, no cache names any more.
const FORGOTTEN: Duration = Duration::from_secs(600);
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// All that is polled.
pub(crate) struct Polls {
    /// The Secrets that the operator writes.
    pub credentials: Polled<Secret>,
    /// The Secrets that users write.
    pub secrets: Polled<Secret>,
    /// The ConfigMaps that users write.
    pub bundles: Polled<ConfigMap>,
    /// The Services that upstreams are.
    pub services: Polled<Service>,
    /// The StorageClasses.
    pub classes: Classes,
}

impl Polls {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new(pace: Pace) -> Self {
        let period = pace.of(PERIOD);
        let classes = Classes { period, known: tokio::sync::Mutex::default() };
        Self {
            credentials: Polled::new(period),
            secrets: Polled::new(period),
            bundles: Polled::new(period),
            services: Polled::new(period),
            classes,
        }
    }
}

/// The objects of one kind that caches name, absent ones too.
pub(crate) struct Polled<K> {
    period: Duration,
    round: Mutex<Round<K>>,
}

struct Round<K> {
    /// By namespace and name.
    known: HashMap<(String, String), Known<K>>,
    /// Every object has a turn of its own, and turns come one after another: this is the first that nobody has.
    free: Instant,
}

struct Known<K> {
    object: Option<K>,
    turn: Instant,
    used: Instant,
}

impl<K> Polled<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    fn new(period: Duration) -> Self {
        Self { period, round: Mutex::new(Round { known: HashMap::new(), free: Instant::now() }) }
    }

    /// What was seen last, unless it is its turn.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn look(&self, client: &Client, namespace: &str, name: &str) -> Result<Option<K>, kube::Error> {
        match self.remembered(namespace, name, Instant::now()) {
            Some(object) => Ok(object),
            None => self.read(client, namespace, name).await,
        }
    }

    /// What there is now.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn read(&self, client: &Client, namespace: &str, name: &str) -> Result<Option<K>, kube::Error> {
        let object = Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await?;
        self.note(namespace, name, object.clone(), Instant::now());
        Ok(object)
    }

    /// Takes what was read or written.
    pub(crate) fn note(&self, namespace: &str, name: &str, object: Option<K>, now: Instant) {
        let mut round = self.lock();
        round.known.retain(|_, known| now.saturating_duration_since(known.used) < FORGOTTEN);
        let key = (namespace.to_owned(), name.to_owned());
        // One that was read out of turn keeps its turn.
        let kept = round.known.get(&key).map(|known| known.turn).filter(|turn| *turn > now);
        let turn = kept.unwrap_or_else(|| round.next(now + self.period));
        round.known.insert(key, Known { object, turn, used: now });
    }

    /// What was seen last of it, if anything.
    pub(crate) fn last(&self, namespace: &str, name: &str) -> Option<K> {
        self.lock().known.get(&(namespace.to_owned(), name.to_owned())).and_then(|known| known.object.clone())
    }

    /// When to look again.
    pub(crate) fn turn(&self, namespace: &str, name: &str) -> Option<Duration> {
        let round = self.lock();
        Some(round.known.get(&(namespace.to_owned(), name.to_owned()))?.turn.saturating_duration_since(Instant::now()))
    }

    /// `None`: nobody knows, or it is its turn, which is the caller's then.
    fn remembered(&self, namespace: &str, name: &str, now: Instant) -> Option<Option<K>> {
        let mut round = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let is_due = round.known.get(&key)?.turn <= now;
        let next = is_due.then(|| round.next(now + self.period));
        let known = round.known.get_mut(&key)?;
        known.used = now;
        match next {
            Some(next) => {
                known.turn = next;
                None
            }
            None => Some(known.object.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Round<K>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Round<K> {
    fn next(&mut self, earliest: Instant) -> Instant {
        let turn = self.free.max(earliest);
        self.free = turn + Duration::from_secs_f64(1.0 / PER_SECOND);
        turn
    }
}

/// The names of all StorageClasses, and whether one is a default; one list for all caches.
pub(crate) struct Classes {
    period: Duration,
    known: tokio::sync::Mutex<Option<Listed>>,
}

struct Listed {
    classes: Vec<(String, bool)>,
    read: Instant,
}

impl Classes {
    /// The names, each with whether it is a default; `anew`: not those that another asked for before.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn look(&self, client: &Client, anew: bool) -> Result<Vec<(String, bool)>, kube::Error> {
        // Held while it asks, so that the others wait for the one answer.
        let mut known = self.known.lock().await;
        if let Some(listed) = known.as_ref().filter(|listed| !anew && listed.read.elapsed() < self.period) {
            return Ok(listed.classes.clone());
        }
        let listed = Api::<StorageClass>::all(client.clone()).list(&ListParams::default()).await?;
        let is_default = |class: &StorageClass| class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true");
        let classes: Vec<(String, bool)> = listed.iter().map(|class| (class.name_any(), is_default(class))).collect();
        *known = Some(Listed { classes: classes.clone(), read: Instant::now() });
        Ok(classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of so many objects is asked for in this many seconds, looked at twice a second.
    fn reads(count: usize, seconds: u64) -> Vec<usize> {
        let polled: Polled<Secret> = Polled::new(PERIOD);
        let start = Instant::now();
        let names: Vec<String> = (0..count).map(|i| i.to_string()).collect();
        names.iter().for_each(|name| polled.note("build", name, None, start));
        let mut reads = vec![0; count];
        for half in 1..=seconds * 2 {
            let now = start + Duration::from_millis(500 * half);
            for (name, reads) in names.iter().zip(&mut reads) {
                if polled.remembered("build", name, now).is_none() {
                    polled.note("build", name, None, now);
                    *reads += 1;
                }
            }
        }
        reads
    }

    #[test]
    fn few_are_asked_for_every_period_and_many_in_turn_and_none_is_left_out() {
        assert!(reads(2, 60).iter().all(|reads| (9..=12).contains(reads)), "{:?}", reads(2, 60));
        let many = reads(300, 600);
        assert!(many.iter().sum::<usize>() <= 6 * 600, "{many:?}");
        assert!(many.iter().all(|reads| (9..=12).contains(reads)), "{many:?}");
    }

    #[test]
    fn what_was_read_out_of_turn_keeps_its_turn() {
        let polled: Polled<Secret> = Polled::new(PERIOD);
        let start = Instant::now();
        for _ in 0..1000 {
            polled.note("build", "corp", None, start);
        }
        assert!(polled.remembered("build", "corp", start + PERIOD).is_none());
    }
}
