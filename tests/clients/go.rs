//! One go command with nothing downloaded yet, and all that can be seen of what it did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cases::{Case, Task};
use crate::corpus::Corpus;
use crate::tree::{self, Digest};

/// `-mod=mod`: there is no go.sum, and the go command shall write one.
pub(crate) const FLAGS: &str = "-modcacherw -mod=mod";

pub(crate) struct Go<'a> {
    case: &'a Case,
    corpus: &'a Corpus,
    binary: PathBuf,
    work: PathBuf,
    gosumdb: &'a str,
}

/// What a go command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What it said, if it failed.
    pub(crate) error: Option<String>,
    stdout: String,
    go_mod: String,
    go_sum: String,
    /// The module cache, and what was installed.
    files: BTreeMap<PathBuf, Digest>,
}

impl<'a> Go<'a> {
    pub(crate) fn new(case: &'a Case, corpus: &'a Corpus, work: &Path, gosumdb: &'a str) -> Self {
        Self { case, corpus, binary: corpus.binary(case.client), work: work.to_owned(), gosumdb }
    }

    /// Always in the same folders, so that what names them is the same.
    pub(crate) fn run(&self, task: Task, goproxy: &str) -> Outcome {
        // The newest tree of the checksum database is kept below GOPATH.
        let [main, downloads, bin, go_path] = ["main", "client", "bin", "gopath"].map(|name| self.work.join(name));
        for folder in [&main, &downloads, &bin, &go_path] {
            let _not_there = std::fs::remove_dir_all(folder);
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(main.join("go.mod"), self.corpus.go_mod(self.case)).unwrap();
        let output = Command::new(&self.binary)
            .args(task.arguments())
            .current_dir(&main)
            .envs([("GOPROXY", goproxy), ("GOSUMDB", self.gosumdb), ("GOTOOLCHAIN", task.toolchain()), ("GOFLAGS", FLAGS)])
            .envs([("GOWORK", "off"), ("GONOPROXY", "none"), ("GONOSUMDB", "none"), ("GOVCS", "*:off"), ("GOENV", "off")])
            .env("GOMODCACHE", &downloads)
            .env("GOCACHE", self.corpus.builds())
            .envs([("GOBIN", &bin), ("GOPATH", &go_path)])
            .output()
            .unwrap();
        let read = |name| std::fs::read_to_string(main.join(name)).unwrap_or_default();
        let mut files = tree::digests(&downloads);
        files.retain(|path, _| is_from_the_proxy(path));
        files.extend(tree::digests(&bin));
        Outcome {
            error: (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            go_mod: read("go.mod"),
            go_sum: read("go.sum"),
            files,
        }
    }
}

/// The go command writes lists and locks of its own, and keeps tiles of the checksum database as they come.
fn is_from_the_proxy(path: &Path) -> bool {
    let own = path.starts_with("cache/download/sumdb") || path.starts_with("cache/lock") || path.ends_with("@v/list");
    !own && path.extension().is_none_or(|extension| extension != "lock")
}

impl Outcome {
    /// How many zips are in the module cache.
    pub(crate) fn modules(&self) -> usize {
        self.files.keys().filter(|path| path.starts_with("cache/download") && path.extension().is_some_and(|e| e == "zip")).count()
    }

    /// Fails if anything is not as it is in the other one.
    pub(crate) fn compare(&self, without: &Self, what: &str) {
        assert!(self.error.is_none(), "{what}: {}", self.error.as_deref().unwrap_or_default());
        for (name, ours, theirs) in [
            ("standard output", &self.stdout, &without.stdout),
            ("go.mod", &self.go_mod, &without.go_mod),
            ("go.sum", &self.go_sum, &without.go_sum),
        ] {
            let differing = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
            assert!(ours == theirs, "{what}: {name} is another one: {differing:?}; {} and {} bytes", ours.len(), theirs.len());
        }
        let paths = self.files.keys().chain(without.files.keys());
        let other: Vec<_> = paths.filter(|path| self.files.get(*path) != without.files.get(*path)).take(5).collect();
        assert!(other.is_empty(), "{what}: files differ or are missing: {other:?}");
    }
}
