//! Making objects visible: one thread that syncs what arrived together and then renames it.
//!
//! A rename before the sync could, after a power cut, leave a name with a torn file. So every batch is: write, sync, rename,
//! sync the folders. A download's answers do not wait for it; the next download waits when the disk falls behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tempfile::TempPath;
use tokio::sync::{oneshot, watch};

use super::Growing;
use super::ledger::Room;
use super::trouble::Trouble;
use super::usage::{Lacking, Usage};
use answers::{Answers, Asker};
pub use first::First;
use place::{Lock, place, place_unless};

mod answers;
mod first;
mod place;

/// What arrives within this time of each other shares its syncs.
const GROUP: Duration = Duration::from_millis(100);
/// However much arrives, the first of a group waits no longer. While a client asks for one go.mod file after another the core is
/// needed for these; it has time for the disk when the client unpacks its zips.
const LONGEST: Duration = Duration::from_secs(1);
const MAX_GROUP: usize = 1_024;
/// From this many files on, one sync of the file system is cheaper than one a file.
const MANY: usize = 8;
/// As many commits may wait. What comes then is not kept: memory is bounded, and whoever asked has it.
const QUEUE: usize = 4096;
/// More than this many commits waiting hold up the next download: the disk is slower than the network.
const BEHIND: usize = QUEUE / 2;
/// How long a download waits for a disk that has fallen behind.
const PATIENCE: Duration = Duration::from_secs(20);
/// A tenth of the share that the other threads have of a busy processor.
const NICE: i32 = 10;

/// An object that is to become visible.
pub(super) struct Commit {
    pub(super) content: Content,
    pub(super) to: PathBuf,
    pub(super) first: Option<First>,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// Whether what is there may stay.
pub(super) type MayStay = Box<dyn Fn(&[u8]) -> bool + Send>;

pub(super) enum Content {
    /// A small object. It may take the place only of what may not stay.
    Bytes(Bytes, Option<MayStay>),
    /// A verified zip and its hash: the `.ziphash` appears before the zip.
    Zip(Arc<Growing>, String),
}

/// The committing thread. Ending it commits what is queued and waits for that.
#[derive(Debug)]
pub(super) struct Committer {
    /// None at the end.
    queue: ArcSwapOption<mpsc::SyncSender<Commit>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What waits or is being written.
    backlog: watch::Sender<Backlog>,
    /// The backlog of a disk that was waited for in vain.
    stuck: Mutex<Option<Backlog>>,
    /// [`PATIENCE`].
    patience: Duration,
    usage: Arc<Usage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Backlog {
    bytes: u64,
    commits: usize,
    /// How many the disk has taken, or failed to take.
    done: u64,
}

impl Backlog {
    fn enter(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.commits += 1;
    }

    fn leave(&mut self, bytes: u64, commits: usize) {
        self.refuse(bytes, commits);
        self.done += commits as u64;
    }

    /// What never came to the disk does not show that it goes on.
    fn refuse(&mut self, bytes: u64, commits: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.commits = self.commits.saturating_sub(commits);
    }
}

impl Committer {
    pub(super) fn start(tmp: PathBuf, usage: Arc<Usage>, trouble: Arc<Trouble>) -> io::Result<Self> {
        // A kernel tells each open file once what could not be written since: one that is opened later may not hear of it.
        let volume = File::open(&tmp)?;
        let (queue, commits) = mpsc::sync_channel(QUEUE);
        let backlog = watch::Sender::new(Backlog::default());
        let (account, waiting) = (Arc::clone(&usage), backlog.clone());
        let run = move || {
            give_way();
            while let Some(batch) = next_batch(&commits, account.most_at_once(), GROUP, LONGEST) {
                let (bytes, commits) = (batch.iter().map(Commit::size).sum(), batch.len());
                let (batch, others) = on_volume(batch);
                let mut answers = Answers::new(&trouble);
                if !batch.is_empty() {
                    let folders = Lacking::above(batch.iter().map(|commit| commit.to.as_path()));
                    match account.reserve_with(room_of(&batch), &folders) {
                        Ok(booking) => {
                            let surplus = commit(batch, &tmp, &volume, &account, &mut answers);
                            account.settle_with(booking, surplus, &folders);
                        }
                        Err(error) => batch.into_iter().for_each(|commit| answers.tell(commit.asker(), Err(copy(&error)))),
                    }
                }
                others.iter().for_each(|commit| account.make_way(commit.room()));
                others.into_iter().for_each(|commit| answers.tell(commit.asker(), Err(not_on_volume())));
                waiting.send_modify(|backlog| backlog.leave(bytes, commits));
            }
        };
        let account = Arc::clone(&usage);
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = if usage.is_known() {
            vec![named("count").spawn(move || account.scan())?, named("commit").spawn(run)?]
        } else {
            // A folder that nobody kept an account of may be full already.
            vec![named("commit").spawn(move || {
                account.scan();
                run();
            })?]
        };
        let (queue, threads) = (ArcSwapOption::from_pointee(queue), Mutex::new(threads));
        Ok(Self { queue, threads, backlog, stuck: Mutex::default(), patience: PATIENCE, usage })
    }

