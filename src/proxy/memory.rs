//! Small objects in memory, by the path as it stands in the request: a hit needs neither parsing nor the disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::connection::Twin;
use super::labels::Endpoint;
use crate::gomod::Request;
use crate::store::USE_INTERVAL;

/// Longer objects stay on disk.
pub(super) const SMALL: u64 = 128 << 10;
const CAPACITY: u64 = 24 << 20;
/// From this length on it pays to have an object as a file too. It also bounds how many files there can be.
const TWIN: usize = 32 << 10;
/// What an entry costs besides its bytes.
const OVERHEAD: usize = 256;

/// An object in memory.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) body: Bytes,
    pub(super) request: Arc<Request>,
    pub(super) endpoint: Endpoint,
    /// Absent: for ever.
    pub(super) fresh_until: Option<Instant>,
    /// Where it lies on disk, if uses are counted there.
    path: Option<PathBuf>,
    born: Instant,
    /// Seconds since `born` at the last counted use.
    used: AtomicU64,
    /// It was fetched just now, and nobody has looked into it for what may be asked for next.
    unread: AtomicBool,
    twin: OnceLock<Option<Twin>>,
}

impl Hot {
    /// An object that never changes.
    pub(super) fn immutable(body: Bytes, request: &Arc<Request>, path: &Path) -> Self {
        Self::new(body, request, None, Some(path.to_owned()))
    }

    /// An object that is asked for again after a time.
    pub(super) fn mutable(body: Bytes, request: &Arc<Request>, fresh_until: Instant) -> Self {
        Self::new(body, request, Some(fresh_until), None)
    }

    /// Says that it was fetched just now.
    pub(super) fn unread(self) -> Self {
        self.unread.store(true, Ordering::Relaxed);
        self
    }

    fn new(body: Bytes, request: &Arc<Request>, fresh_until: Option<Instant>, path: Option<PathBuf>) -> Self {
        let endpoint = Endpoint::of(request);
        let (used, unread) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { body, request: Arc::clone(request), endpoint, fresh_until, path, born: Instant::now(), used, unread, twin: OnceLock::new() }
    }

    /// Its bytes as a file too, if it is long enough for that to pay. Made when it is asked for a second time.
    pub(super) fn twin(&self) -> Option<&Twin> {
        // Without one it is sent all the same.
        self.twin.get_or_init(|| (self.body.len() >= TWIN).then(|| Twin::new(self.body.clone()).ok()).flatten()).as_ref()
    }

    /// What it takes of the memory, at most.
    fn weight(&self) -> usize {
        self.body.len() * if self.body.len() >= TWIN { 2 } else { 1 } + OVERHEAD
    }

    /// Whether this is the first look into what was fetched just now.
    pub(super) fn take_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed) && self.unread.swap(false, Ordering::Relaxed)
    }

    /// The file whose use is to be counted now, if it is time for that.
    pub(super) fn use_to_count(&self, now: Instant) -> Option<&Path> {
        let path = self.path.as_deref()?;
        let age = now.saturating_duration_since(self.born).as_secs();
        let last = self.used.load(Ordering::Relaxed);
        let due = age >= last + USE_INTERVAL.as_secs();
        (due && self.used.compare_exchange(last, age, Ordering::Relaxed, Ordering::Relaxed).is_ok()).then_some(path)
    }
}

/// The objects, at most [`CAPACITY`] bytes of them.
pub(super) struct Memory {
    objects: moka::sync::Cache<Box<str>, Arc<Hot>>,
    /// How many configurations there were that may have answered differently.
    epoch: watch::Sender<u64>,
    /// How often all was forgotten.
    forgotten: AtomicU64,
}

