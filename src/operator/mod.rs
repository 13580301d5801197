//! The control plane: from a `GoModuleCache` to its children and back to its status.
//!
//! dereference -> validate -> resolve -> build -> apply -> survey -> update_status, one file a step.

mod apply;
mod build;
mod ca_bundles;
mod conditions;
mod controller;
mod credentials;
pub mod defaults;
mod dereference;
mod egress;
mod events;
mod lease;
mod metrics;
mod paused;
mod probe;
mod reports;
mod rollout;
mod run;
mod scope;
mod sweep;
mod update_status;
mod validate;
mod watched;

use std::net::SocketAddr;
use std::time::Duration;

use kube::{Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

pub use lease::Timing;
pub use rollout::Pace;
pub use scope::Scope;

use crate::api::GoModuleCache;
use crate::config::Versions;

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
    /// The image of the proxies.
    pub proxy_image: String,
    /// How a change of that image reaches the caches.
    pub rollouts: Pace,
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
}

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that could not be used.
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
    watched: watched::Watched,
    reports: reports::Reports,
    rollouts: rollout::Rollouts,
    defaults: defaults::Defaults,
    settings: Settings,
    /// Who may reach the admin port of every cache: the operator's namespace first.
    admin_namespaces: Vec<String>,
}

/// Runs the controller until the token is cancelled.
///
/// # Errors
/// The settings can't be used, or there is no API server to talk to.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    run::run(settings, shutdown).await
}

/// One reconcile; says when to look again, or `None` to wait for a change.
async fn reconcile(context: &Context, cache: &GoModuleCache) -> Result<Option<Duration>, ReconcileError> {
    let Context { client, metrics, events, egress, watched, reports, rollouts, defaults, settings, admin_namespaces } = context;
    let (namespace, uid) = (cache.namespace().unwrap_or_default(), cache.meta().uid.clone().unwrap_or_default());

    let referenced = dereference::dereference(client, cache, &namespace, &uid, settings).await?;
    let valid = match validate::validate(cache, &referenced.ca_bundles, defaults, &settings.proxy_image) {
        Ok(valid) => valid,
        Err(fault) => {
            let status = update_status::invalid(cache, fault.to_string());
            update_status::update_status(client, metrics, cache, status.clone()).await?;
            events.tell(cache, &status).await;
            return Ok(None);
        }
    };
    let listed: Vec<String> = cache.spec.listed_namespaces(&namespace).cloned().collect();
    let (guests, beyond) = if listed.is_empty() {
        (Vec::new(), Vec::new())
    } else if settings.scope != Scope::Cluster {
        (Vec::new(), listed)
    } else {
        // Not to know is no reason to close the fence to a namespace.
        let asking = watched.asking(&namespace, &valid.names.cache).await.ok_or(ReconcileError::Unlisted("namespaces"))?;
        (asking.into_iter().filter(|namespace| listed.contains(namespace)).collect(), Vec::new())
    };
    if !watched.deployments_listed().await {
        return Err(ReconcileError::Unlisted("deployments"));
    }
    let (image, turn) = rollouts.begin(client, metrics, &watched.deployments, &valid).await?;
    let valid = validate::Validated { guests, beyond, image, ..valid };
    let resolved = egress.resolve(&uid, &valid.needs, &referenced.pinned).await;
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
    let applied = Box::pin(apply::apply(client, metrics, &valid.names.cache, &uid, cache.spec.paused, prepared)).await?;
    let survey = Box::pin(reports.survey(client, metrics, watched, &uid, &applied)).await?;
    let rolled_out = rollouts.end(client, metrics, &valid, &turn, &applied, &survey).await?;
    let status = update_status::status(&valid, &applied, &credentials, &resolved, &referenced.class, &survey, rolled_out);
    let status = if cache.spec.paused { paused::status(cache, &applied, status) } else { status };
    update_status::update_status(client, metrics, cache, status.clone()).await?;
    events.tell(cache, &status).await;

    Ok(Some(next_look(!valid.wanted.is_empty(), [resolved.next, survey.next])))
}

/// Secrets and classes are not watched, so they are looked at again: Secrets that a user rotates soon, the rest later.
fn next_look(has_secrets: bool, next: [Option<Duration>; 2]) -> Duration {
    let poll = Duration::from_secs(if has_secrets { 5 } else { 15 });
    next.into_iter().flatten().fold(poll, Duration::min).max(Duration::from_secs(1))
}