    /// Waits until the disk has caught up: what was downloaded and is not committed takes room beyond the limit, and memory.
    pub(super) async fn caught_up(&self) {
        let most = self.usage.most_at_once().bytes * 2;
        let mut backlog = self.backlog.subscribe();
        let is_done = |backlog: &Backlog| backlog.bytes <= most && backlog.commits <= BEHIND;
        let now = *backlog.borrow();
        if is_done(&now) || self.stuck().is_some_and(|stuck| stuck.done == now.done) {
            return;
        }
        // A disk that does not answer must not hold up a build, nor every download of it anew: the limit is what gives way.
        if tokio::time::timeout(self.patience, backlog.wait_for(is_done)).await.is_err() {
            let now = *self.backlog.borrow();
            *self.stuck() = Some(now);
            tracing::warn!(seconds = self.patience.as_secs(), commits = now.commits, "the disk does not catch up; going on");
        }
    }

    /// Commits what is queued and waits for that. Blocks.
    pub(super) fn end(&self) {
        drop(self.queue.swap(None));
        self.usage.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store failed");
            }
        }
    }

    fn stuck(&self) -> MutexGuard<'_, Option<Backlog>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an object, unless the queue is full. Never blocks.
    pub(super) fn send(&self, commit: Commit) -> io::Result<()> {
        let gone = || io::Error::other("the committing thread has ended");
        let size = commit.size();
        if self.usage.can_never_hold(size) {
            return Err(io::Error::other(format!("{size} bytes are more than this cache may hold")));
        }
        self.backlog.send_modify(|backlog| backlog.enter(size));
        let sent = self.queue.load().as_ref().ok_or_else(gone).and_then(|queue| {
            queue.try_send(commit).map_err(|refused| match refused {
                mpsc::TrySendError::Full(_) => io::Error::other(format!("the disk is slow: {QUEUE} objects wait for it")),
                mpsc::TrySendError::Disconnected(_) => gone(),
            })
        });
        if sent.is_err() {
            self.backlog.send_modify(|backlog| backlog.refuse(size, 1));
        }
        sent
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Commit {
    fn asker(self) -> Asker {
        Asker { to: self.to, done: self.done }
    }

    fn size(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes, _) => bytes.len() as u64,
            Content::Zip(growing, _) => growing.progress().written,
        }
    }

    /// On the volume.
    fn room(&self) -> Room {
        let room = Room::of(self.size());
        match &self.content {
            Content::Bytes(..) => room,
            Content::Zip(_, hash) => room.plus(Room::of(hash.len() as u64)),
        }
    }
}

/// Runs this thread when the others leave room: nobody waits for a commit, and every client waits for the others.
fn give_way() {
    let thread = Some(rustix::thread::gettid());
    if let Err(error) = rustix::process::setpriority_process(thread, NICE) {
        tracing::debug!(%error, "can't lower the priority of the committing thread");
    }
}

/// What arrives within `group` of each other, for no longer than `longest`. The last of a batch may be beyond `most`.
fn next_batch(commits: &mpsc::Receiver<Commit>, most: Room, group: Duration, longest: Duration) -> Option<Vec<Commit>> {
    let mut batch = vec![commits.recv().ok()?];
    let mut room = room_of(&batch);
    let until = Instant::now() + longest;
    while batch.len() < MAX_GROUP && room.bytes < most.bytes && room.objects < most.objects {
        match commits.recv_timeout(until.saturating_duration_since(Instant::now()).min(group)) {
            Ok(commit) => {
                room = room.plus(commit.room());
                batch.push(commit);
            }
            Err(_) => break,
        }
    }
    Some(batch)
}

/// What is to become visible, and the zips that passed through memory: they can't be kept.
fn on_volume(batch: Vec<Commit>) -> (Vec<Commit>, Vec<Commit>) {
    batch.into_iter().partition(|commit| !matches!(&commit.content, Content::Zip(growing, _) if growing.path().is_none()))
}

fn room_of(batch: &[Commit]) -> Room {
    batch.iter().fold(Room::default(), |room, commit| room.plus(commit.room()))
}

