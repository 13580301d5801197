//! A circuit breaker: an upstream that does not answer is left alone for a while, so that a build hears of it at once
//! and not after a time-out for each of its modules. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

/// This many faults in a row, with no answer between them, open it.
const THRESHOLD: u32 = 5;
/// How long it stays open the first time; doubled each time the probe fails.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long after a fault nothing is asked that no client waits for.
const QUIET: Duration = Duration::from_secs(10);

/// The state for one upstream.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    faults: u32,
    /// When the next request may go through, and how long the pause before it was.
    open: Option<(Instant, Duration)>,
    /// A request went through after the pause, and nothing was heard of it yet.
    probing: bool,
    /// When the last fault was that counts.
    counted: Option<Instant>,
    /// When the last fault was, of any kind.
    trouble: Option<Instant>,
}

impl Breaker {
    /// Whether a request may be sent. If not: how long it would have to wait.
    ///
    /// When the pause is over one request goes through as a probe, and the others wait for another pause.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match &mut self.open {
            Some((until, _)) if now < *until => Err(*until - now),
            Some((until, pause)) => {
                *until = now + *pause;
                self.probing = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The upstream answered, whatever it said.
    pub(super) fn answered(&mut self) {
        *self = Self { trouble: self.trouble, ..Self::default() };
    }

    /// The upstream answered, and wants to be left alone.
    pub(super) fn complained(&mut self, now: Instant) {
        self.answered();
        self.trouble = Some(now);
    }

    /// Whether only what a client waits for may be asked.
    pub(super) fn is_in_trouble(&self, now: Instant) -> bool {
        self.trouble.is_some_and(|trouble| now.saturating_duration_since(trouble) < QUIET)
    }

    /// The upstream could not be reached, or was silent. `began`: when it was asked. What was under way when another request failed
    /// fails with it, on the same connection or for the same reason, and proves nothing more.
    pub(super) fn failed(&mut self, began: Instant, now: Instant) {
        self.trouble = Some(now);
        if self.open.is_none() && self.counted.is_some_and(|counted| began < counted) {
            return;
        }
        self.counted = Some(now);
        self.faults = self.faults.saturating_add(1);
        let pause = match self.open {
            None if self.faults < THRESHOLD => return,
            None => FIRST_PAUSE,
            // What was under way when it opened fails with the same fault: a moment's trouble is no long one.
            Some(_) if !self.probing => return,
            Some((_, last)) => (last * 2).min(MAX_PAUSE),
        };
        self.open = Some((now + pause, pause));
        self.probing = false;
    }

    /// Whether requests are held back.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.open.is_some_and(|(until, _)| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(start: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..THRESHOLD).for_each(|_| breaker.failed(start, start));
        breaker
    }

    #[test]
    fn it_opens_after_faults_in_a_row_only() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            (1..THRESHOLD).for_each(|_| breaker.failed(now, now));
            breaker.answered();
        }
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(opened(now).admit(now), Err(FIRST_PAUSE));
    }

    #[test]
    fn one_probe_goes_through_after_the_pause_and_its_answer_closes_it() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Ok(()));
        assert!(breaker.admit(later).is_err());
        breaker.answered();
        assert_eq!(breaker.admit(later), Ok(()));
    }

    #[test]
    fn what_was_under_way_when_another_request_failed_counts_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut breaker = Breaker::default();
        // One connection that carried them all is reset, and so are those of the second tries.
        for wave in 0..u64::from(THRESHOLD) - 1 {
            (0..200).for_each(|i| breaker.failed(at(wave * 1000), at(wave * 1000 + 500 + i)));
            assert_eq!(breaker.admit(at(wave * 1000 + 800)), Ok(()), "wave {wave}");
        }
        breaker.failed(at(9000), at(9000));
        assert!(breaker.admit(at(9001)).is_err(), "none of them was answered");
    }

    #[test]
    fn one_fault_of_many_requests_at_once_is_one_pause() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        (0..200).for_each(|_| breaker.failed(start, start));
        assert_eq!(breaker.admit(start), Err(FIRST_PAUSE));
        let later = start + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Ok(()));
        (0..200).for_each(|_| breaker.failed(start, later));
        assert_eq!(breaker.admit(later), Err(2 * FIRST_PAUSE), "the probe failed");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for _ in 0..200 {
            now += MAX_PAUSE;
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now, now);
        }
        assert_eq!(breaker.admit(now), Err(MAX_PAUSE));
    }

    #[test]
    fn a_fault_of_any_kind_is_trouble_for_a_while_whatever_is_answered_in_between() {
        let now = Instant::now();
        let (mut silent, mut complaining) = (Breaker::default(), Breaker::default());
        silent.failed(now, now);
        complaining.complained(now);
        for breaker in [&mut silent, &mut complaining] {
            breaker.answered();
            assert!(breaker.is_in_trouble(now) && !breaker.is_in_trouble(now + QUIET));
            assert_eq!(breaker.admit(now), Ok(()), "clients are not held back");
        }
    }
}
