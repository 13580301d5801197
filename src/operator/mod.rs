//! The control plane: from a `GoModuleCache` to its children and back to its status.
//!
//! dereference -> validate -> resolve -> build -> apply -> survey -> update_status, one file a step. A cache goes through them
//! first by what was seen of the cluster, which asks for nothing and writes nothing; and again by what there is now, if there was
//! something to write. So no write is decided by what may be old, and a cluster at rest is left alone.

mod apply;
mod build;
mod ca_bundles;
mod cluster_services;
mod compare;
mod conditions;
mod controller;
mod credentials;
pub mod defaults;
mod dereference;
mod egress;
mod events;
mod lease;
mod metrics;
mod pace;
mod paused;
mod polled;
mod probe;
mod reports;
mod rollout;
mod run;
mod scope;
mod sweep;
mod unavailable;
mod undecodable;
mod update_status;
mod validate;
mod verdict;
mod view;
mod volume;
mod watched;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use lease::Timing;
pub use rollout::RolloutLimits;
pub use scope::Scope;

use view::View;

use crate::api::{GoModuleCache, GoModuleCacheStatus};
use crate::config::Versions;
use crate::connections::ListenError;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it works.
    pub scope: Scope,
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// The upstreams of a cache that names none, in GOPROXY's syntax.
    pub goproxy: String,
    /// The checksum database of every cache, in GOSUMDB's syntax; `off` for none.
    pub gosumdb: String,
    /// Hosts to which the default upstreams may redirect.
    pub redirect_hosts: Vec<String>,
    /// Hosts of the default upstreams and of the checksum database that may have private addresses.
    pub internal_hosts: Vec<String>,
    /// The image of the proxies.
    pub proxy_image: String,
    /// How a change of that image, or of the pods that this release makes, reaches the caches.
    pub rollouts: RolloutLimits,
    /// Name servers to ask in place of the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Namespaces whose pods may reach the admin port of every cache, besides the operator's own.
    pub monitoring_namespaces: Vec<String>,
    /// Whether a Secret is used only for the hosts that its annotation names.
    pub require_host_annotation: bool,
    /// The versions of the proxies' configuration that are written.
    pub config_versions: Versions,
    /// How long a lead lasts; see [`Timing::check`].
    pub election: Timing,
    /// No period is longer than this, for tests.
    pub longest_period: Option<Duration>,
}

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that could not be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A fault of the machine.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No way to the API server.
    #[error("can't use the API server: {0}")]
    Client(#[from] kube::Error),
    /// The times of the leader election.
    #[error("{0}")]
    Election(String),
    /// The command line's GOPROXY or GOSUMDB.
    #[error(transparent)]
    Defaults(#[from] defaults::DefaultsError),
    /// A metric's name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// No way to ask pods.
    #[error("can't make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Why one reconcile failed.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error("the {0} could not be listed yet; has the operator's role list and watch of {0}?")]
    Unlisted(&'static str),
    #[error("took longer than a minute")]
    TimedOut,
}

/// What every reconcile shares.
struct Context {
    client: Client,
    metrics: metrics::Metrics,
    events: events::Events,
    egress: egress::Egress,
    memory: view::Memory,
    reports: reports::Reports,
    rollouts: rollout::Rollouts,
    defaults: defaults::Defaults,
    settings: Settings,
    /// Who may reach the admin port of every cache: the operator's namespace first.
    admin_namespaces: Vec<String>,
    /// For caches that ask the API server and write.
    places: Semaphore,
    /// The process is to end.
    ending: CancellationToken,
    pace: pace::Pace,
}

/// Runs the controller until the token is cancelled.
///
/// # Errors
/// The settings can't be used, or there is no API server to talk to.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    run::run(settings, shutdown).await
}

/// For all that one look asks and writes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One reconcile; says when to look again, or `None` to wait for a change.
async fn reconcile(context: &Context, cache: &GoModuleCache) -> Result<Option<Duration>, ReconcileError> {
    // At the end of a term nothing will be listed any more.
    let Some(listed) = context.ending.run_until_cancelled(context.memory.watched.children_listed()).await else { return Ok(None) };
    // The first look of a term asks, as all do that write; after a start it is everybody's turn.
    let is_first = !context.egress.is_seeded(cache.meta().uid.as_deref().unwrap_or_default());
    let place = if is_first { Some(context.places.acquire().await) } else { None };
    if listed {
        let seen = Box::pin(tokio::time::timeout(PATIENCE, look(context, cache, false)));
        if let Some(Look { status, next }) = seen.await.map_err(|_elapsed| ReconcileError::TimedOut)??
            && cache.status.as_ref() == Some(&status)
        {
            return Ok(next);
        }
    }
    let _place = match place {
        Some(place) => place,
        None => context.places.acquire().await,
    };
    let work = Box::pin(tokio::time::timeout(PATIENCE, carry_out(context, cache)));
    work.await.map_err(|_elapsed| ReconcileError::TimedOut)?
}

/// Makes the cluster as it should be, by what there is now.
async fn carry_out(context: &Context, cache: &GoModuleCache) -> Result<Option<Duration>, ReconcileError> {
    let Some(Look { status, next }) = Box::pin(look(context, cache, true)).await? else { return Ok(None) };
    update_status::update_status(&context.client, &context.metrics, cache, status.clone()).await?;
    context.events.tell(cache, &status).await;
    Ok(next)
}

/// What a look at a cache came to.
struct Look {
    status: GoModuleCacheStatus,
    next: Option<Duration>,
}

/// All steps but the last. `live`: by what there is now, and with writes. Otherwise by what was seen; `None` then means that
/// there is something to write.
async fn look(context: &Context, cache: &GoModuleCache, live: bool) -> Result<Option<Look>, ReconcileError> {
    let Context { client, metrics, egress, memory, reports, rollouts, defaults, settings, admin_namespaces, pace, .. } = context;
    let view = View { client, memory, live };
    let (namespace, uid) = (cache.namespace().unwrap_or_default(), cache.meta().uid.clone().unwrap_or_default());

    let referenced = dereference::dereference(view, cache, &namespace, &uid, egress.is_seeded(&uid), settings).await?;
    let valid = match validate::validate(cache, &referenced.ca_bundles, defaults, &settings.proxy_image) {
        Ok(valid) => valid,
        Err(fault) => return Ok(Some(Look { status: update_status::invalid(cache, fault.to_string()), next: None })),
    };
    let valid = validate::Validated { sharing: build::Sharing::with(&valid, referenced.claim.as_ref()), ..valid };
    let listed: Vec<String> = cache.spec.listed_namespaces(&namespace).cloned().collect();
    let (guests, beyond) = if listed.is_empty() {
        (Vec::new(), Vec::new())
    } else if settings.scope != Scope::Cluster {
        (Vec::new(), listed)
    } else {
        // Not to know is no reason to close the fence to a namespace.
        let asking = memory.watched.asking(&namespace, &valid.names.cache).await.ok_or(ReconcileError::Unlisted("namespaces"))?;
        (asking.into_iter().filter(|namespace| listed.contains(namespace)).collect(), Vec::new())
    };
    if !memory.watched.deployments.is_listed() {
        return Err(ReconcileError::Unlisted("deployments"));
    }
    let Some((image, kept, turn)) = rollouts.begin(view, metrics, &valid).await? else { return Ok(None) };
    let valid = validate::Validated { guests, beyond, image, kept, ..valid };
    let resolved = egress.resolve(&uid, &valid.needs, &referenced.pinned).await;
    let services = cluster_services::among(view, &settings.scope, &valid, &resolved).await?;
    let resolved = egress::Resolved { services, ..resolved };
    let credentials = credentials::collect(
        &namespace,
        &valid.wanted,
        &referenced.secrets,
        &referenced.previous,
        settings.require_host_annotation,
        || format!("{:032x}", rand::random::<u128>()),
    );
    let prepared =
        build::build(&valid, &resolved, credentials.data.clone(), referenced.claim.as_ref(), admin_namespaces, &settings.config_versions)?;
    let applied = Box::pin(apply::apply(view, metrics, &valid.names.cache, &uid, cache.spec.paused, prepared)).await?;
    if !live && !cache.spec.paused && !applied.pending.is_empty() {
        return Ok(None);
    }
    if live && let Some(secret) = &applied.credentials {
        memory.polls.credentials.note(&namespace, &valid.names.credentials, Some(secret.clone()), Instant::now());
    }
    let survey = Box::pin(reports.survey(view, metrics, &uid, &applied)).await?;
    if survey.wants_refresh {
        return Ok(None);
    }
    let Some(rolled_out) = rollouts.end(view, metrics, &valid, &turn, &applied, &survey).await? else { return Ok(None) };
    let status = update_status::status(&valid, &applied, &credentials, &resolved, &referenced.class, &survey, rolled_out);
    let status = if cache.spec.paused { paused::status(cache, &applied, status) } else { status };

    let polled = dereference::next_turn(view, cache, &namespace);
    let next = pace.of(unasked(&valid, &applied, &turn)).mul_f64(1.0 + rand::random::<f64>() / 8.0);
    let next = [polled, resolved.next, survey.next].into_iter().flatten().fold(next, Duration::min).max(Duration::from_secs(1));
    Ok(Some(Look { status, next: Some(next) }))
}

/// When a cache is looked at again without a reason: soon while it waits for something that nobody tells of.
fn unasked(cache: &validate::Validated, applied: &apply::Applied, turn: &rollout::Turn) -> Duration {
    // Nobody tells a cache that another's roll-out has ended.
    if matches!(turn, rollout::Turn::Waiting { .. } | rollout::Turn::Rolling(_)) {
        return Duration::from_secs(5);
    }
    let bound = |claim: &PersistentVolumeClaim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let waits = !applied.conflicts.is_empty() || !applied.refused.is_empty() || !applied.pending.is_empty();
    // A ConfigMap in another namespace has no owner to tell.
    let soon = waits || !cache.guests.is_empty() || !applied.claim.as_ref().is_some_and(bound);
    Duration::from_secs(if soon { 13 } else { 50 })
}
