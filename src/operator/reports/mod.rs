//! Step 5: asks the pods what they run, and makes the kubelet look again where they lag behind. Needs a client.
//!
//! [`pods`] says which pods are ours, [`ask`] asks one, [`verdict`] says what it means. Nothing here waits for a pod to catch up:
//! the reconcile comes again.

mod ask;
mod pods;
mod verdict;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;

use super::apply::Applied;
use super::metrics::Metrics;
use super::pace::Pace;
use super::view::View;
use crate::config::{ADMIN_TOKEN_KEY, GENERATION_KEY, version_of};
use crate::report::{ProxyReport, config_digest};
use ask::{AskError, Asker};
use pods::{OwnPod, ReplicaSets, own_pod};
pub(crate) use verdict::{APPLIED, configuration, credentials, egress, is_known_to_lag, states, storage};

/// The annotation whose change makes the kubelet refresh a pod's mounts within a second, where it would take up to 80 s.
const REFRESH: &str = "gomodcache.io/refresh";
/// When it is changed, counted from the first look at what is wanted. After that the kubelet's own pace has to do.
const REFRESH_AFTER: [Duration; 4] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(45)];
/// How often a pod is asked that has not what is wanted.
const PENDING: Duration = Duration::from_secs(2);
/// After this time it is asked at the reconcile's own pace: something is wrong that takes a person.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a pod is asked that has it. Up to a quarter less, so that not all are asked at once.
const IDLE: Duration = Duration::from_secs(60);
/// How many pods are asked at once, of all caches.
const MAX_ASKED: usize = 64;
/// How long a pod waits for its turn: after a restart all are asked, and many that are silent hold up the others.
const QUEUE: Duration = Duration::from_secs(20);
/// What no reconcile has touched for so long belongs to a deleted cache.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The names of what a pod should run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Digests of the configuration that the API server has, by the version of the format. A pod runs one of them.
    pub configs: BTreeMap<u32, String>,
    /// Generation of the credentials that it has.
    pub credentials: String,
}

impl Wanted {
    fn has_config(&self, digest: &String) -> bool {
        self.configs.values().any(|config| config == digest)
    }

    /// Whether a pod that says so runs what is wanted.
    fn is_met_by(&self, report: &ProxyReport) -> bool {
        self.has_config(&report.config) && report.credentials == self.credentials
    }
}

/// What the pods of one cache say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) wanted: Wanted,
    /// The ready ones, by name.
    pods: Vec<Seen>,
    /// All that the Deployment made, ready or not, by name.
    pub(crate) made: Vec<Arc<Pod>>,
    /// The pods could not be listed yet.
    unlisted: bool,
    /// For how long this has been wanted, as far as this process knows.
    age: Duration,
    /// When to look again.
    pub(crate) next: Option<Duration>,
    /// A pod lags whose annotation should be changed, and was not: the view is no ground for a write.
    pub(crate) wants_refresh: bool,
}

#[derive(Clone, Debug)]
struct Seen {
    name: String,
    answer: Result<ProxyReport, AskError>,
}

/// What is known of all pods, and the way to ask them.
pub(crate) struct Reports {
    asker: Asker,
    replica_sets: ReplicaSets,
    /// By the UID of the cache.
    rollouts: Mutex<HashMap<String, Rollout>>,
    places: Semaphore,
    pace: Pace,
}

/// What one cache wants of its pods.
struct Rollout {
    wanted: Wanted,
    since: Instant,
    /// By UID.
    pods: HashMap<String, Known>,
    used: Instant,
}

/// What is known of one pod.
#[derive(Clone)]
struct Known {
    answer: Result<ProxyReport, AskError>,
    asked: Instant,
    /// The share of [`IDLE`] after which it is asked again.
    jitter: f64,
    refreshes: usize,
}

/// How often pods are asked.
#[derive(Clone, Copy)]
struct Paces {
    has_it: Duration,
    lags: Duration,
}

