//! The cache between a `go` client, an upstream that may lie, and a checksum database that runs Go's own code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead, BufReader, Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

mod common;
use common::{Running, Serving, proxy, serve};

const MODULE: &str = "corp.example/Tea";

fn zip(version: &str, extra: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [("go.mod", "module corp.example/Tea\n"), ("tea.go", extra)] {
        writer.start_file(format!("{MODULE}@{version}/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A `file://` upstream with versions whose source is the given text, and its go.sum.
fn upstream(folder: &Path, versions: &[(&str, &str)]) -> String {
    let base = folder.join("corp.example/!tea/@v");
    std::fs::create_dir_all(&base).unwrap();
    let mut sums = String::new();
    for (version, text) in versions {
        let (module, parsed) = (gomodcache::gomod::ModulePath::new(MODULE).unwrap(), gomodcache::gomod::Version::new(version).unwrap());
        let bytes = zip(version, text);
        let h1 = gomodcache::gomod::hash_zip(Cursor::new(&bytes), &module, &parsed).unwrap();
        std::fs::write(base.join(format!("{version}.zip")), bytes).unwrap();
        std::fs::write(base.join(format!("{version}.mod")), "module corp.example/Tea\n").unwrap();
        std::fs::write(base.join(format!("{version}.info")), format!(r#"{{"Version":"{version}"}}"#)).unwrap();
        let go_mod = gomodcache::gomod::hash_go_mod(b"module corp.example/Tea\n");
        sums += &format!("{MODULE} {version} {h1}\n{MODULE} {version}/go.mod {go_mod}\n");
    }
    sums
}

/// The database's process, its address and its key.
fn database(folder: &Path, sums: &str) -> (Running, String, String) {
    std::fs::write(folder.join("go.sum"), sums).unwrap();
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let binary = folder.join("database");
    let built = Command::new("go").args(["build", "-o"]).arg(&binary).arg("./database").current_dir(oracle).status().unwrap();
    assert!(built.success());
    let mut child =
        Command::new(binary).arg("sum.example/db").arg(folder.join("go.sum")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (address, key) = (lines.next().unwrap(), lines.next().unwrap());
    (Running(child), address, key)
}

struct Cache {
    _process: Running,
    url: String,
}

async fn cache(upstream: &Path, folder: &Path, gosumdb: &str) -> Cache {
    cache_that_scrubs("24h", upstream, folder, gosumdb, None).await
}

async fn cache_that_scrubs(every: &str, upstream: &Path, folder: &Path, gosumdb: &str, private: Option<&str>) -> Cache {
    let mut command = proxy(folder);
    command
        // The http entry is never asked: it makes the database's host an internal one.
        .env("GOPROXY", format!("file://{},http://127.0.0.1:1", upstream.display()))
        .env("GOSUMDB", gosumdb)
        .env("GOMODCACHE_SCRUB_EVERY", every)
        .envs(private.map(|modules| ("GONOSUMDB", modules)));
    let Serving { process, modules, .. } = serve(command, &folder.with_extension("log"));
    Cache { _process: process, url: format!("http://{modules}") }
}

impl Cache {
    async fn get(&self, file: &str) -> (u16, String) {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.get(format!("{}/corp.example/!tea/@v/{file}", self.url)).send().await.unwrap();
        (response.status().as_u16(), String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned())
    }
}

/// Whether a file or folder is there within so many seconds.
async fn exists_within(seconds: u64, path: &Path) -> bool {
    for _ in 0..seconds * 20 {
        if path.exists() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    path.exists()
}

async fn exists(path: &Path) -> bool {
    exists_within(20, path).await
}

/// Whether a file of the cache is kept.
async fn is_kept(cached: &Path, file: &str) -> bool {
    exists(&cached.join("corp.example/!tea/@v").join(file)).await
}

/// Whether a file of the cache is not kept: a commit waits for others for no more than a second.
async fn stays_away(cached: &Path, file: &str) -> bool {
    !exists_within(2, &cached.join("corp.example/!tea/@v").join(file)).await
}

/// Where a cache keeps what a database said. Each key has its own.
fn database_folder(cached: &Path, key: &str) -> std::path::PathBuf {
    let parts: Vec<&str> = key.splitn(3, '+').collect();
    cached.join(".gomodcache/sumdb").join(format!("{}+{}", parts[0], parts[1]))
}

#[tokio::test]
async fn the_go_command_and_the_cache_both_verify_by_one_database() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("up"), &[("v1.0.0", "package tea\n")]);
    let (_database, address, key) = database(folder.path(), &sums);
    let cache = cache(&folder.path().join("up"), &folder.path().join("cache"), &format!("{key} http://{address}")).await;
    let module = folder.path().join("m");
    std::fs::create_dir_all(&module).unwrap();
    std::fs::write(module.join("go.mod"), "module corp.example/main\n\ngo 1.21\n\nrequire corp.example/Tea v1.0.0\n").unwrap();
    let output = tokio::process::Command::new("go")
        .args(["mod", "download"])
        .current_dir(&module)
        // By name and key only: the client finds the database behind the cache.
        .envs([("GOPROXY", cache.url.as_str()), ("GOSUMDB", key.as_str()), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-modcacherw")])
        .envs([("GOMODCACHE", folder.path().join("client")), ("GOPATH", folder.path().join("path"))])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_kept(&folder.path().join("cache"), "v1.0.0.zip").await);
    assert!(exists(&database_folder(&folder.path().join("cache"), &key).join("latest")).await, "the tree's head is remembered");
}

#[tokio::test]
async fn that_the_newest_tree_cannot_be_kept_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("up"), &[("v1.0.0", "package tea\n")]);
    let (_database, address, key) = database(folder.path(), &sums);
    let cached = folder.path().join("cache");
    let latest = database_folder(&cached, &key).join("latest");
    std::fs::create_dir_all(latest.join("in its place")).unwrap();
    let cache = cache(&folder.path().join("up"), &cached, &format!("{key} http://{address}")).await;
    assert_eq!(cache.get("v1.0.0.mod").await.0, 200);
    let is_said = || std::fs::read_to_string(cached.with_extension("log")).unwrap().contains(latest.to_str().unwrap());
    for _ in 0..400 {
        if is_said() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(is_said());
}

#[tokio::test]
async fn what_the_database_contradicts_is_neither_served_nor_kept() {
    let folder = tempfile::tempdir().unwrap();
    let honest = upstream(&folder.path().join("honest"), &[("v1.0.0", "package tea\n"), ("v1.1.0", "package tea\n")]);
    upstream(&folder.path().join("up"), &[("v1.0.0", "package tea // and more\n"), ("v1.1.0", "package tea\n")]);
    let (_database, address, key) = database(folder.path(), &honest);
    let cache = cache(&folder.path().join("up"), &folder.path().join("cache"), &format!("{key} http://{address}")).await;
    let (status, text) = cache.get("v1.0.0.zip").await;
    assert_eq!(status, 502);
    assert!(text.contains("the checksum database says h1:"), "{text}");
    assert_eq!(cache.get("v1.1.0.zip").await.0, 200);
    assert!(is_kept(&folder.path().join("cache"), "v1.1.0.zip").await);
    assert!(!folder.path().join("cache/corp.example/!tea/@v/v1.0.0.zip").exists());
}

#[tokio::test]
async fn without_a_verdict_a_version_is_served_and_not_kept_and_without_a_database_it_must_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("up"), &[("v1.0.0", "package tea\n")]);
    upstream(&folder.path().join("up"), &[("v1.2.0", "package tea\n")]);
    let (running, address, key) = database(folder.path(), &sums);
    let gosumdb = format!("{key} http://{address}");
    let cached = folder.path().join("cache");
    {
        let cache = cache(&folder.path().join("up"), &cached, &gosumdb).await;
        assert_eq!(cache.get("v1.2.0.zip").await.0, 200, "the database has no record of it, yet or at all");
        assert!(stays_away(&cached, "v1.2.0.zip").await);
    }
    drop(running);
    {
        let without = cache(&folder.path().join("up"), &cached, "off").await;
        assert_eq!(without.get("v1.2.0.zip").await.0, 200);
        assert!(is_kept(&cached, "v1.2.0.zip").await);
    }
    std::fs::remove_file(cached.join("corp.example/!tea/@v/v1.2.0.zip")).unwrap();
    upstream(&folder.path().join("up"), &[("v1.2.0", "package tea // changed\n")]);
    let without = cache(&folder.path().join("up"), &cached, "off").await;
    let (status, text) = without.get("v1.2.0.zip").await;
    assert!(status == 502 && text.contains("the version was changed"), "{status} {text}");
    let away = cache(&folder.path().join("up"), &cached, &gosumdb).await;
    assert_eq!(away.get("v1.0.0.zip").await.0, 200);
    assert!(stays_away(&cached, "v1.0.0.zip").await);
}

#[tokio::test]
async fn a_database_that_tells_another_story_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("up"), &[("v1.0.0", "package tea\n"), ("v1.1.0", "package tea\n")]);
    let cached = folder.path().join("cache");
    let first = {
        let (_database, address, key) = database(folder.path(), &sums);
        let cache = cache(&folder.path().join("up"), &cached, &format!("{key} http://{address}")).await;
        assert_eq!(cache.get("v1.0.0.mod").await.0, 200);
        assert!(is_kept(&cached, "v1.0.0.mod").await);
        key
    };
    // The same key, a log that begins with another record.
    let (_database, address, key) = database(folder.path(), &sums);
    assert_eq!(first, key);
    let cache = cache(&folder.path().join("up"), &cached, &format!("{key} http://{address}")).await;
    assert_eq!(cache.get("v1.1.0.mod").await.0, 200, "clients check for themselves");
    assert!(stays_away(&cached, "v1.1.0.mod").await);
}

#[tokio::test]
async fn what_the_database_said_and_the_disk_has_damaged_is_asked_for_anew() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("up"), &[("v1.0.0", "package tea\n")]);
    let (_database, address, key) = database(folder.path(), &sums);
    let (gosumdb, cached) = (format!("{key} http://{address}"), folder.path().join("cache"));
    for _start in 0..2 {
        let cache = cache(&folder.path().join("up"), &cached, &gosumdb).await;
        assert_eq!(cache.get("v1.0.0.mod").await.0, 200);
        assert!(is_kept(&cached, "v1.0.0.mod").await, "only what the database vouches for is kept");
        std::fs::remove_file(cached.join("corp.example/!tea/@v/v1.0.0.mod")).unwrap();
        let look_up = database_folder(&cached, &key).join("lookup/corp.example/!tea@v1.0.0");
        let text = std::fs::read_to_string(&look_up).unwrap();
        assert!(!text.contains("h1:X"));
        std::fs::write(&look_up, text.replace("h1:", "h1:X")).unwrap();
    }
}

