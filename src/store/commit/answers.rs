//! What became of a batch, told to whoever waits. Where nobody does a failure is logged: if the newest tree of a checksum database can't
//! be kept, the next start does not know it, and takes another one for it.

use std::io;
use std::path::PathBuf;

use tokio::sync::oneshot;

use super::super::trouble::Trouble;

/// Whom to tell of one object.
pub(super) struct Asker {
    pub(super) to: PathBuf,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// The answers of one batch.
pub(super) struct Answers<'a> {
    trouble: &'a Trouble,
    /// The first failure that nobody heard of, and how many there were.
    unheard: Option<(PathBuf, io::Error)>,
    count: usize,
}

impl<'a> Answers<'a> {
    pub(super) fn new(trouble: &'a Trouble) -> Self {
        Self { trouble, unheard: None, count: 0 }
    }

    pub(super) fn tell(&mut self, Asker { to, done }: Asker, result: io::Result<()>) {
        if result.is_err() {
            self.trouble.note();
        }
        if let Err(Err(error)) = done.send(result) {
            self.count += 1;
            self.unheard.get_or_insert((to, error));
        }
    }
}

/// One line, however many files a full disk did not take.
impl Drop for Answers<'_> {
    fn drop(&mut self) {
        if let Some((file, error)) = &self.unheard {
            tracing::error!(%error, file = %file.display(), files = self.count, "can't write the volume; what was seen is not kept");
        }
    }
}
