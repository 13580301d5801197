//! From a request to an answer: from memory, from disk, or by one download however many ask.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Answer, not_found};
use super::download::{Content, Download, Downloads, Reporter};
use super::failures::Failures;
use super::kept::{by, may_change};
use super::labels::Outcome;
use super::live::Live;
use super::memory::{Hot, Memory, SMALL};
use super::verify::{Verdict, Verify};
use crate::config::{LookAhead, WhenUnavailable};
use crate::gomod::{ModulePath, Request, hash_go_mod};
use crate::source::{Chain, Check, FetchError, Fetched, Wanted};
use crate::store::{First, Object, Store};
use crate::sumdb;

/// How long what was answered may take, at the end, to be verified and queued for the disk.
const LAST: Duration = Duration::from_secs(2);
/// How many objects may wait for a verdict; their zips take room beyond the limit.
const MAX_PENDING: usize = 256;
/// When a verdict that was not to be had is asked for again.
const PENDING_PAUSES: [Duration; 5] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(180), Duration::from_secs(300)];

/// No go command asks for the like: it learns from the `.info` of a branch which version that is.
const NOT_CANONICAL: &str = "not found: only versions have a .mod and a .zip; ask for the .info of this name\n";

/// What is done when an object turns out not to be here, before anybody is asked for it.
pub(super) type OnMiss<'a> = &'a (dyn Fn() + Sync);

