//! Lists, `@latest` and branches: fresh for a moment, shown a little longer while an upstream is asked, and better than
//! nothing in an outage.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::answer::{Answer, not_found};
use super::cache::Cache;
use super::download::Content;
use super::kept::{FRESH, origin_of};
use super::labels::Outcome;
use crate::gomod::Request;
use crate::source::FetchError;

/// How long after that it is still served while an upstream is asked: a new tag is seen within the sum of both.
const STALE_WHILE_REVALIDATE: Duration = Duration::from_secs(30);

impl Cache {
    /// Answers with what is young enough, else asks; and with what is too old, while or because nobody answers.
    pub(super) async fn answer_mutable(self: &Arc<Self>, request: &Arc<Request>) -> (Answer, Outcome) {
        if let Some(error) = self.known_absent(request) {
            return (Answer::Error(error), Outcome::Negative);
        }
        let epoch = self.memory.epoch();
        let kept = self.read_kept(request).await;
        // What other sources said is better than nothing, and no more.
        if let Some(Kept { bytes, age, .. }) = kept.as_ref().filter(|kept| kept.is_of_these_sources) {
            if *age < FRESH {
                return (Answer::fresh(bytes.clone(), FRESH - *age, request), Outcome::Hit);
            }
            if *age < FRESH + STALE_WHILE_REVALIDATE && !self.is_offline() {
                if self.known_failure(request).is_none() {
                    self.revalidate(request, epoch);
                }
                return (Answer::Stale(bytes.clone(), *age), Outcome::Stale);
            }
        }
        let (content, outcome) = match self.known_failure(request).filter(|_| kept.is_some()) {
            Some(error) => (Err(error), Outcome::Stale),
            None => {
                let (content, outcome) = self.download(request).await;
                if let Err(error) = &content {
                    tracing::debug!(%error, request = %request.escaped(), "no newer answer");
                    self.failures.insert(request, error, epoch);
                }
                (content, outcome)
            }
        };
        match (content, kept) {
            (Ok(Content::Small(bytes) | Content::Passing(bytes)), _) => (Answer::fresh(bytes, FRESH, request), outcome),
            (Ok(Content::Zip(growing)), _) => (Answer::Growing(growing), outcome),
            (Err(error @ FetchError::NotFound { .. }), _) => Answer::error(error),
            // An outage, and something to show for it.
            (Err(error), Some(Kept { bytes, age, .. })) => {
                tracing::warn!(%error, request = %request.escaped(), "serving a stale answer");
                (Answer::Stale(bytes, age), Outcome::Stale)
            }
            (Err(FetchError::Offline), None) => self.answer_offline(request).await,
            (Err(error), None) => Answer::error(error),
        }
    }

    /// Asks for what is shown meanwhile; the next request finds the result, or that there is none.
    fn revalidate(self: &Arc<Self>, request: &Arc<Request>, epoch: u64) {
        let Ok((download, true)) = self.start(request, false) else { return };
        let (this, request) = (Arc::clone(self), Arc::clone(request));
        self.own(async move {
            if let Err(error) = download.content().await {
                this.failures.insert(&request, &error, epoch);
            }
        });
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
            return Answer::error(not_found("not cached, and this cache is offline\n"));
        }
        let list = Bytes::from(versions.join("\n") + "\n");
        (Answer::fresh(list, Duration::ZERO, request), Outcome::Hit)
    }

    /// What was said last, by these sources or others, and its age: the time of its download, since reading it is no use that counts.
    async fn read_kept(&self, request: &Request) -> Option<Kept> {
        let (file, written) = self.read_state(self.store.path(request)).await?;
        let (origin, bytes) = origin_of(&file);
        // Written by a clock that is ahead of this one, it may be of any age.
        let age = SystemTime::now().duration_since(written).unwrap_or(FRESH + STALE_WHILE_REVALIDATE);
        Some(Kept { bytes, age, is_of_these_sources: origin.is_some_and(|origin| origin == self.live.sources().origin.as_bytes()) })
    }
}

/// What was said last of something that changes.
struct Kept {
    bytes: Bytes,
    age: Duration,
    is_of_these_sources: bool,
}
