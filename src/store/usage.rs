//! How much the cache holds, and the limit on it. How room is made is said in `usage/room.rs`, what there is to evict in
//! `inventory.rs`, and what of it goes first in `eviction.rs`; what all processes with this volume hold together is counted in
//! `ledger.rs`.

mod folders;
mod room;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::STATE_DIR;
use super::eviction::{Ghosts, stamp};
use super::inventory::Inventory;
use super::ledger::{Figures, Ledger, Room};
use super::volume::Volume;
use crate::gomod::Patterns;
use crate::telemetry::Metrics;
use folders::Folders;
pub(super) use folders::Lacking;

/// Eviction goes on until this share of the limit is left.
const LOW_WATERMARK: f64 = 0.9;
/// How long it is believed what a walk over the folder found: it takes long.
const BELIEVED_FOR: Duration = Duration::from_secs(60);
/// How often the volume is counted again if much was written while it was counted.
const SCANS: u32 = 3;
/// No limit lets the cache have more of its file system than this share: the rest is for what is being downloaded, and for what is
/// not counted. What the folders take is beside it.
const OF_VOLUME: f64 = 0.95;

/// The account of one cache folder.
#[derive(Debug)]
pub(super) struct Usage {
    inventory: Inventory,
    /// Bytes that were allowed; `u64::MAX` for as many as the volume has.
    allowed: AtomicU64,
    /// Bytes that the volume leaves to the cache; `u64::MAX` if it does not say. It may grow.
    volume: AtomicU64,
    folders: Folders,
    /// Files that the volume may have; `u64::MAX` if it does not say.
    files: AtomicU64,
    ledger: Ledger,
    ghosts: Mutex<Ghosts>,
    /// What must be kept, and when that was added up.
    kept: Mutex<Option<(Instant, Room)>>,
    /// When the volume was counted because it was fuller than the figure.
    doubted: Mutex<Option<Instant>>,
    /// When no more files could be evicted though the volume takes no more.
    in_vain: Mutex<Option<Instant>>,
    /// There was no room when some was asked for last; it was said.
    refused: AtomicBool,
    /// The process ends: a long count is given up.
    stopping: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Room that was booked for what is about to become visible.
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "a count may have missed what it stands for"]
pub(super) struct Booking {
    room: Room,
    /// How many counts were begun by then.
    begun: u64,
}

/// Removes a file. A test takes its time.
type Remove<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

impl Usage {
    pub(super) fn new(root: PathBuf, limit: Option<u64>, metrics: Arc<Metrics>) -> Self {
        let ledger = Ledger::open(&root.join(STATE_DIR));
        let usage = Self {
            inventory: Inventory::new(root),
            allowed: AtomicU64::new(0),
            volume: AtomicU64::new(0),
            folders: Folders::default(),
            files: AtomicU64::new(u64::MAX),
            ledger,
            ghosts: Mutex::default(),
            kept: Mutex::default(),
            doubted: Mutex::default(),
            in_vain: Mutex::default(),
            refused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            metrics,
        };
        usage.look_at_volume();
        usage.set_limit(limit);
        usage.publish(usage.ledger.last().room);
        usage
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        let limit = limit.unwrap_or(u64::MAX);
        // What the same one had no room for it has none for now.
        if self.allowed.swap(limit, Ordering::Relaxed) != limit {
            self.refused.store(false, Ordering::Relaxed);
        }
        self.publish_limit();
    }