fn not_on_volume() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the zip did not fit the volume")
}

/// One file on its way: synced, not yet under its name.
struct Staged {
    temp: Temp,
    to: PathBuf,
    unless: Option<MayStay>,
}

enum Temp {
    Own(TempPath),
    /// And where it lies.
    Shared(Arc<Growing>, PathBuf),
}

impl Temp {
    fn path(&self) -> &Path {
        match self {
            Self::Own(path) => path,
            Self::Shared(_, path) => path,
        }
    }
}

/// Returns the room that was booked and is free again: what took another's place, or could not be written.
fn commit(batch: Vec<Commit>, tmp: &Path, volume: &File, usage: &Usage, answers: &mut Answers<'_>) -> Room {
    let mut surplus = Room::default();
    let mut staged = Vec::with_capacity(batch.len());
    for commit in batch {
        let room = commit.room();
        let Commit { content, to, first, done } = commit;
        match stage(content, &to, tmp) {
            Ok(files) => staged.push((files, first, room, Asker { to, done })),
            Err(error) => {
                surplus = surplus.plus(room);
                answers.tell(Asker { to, done }, Err(error));
            }
        }
    }
    let files = || staged.iter().flat_map(|(files, ..)| files);
    let synced = sync(files().map(|f| f.temp.path()), volume);
    let (mut lock, mut folders) = (Lock::new(tmp), BTreeSet::new());
    let mut results = Vec::with_capacity(staged.len());
    for (files, first, room, asker) in staged {
        let result = match &synced {
            Ok(()) => first.map_or(Ok(()), First::stands).and_then(|()| {
                files.into_iter().try_for_each(|file| {
                    surplus = surplus.plus(rename(file, &mut lock, &mut folders, usage)?);
                    Ok(())
                })
            }),
            Err(error) => Err(copy(error)),
        };
        // A hash without its zip may be left: a block that the next count finds.
        surplus = if result.is_err() { surplus.plus(room) } else { surplus };
        results.push((asker, result));
    }
    // The objects are visible and whole; a lost folder entry is a lost second, not a torn file.
    // One that another process has emptied since is gone.
    if let Err(error) = sync(folders.iter().map(PathBuf::as_path).filter(|folder| folder.exists()), volume) {
        tracing::warn!(%error, "can't sync the cache's folders");
    }
    for (asker, result) in results {
        answers.tell(asker, result);
    }
    surplus
}

fn stage(content: Content, to: &Path, tmp: &Path) -> io::Result<Vec<Staged>> {
    match content {
        Content::Bytes(bytes, unless) => Ok(vec![Staged { temp: Temp::Own(write(&bytes, tmp)?), to: to.to_owned(), unless }]),
        Content::Zip(growing, h1) => {
            let path = growing.path().ok_or_else(not_on_volume)?;
            Ok(vec![
                Staged { temp: Temp::Own(write(h1.as_bytes(), tmp)?), to: to.with_extension("ziphash"), unless: None },
                Staged { temp: Temp::Shared(growing, path), to: to.to_owned(), unless: None },
            ])
        }
    }
}

fn write(bytes: &[u8], tmp: &Path) -> io::Result<TempPath> {
    let (mut file, path) = super::new_temp(tmp)?;
    io::Write::write_all(&mut file, bytes)?;
    Ok(path)
}

fn sync<'a>(paths: impl Iterator<Item = &'a Path>, volume: &File) -> io::Result<()> {
    let paths: Vec<&Path> = paths.collect();
    if paths.len() > MANY {
        return Ok(rustix::fs::syncfs(volume)?);
    }
    paths.into_iter().try_for_each(|path| File::open(path)?.sync_all())
}

/// Returns the room of what was there before, or of what was not needed.
fn rename(file: Staged, lock: &mut Lock, folders: &mut BTreeSet<PathBuf>, usage: &Usage) -> io::Result<Room> {
    let Staged { temp, to, unless } = file;
    usage.stamp_new(temp.path(), &to);
    let folder = to.parent().unwrap_or(Path::new("/"));
    let replaced = match unless {
        None => place(temp.path(), &to, folder)?,
        Some(may_stay) => match place_unless(temp.path(), &to, folder, &may_stay, lock)? {
            Some(replaced) => replaced,
            None => return Ok(Room::of(fs::metadata(temp.path())?.len())),
        },
    };
    match temp {
        Temp::Own(path) => drop(path.keep()),
        // The readers' handle stays; its attempt to remove the old name at the end finds nothing.
        Temp::Shared(growing, _) => drop(growing),
    }
    folders.insert(folder.to_owned());
    Ok(replaced)
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
