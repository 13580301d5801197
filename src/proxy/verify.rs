//! The verdict on a download, before it is kept: what the checksum database says, or what this cache saw first.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use tokio::task::JoinSet;

use super::policy::TOOLCHAIN;
use crate::config::{ChecksumMode, ProxyConfig, WhenUnavailable};
use crate::gomod::{ModulePath, Patterns, Request, Version};
use crate::report::sentence;
use crate::source::{Chain, FetchError};
use crate::store::{First, Store};
use crate::sumdb::{Database, Missing, Sums, verifier};
use crate::telemetry::Metrics;

/// How long an answer waits for the database.
const PATIENCE: Duration = Duration::from_secs(10);
/// That the database was away is old news after this time, if nobody asked it since.
const AWAY: Duration = Duration::from_secs(600);

/// How many hashes are remembered that the volume may not have.
const MAX_FIRST: u64 = 4_096;
/// For how long, so that who takes one off the volume need not restart the process.
const FIRST: Duration = Duration::from_secs(3600);

/// What is known of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The database says the same, or it has nothing to say and nothing else was seen before.
    Good,
    /// It must be neither served nor kept. Why.
    Wrong(String),
    /// There is no verdict yet. Why.
    Pending(String),
}

/// The rules of one configuration.
#[derive(Debug)]
pub(super) struct Verify {
    /// If its key is known.
    database: Option<Arc<Database>>,
    mode: ChecksumMode,
    private: Patterns,
    pub(super) when_unavailable: WhenUnavailable,
    store: Store,
    metrics: Arc<Metrics>,
    /// When and why the database could not be asked, unless it answered since.
    away: Mutex<Option<(Instant, String)>>,
    /// What was seen first a while ago, by path: the volume may not have it yet, or take no more.
    first: moka::sync::Cache<String, Box<str>>,
}

/// A look-up that runs beside the download. Dropping it stops it.
pub(super) struct LookUp(JoinSet<Result<Sums, Missing>>);

impl LookUp {
    /// What the database says, within [`PATIENCE`].
    async fn answer(mut self) -> Result<Sums, Missing> {
        match tokio::time::timeout(PATIENCE, self.0.join_next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(error))) => Err(Missing::Unavailable(error.to_string())),
            Ok(None) => Err(Missing::Unavailable("nobody was asked".to_owned())),
            Err(_) => Err(Missing::Unavailable(format!("the checksum database did not answer within {} s", PATIENCE.as_secs()))),
        }
    }
}

impl Verify {
    /// A database that was there before goes on, with all that it has found out.
    pub(super) fn new(config: &ProxyConfig, store: &Store, metrics: &Arc<Metrics>, before: Option<&Self>) -> Result<Self, String> {
        let private = config.private().map_err(|e| e.to_string())?;
        let settings = config.checksum_database.as_ref();
        let mode = settings.map(|settings| settings.mode).unwrap_or_default();
        let database = match settings.map(|settings| verifier(&settings.name, settings.key.as_deref())) {
            Some(Ok(verifier)) => {
                let same = before.and_then(Self::database).filter(|database| *database.verifier() == verifier).cloned();
                Some(same.unwrap_or_else(|| Arc::new(Database::new(verifier, store.clone()))))
            }
            // Clients that have the key may use it all the same.
            Some(Err(_)) if mode == ChecksumMode::Relay => None,
            Some(Err(reason)) => return Err(reason),
            None => None,
        };
        let when_unavailable = settings.map(|settings| settings.when_unavailable).unwrap_or_default();
        let anew = || moka::sync::Cache::builder().max_capacity(MAX_FIRST).time_to_live(FIRST).build();
        let first = before.map_or_else(anew, |before| before.first.clone());
        let (store, metrics) = (store.clone(), Arc::clone(metrics));
        Ok(Self { database, mode, private, when_unavailable, store, metrics, away: Mutex::default(), first })
    }

    /// Whether a module must not be named to anybody outside. Never a toolchain, as Go has it: nobody else has those, and
    /// only the checksum database vouches for them.
    pub(super) fn is_private(&self, module: &ModulePath) -> bool {
        module.as_str() != TOOLCHAIN && self.private.matches(module.as_str())
    }

    /// The private modules.
    pub(super) fn private(&self) -> &Patterns {
        &self.private
    }

    /// The database whose answers can be proven.
    pub(super) fn database(&self) -> Option<&Arc<Database>> {
        self.database.as_ref()
    }

    /// Why the database can't be asked, if it can't.
    pub(super) fn database_trouble(&self) -> Option<String> {
        self.away().as_ref().filter(|(since, _)| since.elapsed() < AWAY).map(|(_, reason)| sentence(reason))
    }

    /// Takes over what the configuration before has found out.
    pub(super) fn take_over(&self, before: &Self) {
        if self.database.is_some() {
            self.away().clone_from(&before.away());
        }
    }

