//! Which addresses each cache may reach: resolve, remember for a while, drop what is private.

mod resolver;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use resolver::Resolver;
pub(crate) use window::{GRACE, MAX_REFRESH, Window};

use super::pace::Pace;
use crate::config::{PinnedHost, is_private};

/// One host that a cache needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Ports, sorted and each once.
    pub ports: Vec<u16>,
    /// Private addresses are allowed.
    pub internal: bool,
}

/// Hosts by name.
pub(crate) type Needs = BTreeMap<String, Need>;

/// What became of the needs of one cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// The hosts that have an address, for the proxy's configuration.
    pub pins: Vec<PinnedHost>,
    /// The same for the policy: it lets an address go later.
    pub allowed: Vec<PinnedHost>,
    /// The hosts that have none.
    pub unresolved: Vec<String>,
    /// Hosts and how many of their addresses were dropped as private.
    pub refused: Vec<(String, usize)>,
    /// Hosts that are Services of the cluster, with their addresses, to which a policy opens no way. Found out after the rest.
    pub services: Vec<(String, IpAddr)>,
    /// When to look again.
    pub next: Option<Duration>,
}

/// What is open for all caches together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Addresses in configurations.
    pub addresses: usize,
    /// How long ago the name was answered that waits longest.
    pub oldest_answer: Option<Duration>,
}

/// The windows of all caches, by their UIDs: one tenant's seed must not open another's egress.
pub(crate) struct Egress {
    resolver: Resolver,
    pace: Pace,
    windows: Mutex<HashMap<String, Windows>>,
}

/// The windows of one cache, by host, each with its last use.
struct Windows {
    hosts: HashMap<String, (Window, Instant)>,
    used: Instant,
}

impl Egress {
    /// No windows yet.
    #[must_use]
    pub(crate) fn new(resolver: Resolver, pace: Pace) -> Self {
        Self { resolver, pace, windows: Mutex::default() }
    }

    /// Whether the windows of this cache were begun, so that a seed says nothing new.
    pub(crate) fn is_seeded(&self, cache_uid: &str) -> bool {
        self.lock().contains_key(cache_uid)
    }

    /// Brings the windows of one cache up to date. `seed` is what was pinned before the operator started.
    pub(crate) async fn resolve(&self, cache_uid: &str, needs: &Needs, seed: &[PinnedHost]) -> Resolved {
        let lookups = needs.iter().map(|(host, need)| async move {
            let window = match host.parse::<IpAddr>() {
                Ok(address) => {
                    let mut window = Window::seeded([address], Instant::now());
                    window.answered(&[address], self.pace.of(MAX_REFRESH), Instant::now());
                    window
                }
                Err(_not_a_literal) => self.refresh(cache_uid, host, seed).await,
            };
            (host, need, window)
        });
        let windows = futures::future::join_all(lookups).await;
        let now = Instant::now();
        Self::begin(&mut self.lock(), cache_uid, now);
        collect(windows.into_iter(), now)
    }

    /// Of the hosts that caches name now: each of them was looked at within the time for two answers.
    pub(crate) fn summary(&self, now: Instant) -> Summary {
        let all = self.lock();
        let is_named = |used: Instant| now.saturating_duration_since(used) <= MAX_REFRESH * 2;
        let hosts = || all.values().flat_map(|windows| windows.hosts.values());
        let windows = || hosts().filter(|(_, used)| is_named(*used)).map(|(window, _)| window);
        Summary {
            addresses: windows().map(|window| window.addresses().len()).sum(),
            oldest_answer: windows().map(|window| now.saturating_duration_since(window.answered_at())).max(),
        }
    }

