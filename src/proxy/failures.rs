//! What could not be had a moment ago: a "not found" is believed for a while, and after a fault an upstream is left alone for a
//! moment where there is something to show.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::gomod::Request;
use crate::source::FetchError;

/// How long an upstream's "not found" for a file of a version is believed: an early request of a new tag must not hide it.
const NEGATIVE: Duration = Duration::from_secs(10);
/// How long after a fault nobody is asked again, unless the upstream says for how long.
const REST: Duration = Duration::from_secs(1);
const MOST: usize = 10_000;

/// The failures of one cache.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<Request, Failure>>);

#[derive(Debug)]
struct Failure {
    since: Instant,
    /// The memory's: it is a new one when other sources are asked, who may have it.
    epoch: u64,
    error: FetchError,
}

impl Failures {
    /// Why a request of this epoch failed a moment ago.
    pub(super) fn get(&self, request: &Request, epoch: u64) -> Option<FetchError> {
        let failures = self.lock();
        let failure = failures.get(request).filter(|failure| failure.epoch == epoch && failure.is_recent())?;
        Some(failure.error.clone())
    }

    /// Remembers what the sources of this epoch said.
    pub(super) fn insert(&self, request: &Request, error: &FetchError, epoch: u64) {
        let mut failures = self.lock();
        if failures.len() >= MOST {
            failures.retain(|_, failure| failure.is_recent());
        }
        if failures.len() < MOST {
            failures.insert(request.clone(), Failure { since: Instant::now(), epoch, error: error.clone() });
        }
    }

    /// A panic elsewhere does not make the map wrong: every change of it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<Request, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn is_recent(&self) -> bool {
        let rest = match &self.error {
            FetchError::NotFound { .. } => NEGATIVE,
            FetchError::Fault(fault) => fault.retry_after.unwrap_or(REST).clamp(REST, NEGATIVE),
            _ => REST,
        };
        self.since.elapsed() < rest
    }
}
