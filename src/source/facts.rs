//! What one upstream has shown of itself, for the operator's report.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

/// A redirect that nobody met with for so long may have been mended.
const LASTS: Duration = Duration::from_secs(3600);
/// More hosts than these are not named.
const MAX_HOSTS: usize = 8;

/// The facts of one upstream under one configuration.
#[derive(Debug, Default)]
pub(super) struct Facts(Mutex<Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    redirects: BTreeMap<String, Instant>,
    accepted: Option<bool>,
}

impl Facts {
    /// A redirect to a host that is not declared.
    pub(super) fn redirected(&self, host: &str, now: Instant) {
        let redirects = &mut self.lock().redirects;
        redirects.retain(|_, seen| now.saturating_duration_since(*seen) < LASTS);
        if redirects.len() < MAX_HOSTS || redirects.contains_key(host) {
            redirects.insert(host.to_owned(), now);
        }
    }

    /// The hosts of such redirects, sorted.
    pub(super) fn redirects(&self, now: Instant) -> Vec<String> {
        let known = self.lock();
        known.redirects.iter().filter(|(_, seen)| now.saturating_duration_since(**seen) < LASTS).map(|(host, _)| host.clone()).collect()
    }

    /// An answer to a request that carried the credential. 403 is about what was asked for: it says nothing of a credential that
    /// was good for something else.
    pub(super) fn answered(&self, status: StatusCode) {
        let accepted = &mut self.lock().accepted;
        match status {
            StatusCode::UNAUTHORIZED => *accepted = Some(false),
            StatusCode::FORBIDDEN if *accepted != Some(true) => *accepted = Some(false),
            status if shows_acceptance(status) => *accepted = Some(true),
            _ => {}
        }
    }

    /// Whether the credential was accepted; nothing before an answer said so.
    pub(super) fn accepted(&self) -> Option<bool> {
        self.lock().accepted
    }

    /// Takes over what is known of the same upstream under the configuration before: all but the redirects that are declared
    /// now, and the verdict on the credential only if it is the same one.
    pub(super) fn take_over(&self, before: &Self, declared: &[String], same_credential: bool) {
        let mut known = before.lock().clone();
        known.redirects.retain(|host, _| !declared.contains(host));
        known.accepted = known.accepted.filter(|_| same_credential);
        *self.lock() = known;
    }

    /// A panic elsewhere leaves at worst a fact out.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether only a credential that is good gets such an answer.
pub(super) fn shows_acceptance(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_bounded_and_end() {
        let (facts, now) = (Facts::default(), Instant::now());
        for i in 0..=MAX_HOSTS {
            facts.redirected(&format!("h{i}.example"), now);
        }
        assert_eq!(facts.redirects(now).len(), MAX_HOSTS);
        assert_eq!(facts.redirects(now + LASTS), Vec::<String>::new());
    }

    #[test]
    fn a_list_that_did_not_change_is_an_answer_to_a_good_credential() {
        let facts = Facts::default();
        facts.answered(StatusCode::UNAUTHORIZED);
        facts.answered(StatusCode::NOT_MODIFIED);
        assert_eq!(facts.accepted(), Some(true));
    }

    #[test]
    fn what_is_forbidden_does_not_condemn_a_credential_that_was_accepted() {
        let facts = Facts::default();
        facts.answered(StatusCode::FORBIDDEN);
        assert_eq!(facts.accepted(), Some(false));
        facts.answered(StatusCode::OK);
        facts.answered(StatusCode::FORBIDDEN);
        facts.answered(StatusCode::NOT_FOUND);
        assert_eq!(facts.accepted(), Some(true));
        facts.answered(StatusCode::UNAUTHORIZED);
        assert_eq!(facts.accepted(), Some(false));
    }

    #[test]
    fn what_is_declared_now_and_a_new_credential_start_anew() {
        let (before, now) = (Facts::default(), Instant::now());
        before.redirected("a.example", now);
        before.redirected("b.example", now);
        before.answered(StatusCode::UNAUTHORIZED);
        let after = Facts::default();
        after.take_over(&before, &["a.example".to_owned()], false);
        assert_eq!((after.redirects(now), after.accepted()), (vec!["b.example".to_owned()], None));
        after.take_over(&before, &[], true);
        assert_eq!(after.accepted(), Some(false));
    }
}
