//! One upstream: how often it is asked, what its status means, and what is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use prometheus::IntCounter;
use reqwest::Client;
use url::Url;

use super::credential::{Held, Which};
use super::door::{Door, Probe};
use super::facts::{Facts, shows_acceptance};
use super::fault::chain_text;
use super::http_proxy::Through;
use super::known::Known;
use super::resolve::Resolver;
use super::transfer::{Transfer, here};
use super::{Class, Fault, FetchError, Fetched, Journal, Wanted};
use crate::config::{self, Credential, Fallback, Resolution, Timeouts};
use crate::telemetry::Metrics;

/// In a row, that bring nothing.
const ATTEMPTS: u32 = 3;
/// An upstream that asks for a longer pause is not waited for: the client hears of it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3);

/// What all upstreams of a configuration have in common.
pub(super) struct Shared<'a> {
    pub(super) resolution: &'a Resolution,
    pub(super) proxy: Option<Through>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) journal: &'a Arc<Journal>,
}

/// One upstream, ready to be asked.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) url: Url,
    pub(super) fallback: Fallback,
    pub(super) internal: bool,
    pub(super) host: String,
    pub(super) redirect_hosts: Vec<String>,
    pub(super) credential: Option<Held>,
    pub(super) client: Client,
    pub(super) resolver: Resolver,
    pub(super) proxy: Option<Through>,
    pub(super) timeouts: Timeouts,
    pub(super) metrics: Arc<Metrics>,
    pub(super) facts: Facts,
    pub(super) known: Known,
    pub(super) bytes: IntCounter,
    /// The same upstream in the next configuration.
    successor: OnceLock<Arc<Self>>,
    journal: Arc<Journal>,
    /// By host: its own, and those that it redirects to, which the configuration names.
    doors: Mutex<BTreeMap<String, Arc<Door>>>,
}

