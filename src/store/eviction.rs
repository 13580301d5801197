//! What goes first when there is no room.
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
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A use within this time of the last one is not counted again.
pub const USE_INTERVAL: Duration = Duration::from_secs(10);
const MAX_USES: u32 = 3;
/// Machines that share a volume do not agree on the time to the second. What is further ahead than this was never a time of use: a clock
/// was wrong once, or the file came from elsewhere.
const AHEAD: Duration = Duration::from_secs(3600);
/// How many evicted objects are remembered: one that comes back was worth keeping.
const MAX_GHOSTS: usize = 50_000;

/// What was evicted, by a hash of its path.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

/// One file that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Seconds since the epoch.
    pub(super) last_use: u64,
    pub(super) uses: u32,
}

impl Object {
    pub(super) fn new(path: PathBuf, metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        // It would go last for as long as it is ahead.
        let last_use = if is_ahead(modified, now()) { 0 } else { modified.as_secs() };
        Self { path, size: metadata.len(), last_use, uses: modified.subsec_nanos().min(MAX_USES) }
    }

    /// Seconds since it was used.
    pub(super) fn age(&self) -> u64 {
        now().as_secs().saturating_sub(self.last_use)
    }
}

impl Ghosts {
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.known.contains(&hash(path))
    }

    pub(super) fn remember(&mut self, path: &Path) {
        let ghost = hash(path);
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
    let (now, uses) = (now(), modified.subsec_nanos().min(MAX_USES));
    if uses > 0 && now.as_secs().saturating_sub(modified.as_secs()) < USE_INTERVAL.as_secs() && !is_ahead(modified, now) {
        return Ok(false);
    }
    stamp(file, (uses + 1).min(MAX_USES))?;
    Ok(true)
}

/// Sets the time of last use to now, and the count of uses.
///
/// # Errors
/// The file's times can't be set.
pub(super) fn stamp(file: &File, uses: u32) -> io::Result<()> {
    file.set_modified(UNIX_EPOCH + Duration::new(now().as_secs(), uses))
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn is_ahead(modified: Duration, now: Duration) -> bool {
    modified > now.saturating_add(AHEAD)
}

/// What goes first comes first.
pub(super) fn in_order(objects: Vec<Object>, spared: u64) -> Vec<Object> {
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

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
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

    #[test]
    fn a_time_that_is_far_ahead_is_the_oldest_until_a_use_puts_it_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v1.0.0.zip");
        let file = File::create(&path).unwrap();
        let at = |ahead: Duration| {
            file.set_modified(UNIX_EPOCH + Duration::new((now() + ahead).as_secs(), 2)).unwrap();
            Object::new(path.clone(), &file.metadata().unwrap())
        };
        // Another machine's clock.
        assert!(at(AHEAD / 2).last_use > now().as_secs() && !count_use(&file).unwrap());
        let far = at(AHEAD * 24);
        assert_eq!((far.last_use, far.uses), (0, 2));
        assert!(count_use(&file).unwrap());
        let used = Object::new(path.clone(), &file.metadata().unwrap());
        assert!(used.age() < 60 && used.last_use > 0 && used.uses == 3, "{used:?}");
    }
}
