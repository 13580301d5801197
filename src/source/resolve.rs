//! Names to addresses: the pinned ones only, if there are pins; and never into a private network by surprise.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::{Resolution, is_private};

/// Why a host has no address that may be dialled.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("{0} has no pinned address; the cache dials only hosts that its configuration names")]
    NotPinned(String),
    #[error("{0} resolves to a private address only; declare the upstream internal if that is meant")]
    Private(String),
    #[error("{0} can't be resolved: {1}")]
    System(String, std::io::Error),
}

/// The resolver of one upstream's client.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    pins: Option<Arc<HashMap<String, Vec<IpAddr>>>>,
    private_addresses: bool,
    /// A host that may have private addresses all the same.
    allowed: Option<String>,
}

impl Resolver {
    pub(super) fn new(resolution: &Resolution, internal: bool) -> Self {
        match resolution {
            Resolution::System { private_addresses } => {
                Self { pins: None, private_addresses: internal || *private_addresses, allowed: None }
            }
            Resolution::Pinned { hosts } => {
                let pins = hosts.iter().map(|h| (h.host.to_ascii_lowercase(), h.addresses.clone())).collect();
                Self { pins: Some(Arc::new(pins)), private_addresses: internal, allowed: None }
            }
        }
    }

    /// The same, for which one more host may have private addresses.
    pub(super) fn allowing(self, host: String) -> Self {
        Self { allowed: Some(host), ..self }
    }

    /// Whether a host is dialled at the same addresses as by another one.
    pub(super) fn dials_alike(&self, other: &Self, host: &str) -> bool {
        let pins = |resolver: &Self| resolver.pins.as_ref().map(|pins| pins.get(host).cloned());
        pins(self) == pins(other)
    }

    /// Whether an address that stands in a URL may be dialled: reqwest asks no resolver for those.
    pub(super) fn check_literal(&self, address: IpAddr, is_own_host: bool) -> Result<(), ResolveError> {
        let pinned = |pins: &HashMap<String, Vec<IpAddr>>| {
            pins.contains_key(&address.to_string()) || pins.values().any(|addresses| addresses.contains(&address))
        };
        if !self.private_addresses && is_private(address) {
            return Err(ResolveError::Private(address.to_string()));
        }
        // The upstream's own address was written by its owner: there is no name that could point elsewhere.
        match &self.pins {
            Some(pins) if !is_own_host && !pinned(pins) => Err(ResolveError::NotPinned(address.to_string())),
            _ => Ok(()),
        }
    }

    async fn lookup(&self, host: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let all: Vec<SocketAddr> = match &self.pins {
            Some(pins) => {
                let addresses = pins.get(host).ok_or_else(|| ResolveError::NotPinned(host.to_owned()))?;
                addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect()
            }
            None => tokio::net::lookup_host((host, 0)).await.map_err(|e| ResolveError::System(host.to_owned(), e))?.collect(),
        };
        let any = self.private_addresses || self.allowed.as_deref() == Some(host);
        let allowed: Vec<SocketAddr> = all.into_iter().filter(|a| any || !is_private(a.ip())).collect();
        if allowed.is_empty() { Err(ResolveError::Private(host.to_owned())) } else { Ok(allowed) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let host = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            let addresses = resolver.lookup(&host).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::PinnedHost;

    fn pinned(host: &str, address: &str) -> Resolution {
        Resolution::Pinned { hosts: vec![PinnedHost { host: host.into(), addresses: vec![address.parse().unwrap()] }] }
    }

    #[tokio::test]
    async fn only_pinned_hosts_have_addresses() {
        let resolver = Resolver::new(&pinned("a.example", "203.0.113.7"), false);
        assert_eq!(resolver.lookup("a.example").await.unwrap(), ["203.0.113.7:0".parse().unwrap()]);
        assert!(matches!(resolver.lookup("localhost").await, Err(ResolveError::NotPinned(_))));
    }

    #[test]
    fn a_host_with_another_address_is_dialled_elsewhere() {
        let at = |address: &str| Resolver::new(&pinned("a.example", address), false);
        let before = at("203.0.113.7");
        assert!(before.dials_alike(&at("203.0.113.7"), "a.example") && !before.dials_alike(&at("203.0.113.8"), "a.example"));
        assert!(before.dials_alike(&at("203.0.113.8"), "b.example"));
    }

    #[tokio::test]
    async fn a_private_address_needs_an_internal_upstream() {
        let resolution = pinned("a.example", "10.0.0.7");
        assert!(matches!(Resolver::new(&resolution, false).lookup("a.example").await, Err(ResolveError::Private(_))));
        assert!(Resolver::new(&resolution, true).lookup("a.example").await.is_ok());
        assert!(Resolver::new(&Resolution::default(), false).check_literal("169.254.169.254".parse().unwrap(), true).is_err());
        assert!(Resolver::new(&resolution, true).check_literal("10.0.0.8".parse().unwrap(), false).is_err());
        assert!(Resolver::new(&resolution, true).check_literal("10.0.0.8".parse().unwrap(), true).is_ok());
    }
}
