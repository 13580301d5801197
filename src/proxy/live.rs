//! The configuration in use. Once a second the mounted directories are read again; what changed becomes a new source chain
//! and requests in flight finish with the old one. What can't be used is reported once, and the last good one goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use super::mounted::{Late, Look, Seen, naming, read_folder};
use super::policy::Policy;
use super::verify::Verify;
use super::{Error, Settings};
use crate::config::{
    ADMIN_TOKEN_KEY, CONFIG_DIR, CREDENTIAL_KEY_PREFIX, CREDENTIALS_DIR, Credential, GENERATION_KEY, LookAhead, ProxyConfig, Resolution,
    Versions,
};
use crate::report::{Refused, config_digest, sentence};
use crate::source::{Chain, Journal, from_environment};
use crate::store::Store;
use crate::telemetry::Metrics;

const POLL: Duration = Duration::from_secs(1);
/// How long after a volume did not take the last good configuration it is offered again.
const REMEMBER_AGAIN: Duration = Duration::from_secs(5);

/// The chain in use and where it came from.
pub(super) struct Live {
    sources: ArcSwap<Sources>,
    files: Option<Files>,
    /// What [`Live::load`] saw: a change since then is a change.
    first_look: Look,
    /// What was seen last, if it can't be used.
    refused: Mutex<Option<Refused>>,
    /// The command line's, for configurations without one.
    cache_limit: Option<u64>,
    lasting: Lasting,
}

/// What outlives every configuration.
#[derive(Clone)]
pub(super) struct Lasting {
    pub(super) store: Store,
    pub(super) memory: Arc<Memory>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) journal: Arc<Journal>,
    pub(super) config_versions: Versions,
}

struct Files {
    config: PathBuf,
    credentials: PathBuf,
    last_good: PathBuf,
    versions: Versions,
    store: Store,
}

/// What one configuration makes.
pub(super) struct Sources {
    /// All that decides on answers: if it changes, what was answered before may be wrong.
    decides: (ProxyConfig, BTreeMap<String, Credential>),
    /// The name of all that decides on answers, the same in each process and after a restart.
    pub(super) origin: String,
    pub(super) chain: Arc<Chain>,
    pub(super) verify: Arc<Verify>,
    cache_limit: Option<u64>,
    look_ahead: LookAhead,
    policy: Arc<Policy>,
    admin_token: Option<Vec<u8>>,
    /// How many addresses each pinned host has.
    pinned: BTreeMap<String, usize>,
    in_use: InUse,
}

/// The names of what is in use.
#[derive(Clone, Debug, Default)]
pub(super) struct InUse {
    /// [`config_digest`] of the file; empty without one.
    pub(super) config: String,
    /// The generation of the credentials.
    pub(super) credentials: String,
}

impl Live {
    pub(super) async fn load(settings: &Settings, lasting: Lasting) -> Result<Self, Error> {
        let Some(config) = &settings.config else {
            let (config, credentials) = from_environment(settings.listen, &settings.redirect_hosts).await?;
            let sources = Sources::new(config, credentials, None, InUse::default(), &lasting, None).map_err(Error::Source)?;
            let live = Self {
                sources: ArcSwap::from_pointee(sources),
                files: None,
                first_look: Look::default(),
                refused: Mutex::default(),
                cache_limit: settings.cache_limit,
                lasting,
            };
            live.instruct_store();
            return Ok(live);
        };
        let files = Files {
            config: config.clone(),
            credentials: credentials_dir(config),
            versions: lasting.config_versions.clone(),
            last_good: lasting.store.state_dir().join("last-good.yaml"),
            store: lasting.store.clone(),
        };
        // A configuration that can't be read is like a bad one; credentials that can't be are worth another start.
        let credentials = read_folder(&files.credentials).map_err(Error::Unreadable)?;
        let look = Look { config: files.config().unwrap_or_default(), credentials };
        let mut refused = None;
        let sources = match sources_of(&look, &lasting, None) {
            Ok(sources) => sources,
            // A bad ConfigMap must not stop a restart.
            Err(error) => {
                let last_good = files.store.read_state(&files.last_good).ok().flatten();
                let Some(text) = last_good.and_then(|(bytes, _)| String::from_utf8(bytes.to_vec()).ok()) else {
                    ProxyConfig::read(config)?;
                    return Err(Error::Source(error));
                };
                tracing::error!(error, "the configuration can't be used; going on with the last good one");
                lasting.metrics.reload_failures.inc();
                let last = Look { config: text, credentials: look.credentials.clone() };
                refused = Some(look.refused(&error));
                sources_of(&last, &lasting, None).map_err(Error::Source)?
            }
        };
        let live = Self {
            sources: ArcSwap::from_pointee(sources),
            files: Some(files),
            first_look: look,
            refused: Mutex::new(refused),
            cache_limit: settings.cache_limit,
            lasting,
        };
        live.publish();
        live.chain().publish_expiries();
        live.instruct_store();
        Ok(live)
    }

