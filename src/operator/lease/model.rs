//! Several electors, a server, and all that can go wrong in between, on a simulated time.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::elector::{Answer, Elector, Step, Timing, View};

const TIMING: Timing = Timing { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) };
const SECOND: u64 = 1_000_000;
/// When faults and suspensions end, in microseconds, and when the run does.
const CALM: u64 = 200 * SECOND;
const END: u64 = 300 * SECOND;

/// One world. Chances are in percent.
#[derive(Clone, Debug)]
struct World {
    seed: u64,
    /// Each elector's clock at the start, and how many of its milliseconds a second has.
    clocks: Vec<(u64, u64)>,
    /// Elector, begin and length, in microseconds.
    suspensions: Vec<(usize, u64, u64)>,
    /// Requests or answers that get lost.
    lost: u64,
    /// Errors and conflicts without a cause, before or after the write was carried out.
    errors: u64,
    /// The longest delay each way, in microseconds.
    delay: u64,
    /// A clock that a suspension stops, as CLOCK_MONOTONIC is.
    clocks_sleep: bool,
}

fn world() -> impl Strategy<Value = World> {
    let clock = (0..1_000_000 * SECOND, 850..1150_u64);
    let suspension = (0..3_usize, 0..CALM, 0..60 * SECOND);
    let suspensions = prop::collection::vec(suspension, 0..8);
    let delay = prop_oneof![Just(SECOND / 100), Just(SECOND), Just(4 * SECOND), Just(12 * SECOND)];
    (any::<u64>(), prop::collection::vec(clock, 3), suspensions, 0..40_u64, 0..40_u64, delay).prop_map(
        |(seed, clocks, suspensions, lost, errors, delay)| World { seed, clocks, suspensions, lost, errors, delay, clocks_sleep: false },
    )
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Poll,
    Arrive { request: u64, guard: u64, write: bool, create: bool },
    Answer { request: u64, answer: u8, version: u64 },
    TimeOut { request: u64 },
}

/// The stored lease: its version is its renewal's stamp; holder, or nobody.
type Stored = Option<(u64, Option<usize>)>;

struct Peer {
    elector: Elector,
    /// The version that it saw last, which a write of its carries.
    seen: u64,
    /// The request that it waits for, and the own time at which that was sent.
    waits: Option<(u64, Duration)>,
    /// The true times at which writes were sent that the server carried out.
    carried_out: Vec<u64>,
    /// Every request and the true time at which it was sent.
    requests: Vec<(u64, u64)>,
}

struct Run {
    world: World,
    random: u64,
    time: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize, Event)>>,
    stored: Stored,
    version: u64,
    peers: Vec<Peer>,
    leaders_seen: u64,
}

impl Run {
    fn new(world: World) -> Self {
        let peer = |i: usize| Peer {
            elector: Elector::new(i.to_string(), TIMING),
            seen: 0,
            waits: None,
            carried_out: Vec::new(),
            requests: Vec::new(),
        };
        let peers = (0..world.clocks.len()).map(peer).collect();
        let random = world.seed;
        let mut run = Self { world, random, time: 0, order: 0, queue: BinaryHeap::new(), stored: None, version: 0, peers, leaders_seen: 0 };
        for i in 0..run.peers.len() {
            run.schedule(0, i, Event::Poll);
        }
        run
    }

