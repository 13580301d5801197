//! The upstreams in their order, with GOPROXY's two ways to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::http_proxy::Through;
use super::upstream::{Shared, Upstream};
use super::{Check, Class, Fault, FetchError, Fetched, Journal, Wanted};
use crate::config::{self, Credential, Fallback, ProxyConfig, Timeouts};
use crate::gomod::SumdbPath;
use crate::report::{CredentialVerdict, RefusedRedirect};
use crate::telemetry::Metrics;

/// The sources of one configuration. A changed configuration is a new chain; requests in flight keep the old one.
#[derive(Debug)]
pub struct Chain {
    upstreams: Vec<Arc<Upstream>>,
    sumdb: Option<Sumdb>,
}

#[derive(Debug)]
struct Sumdb {
    name: String,
    /// The database itself: its explicit URL, or its name.
    direct: Arc<Upstream>,
    is_explicit: bool,
    /// Who relays it, and under which prefix; found once.
    relay: OnceCell<(Arc<Upstream>, String)>,
}

impl Chain {
    /// Makes the clients of a configuration.
    ///
    /// # Errors
    /// A sentence that names the upstream, for a certificate or a URL that can't be used.
    pub fn new(
        config: &ProxyConfig,
        credentials: &BTreeMap<String, Credential>,
        metrics: &Arc<Metrics>,
        journal: &Arc<Journal>,
    ) -> Result<Self, String> {
        let named = |name: &Option<String>| name.as_ref().and_then(|name| credentials.get(name));
        let proxy = config.http_proxy.as_ref().map(|proxy| Through::new(proxy, named(&proxy.credential))).transpose()?;
        let shared = Shared { resolution: &config.resolution, proxy, metrics, journal };
        let make = |upstream: &config::Upstream| Upstream::new(upstream, named(&upstream.credential), &shared).map(Arc::new);
        let upstreams = config.upstreams.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        let sumdb = config.checksum_database.as_ref().map(|database| {
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
            Ok::<_, String>(Sumdb { name: database.name.clone(), direct, is_explicit: database.url.is_some(), relay: OnceCell::new() })
        });
        Ok(Self { upstreams, sumdb: sumdb.transpose()? })
    }

    /// Whether there is nobody to ask.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// Whether the upstream that is asked first had a problem a moment ago.
    #[must_use]
    pub fn is_in_trouble(&self, is_private: bool) -> bool {
        self.may_be_asked(is_private).next().is_some_and(|upstream| upstream.is_in_trouble())
    }

