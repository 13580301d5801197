//! A circuit breaker: an upstream that does not answer is left alone for a while, so that a build hears of it at once
//! and not after a time-out for each of its modules. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

/// This many requests in a row that failed, with no answer between them, open it.
const THRESHOLD: u32 = 5;
/// How long it stays open the first time; doubled each time a probe fails.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long after a fault nothing is asked that no client waits for.
const QUIET: Duration = Duration::from_secs(10);

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Open,
    /// It may, and what becomes of it is the verdict.
    Probe,
    /// A probe has been under way since then, and at `next` one more may go.
    Probing {
        since: Instant,
        next: Instant,
    },
    /// Not before then.
    Held(Instant),
}

/// The state for one upstream.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    faults: u32,
    /// When the next request may go through, and how long the pause before it was.
    open: Option<(Instant, Duration)>,
    /// Since when requests went through after the pause of which nothing was heard yet.
    probing: Option<Instant>,
    /// When the last fault was that counts.
    counted: Option<Instant>,
    /// When the last fault was, of any kind.
    trouble: Option<Instant>,
}

impl Breaker {
    /// Whether a request may be sent. When the pause is over one goes through as a probe; a second one soon after it, since the first
    /// may ask for something that takes its time, and one more after each further pause.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        let Some((until, pause)) = &mut self.open else { return Admission::Open };
        if now >= *until {
            *until = now + if self.probing.is_none() { FIRST_PAUSE } else { *pause };
            self.probing.get_or_insert(now);
            return Admission::Probe;
        }
        self.probing.map_or(Admission::Held(*until), |since| Admission::Probing { since, next: *until })
    }

    /// A probe came to no verdict. The next request is one.
    pub(super) fn gave_up(&mut self, now: Instant) {
        if let (Some((until, _)), Some(_)) = (&mut self.open, self.probing.take()) {
            *until = now;
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

    /// It was silent once more for the same request.
    pub(super) fn troubled(&mut self, now: Instant) {
        self.trouble = Some(now);
    }

    /// Whether only what a client waits for may be asked.
    pub(super) fn is_in_trouble(&self, now: Instant) -> bool {
        self.trouble.is_some_and(|trouble| now.saturating_duration_since(trouble) < QUIET)
    }

    /// The upstream could not be reached, or was silent. `asked`: when; `began`: since when nothing was heard. What was under way when
    /// another request failed fails with it, on the same connection or for the same reason, and proves nothing more.
    pub(super) fn failed(&mut self, asked: Instant, began: Instant, now: Instant) {
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
            Some(_) if self.probing.is_none_or(|since| asked < since) => return,
            Some((_, last)) => (last * 2).min(MAX_PAUSE),
        };
        self.open = Some((now + pause, pause));
        self.probing = None;
    }

    /// Whether requests are held back.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.open.is_some_and(|(until, _)| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &mut Breaker, asked: Instant, now: Instant) {
        breaker.failed(asked, asked, now);
    }

    fn opened(start: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..THRESHOLD).for_each(|_| fail(&mut breaker, start, start));
        breaker
    }

    #[test]
    fn it_opens_after_faults_in_a_row_only() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            (1..THRESHOLD).for_each(|_| fail(&mut breaker, now, now));
            breaker.answered();
        }
        assert_eq!(breaker.admit(now), Admission::Open);
        assert_eq!(opened(now).admit(now), Admission::Held(now + FIRST_PAUSE));
    }

    #[test]
    fn a_probe_goes_through_after_the_pause_and_its_answer_closes_it() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert_eq!(breaker.admit(later), Admission::Probing { since: later, next: later + FIRST_PAUSE });
        breaker.answered();
        assert_eq!(breaker.admit(later), Admission::Open);
    }

    #[test]
    fn a_probe_that_takes_its_time_is_not_the_only_one_and_one_without_a_verdict_is_followed_at_once() {
        let start = Instant::now();
        let (mut breaker, mut now) = (opened(start), start);
        // With a pause that has grown.
        for _ in 0..4 {
            now += MAX_PAUSE;
            assert_eq!(breaker.admit(now), Admission::Probe);
            fail(&mut breaker, now, now);
        }
        let since = now + MAX_PAUSE;
        assert_eq!(breaker.admit(since), Admission::Probe);
        let second = since + FIRST_PAUSE;
        assert_eq!(breaker.admit(second), Admission::Probe);
        assert_eq!(breaker.admit(second), Admission::Probing { since, next: second + MAX_PAUSE });
        breaker.gave_up(second);
        assert_eq!(breaker.admit(second), Admission::Probe);
    }

    #[test]
    fn what_was_under_way_when_another_request_failed_counts_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut breaker = Breaker::default();
        // One connection that carried them all is reset, and so are those that come after.
        for wave in 0..u64::from(THRESHOLD) - 1 {
            (0..200).for_each(|i| fail(&mut breaker, at(wave * 1000), at(wave * 1000 + 500 + i)));
            assert_eq!(breaker.admit(at(wave * 1000 + 800)), Admission::Open, "wave {wave}");
        }
        fail(&mut breaker, at(9000), at(9000));
        assert_eq!(breaker.admit(at(9001)), Admission::Held(at(9000) + FIRST_PAUSE), "none of them was answered");
    }

    #[test]
    fn one_fault_of_many_requests_at_once_is_one_pause_and_no_verdict_on_a_later_probe() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        (0..200).for_each(|_| fail(&mut breaker, start, start));
        assert_eq!(breaker.admit(start), Admission::Held(start + FIRST_PAUSE));
        let later = start + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Admission::Probe);
        // They were asked before it; some were silent until now.
        (0..200).for_each(|_| fail(&mut breaker, start, later));
        (0..200).for_each(|_| breaker.failed(start, later, later));
        assert_eq!(breaker.admit(later), Admission::Probing { since: later, next: later + FIRST_PAUSE });
        (0..200).for_each(|_| fail(&mut breaker, later, later));
        assert_eq!(breaker.admit(later), Admission::Held(later + 2 * FIRST_PAUSE), "the probe failed");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for _ in 0..200 {
            now += MAX_PAUSE;
            assert_eq!(breaker.admit(now), Admission::Probe);
            fail(&mut breaker, now, now);
        }
        assert_eq!(breaker.admit(now), Admission::Held(now + MAX_PAUSE));
    }

    #[test]
    fn a_fault_of_any_kind_is_trouble_for_a_while_whatever_is_answered_in_between() {
        let now = Instant::now();
        let (mut silent, mut complaining) = (Breaker::default(), Breaker::default());
        fail(&mut silent, now, now);
        complaining.complained(now);
        for breaker in [&mut silent, &mut complaining] {
            breaker.answered();
            assert!(breaker.is_in_trouble(now) && !breaker.is_in_trouble(now + QUIET));
            assert_eq!(breaker.admit(now), Admission::Open, "clients are not held back");
        }
    }
}
