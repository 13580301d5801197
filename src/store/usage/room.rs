//! Making room. The walk for what may go comes by all that is there, and so shows whether the figure is right: someone may have
//! removed files by hand, or brought some.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::{BELIEVED_FOR, Booking, LOW_WATERMARK, Remove, Usage, no_room, share, to_gauge};
use crate::store::eviction::{Object, in_order};
use crate::store::inventory::{Class, Stock, is_hash, is_orphan};
use crate::store::is_exhausted;
use crate::store::ledger::Room;
use crate::store::temporary::{new_temp, remove_abandoned};
use crate::store::volume::Volume;

/// The newest objects that were never used again are spared as long as they are less than this share of the limit.
const PROBATION: f64 = 0.1;
/// A figure that is wrong by more than this share of the limit is put right.
const DRIFT: f64 = 0.05;
/// The files of a volume are scarce when fewer are left than one in so many, beside what is to come.
const FEW: u64 = 50;
/// Of those, one in so many is made free then.
const FREED: u64 = 20;
/// The other processes hear of what is evicted each time when it is this share of the limit.
const STEP: f64 = 0.01;

impl Usage {
    /// The volume is full, and the cache is below its limit: the figure may be wrong, or it is others who fill the volume.
    pub(super) fn doubt(&self, booking: &mut Booking) {
        let mut doubted = self.doubted();
        if doubted.is_some_and(|since| since.elapsed() < BELIEVED_FOR) {
            return;
        }
        *doubted = Some(Instant::now());
        drop(doubted);
        // What is no object is not counted.
        remove_abandoned(&self.tmp());
        self.count_beside(booking, || self.found());
    }

    /// Evicts until there is some room to spare, unless what must be kept leaves none: to evict the rest would change nothing.
    pub(super) fn make_room(&self, booking: &mut Booking, remove: Remove<'_>) -> io::Result<()> {
        let target = share(self.limit(), LOW_WATERMARK);
        let incoming = booking.room;
        let is_hopeless = |kept: Room| kept.plus(incoming).bytes > target;
        let refusal = || no_room("what must be kept leaves no room below the cache's limit: raise it");
        // The batch before this one was refused a moment ago.
        if self.kept().is_some_and(|(since, kept)| since.elapsed() < BELIEVED_FOR && is_hopeless(kept)) {
            return Err(refusal());
        }
        for class in [Class::Zip, Class::Small, Class::PrivateZip] {
            if self.ledger.last().room.bytes <= target {
                break;
            }
            let stock = self.take_stock(class, booking);
            *self.kept() = Some((Instant::now(), stock.kept));
            if is_hopeless(stock.kept) {
                // By the count there may be room without eviction.
                return if self.is_above_limit() { Err(refusal()) } else { Ok(()) };
            }
            self.evict(class, stock.objects, Room { bytes: target, objects: u64::MAX }, remove)?;
        }
        Ok(())
    }

    /// Whether the file system has next to no files left for what comes, however many bytes it has.
    pub(super) fn lacks_files(&self, volume: &Volume, incoming: Room) -> bool {
        let (all, left) = volume.files();
        // One that says that none are left may mean nothing by it.
        let is_true = || left > 0 || new_temp(&self.tmp()).is_err_and(|error| is_exhausted(&error));
        all > 0 && left < (all / FEW).saturating_add(incoming.objects) && is_true()
    }

    /// Evicts where the file system lacks files: what has most of them first. Where they are others' files, nothing goes.
    pub(super) fn make_files(&self, volume: &Volume, booking: &mut Booking, remove: Remove<'_>) -> io::Result<()> {
        let (all, _) = volume.files();
        let objects = self.ledger.last().room.objects;
        // The folders of a module are files as well, as many as three for one object.
        if objects < all / 4 || self.in_vain().is_some_and(|since| since.elapsed() < BELIEVED_FOR) {
            return Ok(());
        }
        let target = objects.saturating_sub((all / FREED).saturating_add(booking.room.objects));
        let target = Room { bytes: u64::MAX, objects: target };
        for class in [Class::Small, Class::Zip, Class::PrivateZip] {
            if self.ledger.last().room.is_within(target) {
                return Ok(());
            }
            let stock = self.take_stock(class, booking);
            self.evict(class, stock.objects, target, remove)?;
        }
        if !self.ledger.last().room.is_within(target) {
            *self.in_vain() = Some(Instant::now());
        }
        Ok(())
    }

    /// Finds the objects of a class. A figure that is far from what was found on the way is put right: by a count of its own, since
    /// what another process has booked and not made visible was not found.
    pub(super) fn take_stock(&self, class: Class, booking: &mut Booking) -> Stock {
        let since = self.folders.begin_count();
        let stock = self.inventory.objects(class);
        self.folders.counted(stock.walked, since);
        let found = stock.found.plus(booking.room).bytes;
        if stock.walked.is_whole && self.ledger.change(|figures| figures.room.bytes).0.abs_diff(found) > share(self.limit(), DRIFT) {
            self.count_beside(booking, || self.found());
        }
        stock
    }

    /// Removes objects of a class until no more than `target` is left. Another process may be doing so too.
    ///
    /// # Errors
    /// The volume is read-only.
    fn evict(&self, class: Class, objects: Vec<Object>, target: Room, remove: Remove<'_>) -> io::Result<()> {
        let (mut failed, mut first): (u64, Option<(io::Error, PathBuf)>) = (0, None);
        let (mut evicted, mut freed, mut completed) = (0_u64, Room::default(), self.ledger.last().completed);
        for object in in_order(objects, share(self.limit(), PROBATION)) {
            if self.ledger.last().room.minus(freed).is_within(target) {
                break;
            }
            if class == Class::Small && is_hash(&object.path) && !is_orphan(&object.path) {
                continue;
            }
            // The zip before its hash: a visible zip always has one.
            match remove(&object.path) {
                Ok(()) => {}
                // Another process was faster, and gives back the room.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    failed += 1;
                    // Nor can any other be removed.
                    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
                        first = Some((error, object.path));
                        break;
                    }
                    first.get_or_insert((error, object.path));
                    continue;
                }
            }
            let mut room = Room::of(object.size);
            let hash_file = object.path.with_extension("ziphash");
            if class != Class::Small && remove(&hash_file).is_ok() {
                room = room.plus(Room::of(1));
            }
            self.folders.removed(self.inventory.remove_empty_folders(&object.path));
            self.metrics.evictions.inc();
            self.metrics.evicted_bytes.inc_by(room.bytes);
            self.metrics.evicted_age.set(to_gauge(object.age()));
            self.ghosts().remember(&object.path);
            evicted += 1;
            freed = freed.plus(room);
            if freed.bytes >= share(self.limit(), STEP) {
                completed = self.release(std::mem::take(&mut freed), completed);
            }
        }
        self.release(freed, completed);
        if evicted > 0 {
            tracing::info!(evicted, "evicted objects to make room");
        }
        let Some((error, path)) = first else { return Ok(()) };
        tracing::warn!(%error, path = %path.display(), failed, "can't evict");
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem { Err(error) } else { Ok(()) }
    }
}