    /// A panic elsewhere leaves it as it was.
    fn away(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database that is asked about a version's zip or go.mod file, if one is.
    fn judge_of<'a>(&'a self, request: &'a Request) -> Option<(&'a Arc<Database>, &'a ModulePath, &'a Version)> {
        let (module, version) = summed(request)?;
        let database = self.database.as_ref().filter(|_| self.mode == ChecksumMode::Verify && !self.is_private(module))?;
        Some((database, module, version))
    }

    /// Whether a database is asked about this.
    pub(super) fn asks_about(&self, request: &Request) -> bool {
        self.judge_of(request).is_some()
    }

    /// Starts to ask the database, for what it has sums of: versions' zips and go.mod files.
    pub(super) fn look_up(&self, request: &Request, chain: &Arc<Chain>) -> Option<LookUp> {
        let (database, module, version) = self.judge_of(request)?;
        let database = Arc::clone(database);
        let (module, version, chain) = (module.clone(), version.clone(), Arc::clone(chain));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let ask = |path: String| {
                let chain = Arc::clone(&chain);
                async move { chain.fetch_sumdb(&path).await.map_err(|error| missing(&error)) }.boxed()
            };
            database.sums(&module, &version, &ask).await
        });
        Some(LookUp(task))
    }

    /// The verdict on a hash, within [`PATIENCE`].
    pub(super) async fn judge(&self, request: &Request, hash: &str, look_up: Option<LookUp>) -> Verdict {
        if summed(request).is_none() {
            return Verdict::Good;
        }
        let verdict = self.verdict(request, hash, look_up).await;
        self.count(request, &verdict);
        verdict
    }

    /// The same for one on which there was none. That there is none yet is not counted again.
    pub(super) async fn judge_again(&self, request: &Request, hash: &str, look_up: Option<LookUp>) -> Verdict {
        let verdict = self.verdict(request, hash, look_up).await;
        if !matches!(verdict, Verdict::Pending(_)) {
            self.count(request, &verdict);
        }
        verdict
    }

    async fn verdict(&self, request: &Request, hash: &str, look_up: Option<LookUp>) -> Verdict {
        match look_up {
            Some(look_up) => match look_up.answer().await {
                Ok(sums) => {
                    *self.away() = None;
                    compare(request, hash, &sums)
                }
                // It may be minutes old; and the 404 of a relay proves nothing.
                Err(missing) => {
                    *self.away() = (missing != Missing::Unknown).then(|| (Instant::now(), missing.to_string()));
                    Verdict::Pending(missing.to_string())
                }
            },
            None => self.compare_with_first(request, hash).await,
        }
    }

    /// The database's verdict on what was kept before anybody asked it.
    ///
    /// # Errors
    /// Why there is none. It is not held against the database: nobody waits for this one.
    pub(super) async fn judge_kept(&self, request: &Request, hash: &str, look_up: LookUp) -> Result<Verdict, Missing> {
        let verdict = compare(request, hash, &look_up.answer().await?);
        self.count(request, &verdict);
        Ok(verdict)
    }

    fn count(&self, request: &Request, verdict: &Verdict) {
        let label = match verdict {
            Verdict::Good => "good",
            Verdict::Wrong(reason) => {
                tracing::error!(request = %request.escaped(), reason, "a download was not what it should be");
                "wrong"
            }
            Verdict::Pending(reason) => {
                tracing::warn!(request = %request.escaped(), reason, "no verdict on a download");
                "pending"
            }
        };
        self.metrics.verifications.with_label_values(&[label]).inc();
    }

    /// For what no database vouches for: it must stay what it was.
    async fn compare_with_first(&self, request: &Request, hash: &str) -> Verdict {
        let file = self.first_seen(request);
        let (store, of) = (self.store.clone(), file.clone());
        let first = tokio::task::spawn_blocking(move || store.read_state(&of)).await;
        let kept = match first.unwrap_or_else(|stopped| Err(stopped.into())) {
            Ok(kept) => kept,
            Err(error) => return Verdict::Pending(format!("what this cache saw of it first can't be read: {error}")),
        };
        let path = request.escaped();
        // Hands may leave a file empty, or with a line's end.
        let kept = kept.map(|(kept, _)| String::from_utf8_lossy(kept.trim_ascii()).into_owned()).filter(|kept| !kept.is_empty());
        let first = match kept {
            Some(kept) => kept.into(),
            // The volume may take no more, and the version may change all the same.
            None => {
                let first = self.first.get_with_by_ref(path.as_str(), || hash.into());
                // Before the object, which is kept only if this stands there. Never this one's in its place, nor in that of what another
                // process saw: a changed version would be the first.
                self.store.commit_later_unless(Bytes::copy_from_slice(first.as_bytes()), file, |there| !there.trim_ascii().is_empty());
                first
            }
        };
        if *first == *hash {
            return Verdict::Good;
        }
        Verdict::Wrong(format!(
            "this cache saw {first} before, and now {hash}: the version was changed; if the first was wrong, remove .gomodcache/first-seen/{path}"
        ))
    }

    /// What an object must be to be kept, if no database is asked about it.
    pub(super) fn first(&self, request: &Request, hash: &str) -> Option<First> {
        let is_compared = summed(request).is_some() && !self.asks_about(request);
        is_compared.then(|| First { file: self.first_seen(request), hash: hash.to_owned() })
    }

    fn first_seen(&self, request: &Request) -> PathBuf {
        self.store.state_dir().join("first-seen").join(request.escaped())
    }
}

