use std::time::{Duration, Instant};

use super::temporary::ABANDONED;
use super::*;

fn open(folder: &Path) -> Store {
    Store::open(folder, None, &Arc::new(Metrics::new().unwrap())).unwrap()
}

fn info(version: &str) -> Request {
    Request::Info(ModulePath::new("corp.example/A").unwrap(), Version::new(version).unwrap())
}

#[test]
fn immutable_and_mutable_objects_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let below = |request: &Request| store.path(request).strip_prefix(folder.path()).unwrap().to_owned();
    assert_eq!(below(&info("v1.0.0")), Path::new("corp.example/!a/@v/v1.0.0.info"));
    assert_eq!(below(&info("main")), Path::new(".gomodcache/mutable/corp.example/!a/@v/main.info"));
    let list = Request::List(ModulePath::new("corp.example/A").unwrap());
    assert_eq!(below(&list), Path::new(".gomodcache/mutable/corp.example/!a/@v/list"));
}

#[tokio::test]
async fn only_tags_are_listed_from_what_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let versions = ["v1.1.0", "v1.0.0", "v0.0.0-20240102030405-abcdefabcdef"];
    let commits = versions.map(|version| store.commit_bytes(Bytes::from_static(b"{}"), None, store.path(&info(version))));
    futures::future::try_join_all(commits).await.unwrap();
    // As a power cut left it.
    fs::write(store.path(&info("v1.2.0")), "").unwrap();
    assert_eq!(store.cached_versions(&ModulePath::new("corp.example/A").unwrap()), ["v1.0.0", "v1.1.0"]);
}

#[tokio::test]
async fn a_visible_zip_has_its_hash_and_what_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let to = folder.path().join("corp.example/!a/@v/v1.0.0.zip");
    let growing = Arc::new(store.growing().unwrap());
    growing.append(vec![Bytes::from_static(b"zip")]).await.unwrap();
    store.commit_zip(growing, "h1:x".to_owned(), None, to.clone()).await.unwrap();
    assert_eq!((fs::read(&to).unwrap(), fs::read(to.with_extension("ziphash")).unwrap()), (b"zip".to_vec(), b"h1:x".to_vec()));
    let dropped = Arc::new(store.growing().unwrap());
    dropped.append(vec![Bytes::from_static(b"zip")]).await.unwrap();
    drop(dropped);
    while fs::read_dir(store.state_dir().join("tmp")).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn small_objects_are_read_whole_and_long_ones_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit_bytes(Bytes::from_static(b"12345"), None, folder.path().join("x")).await.unwrap();
    assert!(matches!(store.read(&folder.path().join("x"), 5), Ok(Some(Object::Small(bytes))) if bytes == "12345"));
    assert!(matches!(store.read(&folder.path().join("x"), 4), Ok(Some(Object::Large(Large { length: 5, .. })))));
    assert!(matches!(store.read(&folder.path().join("x/y"), 4), Ok(None)));
    fs::write(folder.path().join("empty"), "").unwrap();
    for absent in ["z", "empty"] {
        assert!(matches!(store.read(&folder.path().join(absent), 4), Ok(None)), "{absent}");
    }
}

#[test]
fn what_is_no_plain_file_of_the_folder_is_not_there() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(folder.path());
    let (secret, below) = (elsewhere.path().join("secret"), folder.path().join("a/@v"));
    fs::write(&secret, "hunter2").unwrap();
    fs::create_dir_all(&below).unwrap();
    std::os::unix::fs::symlink(&secret, below.join("link.mod")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("b")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", below.join("zero.info")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(below.join("pipe.mod")).status().unwrap().success());
    for path in ["a/@v/link.mod", "b/secret", "a/@v/zero.info", "a/@v/pipe.mod", "a/@v", "a/../../secret"] {
        let path = folder.path().join(path);
        assert!(matches!(store.read(&path, 100), Ok(None)), "{}", path.display());
        assert!(matches!(store.read_state(&path), Ok(None)), "{}", path.display());
    }
    assert!(store.read(&secret, 100).is_err(), "it is not below the folder");
}

