//! Objects on disk. The layout is that of `GOMODCACHE/cache/download`, so the folder is also a `file://` GOPROXY; one
//! more folder, `.gomodcache/`, holds what Go has no place for. Every object appears whole, by rename, after a sync.
//! Two processes may have the same folder open: nothing here needs exclusivity.

mod commit;
mod eviction;
mod growing;
mod inventory;
mod ledger;
mod open;
mod quarantined;
mod reader;
mod scrub;
mod suspects;
mod temporary;
mod tiles;
mod trouble;
mod usage;
mod volume;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use commit::First;
pub use eviction::USE_INTERVAL;
pub use growing::{Growing, HELD_BACK, Progress};
pub use scrub::{Finding, Observer, Report, Scrub};
pub use suspects::{Fate, Large};
pub use tiles::kept_tile;

use crate::budget::Budget;
use crate::gomod::semver::compare_for_list;
use crate::gomod::{ModulePath, Patterns, Request, Version};
use crate::report::StorageTrouble;
use crate::telemetry::Metrics;
use commit::{Commit, Committer, Content};
use open::Root;
use suspects::Suspects;
use temporary::new_temp;
use trouble::Trouble;
use usage::Usage;

/// The folder for our own state, below the cache's root.
const STATE_DIR: &str = ".gomodcache";
/// More than any file of our own has: a list of versions is the longest, with the line that says who gave it.
const MAX_STATE: u64 = (16 << 20) + (1 << 10);

/// A cache folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Root>,
    usage: Arc<Usage>,
    committer: Arc<Committer>,
    /// For zips that the volume has no room for.
    memory: Arc<Budget>,
    trouble: Arc<Trouble>,
    suspects: Arc<Suspects>,
    /// Keeps other processes from removing our temporary files.
    _in_use: Arc<Option<File>>,
    metrics: Arc<Metrics>,
}

/// An object that is on disk.
#[derive(Debug)]
pub enum Object {
    /// Read whole.
    Small(Bytes),
    /// Longer than was to be read at once.
    Large(Large),
}

impl Store {
    /// Opens a folder, creates what is missing, removes temporary files whose process has gone and starts the thread that
    /// commits. `limit` is in bytes.
    ///
    /// # Errors
    /// The folder can't be created or written.
    pub fn open(root: &Path, limit: Option<u64>, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let tmp = root.join(STATE_DIR).join("tmp");
        if let Err(error) = fs::create_dir_all(&tmp)
            && !(is_exhausted(&error) && root.is_dir())
        {
            return Err(error);
        }
        let in_use = temporary::take_over(&tmp);
        // A folder that is not ours is found out now and not at the first download. A volume that is full or has become
        // read-only has hits to serve.
        match new_temp(&tmp) {
            Err(error) if is_exhausted(&error) => tracing::error!(%error, "can't write the volume; nothing new will be kept"),
            written => drop(written?),
        }
        let usage = Arc::new(Usage::new(root.to_owned(), limit, Arc::clone(metrics)));
        let trouble = Arc::<Trouble>::default();
        let committer = Arc::new(Committer::start(tmp, Arc::clone(&usage), Arc::clone(&trouble))?);
        Ok(Self {
            root: Arc::new(Root::open(root)?),
            usage,
            committer,
            memory: Budget::new(growing::MAX_MEMORY),
            trouble,
            suspects: Arc::default(),
            _in_use: Arc::new(in_use),
            metrics: Arc::clone(metrics),
        })
    }

    /// Changes the limit, in bytes. The next commit keeps to it.
    pub fn set_limit(&self, limit: Option<u64>) {
        self.usage.set_limit(limit);
    }

    /// Says which modules are private: their zips are evicted last.
    pub fn set_private(&self, modules: Patterns) {
        self.usage.set_private(modules);
    }

