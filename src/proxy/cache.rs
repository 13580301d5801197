//! From a request to an answer: what is on disk, else one download however many ask.
//!
//! A download is a task of its own, so a client that leaves cancels nothing for others. Waiters get the object from disk
//! when it was verified and committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http::StatusCode;

use super::live::Live;
use crate::gomod::{Request, SumdbPath};
use crate::source::{Check, FetchError, Fetched, Wanted};
use crate::store::Store;
use crate::sumdb;
use crate::telemetry::Metrics;

/// How long a list, `@latest` or branch is served without asking again.
const FRESH: Duration = Duration::from_secs(60);
/// How long an upstream's "not found" for a file of a version is believed: an early request of a new tag must not hide it.
const NEGATIVE: Duration = Duration::from_secs(10);
const MAX_NEGATIVE: usize = 10_000;
const MAX_DOWNLOADS: usize = 4_096;

/// The result of a look-up; a metric's label.
pub(super) type ResultLabel = &'static str;

/// What a client gets.
pub(super) enum Answer {
    /// A file of the store.
    File(PathBuf),
    /// A stale object, and its age.
    Stale(PathBuf, Duration),
    /// Bytes that are on no disk.
    Bytes(Bytes),
    /// Nothing, and why.
    Error(FetchError),
}

#[derive(Clone)]
enum Downloaded {
    Stored,
    Uncached(Bytes),
}

type Download = Shared<BoxFuture<'static, Result<Downloaded, FetchError>>>;

/// The store, the sources, and the downloads under way.
pub(super) struct Cache {
    store: Store,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    downloads: Mutex<HashMap<Request, Download>>,
    negative: Mutex<HashMap<Request, (Instant, FetchError)>>,
}

impl Cache {
    pub(super) fn new(store: Store, live: Arc<Live>, metrics: Arc<Metrics>) -> Self {
        Self { store, live, metrics, downloads: Mutex::default(), negative: Mutex::default() }
    }

    /// Answers a request, from the disk where that may be.
    pub(super) async fn answer(self: &Arc<Self>, request: &Request) -> (Answer, ResultLabel) {
        match request {
            Request::Sumdb(rest) => self.answer_sumdb(request, rest).await,
            _ if request.is_immutable() => self.answer_immutable(request, self.store.path(request)).await,
            _ => self.answer_mutable(request).await,
        }
    }

    async fn answer_immutable(self: &Arc<Self>, request: &Request, path: PathBuf) -> (Answer, ResultLabel) {
        if is_file(&path).await {
            return (Answer::File(path), "hit");
        }
        if let Some(error) = self.known_absent(request) {
            return (Answer::Error(error), "negative");
        }
        let (downloaded, joined) = self.download_once(request).await;
        let label = if joined { "coalesced" } else { "miss" };
        match downloaded {
            Ok(Downloaded::Stored) => (Answer::File(path), label),
            Ok(Downloaded::Uncached(bytes)) => (Answer::Bytes(bytes), label),
            Err(error) => {
                let label = error_label(&error);
                if label == "not_found" {
                    self.remember_absent(request, &error);
                }
                (Answer::Error(error), label)
            }
        }
    }

    async fn answer_mutable(self: &Arc<Self>, request: &Request) -> (Answer, ResultLabel) {
        let path = self.store.path(request);
        let age = age_of(&path).await;
        if age.is_some_and(|age| age < FRESH) {
            return (Answer::File(path), "hit");
        }
        let (downloaded, joined) = self.download_once(request).await;
        match (downloaded, age) {
            (Ok(Downloaded::Stored), _) => (Answer::File(path), if joined { "coalesced" } else { "miss" }),
            (Ok(Downloaded::Uncached(bytes)), _) => (Answer::Bytes(bytes), "miss"),
            (Err(error @ FetchError::NotFound { .. }), _) => (Answer::Error(error), "not_found"),
            // An outage, and something to show for it.
            (Err(error), Some(age)) => {
                tracing::warn!(%error, request = %request.escaped(), "serving a stale answer");
                (Answer::Stale(path, age), "stale")
            }
            (Err(FetchError::Offline), None) => self.answer_offline(request),
            (Err(error), None) => (Answer::Error(error), "error"),
        }
    }

    /// Without an upstream the list is what the disk has. A 404 then lets the go command try the next path prefix.
    fn answer_offline(&self, request: &Request) -> (Answer, ResultLabel) {
        let versions = match request {
            Request::List(module) => self.store.cached_versions(module),
            _ => Vec::new(),
        };
        if versions.is_empty() {
            return (Answer::Error(not_found("not cached, and this cache is offline\n")), "not_found");
        }
        (Answer::Bytes(Bytes::from(versions.join("\n") + "\n")), "hit")
    }

