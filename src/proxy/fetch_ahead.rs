//! One object that nobody asked for yet.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::cache::Cache;
use super::download::Content;
use super::memory::Hot;
use crate::gomod::Request;
use crate::source::FetchError;
use crate::store::Object;

/// What fetching ahead came to.
pub(super) enum Ahead {
    /// It was here already. Its bytes, if it is a go.mod file.
    Present(Option<Bytes>),
    /// It is here now.
    Fetched(Option<Bytes>),
    /// No upstream has it, or none may be asked for it, or there is no room for it.
    Absent,
    /// The upstream is in trouble, or was a moment ago.
    Failed,
}

impl Ahead {
    /// As the metrics have it.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Present(_) => "present",
            Self::Fetched(_) => "fetched",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
}

impl Cache {
    /// Fetches an immutable object that nobody asked for yet. Nothing of a failure is remembered.
    pub(super) async fn fetch_ahead(self: &Arc<Self>, request: &Arc<Request>) -> Ahead {
        let (forgotten, policy) = (self.memory.forgotten(), self.live.policy());
        let minimum_age = request.module().and_then(|module| policy.minimum_age(module));
        if policy.refusal(request).is_some() {
            return Ahead::Absent;
        }
        if let (Request::Zip(module, version), Some(minimum)) = (&**request, minimum_age)
            && self.judge_age(&policy, module, version, minimum).await.is_err()
        {
            return Ahead::Absent;
        }
        let path = request.as_go_asks();
        let wants_bytes = matches!(**request, Request::Mod(..));
        if let Some(hot) = self.memory.get(&path, Instant::now()) {
            return Ahead::Present(wants_bytes.then(|| hot.body.clone()));
        }
        let file = self.store.path(request);
        if !self.is_fetching(request) {
            if wants_bytes {
                match self.read(file.clone()).await {
                    Ok(Some(Object::Small(bytes))) => return Ahead::Present(Some(bytes)),
                    Ok(Some(Object::Large(..))) => return Ahead::Present(None),
                    Ok(None) | Err(_) => {}
                }
            } else if tokio::fs::try_exists(&file).await.unwrap_or_default() {
                return Ahead::Present(None);
            }
            if self.known_absent(request).is_some() {
                return Ahead::Absent;
            }
        }
        if self.is_held_back(request.module()) {
            return Ahead::Failed;
        }
        let Ok((download, _)) = self.start(request, true) else { return Ahead::Absent };
        match download.ended().await {
            Ok(Content::Small(bytes)) => {
                // An `.info` that may be too young is judged when it is asked for.
                if wants_bytes || minimum_age.is_none() {
                    self.memory.insert(&path, Arc::new(Hot::immutable(bytes.clone(), request, &file).unread()), forgotten);
                }
                Ahead::Fetched(wants_bytes.then_some(bytes))
            }
            Ok(Content::Passing(bytes)) => Ahead::Fetched(wants_bytes.then_some(bytes)),
            Ok(Content::Zip(_)) => Ahead::Fetched(None),
            Err(FetchError::HeldBack) => Ahead::Failed,
            Err(FetchError::Fault(fault)) if fault.class.is_trouble() => Ahead::Failed,
            Err(_) => Ahead::Absent,
        }
    }
}
