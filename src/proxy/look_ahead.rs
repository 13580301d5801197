//! Fetches what a go command will ask for next before it asks ([`super::walk`] says what): a download through an empty
//! cache is bound by round trips, and most of them are one after the other.
//!
//! Nothing here delays a client: its own requests never queue, and one that is being fetched ahead is joined. A failure is
//! no answer for anybody. An upstream that is in trouble is left alone for a while, and the others are asked all the same.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::fetch_ahead::Ahead;
use super::memory::Hot;
use super::walk::{self, Infos, Step, Walk, Why};
use crate::budget::Budget;
use crate::config::LookAhead as Mode;
use crate::gomod::Request;
use crate::telemetry::Metrics;

/// How many steps run at once to begin with, and how many zips ever.
const AT_ONCE: usize = 32;
/// How many small steps run at once when as many more were answered.
const MOST_AT_ONCE: usize = 128;
const MAX_CLIENTS: usize = 1_024;
const MAX_QUEUE: usize = 16_384;

/// What is known of one client, shared by its connections.
type Client = Arc<Mutex<Walk>>;

/// One connection: its client, and its own last requests.
pub(super) struct Trail {
    client: Client,
    infos: Mutex<Infos>,
}

/// Those who were heard of a moment ago.
struct Clients {
    known: HashMap<IpAddr, Client>,
    /// For what is remembered of them.
    budget: Arc<Budget>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { known: HashMap::new(), budget: walk::budget() }
    }
}

impl Clients {
    /// The one with this address.
    fn of(&mut self, address: IpAddr, now: Instant) -> Client {
        if let Some(known) = self.known.get(&address) {
            return Arc::clone(known);
        }
        // Every pod has another address, and what is known of one is as large as its graph.
        self.known.retain(|_, client| Arc::strong_count(client) > 1 || !lock(client).is_silent(now));
        let client = Arc::new(Mutex::new(Walk::new(now, &self.budget)));
        if self.known.len() < MAX_CLIENTS {
            self.known.insert(address, Arc::clone(&client));
        }
        client
    }
}

/// The steps that wait, and the task that takes them.
pub(super) struct LookAhead {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    clients: Mutex<Clients>,
    /// Small and certain, then zips, then guesses.
    lanes: Mutex<[VecDeque<(Client, Step)>; 3]>,
    wake: Notify,
}

impl LookAhead {
    pub(super) fn new(cache: Arc<Cache>, metrics: Arc<Metrics>) -> Self {
        Self { cache, metrics, clients: Mutex::default(), lanes: Mutex::default(), wake: Notify::new() }
    }

    /// A new connection of a client.
    pub(super) fn trail(&self, client: IpAddr) -> Trail {
        let mut clients = lock(&self.clients);
        let infos = Mutex::new(Infos::new(&clients.budget));
        Trail { client: clients.of(client, Instant::now()), infos }
    }

    /// Notes what a client asks for, before it has its answer.
    pub(super) fn asked(&self, trail: &Trail, request: &Arc<Request>, now: Instant) {
        if self.cache.look_ahead() == Mode::Disabled {
            return;
        }
        let steps = lock(&trail.client).asked(request, &mut lock(&trail.infos), now);
        self.enqueue(&trail.client, steps);
    }

    /// Notes that what a client asks for is not here. What follows is fetched beside it, not after it.
    pub(super) fn missed(&self, trail: &Trail, request: &Request) {
        if self.cache.look_ahead() != Mode::Disabled {
            let steps = lock(&trail.client).missed(request, &mut lock(&trail.infos));
            self.enqueue(&trail.client, steps);
        }
    }

    /// Notes what a client got.
    pub(super) fn answered(&self, trail: &Trail, hot: &Hot) {
        if let Request::Mod(module, version) = &*hot.request
            && hot.take_unread()
            && self.cache.look_ahead() != Mode::Disabled
        {
            let steps = lock(&trail.client).read(module, version, &hot.body);
            self.enqueue(&trail.client, steps);
        }
    }

