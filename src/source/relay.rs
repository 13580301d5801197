//! The checksum database, and who relays it: an upstream that says so, or else the database itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use url::Url;

use super::upstream::Upstream;
use super::{Check, Class, Fault, FetchError, Fetched, SUMDB, Wanted};
use crate::config::{self, ChecksumDatabase, Fallback, PinnedHost, ProxyConfig, Resolution, Timeouts};
use crate::gomod::SumdbPath;

/// How long the one who was found is asked. An upstream may cease to relay, or begin to.
const SURE: Duration = Duration::from_secs(600);
/// The same if somebody before it could not be asked.
const UNSURE: Duration = Duration::from_secs(60);
/// How long one is waited for that does not say whether it relays.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody looks again after all was in vain.
const IN_VAIN: Duration = Duration::from_secs(1);

/// The checksum database of one configuration.
#[derive(Debug)]
pub(super) struct Sumdb {
    name: String,
    /// The database itself: its explicit URL, or its name.
    direct: Arc<Upstream>,
    is_explicit: bool,
    found: Mutex<Option<Found>>,
    /// Held by the one who looks.
    looking: tokio::sync::Mutex<()>,
}

/// What a look for a relay came to.
#[derive(Clone, Debug)]
struct Found {
    relay: Result<Relay, FetchError>,
    until: Instant,
}

/// Who is asked, and under which prefix.
#[derive(Clone, Debug)]
struct Relay {
    upstream: Arc<Upstream>,
    prefix: String,
    /// What was wrong with the one whose place it takes. It is believed while it answers.
    instead: Option<Fault>,
}

