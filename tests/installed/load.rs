//! What builds ask of two caches, and what their two upstreams answer, with every fault that a dashboard tells apart.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gomodcache::config::{Fallback, LookAhead, PinnedHost, Policy, ProxyConfig, Resolution};

use crate::stage::{Stage, client, config, entry};
use crate::upstream::{Answer, Asked, Upstream, zip_of};

/// How many modules each upstream has: more than the limit of a cache holds.
const MODULES: u64 = 400;

/// Two caches with the same upstreams. A company's own modules come from one, all others from the other.
pub(crate) struct Caches {
    pub(crate) build: Arc<Stage>,
    pub(crate) nightly: Arc<Stage>,
    _upstreams: [Upstream; 2],
}

/// Starts them. Each may hold so many bytes.
pub(crate) async fn caches(limit: u64) -> Caches {
    let company = Upstream::start(|asked: &Asked| answer("corp.example/", asked)).await;
    let world = Upstream::start(|asked: &Asked| answer("", asked)).await;
    let upstream = |host: &str, upstream: &Upstream| entry(&format!("http://{host}:{}", upstream.address.port()), Fallback::OnNotFound);
    let pinned = |host: &str, upstream: &Upstream| PinnedHost { host: host.to_owned(), addresses: vec![upstream.address.ip()] };
    let (hers, theirs) = ("modules.corp.example", "mirror.example");
    let wanted = ProxyConfig {
        upstreams: vec![
            gomodcache::config::Upstream { credential: Some("corp".to_owned()), ..upstream(hers, &company) },
            upstream(theirs, &world),
        ],
        cache_limit: Some(limit),
        policy: Policy { deny: vec!["denied.example/*".to_owned()], ..Policy::default() },
        look_ahead: LookAhead::All,
        resolution: Resolution::Pinned { hosts: vec![pinned(hers, &company), pinned(theirs, &world)] },
        ..config(&[])
    };
    let build = Arc::new(Stage::prepared(&wanted, credentials).await);
    let nightly = Arc::new(Stage::prepared(&wanted, credentials).await);
    Caches { build, nightly, _upstreams: [company, world] }
}