impl Upstream {
    pub(super) fn new(config: &config::Upstream, credential: Option<&Credential>, shared: &Shared<'_>) -> Result<Self, String> {
        let Shared { resolution, proxy, metrics, journal } = shared;
        let host = config.url.host_str().unwrap_or("localhost").to_ascii_lowercase();
        let alone = matches!(resolution, Resolution::System { private_addresses: true });
        if config.url.scheme() == "http" && !config.internal && !alone {
            return Err(format!("{}: plain http needs internal: true", config.url));
        }
        let mut resolver = Resolver::new(resolution, config.internal);
        if let Some(proxy) = proxy {
            resolver = resolver.allowing(proxy.host());
        }
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timeouts.connect)
            // All requests share one HTTP/2 connection. When its other end is gone and something between still acknowledges what is
            // sent, nothing but a ping finds that out: every later request and every probe would wait on it. It may take as long to
            // answer as a new connection may.
            .http2_keep_alive_interval(config.timeouts.connect)
            .http2_keep_alive_timeout(config.timeouts.connect)
            .http2_keep_alive_while_idle(true)
            // A header that is not as it should be, and that nobody here reads, is no reason to refuse what go commands take.
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .user_agent(concat!("gomodcache/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(resolver.clone()));
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy.intercept());
        }
        if let Some(pem) = &config.ca_bundle {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|e| format!("{host}: caBundle: {e}"))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client =
            builder.build().map_err(|e| format!("{host}: can't make a TLS client (are CA certificates installed?): {}", chain_text(&e)))?;
        let credential = config.credential.clone().map(|name| Held::new(name, credential.cloned()));
        let bytes = metrics.upstream_bytes.with_label_values(&[&host]);
        Ok(Self {
            url: config.url.clone(),
            fallback: config.fallback,
            internal: config.internal,
            host,
            redirect_hosts: config.redirect_hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            credential,
            client,
            resolver,
            timeouts: config.timeouts,
            proxy: proxy.clone(),
            metrics: Arc::clone(metrics),
            facts: Facts::default(),
            known: Known::new(),
            bytes,
            successor: OnceLock::new(),
            journal: Arc::clone(journal),
            doors: Mutex::default(),
        })
    }

    /// Asks for one object, a few times if that may help, and as long as each brings more of a zip. Counts every try. Each is made as
    /// the configuration of its time says: a broken zip goes on with the credential and at the addresses of now.
    pub(super) async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let mut transfer = Transfer::default();
        loop {
            let upstream = self.of_now();
            if wanted.is_private && !upstream.internal {
                return Err(FetchError::Private);
            }
            let probe = upstream.admit(wanted, transfer.is_retry).await?;
            let result = upstream.counted(wanted, &mut transfer).await;
            drop(probe);
            let pause = match (&result, transfer.tried(here(wanted))) {
                (Err(FetchError::Fault(fault)), Some(in_vain)) if in_vain < ATTEMPTS => pause(fault, in_vain),
                _ => None,
            };
            let Some(pause) = pause else { return result };
            tokio::time::sleep(pause).await;
        }
    }

    /// One try, counted.
    async fn counted(&self, wanted: &Wanted, transfer: &mut Transfer) -> Result<Fetched, FetchError> {
        self.metrics.upstream_endpoint_requests.with_label_values(&[wanted.endpoint]).inc();
        let started = Instant::now();
        let result = self.try_fetch(wanted, transfer).await;
        let (host, class, reason) = match &result {
            Ok(_) => (&self.host, "ok", None),
            Err(FetchError::NotFound { .. }) => (&self.host, "not_found", None),
            // Maybe of a host that it redirects to.
            Err(FetchError::Fault(fault)) => (&fault.host, fault.label(), Some(fault.reason.clone())),
            // The cache's own trouble with what it answered.
            Err(error) => (&self.host, "ok", Some(error.to_string())),
        };
        let elapsed = started.elapsed();
        self.metrics.upstream_requests.with_label_values(&[host, class]).inc();
        self.metrics.upstream_duration.with_label_values(&[host]).observe(elapsed.as_secs_f64());
        self.journal.note(&wanted.path, host, class, reason, elapsed);
        self.note(wanted, &result, started, transfer.is_retry);
        result
    }

    /// The same upstream as the configuration in use has it.
    fn of_now(&self) -> &Self {
        let mut upstream = self;
        while let Some(next) = upstream.successor.get() {
            upstream = next;
        }
        upstream
    }

    /// Takes over what the configuration before has found out, if this is the same upstream, and the downloads that it began.
    pub(super) fn take_over(self: &Arc<Self>, before: &[Arc<Self>]) {
        let Some(before) = before.iter().find(|before| before.url == self.url) else { return };
        let is_same_credential = match (&self.credential, &before.credential) {
            (Some(held), Some(before)) => {
                held.take_over(before);
                held.is_same(before)
            }
            (held, before) => held.is_none() && before.is_none(),
        };
        self.facts.take_over(&before.facts, &self.redirect_hosts, is_same_credential);
        if is_same_credential {
            self.known.take_over(&before.known);
        }
        // Whether a host answers is a matter of where it is dialled, and of nothing else in a configuration.
        let doors = before
            .doors()
            .iter()
            .filter(|(host, _)| self.resolver.dials_alike(&before.resolver, host))
            .map(|(host, door)| (host.clone(), Arc::clone(door)))
            .collect();
        *self.doors() = doors;
        // Of two entries with one URL the first one has it.
        let _another_has_it = before.successor.set(Arc::clone(self));
    }

    /// An answer to a request that carried a credential.
    pub(super) fn note_verdict(&self, held: &Held, which: Which, status: StatusCode) {
        if which == Which::New {
            self.facts.answered(status);
        }
        if shows_acceptance(status) {
            held.accepted(which);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let metric = self.metrics.credential_success.with_label_values(&[held.name(), &self.host]);
            metric.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
    }

    /// Says when the credential expires, if it says so itself.
    pub(super) fn publish_expiry(&self) {
        let Some(labels) = self.credential_labels() else { return };
        let expires = self.credential.as_ref().and_then(Held::newest).and_then(|credential| credential.secret.expires());
        match expires {
            Some(expires) => self.metrics.credential_expiry.with_label_values(&labels).set(expires),
            None => drop(self.metrics.credential_expiry.remove_label_values(&labels)),
        }
    }

    /// No upstream uses the credential any more.
    pub(super) fn forget_credential(&self) {
        if let Some(labels) = self.credential_labels() {
            let metrics = [&self.metrics.credential_success, &self.metrics.credential_expiry];
            // It may never have had a value.
            metrics.into_iter().for_each(|metric| drop(metric.remove_label_values(&labels)));
        }
    }

    /// The labels of the credential's metrics, if there is one.
    pub(super) fn credential_labels(&self) -> Option<[&str; 2]> {
        self.credential.as_ref().map(|held| [held.name(), self.host.as_str()])
    }

    /// Whether it may be asked now. What was let through once keeps its retries: one connection that broke under many downloads
    /// must not end them all.
    async fn admit(&self, wanted: &Wanted, is_retry: bool) -> Result<Option<Probe>, FetchError> {
        if wanted.gives_way() && self.is_in_trouble() {
            return Err(FetchError::HeldBack);
        }
        if is_retry {
            return Ok(None);
        }
        self.pass(&self.door(&self.host), wanted).await.map_err(|wait| match wait {
            Some(wait) => {
                self.metrics.upstream_requests.with_label_values(&[&self.host, "breaker"]).inc();
                self.held_back(wait).into()
            }
            None => FetchError::HeldBack,
        })
    }

    /// Goes through a door, or says how long that would have to wait. What no client waits for does not wait for anybody's probe:
    /// a client that comes meanwhile begins anew, and waits itself.
    pub(super) async fn pass(&self, door: &Arc<Door>, wanted: &Wanted) -> Result<Option<Probe>, Option<Duration>> {
        let patience = if wanted.gives_way() { Duration::ZERO } else { self.timeouts.connect };
        door.pass(patience).await.map_err(|wait| Some(wait).filter(|_| !wanted.gives_way()))
    }

    pub(super) fn held_back(&self, wait: Duration) -> Fault {
        let reason = format!("has not answered lately; it is asked again in {:.1} s", wait.as_secs_f32());
        Fault { is_held_back: true, ..self.fault(Class::Connect, reason) }
    }

    /// Whether it had a problem a moment ago.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.door(&self.host).is_in_trouble()
    }

    fn note(&self, wanted: &Wanted, result: &Result<Fetched, FetchError>, asked: Instant, is_retry: bool) {
        let now = Instant::now();
        self.door(&self.host).note(|breaker| match result {
            Err(FetchError::Fault(fault)) if fault.is_silence() && fault.host == self.host => {
                // What is wrong with one object proves nothing more when it is asked for again.
                if is_retry { breaker.troubled(now) } else { breaker.failed(asked, fault.began(asked), now) }
            }
            // Nobody need relay a database: to refuse it is no sign of trouble.
            Err(FetchError::Fault(fault)) if fault.class.is_trouble() && !wanted.is_offer() => breaker.complained(now),
            _ => breaker.answered(),
        });
    }

    /// Its host and those that it may redirect to, and whether requests to each are held back.
    pub(super) fn breakers(&self) -> Vec<(&str, bool)> {
        let doors = self.doors();
        let hosts = std::iter::once(&self.host).chain(&self.redirect_hosts);
        hosts.map(|host| (host.as_str(), doors.get(host).is_some_and(|door| door.is_shut()))).collect()
    }

    /// The door of its own host, or of one that it may redirect to.
    pub(super) fn door(&self, host: &str) -> Arc<Door> {
        Arc::clone(self.doors().entry(host.to_owned()).or_default())
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Door>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fault(&self, class: Class, reason: String) -> Fault {
        Fault::new(class, self.host.clone(), reason)
    }
}

