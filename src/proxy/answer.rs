//! What a client gets, before it is on the wire.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use super::labels::Outcome;
use super::memory::Hot;
use crate::gomod::Request;
use crate::source::FetchError;
use crate::store::{Growing, Large, Object};

/// What a client gets.
pub(super) enum Answer {
    /// From memory.
    Hot(Arc<Hot>),
    /// A file of the store.
    File(Large),
    /// A zip that is being downloaded, as far as it may be shown.
    Growing(Arc<Growing>),
    /// An answer that is too old, and its age.
    Stale(Bytes, Duration),
    /// Nothing, and why.
    Error(FetchError),
}

impl Answer {
    /// An answer that memory may keep for the rest of its time.
    pub(super) fn fresh(bytes: Bytes, rest: Duration, request: &Arc<Request>) -> Self {
        Self::Hot(Arc::new(Hot::mutable(bytes, request, Instant::now() + rest)))
    }

    pub(super) fn from_disk(object: Object, request: &Arc<Request>, file: &Path) -> Self {
        match object {
            Object::Large(file) => Self::File(file),
            Object::Small(bytes) => Self::Hot(Arc::new(Hot::immutable(bytes, request, file))),
        }
    }

    /// The same answer when its length is known, or it is known to be wrong; and what became of the request then.
    pub(super) async fn settled(self, outcome: Outcome) -> (Self, Outcome) {
        let Self::Growing(growing) = &self else { return (self, outcome) };
        // The sender is in `growing`.
        let end = growing.watch().wait_for(|progress| progress.length.is_some() || progress.end.is_some()).await.map(|now| now.end);
        match end {
            Ok(Some(false)) => (Self::Error(FetchError::Failed), Outcome::Error),
            _ => (self, outcome),
        }
    }

    /// No answer, and what became of the request then.
    pub(super) fn error(error: FetchError) -> (Self, Outcome) {
        let outcome = match error {
            FetchError::Denied(_) => Outcome::Denied,
            FetchError::NotFound { .. } => Outcome::NotFound,
            _ => Outcome::Error,
        };
        (Self::Error(error), outcome)
    }

    /// The bytes of a small object.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Hot(hot) => Some(hot.body.clone()),
            Self::Stale(bytes, _) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The same answer with other bytes.
    pub(super) fn with_bytes(self, bytes: Bytes) -> Self {
        match self {
            Self::Hot(hot) => Self::Hot(Arc::new(Hot::mutable(bytes, &hot.request, hot.fresh_until.unwrap_or_else(Instant::now)))),
            Self::Stale(_, age) => Self::Stale(bytes, age),
            other => other,
        }
    }
}

pub(super) fn not_found(text: &'static str) -> FetchError {
    FetchError::NotFound { status: StatusCode::NOT_FOUND, text: Bytes::from_static(text.as_bytes()) }
}