#[test]
fn pipes_and_links_in_the_place_of_our_own_files_hold_up_nothing_and_are_not_written_to() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    drop(open(folder.path()));
    let (newest, state) = (folder.path().join("x/newest"), folder.path().join(STATE_DIR));
    fs::create_dir(folder.path().join("x")).unwrap();
    pipe(&newest);
    let _there_is_none_yet = fs::remove_file(state.join("usage"));
    pipe(&state.join("usage"));
    open(folder.path()).commit_later_unless(Bytes::from("7"), newest.clone(), |_| true);
    assert_eq!(fs::read_to_string(&newest).unwrap(), "7", "it is a file in the pipe's place");

    let others = elsewhere.path().join("others");
    fs::write(&others, "hunter2").unwrap();
    for name in ["usage", "scrub.lock"] {
        let _there_is_none_yet = fs::remove_file(state.join(name));
        std::os::unix::fs::symlink(&others, state.join(name)).unwrap();
    }
    let store = open(folder.path());
    store.commit_later(Bytes::from("8"), newest.clone());
    assert!(store.lock_file("scrub.lock").is_err());
    drop(store);
    assert_eq!((fs::read_to_string(&others).unwrap().as_str(), fs::read_to_string(&newest).unwrap().as_str()), ("hunter2", "8"));
}

#[test]
fn what_may_stay_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("x/newest");
    for (new, newest) in [("5", "5"), ("3", "5"), ("7", "7")] {
        // It commits before it ends.
        open(folder.path()).commit_later_unless(Bytes::from(new), to.clone(), move |there| there >= new.as_bytes());
        assert_eq!(fs::read_to_string(&to).unwrap(), newest);
    }
    assert_eq!(fs::read_dir(open(folder.path()).state_dir().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_no_database_vouches_for_is_kept_only_as_what_was_seen_first() {
    let folder = tempfile::tempdir().unwrap();
    let stores = [open(folder.path()), open(folder.path())];
    let file = folder.path().join(STATE_DIR).join("first-seen/a.example/m/@v/v1.0.0.zip");
    let to = folder.path().join("a.example/m/@v/v1.0.0.zip");
    let commit = async |store: &Store, hash: &str| {
        let growing = Arc::new(store.growing().unwrap());
        growing.append(vec![Bytes::from(hash.to_owned())]).await.unwrap();
        let first = First { file: file.clone(), hash: hash.to_owned() };
        store.commit_zip(growing, hash.to_owned(), Some(first), to.clone()).await
    };
    let refused = commit(&stores[0], "h1:one").await.unwrap_err();
    assert!(refused.to_string().contains("could not be written") && !to.exists(), "{refused}");
    // Two processes that were told different things at once.
    for (store, hash, is_kept) in [(&stores[0], "h1:one", true), (&stores[1], "h1:other", false)] {
        store.commit_later_unless(Bytes::from(hash), file.clone(), |there| !there.is_empty());
        match commit(store, hash).await {
            Ok(()) => assert!(is_kept),
            Err(error) => assert!(!is_kept && error.kind() == io::ErrorKind::InvalidData, "{error}"),
        }
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), fs::read_to_string(&to).unwrap().as_str()), ("h1:one", "h1:one"));
        assert_eq!(fs::read_to_string(to.with_extension("ziphash")).unwrap(), "h1:one");
    }
}

#[test]
fn a_volume_that_does_not_take_what_nobody_waits_for_is_in_trouble() {
    type CommitLater = fn(&Store, PathBuf);
    let ways: [CommitLater; 2] =
        [|store, to| store.commit_later(Bytes::from("1"), to), |store, to| store.commit_later_unless(Bytes::from("1"), to, |_| false)];
    for commit in ways {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let store = open(&root);
        assert_eq!(store.trouble(), None);
        fs::rename(&root, folder.path().join("taken away")).unwrap();
        assert_eq!(store.trouble(), None, "nobody has written since");
        commit(&store, root.join("newest"));
        let until = Instant::now() + Duration::from_secs(20);
        while store.trouble().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(store.trouble(), Some(StorageTrouble::Failing));
    }
}