    /// Takes steps from the lanes until the token is cancelled.
    pub(super) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut running = JoinSet::new();
        let mut pace = Pace::default();
        loop {
            while running.len() < pace.0
                && let Some((client, step)) = self.next(running.len() < AT_ONCE)
            {
                let this = Arc::clone(&self);
                running.spawn(async move { this.take(&client, step).await });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.wake.notified() => {}
                Some(ended) = running.join_next() => match ended {
                    Ok(came_to) => pace.follow(&came_to),
                    Err(error) => tracing::error!(%error, "a step of looking ahead failed"),
                }
            }
        }
        running.shutdown().await;
    }

    async fn take(&self, client: &Client, step: Step) -> Ahead {
        let Step { request, why } = step;
        let endpoint = request.endpoint();
        let ahead = self.cache.fetch_ahead(&Arc::new(request)).await;
        self.metrics.look_ahead.with_label_values(&[endpoint, ahead.as_str()]).inc();
        if let (Why::Unpruned, Ahead::Present(Some(body)) | Ahead::Fetched(Some(body))) = (why, &ahead) {
            let steps = self.read_unpruned(client, body);
            self.enqueue(client, steps);
        }
        ahead
    }

    fn read_unpruned(&self, client: &Client, body: &Bytes) -> Vec<Step> {
        lock(client).read_unpruned(body)
    }

    fn enqueue(&self, client: &Client, steps: Vec<Step>) {
        if steps.is_empty() || self.cache.is_offline() {
            return;
        }
        let certain_only = self.cache.look_ahead() == Mode::Certain;
        let mut lanes = lock(&self.lanes);
        for step in steps {
            let lane = match (&step.request, step.why) {
                (_, Why::Guessed) if certain_only => continue,
                (_, Why::Guessed) => 2,
                (Request::Zip(..), _) => 1,
                _ => 0,
            };
            if let Some(lane) = lanes.get_mut(lane).filter(|lane| lane.len() < MAX_QUEUE) {
                lane.push_back((Arc::clone(client), step));
            }
        }
        drop(lanes);
        self.wake.notify_one();
    }

    fn next(&self, may_be_zip: bool) -> Option<(Client, Step)> {
        let [small, zips, guesses] = &mut *lock(&self.lanes);
        let zip = || if may_be_zip { zips.pop_front() } else { None };
        small.pop_front().or_else(zip).or_else(|| guesses.pop_front())
    }
}

/// How many steps run at once. What is small costs little but its round trip, so a far upstream that answers is asked for more
/// and more of it side by side; one that is in trouble begins anew.
struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(AT_ONCE)
    }
}

impl Pace {
    fn follow(&mut self, came_to: &Ahead) {
        match came_to {
            Ahead::Fetched(_) => self.0 = (self.0 + 1).min(MOST_AT_ONCE),
            Ahead::Failed => *self = Self::default(),
            Ahead::Present(_) | Ahead::Absent => {}
        }
    }
}

/// A panic elsewhere leaves at worst a step out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_gone_is_forgotten_when_another_one_comes() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        let later = now + Duration::from_secs(61);
        let stays = clients.of([10, 0, 0, 1].into(), now);
        drop(clients.of([10, 0, 0, 2].into(), now));
        assert!(Arc::ptr_eq(&stays, &clients.of([10, 0, 0, 1].into(), now)));
        drop(clients.of([10, 0, 0, 3].into(), now));
        assert_eq!(clients.known.len(), 3, "a pod may go on with another connection");
        drop(clients.of([10, 0, 0, 4].into(), later));
        assert_eq!(clients.known.len(), 2, "a connection holds its client");
    }

    #[test]
    fn each_answer_makes_the_pace_faster_and_a_failure_slow_again() {
        let mut pace = Pace::default();
        [Ahead::Present(None), Ahead::Absent].into_iter().for_each(|came_to| pace.follow(&came_to));
        assert_eq!(pace.0, AT_ONCE, "that nothing was fetched says nothing");
        (0..10).for_each(|_| pace.follow(&Ahead::Fetched(None)));
        assert_eq!(pace.0, AT_ONCE + 10);
        (0..MOST_AT_ONCE).for_each(|_| pace.follow(&Ahead::Fetched(None)));
        assert_eq!(pace.0, MOST_AT_ONCE);
        pace.follow(&Ahead::Failed);
        assert_eq!(pace.0, AT_ONCE);
    }
}