#[tokio::test]
async fn what_was_kept_while_no_database_was_asked_is_judged_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("honest"), &[("v1.0.0", "package tea\n"), ("v1.1.0", "package tea\n")]);
    let lying = folder.path().join("up");
    upstream(&lying, &[("v1.0.0", "package tea // and more\n"), ("v1.1.0", "package tea\n")]);
    let cached = folder.path().join("cache");
    {
        let cache = cache(&lying, &cached, "off").await;
        for version in ["v1.0.0", "v1.1.0"] {
            assert_eq!(cache.get(&format!("{version}.zip")).await.0, 200);
            assert!(is_kept(&cached, &format!("{version}.zip")).await);
        }
    }
    let (_database, address, key) = database(folder.path(), &sums);
    let cache = cache_that_scrubs("1s", &lying, &cached, &format!("{key} http://{address}"), None).await;
    let (quarantine, look_ups) = (cached.join(".gomodcache/quarantine"), database_folder(&cached, &key).join("lookup/corp.example"));
    let judged = || quarantine.join("corp.example/!tea/@v/v1.0.0.zip").exists() && look_ups.join("!tea@v1.1.0").exists();
    for _ in 0..400 {
        if judged() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(judged(), "a scrub asks the database");
    let (status, text) = cache.get("v1.0.0.zip").await;
    assert!(status == 502 && text.contains("the checksum database says h1:"), "{status} {text}");
    assert!(cached.join("corp.example/!tea/@v/v1.1.0.zip").exists(), "what the database vouches for stays");
    assert_eq!(cache.get("v1.1.0.zip").await.0, 200);
}

