//! From a request to an answer: from memory, from disk, or by one download however many ask.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Semaphore;

use super::download::{Content, Download, Downloads, Reporter};
use super::labels::Outcome;
use super::live::Live;
use super::memory::{Hot, Memory, SMALL};
use super::verify::Verdict;
use crate::config::{LookAhead, WhenUnavailable};
use crate::gomod::{ModulePath, Request, SumdbPath, hash_go_mod};
use crate::source::{Check, Class, FetchError, Fetched, Wanted};
use crate::store::{Growing, Object, Store};
use crate::sumdb;

/// How long a list, `@latest` or branch is served without asking again.
const FRESH: Duration = Duration::from_secs(30);
/// How long after that it is still served while an upstream is asked: a new tag is seen within the sum of both.
const STALE_WHILE_REVALIDATE: Duration = Duration::from_secs(30);
/// How long an upstream's "not found" for a file of a version is believed: an early request of a new tag must not hide it.
const NEGATIVE: Duration = Duration::from_secs(10);
const MAX_NEGATIVE: usize = 10_000;
/// How many objects may wait for a verdict; their zips take room beyond the limit.
const MAX_PENDING: usize = 256;
/// When a verdict that was not to be had is asked for again.
const PENDING_PAUSES: [Duration; 5] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(180), Duration::from_secs(300)];

/// What a client gets.
pub(super) enum Answer {
    /// From memory.
    Hot(Arc<Hot>),
    /// A file of the store, and its length.
    File(File, u64),
    /// A zip that is being downloaded, as far as it may be shown.
    Growing(Arc<Growing>),
    /// An answer that is too old, and its age.
    Stale(Bytes, Duration),
    /// Nothing, and why.
    Error(FetchError),
}

/// What fetching ahead came to.
pub(super) enum Ahead {
    /// It was here already. Its bytes, if it is a go.mod file.
    Present(Option<Bytes>),
    /// It is here now.
    Fetched(Option<Bytes>),
    /// No upstream has it, or none may be asked for it.
    Absent,
    /// The upstream is in trouble.
    Failed,
}

/// The store, the sources, and the downloads under way.
pub(super) struct Cache {
    store: Store,
    live: Arc<Live>,
    memory: Arc<Memory>,
    downloads: Arc<Downloads>,
    /// Places for objects that wait for a verdict.
    pending: Semaphore,
    negative: Mutex<HashMap<Request, Absence>>,
}

/// That something is not there.
struct Absence {
    since: Instant,
    /// The memory's: it is a new one when other sources are asked, who may have it.
    epoch: u64,
    error: FetchError,
}

impl Cache {
    pub(super) fn new(store: Store, live: Arc<Live>, memory: Arc<Memory>) -> Self {
        Self { store, live, memory, downloads: Arc::default(), pending: Semaphore::new(MAX_PENDING), negative: Mutex::default() }
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
    pub(super) async fn answer(self: &Arc<Self>, request: &Arc<Request>, path: &str) -> (Answer, Outcome) {
        let epoch = self.memory.epoch();
        let policy = self.live.policy();
        if let Some(refusal) = policy.refusal(request) {
            return (Answer::Error(refusal), Outcome::Denied);
        }
        let (answer, outcome) = self.answer_allowed(&policy, request).await;
        if let Answer::Hot(hot) = &answer {
            self.memory.insert(path, Arc::clone(hot), epoch);
        }
        (answer, outcome)
    }

    /// Answers a request from disk or from upstream, whatever the policy says.
    pub(super) async fn look_up(self: &Arc<Self>, request: &Arc<Request>) -> (Answer, Outcome) {
        match &**request {
            Request::Sumdb(rest) => self.answer_sumdb(request, rest).await,
            _ if request.is_immutable() => self.answer_immutable(request, self.store.path(request)).await,
            _ => self.answer_mutable(request).await,
        }
    }

    async fn answer_immutable(self: &Arc<Self>, request: &Arc<Request>, file: PathBuf) -> (Answer, Outcome) {
        // What is being downloaded is not on disk yet; what is not, may be.
        if self.downloads.get(request).is_none() {
            match self.read(file.clone()).await {
                Ok(Some(object)) => return (answer_from_disk(object, request, &file), Outcome::Hit),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, file = %file.display(), "can't read a cached object; asking upstream"),
            }
            if let Some(error) = self.known_absent(request) {
                return (Answer::Error(error), Outcome::Negative);
            }
        }
        let (content, outcome) = self.download(request).await;
        match content {
            Ok(Content::Small(bytes)) => (Answer::Hot(Arc::new(Hot::immutable(bytes, request, &file).unread())), outcome),
            Ok(Content::Unproven(bytes)) => (fresh(bytes, Duration::ZERO, request), outcome),
            Ok(Content::Zip(growing)) => (Answer::Growing(growing), outcome),
            Err(error) => {
                let outcome = outcome_of(&error);
                if outcome == Outcome::NotFound {
                    self.remember_absent(request, &error);
                }
                (Answer::Error(error), outcome)
            }
        }
    }

