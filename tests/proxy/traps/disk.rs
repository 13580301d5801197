//! A volume that takes no more: what is on it is served, and what is not passes through. And one that damages what it has.

use std::path::{Path, PathBuf};
use std::process::Command;

use gomodcache::config::ProxyConfig;
use gomodcache::report::StorageTrouble;

use crate::report::report;
use crate::stage::{Stage, config, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest, zip};

const LONG: usize = 300_000;

/// A small file system of its own.
struct Volume(tempfile::TempDir);

impl Volume {
    /// Of one MiB.
    fn mount() -> Option<Self> {
        Self::mount_with("size=1m")
    }

    fn mount_with(options: &str) -> Option<Self> {
        let options = format!("mode=755,{options}");
        Self::mounted(tempfile::tempdir().unwrap(), &["-t", "tmpfs", "-o", &options, "gomodcache-test"])
    }

    /// With ext4, where a folder takes a block, of that many blocks of 4 KiB.
    fn mount_ext4(blocks: u64) -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-b", "4096", "-m", "0", "-O", "^has_journal", "-N", "16384"]).arg(image.path()).arg(blocks.to_string());
        assert!(mkfs.status().unwrap().success(), "mkfs.ext4");
        // The mounted file lives as long as it is mounted.
        Self::mounted(tempfile::tempdir().unwrap(), &["-t", "ext4", "-o", "loop", image.path().to_str().unwrap()])
    }

    /// Only root may mount one; without root there is nothing to test, and it says so.
    fn mounted(folder: tempfile::TempDir, what: &[&str]) -> Option<Self> {
        let mounted = Command::new("mount").args(what).arg(folder.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        assert!(std::env::var_os("CI").is_none(), "under CI the disk tests must run: they need root, to mount a file system");
        // Past the harness, which hides what a test that passes prints.
        std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: a full disk needs root, to mount a file system\n").unwrap();
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Where what is not the cache's takes room, and does not count.
    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves that much less to the cache.
    fn take(&self, bytes: usize) {
        std::fs::write(self.ballast(), vec![0; bytes]).unwrap();
    }

    /// Writes until nothing fits.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while std::io::Write::write_all(&mut ballast, &[0; 4096]).is_ok() {}
    }

    fn remount(&self, option: &str) -> bool {
        Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()).status().unwrap().success()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn tea(asked: &Asked) -> Answer {
    // In two pieces, so that a download meets the end of the volume half way.
    if asked.is("zip") { Answer::ok(zip(asked.file().unwrap().0, LONG)).paused_after(LONG / 2) } else { honest(asked) }
}

async fn expect_whole(stage: &Stage, version: &str) {
    for kind in ["info", "mod", "zip"] {
        let got = stage.tea(&format!("{version}.{kind}")).await;
        assert!(got.status == 200 && (kind != "zip" || got.is(&zip(version, LONG))), "{version}.{kind}: {got:?}");
    }
}

async fn expect_kept(stage: &Stage, version: &str) {
    for kind in ["info", "mod", "zip"] {
        stage.kept(&format!("corp.example/!tea/@v/{version}.{kind}")).await;
    }
}

#[tokio::test]
async fn a_full_disk_serves_what_it_has_and_passes_the_rest_through_and_keeps_again_when_there_is_room() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(tea).await;
    let mut stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    // The second zip does not fit beside the first.
    volume.take(500_000);
    expect_whole(&stage, "v1.0.0").await;
    expect_kept(&stage, "v1.0.0").await;
    expect_whole(&stage, "v1.1.0").await;
    volume.fill();
    expect_whole(&stage, "v1.2.0").await;
    eventually("the count of what was not kept", async || stage.metric("gomodcache_uncached_total", &[]).await >= 4.0).await;
    assert!(stage.log().contains("can't write the volume"));
    assert_eq!(report(&stage).await.storage, Some(StorageTrouble::Full));
    upstream.take_seen();
    expect_whole(&stage, "v1.0.0").await;
    assert_eq!(upstream.take_paths(), Vec::<String>::new(), "hits go on");
    assert!(!stage.has("v1.1.0.zip") && !stage.has("v1.2.0.zip"));
    // Also after a restart.
    stage.restart(&config(&[&upstream])).await;
    eventually("the trouble is found out", async || report(&stage).await.storage == Some(StorageTrouble::Full)).await;
    expect_whole(&stage, "v1.0.0").await;
    assert_eq!(upstream.take_paths(), Vec::<String>::new(), "hits go on after a restart");
    expect_whole(&stage, "v1.2.0").await;
    std::fs::remove_file(volume.ballast()).unwrap();
    std::fs::remove_file(stage.path("corp.example/!tea/@v/v1.0.0.zip")).unwrap();
    // Though nothing was written since.
    assert_eq!(report(&stage).await.storage, None);
    expect_whole(&stage, "v1.3.0").await;
    expect_kept(&stage, "v1.3.0").await;
}

