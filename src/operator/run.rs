//! The process round the controller: the admin address, the lease, and one term after another.

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use prometheus::Registry;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::defaults::Defaults;
use super::egress::{Egress, Resolver};
use super::events::Events;
use super::lease::{Candidate, Gate, Leadership};
use super::metrics::Metrics;
use super::pace::Pace;
use super::polled::Polls;
use super::probe::{Served, probe};
use super::reports::Reports;
use super::rollout::Rollouts;
use super::view::Memory;
use super::watched::Watched;
use super::{Context, Error, Settings, controller};
use crate::connections::listen;
use crate::telemetry::{Health, serve_admin};

/// How long reconciles that are under way may take to end at shutdown. Longer, and the lease is left to run out.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// How many caches may be asking and writing at once: after a start all of them may want to, and each has a minute.
const AT_ONCE: usize = 32;

pub(super) async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    settings.election.check().map_err(Error::Election)?;
    let defaults = Defaults::parse(&settings.goproxy, &settings.gosumdb, &settings.redirect_hosts, &settings.internal_hosts)?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let health = Health::default();
    let listener = listen(settings.admin_listen).await?;
    tracing::info!(admin = %listener.local_addr()?, "serving");
    let admin = tokio::spawn(serve_admin(listener, registry, health.clone(), axum::Router::new(), shutdown.clone()));

    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "gomodcache-system".to_owned());
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "gomodcache-operator".to_owned());
    let config = config(&pod).await?;
    let (word, leadership) = Leadership::new();
    let client = ClientBuilder::try_from(config.clone())?.with_layer(&Gate::new(leadership.clone())).build();
    let identity = format!("{pod}_{:032x}", rand::random::<u128>());
    let candidate = Candidate::new(Client::try_from(config)?, &namespace, identity, settings.election, word);
    let writes_ended = CancellationToken::new();
    let candidate = tokio::spawn(candidate.run(writes_ended.clone()));
    let (told, served) = watch::channel(Served::Unknown);
    let pace = Pace::new(settings.longest_period);
    let probing = tokio::spawn(probe(client.clone(), settings.scope.clone(), health.clone(), told, pace, shutdown.clone()));

    let office = Office { client, metrics, health, defaults, settings, namespace, pod, leadership, served };
    if Box::pin(office.serve(&shutdown)).await? {
        writes_ended.cancel();
    } else {
        tracing::warn!("reconciles did not end in time: the lease is left to run out");
        candidate.abort();
    }
    let _aborted = candidate.await;
    let _done = probing.await;
    let _served = admin.await;
    Ok(())
}

/// The way to the API server, with the pod's name on every request, for its audit log.
async fn config(pod: &str) -> Result<Config, Error> {
    let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    // It would repeat a write on this side of the gate, after seconds.
    config.default_retry = false;
    let agent = format!("gomodcache-operator/{} ({pod})", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        config.headers.push((USER_AGENT, agent));
    }
    Ok(config)
}

struct Office {
    client: Client,
    metrics: Metrics,
    health: Health,
    defaults: Defaults,
    settings: Settings,
    namespace: String,
    pod: String,
    leadership: Leadership,
    served: watch::Receiver<Served>,
}

impl Office {
    /// A term for each time that the lead is won and the kind is served. Whether the last ended in time.
    async fn serve(&self, shutdown: &CancellationToken) -> Result<bool, Error> {
        loop {
            let begin = async {
                self.leadership.acquired().await;
                self.metrics.leader(true);
                self.until_served(|served| served == Served::Yes).await;
            };
            if shutdown.run_until_cancelled(begin).await.is_none() {
                return Ok(true);
            }
            let term = controller::term(self.context(shutdown)?, self.health.clone(), shutdown.clone());
            let outcome = tokio::select! {
                biased;
                () = self.leadership.lost() => Some("another operator leads, or the API server can't be reached"),
                () = self.until_served(|served| served == Served::NoCrd) => Some("the CustomResourceDefinition has gone"),
                drained = drain(term, shutdown) => return Ok(drained),
            };
            // Dropped: what was under way ends at its next step, and the gate holds back its writes.
            self.health.expect_no_beat();
            self.metrics.leader(self.leadership.holds());
            self.metrics.forget();
            tracing::info!(why = outcome, "stopped reconciling");
        }
    }

    async fn until_served(&self, is: fn(Served) -> bool) {
        if self.served.clone().wait_for(|served| is(*served)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Each term begins with what lies in the cluster: what this process remembers, another may have changed since.
    fn context(&self, ending: &CancellationToken) -> Result<Context, Error> {
        let Self { client, metrics, defaults, settings, namespace, pod, .. } = self;
        let pace = Pace::new(settings.longest_period);
        let egress = Egress::new(Resolver::new(&settings.name_servers)?, pace);
        Ok(Context {
            client: client.clone(),
            metrics: metrics.clone(),
            events: Events::new(client.clone(), metrics.clone(), pod.clone()),
            egress,
            memory: Memory { watched: Watched::default(), polls: Polls::new(pace) },
            reports: Reports::new(pace)?,
            rollouts: Rollouts::new(settings.rollouts),
            places: Semaphore::new(AT_ONCE),
            ending: ending.clone(),
            pace,
            defaults: defaults.clone(),
            settings: settings.clone(),
            admin_namespaces: std::iter::once(namespace).chain(&settings.monitoring_namespaces).cloned().collect(),
        })
    }
}

async fn drain(term: impl Future<Output = ()>, shutdown: &CancellationToken) -> bool {
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = term => true,
        () = late => false,
    }
}
