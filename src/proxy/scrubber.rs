//! Reads the whole cache once a day, slowly: a disk that lost a bit is found out before a build is. What was kept while no
//! checksum database was asked is asked about now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::live::{Lasting, Live};
use super::verify::Verdict;
use crate::gomod::{MAX_ZIP_BYTES, Request};
use crate::store::{Finding, Observer, Report, Scrub};
use crate::sumdb::Missing;

/// At most this long after the start: whatever restarts often must not read its disk all day.
const FIRST: Duration = Duration::from_secs(1_800);
/// Bytes a second; 50 GiB take an hour.
const RATE: u32 = 16 << 20;
/// After each question to the database; a volume that somebody filled may give cause for many.
const PAUSE: Duration = Duration::from_millis(100);
/// How many questions of a scrub may be in vain, each for seconds, before there are no more. One that says 404 has answered.
const MAX_VAIN: u32 = 30;

/// How often it is looked at what other processes found.
const POLL: Duration = Duration::from_secs(1);

/// Scrubs, and heeds what other processes with this volume found, until the token is cancelled.
pub(super) async fn run(lasting: Lasting, live: Arc<Live>, every: Duration, shutdown: CancellationToken) {
    tokio::join!(heed_others(lasting.clone(), shutdown.clone()), scrub_at_times(lasting, live, every, shutdown));
}

/// What is broken on the disk may be in the memory of each process.
async fn heed_others(lasting: Lasting, shutdown: CancellationToken) {
    let look = || {
        let store = lasting.store.clone();
        // A volume may hang.
        shutdown.run_until_cancelled(tokio::task::spawn_blocking(move || store.quarantined()))
    };
    let Some(Ok(mut last)) = look().await else { return };
    while shutdown.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
        let Some(Ok(now)) = look().await else { return };
        if now != last {
            last = now;
            lasting.memory.forget();
        }
    }
}

/// Never, if that is how often.
async fn scrub_at_times(lasting: Lasting, live: Arc<Live>, every: Duration, shutdown: CancellationToken) {
    if every.is_zero() {
        return;
    }
    let mut pause = every.min(FIRST);
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let slow = Slow { lasting: lasting.clone(), live: Arc::clone(&live), stop: shutdown.clone(), in_vain: 0 };
        match tokio::task::spawn_blocking(move || scrub(slow)).await {
            Ok(scrubbed) => pause = pause_after(&scrubbed, every),
            Err(error) => {
                pause = every;
                tracing::error!(%error, "the scrub failed");
            }
        }
    }
}

/// A volume that is full for a moment must not cost a day.
fn pause_after(scrubbed: &std::io::Result<()>, every: Duration) -> Duration {
    let Err(error) = scrubbed else { return every };
    let pause = every.min(FIRST);
    tracing::warn!(%error, "can't scrub the cache; trying again in {} s", pause.as_secs());
    pause
}

fn scrub(mut slow: Slow) -> std::io::Result<()> {
    let store = slow.lasting.store.clone();
    // Of several processes with this volume one is enough. The lock goes with the file.
    let lock = store.lock_file("scrub.lock")?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let report = Scrub::new(store.root(), true)?.run(&mut slow);
    let Report { objects, bytes, vouched, broken } = report;
    tracing::info!(objects, bytes, vouched, broken, "scrubbed");
    Ok(())
}

/// Counts, takes its time, and asks the database.
struct Slow {
    lasting: Lasting,
    live: Arc<Live>,
    stop: CancellationToken,
    /// How many questions nobody answered.
    in_vain: u32,
}

impl Slow {
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.is_cancelled() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500)));
        }
    }
}

/// Counts what was moved away, and forgets what memory may have of it. What can't be read did not come there, and on a disk that fails
/// that may be everything.
fn heed(lasting: &Lasting, finding: &Finding) {
    if finding.quarantined {
        lasting.metrics.quarantined.inc();
        lasting.memory.forget();
    }
}

/// How long an object is rested after. One that is longer than any may be was not read: it has a hole, or is none.
fn time_for(length: u64) -> Duration {
    Duration::from_secs(length.min(MAX_ZIP_BYTES)) / RATE
}

impl Observer for Slow {
    fn vouches(&mut self, request: &Request, h1: &str) -> Result<bool, String> {
        // Those of now: a scrub takes hours.
        let (verify, chain) = (self.live.verify(), self.live.chain());
        let asks = self.in_vain < MAX_VAIN;
        let Some(look_up) = asks.then(|| verify.look_up(request, &chain)).flatten() else { return Ok(false) };
        let verdict = Handle::current().block_on(self.stop.run_until_cancelled(verify.judge_kept(request, h1, look_up)));
        self.rest(PAUSE);
        match verdict {
            Some(Ok(Verdict::Good)) => Ok(true),
            Some(Ok(Verdict::Wrong(reason))) => Err(reason),
            Some(Ok(Verdict::Pending(_)) | Err(Missing::Unknown)) | None => Ok(false),
            Some(Err(_)) => {
                self.in_vain += 1;
                Ok(false)
            }
        }
    }

    fn is_asked_about(&self, request: &Request) -> Option<bool> {
        Some(self.live.verify().asks_about(request))
    }

    fn found(&mut self, finding: Finding) {
        heed(&self.lasting, &finding);
    }

    fn seen(&mut self, _report: &Report, length: u64) -> bool {
        self.lasting.metrics.scrubbed.inc();
        self.rest(time_for(length));
        !self.stop.is_cancelled()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proxy::memory::{Hot, Memory};
    use crate::store::Store;
    use crate::telemetry::Metrics;

    #[test]
    fn memory_is_forgotten_for_what_was_moved_away_and_not_for_all_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (store, memory) = (Store::open(folder.path(), None, &metrics).unwrap(), Arc::new(Memory::new()));
        let lasting = Lasting { store, memory, metrics, journal: Arc::default(), config_versions: crate::config::Versions::default() };
        let request = Arc::new(Request::parse("/a.example/m/@v/v1.0.0.mod").unwrap());
        let path = request.as_go_asks();
        lasting.memory.insert(&path, Arc::new(Hot::immutable(Bytes::new(), &request, folder.path())), lasting.memory.forgotten());
        for quarantined in [false, true] {
            heed(&lasting, &Finding { path: path.as_str().into(), problem: String::new(), quarantined, mended: false });
            assert_eq!(lasting.memory.get(&path, Instant::now()).is_none(), quarantined);
            assert_eq!(lasting.metrics.quarantined.get(), u64::from(quarantined));
        }
    }

    #[test]
    fn a_scrub_that_could_not_begin_is_tried_again_soon() {
        let day = Duration::from_secs(86_400);
        let full = || Err(std::io::ErrorKind::StorageFull.into());
        assert_eq!([pause_after(&Ok(()), day), pause_after(&full(), day), pause_after(&full(), FIRST / 2)], [day, FIRST, FIRST / 2]);
    }

    #[test]
    fn a_file_that_is_longer_than_any_object_may_be_is_rested_after_no_longer_than_the_longest() {
        assert_eq!(time_for(32 << 20), Duration::from_secs(2));
        assert_eq!(time_for(8 << 40), time_for(MAX_ZIP_BYTES));
    }
}
