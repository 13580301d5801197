use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use super::fake::{Fake, module};
use super::*;
use crate::store::Store;
use crate::telemetry::Metrics;

/// A process with this volume. It keeps what it is to keep before it ends.
fn start(folder: &Path, fake: &Fake) -> Database {
    Database::new(fake.verifier(), Store::open(folder, None, &Arc::new(Metrics::new().unwrap())).unwrap())
}

/// A process that knows of 90 records, where another one has kept a tree of 100 since.
async fn left_behind(folder: &Path, fake: &Fake) -> Database {
    assert_eq!(sums(&start(folder, fake), fake, 7).await, right(fake, 7));
    let (ahead, behind) = (start(folder, fake), start(folder, fake));
    fake.sign(100);
    assert_eq!(sums(&ahead, fake, 8).await, right(fake, 8));
    behind
}

async fn sums(database: &Database, fake: &Fake, record: u64) -> Result<[Option<String>; 2], Missing> {
    let (module, version) = module(record);
    database.sums(&module, &version, &fake.ask()).await.map(|sums| [sums.zip, sums.go_mod])
}

fn right(fake: &Fake, record: u64) -> Result<[Option<String>; 2], Missing> {
    Ok(fake.sums(record).map(Some))
}

async fn relay(database: &Database, fake: &Fake, path: &str) -> Result<(Vec<u8>, bool), Missing> {
    let relayed = database.relay(&SumdbPath::parse(path).unwrap(), &fake.ask()).await;
    relayed.map(|(bytes, is_proven)| (bytes.to_vec(), is_proven))
}

/// Everything that is kept of databases.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.join(".gomodcache/sumdb")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn only(folder: &Path, ending: &str) -> PathBuf {
    let mut files = kept(folder).into_iter().filter(|file| file.ends_with(ending));
    let file = files.next().unwrap_or_else(|| panic!("no {ending} is kept"));
    assert_eq!(files.next(), None);
    file
}

fn flip(file: &Path, place: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[place] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// What the newest tree known on the volume says of its size.
fn newest(folder: &Path) -> String {
    let note = std::fs::read_to_string(only(folder, "latest")).unwrap();
    note.lines().nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_look_up_that_was_damaged_is_asked_for_anew_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 300);
    assert_eq!(sums(&start(folder.path(), &fake), &fake, 7).await, right(&fake, 7));
    let (path, answer) = ("lookup/a.example/m7@v1.0.0", fake.answer("lookup/a.example/m7@v1.0.0").unwrap());
    let file = only(folder.path(), path);
    let text = String::from_utf8(answer.to_vec()).unwrap();
    for damaged in [0, text.find("zip7").unwrap() + 3, text.find("tree\n300").unwrap() + 6, text.len() - 10] {
        flip(&file, damaged);
        fake.take_asked();
        assert_eq!(sums(&start(folder.path(), &fake), &fake, 7).await, right(&fake, 7), "{damaged}");
        assert_eq!(fake.take_asked(), [path]);
        assert_eq!(std::fs::read(&file).unwrap(), answer);
        flip(&file, damaged);
        assert_eq!(relay(&start(folder.path(), &fake), &fake, path).await, Ok((answer.to_vec(), true)), "{damaged}");
        assert_eq!(std::fs::read(&file).unwrap(), answer);
    }
    // Of no use to anybody, and nobody is asked for it but the database.
    flip(&file, 0);
    fake.go_away();
    let database = start(folder.path(), &fake);
    assert_eq!(relay(&database, &fake, path).await, Err(Missing::Unavailable("it is away".to_owned())));
    assert_eq!(sums(&database, &fake, 7).await, Err(Missing::Unavailable("it is away".to_owned())));
}

#[tokio::test]
async fn a_tile_that_was_damaged_is_asked_for_anew_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 300);
    assert_eq!(sums(&start(folder.path(), &fake), &fake, 7).await, right(&fake, 7));
    for path in ["tile/8/0/000", "tile/8/0/001.p/44", "tile/8/1/000.p/1"] {
        let (file, whole) = (only(folder.path(), path), fake.answer(path).unwrap());
        flip(&file, 9);
        assert_eq!(relay(&start(folder.path(), &fake), &fake, path).await, Ok((whole.to_vec(), true)), "{path}");
        assert_eq!(std::fs::read(&file).unwrap(), whole, "{path}");
        flip(&file, 9);
        assert_eq!(sums(&start(folder.path(), &fake), &fake, 7).await, right(&fake, 7));
        assert_eq!(std::fs::read(&file).unwrap(), whole, "{path}");
    }
    fake.take_asked();
    let database = start(folder.path(), &fake);
    assert_eq!(relay(&database, &fake, "tile/8/0/000").await, Ok((fake.answer("tile/8/0/000").unwrap().to_vec(), true)));
    assert_eq!(fake.take_asked(), Vec::<String>::new(), "what is whole is proven by what is kept");
}