#[tokio::test]
async fn a_zip_that_does_not_fit_beside_the_others_makes_room_for_the_next_time() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(tea).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    for version in ["v1.0.0", "v1.1.0", "v1.2.0"] {
        expect_whole(&stage, version).await;
        expect_kept(&stage, version).await;
    }
    expect_whole(&stage, "v1.3.0").await;
    eventually("the zip is kept", async || {
        stage.tea("v1.3.0.zip").await;
        stage.has("v1.3.0.zip")
    })
    .await;
    assert!(stage.has("v1.2.0.zip"), "only as much goes as must");
}

#[tokio::test]
async fn what_someone_copied_onto_the_volume_until_it_was_full_makes_room() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(tea).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    expect_whole(&stage, "v1.0.0").await;
    expect_kept(&stage, "v1.0.0").await;
    let copied = volume.cache().join("corp.example/copied/@v");
    std::fs::create_dir_all(&copied).unwrap();
    let _the_last_does_not_fit =
        (0..).map(|i| copied.join(format!("v1.{i}.0.zip"))).find(|path| std::fs::write(path, [0; 50_000]).is_err());
    eventually("the zip is kept", async || {
        expect_whole(&stage, "v1.1.0").await;
        stage.has("v1.1.0.zip")
    })
    .await;
}

#[tokio::test]
async fn where_folders_take_more_than_files_what_is_new_is_kept_all_the_same() {
    let Some(volume) = Volume::mount_ext4(6_000) else { return };
    let upstream = Upstream::start(|_: &Asked| Answer::ok(r#"{"Version":"v1.0.0"}"#)).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    // Three blocks each, two of them for its folders: one and a half times what the volume has.
    for i in 0..2_400 {
        assert_eq!(stage.get(&format!("/corp.example/m{i}/@v/v1.0.0.info")).await.status, 200, "{i}");
    }
    stage.kept("corp.example/m2399/@v/v1.0.0.info").await;
    assert_eq!(stage.metric("gomodcache_uncached_total", &[]).await, 0.0);
    assert!(stage.metric("gomodcache_evictions_total", &[]).await > 0.0);
    assert_eq!(report(&stage).await.storage, None);
}

#[tokio::test]
async fn a_volume_that_runs_out_of_files_before_bytes_takes_what_is_new_all_the_same() {
    let Some(volume) = Volume::mount_with("size=64m,nr_inodes=400") else { return };
    let upstream = Upstream::start(tea).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    for i in 0..600 {
        assert_eq!(stage.tea(&format!("v1.{i}.0.info")).await.status, 200, "{i}");
    }
    expect_whole(&stage, "v1.600.0").await;
    expect_kept(&stage, "v1.600.0").await;
    assert!(stage.metric("gomodcache_evictions_total", &[]).await >= 200.0);
    assert_eq!(stage.metric("gomodcache_uncached_total", &[]).await, 0.0);
    assert_eq!(report(&stage).await.storage, None);
}

#[tokio::test]
async fn where_others_use_up_the_files_of_a_volume_nothing_is_evicted() {
    let Some(volume) = Volume::mount_with("size=64m,nr_inodes=400") else { return };
    let upstream = Upstream::start(tea).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    expect_whole(&stage, "v1.0.0").await;
    expect_kept(&stage, "v1.0.0").await;
    std::fs::create_dir(volume.ballast()).unwrap();
    let others = (0..).map(|i| volume.ballast().join(i.to_string()));
    let _the_last_is_not_made = others.into_iter().find(|path| std::fs::write(path, []).is_err());
    expect_whole(&stage, "v1.1.0").await;
    eventually("the count of what was not kept", async || stage.metric("gomodcache_uncached_total", &[]).await >= 1.0).await;
    assert_eq!(report(&stage).await.storage, Some(StorageTrouble::Full));
    assert_eq!(stage.metric("gomodcache_evictions_total", &[]).await, 0.0);
    expect_kept(&stage, "v1.0.0").await;
}

#[tokio::test]
async fn a_volume_that_is_smaller_than_the_limit_does_not_fill_up() {
    let Some(volume) = Volume::mount() else { return };
    let upstream =
        Upstream::start(|asked: &Asked| if asked.is("zip") { Answer::ok(zip(asked.file().unwrap().0, 20_000)) } else { honest(asked) })
            .await;
    let generous = ProxyConfig { cache_limit: Some(50 << 30), ..config(&[&upstream]) };
    let stage = Stage::on_volume(&generous, &volume.cache()).await;
    assert_eq!(stage.metric("gomodcache_cache_limit_bytes", &[]).await, f64::from(1_u32 << 20) * 0.95 - 0.2);
    // One and a half times what it has.
    for i in 0..60 {
        let version = format!("v1.{i}.0");
        for kind in ["info", "mod", "zip"] {
            assert_eq!(stage.tea(&format!("{version}.{kind}")).await.status, 200, "{version}.{kind}");
        }
        expect_kept(&stage, &version).await;
    }
    assert_eq!(stage.metric("gomodcache_uncached_total", &[]).await, 0.0);
    assert!(stage.metric("gomodcache_evictions_total", &[]).await > 0.0);
    assert_eq!(report(&stage).await.storage, None);
}

#[tokio::test]
async fn a_read_only_disk_serves_what_it_has_and_passes_the_rest_through() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(tea).await;
    let mut stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    expect_whole(&stage, "v1.0.0").await;
    expect_kept(&stage, "v1.0.0").await;
    eventually("a volume that nobody writes", async || volume.remount("ro")).await;
    for _running_then_restarted in 0..2 {
        upstream.take_seen();
        expect_whole(&stage, "v1.0.0").await;
        assert_eq!(upstream.take_paths(), Vec::<String>::new());
        expect_whole(&stage, "v1.1.0").await;
        assert_eq!(report(&stage).await.storage, Some(StorageTrouble::ReadOnly));
        stage.restart(&config(&[&upstream])).await;
    }
    assert!(volume.remount("rw"));
    std::fs::remove_file(stage.path("corp.example/!tea/@v/v1.0.0.zip")).unwrap();
    expect_whole(&stage, "v1.2.0").await;
    expect_kept(&stage, "v1.2.0").await;
}

#[tokio::test]
async fn nothing_is_evicted_in_vain_from_a_read_only_disk() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(tea).await;
    let mut stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    for version in ["v1.0.0", "v1.1.0"] {
        expect_whole(&stage, version).await;
        expect_kept(&stage, version).await;
    }
    eventually("a volume that nobody writes", async || volume.remount("ro")).await;
    // It holds more already.
    stage.restart(&ProxyConfig { cache_limit: Some(400_000), ..config(&[&upstream]) }).await;
    expect_whole(&stage, "v1.2.0").await;
    eventually("the count of what was not kept", async || stage.metric("gomodcache_uncached_total", &[]).await >= 1.0).await;
    assert_eq!(report(&stage).await.storage, Some(StorageTrouble::ReadOnly));
    assert!(!stage.log().contains("evict"));
}