fn credentials(folder: &Path) {
    let folder = folder.join("credentials");
    std::fs::write(folder.join("generation"), "1f3a9c").unwrap();
    std::fs::write(folder.join("credential.corp"), r#"{"hosts": ["modules.corp.example"], "secret": {"token": "t"}}"#).unwrap();
}

/// The module's name says what becomes of it.
fn answer(prefix: &str, asked: &Asked) -> Answer {
    let Some((module, file)) = asked.path.trim_start_matches('/').split_once("/@") else { return Answer::not_found() };
    if !module.starts_with(prefix) || prefix.is_empty() && module.starts_with("corp.example/") {
        return Answer::not_found();
    }
    let (version, kind) = file.strip_prefix("v/").and_then(|file| file.rsplit_once('.')).unwrap_or((file, ""));
    let kind_of_module = module.rsplit('/').next().unwrap_or_default().trim_end_matches(|letter: char| letter.is_ascii_digit());
    let info = format!(r#"{{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z","Origin":{{"URL":"{module}"}}}}"#);
    match (kind_of_module, kind) {
        ("secret", _) => Answer::new("401 Unauthorized", "who are you?"),
        ("broken", _) => Answer::new("500 Internal Server Error", ""),
        ("popular", _) => Answer::new("429 Too Many Requests", "").with("Retry-After", "1"),
        ("silent", _) => Answer::ok("").silent_after(0),
        ("absent", _) => Answer::not_found(),
        (_, "info") => Answer::ok(info),
        (_, "mod") => Answer::ok(format!("module {module}\n")),
        (_, "zip") => Answer::ok(zip_of(module, version, size(module))).with("Content-Type", "application/zip"),
        _ if file == "latest" => Answer::ok(info),
        _ if file == "v/list" => Answer::ok("v1.0.0\n"),
        _ => Answer::not_found(),
    }
}

/// 20 to 400 KiB, always the same for a module.
fn size(module: &str) -> usize {
    20_000 + module.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % 380_000
}

/// Clients ask for so long. They ask most in the middle, and in the last third the upstreams are ill.
pub(crate) async fn run(caches: &Caches, duration: Duration) {
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..6_u64 {
        let stage = Arc::clone(if number < 4 { &caches.build } else { &caches.nightly });
        clients.spawn(async move {
            let mut numbers = Numbers(number * 7919 + 1);
            while let done @ ..1.0 = started.elapsed().as_secs_f64() / duration.as_secs_f64() {
                ask(&stage, &mut numbers, done).await;
                let pause = 0.25 - 0.2 * (done * std::f64::consts::PI).sin();
                tokio::time::sleep(Duration::from_secs_f64(pause * (0.5 + numbers.unit()))).await;
            }
        });
    }
    for stage in [&caches.build, &caches.nightly] {
        let stage = Arc::clone(stage);
        clients.spawn(async move {
            let mut numbers = Numbers(4711);
            ask_for_trouble(&stage).await;
            while started.elapsed() < duration {
                go_mod_download(&stage, &mut numbers).await;
                tokio::time::sleep(duration / 12).await;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// As a build asks: mostly for what many ask for.
async fn ask(stage: &Stage, numbers: &mut Numbers, done: f64) {
    let number = (numbers.unit().powi(4) * f64::from(u32::try_from(MODULES).unwrap())).floor();
    let chance = numbers.unit() * if (0.66..0.85).contains(&done) { 0.2 } else { 1.0 };
    let module = match chance {
        ..0.003 => format!("corp.example/secret{number}"),
        ..0.008 => format!("corp.example/broken{number}"),
        ..0.01 => format!("oss.example/silent{number}"),
        ..0.014 => format!("oss.example/popular{number}"),
        ..0.03 => format!("oss.example/absent{}", number % 3.0),
        ..0.04 => format!("denied.example/m{number}"),
        ..0.4 => format!("corp.example/m{number}"),
        _ => format!("oss.example/m{number}"),
    };
    let files: &[&str] = if numbers.unit() < 0.2 { &["v/list", "latest"] } else { &["v/v1.0.0.info", "v/v1.0.0.mod", "v/v1.0.0.zip"] };
    get(stage, &module, files).await;
}

/// Every fault at once, whatever chance has in store.
async fn ask_for_trouble(stage: &Stage) {
    let faults = ["corp.example/secret", "corp.example/broken", "oss.example/silent", "oss.example/popular", "denied.example/m"];
    futures::future::join_all(faults.map(|module| get(stage, module, &["v/v1.0.0.info"]))).await;
}

async fn get(stage: &Stage, module: &str, files: &[&str]) {
    let client = client();
    for file in files {
        if let Ok(answer) = client.get(format!("{}/{module}/@{file}", stage.url)).send().await {
            let _cut_off_or_not = answer.bytes().await;
        }
    }
}

/// The real go command with nothing downloaded yet, for a few modules that hardly anybody asks for.
async fn go_mod_download(stage: &Stage, numbers: &mut Numbers) {
    let folder = tempfile::tempdir().unwrap();
    let modules: Vec<u64> = (0..8).map(|_| numbers.next() % MODULES).collect();
    let required: String = modules.iter().map(|number| format!("require oss.example/m{number} v1.0.0\n")).collect();
    std::fs::write(folder.path().join("go.mod"), format!("module main.example\n\ngo 1.21\n\n{required}")).unwrap();
    let output = tokio::process::Command::new("go")
        .args(["mod", "download"])
        .current_dir(folder.path())
        .envs([
            ("GOPROXY", stage.url.as_str()),
            ("GOSUMDB", "off"),
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", "-modcacherw"),
            ("GOVCS", "*:off"),
        ])
        .env("GOMODCACHE", folder.path().join("modcache"))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // While the mirror is held back, builds fail with our words.
    assert!(output.status.success() || said.contains("502 Bad Gateway") || said.contains("504 Gateway Timeout"), "{said}");
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX)
    }
}