impl Memory {
    pub(super) fn new() -> Self {
        #[allow(clippy::borrowed_box, reason = "the signature that the cache calls")]
        let weigh = |path: &Box<str>, hot: &Arc<Hot>| u32::try_from(path.len() * 2 + hot.weight()).unwrap_or(u32::MAX);
        Self {
            objects: moka::sync::Cache::builder().weigher(weigh).max_capacity(CAPACITY).build(),
            epoch: watch::Sender::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// What a request of this path is answered with, if it is here and fresh.
    pub(super) fn get(&self, path: &str, now: Instant) -> Option<Arc<Hot>> {
        self.objects.get(path).filter(|hot| hot.fresh_until.is_none_or(|until| now < until))
    }

    /// Which configuration's answers are being kept.
    pub(super) fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Waits until an epoch is over.
    pub(super) async fn is_over(&self, epoch: u64) {
        // The sender is here.
        drop(self.epoch.subscribe().wait_for(|now| *now != epoch).await);
    }

    /// How often everything was forgotten, for [`Memory::insert`].
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Keeps an answer, unless everything was forgotten since it was begun: `forgotten` is from before.
    pub(super) fn insert(&self, path: &str, hot: Arc<Hot>, forgotten: u64) {
        if hot.body.len() as u64 <= SMALL && hot.fresh_until.is_none_or(|until| until > Instant::now()) && forgotten == self.forgotten() {
            self.objects.insert(path.into(), hot);
            // Forgotten between the question and the insertion.
            if forgotten != self.forgotten() {
                self.objects.invalidate(path);
            }
        }
    }

    /// Begins another epoch, and forgets everything: a new configuration may answer differently.
    pub(super) fn clear(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
        self.forget();
    }

    /// Forgets everything, some of which was broken on the disk. What is being downloaded is not.
    pub(super) fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.objects.invalidate_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(path: &str) -> Arc<Request> {
        Arc::new(Request::parse(path).unwrap())
    }

    #[test]
    fn a_mutable_object_is_there_while_it_is_fresh() {
        let (memory, now) = (Memory::new(), Instant::now());
        memory.insert(
            "/x/@v/list",
            Arc::new(Hot::mutable(Bytes::from_static(b"v1"), &request("/x.example/@v/list"), now + Duration::from_secs(1))),
            0,
        );
        assert!(memory.get("/x/@v/list", now).is_some());
        assert!(memory.get("/x/@v/list", now + Duration::from_secs(1)).is_none());
    }

    #[test]
    fn a_use_is_counted_once_an_interval() {
        let hot = Hot::immutable(Bytes::new(), &request("/x.example/@v/v1.0.0.mod"), Path::new("/c/x"));
        let later = hot.born + USE_INTERVAL;
        assert!(hot.use_to_count(hot.born).is_none());
        assert!(hot.use_to_count(later).is_some() && hot.use_to_count(later).is_none());
        assert!(hot.use_to_count(later + USE_INTERVAL).is_some());
    }

    #[test]
    fn an_answer_from_before_everything_was_forgotten_is_not_kept() {
        let memory = Memory::new();
        for (forget, epochs) in [(Memory::clear as fn(&Memory), 1), (Memory::forget, 0)] {
            let (epoch, before) = (memory.epoch(), memory.forgotten());
            forget(&memory);
            memory.insert("/x", Arc::new(Hot::immutable(Bytes::new(), &request("/x.example/@v/v1.0.0.mod"), Path::new("/c"))), before);
            assert!(memory.get("/x", Instant::now()).is_none());
            assert_eq!(memory.epoch(), epoch + epochs, "a broken object makes no download useless");
        }
    }

    #[test]
    fn it_is_bounded() {
        let memory = Memory::new();
        for i in 0..2_000 {
            memory.insert(
                &format!("/{i}"),
                Arc::new(Hot::immutable(Bytes::from(vec![0; 100_000]), &request("/x.example/@v/v1.0.0.zip"), Path::new("/c"))),
                0,
            );
        }
        memory.objects.run_pending_tasks();
        assert!(memory.objects.weighted_size() <= CAPACITY);
    }
}
