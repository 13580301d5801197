//! The check of a zip that is here: with which processors, and when.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::available_parallelism;

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

impl Upstream {
    pub(super) async fn check_zip(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let (Check::Zip(module, version), Some(file)) = (wanted.check.clone(), &wanted.file) else {
            return Err(FetchError::Local("a file that is no zip".to_owned()));
        };
        let turn = turn(file, &CHECKS_AHEAD).await;
        let processors = all_free(file, &PROCESSORS).await;
        let threads = processors.as_ref().map_or(1, SemaphorePermit::num_permits);
        let reader = file.reader();
        let verdict = tokio::task::spawn_blocking(move || {
            // As long as the threads run, though nobody waits for them any more.
            let _in_use = (turn, processors);
            hash_zip_with(reader, &module, &version, threads)
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
    if !file.is_wanted() || file.progress().written < LONG {
        return None;
    }
    let mut free = processors.acquire().await.ok()?;
    if let Some(more) = u32::try_from(processors.available_permits()).ok().and_then(|more| processors.try_acquire_many(more).ok()) {
        free.merge(more);
    }
    Some(free)
}

fn processors() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

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
}