    /// Finds out how much the volume has. Blocks.
    fn look_at_volume(&self) -> Option<Volume> {
        let volume = Volume::of(self.inventory.root());
        let size = volume.as_ref().and_then(Volume::size);
        let left = |size| share(size, OF_VOLUME).saturating_sub(self.folders.bytes());
        self.volume.store(size.map_or(u64::MAX, left), Ordering::Relaxed);
        let files = volume.as_ref().map(|volume| volume.files().0).filter(|files| *files > 0);
        self.files.store(files.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.publish_limit();
        volume
    }

    fn publish_limit(&self) {
        let limit = Some(self.limit()).filter(|limit| *limit < u64::MAX);
        self.metrics.cache_limit_bytes.set(limit.map_or(0, to_gauge));
    }

    /// Says which modules are private.
    pub(super) fn set_private(&self, modules: Patterns) {
        self.inventory.set_private(modules);
    }

    /// How much is made visible in one step: a small part of what there may be.
    pub(super) fn most_at_once(&self) -> Room {
        let bytes = (self.limit() / 16).clamp(1 << 20, 256 << 20);
        Room { bytes, objects: (self.files.load(Ordering::Relaxed) / 16).max(1) }
    }

    /// Whether an object would not fit though everything else went.
    pub(super) fn can_never_hold(&self, size: u64) -> bool {
        size > share(self.limit(), LOW_WATERMARK)
    }

    /// Whether there was no room when some was asked for last.
    pub(super) fn is_refusing(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the limit can be kept already: an earlier process counted.
    pub(super) fn is_known(&self) -> bool {
        self.ledger.was_counted()
    }

    /// Counts what is on disk, for what processes that were killed left wrong. Takes as long as a walk over the folder.
    pub(super) fn scan(&self) {
        for _ in 0..SCANS {
            let Some(since) = self.count(|| self.found()) else { return };
            if since.bytes <= self.limit() / 64 {
                break;
            }
        }
    }

    /// Counts once. Returns what was booked meanwhile; nothing if `find` gave up.
    fn count(&self, find: impl FnOnce() -> Option<Room>) -> Option<Room> {
        self.count_beside(&mut Booking::default(), find)
    }

    /// The same, and what was booked before and is not visible yet is booked anew.
    fn count_beside(&self, booking: &mut Booking, find: impl FnOnce() -> Option<Room>) -> Option<Room> {
        let ((), before) = self.ledger.change(|figures| figures.begun += 1);
        let found = find()?;
        // What came while it was counted may have been counted or not: rather twice than never. What went may have been or
        // not, too: it must not make up for what came.
        let (since, after) = self.ledger.change(|figures| {
            let since = figures.booked.minus(before.booked);
            figures.room = found.plus(since);
            figures.completed += 1;
            figures.book(booking.room);
            since
        });
        booking.begun = after.begun;
        self.publish(after.room);
        Some(since)
    }

    fn found(&self) -> Option<Room> {
        let (mut found, known, since) = (Room::default(), self.ledger.last().room, self.folders.begin_count());
        let walked = self.inventory.walk(&mut |_, metadata| {
            found = found.plus(Room::of(metadata.len()));
            !self.stopping.load(Ordering::Relaxed)
        });
        if self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        self.folders.counted(walked, since);
        self.look_at_volume();
        // What could not be read is there all the same.
        Some(if walked.is_whole { found } else { found.or_more(known) })
    }

    /// Ends a count that is under way, without a result.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Books room for what is about to become visible, and evicts until there is some.
    ///
    /// # Errors
    /// There is none, like on a full disk: nothing is booked.
    pub(super) fn reserve(&self, incoming: Room) -> io::Result<Booking> {
        self.reserve_by(incoming, &|path| fs::remove_file(path), false)
    }

    /// The same for files whose folders are made with them.
    ///
    /// # Errors
    /// As [`Usage::reserve`].
    pub(super) fn reserve_with(&self, incoming: Room, folders: &Lacking) -> io::Result<Booking> {
        self.reserve(incoming.plus(folders.room()))
    }

    /// To be told when they are visible, as [`Usage::settle`] is: what folders take is in no figure, and is not left to files.
    pub(super) fn settle_with(&self, booking: Booking, surplus: Room, folders: &Lacking) {
        self.folders.made(folders);
        self.settle(booking, surplus.plus(folders.room()));
    }

    /// Evicts as much as would have let something in that did not fit the volume, so that the next one does. What is the cache's own
    /// is all that helps: where others fill the volume, and the cache is far below its limit, nothing goes. Blocks.
    pub(super) fn make_way(&self, room: Room) {
        // The reason was told if there is none.
        if let Ok(booking) = self.reserve_by(room, &|path| fs::remove_file(path), true) {
            self.settle(booking, room);
        }
    }

    /// The room is booked first, and the ledger is not locked while files are removed: that takes minutes where a volume is slow,
    /// and other processes have room to book too.
    fn reserve_by(&self, incoming: Room, remove: Remove<'_>, has_failed: bool) -> io::Result<Booking> {
        let volume = self.look_at_volume();
        if volume.as_ref().is_some_and(Volume::is_read_only) {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the cache's volume is read-only: see the node's log"));
        }
        let lacks_files = volume.as_ref().is_some_and(|volume| self.lacks_files(volume, incoming));
        let is_full = lacks_files || volume.as_ref().is_some_and(Volume::is_full);
        let mut booking = self.book(incoming);
        if !self.is_above_limit() && (has_failed || is_full) {
            self.doubt(&mut booking);
        }
        let mut made = if self.is_above_limit() { self.make_room(&mut booking, remove) } else { Ok(()) };
        if made.is_ok() && self.is_above_limit() {
            made = Err(no_room("nothing is left that can be evicted, and the cache is above its limit: raise it"));
        }
        if let (Ok(()), Some(volume)) = (&made, volume.filter(|_| lacks_files)) {
            made = self.make_files(&volume, &mut booking, remove);
        }
        if let Err(error) = made {
            self.settle(booking, incoming);
            if error.kind() == io::ErrorKind::StorageFull && !self.refused.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, limit = self.limit(), "what is new is not kept");
            }
            return Err(error);
        }
        self.refused.store(false, Ordering::Relaxed);
        self.publish(self.ledger.last().room);
        Ok(booking)
    }

