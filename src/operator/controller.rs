//! The loop round the reconcile: watches, back-off and a heartbeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio_stream::wrappers::IntervalStream;
use tokio_util::sync::CancellationToken;

use super::build::{ENV_FROM, INSTANCE};
use super::scope::Scope;
use super::{Context, ReconcileError, undecodable};
use crate::api::GoModuleCache;
use crate::telemetry::Health;

/// An object that may not decode: then it is that object's problem and not the watch's.
type Guarded = DeserializeGuard<GoModuleCache>;

/// The name of no object. Asked for again and again, the loop answers that there is none: so it lives. It says nothing about
/// the API server, which it does not ask.
const HEARTBEAT: &str = "-";
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(10);
/// Failing watches hold up the queue for up to [`RETRY`] each, in the worst case one after the other.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(120);
/// The longest wait before watches that failed are tried again.
const RETRY: Duration = Duration::from_secs(5);

struct Loop {
    context: Context,
    failures: Mutex<HashMap<String, Failures>>,
}

/// Failures in a row, of one generation: a change by the user begins anew.
struct Failures {
    generation: Option<i64>,
    count: u32,
    last: Instant,
}

/// How long the failures of an object are remembered that no longer fails, and perhaps no longer exists.
const FORGET: Duration = Duration::from_secs(300);
/// One that goes on failing is tried again within this time: what was not is gone.
const STILL: Duration = Duration::from_secs(150);

/// Watches and reconciles until the token is cancelled and what was under way has ended.
pub(super) async fn term(context: Context, health: Health, shutdown: CancellationToken) {
    let (client, scope, ending) = (context.client.clone(), context.settings.scope.clone(), shutdown.clone());
    let state = Arc::new(Loop { context, failures: Mutex::default() });
    let watched = &state.context.memory.watched;
    let beat = IntervalStream::new(tokio::time::interval(HEARTBEAT_PERIOD)).map(|_| ObjectRef::<Guarded>::new(HEARTBEAT));
    let controller = Controller::new(scope.api::<Guarded>(&client), watcher::Config::default())
        .owns_stream(watched.accounts.follow(&client, &scope))
        .owns_stream(watched.config_maps.follow(&client, &scope))
        .owns_stream(watched.services.follow(&client, &scope))
        .owns_stream(watched.deployments.follow(&client, &scope))
        .owns_stream(watched.policies.follow(&client, &scope))
        .owns_stream(watched.budgets.follow(&client, &scope))
        // By label: whether a pod is ours, the reconcile finds out.
        .watches_stream(watched.follow_pods(&client, &scope), |pod| by_label(&pod.metadata))
        // By label and not by owner: under Retain a claim has none.
        .watches_stream(watched.claims.follow(&client, &scope), |claim| by_label(&claim.metadata))
        .reconcile_on(beat)
        .trigger_backoff(StreamRetry::default())
        .graceful_shutdown_on(shutdown.cancelled_owned());
    let controller = match scope {
        Scope::Cluster => controller.watches_stream(watched.follow_namespaces(&client), |namespace| {
            let (cache_namespace, cache) = namespace.labels().get(ENV_FROM)?.split_once('.')?;
            Some(ObjectRef::<Guarded>::new(cache).within(cache_namespace))
        }),
        Scope::Namespace(_) => controller,
    };
    let (store, shared) = (controller.store(), Arc::clone(&state));
    // No reconcile begins before the first list, and after the end of the watches there is none: nothing is to be waited for.
    let ended_before_the_first_list = async {
        ending.cancelled().await;
        if store.wait_until_ready().now_or_never().is_some() {
            std::future::pending::<()>().await;
        }
    };
    let Context { client, metrics, memory, egress, pace, settings, .. } = &shared.context;
    let sweep = async {
        match settings.scope {
            Scope::Cluster => super::sweep::run(client, metrics, &store, &memory.watched, *pace).await,
            // It publishes nothing.
            Scope::Namespace(_) => std::future::pending().await,
        }
    };
    let listed = async {
        // Until then the loop waits, for as long as the API server is away.
        if store.wait_until_ready().await.is_ok() {
            health.expect_beat(HEARTBEAT_LIMIT);
        }
        std::future::pending::<()>().await;
    };
    let work = controller.run(reconcile, on_error, state).for_each(|result| async {
        match result {
            Err(kube::runtime::controller::Error::ObjectNotFound(object)) if object.name == HEARTBEAT => {
                health.expect_beat(HEARTBEAT_LIMIT);
                let known = store.state();
                let statuses = known.iter().filter_map(|cache| cache.0.as_ref().ok()?.status.as_ref());
                metrics.conditions(known.len(), statuses.flat_map(|status| &status.conditions));
                metrics.egress(egress.summary(Instant::now()));
            }
            Err(error) => tracing::debug!(%error, "controller"),
            Ok(_) => {}
        }
    });
    tokio::select! {
        () = work => {}
        () = listed => {}
        () = ended_before_the_first_list => {}
        () = sweep => {}
    }
    health.expect_no_beat();
}

