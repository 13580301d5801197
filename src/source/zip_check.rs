//! The check of a zip that is here: with which processors, and when.
//!
//! A short zip that a client waits for is checked at once. Long ones are checked one after the other, each with all processors that
//! are free. What nobody waits for has half of the processors, in the order in which it came, and gives way to those.

use std::num::NonZero;
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::upstream::Upstream;
use super::{Check, Class, FetchError, Fetched, Wanted};
use crate::gomod::{ZipError, hash_zip_with};
use crate::store::Growing;

/// How many zips that no client waits for are checked at once: with half of the processors, in the order in which they came, and
/// with those that are left by what clients wait for. All at once, each would be late, and the one that a client needs first no
/// sooner than the rest.
static CHECKS_AHEAD: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(processors().div_ceil(2)));
/// For long zips that clients wait for: who comes first has all that are free, and who finds none waits. One after the other they
/// are checked sooner than all at once, but for the last.
static PROCESSORS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(processors()));
const LONG: u64 = 4 << 20;
/// Those of them that run.
static URGENT: Urgent = Urgent { since: Mutex::new(Vec::new()), ended: Condvar::new() };
/// How soon a check that gave way notices that a client waits for it, too.
const NOTICE: Duration = Duration::from_millis(20);

impl Upstream {
    pub(super) async fn check_zip(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let (Check::Zip(module, version), Some(file)) = (wanted.check.clone(), &wanted.file) else {
            return Err(FetchError::Local("a file that is no zip".to_owned()));
        };
        let turn = turn(file, &CHECKS_AHEAD).await;
        let processors = all_free(file, &PROCESSORS).await;
        let threads = processors.as_ref().map_or(1, SemaphorePermit::num_permits);
        let file = Arc::clone(file);
        let verdict = tokio::task::spawn_blocking(move || {
            // As long as the threads run, though nobody waits for them any more.
            let _in_use = (turn, processors.map(|processors| (URGENT.enter(&file), processors)));
            hash_zip_with(file.reader(), &module, &version, threads, || URGENT.give_way(&file))
        });
        let hash = verdict.await.map_err(|e| FetchError::Local(e.to_string()))?;
        let h1 = hash.map_err(|error| match error {
            ZipError::Io(error) => FetchError::Local(error.to_string()),
            error => self.fault(Class::Verification, format!("the zip is bad: {error}")).into(),
        })?;
        Ok(Fetched::Zip { h1 })
    }
}

/// Waits for one of the places, unless a client waits: then one is taken if it is free, and no zip waits.
async fn turn<'a>(file: &Growing, places: &'a Semaphore) -> Option<SemaphorePermit<'a>> {
    tokio::select! {
        biased;
        () = file.wanted() => places.try_acquire().ok(),
        turn = places.acquire() => turn.ok(),
    }
}

/// All processors that are free, one at least, for a long zip that a client waits for.
async fn all_free<'a>(file: &Growing, processors: &'a Semaphore) -> Option<SemaphorePermit<'a>> {
    if !file.is_wanted() || !is_long(file) {
        return None;
    }
    let mut free = processors.acquire().await.ok()?;
    if let Some(more) = u32::try_from(processors.available_permits()).ok().and_then(|more| processors.try_acquire_many(more).ok()) {
        free.merge(more);
    }
    Some(free)
}

/// Since when clients wait for what is being checked.
struct Urgent {
    since: Mutex<Vec<Instant>>,
    ended: Condvar,
}

/// One of them.
struct Entered<'a>(&'a Urgent, Instant);

impl Urgent {
    fn enter(&self, file: &Growing) -> Entered<'_> {
        let since = file.wanted_since().unwrap_or_else(Instant::now);
        self.since.lock().unwrap_or_else(PoisonError::into_inner).push(since);
        Entered(self, since)
    }

    /// Waits for those that clients have waited for longer than for this one. A short one takes a moment: it waits only while
    /// nobody waits for it.
    fn give_way(&self, file: &Growing) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        while since.iter().any(|other| file.wanted_since().is_none_or(|own| is_long(file) && *other < own)) {
            since = self.ended.wait_timeout(since, NOTICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = since.iter().position(|since| *since == self.1) {
            since.swap_remove(at);
        }
        drop(since);
        self.0.ended.notify_all();
    }
}

