//! Takes back the clients' environment from namespaces: where the cache is gone or lists them no more, or where they ask no more.
//! Such a ConfigMap lies outside the cache's namespace, so that no owner reference can do it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};

use super::apply::delete;
use super::build::names::Names;
use super::build::{ENV_CACHE_UID, ENV_FROM};
use super::metrics::Metrics;
use super::pace::Pace;
use super::watched::Watched;
use crate::api::GoModuleCache;

const EVERY: Duration = Duration::from_secs(15);

/// Sweeps for as long as it is polled.
pub(super) async fn run(
    client: &Client,
    metrics: &Metrics,
    caches: &Store<DeserializeGuard<GoModuleCache>>,
    watched: &Watched,
    pace: Pace,
) {
    loop {
        tokio::time::sleep(pace.of(EVERY)).await;
        // What has not been listed yet looks as if it had gone.
        if caches.wait_until_ready().await.is_err() || !watched.namespaces.listed().await || !watched.config_maps.listed().await {
            continue;
        }
        if let Err(error) = sweep(client, metrics, caches, watched).await {
            tracing::warn!(%error, "can't take back the environment of clients; trying again");
        }
    }
}

async fn sweep(
    client: &Client,
    metrics: &Metrics,
    caches: &Store<DeserializeGuard<GoModuleCache>>,
    watched: &Watched,
) -> Result<(), kube::Error> {
    for env in watched.config_maps.seen.state_filter(|config_map| config_map.labels().contains_key(ENV_FROM)) {
        let Some(namespace) = env.namespace().filter(|namespace| !is_wanted(&env, namespace, caches, watched)) else { continue };
        delete(&Api::<ConfigMap>::namespaced(client.clone(), &namespace), metrics, &env.metadata).await?;
    }
    Ok(())
}

fn is_wanted(env: &ConfigMap, namespace: &str, caches: &Store<DeserializeGuard<GoModuleCache>>, watched: &Watched) -> bool {
    let asked = env.labels().get(ENV_FROM);
    let Some((cache_namespace, name)) = asked.and_then(|asked| asked.split_once('.')) else { return false };
    let asks = watched.namespaces.seen.get(&ObjectRef::new(namespace)).is_some_and(|namespace| namespace.labels().get(ENV_FROM) == asked);
    let guarded = caches.get(&ObjectRef::new(name).within(cache_namespace));
    let cache = match guarded.as_deref().map(|guarded| &guarded.0) {
        Some(Ok(cache)) => cache,
        // Nobody knows what it wants.
        Some(Err(_)) => return asks && env.name_any() == Names::new(name).env,
        None => return false,
    };
    let is_it = cache.metadata.uid.as_ref() == env.labels().get(ENV_CACHE_UID) && cache.metadata.deletion_timestamp.is_none();
    if is_it && cache.spec.paused {
        return true;
    }
    let lists = is_it && cache.spec.listed_namespaces(cache_namespace).any(|listed| listed == namespace);
    asks && lists && env.name_any() == Names::new(name).env
}
