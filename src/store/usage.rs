//! How much the cache holds, what was used when, and what goes first when there is no room.
//!
//! There is no index to lose or to tear: a file's time of modification is its last use, and the nanoseconds of that time
//! count its uses, 0 to [`MAX_USES`]. So a restart forgets nothing, and two processes agree.
//!
//! The order is that of a small queue before a large one: what was never used again after its download goes first, oldest
//! first, but for the newest tenth of the cache; then what was used, least recently used first. A scan of modules that
//! nobody asks for twice then pushes out other such modules, and not what every build needs.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::STATE_DIR;
use crate::telemetry::Metrics;

/// A use within this time of the last one is not counted again.
pub const USE_INTERVAL: Duration = Duration::from_secs(10);
const MAX_USES: u32 = 3;
/// Eviction goes on until this share of the limit is left.
const LOW_WATERMARK: f64 = 0.9;
/// The newest objects that were never used again are spared as long as they are less than this share of the limit.
const PROBATION: f64 = 0.1;
/// How many evicted objects are remembered: one that comes back was worth keeping.
const MAX_GHOSTS: usize = 50_000;

/// The account of one cache folder.
#[derive(Debug)]
pub(super) struct Usage {
    root: PathBuf,
    /// Bytes; `u64::MAX` for none.
    limit: AtomicU64,
    used: AtomicU64,
    ghosts: Mutex<Ghosts>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Ghosts {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

/// One file that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    path: PathBuf,
    size: u64,
    /// Seconds since the epoch.
    last_use: u64,
    uses: u32,
}

impl Usage {
    pub(super) fn new(root: PathBuf, limit: Option<u64>, metrics: Arc<Metrics>) -> Self {
        let usage = Self { root, limit: AtomicU64::new(0), used: AtomicU64::new(0), ghosts: Mutex::default(), metrics };
        usage.set_limit(limit);
        usage
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.metrics.cache_limit_bytes.set(limit.map_or(0, to_gauge));
    }

    /// How many bytes are made visible in one step: a small part of the limit.
    pub(super) fn most_at_once(&self) -> u64 {
        (self.limit.load(Ordering::Relaxed) / 16).clamp(1 << 20, 256 << 20)
    }

    /// Whether an object would not fit though everything else went.
    pub(super) fn can_never_hold(&self, size: u64) -> bool {
        size > share(self.limit.load(Ordering::Relaxed), LOW_WATERMARK)
    }

    /// Counts what is on disk. Takes as long as a walk over the folder.
    pub(super) fn scan(&self) {
        let (mut bytes, mut objects) = (0, 0);
        walk(&self.root, &mut |_, metadata| {
            bytes += metadata.len();
            objects += 1;
        });
        self.used.store(bytes, Ordering::Relaxed);
        self.metrics.cache_objects.set(objects);
        self.metrics.cache_bytes.set(to_gauge(bytes));
    }

    /// Notes that a file of this size appeared, in the place of one of `replaced` bytes.
    pub(super) fn committed(&self, path: &Path, size: u64, replaced: u64) {
        let before = self.used.fetch_add(size, Ordering::Relaxed);
        self.used.fetch_sub(replaced.min(before), Ordering::Relaxed);
        self.metrics.cache_bytes.set(to_gauge(self.used.load(Ordering::Relaxed)));
        if replaced == 0 {
            self.metrics.cache_objects.inc();
        }
        let came_back = self.lock().known.contains(&hash(path));
        if let Err(error) = File::open(path).and_then(|file| stamp(&file, u32::from(came_back))) {
            tracing::debug!(%error, "can't set the time of a new object");
        }
    }

    /// Evicts until `incoming` more bytes fit.
    pub(super) fn make_room(&self, incoming: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.used.load(Ordering::Relaxed).saturating_add(incoming) <= limit {
            return;
        }
        let target = share(limit, LOW_WATERMARK).saturating_sub(incoming);
        // Zips first: they are what fills a disk, and a graph of requirements needs only the rest.
        for is_zip in [true, false] {
            let used = self.used.load(Ordering::Relaxed);
            if used <= target {
                break;
            }
            self.evict(in_order(self.objects(is_zip), share(limit, PROBATION)), used - target);
        }
        if self.used.load(Ordering::Relaxed).saturating_add(incoming) > limit {
            tracing::error!(limit, "nothing is left to evict, and the cache is above its limit");
        }
    }

