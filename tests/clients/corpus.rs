//! The modules that the cases need, downloaded once.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cases::{Case, Task};
use crate::go;

pub(crate) struct Corpus {
    home: PathBuf,
}

impl Corpus {
    pub(crate) fn open() -> Self {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
        let home = base.join("gomodcache-clients");
        std::fs::create_dir_all(home.join("fetched")).unwrap();
        Self { home }
    }

    /// In the layout of a GOPROXY.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.home.join("mod/cache/download")
    }

    /// A folder on a real disk.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Compiled packages, which all runs share: what is compared is their result.
    pub(crate) fn builds(&self) -> PathBuf {
        self.home.join("build")
    }

    /// Lets the go command do through the world's proxy what it will do through ours.
    pub(crate) fn fetch(&self, case: &Case) {
        let name = format!("{} {} {} {:?}", case.client, case.module, case.install, case.switch).replace('/', "_");
        let marker = self.home.join("fetched").join(name);
        if marker.exists() {
            return;
        }
        eprintln!("downloading {case}, once");
        let work = tempfile::tempdir_in(&self.home).unwrap();
        std::fs::write(work.path().join("go.mod"), "module fetch.example\n").unwrap();
        let toolchains = [Some(case.client), case.switch].into_iter().flatten().filter(|name| *name != "local");
        for toolchain in toolchains.map(|name| format!("golang.org/toolchain@v0.0.1-{name}.{}-{}", env("GOOS"), env("GOARCH"))) {
            self.world("go", work.path(), &["mod", "download", &toolchain]).expect("a toolchain");
        }
        let binary = self.binary(case.client);
        self.world("go", work.path(), &["mod", "download", case.module]).expect("the module");
        for task in case.tasks() {
            std::fs::write(work.path().join("go.mod"), self.go_mod(case)).unwrap();
            let _gone = std::fs::remove_file(work.path().join("go.sum"));
            let done = match task {
                Task::Switch(_) => Ok(()),
                _ => self.world(binary.to_str().unwrap(), work.path(), &task.arguments()),
            };
            // A mirror may lack an update of a module that nobody downloads; what is there is what our mirror has.
            if let Err(error) = done {
                assert!(task == Task::ListUpdates, "{case}: {task}: {error}");
            }
        }
        std::fs::write(marker, "").unwrap();
    }

    /// The go.mod file of the case's module.
    pub(crate) fn go_mod(&self, case: &Case) -> Vec<u8> {
        let (path, version) = case.module.split_once('@').unwrap();
        std::fs::read(self.downloads().join(path).join("@v").join(format!("{version}.mod"))).unwrap()
    }

    /// The go command itself, so that nothing chooses another one.
    pub(crate) fn binary(&self, client: &str) -> PathBuf {
        let output = Command::new("go")
            .args(["env", "GOROOT"])
            .current_dir(&self.home)
            .env("GOTOOLCHAIN", client)
            .env("GOMODCACHE", self.home.join("mod"))
            .output()
            .unwrap();
        let root = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
        Path::new(root.trim()).join("bin/go")
    }

    pub(crate) fn version_of(&self, case: &Case) -> String {
        let output = Command::new(self.binary(case.client)).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn world(&self, binary: &str, folder: &Path, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new(binary)
            .args(arguments)
            .current_dir(folder)
            .envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", go::FLAGS), ("GOWORK", "off")])
            .env("GOMODCACHE", self.home.join("mod"))
            .env("GOCACHE", self.builds())
            .env("GOBIN", folder.join("bin"))
            .output()
            .unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

/// As the go command of this machine has it.
fn env(name: &str) -> String {
    let output = Command::new("go").args(["env", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