    /// To be told when what was booked is visible. `surplus` is free again: what did not become visible after all, or took
    /// another's place.
    pub(super) fn settle(&self, booking: Booking, surplus: Room) {
        let settle = |figures: &mut Figures| {
            // A count that began meanwhile may have looked before there was anything to see: rather twice than never.
            if figures.begun != booking.begun {
                figures.book(booking.room);
            }
            figures.room = figures.room.minus(surplus);
        };
        self.publish(self.ledger.change(settle).1.room);
    }

    fn book(&self, room: Room) -> Booking {
        let begun = self.ledger.change(|figures| figures.book(room)).1.begun;
        Booking { room, begun }
    }

    /// Gives back the room of files that were there when so many counts were completed. Returns how many are by now.
    fn release(&self, freed: Room, completed: u64) -> u64 {
        let release = |figures: &mut Figures| {
            // A count that was completed meanwhile may have missed them already: rather twice than never.
            if figures.completed == completed {
                figures.room = figures.room.minus(freed);
            }
        };
        let ((), figures) = self.ledger.change(release);
        self.publish(figures.room);
        figures.completed
    }

    /// Gives a file that is about to appear under its path its time and its first count of uses.
    pub(super) fn stamp_new(&self, temp: &Path, path: &Path) {
        let came_back = self.ghosts().knows(path);
        if let Err(error) = File::open(temp).and_then(|file| stamp(&file, u32::from(came_back))) {
            tracing::debug!(%error, "can't set the time of a new object");
        }
    }

    fn tmp(&self) -> PathBuf {
        self.inventory.root().join(STATE_DIR).join("tmp")
    }

    fn is_above_limit(&self) -> bool {
        self.ledger.last().room.bytes > self.limit()
    }

    /// What was allowed, but no more than the volume has: a claim may be smaller than was asked for.
    fn limit(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed).min(self.volume.load(Ordering::Relaxed))
    }

    fn publish(&self, room: Room) {
        self.metrics.cache_bytes.set(to_gauge(room.bytes));
        self.metrics.cache_objects.set(to_gauge(room.objects));
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Instant, Room)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubted(&self) -> MutexGuard<'_, Option<Instant>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_vain(&self) -> MutexGuard<'_, Option<Instant>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ghosts(&self) -> MutexGuard<'_, Ghosts> {
        self.ghosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_room(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, why)
}

fn share(limit: u64, part: f64) -> u64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a limit")]
    let share = (limit as f64 * part) as u64;
    share
}

fn to_gauge(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
