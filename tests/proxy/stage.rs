//! The real proxy process, started for one test, and the ways to look at it: as a client, through its metrics, its log and
//! its folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use gomodcache::config::{CONFIG_VERSION, Fallback, LookAhead, Policy, ProxyConfig, Resolution, Timeouts};
use reqwest::header::HeaderMap;

use crate::common::serving;
use crate::upstream::Upstream;

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy, its folder and its configuration.
pub(crate) struct Stage {
    process: Child,
    pub(crate) url: String,
    admin: String,
    folder: tempfile::TempDir,
    cache: PathBuf,
}

/// What a client got.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `None`: it was cut off, and the client knows.
    pub(crate) body: Option<Vec<u8>>,
}

/// Bodies may be long.
impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(body) = &self.body else { return write!(f, "{} {:?}, cut off", self.status, self.headers) };
        let beginning = String::from_utf8_lossy(&body[..body.len().min(200)]);
        write!(f, "{} {:?}, {} bytes: {beginning}", self.status, self.headers, body.len())
    }
}

impl Got {
    /// Whether it is a 200 with this very body, complete.
    pub(crate) fn is(&self, body: &[u8]) -> bool {
        self.status == 200 && self.body.as_deref() == Some(body)
    }

    /// What is refused comes as an error, or breaks off where its head was sent before: which of them is a matter of time.
    pub(crate) fn is_complete(&self) -> bool {
        self.status == 200 && self.body.is_some()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone().expect("a whole body")).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// A configuration with these upstreams, all internal.
pub(crate) fn config(upstreams: &[&Upstream]) -> ProxyConfig {
    let upstreams = upstreams.iter().map(|upstream| entry(&upstream.url(), Fallback::OnNotFound)).collect();
    ProxyConfig {
        version: CONFIG_VERSION,
        upstreams,
        checksum_database: None,
        private_modules: Vec::new(),
        cache_limit: None,
        policy: Policy::default(),
        // What an upstream was asked for is what the client asked for.
        look_ahead: LookAhead::Disabled,
        resolution: Resolution::default(),
        http_proxy: None,
    }
}

/// One upstream of a configuration. It may be silent for longer than a test is on a busy machine.
pub(crate) fn entry(url: &str, fallback: Fallback) -> gomodcache::config::Upstream {
    let patience = Duration::from_secs(10);
    gomodcache::config::Upstream {
        url: url.parse().unwrap(),
        fallback,
        credential: None,
        redirect_hosts: Vec::new(),
        internal: true,
        ca_bundle: None,
        timeouts: Timeouts { connect: patience, head: patience, idle: patience },
    }
}

impl Stage {
    pub(crate) async fn start(config: &ProxyConfig) -> Self {
        Self::prepared(config, |_| {}).await
    }

    /// Does something to the stage's folder first: `config/`, `credentials/` and `cache/` lie in it.
    pub(crate) async fn prepared(config: &ProxyConfig, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config", "credentials", "cache"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let cache = folder.path().join("cache");
        Self::in_folder(folder, cache, config, prepare).await
    }

    /// With more on its command line.
    pub(crate) async fn with_args(config: &ProxyConfig, args: &[&str]) -> Self {
        let mut stage = Self::start(config).await;
        stage.process.kill().unwrap();
        stage.process.wait().unwrap();
        (stage.process, stage.url, stage.admin) = spawn(stage.folder.path(), &stage.cache, None, args).await;
        stage
    }

    /// By GOPROXY, and without a configuration file.
    pub(crate) async fn alone(goproxy: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let (process, url, admin) = spawn(folder.path(), &cache, Some(goproxy), args).await;
        Self { process, url, admin, folder, cache }
    }

    /// With its cache on a file system of its own.
    pub(crate) async fn on_volume(config: &ProxyConfig, volume: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config", "credentials"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self::in_folder(folder, volume.to_owned(), config, |_| {}).await
    }

    async fn in_folder(folder: tempfile::TempDir, cache: PathBuf, config: &ProxyConfig, prepare: impl FnOnce(&Path)) -> Self {
        write_config(folder.path(), config);
        prepare(folder.path());
        let (process, url, admin) = spawn(folder.path(), &cache, None, &[]).await;
        Self { process, url, admin, folder, cache }
    }

    /// Ends the process, as `kill -9` does, and starts it anew on the same folder.
    pub(crate) async fn restart(&mut self, config: &ProxyConfig) {
        self.restart_as_is(|folder| write_config(folder, config)).await;
    }

