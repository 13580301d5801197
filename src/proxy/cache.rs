//! From a request to an answer: from memory, from disk, or by one download however many ask.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;

use super::download::{Content, Download, Downloads, Reporter};
use super::labels::{Endpoint, Outcome};
use super::live::Live;
use super::memory::{Hot, Memory, SMALL};
use super::verify::Verdict;
use crate::config::WhenUnavailable;
use crate::gomod::{ModulePath, Request, SumdbPath, hash_go_mod};
use crate::source::{Check, FetchError, Fetched, Wanted};
use crate::store::{Growing, Object, Store};
use crate::sumdb;

/// How long a list, `@latest` or branch is served without asking again.
const FRESH: Duration = Duration::from_secs(30);
/// How long after that it is still served while an upstream is asked: a new tag is seen within the sum of both.
const STALE_WHILE_REVALIDATE: Duration = Duration::from_secs(30);
/// How long an upstream's "not found" for a file of a version is believed: an early request of a new tag must not hide it.
const NEGATIVE: Duration = Duration::from_secs(10);
const MAX_NEGATIVE: usize = 10_000;
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

/// The store, the sources, and the downloads under way.
pub(super) struct Cache {
    store: Store,
    live: Arc<Live>,
    memory: Arc<Memory>,
    downloads: Arc<Downloads>,
    negative: Mutex<HashMap<Request, Absence>>,
}

/// That something is not there.
struct Absence {
    since: Instant,
    /// Which sources said so.
    generation: u64,
    error: FetchError,
}

impl Cache {
    pub(super) fn new(store: Store, live: Arc<Live>, memory: Arc<Memory>) -> Self {
        Self { store, live, memory, downloads: Arc::default(), negative: Mutex::default() }
    }

    /// What memory has for a path as it stands in a request.
    pub(super) fn hot(&self, path: &str, now: Instant) -> Option<Arc<Hot>> {
        let hot = self.memory.get(path, now)?;
        if let Some(file) = hot.use_to_count(now) {
            let (store, file) = (self.store.clone(), file.to_owned());
            // Once a minute and object; nobody waits for it.
            drop(tokio::task::spawn_blocking(move || store.count_use(&file)));
        }
        Some(hot)
    }

    /// Answers a request; `path` is how it was spelled.
    pub(super) async fn answer(self: &Arc<Self>, request: &Request, path: &str) -> (Answer, Outcome) {
        match request {
            Request::Sumdb(rest) => self.answer_sumdb(request, rest, path).await,
            _ if request.is_immutable() => self.answer_immutable(request, self.store.path(request), path).await,
            _ => self.answer_mutable(request, path).await,
        }
    }