    /// The upstreams' hosts, and whether requests to them are held back.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, bool)> {
        self.upstreams.iter().map(|upstream| (upstream.host.as_str(), upstream.is_held_back()))
    }

    /// Who may hear of a module, in order.
    fn may_be_asked(&self, is_private: bool) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().filter(move |upstream| upstream.internal || !is_private)
    }

    /// What a client gets for bytes that a check after the download refused.
    #[must_use]
    pub fn verification_fault(&self, reason: String) -> FetchError {
        let hosts: Vec<&str> = self.upstreams.iter().map(|upstream| upstream.host.as_str()).collect();
        Fault { class: Class::Verification, host: hosts.join(", "), reason, retry_after: None }.into()
    }

    /// What a client gets when the checksum database is at fault, or somebody else's question to it came to nothing.
    #[must_use]
    pub fn sumdb_fault(&self, class: Class, reason: String) -> FetchError {
        let host = self.sumdb_name().unwrap_or_default().to_owned();
        Fault { class, host, reason, retry_after: None }.into()
    }

    /// What a client gets for bytes that are to be refused while the checksum database gives no verdict on them.
    #[must_use]
    pub fn no_verdict(&self, reason: String) -> FetchError {
        FetchError::NoVerdict { database: self.sumdb_name().unwrap_or_default().to_owned(), reason }
    }

    /// Takes over what the chain before has found out of the same upstreams.
    pub fn take_over(&self, before: &Self) {
        self.upstreams.iter().for_each(|upstream| upstream.take_over(&before.upstreams));
        for gone in &before.upstreams {
            // A credential that is used no more must not look like one that is accepted no more.
            let Some(labels) = gone.credential_labels() else { continue };
            if !self.upstreams.iter().any(|upstream| upstream.credential_labels() == Some(labels)) {
                gone.forget_credential();
            }
        }
        self.publish_expiries();
    }

    /// Says in the metrics when credentials expire, as far as they say so themselves.
    pub fn publish_expiries(&self) {
        self.upstreams.iter().for_each(|upstream| upstream.publish_expiry());
    }

    /// Redirects that were refused lately, sorted, each once.
    #[must_use]
    pub fn refused_redirects(&self) -> Vec<RefusedRedirect> {
        let now = Instant::now();
        let of = |upstream: &Arc<Upstream>| {
            let name = upstream.host.clone();
            upstream.facts.redirects(now).into_iter().map(move |host| RefusedRedirect { upstream: name.clone(), host })
        };
        let all: BTreeSet<RefusedRedirect> = self.upstreams.iter().flat_map(of).collect();
        all.into_iter().collect()
    }

    /// What the upstreams said to their credentials, as far as they were asked; sorted, each once. Where one credential goes to a
    /// host by several entries, a refusal by one of them is the verdict.
    #[must_use]
    pub fn credential_verdicts(&self) -> Vec<CredentialVerdict> {
        let mut verdicts: BTreeMap<(String, String), bool> = BTreeMap::new();
        for upstream in &self.upstreams {
            if let (Some(held), Some(accepted)) = (&upstream.credential, upstream.facts.accepted()) {
                *verdicts.entry((held.name().to_owned(), upstream.host.clone())).or_insert(true) &= accepted;
            }
        }
        verdicts.into_iter().map(|((secret, upstream), accepted)| CredentialVerdict { secret, upstream, accepted }).collect()
    }

    /// The name of the checksum database that is relayed.
    #[must_use]
    pub fn sumdb_name(&self) -> Option<&str> {
        self.sumdb.as_ref().map(|s| s.name.as_str())
    }

    /// Asks one upstream after the other. Of several errors the first that is not "not found" is returned: an outage
    /// must never look like an absence.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let mut worst: Option<FetchError> = None;
        if !self.is_offline() && self.may_be_asked(wanted.is_private).next().is_none() {
            return Err(FetchError::Private);
        }
        for upstream in self.may_be_asked(wanted.is_private) {
            // Another upstream's zip may be packed differently: its bytes can't follow what a client has already.
            if let Some(file) = &wanted.file
                && !file.restart().await.map_err(|e| FetchError::Local(e.to_string()))?
            {
                break;
            }
            match upstream.fetch(wanted).await {
                Ok(fetched) => return Ok(fetched),
                Err(error @ FetchError::NotFound { .. }) => worst = worst.or(Some(error)),
                Err(error @ FetchError::Fault(_)) => {
                    let stop = upstream.fallback == Fallback::OnNotFound;
                    worst = Some(match worst {
                        Some(fault @ FetchError::Fault(_)) => fault,
                        _ => error,
                    });
                    if stop {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(worst.unwrap_or(FetchError::Offline))
    }

    /// Asks the checksum database, through whom it is to be asked.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch_sumdb(&self, path: &str) -> Result<Bytes, FetchError> {
        let Some(sumdb) = &self.sumdb else { return Err(FetchError::Offline) };
        if self.is_offline() && !sumdb.is_explicit {
            return Err(FetchError::Offline);
        }
        let mut unsure = None;
        let found = sumdb.relay.get_or_try_init(|| async {
            let (relay, is_sure) = self.find_relay(sumdb).await?;
            if is_sure {
                return Ok(relay);
            }
            // Somebody could not be asked: not to be remembered, but good for this time.
            unsure = Some(relay);
            Err(FetchError::Offline)
        });
        let found = found.await.cloned();
        let (upstream, prefix) = match (found, unsure) {
            (Ok(relay), _) | (Err(_), Some(relay)) => relay,
            (Err(error), None) => return Err(error),
        };
        // Without the database's key nobody looks into it later.
        let check = SumdbPath::parse(path).map_or(Check::Text, Check::Sumdb);
        match upstream.fetch(&Wanted { check, ..sumdb_wanted(format!("{prefix}{path}")) }).await? {
            Fetched::Bytes(bytes) => Ok(bytes),
            Fetched::Zip { .. } => Err(FetchError::Local("a zip where text was asked".to_owned())),
        }
    }

    /// Who relays the database, and whether everybody before said that they do not.
    async fn find_relay(&self, sumdb: &Sumdb) -> Result<((Arc<Upstream>, String), bool), FetchError> {
        let mut is_sure = true;
        if !sumdb.is_explicit {
            for upstream in self.upstreams.iter().filter(|u| u.url.scheme() != "file") {
                let prefix = format!("sumdb/{}/", sumdb.name);
                match upstream.fetch(&sumdb_wanted(format!("{prefix}supported"))).await {
                    Ok(_) => return Ok(((Arc::clone(upstream), prefix), is_sure)),
                    Err(FetchError::Fault(fault)) if upstream.fallback == Fallback::OnNotFound => return Err(fault.into()),
                    Err(FetchError::NotFound { .. }) => {}
                    Err(_) => is_sure = false,
                }
            }
        }
        Ok(((Arc::clone(&sumdb.direct), String::new()), is_sure))
    }
}

fn sumdb_wanted(path: String) -> Wanted {
    Wanted { path, endpoint: "sumdb", is_private: false, is_ahead: false, check: Check::Text, file: None }
}
