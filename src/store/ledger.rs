//! How much lies on the volume, agreed between all processes that have it open: a draining pod and its successor, or the
//! pods of a shared volume. Sixteen bytes in a file, changed under its lock.
//!
//! Room is booked before an object becomes visible. A process that is killed in between leaves the figure too high, which
//! costs a little room until the next start counts again; never too low, which would cost the limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

const FILE: &str = "usage";
/// A file takes whole blocks of a disk.
const BLOCK: u64 = 4096;
/// A process that was frozen while it held the lock must not hold up the others for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// Room on the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// In whole blocks.
    pub(super) bytes: u64,
    /// Files.
    pub(super) objects: u64,
}

impl Room {
    /// What a file of this many bytes takes.
    pub(super) fn of(bytes: u64) -> Self {
        Self { bytes: bytes.div_ceil(BLOCK).saturating_mul(BLOCK), objects: 1 }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), objects: self.objects.saturating_add(other.objects) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), objects: self.objects.saturating_sub(other.objects) }
    }
}

/// The figure of one volume.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    /// What was read or written last: all there is on a volume that can't be written.
    last: Mutex<Room>,
    was_there: bool,
}

impl Ledger {
    /// Below the state folder, which need not be there yet.
    pub(super) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let last = File::open(&path).ok().and_then(|file| read(&file).ok());
        Self { path, last: Mutex::new(last.unwrap_or_default()), was_there: last.is_some() }
    }

    /// Whether an earlier process left a figure.
    pub(super) fn was_there(&self) -> bool {
        self.was_there
    }

    /// The figure as it was seen last.
    pub(super) fn last(&self) -> Room {
        *self.lock_last()
    }

    /// Changes the figure, alone among all processes. Blocks.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Room) -> T) -> (T, Room) {
        let mut last = self.lock_last();
        // Not kept open: a file that is open for writing holds up whoever wants the volume read-only. Closing it unlocks it.
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.path);
        let file = file.inspect_err(|error| tracing::debug!(%error, "can't open the account of the volume")).ok();
        if let Some(file) = &file {
            lock(file);
        }
        let mut room = file.as_ref().and_then(|file| read(file).ok()).unwrap_or(*last);
        let result = change(&mut room);
        if let Some(Err(error)) = file.as_ref().map(|file| write(file, room)) {
            tracing::debug!(%error, "can't write the account of the volume");
        }
        *last = room;
        (result, room)
    }

    fn lock_last(&self) -> MutexGuard<'_, Room> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a lock that other processes with this volume may have.
pub(super) fn lock(file: &File) {
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => {
                tracing::warn!(%error, "can't lock a file of the volume; going on without");
                return;
            }
        }
    }
}

fn read(file: &File) -> io::Result<Room> {
    let (mut bytes, mut objects) = ([0; 8], [0; 8]);
    file.read_exact_at(&mut bytes, 0)?;
    file.read_exact_at(&mut objects, 8)?;
    Ok(Room { bytes: u64::from_le_bytes(bytes), objects: u64::from_le_bytes(objects) })
}

fn write(file: &File, room: Room) -> io::Result<()> {
    let mut figures = room.bytes.to_le_bytes().to_vec();
    figures.extend(room.objects.to_le_bytes());
    file.write_all_at(&figures, 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_whole_blocks() {
        assert_eq!([0, 1, 4096, 4097].map(|bytes| Room::of(bytes).bytes), [0, 4096, 4096, 8192]);
    }

    #[test]
    fn two_processes_agree_and_a_third_begins_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Ledger::open(folder.path()), Ledger::open(folder.path()));
        assert!(!one.was_there());
        std::thread::scope(|scope| {
            for ledger in [&one, &two] {
                scope.spawn(|| {
                    for _ in 0..500 {
                        ledger.change(|room| *room = room.plus(Room::of(1)));
                    }
                });
            }
        });
        let three = Ledger::open(folder.path());
        assert!(three.was_there());
        assert_eq!(three.last(), Room { bytes: 1000 * BLOCK, objects: 1000 });
    }

    #[test]
    fn a_volume_that_cannot_be_written_is_counted_in_memory() {
        let ledger = Ledger::open(Path::new("/proc/no/such/folder"));
        ledger.change(|room| *room = Room::of(1));
        assert_eq!(ledger.last().objects, 1);
    }
}