    fn objects(&self, is_zip: bool) -> Vec<Object> {
        let mut objects = Vec::new();
        let state = self.root.join(STATE_DIR);
        walk(&self.root, &mut |path, metadata| {
            let kind_matches = path.extension().is_some_and(|extension| extension == "zip") == is_zip;
            // What was seen first must outlive what was seen, and a quarantine is nobody's cache.
            if kind_matches && !path.starts_with(&state) && path.extension().is_none_or(|e| e != "ziphash") {
                let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
                let uses = modified.subsec_nanos().min(MAX_USES);
                objects.push(Object { path, size: metadata.len(), last_use: modified.as_secs(), uses });
            }
        });
        objects
    }

    fn evict(&self, objects: Vec<Object>, mut excess: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut evicted = 0_u64;
        for object in objects {
            if excess == 0 {
                break;
            }
            // The zip before its hash: a visible zip always has one.
            if let Err(error) = fs::remove_file(&object.path) {
                tracing::warn!(%error, path = %object.path.display(), "can't evict");
                continue;
            }
            let hash_file = object.path.with_extension("ziphash");
            let hash_size = fs::metadata(&hash_file).map(|m| m.len()).unwrap_or_default();
            let had_hash = object.path.extension().is_some_and(|e| e == "zip") && fs::remove_file(&hash_file).is_ok();
            let freed = object.size + if had_hash { hash_size } else { 0 };
            excess = excess.saturating_sub(freed);
            let before = self.used.load(Ordering::Relaxed);
            self.used.store(before.saturating_sub(freed), Ordering::Relaxed);
            self.metrics.cache_objects.sub(1 + i64::from(had_hash));
            self.metrics.evictions.inc();
            self.metrics.evicted_bytes.inc_by(freed);
            self.metrics.evicted_age.set(to_gauge(now.saturating_sub(object.last_use)));
            self.lock().remember(hash(&object.path));
            evicted += 1;
        }
        self.metrics.cache_bytes.set(to_gauge(self.used.load(Ordering::Relaxed)));
        tracing::info!(evicted, "evicted objects to make room");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ghosts> {
        self.ghosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ghosts {
    fn remember(&mut self, ghost: u64) {
        if self.known.insert(ghost) {
            self.order.push_back(ghost);
        }
        if self.order.len() > MAX_GHOSTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Counts a use of an open object, unless there was one just now. Returns whether it was counted.
///
/// # Errors
/// The file's times can't be read or set.
pub(super) fn count_use(file: &File) -> io::Result<bool> {
    let modified = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let uses = modified.subsec_nanos().min(MAX_USES);
    if uses > 0 && now.as_secs().saturating_sub(modified.as_secs()) < USE_INTERVAL.as_secs() {
        return Ok(false);
    }
    stamp(file, (uses + 1).min(MAX_USES))?;
    Ok(true)
}

fn stamp(file: &File, uses: u32) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    file.set_modified(UNIX_EPOCH + Duration::new(now.as_secs(), uses))
}

/// What goes first comes first.
fn in_order(objects: Vec<Object>, spared: u64) -> Vec<Object> {
    let (mut unused, mut used): (Vec<Object>, Vec<Object>) = objects.into_iter().partition(|object| object.uses == 0);
    unused.sort_by_key(|object| std::cmp::Reverse(object.last_use));
    used.sort_by_key(|object| object.last_use);
    let mut bytes = 0_u64;
    let newest = unused.iter().take_while(|object| {
        bytes = bytes.saturating_add(object.size);
        bytes <= spared
    });
    let newest = newest.count();
    let mut order = unused.split_off(newest.min(unused.len()));
    order.reverse();
    order.append(&mut used);
    unused.reverse();
    order.append(&mut unused);
    order
}

/// Every regular file but the temporary ones.
fn walk(root: &Path, visit: &mut dyn FnMut(PathBuf, &fs::Metadata)) {
    let mut folders = vec![root.to_owned()];
    let tmp = root.join(STATE_DIR).join("tmp");
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                visit(entry.path(), &metadata);
            } else if metadata.is_dir() && entry.path() != tmp {
                folders.push(entry.path());
            }
        }
    }
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

fn share(limit: u64, part: f64) -> u64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a limit")]
    let share = (limit as f64 * part) as u64;
    share
}

fn to_gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn object(name: &str, size: u64, last_use: u64, uses: u32) -> Object {
        Object { path: name.into(), size, last_use, uses }
    }