/// Of a volume with errors of its own, too, a write fails with neither of the two.
#[tokio::test]
async fn a_disk_that_is_taken_away_fails_no_download_and_is_reported() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(tea).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    expect_whole(&stage, "v1.0.0").await;
    expect_kept(&stage, "v1.0.0").await;
    assert!(Command::new("umount").arg("-l").arg(volume.path()).status().unwrap().success());
    expect_whole(&stage, "v1.0.0").await;
    expect_whole(&stage, "v1.1.0").await;
    eventually("the count of what was not kept", async || stage.metric("gomodcache_uncached_total", &[]).await >= 3.0).await;
    assert_eq!(report(&stage).await.storage, Some(StorageTrouble::Failing));
    assert!(!volume.cache().exists(), "what is made in the place of a volume is not on it");
}

/// And an older one, which may allow more, is not kept in its place.
#[tokio::test]
async fn a_configuration_that_does_not_fit_the_disk_is_kept_when_there_is_room() {
    let Some(volume) = Volume::mount() else { return };
    let upstream = Upstream::start(honest).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    let last_good = || std::fs::read_to_string(stage.path(".gomodcache/last-good.yaml"));
    stage.kept(".gomodcache/last-good.yaml").await;
    volume.fill();
    let mut stricter = config(&[&upstream]);
    stricter.policy.deny.push("corp.example/Tea".to_owned());
    stage.configure(&stricter);
    eventually("the rule", async || stage.tea("v1.0.0.info").await.status == 403).await;
    eventually("the laxer one is gone", async || last_good().is_err()).await;
    std::fs::remove_file(volume.ballast()).unwrap();
    eventually("the stricter one is kept", async || last_good().is_ok_and(|text| text.contains("deny"))).await;
}