    /// SplitMix64: the same world runs the same way.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        let happens = self.below(100) < percent;
        happens && self.time < CALM
    }

    fn delay(&mut self) -> u64 {
        let longest = if self.time < CALM { self.world.delay } else { SECOND / 100 };
        self.below(longest)
    }

    fn schedule(&mut self, at: u64, peer: usize, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, peer, event)));
    }

    fn clock(&self, peer: usize, time: u64) -> Duration {
        let (offset, rate) = self.world.clocks[peer];
        let slept: u64 = self
            .world
            .suspensions
            .iter()
            .filter(|(who, ..)| *who == peer && self.world.clocks_sleep)
            .fold(0, |slept, s| slept + time.clamp(s.1, s.1 + s.2) - s.1);
        Duration::from_micros(offset + time.saturating_sub(slept) * rate / 1000)
    }

    /// When a suspended peer goes on.
    fn wakes(&self, peer: usize) -> Option<u64> {
        let now = self.time;
        self.world
            .suspensions
            .iter()
            .filter(|(who, begin, length)| *who == peer && (*begin..begin + length).contains(&now))
            .map(|s| s.1 + s.2)
            .max()
    }

    fn go(&mut self) -> Result<(), String> {
        while let Some(Reverse((time, _, peer, event))) = self.queue.pop() {
            if time > END {
                break;
            }
            self.time = time;
            match (&event, self.wakes(peer)) {
                // The server does not sleep.
                (Event::Arrive { request, guard, write, create }, _) => self.arrive(peer, *request, *guard, *write, *create),
                (_, Some(wakes)) => self.schedule(wakes, peer, event),
                (Event::Poll, None) => self.poll(peer),
                (Event::Answer { request, answer, version }, None) => self.answer(peer, *request, *answer, *version),
                (Event::TimeOut { request }, None) => self.finish(peer, *request, Answer::Failed),
            }
            self.check()?;
        }
        if self.leaders_seen == 0 { Err("nobody ever led after the faults were over".to_owned()) } else { Ok(()) }
    }

    fn poll(&mut self, peer: usize) {
        if self.peers[peer].waits.is_some() {
            return;
        }
        let now = self.clock(peer, self.time);
        let step = self.peers[peer].elector.step(now);
        let (write, create) = match step {
            Step::Wait(until) => {
                let rest = u64::try_from((until - now).as_micros()).unwrap() * 1000 / self.world.clocks[peer].1;
                return self.schedule(self.time + rest.max(1000), peer, Event::Poll);
            }
            Step::Read => (false, false),
            Step::Create => (true, true),
            Step::Write => (true, false),
        };
        self.order += 1;
        let (request, guard, time) = (self.order, self.peers[peer].seen, self.time);
        self.peers[peer].waits = Some((request, now));
        self.peers[peer].requests.push((request, time));
        self.schedule(self.time + 5 * SECOND, peer, Event::TimeOut { request });
        if !self.chance(self.world.lost) {
            let at = self.time + self.delay();
            self.schedule(at, peer, Event::Arrive { request, guard, write, create });
        }
    }

    fn arrive(&mut self, peer: usize, request: u64, guard: u64, write: bool, create: bool) {
        const FAILED: u8 = 3;
        let early = self.chance(self.world.errors);
        let mut answer = match &self.stored {
            _ if early => FAILED - u8::from(self.below(2) == 0 && write),
            Some(_) if !write => 1,
            None if create => 0,
            Some((version, _)) if !create && *version == guard => 0,
            None => 4,
            Some(_) => 2,
        };
        if answer == 0 {
            self.version += 1;
            self.stored = Some((self.version, Some(peer)));
            let sent = self.peers[peer].requests.iter().find(|(r, _)| *r == request).map(|(_, sent)| *sent);
            self.peers[peer].carried_out.extend(sent);
            if self.chance(self.world.errors) {
                answer = FAILED;
            }
        }
        if !self.chance(self.world.lost) {
            let at = self.time + self.delay();
            let version = self.stored.map_or(0, |(version, _)| version);
            // What is answered is what is stored now; the holder goes with the version.
            let holder = self.stored.and_then(|(_, holder)| holder).map_or(0, |holder| holder as u64 + 1);
            self.schedule(at, peer, Event::Answer { request, answer, version: version * 16 + holder });
        }
    }

    fn answer(&mut self, peer: usize, request: u64, answer: u8, version: u64) {
        let (version, holder) = (version / 16, version % 16);
        let holder = if holder == 0 { String::new() } else { (holder - 1).to_string() };
        let view = View { stamp: version.to_string(), holder, duration: TIMING.lease };
        let answer = match answer {
            0 => Answer::Stored(view),
            1 => Answer::Found(view),
            2 => Answer::Conflict,
            4 => Answer::Absent,
            _ => Answer::Failed,
        };
        if self.peers[peer].waits.is_some_and(|(waited, _)| waited == request) && matches!(answer, Answer::Stored(_) | Answer::Found(_)) {
            self.peers[peer].seen = version;
        }
        self.finish(peer, request, answer);
    }

    fn finish(&mut self, peer: usize, request: u64, answer: Answer) {
        let now = self.clock(peer, self.time);
        let Some((_, sent)) = self.peers[peer].waits.take_if(|(waited, _)| *waited == request) else { return };
        self.peers[peer].elector.answered(sent, now, answer);
        self.schedule(self.time, peer, Event::Poll);
    }

    fn believes(&self, peer: usize) -> bool {
        self.peers[peer].elector.leads_until().is_some_and(|until| self.clock(peer, self.time) < until)
    }

    fn check(&mut self) -> Result<(), String> {
        let believers: Vec<usize> = (0..self.peers.len()).filter(|peer| self.believes(*peer)).collect();
        if believers.len() > 1 {
            return Err(format!("at {} µs all of {believers:?} believe", self.time));
        }
        for peer in believers {
            let now = self.clock(peer, self.time);
            let proved = self.peers[peer].carried_out.iter().any(|sent| now < self.clock(peer, *sent) + TIMING.renew);
            if !proved {
                return Err(format!("at {} µs {peer} believes without a write that was carried out in its deadline", self.time));
            }
            self.leaders_seen += u64::from(self.time > END - 30 * SECOND);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn never_two_believers_nor_one_past_its_deadline_and_one_when_it_is_calm(world in world()) {
        prop_assert_eq!(Run::new(world).go(), Ok(()));
    }
}

/// What the model is worth: with what the rules forbid, it finds two believers.
#[test]
fn clocks_that_sleep_or_run_apart_are_found() {
    let worlds = |change: fn(&mut World)| {
        (0..300).filter(move |seed| {
            let begin = seed * SECOND / 3 + 20 * SECOND;
            let clocks = vec![(0, 1000), (50 * SECOND, 1000), (7, 1000)];
            let suspensions = (0..3).map(|peer| (peer, begin, 20 * SECOND)).take(usize::from(seed % 2 == 0) + 1).collect();
            let mut world = World { seed: *seed, clocks, suspensions, lost: 30, errors: 0, delay: SECOND, clocks_sleep: false };
            change(&mut world);
            Run::new(world).go().is_err_and(|error| error.contains("all of"))
        })
    };
    assert_eq!(worlds(|_| ()).count(), 0);
    assert!(worlds(|world| world.clocks_sleep = true).count() > 0);
    assert!(worlds(|world| world.clocks = vec![(0, 1000), (0, 2500), (0, 2500)]).count() > 0);
}

#[test]
fn a_lease_that_was_given_back_is_taken_without_waiting() {
    let at = Duration::from_secs;
    let view = |stamp: &str, holder: &str| View { stamp: stamp.to_owned(), holder: holder.to_owned(), duration: TIMING.lease };
    let mut elector = Elector::new("me".to_owned(), TIMING);
    assert_eq!(elector.step(at(100)), Step::Read);
    elector.answered(at(100), at(100), Answer::Found(view("1", "other")));
    assert_eq!(elector.step(at(101)), Step::Wait(at(102)));
    elector.answered(at(102), at(102), Answer::Found(view("2", "")));
    assert_eq!(elector.step(at(102)), Step::Write);
    elector.answered(at(102), at(104), Answer::Stored(view("3", "me")));
    assert_eq!(elector.leads_until(), Some(at(112)), "counted from the answer and not from the question");
    let mut overtaken = elector.clone();
    overtaken.answered(at(104), at(105), Answer::Found(view("4", "other")));
    assert_eq!(overtaken.leads_until(), None);
    assert!(elector.resign(at(105)));
    assert!(!elector.resign(at(105)));
    assert_eq!(elector.leads_until(), None);
}

#[test]
fn a_silent_holder_is_waited_for_since_the_last_change_that_was_seen() {
    let at = Duration::from_secs;
    let view = |stamp: &str| View { stamp: stamp.to_owned(), holder: "other".to_owned(), duration: Duration::from_secs(20) };
    let mut elector = Elector::new("me".to_owned(), TIMING);
    for (now, stamp) in [(100, "1"), (110, "2"), (120, "2"), (129, "2")] {
        // Seen when the answer came: the holder may have renewed after the question.
        elector.answered(at(now - 4), at(now), Answer::Found(view(stamp)));
        assert!(matches!(elector.step(at(now)), Step::Wait(_)), "{now}");
    }
    // As long as the holder asked, whatever this one's own setting is.
    elector.answered(at(130), at(130), Answer::Found(view("2")));
    assert_eq!(elector.step(at(130)), Step::Write);
    elector.answered(at(130), at(130), Answer::Conflict);
    assert_eq!(elector.leads_until(), None);
    assert_eq!(elector.step(at(132)), Step::Read);
}

#[test]
fn a_leader_that_stood_still_looks_before_it_writes() {
    let at = Duration::from_secs;
    let view = |stamp: &str, holder: &str| View { stamp: stamp.to_owned(), holder: holder.to_owned(), duration: TIMING.lease };
    let mut elector = Elector::new("me".to_owned(), TIMING);
    elector.answered(at(100), at(100), Answer::Absent);
    assert_eq!(elector.step(at(100)), Step::Create);
    elector.answered(at(100), at(100), Answer::Stored(view("1", "me")));
    assert_eq!(elector.step(at(102)), Step::Write);
    assert_eq!(elector.step(at(110)), Step::Read);
    let mut other = elector.clone();
    elector.answered(at(110), at(110), Answer::Found(view("1", "me")));
    assert_eq!((elector.step(at(110)), elector.leads_until()), (Step::Write, None));
    other.answered(at(110), at(110), Answer::Found(view("2", "other")));
    assert_eq!((other.step(at(110)), other.leads_until()), (Step::Wait(at(112)), None));
}

#[test]
fn timings_that_can_not_work_are_refused() {
    let timing = |lease: u64, renew: u64, retry: u64| Timing {
        lease: Duration::from_millis(lease),
        renew: Duration::from_millis(renew),
        retry: Duration::from_millis(retry),
    };
    assert_eq!(TIMING.check(), Ok(()));
    assert_eq!(timing(1000, 700, 200).check(), Ok(()));
    for (bad, word) in [
        (timing(1500, 1000, 100), "whole seconds"),
        (timing(0, 0, 0), "whole seconds"),
        (timing(10_000, 10_000, 100), "shorter than the lease"),
        (timing(15_000, 10_000, 6_000), "at most half"),
        (timing(15_000, 10_000, 0), "at most half"),
    ] {
        assert!(bad.check().is_err_and(|error| error.contains(word)), "{bad:?}");
    }
}
