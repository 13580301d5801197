//! The door of a host: its breaker, and those who wait while a probe finds out whether the host answers again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::breaker::{Admission, Breaker};

/// One host's, as one upstream meets it.
#[derive(Debug, Default)]
pub(super) struct Door {
    breaker: Mutex<Breaker>,
    /// Something was heard of the host, or of a probe.
    heard: Notify,
}

/// A request of which those who wait hope to hear. One that ends without a verdict, as when nobody wants it any more, is followed by
/// another.
#[derive(Debug)]
pub(super) struct Probe(Arc<Door>);

impl Drop for Probe {
    fn drop(&mut self) {
        // After a verdict there is none to give up.
        self.0.note(|breaker| breaker.gave_up(Instant::now()));
    }
}

impl Door {
    /// Lets a request through, or says how long it would have to wait. While a probe is under way it waits for the verdict: a build
    /// asks for many things at once, and all but one of them would fail. Not when the probe has taken longer than `patience`: such
    /// a host is away still.
    pub(super) async fn pass(self: &Arc<Self>, patience: Duration) -> Result<Option<Probe>, Duration> {
        loop {
            let mut heard = std::pin::pin!(self.heard.notified());
            // What is heard from here on counts.
            heard.as_mut().enable();
            let now = Instant::now();
            match self.breaker(|breaker| breaker.admit(now)) {
                Admission::Open => return Ok(None),
                Admission::Probe => return Ok(Some(Probe(Arc::clone(self)))),
                Admission::Probing { since, next } if now < since + patience => {
                    // Whether it was heard or not, the breaker knows what follows.
                    let _timed_out = tokio::time::timeout_at(next.min(since + patience).into(), heard).await;
                }
                Admission::Held(next) | Admission::Probing { next, .. } => return Err(next.saturating_duration_since(now)),
            }
        }
    }

    /// Tells the breaker what was heard.
    pub(super) fn note(&self, work: impl FnOnce(&mut Breaker)) {
        self.breaker(work);
        self.heard.notify_waiters();
    }

    /// Whether it had a problem a moment ago.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.breaker(|breaker| breaker.is_in_trouble(Instant::now()))
    }

    /// Whether requests are held back.
    pub(super) fn is_shut(&self) -> bool {
        self.breaker(|breaker| breaker.is_open(Instant::now()))
    }

    /// A panic elsewhere leaves at worst a fault out.
    fn breaker<T>(&self, work: impl FnOnce(&mut Breaker) -> T) -> T {
        work(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// A door whose pause is over, and a probe that went through it.
    async fn probed() -> (Arc<Door>, Probe) {
        let door = Arc::new(Door::default());
        let before = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        (0..5).for_each(|_| door.note(|breaker| breaker.failed(before, before, before)));
        let probe = door.pass(LONG).await.unwrap().unwrap();
        (door, probe)
    }

    #[tokio::test]
    async fn while_a_probe_is_under_way_others_wait_for_its_verdict() {
        for is_back in [true, false] {
            let (door, probe) = probed().await;
            let tell = async {
                tokio::task::yield_now().await;
                let now = Instant::now();
                door.note(|breaker| if is_back { breaker.answered() } else { breaker.failed(now, now, now) });
                drop(probe);
            };
            let (first, second, ()) = tokio::join!(door.pass(LONG), door.pass(LONG), tell);
            assert_eq!([first.is_ok(), second.is_ok()], [is_back; 2]);
            assert_eq!(door.is_shut(), !is_back);
        }
    }

    #[tokio::test]
    async fn who_has_no_patience_or_comes_when_a_probe_has_taken_too_long_is_held_back() {
        let (door, _probe) = probed().await;
        assert!(door.pass(Duration::ZERO).await.is_err());
        assert!(door.pass(Duration::from_millis(20)).await.is_err());
    }

    #[tokio::test]
    async fn a_probe_that_ends_without_a_verdict_is_followed_by_one_of_those_who_wait() {
        let (door, probe) = probed().await;
        let give_up = async {
            tokio::task::yield_now().await;
            drop(probe);
        };
        let (next, ()) = tokio::join!(door.pass(LONG), give_up);
        assert!(next.unwrap().is_some());
    }
}
