//! Lists, `@latest` and branches: fresh for a moment, shown a little longer while an upstream is asked, and better than
//! nothing in an outage.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::cache::{Answer, Cache, not_found};
use super::download::Content;
use super::labels::Outcome;
use super::memory::Hot;
use crate::gomod::Request;
use crate::source::FetchError;

/// How long a list, `@latest` or branch is served without asking again.
pub(super) const FRESH: Duration = Duration::from_secs(30);
/// How long after that it is still served while an upstream is asked: a new tag is seen within the sum of both.
const STALE_WHILE_REVALIDATE: Duration = Duration::from_secs(30);

impl Cache {
    /// Answers with what is young enough, else asks; and with what is too old, while or because nobody answers.
    pub(super) async fn answer_mutable(self: &Arc<Self>, request: &Arc<Request>) -> (Answer, Outcome) {
        if let Some(error) = self.known_absent(request) {
            return (Answer::Error(error), Outcome::Negative);
        }
        let kept = self.read_dated(self.store.path(request)).await;
        // What other sources said is better than nothing, and no more.
        if let Some((bytes, age)) = kept.as_ref().filter(|(_, age)| self.live.is_from_this_configuration(*age)) {
            if *age < FRESH {
                return (fresh(bytes.clone(), FRESH - *age, request), Outcome::Hit);
            }
            if *age < FRESH + STALE_WHILE_REVALIDATE && !self.live.chain().is_offline() {
                // The task goes on by itself; the next request finds its result.
                let _revalidation = self.start(request, false);
                return (Answer::Stale(bytes.clone(), *age), Outcome::Stale);
            }
        }
        let epoch = self.memory.epoch();
        let (content, outcome) = self.download(request).await;
        match (content, kept) {
            (Ok(Content::Small(bytes) | Content::Passing(bytes)), _) => (fresh(bytes, FRESH, request), outcome),
            (Ok(Content::Zip(growing)), _) => (Answer::Growing(growing), outcome),
            (Err(error @ FetchError::NotFound { .. }), _) => {
                self.remember_absent(request, &error, epoch);
                (Answer::Error(error), Outcome::NotFound)
            }
            // An outage, and something to show for it.
            (Err(error), Some((bytes, age))) => {
                tracing::warn!(%error, request = %request.escaped(), "serving a stale answer");
                (Answer::Stale(bytes, age), Outcome::Stale)
            }
            (Err(FetchError::Offline), None) => self.answer_offline(request).await,
            (Err(error), None) => (Answer::Error(error), Outcome::Error),
        }
    }

    /// Without an upstream the list is what the disk has. A 404 then lets the go command try the next path prefix.
    async fn answer_offline(&self, request: &Arc<Request>) -> (Answer, Outcome) {
        let (store, asked) = (self.store.clone(), Arc::clone(request));
        let cached = tokio::task::spawn_blocking(move || match &*asked {
            Request::List(module) => store.cached_versions(module),
            _ => Vec::new(),
        });
        let versions = cached.await.unwrap_or_default();
        if versions.is_empty() {
            return (Answer::Error(not_found("not cached, and this cache is offline\n")), Outcome::NotFound);
        }
        let list = Bytes::from(versions.join("\n") + "\n");
        (Answer::Hot(Arc::new(Hot::mutable(list, request, Instant::now()))), Outcome::Hit)
    }

    /// A mutable object and its age. Its time is that of its download: reading it is no use that counts.
    async fn read_dated(&self, file: PathBuf) -> Option<(Bytes, Duration)> {
        let (bytes, written) = self.read_state(file).await?;
        // Written by a clock that is ahead of this one, it may be of any age.
        let age = SystemTime::now().duration_since(written).unwrap_or(FRESH + STALE_WHILE_REVALIDATE);
        Some((bytes, age))
    }
}

/// An answer that memory may keep for the rest of its time.
pub(super) fn fresh(bytes: Bytes, rest: Duration, request: &Arc<Request>) -> Answer {
    Answer::Hot(Arc::new(Hot::mutable(bytes, request, Instant::now() + rest)))
}