    async fn answer_immutable(self: &Arc<Self>, request: &Request, file: PathBuf, path: &str) -> (Answer, Outcome) {
        // What is being downloaded is not on disk yet; what is not, may be.
        if self.downloads.get(request).is_none() {
            match self.read(file.clone()).await {
                Ok(Some(object)) => return (self.answer_from_disk(object, request, &file, path), Outcome::Hit),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, file = %file.display(), "can't read a cached object; asking upstream"),
            }
            if let Some(error) = self.known_absent(request) {
                return (Answer::Error(error), Outcome::Negative);
            }
        }
        let (content, outcome) = self.download(request).await;
        match content {
            Ok(Content::Small(bytes)) => {
                let hot = Arc::new(Hot::immutable(bytes, Endpoint::of(request), &file));
                self.memory.insert(path, Arc::clone(&hot));
                (Answer::Hot(hot), outcome)
            }
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

    async fn answer_mutable(self: &Arc<Self>, request: &Request, path: &str) -> (Answer, Outcome) {
        if let Some(error) = self.known_absent(request) {
            return (Answer::Error(error), Outcome::Negative);
        }
        let kept = self.read_dated(self.store.path(request)).await;
        if let Some((bytes, age)) = &kept {
            if *age < FRESH {
                return (self.keep_fresh(bytes.clone(), FRESH - *age, request, path), Outcome::Hit);
            }
            if *age < FRESH + STALE_WHILE_REVALIDATE && !self.live.chain().is_offline() {
                // The task goes on by itself; the next request finds its result.
                let _revalidation = self.start(request);
                return (Answer::Stale(bytes.clone(), *age), Outcome::Stale);
            }
        }
        let (content, outcome) = self.download(request).await;
        match (content, kept) {
            (Ok(Content::Small(bytes)), _) => (self.keep_fresh(bytes, FRESH, request, path), outcome),
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
    fn answer_offline(&self, request: &Request) -> (Answer, Outcome) {
        let versions = match request {
            Request::List(module) => self.store.cached_versions(module),
            _ => Vec::new(),
        };
        if versions.is_empty() {
            return (Answer::Error(not_found("not cached, and this cache is offline\n")), Outcome::NotFound);
        }
        let list = Bytes::from(versions.join("\n") + "\n");
        (Answer::Hot(Arc::new(Hot::mutable(list, Endpoint::List, Instant::now()))), Outcome::Hit)
    }

    async fn answer_sumdb(self: &Arc<Self>, request: &Request, rest: &str, path: &str) -> (Answer, Outcome) {
        let chain = self.live.chain();
        let Some((name, asked)) = chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?))) else {
            return (Answer::Error(not_found("this cache does not relay that checksum database\n")), Outcome::NotFound);
        };
        let uncached = |bytes| Answer::Hot(Arc::new(Hot::mutable(bytes, Endpoint::Sumdb, Instant::now())));
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
                self.answer_immutable(request, file, path).await
            }
        }
    }

    /// A look-up would name the module to the database, and so to the world.
    fn is_private_lookup(&self, path: &str) -> bool {
        let module = path.strip_prefix("lookup/").and_then(|rest| rest.rsplit_once('@')).map(|(module, _)| module);
        module.and_then(|module| ModulePath::from_escaped(module).ok()).is_some_and(|module| self.live.verify().is_private(&module))
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
        reporter.report(Ok(content.clone()));
        // Served as pending: kept only when the verdict comes.
        for pause in PENDING_PAUSES {
            if !matches!(verdict, Verdict::Pending(_)) {
                break;
            }
            tokio::time::sleep(pause).await;
            verdict = verify.judge(request, &hash, verify.look_up(request, &chain)).await;
        }
        if verdict != Verdict::Good {
            self.memory.clear();
            return tracing::warn!(request = %request.escaped(), "served without a verdict, and not kept");
        }
        let commit = match content {
            Content::Small(bytes) => self.store.commit_bytes(bytes, file.clone()).await,
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

    fn answer_from_disk(&self, object: Object, request: &Request, file: &Path, path: &str) -> Answer {
        match object {
            Object::Large(file, length) => Answer::File(file, length),
            Object::Small(bytes) => {
                let hot = Arc::new(Hot::immutable(bytes, Endpoint::of(request), file));
                self.memory.insert(path, Arc::clone(&hot));
                Answer::Hot(hot)
            }
        }
    }

    /// A mutable object and its age. Its time is that of its download: reading it is no use that counts.
    async fn read_dated(&self, file: PathBuf) -> Option<(Bytes, Duration)> {
        let modified = tokio::fs::metadata(&file).await.ok()?.modified().ok()?;
        let bytes = tokio::fs::read(&file).await.ok()?;
        Some((Bytes::from(bytes), SystemTime::now().duration_since(modified).unwrap_or_default()))
    }

    fn keep_fresh(&self, bytes: Bytes, rest: Duration, request: &Request, path: &str) -> Answer {
        let hot = Arc::new(Hot::mutable(bytes, Endpoint::of(request), Instant::now() + rest));
        self.memory.insert(path, Arc::clone(&hot));
        Answer::Hot(hot)
    }

    fn known_absent(&self, request: &Request) -> Option<FetchError> {
        let negative = lock(&self.negative);
        let absence = negative.get(request).filter(|absence| absence.generation == self.live.generation())?;
        (absence.since.elapsed() < NEGATIVE).then(|| absence.error.clone())
    }

    fn remember_absent(&self, request: &Request, error: &FetchError) {
        let mut negative = lock(&self.negative);
        if negative.len() >= MAX_NEGATIVE {
            negative.retain(|_, absence| absence.since.elapsed() < NEGATIVE);
        }
        if negative.len() < MAX_NEGATIVE {
            let absence = Absence { since: Instant::now(), generation: self.live.generation(), error: error.clone() };
            negative.insert(request.clone(), absence);
        }
    }
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
