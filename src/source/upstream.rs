//! One upstream: how often it is asked, what its status means, and what is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{CONTENT_RANGE, ETAG, RETRY_AFTER};
use reqwest::{Client, Response};
use url::Url;

use super::breaker::Breaker;
use super::facts::Facts;
use super::http_proxy::Through;
use super::request::{Resume, chain_text};
use super::resolve::Resolver;
use super::{Class, Fault, FetchError, Fetched, Journal, Wanted};
use crate::config::{self, Credential, Fallback, Resolution, Timeouts};
use crate::telemetry::Metrics;

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
    /// The name of the credential, and the credential if there is one of that name.
    pub(super) credential: Option<(String, Option<Credential>)>,
    pub(super) client: Client,
    pub(super) resolver: Resolver,
    pub(super) proxy: Option<Through>,
    pub(super) timeouts: Timeouts,
    pub(super) metrics: Arc<Metrics>,
    pub(super) facts: Facts,
    journal: Arc<Journal>,
    breaker: Mutex<Breaker>,
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
        let credential = config.credential.clone().map(|name| (name, credential.cloned()));
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
            journal: Arc::clone(journal),
            breaker: Mutex::default(),
        })
    }

    /// Asks for one object, a few times if that may help, and counts every try.
    pub(super) async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let mut attempt = 1;
        let mut tag = None;
        loop {
            self.admit()?;
            self.metrics.upstream_endpoint_requests.with_label_values(&[wanted.endpoint]).inc();
            let started = Instant::now();
            let result = self.try_fetch(wanted, &mut tag).await;
            let class = match &result {
                Ok(_) => "ok",
                Err(FetchError::NotFound { .. }) => "not_found",
                Err(FetchError::Fault(fault)) => fault.class.as_str(),
                Err(FetchError::Offline | FetchError::Private | FetchError::Denied(_) | FetchError::Local(_)) => return result,
            };
            self.metrics.upstream_requests.with_label_values(&[&self.host, class]).inc();
            let reason = match &result {
                Err(FetchError::Fault(fault)) => Some(fault.reason.clone()),
                _ => None,
            };
            self.journal.note(&wanted.path, &self.host, class, reason, started.elapsed());
            self.note(&result);
            match &result {
                Err(FetchError::Fault(fault)) if attempt < ATTEMPTS => match pause(fault, attempt) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return result,
                },
                _ => return result,
            }
            attempt += 1;
        }
    }

    /// Takes over what the configuration before has found out, if this is the same upstream.
    pub(super) fn take_over(&self, before: &[Arc<Self>]) {
        if let Some(before) = before.iter().find(|before| before.url == self.url) {
            self.facts.take_over(&before.facts, &self.redirect_hosts, before.credential == self.credential);
        }
    }

    fn admit(&self) -> Result<(), Fault> {
        let admitted = self.breaker().admit(Instant::now());
        admitted.map_err(|wait| {
            self.metrics.upstream_requests.with_label_values(&[&self.host, "breaker"]).inc();
            self.fault(Class::Connect, format!("has not answered lately; it is asked again in {:.1} s", wait.as_secs_f32()))
        })
    }

    fn note(&self, result: &Result<Fetched, FetchError>) {
        let now = Instant::now();
        let mut breaker = self.breaker();
        match result {
            Err(FetchError::Fault(fault)) if fault.class.is_silence() => breaker.failed(now),
            _ => breaker.answered(),
        }
        self.metrics.breaker_open.with_label_values(&[&self.host]).set(i64::from(breaker.is_open(now)));
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_fetch(&self, wanted: &Wanted, tag: &mut Option<http::HeaderValue>) -> Result<Fetched, FetchError> {
        if self.url.scheme() == "file" {
            return self.read_local(wanted).await;
        }
        let here = wanted.file.as_ref().map_or(0, |file| file.progress().written);
        let resume = (here > 0).then(|| Resume { from: here, tag: tag.clone() });
        let response = self.follow(&wanted.path, resume.as_ref()).await?;
        let status = response.status();
        match status {
            StatusCode::OK => {
                // A weak tag says nothing about bytes.
                *tag = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned();
                self.accept(response, wanted, here).await
            }
            StatusCode::PARTIAL_CONTENT if starts_at(&response, here) && here > 0 => self.accept(response, wanted, 0).await,
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound { status, text: self.error_text(response).await }),
            _ => {
                let class = match status.as_u16() {
                    401 | 403 | 407 => Class::Auth,
                    429 => Class::RateLimited,
                    500.. => Class::ServerError,
                    _ => Class::ClientError,
                };
                let mut fault = self.fault(class, format!("answered {status}"));
                fault.retry_after = retry_after(&response);
                Err(fault.into())
            }
        }
    }

    pub(super) fn fault(&self, class: Class, reason: String) -> Fault {
        Fault { class, host: self.host.clone(), reason, retry_after: None }
    }
}

/// How long to wait before the next try; nothing if there is no use in one.
fn pause(fault: &Fault, attempt: u32) -> Option<Duration> {
    let jitter = Duration::from_millis(rand::random_range(0..100));
    match fault.retry_after {
        Some(asked) if fault.class.may_be_retried_later() => (asked <= MAX_RETRY_AFTER).then(|| asked + jitter),
        _ => fault.class.is_transient().then(|| Duration::from_millis(100 * u64::from(attempt)) + jitter),
    }
}

/// Seconds only: a date would need the upstream's clock.
fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}