#[tokio::test]
async fn a_narrow_tile_is_the_beginning_of_a_wider_one_that_is_here() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 300);
    assert_eq!(sums(&start(folder.path(), &fake), &fake, 7).await, right(&fake, 7));
    fake.take_asked();
    let database = start(folder.path(), &fake);
    for path in ["tile/8/0/000.p/7", "tile/8/0/000", "tile/8/0/001.p/10"] {
        assert_eq!(relay(&database, &fake, path).await, Ok((fake.answer(path).unwrap().to_vec(), true)), "{path}");
    }
    assert_eq!(fake.take_asked(), Vec::<String>::new());
    for other in ["tile/8/0/001.p/45", "tile/8/0/001", "tile/8/data/000"] {
        assert_eq!(relay(&database, &fake, other).await, Err(Missing::Unknown), "{other}");
    }
    // What another process kept of a tree that this one has not seen.
    fake.sign(310);
    assert_eq!(sums(&start(folder.path(), &fake), &fake, 7).await, right(&fake, 7));
    let wider = fake.answer("tile/8/0/001.p/50").unwrap().to_vec();
    assert_eq!(relay(&database, &fake, "tile/8/0/001.p/50").await, Ok((wider.clone(), false)));
    fake.go_away();
    assert_eq!(relay(&database, &fake, "tile/8/0/001.p/50").await, Ok((wider, false)), "a client may be able to prove it");
}

#[tokio::test]
async fn what_nobody_proved_passes_through_and_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 300);
    let look_up = "lookup/a.example/m7@v1.0.0";
    for _start in 0..2 {
        let database = start(folder.path(), &fake);
        for _request in 0..2 {
            assert!(matches!(relay(&database, &fake, "tile/8/0/000").await, Ok((_, false))));
        }
        assert_eq!(fake.take_asked(), ["tile/8/0/000"], "for a moment it is in memory");
        let ask = fake.ask();
        let without_tiles = |path: String| {
            let answer = if path.starts_with("tile") { Err(Missing::Unavailable("no tiles".to_owned())) } else { Ok(ask(path)) };
            async move { answer?.await }.boxed()
        };
        let (bytes, is_proven) = database.relay(&SumdbPath::parse(look_up).unwrap(), &without_tiles).await.unwrap();
        assert!(bytes == fake.answer(look_up).unwrap() && !is_proven);
        fake.take_asked();
    }
    assert!(!kept(folder.path()).iter().any(|file| !file.ends_with("latest")), "{:?}", kept(folder.path()));
    let other = fake.answer("lookup/a.example/m8@v1.0.0").unwrap();
    for bad in [Bytes::from_static(b"1\nno such record\n\nno such note\n"), other] {
        let ask = |path: String| {
            let answer = if path.starts_with("tile") { fake.answer(&path) } else { Some(bad.clone()) };
            async { answer.ok_or(Missing::Unknown) }.boxed()
        };
        let refused = start(folder.path(), &fake).relay(&SumdbPath::parse(look_up).unwrap(), &ask).await;
        assert!(matches!(refused, Err(Missing::Dishonest(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn two_keys_with_one_name_are_two_databases() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (Fake::new(1, 300), Fake::new(2, 9));
    assert_eq!(sums(&start(folder.path(), &before), &before, 7).await, right(&before, 7));
    assert_eq!(sums(&start(folder.path(), &after), &after, 7).await, right(&after, 7));
    before.take_asked();
    // As after a roll-back; and the tree that was seen is still known.
    let database = start(folder.path(), &before);
    assert_eq!(sums(&database, &before, 7).await, right(&before, 7));
    assert_eq!(before.take_asked(), Vec::<String>::new());
    let fork = Fake::forked(1, 310, 100);
    assert!(sums(&database, &fork, 8).await.is_err());
}

#[tokio::test]
async fn a_kept_look_up_that_shows_a_fork_stays_as_its_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Fake::new(1, 300), Fake::forked(1, 310, 100));
    assert_eq!(sums(&start(folder.path(), &one), &one, 7).await, right(&one, 7));
    let look_up = only(folder.path(), "lookup/a.example/m7@v1.0.0");
    let before = std::fs::read(&look_up).unwrap();
    std::fs::write(only(folder.path(), "latest"), "no note").unwrap();
    let database = start(folder.path(), &other);
    assert_eq!(sums(&database, &other, 8).await, right(&other, 8), "nothing else is known now");
    assert!(sums(&database, &other, 7).await.unwrap_err().to_string().contains("do not belong together"));
    drop(database);
    assert_eq!(std::fs::read(&look_up).unwrap(), before);
}

#[tokio::test]
async fn the_newest_tree_on_the_volume_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 90);
    let behind = left_behind(folder.path(), &fake).await;
    assert_eq!(newest(folder.path()), "100");
    fake.sign(95);
    assert_eq!(sums(&behind, &fake, 9).await, right(&fake, 9));
    drop(behind);
    assert_eq!(newest(folder.path()), "100");
    // Both look before either has written.
    let (ahead, behind) = (start(folder.path(), &fake), start(folder.path(), &fake));
    for (database, size, record) in [(&ahead, 120, 10), (&behind, 110, 11)] {
        fake.sign(size);
        assert_eq!(sums(database, &fake, record).await, right(&fake, record));
    }
    drop(ahead);
    drop(behind);
    assert_eq!(newest(folder.path()), "120");
}

