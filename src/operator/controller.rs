//! The loop round the reconcile: watches, back-off, readiness and shutdown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::build::{ENV_FROM, INSTANCE, MANAGED_BY};
use super::defaults::Defaults;
use super::egress::{Egress, Resolver};
use super::metrics::Metrics;
use super::reports::Reports;
use super::watched::Watched;
use super::{Context, Error, ReconcileError, Settings};
use crate::api::GoModuleCache;
use crate::telemetry::{Health, serve_admin};

/// An object that may not decode: then it is that object's problem and not the watch's.
type Guarded = DeserializeGuard<GoModuleCache>;

struct Loop {
    context: Context,
    failures: Mutex<HashMap<String, u32>>,
}

pub(super) async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    let defaults = Defaults::parse(&settings.goproxy, &settings.gosumdb, &settings.redirect_hosts)?;
    let egress = Egress::new(Resolver::new(&settings.name_servers)?);
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let health = Health::default();
    let listener = tokio::net::TcpListener::bind(settings.admin_listen).await?;
    let admin = tokio::spawn(serve_admin(listener, registry, health.clone(), axum::Router::new(), shutdown.clone()));
    let client = Client::try_default().await?;
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "gomodcache-system".to_owned());
    let (watched, reports) = (Watched::default(), Reports::new()?);
    let context = Context { client: client.clone(), metrics, egress, watched, reports, defaults, settings, namespace };
    let state = Arc::new(Loop { context, failures: Mutex::default() });

    let ours = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let (pods, namespaces) = (state.context.watched.follow_pods(&client), state.context.watched.follow_namespaces(&client));
    let caches = Api::<Guarded>::all(client.clone());
    let controller = Controller::new(caches.clone(), watcher::Config::default())
        .owns(Api::<ServiceAccount>::all(client.clone()), ours.clone())
        .owns(Api::<ConfigMap>::all(client.clone()), ours.clone())
        .owns(Api::<Service>::all(client.clone()), ours.clone())
        .owns(Api::<Deployment>::all(client.clone()), ours.clone())
        .owns(Api::<NetworkPolicy>::all(client.clone()), ours.clone())
        .owns(Api::<PodDisruptionBudget>::all(client.clone()), ours.clone())
        // By label: whether a pod is ours, the reconcile finds out.
        .watches_stream(pods, |pod| by_label(&pod.metadata))
        .watches_stream(namespaces, |namespace| {
            let (cache_namespace, cache) = namespace.labels().get(ENV_FROM)?.split_once('.')?;
            Some(ObjectRef::<Guarded>::new(cache).within(cache_namespace))
        })
        // By label and not by owner: under Retain a claim has none.
        .watches(Api::<PersistentVolumeClaim>::all(client.clone()), ours, |claim| by_label(&claim.metadata))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned());
    let ready = tokio::spawn(await_api_server(caches, health));
    let (store, shared) = (controller.store(), Arc::clone(&state));
    let Context { client, metrics, watched, .. } = &shared.context;
    let reconciling = controller.run(reconcile, on_error, state).for_each(|result| async move {
        if let Err(error) = result {
            tracing::debug!(%error, "controller");
        }
    });
    tokio::select! {
        () = reconciling => {}
        () = super::sweep::run(client, metrics, &store, watched) => {}
    }
    ready.abort();
    if let Ok(served) = admin.await {
        served?;
    }
    Ok(())
}

/// The cache that a label names.
fn by_label(meta: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let cache = meta.labels.as_ref()?.get(INSTANCE)?;
    Some(ObjectRef::new(cache).within(meta.namespace.as_ref()?))
}

/// Ready means: the API server serves our kind to us. Not "the first list is in the store": with no cache in the cluster
/// that was never reported, and a Deployment without caches must become available too.
async fn await_api_server(caches: Api<Guarded>, health: Health) {
    while let Err(error) = caches.list_metadata(&ListParams::default().limit(1)).await {
        tracing::warn!(%error, "waiting for the API server to serve GoModuleCache objects; is the CRD installed?");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    health.set_ready(true);
}

async fn reconcile(object: Arc<Guarded>, state: Arc<Loop>) -> Result<Action, ReconcileError> {
    let cache = match &object.0 {
        Ok(cache) => cache,
        Err(invalid) => {
            tracing::warn!(namespace = invalid.metadata.namespace, name = invalid.metadata.name, error = %invalid.error, "undecodable");
            state.context.metrics.reconcile("undecodable");
            return Ok(Action::await_change());
        }
    };
    // The garbage collector takes the children; making them again would only be in its way.
    if cache.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let work = Box::pin(super::reconcile(&state.context, cache));
    let next = tokio::time::timeout(Duration::from_secs(60), work).await.map_err(|_elapsed| ReconcileError::TimedOut)??;
    state.context.metrics.reconcile("ok");
    state.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(&object));
    Ok(next.map_or_else(Action::await_change, |wait| Action::requeue(wait.mul_f64(0.85 + 0.15 * rand::random::<f64>()))))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that the controller calls")]
fn on_error(object: Arc<Guarded>, error: &ReconcileError, state: Arc<Loop>) -> Action {
    tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "reconcile failed");
    state.context.metrics.reconcile("error");
    let mut failures = state.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(key(&object)).or_default();
    *count = count.saturating_add(1);
    Action::requeue(backoff(*count, rand::random::<f64>()))
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
    use super::*;

    #[test]
    fn back_off_grows_and_is_bounded() {
        assert_eq!(backoff(1, 0.0), Duration::from_millis(500));
        assert_eq!(backoff(2, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(60));
        assert_eq!(backoff(2, 1.0), Duration::from_millis(500));
    }
}