    async fn refresh(&self, cache_uid: &str, host: &str, seed: &[PinnedHost]) -> Window {
        let now = Instant::now();
        let known = self.lock().get(cache_uid).and_then(|windows| windows.hosts.get(host)).map(|(window, _)| window.clone());
        let mut window = known.unwrap_or_else(|| {
            let pinned = seed.iter().filter(|p| p.host == host).flat_map(|p| p.addresses.iter().copied());
            Window::seeded(pinned, now)
        });
        if window.is_due(now) {
            match self.resolver.lookup(host).await {
                Some((addresses, ttl)) => window.answered(&addresses, ttl, Instant::now()),
                None => window.failed(Instant::now()),
            }
            window.is_due_within(self.pace.of(MAX_REFRESH), Instant::now());
        }
        let mut all = self.lock();
        Self::begin(&mut all, cache_uid, now).hosts.insert(host.to_owned(), (window.clone(), now));
        window
    }

    /// What no reconcile has touched for a grace belongs to a deleted cache or a removed upstream.
    fn begin<'a>(all: &'a mut HashMap<String, Windows>, cache_uid: &str, now: Instant) -> &'a mut Windows {
        let is_used = |used: Instant| now.saturating_duration_since(used) < GRACE;
        all.retain(|_, windows| is_used(windows.used));
        let windows = all.entry(cache_uid.to_owned()).or_insert_with(|| Windows { hosts: HashMap::new(), used: now });
        windows.hosts.retain(|_, (_, used)| is_used(*used));
        windows.used = now;
        windows
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Windows>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect<'a>(windows: impl Iterator<Item = (&'a String, &'a Need, Window)>, now: Instant) -> Resolved {
    let mut resolved = Resolved::default();
    for (host, need, window) in windows {
        let all = window.addresses();
        let may_be_dialled = |address: &IpAddr| need.internal || !is_private(*address);
        let addresses: Vec<IpAddr> = all.iter().copied().filter(may_be_dialled).collect();
        let allowed: Vec<IpAddr> = window.allowed().into_iter().filter(may_be_dialled).collect();
        if addresses.len() < all.len() {
            resolved.refused.push((host.clone(), all.len() - addresses.len()));
        }
        if all.is_empty() {
            resolved.unresolved.push(host.clone());
        }
        if !addresses.is_empty() {
            resolved.pins.push(PinnedHost { host: host.clone(), addresses });
        }
        if !allowed.is_empty() {
            resolved.allowed.push(PinnedHost { host: host.clone(), addresses: allowed });
        }
        let wait = window.refresh_at().saturating_duration_since(now).max(Duration::from_secs(1));
        resolved.next = Some(resolved.next.map_or(wait, |next| next.min(wait)));
    }
    resolved
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_summary_forgets_a_host_that_no_cache_names_any_more() {
        let egress = Egress::new(Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap(), Pace::new(None));
        let start = Instant::now();
        let (old, young) = (start, start + Duration::from_secs(90));
        for (host, answered, addresses) in
            [("a.example", old, vec![[203, 0, 113, 1], [203, 0, 113, 2]]), ("b.example", young, vec![[203, 0, 113, 3]])]
        {
            let window = Window::seeded(addresses.into_iter().map(IpAddr::from), answered);
            Egress::begin(&mut egress.lock(), "uid", answered).hosts.insert(host.to_owned(), (window, answered));
        }
        let both = Summary { addresses: 3, oldest_answer: Some(Duration::from_secs(100)) };
        assert_eq!(egress.summary(start + Duration::from_secs(100)), both);
        let one = Summary { addresses: 1, oldest_answer: Some(Duration::from_secs(60)) };
        assert_eq!(egress.summary(start + Duration::from_secs(150)), one);
    }

    #[test]
    fn private_addresses_are_dropped_unless_internal() {
        let now = Instant::now();
        let addresses = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([203, 0, 113, 7])];
        let host = "modules.corp.example".to_owned();
        let outside = Need { ports: vec![443], internal: false };
        let resolved = collect([(&host, &outside, Window::seeded(addresses, now))].into_iter(), now);
        assert_eq!(resolved.pins.first().map(|p| p.addresses.clone()), Some(vec![addresses[1]]));
        assert_eq!(resolved.refused, [(host.clone(), 1)]);
        let inside = Need { ports: vec![443], internal: true };
        let resolved = collect([(&host, &inside, Window::seeded(addresses, now))].into_iter(), now);
        assert!(resolved.refused.is_empty());
    }
}
