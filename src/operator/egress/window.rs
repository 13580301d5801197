//! The addresses of one host over time. Pure: the caller says what time it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An address stays this long after it was last seen: clients of a rotating name hold on to old answers.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);
/// The policy keeps an address this much longer than the configuration: it leaves the pods first, and a mounted
/// ConfigMap takes up to 80 s to reach them.
pub(crate) const LINGER: Duration = Duration::from_secs(180);
/// No name is asked for more often.
pub(crate) const MIN_REFRESH: Duration = Duration::from_secs(5);
/// Every name is asked for at least this often.
pub(crate) const MAX_REFRESH: Duration = Duration::from_secs(60);

/// The union of what was seen lately.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    seen: BTreeMap<IpAddr, Instant>,
    /// The time of the last answer: without answers nothing grows old.
    answered_at: Instant,
    refresh_at: Instant,
}

impl Window {
    /// A window that knows these addresses as if seen now, and is due at once.
    #[must_use]
    pub(crate) fn seeded(addresses: impl IntoIterator<Item = IpAddr>, now: Instant) -> Self {
        Self { seen: addresses.into_iter().map(|a| (a, now)).collect(), answered_at: now, refresh_at: now }
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, addresses: &[IpAddr], ttl: Duration, now: Instant) {
        for address in addresses {
            self.seen.insert(*address, now);
        }
        self.seen.retain(|_, seen| now.saturating_duration_since(*seen) <= GRACE + LINGER);
        self.answered_at = now;
        self.refresh_at = now + ttl.clamp(MIN_REFRESH, MAX_REFRESH);
    }

    /// Takes a failure: nothing is forgotten, however old.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.refresh_at = now + MIN_REFRESH;
    }

    /// The name should be asked for within this time, if not sooner.
    pub(crate) fn is_due_within(&mut self, period: Duration, now: Instant) {
        self.refresh_at = self.refresh_at.min(now + period);
    }

    /// Whether the name should be asked for.
    #[must_use]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.refresh_at <= now
    }

    /// When the last answer came; before the first one, when it was asked for first.
    #[must_use]
    pub(crate) fn answered_at(&self) -> Instant {
        self.answered_at
    }

    /// When it should be.
    #[must_use]
    pub(crate) fn refresh_at(&self) -> Instant {
        self.refresh_at
    }

    /// The addresses that a proxy may dial, sorted.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.seen.iter().filter(|(_, seen)| self.answered_at.saturating_duration_since(**seen) <= GRACE).map(|(a, _)| *a).collect()
    }

    /// The addresses that the policy lets through, sorted: those, and what left them lately.
    #[must_use]
    pub(crate) fn allowed(&self) -> Vec<IpAddr> {
        self.seen.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn an_old_address_stays_for_the_grace_and_no_longer() {
        let start = Instant::now();
        let mut window = Window::seeded([], start);
        window.answered(&[ip(1)], Duration::ZERO, start);
        window.answered(&[ip(2)], Duration::ZERO, start + GRACE);
        assert_eq!(window.addresses(), [ip(1), ip(2)]);
        window.answered(&[ip(2)], Duration::ZERO, start + GRACE + Duration::from_secs(1));
        assert_eq!(window.addresses(), [ip(2)]);
    }

    #[test]
    fn an_address_leaves_the_configuration_before_it_leaves_the_policy() {
        let start = Instant::now();
        let mut window = Window::seeded([ip(1)], start);
        window.answered(&[ip(2)], Duration::ZERO, start + GRACE + LINGER);
        assert_eq!((window.addresses(), window.allowed()), (vec![ip(2)], vec![ip(1), ip(2)]));
        window.answered(&[ip(2)], Duration::ZERO, start + GRACE + LINGER + Duration::from_secs(1));
        assert_eq!(window.allowed(), [ip(2)]);
    }

    #[test]
    fn failure_forgets_nothing() {
        let start = Instant::now();
        let mut window = Window::seeded([ip(1)], start);
        window.failed(start + GRACE * 5);
        assert_eq!(window.addresses(), [ip(1)]);
    }

    #[test]
    fn refreshes_are_bounded_on_both_sides() {
        let start = Instant::now();
        let mut window = Window::seeded([], start);
        assert!(window.is_due(start));
        window.answered(&[ip(1)], Duration::ZERO, start);
        assert_eq!(window.refresh_at(), start + MIN_REFRESH);
        window.answered(&[ip(1)], GRACE, start);
        assert_eq!(window.refresh_at(), start + MAX_REFRESH);
        assert!(!window.is_due(start));
    }
}
