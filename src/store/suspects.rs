//! Files that broke off while they were read: a disk that has lost a block has lost it for ever, and who only opens the file does not
//! notice. Each is fetched anew once, and a commit puts the new one in its place. Where it can't be fetched the next request has the
//! file again: on a network's volume it may be whole by then.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rest has its turn when these have had theirs.
const MOST: usize = 1024;

/// The files of one cache that are to be fetched anew.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<HashSet<PathBuf>>);

impl Suspects {
    /// Whether a file broke off since this was asked last.
    pub(super) fn take(&self, path: &Path) -> bool {
        let mut paths = self.lock();
        !paths.is_empty() && paths.remove(path)
    }

    fn note(&self, path: &Path) {
        let mut paths = self.lock();
        if paths.len() < MOST {
            paths.insert(path.to_owned());
        }
    }

    /// A panic elsewhere does not make the set wrong: every change of it is one call.
    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that is read while it is answered with.
#[derive(Debug)]
pub struct Large {
    /// Open for reading.
    pub file: File,
    /// In bytes.
    pub length: u64,
    /// To be told if it breaks off.
    pub fate: Fate,
}

/// What becomes of a file that can't be read to its end.
#[derive(Debug)]
pub struct Fate {
    path: PathBuf,
    suspects: Arc<Suspects>,
}

impl Fate {
    pub(super) fn new(path: &Path, suspects: &Arc<Suspects>) -> Self {
        Self { path: path.to_owned(), suspects: Arc::clone(suspects) }
    }

    /// The file can't be read any further: the next request fetches it anew.
    pub fn broke_off(&self, error: &io::Error) {
        tracing::error!(%error, file = %self.path.display(), "can't read a cached object any further; the next request fetches it anew");
        self.suspects.note(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_fetched_anew_once_for_each_time_that_it_breaks_off() {
        let suspects = Arc::<Suspects>::default();
        let (one, other) = (Path::new("/cache/one.zip"), Path::new("/cache/other.zip"));
        let fate = Fate::new(one, &suspects);
        assert!(!suspects.take(one));
        for _ in 0..2 {
            fate.broke_off(&io::ErrorKind::UnexpectedEof.into());
            fate.broke_off(&io::ErrorKind::UnexpectedEof.into());
            assert!(!suspects.take(other) && suspects.take(one) && !suspects.take(one));
        }
    }

    #[test]
    fn a_disk_that_fails_altogether_fills_no_memory() {
        let suspects = Arc::<Suspects>::default();
        for i in 0..2 * MOST {
            Fate::new(&PathBuf::from(i.to_string()), &suspects).broke_off(&io::ErrorKind::Other.into());
        }
        assert_eq!(suspects.lock().len(), MOST);
    }
}