fn is_long(file: &Growing) -> bool {
    file.progress().written >= LONG
}

fn processors() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::Store;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn a_zip_that_nobody_waits_for_is_checked_in_its_turn_and_one_that_a_client_waits_for_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &Arc::new(Metrics::new().unwrap())).unwrap();
        let (ahead, places) = (store.growing().unwrap(), Semaphore::new(1));
        let first = turn(&ahead, &places).await;
        assert!(first.is_some());
        let mut second = Box::pin(turn(&ahead, &places));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "there is one place");
        drop(first);
        let second = second.await;
        assert!(second.is_some());
        let third = tokio::join!(turn(&ahead, &places), async { ahead.want() }).0;
        assert!(third.is_none(), "a client came");
        assert!(turn(&ahead, &places).await.is_none(), "and waits for no place");
        drop(second);
        let wanted = turn(&ahead, &places).await;
        assert!(wanted.is_some(), "a free one it takes from those that nobody waits for");
        let other = store.growing().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), turn(&other, &places)).await.is_err());
    }

    #[tokio::test]
    async fn long_zips_that_clients_wait_for_are_checked_with_all_processors_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &Arc::new(Metrics::new().unwrap())).unwrap();
        let free = Semaphore::new(3);
        let zip = async |length: u64, is_wanted: bool| {
            let zip = Arc::new(store.growing().unwrap());
            zip.append(vec![Bytes::from(vec![0; usize::try_from(length).unwrap()])]).await.unwrap();
            if is_wanted {
                zip.want();
            }
            zip
        };
        let (first, second) = (zip(LONG, true).await, zip(LONG, true).await);
        let of_first = all_free(&first, &free).await.unwrap();
        assert_eq!(of_first.num_permits(), 3);
        let mut of_second = Box::pin(all_free(&second, &free));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut of_second).await.is_err(), "there is none left");
        for (length, is_wanted) in [(LONG, false), (LONG - 1, true)] {
            assert!(all_free(&*zip(length, is_wanted).await, &free).await.is_none(), "waits for none");
        }
        drop(of_first);
        assert_eq!(of_second.await.unwrap().num_permits(), 3);
    }

    #[tokio::test]
    async fn a_check_gives_way_to_those_that_clients_have_waited_for_longer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &Arc::new(Metrics::new().unwrap())).unwrap();
        static URGENT: Urgent = Urgent { since: Mutex::new(Vec::new()), ended: Condvar::new() };
        let zips = [(); 4].map(|()| Arc::new(store.growing().unwrap()));
        let [first, second, third, short] = &zips;
        for long in [first, second, third] {
            long.append(vec![Bytes::from(vec![0; usize::try_from(LONG).unwrap()])]).await.unwrap();
        }
        let gives_way = |zip: &Arc<Growing>| {
            let zip = Arc::clone(zip);
            tokio::task::spawn_blocking(move || URGENT.give_way(&zip))
        };
        let goes_on = async |zip: &Arc<Growing>| tokio::time::timeout(Duration::from_millis(100), gives_way(zip)).await.is_ok();
        first.want();
        second.want();
        assert!(goes_on(third).await, "nothing else is checked");
        let entered = URGENT.enter(second);
        assert!(goes_on(first).await && goes_on(second).await);
        let mut waiting = gives_way(third);
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err(), "nobody waits for it");
        assert!(!goes_on(short).await);
        short.want();
        assert!(goes_on(short).await);
        third.want();
        third.want();
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err(), "a client came later");
        drop(entered);
        waiting.await.unwrap();
    }
}