    /// What is in use now, all of one configuration.
    pub(super) fn sources(&self) -> Arc<Sources> {
        self.sources.load_full()
    }

    /// The sources in use now.
    pub(super) fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.sources.load().chain)
    }

    /// The rules of verification in use now.
    pub(super) fn verify(&self) -> Arc<Verify> {
        Arc::clone(&self.sources.load().verify)
    }

    /// What clients may have.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.sources.load().policy)
    }

    /// What opens the endpoints that name modules.
    pub(super) fn admin_token(&self) -> Option<Vec<u8>> {
        self.sources.load().admin_token.clone()
    }

    /// The names of the configuration and the credentials in use now.
    pub(super) fn in_use(&self) -> InUse {
        self.sources.load().in_use.clone()
    }

    /// The versions of the configuration that are read.
    pub(super) fn config_versions(&self) -> &Versions {
        &self.lasting.config_versions
    }

    /// What was seen last, if it can't be used.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_refused(&self, refused: Option<Refused>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// How far to look ahead.
    pub(super) fn look_ahead(&self) -> LookAhead {
        self.sources.load().look_ahead
    }

    /// Tells the store what it may hold, and what goes last. The command line's limit stands unless the configuration has one.
    fn instruct_store(&self) {
        let sources = self.sources.load();
        self.lasting.store.set_limit(sources.cache_limit.or(self.cache_limit));
        self.lasting.store.set_private(sources.verify.private().clone());
    }

    /// Follows the files until the token is cancelled.
    pub(super) async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let Some(files) = &self.files else { return };
        let mut last = Seen { look: self.first_look.clone(), refused: self.refused().map(|_| Instant::now()) };
        let (mut unreadable, mut late) = (None, Late::default());
        // Beside the rest: a volume that hangs, or that is being counted, must not hold up a new password.
        let mut remembering = JoinSet::new();
        if self.refused().is_none() {
            remembering.spawn(Arc::clone(&self).remember(last.look.clone()));
        }
        while shutdown.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
            let look = match files.look() {
                Ok(look) => look,
                Err(error) => {
                    let error = Some(error.to_string());
                    if error != unreadable {
                        tracing::warn!(error, "the mounted files can't be read; what is in use stays");
                        unreadable = error;
                    }
                    continue;
                }
            };
            unreadable = None;
            if !last.calls_for(&look, Instant::now()) {
                late = Late::default();
                continue;
            }
            let lacks = look.config != last.look.config && look.lacks_credentials(&self.lasting.config_versions);
            if late.waits(lacks, Instant::now()) {
                continue;
            }
            let before = self.sources.load_full();
            match sources_of(&look, &self.lasting, Some(&before.verify)) {
                Ok(sources) => {
                    sources.chain.take_over(&before.chain);
                    sources.verify.take_over(&before.verify);
                    let answers_may_differ = sources.decides != before.decides;
                    self.sources.store(Arc::new(sources));
                    self.set_refused(None);
                    self.instruct_store();
                    // After the swap: what the old chain answered must not outlive it. Where addresses change every few minutes, no
                    // long download would ever be kept, were they a reason.
                    if answers_may_differ {
                        self.lasting.memory.clear();
                    }
                    // Only the newest is worth keeping.
                    remembering.shutdown().await;
                    remembering.spawn(Arc::clone(&self).remember(look.clone()));
                    self.publish();
                    tracing::info!("configuration reloaded");
                }
                Err(error) => {
                    let refused = Some(look.refused(&error));
                    // What is tried again and is no better was told before.
                    if refused != self.refused() {
                        self.lasting.metrics.reload_failures.inc();
                        self.set_refused(refused);
                        tracing::error!(error, "the new configuration can't be used; the running one stays");
                    }
                }
            }
            last = Seen { look, refused: self.refused().map(|_| Instant::now()) };
        }
    }

    /// Keeps a configuration that was good, for a start at which there is none.
    async fn remember(self: Arc<Self>, look: Look) {
        let Some(files) = &self.files else { return };
        let text = Bytes::from(look.config);
        let (store, last_good) = (files.store.clone(), files.last_good.clone());
        let kept = tokio::task::spawn_blocking(move || store.read_state(&last_good)).await;
        if kept.is_ok_and(|kept| kept.is_ok_and(|kept| kept.is_some_and(|(kept, _)| kept == text))) {
            return;
        }
        while let Err(error) = files.store.commit_bytes(text.clone(), None, files.last_good.clone()).await {
            tracing::warn!(%error, "can't keep the last good configuration; trying again in {} s", REMEMBER_AGAIN.as_secs());
            // One that is older may allow what this one denies: then none is better.
            let _there_may_be_none = tokio::fs::remove_file(&files.last_good).await;
            tokio::time::sleep(REMEMBER_AGAIN).await;
        }
    }

    fn publish(&self) {
        let InUse { config, credentials } = self.in_use();
        self.lasting.metrics.config_info.reset();
        self.lasting.metrics.config_info.with_label_values(&[config, credentials]).set(1);
        let addresses = &self.lasting.metrics.egress_addresses;
        addresses.reset();
        for (host, count) in &self.sources.load().pinned {
            addresses.with_label_values(&[host]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}

impl Look {
    fn names(&self) -> InUse {
        let generation = self.credentials.get(GENERATION_KEY).map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        InUse { config: config_digest(&self.config), credentials: generation.unwrap_or_default() }
    }

    /// Whether it names a credential that is not there. One that can't be read is no better for waiting.
    fn lacks_credentials(&self, versions: &Versions) -> bool {
        let is_missing = |name: &str| !self.credentials.contains_key(&format!("{CREDENTIAL_KEY_PREFIX}{name}"));
        ProxyConfig::parse_any(&self.config, versions).is_ok_and(|config| config.credentials().any(is_missing))
    }

    fn refused(&self, error: &str) -> Refused {
        let InUse { config, credentials } = self.names();
        Refused { config, credentials, reason: sentence(error) }
    }
}

impl Files {
    fn config(&self) -> std::io::Result<String> {
        self.versions.newest_text(&self.config).map_err(|error| naming(&self.config, &error))
    }

    fn look(&self) -> std::io::Result<Look> {
        Ok(Look { config: self.config()?, credentials: read_folder(&self.credentials)? })
    }
}

/// Does not touch the volume for a database that the configuration before had, too: where a volume hangs, a new password must
/// not wait for it.
fn sources_of(look: &Look, lasting: &Lasting, before: Option<&Verify>) -> Result<Sources, String> {
    let config = ProxyConfig::parse_any(&look.config, &lasting.config_versions).map_err(|e| e.to_string())?;
    let mut credentials = BTreeMap::new();
    for (key, bytes) in &look.credentials {
        let Some(name) = key.strip_prefix(CREDENTIAL_KEY_PREFIX) else { continue };
        // The parser's words could quote the content, so they are not passed on.
        let credential: Credential = serde_json::from_slice(bytes).map_err(|_| format!("the credential {name} is malformed"))?;
        credentials.insert(name.to_owned(), credential);
    }
    Sources::new(config, credentials, look.credentials.get(ADMIN_TOKEN_KEY).cloned(), look.names(), lasting, before)
}

impl Sources {
    fn new(
        config: ProxyConfig,
        credentials: BTreeMap<String, Credential>,
        admin_token: Option<Vec<u8>>,
        in_use: InUse,
        lasting: &Lasting,
        before: Option<&Verify>,
    ) -> Result<Self, String> {
        let Lasting { store, metrics, journal, .. } = lasting;
        let chain = Arc::new(Chain::new(&config, &credentials, metrics, journal)?);
        let verify = Arc::new(Verify::new(&config, store, metrics, before)?);
        let (cache_limit, look_ahead, policy, pinned) =
            (config.cache_limit, config.look_ahead, Arc::new(Policy::new(&config)?), pinned(&config.resolution));
        // Neither where a host is found nor how much may be kept makes an answer another one.
        let decides = ProxyConfig { resolution: Resolution::default(), cache_limit: None, ..config };
        let text = serde_json::to_string(&decides).map_err(|error| error.to_string())?;
        // Of the credentials only the name: a digest of a short password would tell it.
        let origin = config_digest(&(text + &in_use.credentials));
        let decides = (decides, credentials);
        Ok(Self { decides, origin, chain, verify, cache_limit, look_ahead, policy, admin_token, pinned, in_use })
    }
}

fn pinned(resolution: &Resolution) -> BTreeMap<String, usize> {
    match resolution {
        Resolution::System { .. } => BTreeMap::new(),
        Resolution::Pinned { hosts } => hosts.iter().map(|pin| (pin.host.clone(), pin.addresses.len())).collect(),
    }
}

/// Beside the configuration's directory, as the pod mounts them.
fn credentials_dir(config: &Path) -> PathBuf {
    match config.parent() {
        Some(parent) if parent == Path::new(CONFIG_DIR) => PathBuf::from(CREDENTIALS_DIR),
        Some(parent) => parent.join("../credentials"),
        None => PathBuf::from(CREDENTIALS_DIR),
    }
}