/// The cache that a label names.
fn by_label(meta: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let cache = meta.labels.as_ref()?.get(INSTANCE)?;
    Some(ObjectRef::new(cache).within(meta.namespace.as_ref()?))
}

/// From half a second to [`RETRY`], with jitter.
#[derive(Default)]
struct StreamRetry(u32);

impl Iterator for StreamRetry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1);
        Some(backoff(self.0, rand::random::<f64>()).min(RETRY))
    }
}

impl Backoff for StreamRetry {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// The span tells the lines of one reconcile from those of the others that are under way.
#[tracing::instrument(skip_all, fields(namespace = object.namespace(), cache = object.name_any(), uid = object.uid(), generation = object.meta().generation))]
async fn reconcile(object: Arc<Guarded>, state: Arc<Loop>) -> Result<Action, ReconcileError> {
    let cache = match &object.0 {
        Ok(cache) => cache,
        Err(invalid) => {
            let (Context { client, metrics, events, .. }, fault) = (&state.context, undecodable::fault(invalid));
            tracing::warn!(error = fault, "undecodable");
            metrics.reconcile("undecodable");
            events.undecodable(&invalid.metadata, &fault).await;
            undecodable::tell(client, metrics, invalid).await?;
            return Ok(Action::await_change());
        }
    };
    // The garbage collector takes the children; making them again would only be in its way.
    if cache.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let begun = Instant::now();
    let next = Box::pin(super::reconcile(&state.context, cache)).await?;
    state.context.metrics.reconciled_in(begun.elapsed());
    state.context.metrics.reconcile("ok");
    let mut failures = state.failures.lock().unwrap_or_else(PoisonError::into_inner);
    failures.remove(&key(&object));
    state.context.metrics.backing_off(still_failing(&failures));
    drop(failures);
    Ok(next.map_or_else(Action::await_change, Action::requeue))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that the controller calls")]
fn on_error(object: Arc<Guarded>, error: &ReconcileError, state: Arc<Loop>) -> Action {
    tracing::warn!(namespace = object.namespace(), cache = object.name_any(), %error, "reconcile failed");
    state.context.metrics.reconcile("error");
    let mut failures = state.failures.lock().unwrap_or_else(PoisonError::into_inner);
    failures.retain(|_, failures| failures.last.elapsed() < FORGET);
    let count = count(&mut failures, key(&object), object.meta().generation);
    state.context.metrics.backing_off(still_failing(&failures));
    let asked = retry_after(error);
    Action::requeue(backoff(count, rand::random::<f64>()).max(asked))
}

fn still_failing(failures: &HashMap<String, Failures>) -> usize {
    failures.values().filter(|failures| failures.last.elapsed() < STILL).count()
}

fn count(failures: &mut HashMap<String, Failures>, key: String, generation: Option<i64>) -> u32 {
    let new = || Failures { generation, count: 0, last: Instant::now() };
    let entry = failures.entry(key).or_insert_with(new);
    if entry.generation != generation {
        *entry = new();
    }
    entry.count = entry.count.saturating_add(1);
    entry.last = Instant::now();
    entry.count
}

/// What the API server asked for with 429 or 503, up to a minute.
fn retry_after(error: &ReconcileError) -> Duration {
    let ReconcileError::Api(kube::Error::Api(status)) = error else { return Duration::ZERO };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(u64::from(seconds)).min(Duration::from_secs(60))
}

fn key(object: &Guarded) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Doubles from half a second to a minute; `jitter` in 0..1 takes off up to a half.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(7);
    Duration::from_millis(500 * (1 << doublings)).min(Duration::from_secs(60)).mul_f64(1.0 - jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn back_off_grows_and_is_bounded() {
        assert_eq!(backoff(1, 0.0), Duration::from_millis(500));
        assert_eq!(backoff(2, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(60));
        assert_eq!(backoff(2, 1.0), Duration::from_millis(500));
    }

    #[test]
    fn failures_are_counted_until_the_user_changes_the_object() {
        let mut failures = HashMap::new();
        let counts = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)];
        for (generation, expected) in counts {
            assert_eq!(count(&mut failures, "a/b".to_owned(), Some(generation)), expected);
        }
        assert_eq!(count(&mut failures, "a/c".to_owned(), Some(2)), 1);
    }

    #[test]
    fn what_the_api_server_asks_for_is_waited_for_up_to_a_minute() {
        let asked = |seconds: u32| {
            let details = serde_json::json!({"retryAfterSeconds": seconds});
            let details = serde_json::from_value(details).map_err(kube::Error::SerdeError)?;
            let status = Status { code: 429, details: Some(details), ..Status::default() };
            Ok::<_, kube::Error>(retry_after(&ReconcileError::Api(kube::Error::Api(Box::new(status)))))
        };
        assert!(asked(7).is_ok_and(|wait| wait == Duration::from_secs(7)));
        assert!(asked(u32::MAX).is_ok_and(|wait| wait == Duration::from_secs(60)));
        assert_eq!(retry_after(&ReconcileError::TimedOut), Duration::ZERO);
    }
}
