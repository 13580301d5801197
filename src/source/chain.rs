//! The upstreams in their order, with GOPROXY's two ways to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::http_proxy::Through;
use super::relay::Sumdb;
use super::upstream::{Shared, Upstream};
use super::{Class, Fault, FetchError, Fetched, Journal, Wanted};
use crate::config::{self, Credential, Fallback, ProxyConfig};
use crate::report::{CredentialVerdict, RefusedRedirect};
use crate::telemetry::Metrics;

/// The sources of one configuration. A changed configuration is a new chain; requests in flight keep the old one.
#[derive(Debug)]
pub struct Chain {
    upstreams: Vec<Arc<Upstream>>,
    sumdb: Option<Sumdb>,
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
        let proxy = config.http_proxy.as_ref().map(|proxy| Through::new(proxy, named(&proxy.credential)));
        let shared = Shared { resolution: &config.resolution, proxy, metrics, journal };
        let make = |upstream: &config::Upstream| Upstream::new(upstream, named(&upstream.credential), &shared).map(Arc::new);
        let upstreams = config.upstreams.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        let sumdb = config.checksum_database.as_ref().map(|database| Sumdb::new(database, config, make));
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

    /// The upstreams' hosts and those that they may redirect to, and whether requests to them are held back.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, bool)> {
        self.all().flat_map(|upstream| upstream.breakers())
    }

    /// Who may hear of a module, in order.
    fn may_be_asked(&self, is_private: bool) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().filter(move |upstream| upstream.internal || !is_private)
    }

    /// What a client gets for bytes that a check after the download refused.
    #[must_use]
    pub fn verification_fault(&self, reason: String) -> FetchError {
        let hosts: Vec<&str> = self.upstreams.iter().map(|upstream| upstream.host.as_str()).collect();
        Fault::new(Class::Verification, hosts.join(", "), reason).into()
    }

    /// What a client gets when the checksum database is at fault, or somebody else's question to it came to nothing.
    #[must_use]
    pub fn sumdb_fault(&self, class: Class, reason: String) -> FetchError {
        let host = self.sumdb_name().unwrap_or_default().to_owned();
        Fault::new(class, host, reason).into()
    }

    /// What a client gets for bytes that are to be refused while the checksum database gives no verdict on them.
    #[must_use]
    pub fn no_verdict(&self, reason: String) -> FetchError {
        FetchError::NoVerdict { database: self.sumdb_name().unwrap_or_default().to_owned(), reason }
    }

    /// Takes over what the chain before has found out of the same upstreams.
    pub fn take_over(&self, before: &Self) {
        self.upstreams.iter().for_each(|upstream| upstream.take_over(&before.upstreams));
        if let (Some(sumdb), Some(before)) = (&self.sumdb, &before.sumdb) {
            sumdb.direct().take_over(std::slice::from_ref(before.direct()));
        }
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
        let all: BTreeSet<RefusedRedirect> = self.all().flat_map(of).collect();
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
        self.sumdb.as_ref().map(Sumdb::name)
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
        // A folder that says nothing of its versions hides nobody's list.
        if wanted.endpoint == "list" && matches!(worst, Some(FetchError::NotFound { .. })) {
            for upstream in self.may_be_asked(wanted.is_private).filter(|upstream| upstream.url.scheme() == "file") {
                if let Some(list) = upstream.list_of_files(wanted).await {
                    return Ok(Fetched::Bytes(list));
                }
            }
        }
        Err(worst.unwrap_or(FetchError::Offline))
    }

    /// Asks the checksum database, through whom it is to be asked.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch_sumdb(&self, path: &str) -> Result<Bytes, FetchError> {
        match &self.sumdb {
            Some(sumdb) => sumdb.fetch(path, &self.upstreams).await,
            None => Err(FetchError::Offline),
        }
    }

    /// Whether the checksum database itself may have a private address.
    #[cfg(test)]
    pub(super) fn database_is_internal(&self) -> Option<bool> {
        self.sumdb.as_ref().map(|sumdb| sumdb.direct().internal)
    }

    /// All that are asked for something, the checksum database itself the last.
    fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().chain(self.sumdb.as_ref().map(Sumdb::direct))
    }
}
