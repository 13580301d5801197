//! The program as a process of its own, for tests that kill it, trace it, or watch what it takes.
#![allow(dead_code, clippy::unwrap_used, reason = "a test, of which each takes what it needs")]

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

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
    let (process, said) = start(command, log);
    let address = |of: &str| said.as_ref().map_or_else(String::new, |said| said[of].as_str().unwrap().to_owned());
    Serving { process, modules: address("modules"), admin: address("admin") }
}

/// Starts a process with its log in a new file, and waits until that says where it serves, or nothing if the process ended before.
/// Blocks.
pub(crate) fn start(mut command: Command, log: &Path) -> (Running, Option<Value>) {
    let mut process = Running(command.stderr(std::fs::File::create(log).unwrap()).spawn().unwrap());
    let until = Instant::now() + PATIENCE;
    loop {
        let has_ended = process.0.try_wait().unwrap().is_some();
        let text = std::fs::read_to_string(log).unwrap();
        let said = serving(&text);
        if said.is_some() || has_ended {
            return (process, said);
        }
        assert!(Instant::now() < until, "the process does not serve: {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a log says of where its process serves, as soon as it does.
pub(crate) fn serving(log: &str) -> Option<Value> {
    let line = log.lines().find(|line| line.contains("\"message\":\"serving\""))?;
    serde_json::from_str(line).ok()
}
