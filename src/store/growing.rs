//! A file that is written by one download and read by many answers at the same time.
//!
//! The last [`HELD_BACK`] bytes are shown to nobody before the verdict on the whole: what is wrong is never complete at a
//! client, and one that gets an incomplete body fails instead of believing it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tempfile::TempPath;
use tokio::sync::watch;

use super::memory::{Budget, Share};

/// How many bytes wait for the verdict. A file that is not longer is not shown at all before it.
pub const HELD_BACK: u64 = 64 << 10;

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
/// When its volume can't take more it moves to memory: then it passes through to whoever waits, and is never kept.
#[derive(Debug)]
pub struct Growing {
    place: Mutex<Place>,
    memory: Arc<Budget>,
    progress: watch::Sender<Progress>,
    /// Whether a client has bytes of it.
    shown: Mutex<bool>,
    /// Whether a client waits for it.
    wanted: watch::Sender<bool>,
}

/// Where the bytes are.
#[derive(Debug)]
struct Place {
    file: Arc<File>,
    kind: PlaceKind,
}

#[derive(Debug)]
enum PlaceKind {
    Volume(TempPath),
    Memory(Share),
}

impl Growing {
    pub(super) fn new(file: File, path: TempPath, memory: Arc<Budget>) -> Self {
        Self::at(Place { file: Arc::new(file), kind: PlaceKind::Volume(path) }, memory)
    }

    /// For a volume that can't even take a new file.
    pub(super) fn in_memory(memory: Arc<Budget>) -> io::Result<Self> {
        let place = Place::in_memory(&memory)?;
        Ok(Self::at(place, memory))
    }

    fn at(place: Place, memory: Arc<Budget>) -> Self {
        Self {
            place: Mutex::new(place),
            memory,
            progress: watch::Sender::default(),
            shown: Mutex::default(),
            wanted: watch::Sender::default(),
        }
    }

    /// The open file, for reading. It is another one after a move, with the same bytes.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.place().file)
    }

    /// Reads from the beginning, without moving any other reader.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.file())
    }

    /// Where it lies until it is committed; nowhere if the volume could not take it.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match &self.place().kind {
            PlaceKind::Volume(path) => Some(path.to_path_buf()),
            PlaceKind::Memory(_) => None,
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
        self.wanted.send_replace(true);
    }

    /// Waits until a client waits for it.
    pub async fn wanted(&self) {
        let mut wanted = self.wanted.subscribe();
        // The sender is here, so it can't be closed.
        drop(wanted.wait_for(|wanted| *wanted).await);
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

    /// Appends, off the async threads: a page cache under pressure blocks its writers.
    ///
    /// # Errors
    /// The volume's, if there is no room in memory either.
    pub async fn append(self: &Arc<Self>, pieces: Vec<Bytes>) -> io::Result<()> {
        let this = Arc::clone(self);
        let write = tokio::task::spawn_blocking(move || {
            let written = this.progress().written;
            let end = this.place().take(&pieces, written, &this.memory)?;
            this.progress.send_modify(|progress| progress.written = end);
            Ok(())
        });
        write.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Forgets what was written, unless a client has some of it: then it returns `false`.
    ///
    /// # Errors
    /// The disk's.
    pub fn restart(&self) -> io::Result<bool> {
        let shown = self.shown();
        if *shown {
            return Ok(false);
        }
        self.place().clear()?;
        self.progress.send_modify(|progress| (progress.written, progress.length) = (0, None));
        Ok(true)
    }

    /// Tells the readers the verdict.
    pub fn end(&self, verified: bool) {
        self.progress.send_modify(|progress| progress.end = Some(verified));
    }
}

impl Place {
    fn in_memory(memory: &Arc<Budget>) -> io::Result<Self> {
        let file = rustix::fs::memfd_create("zip", rustix::fs::MemfdFlags::CLOEXEC)?;
        Ok(Self { file: Arc::new(File::from(file)), kind: PlaceKind::Memory(Share::of(memory)) })
    }

    /// Writes at the end, in memory if the volume can't. Returns the new end.
    fn take(&mut self, pieces: &[Bytes], written: u64, memory: &Arc<Budget>) -> io::Result<u64> {
        match self.write(pieces, written) {
            Err(error) if matches!(self.kind, PlaceKind::Volume(_)) => {
                tracing::warn!(%error, "can't write the volume; a zip passes through memory");
                self.move_to_memory(written, memory)?;
                self.write(pieces, written)
            }
            result => result,
        }
    }

    fn write(&mut self, pieces: &[Bytes], mut offset: u64) -> io::Result<u64> {
        if let PlaceKind::Memory(share) = &mut self.kind {
            share.grow(pieces.iter().map(|piece| piece.len() as u64).sum())?;
        }
        for piece in pieces {
            self.file.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(offset)
    }

    fn move_to_memory(&mut self, written: u64, memory: &Arc<Budget>) -> io::Result<()> {
        let mut to = Self::in_memory(memory)?;
        if let PlaceKind::Memory(share) = &mut to.kind {
            share.grow(written)?;
        }
        let mut from = Reader::new(Arc::clone(&self.file)).take(written);
        // The new file's own position is used by nobody else.
        io::copy(&mut from, &mut to.file.as_ref())?;
        *self = to;
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        if let PlaceKind::Memory(share) = &mut self.kind {
            share.give_back();
        }
        self.file.set_len(0)
    }
}

/// Reads a file by position: its handle is shared with others. Buffered, and a seek keeps the buffer: who reads a zip seeks
/// a few bytes ahead four times a file.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    position: u64,
    /// What the file has from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
}

const WINDOW: usize = 64 << 10;

impl Reader {
    fn new(file: Arc<File>) -> Self {
        Self { file, position: 0, window: Vec::new(), window_at: 0 }
    }

    /// What the window has from the position on.
    fn ahead(&self) -> &[u8] {
        let skipped = self.position.checked_sub(self.window_at).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.window.get(skipped..)).unwrap_or_default()
    }

    fn fill(&mut self) -> io::Result<()> {
        self.window.resize(WINDOW, 0);
        let read = self.file.read_at(&mut self.window, self.position);
        // After an error it must hold nothing.
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        self.window_at = self.position;
        read.map(drop)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead().is_empty() {
            self.fill()?;
        }
        let read = self.ahead().read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the beginning"))?;
        Ok(self.position)
    }
}