    async fn answer_sumdb(self: &Arc<Self>, request: &Request, rest: &str) -> (Answer, ResultLabel) {
        let chain = self.live.chain();
        let Some((name, path)) = chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?))) else {
            return (Answer::Error(not_found("this cache does not relay that checksum database\n")), "not_found");
        };
        match path {
            SumdbPath::Supported => (Answer::Bytes(Bytes::new()), "hit"),
            SumdbPath::Latest => match chain.fetch_sumdb(path.escaped()).await {
                Ok(Fetched::Bytes(bytes)) => (Answer::Bytes(bytes), "miss"),
                Ok(Fetched::Zip { .. }) => (Answer::Error(FetchError::Local("a zip where text was asked".to_owned())), "error"),
                Err(error) => {
                    let label = error_label(&error);
                    (Answer::Error(error), label)
                }
            },
            SumdbPath::Lookup(_) | SumdbPath::Tile(_) => {
                let file = self.store.sumdb_path(name, path.escaped());
                self.answer_immutable(request, file).await
            }
        }
    }

    /// Joins the download of an object, or starts it. The flag says that another request had started it.
    async fn download_once(self: &Arc<Self>, request: &Request) -> (Result<Downloaded, FetchError>, bool) {
        let (download, joined) = {
            let mut downloads = lock(&self.downloads);
            if let Some(download) = downloads.get(request) {
                (download.clone(), true)
            } else if downloads.len() >= MAX_DOWNLOADS {
                return (Err(FetchError::Local(format!("{MAX_DOWNLOADS} downloads are under way; try again"))), false);
            } else {
                let running = Running { cache: Arc::clone(self), request: request.clone() };
                let task = tokio::spawn(async move { running.cache.download(&running.request).await });
                let download = task.map(|end| end.unwrap_or_else(|e| Err(FetchError::Local(e.to_string())))).boxed().shared();
                downloads.insert(request.clone(), download.clone());
                (download, false)
            }
        };
        (download.await, joined)
    }

    async fn download(&self, request: &Request) -> Result<Downloaded, FetchError> {
        let chain = self.live.chain();
        let sumdb_path = match request {
            Request::Sumdb(rest) => chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?))),
            _ => None,
        };
        let path = match &sumdb_path {
            Some((name, path)) => self.store.sumdb_path(name, path.escaped()),
            None => self.store.path(request),
        };
        // Another download may have ended between this request's look at the disk and now.
        let is_immutable = request.is_immutable() || sumdb_path.is_some();
        if is_immutable && is_file(&path).await {
            return Ok(Downloaded::Stored);
        }
        if let Some((_, asked)) = &sumdb_path {
            let fetched = chain.fetch_sumdb(asked.escaped()).await?;
            return self.keep(fetched, None, path).await;
        }
        let temp = match request {
            Request::Zip(..) => Some(self.store.temp_file().map_err(|e| FetchError::Local(e.to_string()))?.1),
            _ => None,
        };
        let wanted = Wanted {
            path: request.escaped(),
            endpoint: request.endpoint(),
            check: check_of(request),
            file: temp.as_ref().map(|temp| temp.to_path_buf()),
        };
        let fetched = chain.fetch(&wanted).await?;
        self.keep(fetched, temp, path).await
    }

    async fn keep(&self, fetched: Fetched, temp: Option<tempfile::TempPath>, path: PathBuf) -> Result<Downloaded, FetchError> {
        let store = self.store.clone();
        let commit = tokio::task::spawn_blocking(move || match (fetched, temp) {
            (Fetched::Zip { h1 }, Some(temp)) => {
                store.commit_zip(temp, &h1, &path).map(|()| Downloaded::Stored).map_err(|e| FetchError::Local(e.to_string()))
            }
            (Fetched::Zip { .. }, None) => Err(FetchError::Local("a zip that was not asked for".to_owned())),
            (Fetched::Bytes(bytes), _) => match store.commit_bytes(&bytes, &path) {
                Ok(()) => Ok(Downloaded::Stored),
                // A full disk must not fail a build: small objects pass through.
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "can't write the volume; passing through uncached");
                    Ok(Downloaded::Uncached(bytes))
                }
            },
        });
        commit.await.unwrap_or_else(|e| Err(FetchError::Local(e.to_string())))
    }

    fn known_absent(&self, request: &Request) -> Option<FetchError> {
        let negative = lock(&self.negative);
        negative.get(request).filter(|(since, _)| since.elapsed() < NEGATIVE).map(|(_, error)| error.clone())
    }

    fn remember_absent(&self, request: &Request, error: &FetchError) {
        let mut negative = lock(&self.negative);
        if negative.len() >= MAX_NEGATIVE {
            negative.retain(|_, (since, _)| since.elapsed() < NEGATIVE);
        }
        if negative.len() < MAX_NEGATIVE {
            negative.insert(request.clone(), (Instant::now(), error.clone()));
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A download under way; however it ends, its place is free again.
struct Running {
    cache: Arc<Cache>,
    request: Request,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.cache.downloads).remove(&self.request);
    }
}

fn check_of(request: &Request) -> Check {
    match request {
        Request::Info(_, version) if version.is_canonical() => Check::Info(version.clone()),
        Request::Info(..) | Request::Latest(_) => Check::AnyInfo,
        Request::Zip(module, version) => Check::Zip(module.clone(), version.clone()),
        Request::List(_) | Request::Mod(..) | Request::Sumdb(_) => Check::Text,
    }
}

fn error_label(error: &FetchError) -> ResultLabel {
    if matches!(error, FetchError::NotFound { .. }) { "not_found" } else { "error" }
}

fn not_found(text: &'static str) -> FetchError {
    FetchError::NotFound { status: StatusCode::NOT_FOUND, text: Bytes::from_static(text.as_bytes()) }
}

async fn is_file(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|metadata| metadata.is_file())
}

async fn age_of(path: &Path) -> Option<Duration> {
    let modified = tokio::fs::metadata(path).await.ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

/// A panic elsewhere does not make the map wrong: every change of it is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
