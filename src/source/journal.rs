//! What upstreams were asked lately, and what came of it: for the person who asks why.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// How many attempts are remembered.
const MAX: usize = 4_096;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it ended.
    pub time: Timestamp,
    /// The escaped path below the upstream's URL.
    pub path: String,
    /// Whom.
    pub host: String,
    /// As in `gomodcache_upstream_requests_total`.
    pub class: &'static str,
    /// Why, unless it went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
}

/// The last attempts of a proxy, whatever its configuration was.
#[derive(Debug, Default)]
pub struct Journal(Mutex<VecDeque<Attempt>>);

impl Journal {
    pub(super) fn note(&self, path: &str, host: &str, class: &'static str, reason: Option<String>, took: Duration) {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let attempt = Attempt { time: Timestamp::now(), path: path.to_owned(), host: host.to_owned(), class, reason, milliseconds };
        let mut attempts = self.lock();
        if attempts.len() >= MAX {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }

    /// The attempts for paths that begin so, the oldest first.
    #[must_use]
    pub fn of(&self, prefix: &str) -> Vec<Attempt> {
        self.lock().iter().filter(|attempt| attempt.path.starts_with(prefix)).cloned().collect()
    }

    /// A panic elsewhere leaves at worst an attempt out.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_last_and_no_more() {
        let journal = Journal::default();
        for i in 0..=MAX {
            journal.note(&format!("a.example/m{i}/@v/v1.0.0.mod"), "modules.example", "ok", None, Duration::ZERO);
        }
        assert_eq!((journal.of("a.example/").len(), journal.of("a.example/m0/").len(), journal.of("a.example/m1/").len()), (MAX, 0, 1));
    }
}