/// How long to wait before the next try; nothing if there is no use in one.
fn pause(fault: &Fault, in_vain: u32) -> Option<Duration> {
    let jitter = Duration::from_millis(rand::random_range(0..100));
    match fault.retry_after {
        Some(asked) => (fault.class.may_be_retried_later() && asked <= MAX_RETRY_AFTER).then(|| asked + jitter),
        None => fault.class.is_transient().then(|| Duration::from_millis(100 * u64::from(in_vain)) + jitter),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source::Check;
    use crate::store::Store;

    #[tokio::test]
    async fn an_upstream_that_answered_the_probe_is_asked_again_whatever_the_cache_made_of_its_answer() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("v1.0.0.zip"), "zip").unwrap();
        let (metrics, journal) = (Arc::new(Metrics::new().unwrap()), Arc::default());
        let store = Store::open(&folder.path().join("cache"), None, &metrics).unwrap();
        let config = config::Upstream {
            url: Url::from_directory_path(folder.path()).unwrap(),
            fallback: Fallback::OnNotFound,
            credential: None,
            redirect_hosts: Vec::new(),
            internal: true,
            ca_bundle: None,
            timeouts: Timeouts::default(),
        };
        let shared = Shared { resolution: &Resolution::default(), proxy: None, metrics: &metrics, journal: &journal };
        let upstream = Upstream::new(&config, None, &shared).unwrap();
        let earlier = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        (0..5).for_each(|_| upstream.door(&upstream.host).note(|breaker| breaker.failed(earlier, earlier, earlier)));
        // The cache's own failure: it can't check this as a zip.
        let file = Some(Arc::new(store.growing().unwrap()));
        let path = "v1.0.0.zip".to_owned();
        let wanted = Wanted { path, endpoint: "zip", is_private: false, is_ahead: false, check: Check::Text, file };
        let error = upstream.fetch(&wanted).await.unwrap_err();
        assert!(matches!(&error, FetchError::Local(_)) && !error.to_string().contains("volume"), "{error}");
        assert!(!upstream.door(&upstream.host).is_shut());
        let reasons: Vec<Option<String>> = journal.of("v1.0.0").into_iter().map(|attempt| attempt.reason).collect();
        assert_eq!(reasons, [Some(error.to_string())]);
    }
}
