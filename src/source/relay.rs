//! The checksum database, and who relays it: an upstream that says so, or else the database itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::upstream::Upstream;
use super::{Check, FetchError, Fetched, SUMDB, Wanted};
use crate::config::{self, ChecksumDatabase, Fallback, ProxyConfig, Timeouts};
use crate::gomod::SumdbPath;

/// How long the one who was found is asked. An upstream may cease to relay, or begin to.
const SURE: Duration = Duration::from_secs(600);
/// The same if somebody before it could not be asked.
const UNSURE: Duration = Duration::from_secs(60);
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
        // A database on the host of an internal upstream, or on plain http, is as internal as that.
        let internal = config.upstreams.iter().any(|u| u.internal && u.url.host() == url.host());
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
        match relay.fetch(path).await {
            // As modules are then asked of the next one.
            Err(FetchError::Fault(fault)) if relay.upstream.fallback == Fallback::OnError => {
                self.forget(&relay);
                let next = self.relay(upstreams).await?;
                if Arc::ptr_eq(&next.upstream, &relay.upstream) { Err(fault.into()) } else { next.fetch(path).await }
            }
            result => result,
        }
    }

    /// Who is asked now. One looks, and the others go on with whoever was found before; the first time they wait.
    async fn relay(&self, upstreams: &[Arc<Upstream>]) -> Result<Relay, FetchError> {
        let known = self.found().clone();
        if let Some(found) = known.as_ref().filter(|found| found.is_current()) {
            return found.relay.clone();
        }
        let _looking = match (self.looking.try_lock(), known.and_then(|found| found.relay.ok())) {
            (Ok(looking), _) => looking,
            (Err(_), Some(relay)) => return Ok(relay),
            (Err(_), None) => self.looking.lock().await,
        };
        // Somebody may have looked meanwhile.
        if let Some(found) = self.found().as_ref().filter(|found| found.is_current()) {
            return found.relay.clone();
        }
        let (relay, lasts) = self.look(upstreams).await;
        *self.found() = Some(Found { relay: relay.clone(), until: Instant::now() + lasts });
        relay
    }

    /// Asks one upstream after the other whether it relays the database. Says how long to believe what came of it.
    async fn look(&self, upstreams: &[Arc<Upstream>]) -> (Result<Relay, FetchError>, Duration) {
        let mut lasts = SURE;
        if !self.is_explicit {
            for upstream in upstreams.iter().filter(|u| u.url.scheme() != "file") {
                let prefix = format!("sumdb/{}/", self.name);
                match upstream.fetch(&wanted(format!("{prefix}supported"), Check::Text)).await {
                    Ok(_) => return (Ok(Relay { upstream: Arc::clone(upstream), prefix }), lasts),
                    Err(FetchError::Fault(fault)) if upstream.fallback == Fallback::OnNotFound => return (Err(fault.into()), IN_VAIN),
                    Err(FetchError::NotFound { .. }) => {}
                    Err(_) => lasts = UNSURE,
                }
            }
        }
        (Ok(Relay { upstream: Arc::clone(&self.direct), prefix: String::new() }), lasts)
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