/// A download that is dropped without a verdict has failed; its readers must not wait for ever.
impl Drop for Growing {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.end = progress.end.or(Some(false)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn growing(folder: &std::path::Path) -> Arc<Growing> {
        let (file, path) = tempfile::NamedTempFile::new_in(folder).unwrap().into_parts();
        Arc::new(Growing::new(file, path, Arc::default()))
    }

    #[tokio::test]
    async fn what_the_volume_cannot_take_moves_to_memory_with_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let growing = growing(folder.path());
        growing.append(vec![Bytes::from_static(b"volume, ")]).await.unwrap();
        let before = growing.file();
        // A handle that can't be written stands for a full disk.
        growing.place().file = Arc::new(File::open(growing.path().unwrap()).unwrap());
        growing.append(vec![Bytes::from_static(b"mem"), Bytes::from_static(b"ory")]).await.unwrap();
        let mut text = String::new();
        growing.reader().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), growing.path()), ("volume, memory", None));
        assert_eq!(before.metadata().unwrap().len(), 8, "who reads the old file loses nothing");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(growing.restart().unwrap());
        assert_eq!(growing.file().metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_reader_gives_the_files_bytes_wherever_it_seeks() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3 * WINDOW as u32).flat_map(u32::to_le_bytes).collect();
        let growing = growing(folder.path());
        growing.file().write_all_at(&bytes, 0).unwrap();
        let (mut reader, mut piece) = (growing.reader(), [0; 9]);
        let window = WINDOW as u64;
        for at in [0, 5, 4, window - 3, window, 2 * window + 1, 7, window + 2, bytes.len() as u64 - 9] {
            reader.seek(SeekFrom::Start(at)).unwrap();
            reader.read_exact(&mut piece).unwrap();
            assert_eq!(piece, bytes[at as usize..][..9], "at {at}");
        }
        assert_eq!(reader.read(&mut piece).unwrap(), 0, "at the end");
        assert_eq!(reader.seek(SeekFrom::Current(-2)).unwrap(), bytes.len() as u64 - 2);
        let mut all = Vec::new();
        growing.reader().read_to_end(&mut all).unwrap();
        assert!(all == bytes);
    }

    #[tokio::test]
    async fn the_length_that_a_client_was_promised_stands() {
        let folder = tempfile::tempdir().unwrap();
        let growing = growing(folder.path());
        assert!(growing.promise(Some(1)) && growing.promise(Some(200_000)));
        growing.append(vec![Bytes::from(vec![1; 100_000])]).await.unwrap();
        assert!(growing.show() && growing.promise(Some(200_000)) && growing.promise(None));
        assert!(!growing.promise(Some(300_000)));
        assert_eq!(growing.progress().length, Some(200_000));
    }

    #[tokio::test]
    async fn a_length_is_not_shorter_than_what_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let growing = growing(folder.path());
        growing.append(vec![Bytes::from(vec![1; 100_000])]).await.unwrap();
        assert!(growing.show() && !growing.promise(Some(99_999)));
        assert_eq!(growing.progress().length, None);
        assert!(growing.promise(Some(100_000)));
    }

    #[tokio::test]
    async fn however_much_follows_the_last_of_the_promised_bytes_wait_for_the_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let growing = growing(folder.path());
        assert!(growing.promise(Some(100_000)));
        growing.append(vec![Bytes::from(vec![1; 300_000])]).await.unwrap();
        assert_eq!(growing.progress().visible(), 100_000 - HELD_BACK);
        growing.end(false);
        assert_eq!(growing.progress().visible(), 100_000 - HELD_BACK);
    }

    #[tokio::test]
    async fn the_last_bytes_wait_for_the_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let growing = growing(folder.path());
        growing.append(vec![Bytes::from(vec![1; 100_000]), Bytes::from_static(b"x")]).await.unwrap();
        assert_eq!(growing.progress().visible(), 100_001 - HELD_BACK);
        growing.end(true);
        assert_eq!(growing.progress().visible(), 100_001);
    }

    #[tokio::test]
    async fn what_a_client_has_seen_is_not_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let growing = growing(folder.path());
        let long = Bytes::from(vec![1; 100_000]);
        growing.append(vec![long.clone()]).await.unwrap();
        assert!(growing.restart().unwrap() && !growing.show());
        growing.append(vec![long]).await.unwrap();
        assert!(growing.show() && !growing.restart().unwrap());
    }
}
