//! The processes between which a go command works: our upstream, and the proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Running, Serving, proxy, serve};
use crate::corpus::Corpus;

/// The upstream: the corpus, and a checksum database for it.
pub(crate) struct Mirror {
    pub(crate) url: String,
    /// Of the checksum database.
    pub(crate) key: String,
    address: String,
    _process: Running,
}

impl Mirror {
    pub(crate) fn start(corpus: &Corpus) -> Self {
        let binary = corpus.home().join("mirror");
        let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
        let built = Command::new("go").args(["build", "-o"]).arg(&binary).arg("./mirror").current_dir(oracle).status().unwrap();
        assert!(built.success());
        let mut process = Command::new(binary).arg(corpus.downloads()).args(["0ms", "sum.example"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (address, key) = (lines.next().expect("an address"), lines.next().expect("a key"));
        Self { url: format!("http://{address}"), key, address, _process: Running(process) }
    }

    /// The paths that it was asked for since it was last asked this, those of the checksum database left out.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /-/paths HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.lines().filter(|path| !path.is_empty()).map(str::to_owned).collect()
    }
}

/// A proxy as it is shipped, with a limit or without.
pub(crate) struct Proxy {
    pub(crate) url: String,
    cache: PathBuf,
    _process: Running,
    _config: tempfile::TempDir,
}

impl Proxy {
    pub(crate) fn start(cache: &Path, mirror: &Mirror, online: bool, limit: Option<u64>) -> Self {
        std::fs::create_dir_all(cache).unwrap();
        let config = tempfile::tempdir().unwrap();
        let upstreams = if online { format!(r#"[{{"url": "{}", "internal": true}}]"#, mirror.url) } else { "[]".to_owned() };
        let text = format!(
            r#"{{"version": 1, "upstreams": {upstreams}, "checksumDatabase": {{"name": "sum.example", "key": "{}", "mode": "Verify"}}}}"#,
            mirror.key
        );
        std::fs::write(config.path().join("proxy.yaml"), text).unwrap();
        let mut command = proxy(cache);
        command.arg("--config").arg(config.path().join("proxy.yaml"));
        if let Some(limit) = limit {
            command.args(["--cache-limit", &limit.to_string()]);
        }
        let Serving { process, modules, .. } = serve(command, &config.path().join("log"));
        Self { url: format!("http://{modules}"), cache: cache.to_owned(), _process: process, _config: config }
    }
}

impl Proxy {
    /// Waits until all that was downloaded is kept: commits follow the answers.
    pub(crate) fn settle(&self) {
        let arriving = self.cache.join(".gomodcache/tmp");
        let mut quiet = 0;
        for _ in 0..12_000 {
            quiet = if std::fs::read_dir(&arriving).is_ok_and(|mut files| files.next().is_none()) { quiet + 1 } else { 0 };
            if quiet == 20 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("files have been arriving for two minutes");
    }
}

/// Every object of a cache is what it should be.
pub(crate) fn verify(cache: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_gomodcache")).args(["verify", "--cache-dir"]).arg(cache).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