impl Sumdb {
    /// With `make`, which makes an upstream.
    ///
    /// # Errors
    /// A sentence, for a name that is no host or a URL that can't be used.
    pub(super) fn new(
        database: &ChecksumDatabase,
        config: &ProxyConfig,
        make: impl FnOnce(&config::Upstream) -> Result<Arc<Upstream>, String>,
    ) -> Result<Self, String> {
        let url = match &database.url {
            Some(url) => url.clone(),
            None => format!("https://{}", database.name).parse().map_err(|e| format!("checksumDatabase.name: {e}"))?,
        };
        // A database on the host of an internal upstream is as internal as that. The URL of one that has its own is the operator's
        // word, who pins private addresses only where they are allowed.
        let internal = database.url.is_some() && is_allowed(&config.resolution, &url)
            || config.upstreams.iter().any(|u| u.internal && u.url.host() == url.host());
        let direct = make(&config::Upstream {
            url,
            fallback: Fallback::OnNotFound,
            credential: None,
            redirect_hosts: Vec::new(),
            internal,
            ca_bundle: None,
            timeouts: Timeouts::default(),
        })?;
        let (name, is_explicit) = (database.name.clone(), database.url.is_some());
        Ok(Self { name, direct, is_explicit, found: Mutex::default(), looking: tokio::sync::Mutex::default() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The database itself.
    pub(super) const fn direct(&self) -> &Arc<Upstream> {
        &self.direct
    }

    /// Asks whoever of the upstreams relays it, or the database itself.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(super) async fn fetch(&self, path: &str, upstreams: &[Arc<Upstream>]) -> Result<Bytes, FetchError> {
        if upstreams.is_empty() && !self.is_explicit {
            return Err(FetchError::Offline);
        }
        let relay = self.relay(upstreams).await?;
        match self.ask(&relay, path).await {
            // As modules are then asked of the next one.
            Err(FetchError::Fault(fault)) if relay.upstream.fallback == Fallback::OnError => {
                self.forget(&relay);
                let next = self.relay(upstreams).await?;
                if Arc::ptr_eq(&next.upstream, &relay.upstream) { Err(fault.into()) } else { self.ask(&next, path).await }
            }
            result => result,
        }
    }

    async fn ask(&self, relay: &Relay, path: &str) -> Result<Bytes, FetchError> {
        match (relay.fetch(path).await, &relay.instead) {
            // It may not even be reachable from here: what has to be mended is the one before it.
            (Err(FetchError::Fault(_)), Some(cause)) => {
                self.forget(relay);
                Err(cause.clone().into())
            }
            (result, _) => result,
        }
    }

    /// Who is asked now. One looks, and the others go on with whoever was found before; the first time they wait.
    async fn relay(&self, upstreams: &[Arc<Upstream>]) -> Result<Relay, FetchError> {
        let known = self.found().clone();
        if let Some(found) = known.as_ref().filter(|found| found.is_current()) {
            return found.relay.clone();
        }
        let before = known.and_then(|found| found.relay.ok());
        let _looking = match (self.looking.try_lock(), &before) {
            (Ok(looking), _) => looking,
            (Err(_), Some(relay)) => return Ok(relay.clone()),
            (Err(_), None) => self.looking.lock().await,
        };
        // Somebody may have looked meanwhile.
        if let Some(found) = self.found().as_ref().filter(|found| found.is_current()) {
            return found.relay.clone();
        }
        let (relay, lasts) = match (self.look(upstreams).await, before) {
            // One that works is not given up because another one has trouble.
            ((Err(_), _), Some(before)) => (Ok(before), UNSURE),
            (looked, _) => looked,
        };
        *self.found() = Some(Found { relay: relay.clone(), until: Instant::now() + lasts });
        relay
    }

    /// Asks one upstream after the other whether it relays the database. Says how long to believe what came of it.
    async fn look(&self, upstreams: &[Arc<Upstream>]) -> (Result<Relay, FetchError>, Duration) {
        let (mut lasts, mut instead) = (SURE, None);
        if !self.is_explicit {
            for upstream in upstreams.iter().filter(|u| u.url.scheme() != "file") {
                let prefix = format!("sumdb/{}/", self.name);
                let question = wanted(format!("{prefix}supported"), Check::Text);
                let silence = || {
                    let reason = format!("did not say within {} s whether it relays the checksum database", PATIENCE.as_secs());
                    Err(upstream.fault(Class::Timeout, reason).into())
                };
                match tokio::time::timeout(PATIENCE, upstream.fetch(&question)).await.unwrap_or_else(|_| silence()) {
                    Ok(_) => return (Ok(Relay { upstream: Arc::clone(upstream), prefix, instead }), lasts),
                    Err(FetchError::Fault(fault)) if upstream.fallback == Fallback::OnNotFound => return (Err(fault.into()), IN_VAIN),
                    Err(FetchError::NotFound { .. }) => {}
                    Err(FetchError::Fault(fault)) => (lasts, instead) = (UNSURE, Some(fault)),
                    Err(_) => lasts = UNSURE,
                }
            }
        }
        (Ok(Relay { upstream: Arc::clone(&self.direct), prefix: String::new(), instead }), lasts)
    }

    /// The relay is at fault: another look is due, unless there was one since.
    fn forget(&self, relay: &Relay) {
        let mut found = self.found();
        if found.as_ref().is_some_and(|found| found.relay.as_ref().is_ok_and(|now| Arc::ptr_eq(&now.upstream, &relay.upstream))) {
            *found = None;
        }
    }

    /// A panic elsewhere leaves what was found before.
    fn found(&self) -> MutexGuard<'_, Option<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn is_current(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Relay {
    async fn fetch(&self, path: &str) -> Result<Bytes, FetchError> {
        // Without the database's key nobody looks into it later.
        let check = SumdbPath::parse(path).map_or(Check::Text, Check::Sumdb);
        match self.upstream.fetch(&wanted(format!("{}{path}", self.prefix), check)).await? {
            Fetched::Bytes(bytes) => Ok(bytes),
            Fetched::Zip { .. } => Err(FetchError::Local("a zip where text was asked".to_owned())),
        }
    }
}

fn wanted(path: String, check: Check) -> Wanted {
    Wanted { path, endpoint: SUMDB, is_private: false, is_ahead: false, check, file: None }
}

/// Without TLS also before its host has an address: or the whole configuration would be refused for it.
fn is_allowed(resolution: &Resolution, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_pinned = |hosts: &[PinnedHost]| hosts.iter().any(|pin| pin.host.eq_ignore_ascii_case(host));
    matches!(resolution, Resolution::Pinned { hosts } if url.scheme() == "http" || is_pinned(hosts))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU16, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::source::Chain;
    use crate::source::upstream::Shared;
    use crate::telemetry::Metrics;

    #[test]
    fn a_database_with_a_url_of_its_own_may_have_the_private_addresses_that_are_pinned_for_it() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let is_internal = |url: &str, pinned: &str, upstreams: &str| {
            let database = format!("checksumDatabase: {{name: sum.example, mode: Relay{url}}}");
            let text = format!("version: 1\n{upstreams}{database}\nresolution: {pinned}\n");
            let config = ProxyConfig::parse(&text).unwrap();
            let chain = Chain::new(&config, &BTreeMap::new(), &Arc::new(Metrics::new().unwrap()), &Arc::default());
            chain.map(|chain| chain.database_is_internal())
        };
        let (secure, plain) = (", url: 'https://sum.corp.example/db'", ", url: 'http://sum.corp.example'");
        let pinned = |host: &str| format!("{{mode: Pinned, hosts: [{{host: {host}, addresses: [10.0.0.7]}}]}}");
        assert_eq!(is_internal(secure, &pinned("sum.corp.example"), ""), Ok(Some(true)));
        assert_eq!(is_internal(secure, &pinned("a.example"), ""), Ok(Some(false)));
        assert_eq!(is_internal("", &pinned("sum.example"), ""), Ok(Some(false)), "a name alone is nobody's word for that");
        assert_eq!(is_internal(plain, &pinned("a.example"), ""), Ok(Some(true)));
        assert_eq!(is_internal(secure, "{mode: System}", ""), Ok(Some(false)));
        let upstreams = "upstreams: [{url: 'https://sum.corp.example/go', internal: true}]\n";
        assert_eq!(is_internal(secure, "{mode: System}", upstreams), Ok(Some(true)));
    }

    /// Answers every question with this status; with none for 0.
    async fn upstream(status: &Arc<AtomicU16>) -> Arc<Upstream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let status = Arc::clone(status);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let status = status.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut asked = [0; 4096];
                    let _length = stream.read(&mut asked).await;
                    if status == 0 {
                        std::future::pending::<()>().await;
                    }
                    let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        let (resolution, metrics, journal) = (Resolution::default(), Arc::new(Metrics::new().unwrap()), Arc::default());
        let shared = Shared { resolution: &resolution, proxy: None, metrics: &metrics, journal: &journal };
        let timeouts = Timeouts::default();
        let (fallback, redirect_hosts) = (Fallback::OnNotFound, Vec::new());
        let config = config::Upstream { url, fallback, credential: None, redirect_hosts, internal: true, ca_bundle: None, timeouts };
        Arc::new(Upstream::new(&config, None, &shared).unwrap())
    }

    #[tokio::test]
    async fn a_relay_that_works_is_not_given_up_because_one_before_it_has_trouble() {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let (first, second) = (Arc::new(AtomicU16::new(404)), Arc::new(AtomicU16::new(200)));
        let upstreams = [upstream(&first).await, upstream(&second).await];
        let config = ProxyConfig::parse("version: 1\nchecksumDatabase: {name: sum.example, mode: Relay}\n").unwrap();
        let sumdb = Sumdb::new(config.checksum_database.as_ref().unwrap(), &config, |_| Ok(Arc::clone(&upstreams[0]))).unwrap();
        assert_eq!(sumdb.fetch("latest", &upstreams).await.unwrap(), "");
        for trouble in [500, 0] {
            first.store(trouble, Ordering::Relaxed);
            sumdb.found().as_mut().unwrap().until = Instant::now();
            assert_eq!(sumdb.fetch("latest", &upstreams).await.unwrap(), "", "{trouble}");
        }
        second.store(500, Ordering::Relaxed);
        assert!(sumdb.fetch("latest", &upstreams).await.is_err());
    }
}
