//! The data plane. One request: [`server`] takes it and answers from [`memory`] if it can; else [`cache`] looks it up on disk
//! or fetches it once ([`download`]; [`mutable`] for lists and branches, [`relay`] for the checksum database), and [`allowed`] keeps
//! what clients get of it within the [`policy`]; [`respond`] and [`body`] put the [`answer`] on the wire. [`look_ahead`] fetches
//! what comes next, and [`live`] keeps the configuration current.

mod access_log;
mod allowed;
mod answer;
mod body;
mod breakers;
mod cache;
mod connection;
mod download;
mod explain;
mod failures;
mod fetch_ahead;
mod guard;
mod kept;
mod labels;
mod live;
mod look_ahead;
mod memory;
mod mounted;
mod mutable;
mod packages;
mod policy;
mod relay;
mod report;
mod respond;
mod scrubber;
mod server;
mod verify;
mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use access_log::AccessLog;
use cache::Cache;
use guard::Guard;
use labels::Counters;
use live::{Lasting, Live};
use look_ahead::LookAhead;
use memory::Memory;

use crate::config::{self, ConfigError, Versions};
use crate::connections::{ListenError, listen};
use crate::source::EnvironmentError;
use crate::store::Store;
use crate::telemetry::{Health, Metrics, serve_admin};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the module endpoints.
    pub listen: SocketAddr,
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub admin_listen: SocketAddr,
    /// The cache's folder; created when it is missing.
    pub cache_dir: PathBuf,
    /// How many bytes the cache may hold. Absent: 95 % of the file system, unless the configuration says.
    pub cache_limit: Option<u64>,
    /// A [`crate::config::ProxyConfig`] file. Absent: the environment's `GOPROXY` and `GOSUMDB`, else `go env`.
    pub config: Option<PathBuf>,
    /// Hosts to which the environment's upstreams may redirect. A configuration file says it of each upstream.
    pub redirect_hosts: Vec<String>,
    /// The versions of that file that are read.
    pub config_versions: Versions,
    /// How long from one scrub of the cache to the next; none if zero. The first is half an hour after the start, or sooner if that is.
    pub scrub_every: Duration,
    /// How long to go on accepting connections when the token is cancelled, until everybody has heard of it.
    pub linger: Duration,
}

/// Why the proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that could not be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The cache's folder can't be used.
    #[error("can't use the cache folder {}: {source}", path.display())]
    Store {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The configuration is well formed and can't be put to work.
    #[error("{0}")]
    Source(String),
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The credentials, which are there.
    #[error("can't read {0}")]
    Unreadable(std::io::Error),
    /// A listener or the access log failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the proxy until the token is cancelled, then drains.
///
/// # Errors
/// The settings or the configuration can't be used.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    allow_many_connections();
    let metrics = Arc::new(Metrics::new()?);
    let store = Store::open(&settings.cache_dir, settings.cache_limit, &metrics)
        .map_err(|source| Error::Store { path: settings.cache_dir.clone(), source })?;
    let lasting = Lasting {
        store,
        memory: Arc::new(Memory::new()),
        metrics: Arc::clone(&metrics),
        journal: Arc::default(),
        config_versions: settings.config_versions.clone(),
    };
    let live = Arc::new(Live::load(&settings, lasting.clone()).await?);
    breakers::register(&metrics.registry, &live)?;
    let (modules, admin) = (listen(settings.listen).await?, listen(settings.admin_listen).await?);
    tracing::info!(
        modules = %modules.local_addr()?, admin = %admin.local_addr()?, cache = %settings.cache_dir.display(), "serving"
    );

    let health = Health::default();
    health.set_ready(true);
    // The admin server outlives the drain, so that the last requests are still counted where someone can read them.
    let admin_shutdown = CancellationToken::new();
    let Lasting { store, memory, journal, .. } = lasting.clone();
    let cache = Arc::new(Cache::new(store.clone(), Arc::clone(&live), memory));
    let guard = Guard::new(Arc::clone(&live), settings.admin_listen.ip().is_loopback());
    let report = report::router(Arc::clone(&live), store, guard.clone());
    let guarded = explain::router(Arc::clone(&cache), journal, guard).merge(report);
    let admin = tokio::spawn(serve_admin(admin, metrics.registry.clone(), health.clone(), guarded, admin_shutdown.clone()));
    let watcher = tokio::spawn(Arc::clone(&live).watch(shutdown.clone()));
    let scrubber = tokio::spawn(scrubber::run(lasting, live, settings.scrub_every, shutdown.clone()));
    let look_ahead = Arc::new(LookAhead::new(Arc::clone(&cache), Arc::clone(&metrics)));
    let ahead = tokio::spawn(Arc::clone(&look_ahead).run(shutdown.clone()));
    let service = server::Service {
        cache: Arc::clone(&cache),
        look_ahead,
        counters: Counters::new(&metrics),
        log: AccessLog::start(metrics.access_log_dropped.clone())?,
        metrics,
    };
    server::serve(modules, service, health, shutdown.clone(), settings.linger).await;
    cache.end().await;
    admin_shutdown.cancel();
    shutdown.cancel();
    let ended = [
        ("configuration watcher", watcher.await),
        ("look-ahead", ahead.await),
        ("scrubber", scrubber.await),
        ("admin server", admin.await),
    ];
    for (task, ended) in ended {
        if let Err(error) = ended {
            tracing::error!(%error, "the {task} failed");
        }
    }
    Ok(())
}

/// Reads a policy as a proxy does: one that can't be read makes it refuse the whole configuration.
///
/// # Errors
/// The first rule that can't be read, in one sentence that begins with its place.
pub fn check_policy(policy: &config::Policy) -> Result<(), String> {
    policy::Policy::of(policy).map(|_rules| ())
}

/// Raises the soft limit of open files to the hard one, as every Go program does. It is 1,024 in most containers, and each
/// client takes one.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, soft = limit.current, "can't raise the limit of open files");
    }
}