/// Another process's patience is five seconds.
#[test]
fn what_is_seen_first_is_noted_though_another_process_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let frozen = store.lock_file("replace.lock").unwrap();
    rustix::fs::flock(&frozen, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let files = [0, 1, 2, 3].map(|i| store.state_dir().join(format!("first-seen/a.example/m{i}/@v/v1.0.0.zip")));
    let since = Instant::now();
    for file in &files {
        // Another process's, then the same in the place of it.
        for hash in ["h1:one", "h1:other"] {
            store.commit_later_unless(Bytes::from(hash), file.clone(), |there| !there.is_empty());
        }
    }
    // It commits before it ends.
    drop(store);
    assert!(files.iter().all(|file| fs::read_to_string(file).unwrap() == "h1:one"));
    assert!(since.elapsed() < ledger::PATIENCE * 4, "{:?}", since.elapsed());
}

#[test]
fn temporary_files_go_at_the_start_unless_they_may_be_another_processs() {
    let folder = tempfile::tempdir().unwrap();
    let other = open(folder.path());
    let tmp = other.state_dir().join("tmp");
    let (young, old) = (tmp.join("young"), tmp.join("old"));
    let left_over = || {
        fs::write(&young, "x").unwrap();
        File::create(&old).unwrap().set_modified(SystemTime::now() - ABANDONED * 2).unwrap();
    };
    left_over();
    let third = open(folder.path());
    assert!(young.exists() && !old.exists(), "two have it open");
    drop(other);
    drop(open(folder.path()));
    assert!(young.exists(), "one still has");
    drop(third);
    left_over();
    drop(open(folder.path()));
    assert!(!young.exists() && !old.exists(), "nobody else has");
    left_over();
    fs::remove_file(tmp.with_extension("lock")).unwrap();
    drop(open(folder.path()));
    assert!(young.exists() && !old.exists(), "nobody knows");
}

#[test]
fn a_full_volume_is_rid_of_old_temporary_files_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let [old, ahead, young] = ["old", "ahead", "young"].map(|name| store.state_dir().join("tmp").join(name));
    let now = SystemTime::now();
    for (file, time) in [(&old, now - ABANDONED * 2), (&ahead, now + ABANDONED * 2), (&young, now + ABANDONED / 2)] {
        File::create(file).unwrap().set_modified(time).unwrap();
    }
    store.usage.make_way(ledger::Room::of(1));
    assert_eq!([old, ahead, young].map(|file| file.exists()), [false, false, true], "the second is from a clock that was wrong");
}

#[tokio::test]
async fn the_folders_of_our_own_are_made_again_and_the_caches_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let store = open(&root);
    let [small, zip] = ["m/@v/v1.0.0.mod", "m/@v/v1.0.0.zip"].map(|name| root.join(name));
    // At once: the committing thread still has the account to write.
    let remove = |path: &Path, to: usize| fs::rename(path, folder.path().join(to.to_string())).unwrap();
    for i in 0..2 {
        remove(&store.state_dir(), 2 * i);
        store.commit_bytes(Bytes::from_static(b"x"), None, small.clone()).await.unwrap();
        remove(&store.state_dir(), 2 * i + 1);
        let growing = Arc::new(store.growing().unwrap());
        growing.append(vec![Bytes::from_static(b"zip")]).await.unwrap();
        store.commit_zip(growing, "h1:x".to_owned(), None, zip.clone()).await.unwrap();
        assert!(small.exists() && zip.exists());
    }
    remove(&root, 4);
    assert!(store.commit_bytes(Bytes::from_static(b"x"), None, small).await.is_err());
    assert!(!root.exists(), "it is where a volume was");
}
