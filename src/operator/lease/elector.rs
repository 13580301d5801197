//! Who leads: a state machine over readings of one's own clock and answers of the API server. Pure.
//!
//! Its rules are those of client-go's leader election:
//! - A lease is somebody's until nothing about it has changed for as long as its holder asked, by the clock of who looks.
//!   The times that stand in it are for people.
//! - Every write carries the version that was seen, so that of two only one succeeds.
//! - A leader believes in itself for `renew` after it *sent* a write that succeeded. Others wait for `lease`, which is
//!   longer, after they *saw* the outcome, which is later; so it stops before another begins, as long as no clock runs
//!   faster than another by more than `lease / renew`.

use std::time::Duration;

/// The three times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a leader that is silent. Whole seconds, as the Lease object has it.
    pub lease: Duration,
    /// How long a leader believes in itself without a success.
    pub renew: Duration,
    /// How long between two attempts.
    pub retry: Duration,
}

impl Timing {
    /// Checks that a leader steps down before another takes over, with some attempts in between.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.lease.is_zero() || self.lease.subsec_nanos() != 0 || i32::try_from(self.lease.as_secs()).is_err() {
            return Err(format!("the lease duration must be whole seconds and at least one, not {:?}", self.lease));
        }
        if self.renew >= self.lease {
            return Err(format!("the renew deadline ({:?}) must be shorter than the lease duration ({:?})", self.renew, self.lease));
        }
        if self.retry.is_zero() || self.retry.saturating_mul(2) > self.renew {
            return Err(format!("the retry period ({:?}) must be at most half of the renew deadline ({:?})", self.retry, self.renew));
        }
        Ok(())
    }
}

/// What an elector needs to know of a stored Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Whatever changes with every renewal.
    pub stamp: String,
    /// Empty after a release.
    pub holder: String,
    /// How long its holder asked others to wait.
    pub duration: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before this time.
    Wait(Duration),
    /// Read the Lease.
    Read,
    /// Make it, with oneself as the holder; fails if it exists.
    Create,
    /// Replace it as it was last seen, with oneself as the holder; fails if it has changed since.
    Write,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The write succeeded, and this is stored.
    Stored(View),
    /// This was read.
    Found(View),
    /// There is no Lease.
    Absent,
    /// The write failed because someone else was first.
    Conflict,
    /// Nobody knows: the request may have been carried out, or will be.
    Failed,
}

/// What is known of the Lease, and since when it is unchanged.
#[derive(Clone, Debug)]
enum Known {
    Nothing,
    Absent,
    Seen(View, Duration),
}

/// One candidate.
#[derive(Clone, Debug)]
pub(crate) struct Elector {
    identity: String,
    timing: Timing,
    known: Known,
    /// What is known may be old: read before the next write.
    stale: bool,
    /// When the last successful write was sent.
    renewed: Option<Duration>,
    next: Duration,
}

impl Elector {
    /// Knows nothing and leads nobody. The identity must be new: one that an earlier process had would inherit its lease.
    #[must_use]
    pub(crate) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, known: Known::Nothing, stale: true, renewed: None, next: Duration::ZERO }
    }

    /// Until when it leads, if nothing else comes.
    #[must_use]
    pub(crate) fn leads_until(&self) -> Option<Duration> {
        self.renewed.map(|sent| sent + self.timing.renew)
    }

    /// What to do at this time.
    #[must_use]
    pub(crate) fn step(&self, now: Duration) -> Step {
        if now < self.next {
            return Step::Wait(self.next);
        }
        // A leader that is late, perhaps after it stood still, writes nothing before it has looked.
        let late = self.leads_until().is_some_and(|until| now >= until);
        match &self.known {
            _ if self.stale || late => Step::Read,
            Known::Nothing => Step::Read,
            Known::Absent => Step::Create,
            Known::Seen(view, since) if self.is_free(view, *since, now) => Step::Write,
            Known::Seen(..) => Step::Read,
        }
    }

    /// Takes in what came of a step that was begun at `sent`, at the time `now`.
    pub(crate) fn answered(&mut self, sent: Duration, now: Duration, answer: Answer) {
        let again = now + self.timing.retry;
        self.renewed = self.renewed.filter(|_| self.leads_until().is_some_and(|until| now < until));
        match answer {
            Answer::Stored(view) => {
                self.renewed = Some(sent);
                self.known = Known::Seen(view, now);
                self.stale = false;
                self.next = sent + self.timing.retry;
            }
            Answer::Found(view) => {
                if view.holder != self.identity {
                    self.renewed = None;
                }
                // The time of the answer and not of the question: the holder may have renewed in between.
                let since = match &self.known {
                    Known::Seen(old, since) if *old == view => *since,
                    _ => now,
                };
                self.stale = !self.is_free(&view, since, now);
                self.next = if self.stale { again } else { now };
                self.known = Known::Seen(view, since);
            }
            Answer::Absent => {
                // Whoever deleted it took the lead away: another may have it already.
                self.renewed = None;
                self.known = Known::Absent;
                self.stale = false;
                self.next = now;
            }
            Answer::Conflict | Answer::Failed => {
                self.stale = true;
                self.next = again;
            }
        }
    }

    /// Stops leading. Whether it led, so that a last write without a holder is worth its while.
    pub(crate) fn resign(&mut self, now: Duration) -> bool {
        let led = self.leads_until().is_some_and(|until| now < until);
        self.renewed = None;
        led
    }

    fn is_free(&self, view: &View, since: Duration, now: Duration) -> bool {
        view.holder == self.identity || view.holder.is_empty() || now >= since + view.duration
    }
}