/// And it is what no database vouches for.
#[tokio::test]
async fn a_version_that_is_changed_while_the_disk_takes_nothing_is_not_served() {
    let Some(volume) = Volume::mount() else { return };
    let changed = |asked: &Asked| Answer::ok(zip("v1.0.0", LONG - asked.before.min(1)));
    let upstream = Upstream::start(move |asked: &Asked| if asked.is("zip") { changed(asked) } else { honest(asked) }).await;
    let stage = Stage::on_volume(&config(&[&upstream]), &volume.cache()).await;
    eventually("a volume that nobody writes", async || volume.remount("ro")).await;
    assert!(stage.tea("v1.0.0.zip").await.is(&zip("v1.0.0", LONG)));
    eventually("it was not kept", async || stage.metric("gomodcache_uncached_total", &[]).await >= 1.0).await;
    let got = stage.tea("v1.0.0.zip").await;
    assert!(!got.is_complete() && upstream.last().before == 1, "{got:?}");
    // What was seen first is what is kept of it as soon as there is room, and not what came instead.
    assert!(volume.remount("rw"));
    for _ in 0..2 {
        let got = stage.tea("v1.0.0.zip").await;
        assert!(!got.is_complete(), "{got:?}");
        stage.kept(".gomodcache/first-seen/corp.example/!tea/@v/v1.0.0.zip").await;
    }
}

/// And it is what no database vouches for.
#[tokio::test]
async fn a_version_whose_hash_cannot_be_noted_is_served_and_not_kept_and_the_log_says_why() {
    let upstream = Upstream::start(honest).await;
    let stands_there = |folder: &Path| {
        std::fs::create_dir_all(folder.join("cache/.gomodcache/replace.lock")).unwrap();
        // What hands left empty is replaced, under that lock.
        let first_seen = folder.join("cache/.gomodcache/first-seen/corp.example/!tea/@v");
        std::fs::create_dir_all(&first_seen).unwrap();
        ["v1.0.0.mod", "v1.0.0.zip"].into_iter().for_each(|file| std::fs::write(first_seen.join(file), "").unwrap());
    };
    let stage = Stage::prepared(&config(&[&upstream]), stands_there).await;
    for (file, refused) in [("v1.0.0.mod", 1.0), ("v1.0.0.zip", 2.0)] {
        assert!(stage.tea(file).await.is_complete());
        eventually("a refusal", async || stage.metric("gomodcache_uncached_total", &[]).await >= refused).await;
        assert!(!stage.has(file), "{file}");
    }
    let says = |text: &str| stage.log().contains(text);
    eventually("why", async || says("can't open .gomodcache/replace.lock") && says("could not be written to")).await;
    std::fs::remove_dir(stage.path(".gomodcache/replace.lock")).unwrap();
    assert!(stage.tea("v1.0.0.zip").await.is_complete());
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    assert_ne!(std::fs::read(stage.path(".gomodcache/first-seen/corp.example/!tea/@v/v1.0.0.zip")).unwrap(), b"");
}

#[tokio::test]
async fn what_breaks_on_the_disk_is_found_while_the_proxy_runs_and_fetched_anew() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::with_args(&config(&[&upstream]), &["--scrub-every", "1s"]).await;
    let files = ["v1.0.0.mod", "v1.0.0.zip"];
    let mut whole = Vec::new();
    for file in files {
        whole.push(stage.tea(file).await);
        stage.kept(&format!("corp.example/!tea/@v/{file}")).await;
        stage.kept(&format!(".gomodcache/first-seen/corp.example/!tea/@v/{file}")).await;
    }
    upstream.take_seen();
    for file in files {
        let path = stage.path("corp.example/!tea/@v").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    eventually("both moved away", async || stage.metric("gomodcache_quarantined_total", &[]).await >= 2.0).await;
    for (file, whole) in files.into_iter().zip(whole) {
        assert!(stage.path(".gomodcache/quarantine/corp.example/!tea/@v").join(file).exists(), "{file}");
        assert_eq!(stage.tea(file).await.body, whole.body, "{file}");
    }
    assert_eq!(upstream.take_seen().len(), files.len(), "neither was served from memory");
}

/// The process that serves has read it already, and need not be the one that finds it.
#[tokio::test]
async fn what_another_process_moves_into_quarantine_is_forgotten() {
    let upstream = Upstream::start(honest).await;
    let config = config(&[&upstream]);
    let mut stage = Stage::start(&config).await;
    let (good, file) = (stage.tea("v1.0.0.mod").await, "corp.example/!tea/@v/v1.0.0.mod");
    stage.kept(file).await;
    let damaged = b"module corp.example/Tee\n";
    stage.restart_as_is(|folder| std::fs::write(folder.join("cache").join(file), damaged).unwrap()).await;
    assert!(stage.tea("v1.0.0.mod").await.is(damaged), "nobody knows yet");
    let verify =
        Command::new(env!("CARGO_BIN_EXE_gomodcache")).args(["verify", "--quarantine", "--cache-dir"]).arg(stage.path("")).output();
    let found = String::from_utf8(verify.unwrap().stdout).unwrap();
    assert!(found.contains("moved to .gomodcache/quarantine"), "{found}");
    let good = good.body.unwrap();
    eventually("what the upstream has", async || stage.tea("v1.0.0.mod").await.is(&good)).await;
}
