//! Reads the whole cache once a day, slowly: a disk that lost a bit is found out before a build is. What was kept while no
//! checksum database was asked is asked about now.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::live::{Lasting, Live};
use super::verify::Verdict;
use crate::gomod::Request;
use crate::store::{Observer, Report, Scrub};

/// At most this long after the start: whatever restarts often must not read its disk all day.
const FIRST: Duration = Duration::from_secs(1_800);
/// Bytes a second; 50 GiB take an hour.
const RATE: u32 = 16 << 20;
/// After each question to the database; a volume that somebody filled may give cause for many.
const PAUSE: Duration = Duration::from_millis(100);

/// Scrubs until the token is cancelled; never, if that is how often.
pub(super) async fn run(lasting: Lasting, live: Arc<Live>, every: Duration, shutdown: CancellationToken) {
    if every.is_zero() {
        return;
    }
    let mut pause = every.min(FIRST);
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = every;
        let slow = Slow { lasting: lasting.clone(), live: Arc::clone(&live), stop: shutdown.clone(), known: 0, asks: true };
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
    let lock = File::create(store.state_dir().join("scrub.lock"))?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let report = Scrub::new(store.root(), true)?.run(&mut slow);
    tracing::info!(objects = report.objects, bytes = report.bytes, vouched = report.vouched, broken = report.findings.len(), "scrubbed");
    Ok(())
}

/// Counts, takes its time, and asks the database while it answers.
struct Slow {
    lasting: Lasting,
    live: Arc<Live>,
    stop: CancellationToken,
    /// How many findings were counted.
    known: usize,
    asks: bool,
}

impl Slow {
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.is_cancelled() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500)));
        }
    }
}

impl Observer for Slow {
    fn vouches(&mut self, request: &Request, h1: &str) -> Result<bool, String> {
        // Those of now: a scrub takes hours.
        let (verify, chain) = (self.live.verify(), self.live.chain());
        let Some(look_up) = self.asks.then(|| verify.look_up(request, &chain)).flatten() else { return Ok(false) };
        let verdict = Handle::current().block_on(self.stop.run_until_cancelled(verify.judge(request, h1, Some(look_up))));
        self.asks = verify.database_trouble().is_none();
        self.rest(PAUSE);
        match verdict {
            Some(Verdict::Good) => Ok(true),
            Some(Verdict::Wrong(reason)) => Err(reason),
            Some(Verdict::Pending(_)) | None => Ok(false),
        }
    }

    fn seen(&mut self, report: &Report, length: u64) -> bool {
        let Lasting { metrics, memory, .. } = &self.lasting;
        metrics.scrubbed.inc();
        if report.findings.len() > self.known {
            self.known = report.findings.len();
            metrics.quarantined.inc_by(report.findings.last().map_or(0, |finding| u64::from(finding.quarantined)));
            // What is broken on disk is broken in memory, too.
            memory.forget();
        }
        self.rest(Duration::from_secs(length) / RATE);
        !self.stop.is_cancelled()
    }
}
