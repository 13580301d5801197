//! A file that is written by one download and read by many answers at the same time.
//!
//! The last [`HELD_BACK`] bytes are shown to nobody before the verdict on the whole: what is wrong is never complete at a
//! client, and one that gets an incomplete body fails instead of believing it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tempfile::TempPath;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::new_temp;
use super::reader::Reader;
use super::trouble::Trouble;
use crate::budget::{Budget, Share};

/// How many bytes wait for the verdict. A file that is not longer is not shown at all before it.
pub const HELD_BACK: u64 = 64 << 10;

/// For all downloads together, when the volume takes nothing: few zips are longer than some megabytes, and a full disk must not fill
/// the memory as well.
pub(super) const MAX_MEMORY: u64 = 256 << 20;

/// How far a download has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The whole length, if the upstream said so.
    pub length: Option<u64>,
    /// Bytes on disk.
    pub written: u64,
    /// The verdict: `true` means whole and verified. Nothing is written after it.
    pub end: Option<bool>,
}

impl Progress {
    /// How many bytes may be shown now.
    #[must_use]
    pub fn visible(&self) -> u64 {
        if self.end == Some(true) {
            return self.written;
        }
        // A client that was told the length takes so many bytes for the whole, whatever follows them.
        self.written.min(self.length.unwrap_or(u64::MAX)).saturating_sub(HELD_BACK)
    }

    /// Whether so many bytes more are more than the length.
    #[must_use]
    pub fn is_exceeded_by(&self, more: u64) -> bool {
        self.length.is_some_and(|length| self.written.saturating_add(more) > length)
    }

    /// Whether as many bytes are here as were promised, if any were.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.length.is_none_or(|length| length == self.written)
    }
}

/// A temporary file that grows. Dropping the last handle removes it, unless it was committed.
///
/// It is made with the first bytes. When its volume can't take more it moves to memory: then it passes through to whoever
/// waits, and is never kept.
#[derive(Debug)]
pub struct Growing {
    /// The folder on the volume.
    folder: PathBuf,
    memory: Arc<Budget>,
    trouble: Arc<Trouble>,
    /// What the readers have. Not below the lock of `place`: no reader waits for a write.
    file: ArcSwap<File>,
    /// Locked for as long as the disk takes, so never on an async thread.
    place: Mutex<Place>,
    progress: watch::Sender<Progress>,
    /// Whether a client has bytes of it.
    shown: Mutex<bool>,
    /// Since when a client waits for it.
    wanted: watch::Sender<Option<Instant>>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Place {
    /// There are none.
    Nowhere,
    Volume(TempPath),
    Memory(Share),
}

impl Growing {
    /// Does not touch the volume.
    pub(super) fn new(folder: PathBuf, memory: Arc<Budget>, trouble: Arc<Trouble>) -> io::Result<Self> {
        Ok(Self {
            folder,
            memory,
            trouble,
            // Empty, as the download is.
            file: ArcSwap::from_pointee(in_memory()?),
            place: Mutex::new(Place::Nowhere),
            progress: watch::Sender::default(),
            shown: Mutex::default(),
            wanted: watch::Sender::default(),
        })
    }

    /// The open file, for reading. It is another one after the first bytes and after a move, with the same bytes.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        self.file.load_full()
    }