    async fn answer_mutable(self: &Arc<Self>, request: &Arc<Request>) -> (Answer, Outcome) {
        if let Some(error) = self.known_absent(request) {
            return (Answer::Error(error), Outcome::Negative);
        }
        let kept = self.read_dated(self.store.path(request)).await;
        if let Some((bytes, age)) = &kept {
            if *age < FRESH {
                return (fresh(bytes.clone(), FRESH - *age, request), Outcome::Hit);
            }
            if *age < FRESH + STALE_WHILE_REVALIDATE && !self.live.chain().is_offline() {
                // The task goes on by itself; the next request finds its result.
                let _revalidation = self.start(request);
                return (Answer::Stale(bytes.clone(), *age), Outcome::Stale);
            }
        }
        let (content, outcome) = self.download(request).await;
        match (content, kept) {
            (Ok(Content::Small(bytes) | Content::Unproven(bytes)), _) => (fresh(bytes, FRESH, request), outcome),
            (Ok(Content::Zip(growing)), _) => (Answer::Growing(growing), outcome),
            (Err(error @ FetchError::NotFound { .. }), _) => {
                self.remember_absent(request, &error);
                (Answer::Error(error), Outcome::NotFound)
            }
            // An outage, and something to show for it.
            (Err(error), Some((bytes, age))) => {
                tracing::warn!(%error, request = %request.escaped(), "serving a stale answer");
                (Answer::Stale(bytes, age), Outcome::Stale)
            }
            (Err(FetchError::Offline), None) => self.answer_offline(request),
            (Err(error), None) => (Answer::Error(error), Outcome::Error),
        }
    }

    /// Without an upstream the list is what the disk has. A 404 then lets the go command try the next path prefix.
    fn answer_offline(&self, request: &Arc<Request>) -> (Answer, Outcome) {
        let versions = match &**request {
            Request::List(module) => self.store.cached_versions(module),
            _ => Vec::new(),
        };
        if versions.is_empty() {
            return (Answer::Error(not_found("not cached, and this cache is offline\n")), Outcome::NotFound);
        }
        let list = Bytes::from(versions.join("\n") + "\n");
        (Answer::Hot(Arc::new(Hot::mutable(list, request, Instant::now()))), Outcome::Hit)
    }

