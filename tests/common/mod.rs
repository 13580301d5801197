//! The proxy as a process of its own, for tests that kill it, trace it, or watch what it takes.
#![allow(dead_code, clippy::unwrap_used, reason = "a test, of which each takes what it needs")]

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with its test, by SIGKILL.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A proxy, and where it serves modules and its administrator: at ports that the kernel gave it, since one that is looked for first
/// may be another's a moment later. Nowhere, if it ended before.
pub(crate) struct Serving {
    pub(crate) process: Running,
    pub(crate) modules: String,
    pub(crate) admin: String,
}

/// The command of a proxy, to be told more.
pub(crate) fn proxy(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gomodcache"));
    command.args(["proxy", "--cache-dir"]).arg(cache);
    command
}

/// Starts a proxy with its log in a new file, and waits until it serves. Blocks.
pub(crate) fn serve(mut command: Command, log: &Path) -> Serving {
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut process = Running(command.stderr(std::fs::File::create(log).unwrap()).spawn().unwrap());
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some((modules, admin)) = addresses(log) {
            return Serving { process, modules, admin };
        }
        if process.0.try_wait().unwrap().is_some() {
            return Serving { process, modules: String::new(), admin: String::new() };
        }
        assert!(Instant::now() < until, "the proxy does not serve: {}", std::fs::read_to_string(log).unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the log says of them, as soon as it does.
pub(crate) fn addresses(log: &Path) -> Option<(String, String)> {
    let log = std::fs::read_to_string(log).ok()?;
    let line = log.lines().find(|line| line.contains("\"message\":\"serving\""))?;
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    Some((said.get("modules")?.as_str()?.to_owned(), said.get("admin")?.as_str()?.to_owned()))
}
