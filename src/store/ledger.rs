//! How much lies on the volume, agreed between all processes that have it open: a draining pod and its successor, or the
//! pods of a shared volume. A few numbers in a file, changed under its lock.
//!
//! Room is booked before an object becomes visible. A process that is killed in between leaves the figure too high, which
//! costs a little room until the next start counts again; never too low, which would cost the limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::open::{own_file, plain_file};

const FILE: &str = "usage";
/// A file takes whole blocks of a disk.
const BLOCK: u64 = 4096;
/// A process that was frozen while it held the lock must not hold up the others for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

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

    pub(super) fn is_within(self, most: Self) -> bool {
        self.bytes <= most.bytes && self.objects <= most.objects
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), objects: self.objects.saturating_add(other.objects) }
    }

    pub(super) fn or_more(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), objects: self.objects.max(other.objects) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), objects: self.objects.saturating_sub(other.objects) }
    }
}

/// What the file says: each number in eight bytes, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// What lies on the volume, or is about to.
    pub(super) room: Room,
    /// All that was ever booked. It only grows: what it grew by is what was booked meanwhile, whatever was evicted.
    pub(super) booked: Room,
    /// Counts of the volume that were begun.
    pub(super) begun: u64,
    /// Counts that were completed. Before the first, `room` lacks what lay there already.
    pub(super) completed: u64,
}

impl Figures {
    pub(super) fn book(&mut self, room: Room) {
        self.room = self.room.plus(room);
        self.booked = self.booked.plus(room);
    }
}

/// The figures of one volume.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    /// What was read or written last: all there is on a volume that can't be written.
    last: Mutex<Figures>,
    was_counted: bool,
}

impl Ledger {
    /// Below the state folder, which need not be there yet.
    pub(super) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let last = plain_file(&path).ok().and_then(|file| read(&file).ok());
        let last = last.unwrap_or_default();
        Self { path, last: Mutex::new(last), was_counted: last.completed > 0 }
    }

    /// Whether an earlier process left a figure that rests on a count.
    pub(super) fn was_counted(&self) -> bool {
        self.was_counted
    }

    /// The figures as they were seen last.
    pub(super) fn last(&self) -> Figures {
        *self.lock_last()
    }

    /// Changes the figures, alone among all processes. Blocks: no process may do more under the lock than reckon.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Figures) -> T) -> (T, Figures) {
        let mut last = self.lock_last();
        // Not kept open: a file that is open for writing holds up whoever wants the volume read-only. Closing it unlocks it.
        let file = own_file(&self.path);
        let file = file.inspect_err(|error| tracing::debug!(%error, "can't open the account of the volume")).ok();
        if let Some(file) = &file {
            lock(file, PATIENCE);
        }
        let mut figures = file.as_ref().and_then(|file| read(file).ok()).unwrap_or(*last);
        let result = change(&mut figures);
        if let Some(Err(error)) = file.as_ref().map(|file| write(file, &figures)) {
            tracing::debug!(%error, "can't write the account of the volume");
        }
        *last = figures;
        (result, figures)
    }

    fn lock_last(&self) -> MutexGuard<'_, Figures> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a lock that other processes with this volume may have. Returns whether it has it.
pub(super) fn lock(file: &File, patience: Duration) -> bool {
    wait_for(file, FlockOperation::NonBlockingLockExclusive, patience)
}

/// Waits for one that any number of processes may have.
pub(super) fn lock_shared(file: &File) {
    wait_for(file, FlockOperation::NonBlockingLockShared, PATIENCE);
}

fn wait_for(file: &File, operation: FlockOperation, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        match flock(file, operation) {
            Ok(()) => return true,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => {
                tracing::warn!(%error, "can't lock a file of the volume; going on without");
                return false;
            }
        }
    }
}

fn read(mut file: &File) -> io::Result<Figures> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut numbers = bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number));
    let (Some(bytes), Some(objects)) = (numbers.next(), numbers.next()) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    // An earlier version wrote no more, and that as well when its first count was killed: it is not known to have counted.
    let mut later = || numbers.next().unwrap_or_default();
    let booked = Room { bytes: later(), objects: later() };
    Ok(Figures { room: Room { bytes, objects }, booked, begun: later(), completed: later() })
}

fn write(file: &File, figures: &Figures) -> io::Result<()> {
    let Figures { room, booked, begun, completed } = figures;
    let numbers = [room.bytes, room.objects, booked.bytes, booked.objects, *begun, *completed];
    file.write_all_at(numbers.map(u64::to_le_bytes).as_flattened(), 0)
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
        assert!(!one.was_counted());
        std::thread::scope(|scope| {
            for ledger in [&one, &two] {
                scope.spawn(|| {
                    for _ in 0..500 {
                        ledger.change(|figures| figures.book(Room::of(1)));
                    }
                });
            }
        });
        one.change(|figures| figures.completed += 1);
        let three = Ledger::open(folder.path());
        assert!(three.was_counted());
        let all = Room { bytes: 1000 * BLOCK, objects: 1000 };
        assert_eq!(three.last(), Figures { room: all, booked: all, begun: 0, completed: 1 });
    }

    #[test]
    fn the_figure_of_an_earlier_version_may_be_that_of_a_count_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let figure = Room { bytes: BLOCK, objects: 1 };
        std::fs::write(folder.path().join(FILE), [figure.bytes.to_le_bytes(), figure.objects.to_le_bytes()].concat()).unwrap();
        let ledger = Ledger::open(folder.path());
        assert_eq!((ledger.last().room, ledger.was_counted()), (figure, false));
    }

    #[test]
    fn a_volume_that_cannot_be_written_is_counted_in_memory() {
        let ledger = Ledger::open(Path::new("/proc/no/such/folder"));
        ledger.change(|figures| figures.book(Room::of(1)));
        assert_eq!(ledger.last().room.objects, 1);
    }
}
