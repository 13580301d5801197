//! The credential of one upstream, and the one that was sent before it. Until an upstream has accepted a new one, a refusal of it
//! sends the old one once more: no download fails because a Secret is ahead of its upstream, or wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::config::Credential;

/// How long after its last refusal a new credential is tried again: an upstream may learn of it later than we do.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What one upstream is sent, if its configuration names a credential.
#[derive(Debug)]
pub(super) struct Held {
    name: String,
    /// Absent: there is no credential of that name.
    new: Option<Credential>,
    old: Mutex<Old>,
}

/// The credential before.
#[derive(Clone, Debug, Default)]
struct Old {
    /// Forgotten as soon as the new one was accepted.
    credential: Option<Credential>,
    /// When the new one was refused last; this one is in use since.
    refused: Option<Instant>,
}

/// Which one a request carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    New,
    Old,
}

/// Whether an upstream wants another credential.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

impl Held {
    pub(super) fn new(name: String, new: Option<Credential>) -> Self {
        Self { name, new, old: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the Secret holds.
    pub(super) fn newest(&self) -> Option<&Credential> {
        self.new.as_ref()
    }

    /// Whether another configuration has the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.new == other.new
    }

    /// What to send now.
    pub(super) fn to_send(&self) -> (Option<Credential>, Which) {
        self.to_send_at(Instant::now())
    }

    fn to_send_at(&self, now: Instant) -> (Option<Credential>, Which) {
        let old = self.lock();
        let is_recent = |refused| now.saturating_duration_since(refused) < TRY_AGAIN;
        match &old.credential {
            Some(credential) if old.refused.is_some_and(is_recent) => (Some(credential.clone()), Which::Old),
            _ => (self.new.clone(), Which::New),
        }
    }

    /// What the upstream accepts, as far as is known.
    fn in_use(&self) -> Option<Credential> {
        let old = self.lock();
        old.refused.and_then(|_| old.credential.clone()).or_else(|| self.new.clone())
    }

    /// One of them was refused. Whether there is another one to send.
    pub(super) fn refused(&self, which: Which) -> bool {
        let mut old = self.lock();
        old.refused = (which == Which::New && old.credential.is_some()).then(Instant::now);
        old.credential.is_some()
    }

    /// One of them was accepted.
    pub(super) fn accepted(&self, which: Which) {
        if which == Which::New {
            *self.lock() = Old::default();
        }
    }

    /// Keeps what the configuration before sent, for the case that what is new is refused. A credential that was withdrawn, or
    /// whose Secret is named no more, is not sent again.
    pub(super) fn take_over(&self, before: &Self) {
        if self.name != before.name || self.new.is_none() {
            return;
        }
        let kept = if self.new == before.new { before.lock().clone() } else { Old { credential: before.in_use(), refused: None } };
        *self.lock() = kept;
    }

    /// A panic elsewhere leaves it as it was.
    fn lock(&self) -> MutexGuard<'_, Old> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CredentialSecret;

    fn held(name: &str, token: Option<&str>) -> Held {
        let credential = |token: &str| Credential { hosts: Vec::new(), secret: CredentialSecret::Token(token.to_owned()) };
        Held::new(name.to_owned(), token.map(credential))
    }

    fn after(before: &Held, name: &str, token: Option<&str>) -> Held {
        let held = held(name, token);
        held.take_over(before);
        held
    }

    fn sends(held: &Held) -> Option<String> {
        held.to_send().0.map(|credential| match credential.secret {
            CredentialSecret::Token(token) => token,
            CredentialSecret::Basic { .. } => String::new(),
        })
    }

    #[test]
    fn the_old_one_is_sent_while_the_new_one_is_refused_and_is_forgotten_when_it_is_accepted() {
        let second = after(&held("corp", Some("one")), "corp", Some("two"));
        assert_eq!(sends(&second).as_deref(), Some("two"));
        assert!(second.refused(Which::New) && second.refused(Which::New), "of many at once each is sent again");
        assert_eq!(sends(&second).as_deref(), Some("one"));
        let later = Instant::now() + TRY_AGAIN;
        assert_eq!(second.to_send_at(later).1, Which::New, "the upstream may know it by now");
        // Another configuration with the same credential goes on with it, and another credential has it for its old one.
        assert_eq!(sends(&after(&second, "corp", Some("two"))).as_deref(), Some("one"));
        let third = after(&second, "corp", Some("three"));
        assert!(sends(&third).as_deref() == Some("three") && third.refused(Which::New));
        assert_eq!(sends(&third).as_deref(), Some("one"));
        assert!(third.refused(Which::Old));
        third.accepted(Which::New);
        assert!(!third.refused(Which::New));
        assert_eq!(sends(&third).as_deref(), Some("three"));
    }

    #[test]
    fn what_was_withdrawn_or_is_named_no_more_is_not_sent_again() {
        let one = held("corp", Some("one"));
        for next in [after(&one, "corp", None), after(&one, "other", Some("two"))] {
            assert!(!next.refused(Which::New));
            assert_ne!(sends(&next).as_deref(), Some("one"));
        }
    }
}