    async fn answer_sumdb(self: &Arc<Self>, request: &Arc<Request>, rest: &str) -> (Answer, Outcome) {
        let chain = self.live.chain();
        let Some((name, asked)) = chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?))) else {
            return (Answer::Error(not_found("this cache does not relay that checksum database\n")), Outcome::NotFound);
        };
        let uncached = |bytes| Answer::Hot(Arc::new(Hot::mutable(bytes, request, Instant::now())));
        match asked {
            SumdbPath::Supported => (uncached(Bytes::new()), Outcome::Hit),
            SumdbPath::Latest => match chain.fetch_sumdb(asked.escaped()).await {
                Ok(bytes) => (uncached(bytes), Outcome::Miss),
                Err(error) => {
                    let outcome = outcome_of(&error);
                    (Answer::Error(error), outcome)
                }
            },
            SumdbPath::Lookup(asked) if self.is_private_lookup(&asked) => (Answer::Error(FetchError::Private), Outcome::Error),
            SumdbPath::Lookup(_) | SumdbPath::Tile(_) => {
                let file = self.store.sumdb_path(name, asked.escaped());
                self.answer_immutable(request, file).await
            }
        }
    }

    /// A look-up would name the module to the database, and so to the world.
    fn is_private_lookup(&self, path: &str) -> bool {
        let module = path.strip_prefix("lookup/").and_then(|rest| rest.rsplit_once('@')).map(|(module, _)| module);
        module.and_then(|module| ModulePath::from_escaped(module).ok()).is_some_and(|module| self.live.verify().is_private(&module))
    }

    /// Fetches an immutable object that nobody asked for yet. Nothing of a failure is remembered.
    pub(super) async fn fetch_ahead(self: &Arc<Self>, request: &Arc<Request>) -> Ahead {
        let (epoch, policy) = (self.memory.epoch(), self.live.policy());
        let minimum_age = request.module().and_then(|module| policy.minimum_age(module));
        if policy.refusal(request).is_some() {
            return Ahead::Absent;
        }
        if let (Request::Zip(module, version), Some(minimum)) = (&**request, minimum_age)
            && self.judge_age(&policy, module, version, minimum).await.is_err()
        {
            return Ahead::Absent;
        }
        let path = request.as_go_asks();
        let wants_bytes = matches!(**request, Request::Mod(..));
        if let Some(hot) = self.memory.get(&path, Instant::now()) {
            return Ahead::Present(wants_bytes.then(|| hot.body.clone()));
        }
        let file = self.store.path(request);
        if self.downloads.get(request).is_none() {
            if wants_bytes {
                if let Ok(Some(Object::Small(bytes))) = self.read(file.clone()).await {
                    return Ahead::Present(Some(bytes));
                }
            } else if tokio::fs::try_exists(&file).await.unwrap_or_default() {
                return Ahead::Present(None);
            }
            if self.known_absent(request).is_some() {
                return Ahead::Absent;
            }
        }
        let Ok((download, _)) = self.start(request) else { return Ahead::Absent };
        match download.ended().await {
            Ok(Content::Small(bytes)) => {
                // An `.info` that may be too young is judged when it is asked for.
                if wants_bytes || minimum_age.is_none() {
                    self.memory.insert(&path, Arc::new(Hot::immutable(bytes.clone(), request, &file).unread()), epoch);
                }
                Ahead::Fetched(wants_bytes.then_some(bytes))
            }
            Ok(Content::Unproven(bytes)) => Ahead::Fetched(wants_bytes.then_some(bytes)),
            Ok(Content::Zip(_)) => Ahead::Fetched(None),
            Err(FetchError::Fault(fault)) if !matches!(fault.class, Class::Verification | Class::ClientError) => Ahead::Failed,
            Err(_) => Ahead::Absent,
        }
    }

    /// What opens the endpoints that name modules.
    pub(super) fn admin_token(&self) -> Option<Vec<u8>> {
        self.live.admin_token()
    }

    /// The rule against a request, whatever its version's age.
    pub(super) fn refusal(&self, request: &Request) -> Option<FetchError> {
        self.live.policy().refusal(request)
    }

    /// Whether a module must not be named to anybody outside.
    pub(super) fn is_private(&self, module: &ModulePath) -> bool {
        self.live.verify().is_private(module)
    }

    /// What is known of an object, without a change to it.
    pub(super) async fn explain(&self, request: &Request, now: Instant) -> super::explain::Object {
        let file = self.store.path(request);
        let metadata = tokio::fs::metadata(&file).await.ok();
        let hash = match request {
            Request::Zip(..) => tokio::fs::read_to_string(file.with_extension("ziphash")).await.ok(),
            _ => None,
        };
        super::explain::Object {
            endpoint: request.endpoint(),
            cached: metadata.is_some(),
            bytes: metadata.as_ref().map(std::fs::Metadata::len),
            last_use: metadata.and_then(|metadata| metadata.modified().ok()).and_then(|time| jiff::Timestamp::try_from(time).ok()),
            hash,
            in_memory: self.memory.get(&request.as_go_asks(), now).is_some(),
            downloading: self.downloads.get(request).is_some(),
            known_absent: self.known_absent(request).is_some(),
        }
    }

    /// How far to look ahead.
    pub(super) fn look_ahead(&self) -> LookAhead {
        self.live.look_ahead()
    }

    /// Whether there is nobody to ask.
    pub(super) fn is_offline(&self) -> bool {
        self.live.chain().is_offline()
    }

    /// Joins the download of an object, or starts it, and waits until there is something to answer.
    async fn download(self: &Arc<Self>, request: &Request) -> (Result<Content, FetchError>, Outcome) {
        match self.start(request) {
            Ok((download, started)) => (download.content().await, if started { Outcome::Miss } else { Outcome::Coalesced }),
            Err(error) => (Err(error), Outcome::Error),
        }
    }

    fn start(self: &Arc<Self>, request: &Request) -> Result<(Download, bool), FetchError> {
        let growing = || match request {
            Request::Zip(..) => self.store.growing().map(|growing| Some(Arc::new(growing))),
            _ => Ok(None),
        };
        let this = Arc::clone(self);
        self.downloads.join_or_start(request, growing, |reporter| {
            tokio::spawn(async move { this.run(&reporter).await });
        })
    }

    /// The task of one download.
    async fn run(&self, reporter: &Reporter) {
        let chain = self.live.chain();
        let request = reporter.request();
        let sumdb_path = match request {
            Request::Sumdb(rest) => chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?))),
            _ => None,
        };
        let file = match &sumdb_path {
            Some((name, path)) => self.store.sumdb_path(name, path.escaped()),
            None => self.store.path(request),
        };
        let verify = self.live.verify();
        let look_up = verify.look_up(request, &chain);
        if reporter.growing().is_some() {
            self.store.caught_up().await;
        }
        let fetched = match &sumdb_path {
            Some((_, asked)) => chain.fetch_sumdb(asked.escaped()).await.map(Fetched::Bytes),
            None => {
                let is_private = request.module().is_some_and(|module| verify.is_private(module));
                let (check, file) = (check_of(request), reporter.growing().cloned());
                chain.fetch(&Wanted { path: request.escaped(), endpoint: request.endpoint(), is_private, check, file }).await
            }
        };
        let (content, hash) = match (fetched, reporter.growing()) {
            (Ok(Fetched::Bytes(bytes)), _) => (Content::Small(bytes.clone()), hash_go_mod(&bytes)),
            (Ok(Fetched::Zip { h1 }), Some(growing)) => (Content::Zip(Arc::clone(growing)), h1),
            (Ok(Fetched::Zip { .. }), None) => return reporter.report(Err(FetchError::Local("a zip that was not asked for".to_owned()))),
            (Err(error), _) => return reporter.report(Err(error)),
        };
        let mut verdict = verify.judge(request, &hash, look_up).await;
        let refused = match &verdict {
            Verdict::Wrong(reason) => Some(reason),
            Verdict::Pending(reason) if verify.when_unavailable == WhenUnavailable::Refuse => Some(reason),
            _ => None,
        };
        if let Some(reason) = refused {
            return reporter.report(Err(chain.verification_fault(reason.clone())));
        }
        reporter.report(Ok(match (&content, &verdict) {
            (Content::Small(bytes), Verdict::Pending(_)) => Content::Unproven(bytes.clone()),
            _ => content.clone(),
        }));
        // Served as pending: kept only when the verdict comes, and not waited for if too many wait already.
        if let Verdict::Pending(_) = verdict
            && let Ok(_place) = self.pending.try_acquire()
        {
            for pause in PENDING_PAUSES {
                tokio::time::sleep(pause).await;
                verdict = verify.judge(request, &hash, verify.look_up(request, &chain)).await;
                if !matches!(verdict, Verdict::Pending(_)) {
                    break;
                }
            }
        }
        if verdict != Verdict::Good {
            return tracing::warn!(request = %request.escaped(), "served without a verdict, and not kept");
        }
        let commit = match content {
            Content::Small(bytes) | Content::Unproven(bytes) => self.store.commit_bytes(bytes, file.clone()).await,
            Content::Zip(growing) => self.store.commit_zip(growing, hash, file.clone()).await,
        };
        if let Err(error) = commit {
            // Whoever asked has its answer: a full disk must not fail a build.
            tracing::error!(%error, file = %file.display(), "can't write the volume; the object was passed through uncached");
        }
    }

    async fn read(&self, file: PathBuf) -> std::io::Result<Option<Object>> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.read(&file, SMALL)).await.map_err(std::io::Error::other)?
    }

    /// A mutable object and its age. Its time is that of its download: reading it is no use that counts.
    async fn read_dated(&self, file: PathBuf) -> Option<(Bytes, Duration)> {
        let modified = tokio::fs::metadata(&file).await.ok()?.modified().ok()?;
        let bytes = tokio::fs::read(&file).await.ok()?;
        Some((Bytes::from(bytes), SystemTime::now().duration_since(modified).unwrap_or_default()))
    }

    fn known_absent(&self, request: &Request) -> Option<FetchError> {
        let negative = lock(&self.negative);
        let absence = negative.get(request).filter(|absence| absence.epoch == self.memory.epoch())?;
        (absence.since.elapsed() < NEGATIVE).then(|| absence.error.clone())
    }

    fn remember_absent(&self, request: &Request, error: &FetchError) {
        let mut negative = lock(&self.negative);
        if negative.len() >= MAX_NEGATIVE {
            negative.retain(|_, absence| absence.since.elapsed() < NEGATIVE);
        }
        if negative.len() < MAX_NEGATIVE {
            let absence = Absence { since: Instant::now(), epoch: self.memory.epoch(), error: error.clone() };
            negative.insert(request.clone(), absence);
        }
    }
}