impl Known {
    fn has(&self, wanted: &Wanted) -> bool {
        self.answer.as_ref().is_ok_and(|report| wanted.is_met_by(report))
    }

    /// It has seen what is wanted and can't use it.
    fn refuses(&self, wanted: &Wanted) -> bool {
        let refused = self.answer.as_ref().ok().and_then(|report| report.refused.as_ref());
        refused.is_some_and(|refused| wanted.has_config(&refused.config) && refused.credentials == wanted.credentials)
    }
}

impl Reports {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(crate) fn new(pace: Pace) -> Result<Self, reqwest::Error> {
        let places = Semaphore::new(MAX_ASKED);
        Ok(Self { asker: Asker::new()?, replica_sets: ReplicaSets::default(), rollouts: Mutex::default(), places, pace })
    }

    /// Asks the pods that are due, and by a live view refreshes those that lag behind. Nothing where there is no Deployment or no
    /// configuration that is ours.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn survey(
        &self,
        view: View<'_>,
        metrics: &Metrics,
        cache_uid: &str,
        applied: &Applied,
    ) -> Result<Survey, kube::Error> {
        let (Some(deployment), Some((wanted, token))) = (&applied.deployment, wanted(applied)) else { return Ok(Survey::default()) };
        let pods = &view.memory.watched.pods;
        if !pods.is_listed() {
            return Ok(Survey { unlisted: true, ..Survey::default() });
        }
        let made = self.replica_sets.own_pods(view.client, &pods.seen, deployment).await?;
        let own: Vec<OwnPod> = made.iter().filter_map(|pod| own_pod(pod, REFRESH)).collect();
        let (since, known) = self.begin(cache_uid, &wanted, &own);
        let paces =
            Paces { has_it: self.pace.of(IDLE), lags: self.pace.of(if since.elapsed() < PATIENCE { PENDING } else { PATIENCE / 8 }) };
        let asked = own.iter().map(|pod| async {
            let before = known.get(&pod.uid);
            match before {
                Some(known) if !known.is_due(&wanted, paces) => known.clone(),
                _ => match tokio::time::timeout(QUEUE, self.places.acquire()).await {
                    Ok(_place) => self.ask(pod, &token, before).await,
                    // At the next look, which is soon.
                    Err(_) => before.cloned().unwrap_or_else(|| Known::new(Err(AskError::NotYet))),
                },
            }
        });
        let mut answers: Vec<Known> = futures::future::join_all(asked).await;
        let mut wants_refresh = false;
        for (pod, known) in own.iter().zip(&mut answers) {
            if applied.paused || known.has(&wanted) || known.refuses(&wanted) || !known.is_to_be_refreshed(pod, &wanted, since.elapsed()) {
                continue;
            }
            if view.live {
                known.refreshes += 1;
                refresh(view.client, metrics, deployment, pod, &wanted, known.refreshes).await;
            } else {
                wants_refresh = true;
            }
        }
        let all_have_it = answers.iter().all(|known| known.has(&wanted));
        let next = answers.iter().map(|known| known.due_in(&wanted, paces)).min();
        let seen = own.iter().zip(&answers).map(|(pod, known)| Seen { name: pod.name.clone(), answer: known.answer.clone() }).collect();
        self.end(cache_uid, own.into_iter().map(|pod| pod.uid).zip(answers).collect());
        let survey = Survey { wanted, pods: seen, made, unlisted: false, age: since.elapsed(), next, wants_refresh };
        tracing::debug!(pods = survey.pods.len(), all_have_it, "surveyed");
        Ok(survey)
    }

    /// One lost packet is no news: a pod that answered before is asked once more.
    async fn ask(&self, pod: &OwnPod, token: &str, before: Option<&Known>) -> Known {
        let mut answer = self.asker.ask(pod.address, token).await;
        if matches!(answer, Err(AskError::Timeout | AskError::Connect)) && before.is_none_or(|known| known.answer.is_ok()) {
            answer = self.asker.ask(pod.address, token).await;
        }
        Known { refreshes: before.map_or(0, |known| known.refreshes), ..Known::new(answer) }
    }

    /// Since when this is wanted, and what is known of the pods that are still there.
    fn begin(&self, cache_uid: &str, wanted: &Wanted, own: &[OwnPod]) -> (Instant, HashMap<String, Known>) {
        let now = Instant::now();
        let mut rollouts = self.lock();
        rollouts.retain(|_, rollout| now.saturating_duration_since(rollout.used) < FORGOTTEN);
        let rollout = rollouts.entry(cache_uid.to_owned()).or_insert_with(|| Rollout {
            wanted: wanted.clone(),
            since: now,
            pods: HashMap::new(),
            used: now,
        });
        rollout.used = now;
        if rollout.wanted != *wanted {
            rollout.wanted = wanted.clone();
            rollout.since = now;
            rollout.pods.values_mut().for_each(|known| known.refreshes = 0);
        }
        rollout.pods.retain(|uid, _| own.iter().any(|pod| pod.uid == *uid));
        (rollout.since, rollout.pods.clone())
    }

    fn end(&self, cache_uid: &str, pods: HashMap<String, Known>) {
        if let Some(rollout) = self.lock().get_mut(cache_uid) {
            rollout.pods = pods;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Rollout>> {
        self.rollouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(answer: Result<ProxyReport, AskError>) -> Self {
        Self { answer, asked: Instant::now(), jitter: 0.75 + 0.25 * rand::random::<f64>(), refreshes: 0 }
    }

    fn is_due(&self, wanted: &Wanted, paces: Paces) -> bool {
        self.due_in(wanted, paces).is_zero()
    }

    fn due_in(&self, wanted: &Wanted, paces: Paces) -> Duration {
        let wait = if self.has(wanted) { paces.has_it.mul_f64(self.jitter) } else { paces.lags };
        wait.saturating_sub(self.asked.elapsed())
    }

    /// An operator that was restarted goes on where it was, by what stands on the pod.
    fn is_to_be_refreshed(&mut self, pod: &OwnPod, wanted: &Wanted, age: Duration) -> bool {
        let noted = pod.refresh.as_ref().and_then(|value| value.strip_prefix(&refresh_prefix(wanted))?.parse().ok()).unwrap_or(0);
        self.refreshes = self.refreshes.max(noted);
        REFRESH_AFTER.get(self.refreshes).is_some_and(|after| age >= *after)
    }
}

/// What the API server holds now, and the token that opens the reports; nothing while a part of it is missing.
fn wanted(applied: &Applied) -> Option<(Wanted, String)> {
    let files = applied.config.as_ref()?.data.as_ref()?;
    let configs: BTreeMap<_, _> = files.iter().filter_map(|(name, text)| Some((version_of(name)?, config_digest(text)))).collect();
    let data = applied.credentials.as_ref()?.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    (!configs.is_empty()).then_some((Wanted { configs, credentials: text(GENERATION_KEY)? }, text(ADMIN_TOKEN_KEY)?))
}

fn refresh_prefix(wanted: &Wanted) -> String {
    let name = |text: &str| text.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>();
    let newest = wanted.configs.values().next_back().map_or("", String::as_str);
    format!("{}-{}-", name(newest), name(&wanted.credentials))
}

/// Changes the annotation. Only an accelerator: where it fails, the kubelet looks by itself in the end.
async fn refresh(client: &Client, metrics: &Metrics, deployment: &Deployment, pod: &OwnPod, wanted: &Wanted, count: usize) {
    let patch = json!({"metadata": {"uid": pod.uid, "annotations": {REFRESH: format!("{}{count}", refresh_prefix(wanted))}}});
    let api = Api::<Pod>::namespaced(client.clone(), &deployment.namespace().unwrap_or_default());
    match api.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => metrics.write("patch", "Pod"),
        Err(error) => {
            tracing::warn!(%error, pod = pod.name, "can't make the kubelet refresh a pod's mounts; it does by itself in a minute")
        }
    }
}
