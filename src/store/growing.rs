//! A file that is written by one download and read by many answers at the same time.
//!
//! The last [`HELD_BACK`] bytes are shown to nobody before the verdict on the whole: what is wrong is never complete at a
//! client, and one that gets an incomplete body fails instead of believing it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tempfile::TempPath;
use tokio::sync::watch;

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
        if self.end == Some(true) { self.written } else { self.written.saturating_sub(HELD_BACK) }
    }
}

/// A temporary file that grows. Dropping the last handle removes it, unless it was committed.
#[derive(Debug)]
pub struct Growing {
    file: Arc<File>,
    path: TempPath,
    progress: watch::Sender<Progress>,
    /// Whether a client has bytes of it.
    shown: Mutex<bool>,
}

impl Growing {
    pub(super) fn new(file: File, path: TempPath) -> Self {
        Self { file: Arc::new(file), path, progress: watch::Sender::default(), shown: Mutex::default() }
    }

    /// The open file, for reading.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Where it lies until it is committed.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
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

    /// Sets the whole length that the upstream promised.
    pub fn promise(&self, length: Option<u64>) {
        self.progress.send_modify(|progress| progress.length = length);
    }

    /// Appends, off the async threads: a page cache under pressure blocks its writers.
    ///
    /// # Errors
    /// The disk's.
    pub async fn append(self: &Arc<Self>, pieces: Vec<Bytes>) -> io::Result<()> {
        let this = Arc::clone(self);
        let write = tokio::task::spawn_blocking(move || {
            let mut offset = this.progress().written;
            for piece in &pieces {
                this.file.write_all_at(piece, offset)?;
                offset += piece.len() as u64;
            }
            this.progress.send_modify(|progress| progress.written = offset);
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
        self.file.set_len(0)?;
        self.progress.send_modify(|progress| (progress.written, progress.length) = (0, None));
        Ok(true)
    }

    /// Tells the readers the verdict.
    pub fn end(&self, verified: bool) {
        self.progress.send_modify(|progress| progress.end = Some(verified));
    }
}

/// A download that is dropped without a verdict has failed; its readers must not wait for ever.
impl Drop for Growing {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.end = progress.end.or(Some(false)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn growing(folder: &std::path::Path) -> Arc<Growing> {
        let (file, path) = tempfile::NamedTempFile::new_in(folder).unwrap().into_parts();
        Arc::new(Growing::new(file, path))
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