/// What a database has sums of.
fn summed(request: &Request) -> Option<(&ModulePath, &Version)> {
    match request {
        Request::Zip(module, version) | Request::Mod(module, version) if version.is_canonical() => Some((module, version)),
        _ => None,
    }
}

fn compare(request: &Request, hash: &str, sums: &Sums) -> Verdict {
    let wanted = if matches!(request, Request::Zip(..)) { &sums.zip } else { &sums.go_mod };
    match wanted {
        Some(wanted) if wanted == hash => Verdict::Good,
        Some(wanted) => Verdict::Wrong(format!("the checksum database says {wanted}, the upstream's is {hash}")),
        None => Verdict::Pending("the checksum database's record has no such line".to_owned()),
    }
}

pub(super) fn missing(error: &FetchError) -> Missing {
    match error {
        FetchError::NotFound { .. } => Missing::Unknown,
        error => Missing::Unavailable(format!("the checksum database can't be asked: {error}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sumdb::fake::{Fake, NAME, module};

    #[tokio::test]
    async fn a_new_configuration_knows_the_newest_tree_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::open(folder.path(), None, &metrics).unwrap();
        let (one, other) = (Fake::new(1, 100), Fake::forked(1, 105, 91));
        let yaml = format!("version: 1\nchecksumDatabase: {{name: {NAME}, key: {}}}", one.verifier());
        let verify = |before| Verify::new(&ProxyConfig::parse(&yaml).unwrap(), &store, &metrics, before).unwrap();
        // There is nothing on the volume yet.
        let before = verify(None);
        let after = verify(Some(&before));
        let (module, version) = module(7);
        before.database().unwrap().sums(&module, &version, &one.ask()).await.unwrap();
        let (module, version) = self::module(8);
        let refused = after.database().unwrap().sums(&module, &version, &other.ask()).await.unwrap_err();
        assert!(refused.to_string().contains("do not belong together"), "{refused}");
    }

    #[tokio::test]
    async fn a_download_that_waits_for_its_verdict_is_counted_once_and_when_it_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::open(folder.path(), None, &metrics).unwrap();
        let verify = Verify::new(&ProxyConfig::parse("version: 1").unwrap(), &store, &metrics, None).unwrap();
        let request = Request::parse("/corp.example/m/@v/v1.0.0.zip").unwrap();
        let says = |answer: Result<Sums, Missing>| {
            let mut task = JoinSet::new();
            task.spawn(async { answer });
            Some(LookUp(task))
        };
        let away = || says(Err(Missing::Unavailable("it is away".to_owned())));
        let counted = || ["pending", "good", "wrong"].map(|verdict| metrics.verifications.with_label_values(&[verdict]).get());
        assert!(matches!(verify.judge(&request, "h1:x", away()).await, Verdict::Pending(_)));
        for _ in 0..3 {
            assert!(matches!(verify.judge_again(&request, "h1:x", away()).await, Verdict::Pending(_)));
        }
        assert_eq!(counted(), [1, 0, 0]);
        let sums = |zip: &str| says(Ok(Sums { zip: Some(zip.to_owned()), go_mod: None }));
        assert_eq!(verify.judge_again(&request, "h1:x", sums("h1:x")).await, Verdict::Good);
        assert!(matches!(verify.judge_again(&request, "h1:x", sums("h1:y")).await, Verdict::Wrong(_)));
        assert_eq!(counted(), [1, 1, 1]);
    }

    #[tokio::test]
    async fn what_hands_wrote_of_what_was_seen_first_is_read_as_it_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let verify = || {
            let store = Store::open(folder.path(), None, &metrics).unwrap();
            Verify::new(&ProxyConfig::parse("version: 1").unwrap(), &store, &metrics, None).unwrap()
        };
        let request = Request::parse("/corp.example/m/@v/v1.0.0.zip").unwrap();
        let file = verify().first_seen(&request);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "h1:one\n").unwrap();
        assert_eq!(verify().judge(&request, "h1:one", None).await, Verdict::Good);
        assert!(matches!(verify().judge(&request, "h1:other", None).await, Verdict::Wrong(_)));
        for nothing in ["", "\n"] {
            std::fs::write(&file, nothing).unwrap();
            // Its store commits before it ends.
            assert_eq!(verify().judge(&request, "h1:other", None).await, Verdict::Good);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "h1:other");
        }
    }
}
