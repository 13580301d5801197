//! What the folders of a cache take. Some file systems give each a block, and every module has two: for small modules that is more
//! than their files have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::inventory::{Walked, taken};
use crate::store::ledger::Room;

/// The bytes of all folders, as far as this process knows: what others with this volume make it sees at its next count.
#[derive(Debug, Default)]
pub(super) struct Folders(Mutex<Figures>);

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    bytes: u64,
    /// All that were ever made. It only grows: what it grew by is what was made meanwhile, whatever was removed.
    made: u64,
}

/// The folders that a batch lacks. It is to make them.
#[derive(Debug, Default)]
pub(in crate::store) struct Lacking(BTreeSet<PathBuf>);

impl Lacking {
    /// Those above these files.
    pub(in crate::store) fn above<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        let mut lacking = BTreeSet::new();
        for file in files {
            for folder in file.ancestors().skip(1) {
                if lacking.contains(folder) || folder.exists() {
                    break;
                }
                lacking.insert(folder.to_owned());
            }
        }
        Self(lacking)
    }

    /// What they will take, at most: a new folder has no more than a block.
    pub(in crate::store) fn room(&self) -> Room {
        let bytes = self.0.iter().map(|_| Room::of(1).bytes).sum();
        Room { bytes, objects: 0 }
    }

    /// What those take that were made.
    fn taken(&self) -> u64 {
        self.0.iter().map(|folder| fs::symlink_metadata(folder).map_or(0, |folder| taken(&folder))).sum()
    }
}

/// When a count began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(u64);

impl Folders {
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    pub(super) fn begin_count(&self) -> Since {
        Since(self.lock().made)
    }

    /// What came while it was counted may have been counted or not: rather twice than never.
    pub(super) fn counted(&self, walked: Walked, since: Since) {
        let mut figures = self.lock();
        let found = walked.folders + figures.made.saturating_sub(since.0);
        figures.bytes = if walked.is_whole { found } else { found.max(figures.bytes) };
    }

    pub(super) fn made(&self, folders: &Lacking) {
        let taken = folders.taken();
        let mut figures = self.lock();
        figures.bytes += taken;
        figures.made += taken;
    }

    pub(super) fn removed(&self, bytes: u64) {
        let mut figures = self.lock();
        figures.bytes = figures.bytes.saturating_sub(bytes);
    }

    /// A panic elsewhere leaves no half of a change.
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_while_it_is_counted_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let lacking =
            Lacking::above(["m/@v/v1.0.0.mod", "m/@v/v1.0.0.info", "n"].map(|file| folder.path().join(file)).iter().map(PathBuf::as_path));
        assert_eq!((lacking.0.len(), lacking.room()), (2, Room { bytes: Room::of(1).bytes * 2, objects: 0 }));
        let folders = Folders::default();
        folders.made(&lacking);
        assert_eq!(folders.bytes(), 0, "they are not there");
        let since = folders.begin_count();
        fs::create_dir_all(folder.path().join("m/@v")).unwrap();
        folders.made(&lacking);
        let taken = folders.bytes();
        folders.counted(Walked { folders: 100, is_whole: true }, since);
        assert_eq!(folders.bytes(), 100 + taken);
        folders.counted(Walked { folders: 40, is_whole: false }, folders.begin_count());
        assert_eq!(folders.bytes(), 100 + taken, "what could not be read is there all the same");
        folders.removed(60 + taken);
        assert_eq!(folders.bytes(), 40);
    }
}
