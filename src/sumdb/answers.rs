//! What a database answers: from memory, from the volume, or by asking it. Nothing in here is believed.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Missing;
use crate::store::Store;

/// Of look-ups and tiles, in memory.
const RECENT_BYTES: u64 = 4 << 20;
/// How long what no proof has checked is taken from memory.
pub(super) const RECENT: Duration = Duration::from_secs(60);

/// How the database is asked: a path below its root.
pub type Ask<'a> = dyn Fn(String) -> BoxFuture<'a, Result<Bytes, Missing>> + Send + Sync + 'a;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) bytes: Bytes,
    /// Whether it was proven once, and lies on the volume: if it can't be believed, it was damaged there.
    pub(super) is_kept: bool,
}

/// The answers of one database.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    store: Store,
    folder: PathBuf,
    /// What was asked a moment ago, by path: neighbours share tiles.
    recent: moka::future::Cache<String, Answer>,
}

impl Answers {
    pub(super) fn new(store: Store, folder: PathBuf) -> Self {
        let weigh = |path: &String, answer: &Answer| u32::try_from(path.len() + answer.bytes.len()).unwrap_or(u32::MAX);
        let recent = moka::future::Cache::builder().weigher(weigh).max_capacity(RECENT_BYTES).time_to_live(RECENT).build();
        Self { store, folder, recent }
    }

    /// From memory, from the volume, or by asking: once, however many want it at the same time.
    pub(super) async fn get(&self, path: &str, ask: &Ask<'_>) -> Result<Answer, Missing> {
        let load = async {
            let (store, file) = (self.store.clone(), self.file(path));
            match tokio::task::spawn_blocking(move || store.read_state(&file)).await {
                Ok(Ok(Some((bytes, _)))) => Ok(Answer { bytes, is_kept: true }),
                _ => self.get_anew(path, ask).await,
            }
        };
        self.recent.try_get_with_by_ref(path, load).await.map_err(|error| (*error).clone())
    }

    /// By asking, whatever is here.
    pub(super) async fn get_anew(&self, path: &str, ask: &Ask<'_>) -> Result<Answer, Missing> {
        Ok(Answer { bytes: ask(path.to_owned()).await?, is_kept: false })
    }

    /// Keeps an answer that was proven, unless it was read from the volume. There it takes the place of what can't be believed.
    pub(super) async fn keep(&self, path: &str, answer: Answer) {
        if !answer.is_kept {
            self.store.commit_later(answer.bytes.clone(), self.file(path));
            self.recent.insert(path.to_owned(), Answer { is_kept: true, ..answer }).await;
        }
    }

    /// Memory must not hold on to what can't be believed.
    pub(super) async fn forget(&self, path: &str) {
        self.recent.invalidate(path).await;
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}