    fn names(objects: &[Object]) -> Vec<&str> {
        objects.iter().map(|o| o.path.to_str().unwrap()).collect()
    }

    #[test]
    fn what_was_never_used_again_goes_first_and_the_newest_of_it_last() {
        let objects = vec![
            object("old-used", 10, 1, 2),
            object("old-unused", 10, 2, 0),
            object("used", 10, 5, 1),
            object("newer-unused", 10, 6, 0),
            object("newest-unused", 10, 7, 0),
        ];
        assert_eq!(names(&in_order(objects, 10)), ["old-unused", "newer-unused", "old-used", "used", "newest-unused"]);
    }

    fn account(root: &Path, limit: u64) -> Usage {
        Usage::new(root.to_owned(), Some(limit), Arc::new(Metrics::new().unwrap()))
    }

    fn put(usage: &Usage, root: &Path, name: &str, size: usize) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        usage.make_room(size as u64);
        fs::write(&path, vec![0; size]).unwrap();
        usage.committed(&path, size as u64, 0);
    }

    #[test]
    fn the_limit_holds_and_what_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let usage = account(folder.path(), 10_000);
        put(&usage, folder.path(), "a.example/hot/@v/v1.0.0.zip", 1_000);
        count_use(&File::open(folder.path().join("a.example/hot/@v/v1.0.0.zip")).unwrap()).unwrap();
        for i in 0..40 {
            put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1_000);
            let mut on_disk = 0;
            walk(folder.path(), &mut |_, metadata| on_disk += metadata.len());
            assert!(on_disk <= 10_000, "{on_disk}");
        }
        assert!(folder.path().join("a.example/hot/@v/v1.0.0.zip").exists());
        assert!(!folder.path().join("a.example/m0/@v/v1.0.0.zip").exists());
    }

    #[test]
    fn a_restart_counts_what_is_there_and_remembers_uses() {
        let folder = tempfile::tempdir().unwrap();
        put(&account(folder.path(), 10_000), folder.path(), "a.example/m/@v/v1.0.0.zip", 1_234);
        let file = File::open(folder.path().join("a.example/m/@v/v1.0.0.zip")).unwrap();
        assert!(count_use(&file).unwrap() && !count_use(&file).unwrap());
        let usage = account(folder.path(), 10_000);
        usage.scan();
        assert_eq!(usage.used.load(Ordering::Relaxed), 1_234);
        assert_eq!(usage.objects(true).first().map(|o| o.uses), Some(1));
    }

    #[test]
    fn what_was_seen_first_is_not_evicted() {
        let folder = tempfile::tempdir().unwrap();
        let usage = account(folder.path(), 3_000);
        let first_seen = ".gomodcache/first-seen/a.example/m/@v/v1.0.0.zip";
        put(&usage, folder.path(), first_seen, 47);
        for i in 0..5 {
            put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1_000);
        }
        assert!(folder.path().join(first_seen).exists() && !folder.path().join("a.example/m0/@v/v1.0.0.zip").exists());
    }

    #[test]
    fn zips_go_before_the_rest_and_take_their_hash_along() {
        let folder = tempfile::tempdir().unwrap();
        let usage = account(folder.path(), 3_000);
        put(&usage, folder.path(), "a.example/m/@v/v1.0.0.mod", 500);
        put(&usage, folder.path(), "a.example/m/@v/v1.0.0.ziphash", 47);
        put(&usage, folder.path(), "a.example/m/@v/v1.0.0.zip", 2_000);
        put(&usage, folder.path(), "a.example/n/@v/v1.0.0.zip", 2_000);
        let exists = |name: &str| folder.path().join(name).exists();
        assert!(exists("a.example/m/@v/v1.0.0.mod"));
        assert!(!exists("a.example/m/@v/v1.0.0.zip") && !exists("a.example/m/@v/v1.0.0.ziphash"));
    }
}