fn answer_from_disk(object: Object, request: &Arc<Request>, file: &Path) -> Answer {
    match object {
        Object::Large(file, length) => Answer::File(file, length),
        Object::Small(bytes) => Answer::Hot(Arc::new(Hot::immutable(bytes, request, file))),
    }
}

fn fresh(bytes: Bytes, rest: Duration, request: &Arc<Request>) -> Answer {
    Answer::Hot(Arc::new(Hot::mutable(bytes, request, Instant::now() + rest)))
}

fn check_of(request: &Request) -> Check {
    match request {
        Request::Info(_, version) if version.is_canonical() => Check::Info(version.clone()),
        Request::Info(..) | Request::Latest(_) => Check::AnyInfo,
        Request::Zip(module, version) => Check::Zip(module.clone(), version.clone()),
        Request::List(_) => Check::List,
        Request::Mod(..) | Request::Sumdb(_) => Check::Text,
    }
}

fn outcome_of(error: &FetchError) -> Outcome {
    if matches!(error, FetchError::NotFound { .. }) { Outcome::NotFound } else { Outcome::Error }
}

fn not_found(text: &'static str) -> FetchError {
    FetchError::NotFound { status: StatusCode::NOT_FOUND, text: Bytes::from_static(text.as_bytes()) }
}

/// A panic elsewhere does not make the map wrong: every change of it is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