/// The store, the sources, and the downloads under way.
pub(super) struct Cache {
    pub(super) store: Store,
    pub(super) live: Arc<Live>,
    pub(super) memory: Arc<Memory>,
    downloads: Arc<Downloads>,
    /// Places for objects that wait for a verdict.
    pending: Semaphore,
    pub(super) failures: Failures,
    /// The tasks of the downloads.
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Cache {
    pub(super) fn new(store: Store, live: Arc<Live>, memory: Arc<Memory>) -> Self {
        let (pending, failures) = (Semaphore::new(MAX_PENDING), Failures::default());
        let (downloads, tasks, ending) = (Arc::default(), TaskTracker::new(), CancellationToken::new());
        Self { store, live, memory, downloads, pending, failures, tasks, ending }
    }

    /// Runs a task that is waited for at the end.
    pub(super) fn own(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task));
    }

    /// Lets what was answered be kept, and waits for the disk. What is still being downloaded is given up.
    pub(super) async fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST, self.tasks.wait()).await.is_err() {
            tracing::info!(downloads = self.tasks.len(), "downloads that nobody waits for are given up");
        }
        let store = self.store.clone();
        if tokio::task::spawn_blocking(move || store.end()).await.is_err() {
            tracing::error!("what waited for the disk may be lost");
        }
    }

    /// What memory has for a path as it stands in a request.
    pub(super) fn hot(&self, path: &str, now: Instant) -> Option<Arc<Hot>> {
        let hot = self.memory.get(path, now)?;
        if let Some(file) = hot.use_to_count(now) {
            let (store, file) = (self.store.clone(), file.to_owned());
            // Once an interval and object; nobody waits for it.
            drop(tokio::task::spawn_blocking(move || store.count_use(&file)));
        }
        Some(hot)
    }

    /// Answers a request; `path` is how it was spelled, and how memory will know the answer.
    pub(super) async fn answer(self: &Arc<Self>, request: &Arc<Request>, path: &str, on_miss: OnMiss<'_>) -> (Answer, Outcome) {
        let forgotten = self.memory.forgotten();
        let policy = self.live.policy();
        if let Some(refusal) = policy.refusal(request) {
            return Answer::error(refusal);
        }
        let (answer, outcome) = self.answer_allowed(&policy, request, on_miss).await;
        if let Answer::Hot(hot) = &answer {
            self.memory.insert(path, Arc::clone(hot), forgotten);
        }
        (answer, outcome)
    }

    /// Answers a request from disk or from upstream, whatever the policy says.
    pub(super) async fn look_up(self: &Arc<Self>, request: &Arc<Request>, on_miss: OnMiss<'_>) -> (Answer, Outcome) {
        let (answer, outcome) = match &**request {
            Request::Sumdb(rest) => self.answer_sumdb(request, rest).await,
            Request::Mod(..) | Request::Zip(..) if !request.is_immutable() => Answer::error(not_found(NOT_CANONICAL)),
            _ if request.is_immutable() => self.answer_immutable(request, self.store.path(request), on_miss).await,
            _ => self.answer_mutable(request).await,
        };
        let Answer::Error(error) = &answer else { return (answer, outcome) };
        match self.known_package(request, error).await {
            Some(absent) => Answer::error(absent),
            None => (answer, outcome),
        }
    }

    pub(super) async fn answer_immutable(
        self: &Arc<Self>,
        request: &Arc<Request>,
        file: PathBuf,
        on_miss: OnMiss<'_>,
    ) -> (Answer, Outcome) {
        // What is being fetched is not on disk yet; what is not, may be.
        if !self.is_fetching(request) {
            match self.read(file.clone()).await {
                Ok(Some(object)) => return (Answer::from_disk(object, request, &file), Outcome::Hit),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, file = %file.display(), "can't read a cached object; asking upstream"),
            }
            if let Some(error) = self.known_absent(request) {
                return (Answer::Error(error), Outcome::Negative);
            }
        }
        on_miss();
        let epoch = self.memory.epoch();
        let (content, outcome) = self.download(request).await;
        match content {
            Ok(Content::Small(bytes)) => (Answer::Hot(Arc::new(Hot::immutable(bytes, request, &file).unread())), outcome),
            Ok(Content::Passing(bytes)) => (Answer::fresh(bytes, Duration::ZERO, request), outcome),
            Ok(Content::Zip(growing)) => (Answer::Growing(growing), outcome),
            Err(error) => {
                if matches!(error, FetchError::NotFound { .. }) {
                    self.failures.insert(request, &error, epoch);
                }
                Answer::error(error)
            }
        }
    }

    /// The rule against a request, whatever its version's age.
    pub(super) fn refusal(&self, request: &Request) -> Option<FetchError> {
        self.live.policy().refusal(request)
    }

    /// Whether a module must not be named to anybody outside.
    pub(super) fn is_private(&self, module: &ModulePath) -> bool {
        self.live.verify().is_private(module)
    }

    /// A small file of our own, and when it was written.
    pub(super) async fn read_state(&self, file: PathBuf) -> Option<(Bytes, SystemTime)> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.read_state(&file)).await.ok()?.ok()?
    }

    /// How far to look ahead.
    pub(super) fn look_ahead(&self) -> LookAhead {
        self.live.look_ahead()
    }

    /// Whether there is nobody to ask.
    pub(super) fn is_offline(&self) -> bool {
        self.live.chain().is_offline()
    }

    /// Whether an object is being fetched from the sources in use now.
    pub(super) fn is_fetching(&self, request: &Request) -> bool {
        self.downloads.is_fetching(request, self.memory.epoch())
    }

    /// Whether nothing of a module may be fetched ahead now.
    pub(super) fn is_held_back(&self, module: Option<&ModulePath>) -> bool {
        self.live.chain().is_in_trouble(module.is_some_and(|module| self.is_private(module)))
    }

    /// Joins the download of an object, or starts it, and waits until there is something to answer.
    pub(super) async fn download(self: &Arc<Self>, request: &Request) -> (Result<Content, FetchError>, Outcome) {
        loop {
            let (download, started) = match self.start(request, false) {
                Ok(started) => started,
                Err(error) => return (Err(error), Outcome::Error),
            };
            let content = download.content().await;
            // It was to be fetched ahead, before anybody asked; now somebody does.
            if !matches!(content, Err(FetchError::HeldBack | FetchError::NoRoom)) {
                return (content, if started { Outcome::Miss } else { Outcome::Coalesced });
            }
        }
    }

    /// Joins the download of an object, or starts it; `is_ahead`: nobody waits for it.
    pub(super) fn start(self: &Arc<Self>, request: &Request, is_ahead: bool) -> Result<(Download, bool), FetchError> {
        let growing = || match request {
            Request::Zip(..) => self.store.growing().map(|growing| Some(Arc::new(growing))),
            _ => Ok(None),
        };
        let this = Arc::clone(self);
        self.downloads.join_or_start(request, self.memory.epoch(), is_ahead, growing, |reporter| {
            self.own(async move {
                tokio::select! {
                    () = this.run(&reporter) => {}
                    () = reporter.given_up() => {}
                }
            });
        })
    }

    /// The task of one download: fetch, judge, answer those who wait, keep.
    async fn run(&self, reporter: &Reporter) {
        let sources = self.live.sources();
        let (chain, verify) = (&sources.chain, &sources.verify);
        let request = reporter.request();
        // Without the database's key its answers pass through here; nothing can be said of them.
        let sumdb_path = match request {
            Request::Sumdb(rest) => chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?.escaped()))),
            _ => None,
        };
        let file = match &sumdb_path {
            Some((name, path)) => self.store.sumdb_dir(name).join(path),
            None => self.store.path(request),
        };
        let look_up = verify.look_up(request, chain);
        self.store.caught_up().await;
        let fetched = match &sumdb_path {
            Some((_, path)) => chain.fetch_sumdb(path).await.map(Fetched::Bytes),
            None => {
                let is_private = request.module().is_some_and(|module| verify.is_private(module));
                let (path, endpoint, check) = (request.escaped(), request.endpoint(), check_of(request));
                let (is_ahead, file) = (reporter.is_ahead(), reporter.growing().cloned());
                chain.fetch(&Wanted { path, endpoint, is_private, is_ahead, check, file }).await
            }
        };
        let (content, hash) = match (fetched, reporter.growing()) {
            (Ok(Fetched::Bytes(bytes)), _) => (Content::Small(bytes.clone()), hash_go_mod(&bytes)),
            (Ok(Fetched::Zip { h1 }), Some(growing)) => (Content::Zip(Arc::clone(growing)), h1),
            (Ok(Fetched::Zip { .. }), None) => return reporter.report(Err(FetchError::Local("a zip that was not asked for".to_owned()))),
            (Err(error), _) => return reporter.report(Err(error)),
        };
        let verdict = verify.judge(request, &hash, look_up).await;
        reporter.report(match &verdict {
            Verdict::Wrong(reason) => Err(chain.verification_fault(reason.clone())),
            Verdict::Pending(reason) if verify.when_unavailable == WhenUnavailable::Refuse => Err(chain.no_verdict(reason.clone())),
            Verdict::Pending(_) => Ok(content.clone().unproven()),
            Verdict::Good => Ok(content.clone().proven()),
        });
        let verdict = match verdict {
            Verdict::Pending(_) if verify.when_unavailable == WhenUnavailable::Serve => tokio::select! {
                verdict = self.await_verdict(verify, chain, request, &hash) => verdict,
                // It can't be kept any more, and the new rules may forbid to name it to a database.
                () = self.memory.is_over(reporter.epoch()) => return,
                () = self.ending.cancelled() => return,
            },
            verdict => verdict,
        };
        // What an earlier configuration's sources gave is good for who asked then.
        if verdict == Verdict::Good && reporter.epoch() == self.memory.epoch() {
            let first = verify.first(request, &hash);
            let content = match content {
                Content::Small(bytes) if may_change(request) => Content::Small(by(&sources.origin, &bytes)),
                content => content,
            };
            self.keep(content, hash, first, file).await;
        }
    }

    /// For what was served as pending: it is kept only when the verdict comes, and not waited for if too many wait already.
    async fn await_verdict(&self, verify: &Verify, chain: &Arc<Chain>, request: &Request, hash: &str) -> Verdict {
        let mut verdict = Verdict::Pending("too many wait for a verdict".to_owned());
        if let Ok(_place) = self.pending.try_acquire() {
            for pause in PENDING_PAUSES {
                tokio::time::sleep(pause).await;
                verdict = verify.judge_again(request, hash, verify.look_up(request, chain)).await;
                if !matches!(verdict, Verdict::Pending(_)) {
                    break;
                }
            }
        }
        if verdict != Verdict::Good {
            tracing::warn!(request = %request.escaped(), "served without a verdict, and not kept");
        }
        verdict
    }

    async fn keep(&self, content: Content, hash: String, first: Option<First>, file: PathBuf) {
        let commit = match content {
            Content::Small(bytes) | Content::Passing(bytes) => self.store.commit_bytes(bytes, first, file.clone()).await,
            Content::Zip(growing) => self.store.commit_zip(growing, hash, first, file.clone()).await,
        };
        match commit {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                tracing::error!(%error, file = %file.display(), "the version was changed while two processes fetched it; it is not kept");
                // What this one answered may be there, and is not what the volume has.
                self.memory.forget();
            }
            // Whoever asked has its answer: a full disk must not fail a build.
            Err(error) => tracing::error!(%error, file = %file.display(), "can't write the volume; the object was passed through uncached"),
        }
    }

    pub(super) async fn read(&self, file: PathBuf) -> std::io::Result<Option<Object>> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.read(&file, SMALL)).await.map_err(std::io::Error::other)?
    }

    /// Why a request failed a moment ago.
    pub(super) fn known_failure(&self, request: &Request) -> Option<FetchError> {
        self.failures.get(request, self.memory.epoch())
    }

    pub(super) fn known_absent(&self, request: &Request) -> Option<FetchError> {
        self.known_failure(request).filter(|error| matches!(error, FetchError::NotFound { .. }))
    }
}

fn check_of(request: &Request) -> Check {
    match request {
        Request::Info(_, version) if request.is_immutable() => Check::Info(version.clone()),
        Request::Info(..) | Request::Latest(_) => Check::AnyInfo,
        Request::Zip(module, version) => Check::Zip(module.clone(), version.clone()),
        Request::List(_) => Check::List,
        Request::Mod(..) => Check::GoMod,
        Request::Sumdb(_) => Check::Text,
    }
}