#[tokio::test]
async fn a_link_in_the_place_of_what_is_kept_leads_nowhere() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fake = Fake::new(1, 90);
    drop(left_behind(folder.path(), &fake).await);
    assert!(start(folder.path(), &fake).head.known().is_some());
    let latest = only(folder.path(), "latest");
    std::fs::rename(&latest, elsewhere.path().join("latest")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("latest"), &latest).unwrap();
    let database = start(folder.path(), &fake);
    assert_eq!(database.head.known(), None);

    // Far beyond the tree: nobody can say that it is wrong.
    std::fs::write(elsewhere.path().join("password"), [b'x'; 8192]).unwrap();
    let tile = latest.with_file_name("tile/8/0/x009/000");
    std::fs::create_dir_all(tile.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("password"), &tile).unwrap();
    let got = relay(&database, &fake, "tile/8/0/x009/000").await;
    assert!(got.is_err(), "{got:?}");
}

/// It may tell that the next tree is a fork.
#[tokio::test]
async fn a_newest_tree_that_cannot_be_read_now_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 90);
    drop(left_behind(folder.path(), &fake).await);
    let database = start(folder.path(), &fake);
    let kept = |error: std::io::Error| database.head.kept(Err(error));
    let refused = kept(std::io::Error::from_raw_os_error(5)).unwrap_err();
    assert!(matches!(&refused, Missing::Unavailable(why) if why.contains("latest") && why.contains("os error 5")), "{refused}");
    assert_eq!(kept(std::io::ErrorKind::FileTooLarge.into()), Ok(None), "such a note was damaged");
}

#[tokio::test]
async fn a_tree_that_another_process_has_seen_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 90);
    let behind = left_behind(folder.path(), &fake).await;
    let fork = Fake::forked(1, 95, 91);
    let refused = sums(&behind, &fork, 9).await.unwrap_err();
    assert!(refused.to_string().contains("do not belong together"), "{refused}");
}

#[tokio::test]
async fn a_tile_that_is_nowhere_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 300);
    let ask = fake.ask();
    let partly = |path: String| {
        let answer = ask(path.clone());
        async move { if path.starts_with("tile/8/0/001") { Err(Missing::Unknown) } else { answer.await } }.boxed()
    };
    let (module, version) = module(7);
    let refused = start(folder.path(), &fake).sums(&module, &version, &partly).await.unwrap_err();
    assert!(refused.to_string().contains("it has no tile/8/0/001.p/44, which its own tree needs"), "{refused}");
}

#[test]
fn only_the_configured_name_is_relayed() {
    assert_eq!(parse("sum.example/db", "sum.example/db/supported"), Some(SumdbPath::Supported));
    for other in ["sum.example/supported", "other.example/supported", "sum.example/dbx/supported", "sum.example/db", "sum.example/db/../x"]
    {
        assert_eq!(parse("sum.example/db", other), None, "{other}");
    }
}
