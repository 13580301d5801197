//! Reads the whole cache once a day, slowly: a disk that lost a bit is found out before a build is.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use crate::store::{Scrub, Store};
use crate::telemetry::Metrics;

/// After the start: whatever restarts often must not read its disk all day.
const FIRST: Duration = Duration::from_secs(1_800);
const EVERY: Duration = Duration::from_secs(86_400);
/// Bytes a second; 50 GiB take an hour.
const RATE: u32 = 16 << 20;

/// Scrubs until the token is cancelled.
pub(super) async fn run(store: Store, memory: Arc<Memory>, metrics: Arc<Metrics>, shutdown: CancellationToken) {
    let mut pause = FIRST;
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = EVERY;
        let (store, memory, metrics, stop) = (store.clone(), Arc::clone(&memory), Arc::clone(&metrics), shutdown.clone());
        let scrub = tokio::task::spawn_blocking(move || scrub(&store, &memory, &metrics, &stop));
        match scrub.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "can't scrub the cache"),
            Err(error) => tracing::error!(%error, "the scrub failed"),
        }
    }
}

fn scrub(store: &Store, memory: &Memory, metrics: &Metrics, stop: &CancellationToken) -> std::io::Result<()> {
    // Of several processes with this volume one is enough. The lock goes with the file.
    let lock = File::create(store.state_dir().join("scrub.lock"))?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let mut known = 0;
    let report = Scrub::new(store.root(), true)?.run(&mut |report, length| {
        metrics.scrubbed.inc();
        if report.findings.len() > known {
            known = report.findings.len();
            metrics.quarantined.inc_by(report.findings.last().map_or(0, |finding| u64::from(finding.quarantined)));
            // What is broken on disk is broken in memory, too.
            memory.forget();
        }
        let until = Instant::now() + Duration::from_secs(length) / RATE;
        while Instant::now() < until && !stop.is_cancelled() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500)));
        }
        !stop.is_cancelled()
    });
    tracing::info!(objects = report.objects, bytes = report.bytes, vouched = report.vouched, broken = report.findings.len(), "scrubbed");
    Ok(())
}