    /// The same, with something done to the stage's folder in between.
    pub(crate) async fn restart_as_is(&mut self, prepare: impl FnOnce(&Path)) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        prepare(self.folder.path());
        (self.process, self.url, self.admin) = spawn(self.folder.path(), &self.cache, None, &[]).await;
    }

    pub(crate) fn configure(&self, config: &ProxyConfig) {
        write_config(self.folder.path(), config);
    }

    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Where `config/`, `credentials/` and `cache/` lie.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.request(reqwest::Method::GET, path).await
    }

    pub(crate) async fn request(&self, method: reqwest::Method, path: &str) -> Got {
        let response = match client().request(method, format!("{}{path}", self.url)).send().await {
            // What is cut off at once takes its head along, if that was not sent yet.
            Err(error) if !error.is_connect() => return Got { status: 0, headers: HeaderMap::new(), body: None },
            response => response.unwrap(),
        };
        let (status, mut headers) = (response.status().as_u16(), response.headers().clone());
        headers.remove("date");
        Got { status, headers, body: response.bytes().await.ok().map(|bytes| bytes.to_vec()) }
    }

    /// A file of `corp.example/Tea`.
    pub(crate) async fn tea(&self, file: &str) -> Got {
        self.get(&format!("/corp.example/!tea/@v/{file}")).await
    }

    /// Sums up the samples of a metric that have these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = client().get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap();
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let matching = text.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        matching.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The classes of upstream requests that were counted, each once, in order.
    pub(crate) async fn classes(&self) -> Vec<String> {
        let text = client().get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with("gomodcache_upstream_requests_total{"));
        let mut classes: Vec<String> =
            lines.filter_map(|line| Some(line.split_once("class=\"")?.1.split_once('"')?.0.to_owned())).collect();
        classes.sort();
        classes.dedup();
        classes
    }

    /// Where an object of the cache is or would be.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.cache.join(below)
    }

    /// Whether a file of `corp.example/Tea` is visible in the cache now.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.path("corp.example/!tea/@v").join(file).exists()
    }

    /// Waits until an object is visible: commits follow the answers within a moment.
    pub(crate) async fn kept(&self, below: &str) {
        let path = self.path(below);
        eventually(&format!("{below} in the cache"), async || path.exists()).await;
    }

    /// Every file below the cache's folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.cache.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }

    /// Everything that the process has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// How many lines of its access log have these fields.
    pub(crate) fn access(&self, fields: &serde_json::Value) -> usize {
        let lines = self.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let fields = fields.as_object().unwrap();
        lines.filter(|line| line["target"] == "access" && fields.iter().all(|(name, value)| line[name] == *value)).count()
    }

    /// The most memory that the process had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) async fn is_ready(&self) -> bool {
        client().get(format!("{}/readyz", self.admin)).send().await.is_ok_and(|response| response.status().is_success())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..400 {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the process did not end");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(std::time::Instant::now() < until, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client that follows no redirect and unpacks nothing.
pub(crate) fn client() -> reqwest::Client {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn write_config(folder: &Path, config: &ProxyConfig) {
    let text = config.to_yaml().unwrap();
    assert_eq!(ProxyConfig::parse(&text).unwrap(), *config);
    put(&folder.join("config/proxy.yaml"), &text);
}

/// Puts a file in its place as a whole: a proxy may look at any moment, though not at names that begin with a dot.
pub(crate) fn put(path: &Path, text: &str) {
    let new = path.with_file_name(format!(".{}", path.file_name().unwrap().display()));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

async fn spawn(folder: &Path, cache: &Path, goproxy: Option<&str>, args: &[&str]) -> (Child, String, String) {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut process = Command::new("sh");
    // With as few descriptors as a container has at first, whatever this machine allows.
    process
        .args(["-c", "ulimit -S -n 1024 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gomodcache")])
        .args(["proxy", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--cache-dir"])
        .arg(cache)
        .args(args)
        // A secret must not be in any log that a user can turn on.
        .env("RUST_LOG", "trace")
        .stderr(Stdio::from(log));
    match goproxy {
        Some(goproxy) => process.envs([("GOPROXY", goproxy), ("GOSUMDB", "off")]),
        None => process.arg("--config").arg(folder.join("config/proxy.yaml")),
    };
    let process = process.spawn().unwrap();
    let mut found = None;
    eventually("the proxy's addresses in its log", async || {
        found = serving(&std::fs::read_to_string(folder.join("log")).unwrap());
        found.is_some()
    })
    .await;
    let url = |of: &str| format!("http://{}", found.as_ref().unwrap()[of].as_str().unwrap());
    (process, url("modules"), url("admin"))
}