    /// The cache's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The folder for our own state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.root().join(STATE_DIR)
    }

    /// Where an object of a module lies. Mutable ones are kept apart: in Go's own layout a file `list` names only the
    /// versions that happen to be cached.
    #[must_use]
    pub fn path(&self, request: &Request) -> PathBuf {
        let base = if request.is_immutable() { self.root().to_owned() } else { self.state_dir().join("mutable") };
        base.join(request.escaped())
    }

    /// Where the answers of a checksum database lie. Proven ones are in the folder of a key, `name+hash`; in that of a name
    /// without one they are as they came.
    #[must_use]
    pub fn sumdb_dir(&self, name: &str) -> PathBuf {
        self.state_dir().join("sumdb").join(name)
    }

    /// Reads an object: whole, if it is not longer than `small` bytes, else its handle. Counts the use. Blocks.
    ///
    /// # Errors
    /// The disk's; an object that is not there is `None`, and so is an empty one: no object is, but a power cut leaves such files in a
    /// module cache that a go command filled. One that broke off when it was read last is not there either, once.
    pub fn read(&self, path: &Path, small: u64) -> io::Result<Option<Object>> {
        let Some((mut file, length)) = self.root.file(path)?.filter(|(_, length)| *length > 0) else { return Ok(None) };
        if self.suspects.take(path) {
            return Ok(None);
        }
        note_use(&file);
        if length > small {
            return Ok(Some(Object::Large(Large { file, length, fate: Fate::new(path, &self.suspects) })));
        }
        Ok(Some(Object::Small(whole(&mut file, length)?)))
    }

    /// Opens a file, whose use does not count. Blocks.
    ///
    /// # Errors
    /// The disk's; a file that is not there is `None`.
    pub fn open_uncounted(&self, path: &Path) -> io::Result<Option<File>> {
        Ok(self.root.file(path)?.map(|(file, _)| file))
    }

    /// Opens a file of our own that is locked, and made if there is none. Blocks.
    ///
    /// # Errors
    /// The disk's; something else stands in its place.
    pub fn lock_file(&self, name: &str) -> io::Result<File> {
        open::own_file(&self.state_dir().join(name))
    }

    /// Reads a small file of our own, with the time at which it was written. Its use does not count. Blocks.
    ///
    /// # Errors
    /// The disk's; one that is longer than it may be among them. A file that is not there is `None`.
    pub fn read_state(&self, path: &Path) -> io::Result<Option<(Bytes, SystemTime)>> {
        let Some((mut file, length)) = self.root.file(path)? else { return Ok(None) };
        if length > MAX_STATE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is longer than it may be", path.display())));
        }
        let written = file.metadata()?.modified()?;
        Ok(Some((whole(&mut file, length)?, written)))
    }

    /// Counts a use of an object that was answered from memory. Blocks.
    pub fn count_use(&self, path: &Path) {
        // An evicted object may live on in memory; it has no time to set.
        if let Ok(Some((file, _))) = self.root.file(path) {
            note_use(&file);
        }
    }

    /// A new temporary file on the same file system as the objects, as soon as it has bytes; in memory, if that can't be written.
    ///
    /// # Errors
    /// No more files can be opened.
    pub fn growing(&self) -> io::Result<Growing> {
        Growing::new(self.state_dir().join("tmp"), Arc::clone(&self.memory), Arc::clone(&self.trouble))
    }

    /// Makes visible what is queued, and takes nothing more. Blocks for as long as the disk needs.
    pub fn end(&self) {
        self.committer.end();
    }

    /// Waits until the disk has caught up with earlier downloads. To be awaited before the next one begins.
    pub async fn caught_up(&self) {
        self.committer.caught_up().await;
    }

    /// Makes a small object visible under a path, if it is what was seen `first`, where that must be so. Returns when it is.
    ///
    /// # Errors
    /// It could not be written, synced or renamed, or is not what was seen first ([`io::ErrorKind::InvalidData`]); nothing new is
    /// visible then.
    pub async fn commit_bytes(&self, bytes: Bytes, first: Option<First>, to: PathBuf) -> io::Result<()> {
        self.commit(Content::Bytes(bytes, None), first, to).await
    }

    /// Makes a small object visible some time soon, if the disk keeps up: for what can be fetched again. Does not wait.
    pub fn commit_later(&self, bytes: Bytes, to: PathBuf) {
        self.send_later(Content::Bytes(bytes, None), to);
    }

    /// The same, unless what is there may stay. No other process with this volume changes it between the look and the change.
    pub fn commit_later_unless(&self, bytes: Bytes, to: PathBuf, may_stay: impl Fn(&[u8]) -> bool + Send + 'static) {
        self.send_later(Content::Bytes(bytes, Some(Box::new(may_stay))), to);
    }

    fn send_later(&self, content: Content, to: PathBuf) {
        let (done, _nobody_waits) = oneshot::channel();
        let file = to.clone();
        if let Err(error) = self.send(Commit { content, to, first: None, done }) {
            tracing::warn!(%error, file = %file.display(), "not kept");
        }
    }

    fn send(&self, commit: Commit) -> io::Result<()> {
        self.committer.send(commit).inspect_err(|_| self.trouble.note())
    }

    /// Makes a verified zip visible, its hash before it: a visible zip always has its `.ziphash`.
    ///
    /// # Errors
    /// As [`Store::commit_bytes`].
    pub async fn commit_zip(&self, zip: Arc<Growing>, h1: String, first: Option<First>, to: PathBuf) -> io::Result<()> {
        self.commit(Content::Zip(zip, h1), first, to).await
    }

    async fn commit(&self, content: Content, first: Option<First>, to: PathBuf) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let result = match self.send(Commit { content, to, first, done }) {
            Ok(()) => result.await.unwrap_or_else(|_| Err(io::Error::other("the committing thread has ended"))),
            Err(error) => Err(error),
        };
        result.inspect_err(|_| self.metrics.uncached.inc())
    }

    /// Why nothing new is kept, if that is so: seen at a failed write, and looked at again now. Blocks.
    #[must_use]
    pub fn trouble(&self) -> Option<StorageTrouble> {
        let of_volume = self.trouble.look(&self.state_dir().join("tmp"));
        of_volume.or_else(|| self.usage.is_refusing().then_some(StorageTrouble::Limit))
    }

    /// The tagged versions of a module whose `.info` is here, for a list without an upstream.
    #[must_use]
    pub fn cached_versions(&self, module: &ModulePath) -> Vec<String> {
        versions_in(&self.root().join(module.escaped()).join("@v"))
    }

    /// Whether anything was ever kept of a module. Blocks.
    #[must_use]
    pub fn has_known(&self, module: &ModulePath) -> bool {
        let state = self.state_dir();
        let folders = [self.root().to_owned(), state.join("mutable"), state.join("first-seen")].map(|base| base.join(module.escaped()));
        folders.iter().any(|folder| folder.join("@v").exists() || folder.join("@latest").exists())
    }
}

fn whole(file: &mut File, length: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

fn note_use(file: &File) {
    if let Err(error) = eviction::count_use(file) {
        tracing::debug!(%error, "can't count the use of an object");
    }
}

/// Whether a volume takes no more, and may still be read.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem)
}

/// The tagged versions that have an `.info` file in a folder `@v`, in their order. One that a power cut left empty is none.
#[must_use]
pub fn versions_in(folder: &Path) -> Vec<String> {
    let mut versions: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = Version::from_escaped(name.to_str()?.strip_suffix(".info")?).ok()?;
            let is_listed = version.is_canonical() && !version.is_pseudo() && entry.metadata().is_ok_and(|file| file.len() > 0);
            is_listed.then(|| version.as_str().to_owned())
        })
        .collect();
    versions.sort_by(|a, b| compare_for_list(a, b));
    versions
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