    /// Reads from the beginning, without moving any other reader.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.file())
    }

    /// Where it lies until it is committed; nowhere if the volume could not take it. Blocks.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match &*self.place() {
            Place::Volume(path) => Some(path.to_path_buf()),
            Place::Nowhere | Place::Memory(_) => None,
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the progress.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Notes that a client waits for it.
    pub fn want(&self) {
        self.wanted.send_if_modified(|since| since.replace(since.unwrap_or_else(Instant::now)).is_none());
    }

    /// Whether a client waits for it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted_since().is_some()
    }

    /// Since when a client waits for it.
    #[must_use]
    pub fn wanted_since(&self) -> Option<Instant> {
        *self.wanted.borrow()
    }

    /// Waits until a client waits for it.
    pub async fn wanted(&self) {
        let mut wanted = self.wanted.subscribe();
        // The sender is here, so it can't be closed.
        drop(wanted.wait_for(Option::is_some).await);
    }

    /// Asks to show it to a client: `false` while there is nothing to show. From then on it can't be taken back.
    #[must_use]
    pub fn show(&self) -> bool {
        let mut shown = self.shown();
        *shown |= self.progress().visible() > 0;
        *shown
    }

    fn shown(&self) -> MutexGuard<'_, bool> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the whole length that the upstream promised. `false`: a client was promised another one, and would take the
    /// beginning of a longer file for the whole; or there are more bytes already.
    #[must_use]
    pub fn promise(&self, length: Option<u64>) -> bool {
        let shown = self.shown();
        let now = self.progress();
        if length.is_some_and(|length| length < now.written) {
            return false;
        }
        let before = now.length.filter(|_| *shown);
        if before.is_some() {
            return length.is_none() || length == before;
        }
        self.progress.send_modify(|progress| progress.length = length);
        true
    }

    /// Appends.
    ///
    /// # Errors
    /// The volume's, if there is no room in memory either.
    pub async fn append(self: &Arc<Self>, pieces: Vec<Bytes>) -> io::Result<()> {
        self.aside(move |this| {
            let end = this.write(&pieces, this.progress().written)?;
            this.progress.send_modify(|progress| progress.written = end);
            Ok(())
        })
        .await
    }

    /// Forgets what was written, unless a client has some of it: then it returns `false`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn restart(self: &Arc<Self>) -> io::Result<bool> {
        match self.take_back() {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(_) => self.aside(Self::clear).await.map(|()| true),
        }
    }

    /// From here on there is nothing to show. Returns how much there was; nothing, if a client has some of it.
    fn take_back(&self) -> Option<u64> {
        let shown = self.shown();
        let Progress { written, .. } = self.progress();
        (!*shown).then(|| {
            self.progress.send_modify(|progress| (progress.written, progress.length) = (0, None));
            written
        })
    }

    /// Tells the readers the verdict.
    pub fn end(&self, verified: bool) {
        self.progress.send_modify(|progress| progress.end = Some(verified));
    }

    /// Works off the async threads: a page cache under pressure blocks its writers.
    async fn aside(self: &Arc<Self>, work: impl FnOnce(&Self) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&this)).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Writes at the end, in memory if the volume can't. Returns the new end.
    fn write(&self, pieces: &[Bytes], written: u64) -> io::Result<u64> {
        let mut place = self.place();
        match self.write_to(&mut place, pieces, written) {
            Err(error) if !matches!(*place, Place::Memory(_)) => {
                self.trouble.note();
                tracing::warn!(%error, "can't write the volume; a zip passes through memory");
                *place = self.move_to_memory(written)?;
                self.write_to(&mut place, pieces, written)
            }
            result => result,
        }
    }

    fn write_to(&self, place: &mut Place, pieces: &[Bytes], mut offset: u64) -> io::Result<u64> {
        match place {
            Place::Nowhere => {
                let (file, path) = new_temp(&self.folder)?;
                self.file.store(Arc::new(file));
                *place = Place::Volume(path);
            }
            Place::Volume(_) => {}
            Place::Memory(share) => grow(share, pieces.iter().map(|piece| piece.len() as u64).sum())?,
        }
        let file = self.file();
        for piece in pieces {
            file.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(offset)
    }

    fn move_to_memory(&self, written: u64) -> io::Result<Place> {
        let mut share = Share::of(&self.memory);
        grow(&mut share, written)?;
        let file = in_memory()?;
        // The new file's own position is used by nobody else.
        io::copy(&mut self.reader().take(written), &mut &file)?;
        self.file.store(Arc::new(file));
        Ok(Place::Memory(share))
    }

    fn clear(&self) -> io::Result<()> {
        if let Place::Memory(share) = &mut *self.place() {
            share.give_back();
        }
        self.file().set_len(0)
    }
}

fn grow(share: &mut Share, bytes: u64) -> io::Result<()> {
    if share.grow(bytes) {
        return Ok(());
    }
    let text = format!("neither the volume nor the {} MiB of memory set aside for zips has room", MAX_MEMORY >> 20);
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

fn in_memory() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("zip", rustix::fs::MemfdFlags::CLOEXEC)?))
}

/// A download that is dropped without a verdict has failed; its readers must not wait for ever.
impl Drop for Growing {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.end = progress.end.or(Some(false)));
        let place = std::mem::replace(self.place.get_mut().unwrap_or_else(PoisonError::into_inner), Place::Nowhere);
        // The last who has it may be an async thread, and removing a file takes as long as the disk takes.
        if let (Place::Volume(path), Ok(runtime)) = (place, Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(path)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
