//! Giving a file its name: whatever has it, or only where what has it may not stay.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::super::MAX_STATE;
use super::super::ledger::{self, Room};
use super::super::open::{own_file, read_at_most};
use super::MayStay;

/// How often a folder is made anew that another process removes.
const TRIES: u32 = 8;
const LOCK: &str = "replace.lock";

/// The lock under which a file takes the place of one that was looked at. Only one process with this volume has it, unless that one is
/// frozen, or the file system knows no locks.
pub(super) struct Lock {
    file: PathBuf,
    patience: Duration,
}

impl Lock {
    /// For one batch.
    pub(super) fn new(tmp: &Path) -> Self {
        Self { file: tmp.with_file_name(LOCK), patience: ledger::PATIENCE }
    }

    /// Waits for it, but in vain only once. It goes with the file.
    fn take(&mut self) -> io::Result<File> {
        let file = own_file(&self.file).map_err(|error| io::Error::new(error.kind(), format!("can't open .gomodcache/{LOCK}: {error}")))?;
        if !ledger::lock(&file, self.patience) {
            self.patience = Duration::ZERO;
        }
        Ok(file)
    }
}

/// Gives a file its name, whatever has it. A folder that is missed is made. Returns the room of what was there before.
pub(super) fn place(temp: &Path, to: &Path, folder: &Path) -> io::Result<Room> {
    let replaced = fs::metadata(to).map(|old| Room::of(old.len())).unwrap_or_default();
    in_folder(folder, || fs::rename(temp, to)).map(|()| replaced)
}

/// The same, unless what has it may stay: then it returns nothing.
pub(super) fn place_unless(temp: &Path, to: &Path, folder: &Path, may_stay: &MayStay, lock: &mut Lock) -> io::Result<Option<Room>> {
    let stays = || stays(read_at_most(to, MAX_STATE), may_stay);
    if place_new(temp, to, folder) {
        return Ok(Some(Room::default()));
    }
    // Most of what there is stays for ever, and needs no lock.
    if stays()? {
        return Ok(None);
    }
    let _lock = lock.take()?;
    if stays()? { Ok(None) } else { place(temp, to, folder).map(Some) }
}

/// Whether what was read may stay.
///
/// # Errors
/// It can't be read now, and may be what must stay.
fn stays(there: io::Result<Vec<u8>>, may_stay: &MayStay) -> io::Result<bool> {
    match there {
        Ok(there) => Ok(may_stay(&there)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file its name if nothing has it: of several processes that do so at once only one does, without any lock. `false`: something
/// has it, or nobody can tell.
fn place_new(temp: &Path, to: &Path, folder: &Path) -> bool {
    let placed = in_folder(folder, || match renameat_with(CWD, temp, CWD, to, RenameFlags::NOREPLACE) {
        // An old kernel, a sandbox, or a network's file system that does not know the call.
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => link_new(temp, to),
        placed => Ok(placed?),
    });
    placed.is_ok()
}

/// The same in two steps: for a moment the file has both names.
fn link_new(temp: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(temp, to).and_then(|()| fs::remove_file(temp))
}

/// Makes the folder that is missed: it is new, or another process evicted the last file in it, which it may do again at any time.
fn in_folder(folder: &Path, place: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut placed = place();
    for _ in 0..TRIES {
        if !placed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        placed = fs::create_dir_all(folder).and_then(|()| place());
    }
    placed
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_want_a_name_at_once_one_has_it() {
        type PlaceNew = fn(&Path, &Path) -> bool;
        let ways: [PlaceNew; 2] = [|temp, to| place_new(temp, to, to.parent().unwrap()), |temp, to| link_new(temp, to).is_ok()];
        for place in ways {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("first");
            let temps: Vec<PathBuf> = (0..16).map(|i| folder.path().join(i.to_string())).collect();
            temps.iter().for_each(|temp| fs::write(temp, temp.to_str().unwrap()).unwrap());
            let placed = std::thread::scope(|scope| {
                let all: Vec<_> = temps.iter().map(|temp| (temp, scope.spawn(|| place(temp, &to)))).collect();
                all.into_iter().filter_map(|(temp, one)| one.join().unwrap().then_some(temp)).collect::<Vec<_>>()
            });
            assert!(placed.len() == 1 && !placed[0].exists(), "{placed:?}");
            assert_eq!(fs::read_to_string(&to).unwrap(), placed[0].to_str().unwrap());
            assert_eq!(temps.iter().filter(|temp| temp.exists()).count(), temps.len() - 1, "the others are where they were");
        }
    }

    #[test]
    fn what_cannot_be_read_now_is_not_replaced() {
        let is_good: MayStay = Box::new(|there| there == b"good");
        assert!(stays(Ok(b"good".to_vec()), &is_good).unwrap());
        assert!(!stays(Ok(b"bad".to_vec()), &is_good).unwrap());
        assert!(!stays(Err(io::ErrorKind::NotFound.into()), &is_good).unwrap());
        assert!(!stays(Err(io::ErrorKind::InvalidData.into()), &is_good).unwrap(), "it is no file");
        assert!(stays(Err(Errno::IO.into()), &is_good).is_err());
    }

    #[test]
    fn a_lock_that_another_process_keeps_is_waited_for_once() {
        let folder = tempfile::tempdir().unwrap();
        let tmp = folder.path().join("tmp");
        let frozen = Lock::new(&tmp).take().unwrap();
        let mut lock = Lock { patience: Duration::from_millis(50), ..Lock::new(&tmp) };
        drop(lock.take().unwrap());
        assert_eq!(lock.patience, Duration::ZERO);
        drop(frozen);
        let mut lock = Lock::new(&tmp);
        drop(lock.take().unwrap());
        assert_eq!(lock.patience, ledger::PATIENCE);
    }
}