/// A company's patched copy of a public version.
#[tokio::test]
async fn what_the_database_contradicted_before_its_module_was_private_stays_through_the_scrubs() {
    let folder = tempfile::tempdir().unwrap();
    let sums = upstream(&folder.path().join("public"), &[("v1.0.0", "package tea\n")]);
    let patched = folder.path().join("up");
    upstream(&patched, &[("v1.0.0", "package tea // patched\n")]);
    let cached = folder.path().join("cache");
    let (_database, address, key) = database(folder.path(), &sums);
    let gosumdb = format!("{key} http://{address}");
    {
        let public = cache(&patched, &cached, &gosumdb).await;
        assert_eq!(public.get("v1.0.0.zip").await.0, 502);
        let answers = database_folder(&cached, &key);
        assert!(exists(&answers.join("lookup/corp.example/!tea@v1.0.0")).await && exists(&answers.join("tile")).await);
    }
    let private = cache_that_scrubs("1s", &patched, &cached, &gosumdb, Some("corp.example/*")).await;
    for file in ["v1.0.0.zip", "v1.0.0.mod"] {
        assert_eq!(private.get(file).await.0, 200);
        assert!(is_kept(&cached, file).await);
    }
    let (files, quarantine) = (cached.join("corp.example/!tea/@v"), cached.join(".gomodcache/quarantine/corp.example/!tea/@v"));
    // When the second is found, the scrub that found the first has read everything.
    for broken in ["v1.0.0.mod", "v1.1.0.mod"] {
        std::fs::write(files.join(broken), "").unwrap();
        assert!(exists(&quarantine.join(broken)).await, "{broken}");
    }
    assert!(files.join("v1.0.0.zip").exists() && !quarantine.join("v1.0.0.zip").exists());
}
