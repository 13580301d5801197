//! Reads the whole cache once a day, slowly: a disk that lost a bit is found out before a build is. What was kept while no
//! checksum database was asked is asked about now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::live::{Lasting, Live};
use super::verify::Verdict;
use crate::gomod::{MAX_ZIP_BYTES, Request};
use crate::store::{Observer, Report, Scrub};
use crate::sumdb::Missing;

/// At most this long after the start: whatever restarts often must not read its disk all day.
const FIRST: Duration = Duration::from_secs(1_800);
/// Bytes a second; 50 GiB take an hour.
const RATE: u32 = 16 << 20;
/// After each question to the database; a volume that somebody filled may give cause for many.
const PAUSE: Duration = Duration::from_millis(100);
/// How many questions of a scrub may be in vain, each for seconds, before there are no more. One that says 404 has answered.
const MAX_VAIN: u32 = 30;

/// Scrubs until the token is cancelled; never, if that is how often.
pub(super) async fn run(lasting: Lasting, live: Arc<Live>, every: Duration, shutdown: CancellationToken) {
    if every.is_zero() {
        return;
    }
    let mut pause = every.min(FIRST);
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = every;
        let slow = Slow { lasting: lasting.clone(), live: Arc::clone(&live), stop: shutdown.clone(), known: 0, in_vain: 0 };
        match tokio::task::spawn_blocking(move || scrub(slow)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "can't scrub the cache"),
            Err(error) => tracing::error!(%error, "the scrub failed"),
        }
    }
}

fn scrub(mut slow: Slow) -> std::io::Result<()> {
    let store = slow.lasting.store.clone();
    // Of several processes with this volume one is enough. The lock goes with the file.
    let lock = store.lock_file("scrub.lock")?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let report = Scrub::new(store.root(), true)?.run(&mut slow);
    // A folder may be the last that was found.
    slow.heed(&report);
    tracing::info!(objects = report.objects, bytes = report.bytes, vouched = report.vouched, broken = report.findings.len(), "scrubbed");
    Ok(())
}

/// Counts, takes its time, and asks the database.
struct Slow {
    lasting: Lasting,
    live: Arc<Live>,
    stop: CancellationToken,
    /// How many findings were counted.
    known: usize,
    /// How many questions nobody answered.
    in_vain: u32,
}

impl Slow {
    /// Counts what was found since it was called last.
    fn heed(&mut self, report: &Report) {
        let new = report.findings.get(self.known..).unwrap_or_default();
        if !new.is_empty() {
            self.known = report.findings.len();
            self.lasting.metrics.quarantined.inc_by(new.iter().map(|finding| u64::from(finding.quarantined)).sum());
            // What is broken on disk is broken in memory, too.
            self.lasting.memory.forget();
        }
    }

    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.is_cancelled() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500)));
        }
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

    fn seen(&mut self, report: &Report, length: u64) -> bool {
        self.lasting.metrics.scrubbed.inc();
        self.heed(report);
        self.rest(time_for(length));
        !self.stop.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_longer_than_any_object_may_be_is_rested_after_no_longer_than_the_longest() {
        assert_eq!(time_for(32 << 20), Duration::from_secs(2));
        assert_eq!(time_for(8 << 40), time_for(MAX_ZIP_BYTES));
    }
}
