use super::*;
use crate::store::eviction::count_use;
use crate::store::inventory::Class;
use crate::store::temporary::ABANDONED;

mod counts;

const BLOCK: u64 = 4096;

fn account(root: &Path, blocks: u64) -> Usage {
    fs::create_dir_all(root.join(STATE_DIR)).unwrap();
    Usage::new(root.to_owned(), Some(blocks * BLOCK), Arc::new(Metrics::new().unwrap()))
}

fn put(usage: &Usage, root: &Path, name: &str, blocks: u64) {
    let path = root.join(name);
    let booking = usage.reserve(room(blocks)).unwrap();
    write(&path, blocks);
    usage.stamp_new(&path, &path);
    usage.settle(booking, Room::default());
}

fn room(blocks: u64) -> Room {
    Room { bytes: blocks * BLOCK, objects: 1 }
}

fn write(path: &Path, blocks: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![0; usize::try_from(blocks * BLOCK).unwrap()]).unwrap();
}

fn on_disk(root: &Path) -> u64 {
    let mut bytes = 0;
    let walked = Inventory::new(root.to_owned()).walk(&mut |path, metadata| {
        bytes += if path.ends_with("usage") { 0 } else { metadata.len() };
        true
    });
    assert!(walked.is_whole);
    bytes
}

#[test]
fn the_limit_holds_and_what_is_used_stays() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    put(&usage, folder.path(), "a.example/hot/@v/v1.0.0.zip", 1);
    count_use(&File::open(folder.path().join("a.example/hot/@v/v1.0.0.zip")).unwrap()).unwrap();
    for i in 0..40 {
        put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
        assert!(on_disk(folder.path()) <= 10 * BLOCK);
    }
    assert!(folder.path().join("a.example/hot/@v/v1.0.0.zip").exists());
    assert!(!folder.path().join("a.example/m0/@v/v1.0.0.zip").exists());
}

#[test]
fn two_processes_keep_one_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (account(folder.path(), 10), account(folder.path(), 10));
    for i in 0..20 {
        put(&one, folder.path(), &format!("a.example/one{i}/@v/v1.0.0.zip"), 1);
        put(&two, folder.path(), &format!("a.example/two{i}/@v/v1.0.0.zip"), 1);
        assert!(on_disk(folder.path()) <= 10 * BLOCK);
    }
}

#[test]
fn an_eviction_that_takes_long_holds_up_nobody_and_loses_no_booking() {
    let folder = tempfile::tempdir().unwrap();
    let (slow, other) = (account(folder.path(), 100), account(folder.path(), 100));
    for i in 0..98 {
        put(&slow, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
    }
    let (evicting, begun) = std::sync::mpsc::channel();
    let (go_on, held) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (slow, path) = (&slow, folder.path().join("a.example/slow/@v/v1.0.0.zip"));
        scope.spawn(move || {
            let hold_up = |path: &Path| {
                // It fails when nobody listens any more: only the first is held up.
                if evicting.send(()).is_ok() {
                    held.recv().unwrap();
                }
                fs::remove_file(path)
            };
            let booking = slow.reserve_by(room(5), &hold_up, false).unwrap();
            write(&path, 5);
            slow.settle(booking, Room::default());
        });
        begun.recv().unwrap();
        drop(begun);
        for i in 0..2 {
            put(&other, folder.path(), &format!("a.example/other{i}/@v/v1.0.0.zip"), 1);
        }
        go_on.send(()).unwrap();
    });
    let left = on_disk(folder.path());
    assert_eq!(account(folder.path(), 100).ledger.last().room.bytes, left);
    assert!((85 * BLOCK..=100 * BLOCK).contains(&left), "{left}: the two removed what one had to");
}

#[test]
fn a_restart_remembers_uses() {
    let folder = tempfile::tempdir().unwrap();
    put(&account(folder.path(), 10), folder.path(), "a.example/m/@v/v1.0.0.zip", 1);
    let file = File::open(folder.path().join("a.example/m/@v/v1.0.0.zip")).unwrap();
    assert!(count_use(&file).unwrap() && !count_use(&file).unwrap());
    assert_eq!(account(folder.path(), 10).inventory.objects(Class::Zip).objects.first().map(|o| o.uses), Some(1));
}

#[test]
fn what_was_seen_first_is_not_evicted_and_what_a_database_said_is() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 7);
    // The account itself, which must be kept, too.
    usage.scan();
    let [first_seen, latest, tile, list] =
        ["first-seen/a.example/m/@v/v1.0.0.zip", "sumdb/d.example/latest", "sumdb/d.example/tile/8/0/000", "mutable/a.example/m/@v/list"]
            .map(|name| format!(".gomodcache/{name}"));
    for name in [&first_seen, &latest, &tile, &list] {
        put(&usage, folder.path(), name, 1);
    }
    for i in 0..5 {
        put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
    }
    assert!(!folder.path().join("a.example/m0/@v/v1.0.0.zip").exists(), "zips go first");
    put(&usage, folder.path(), "a.example/large/@v/v1.0.0.zip", 3);
    let exists = |name: &str| folder.path().join(name).exists();
    assert!(exists(&first_seen) && exists(&latest));
    assert!(!exists(&tile) && !exists(&list));
}

#[test]
fn what_a_wrong_clock_has_dated_ahead_keeps_out_nothing_that_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    let year = Duration::from_secs(365 * 86_400);
    let zip = |name: &str| folder.path().join(format!("a.example/{name}/@v/v1.0.0.zip"));
    for i in 0..6 {
        put(&usage, folder.path(), &format!("a.example/ahead{i}/@v/v1.0.0.zip"), 1);
        File::open(zip(&format!("ahead{i}"))).unwrap().set_modified(std::time::SystemTime::now() + year).unwrap();
    }
    for i in 0..8 {
        let name = format!("used{i}");
        put(&usage, folder.path(), &format!("a.example/{name}/@v/v1.0.0.zip"), 1);
        count_use(&File::open(zip(&name)).unwrap()).unwrap();
    }
    assert!((0..8).all(|i| zip(&format!("used{i}")).exists()));
}

#[test]
fn zips_go_before_the_rest_and_take_their_hash_along() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 5);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.mod", 1);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.ziphash", 1);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.zip", 2);
    put(&usage, folder.path(), "a.example/n/@v/v1.0.0.zip", 2);
    let exists = |name: &str| folder.path().join(name).exists();
    assert!(exists("a.example/m/@v/v1.0.0.mod"));
    assert!(!exists("a.example/m/@v/v1.0.0.zip") && !exists("a.example/m/@v/v1.0.0.ziphash"));
}

#[test]
fn the_zips_of_private_modules_go_last() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 6);
    // The account itself.
    usage.scan();
    usage.set_private(Patterns::parse(["corp.example/*"]).unwrap().ignoring_case());
    put(&usage, folder.path(), "corp.example/!m/@v/v1.0.0.zip", 2);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.zip", 1);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.mod", 1);
    put(&usage, folder.path(), "corp.example/n/@v/v1.0.0.zip", 2);
    let exists = |name: &str| folder.path().join(name).exists();
    assert!(exists("corp.example/!m/@v/v1.0.0.zip") && exists("corp.example/n/@v/v1.0.0.zip"));
    assert!(!exists("a.example/m/@v/v1.0.0.zip"));
    put(&usage, folder.path(), "corp.example/o/@v/v1.0.0.zip", 2);
    assert!(exists("corp.example/o/@v/v1.0.0.zip"));
    assert_ne!(exists("corp.example/!m/@v/v1.0.0.zip"), exists("corp.example/n/@v/v1.0.0.zip"), "one of the two made room");
}

#[test]
fn what_must_be_kept_and_leaves_no_room_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    usage.set_private(Patterns::parse(["corp.example/*"]).unwrap());
    put(&usage, folder.path(), ".gomodcache/first-seen/corp.example/m/@v/v1.0.0.zip", 7);
    let others = ["a.example/m/@v/v1.0.0.mod", "a.example/m/@v/v1.0.0.zip", "corp.example/m/@v/v1.0.0.zip"];
    for name in others {
        put(&usage, folder.path(), name, 1);
    }
    for _ in 0..2 {
        let refused = usage.reserve(room(3)).map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::StorageFull));
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
        usage.set_limit(Some(10 * BLOCK));
        assert!(usage.is_refusing(), "the limit is the same");
    }
    assert_eq!(usage.ledger.last().room.bytes, 11 * BLOCK, "what is refused is not booked; the account itself is counted");
    put(&usage, folder.path(), "a.example/n/@v/v1.0.0.zip", 1);
    assert!(on_disk(folder.path()) <= 9 * BLOCK, "what fits beside it takes the place of others");
    assert!(!usage.is_refusing());
    assert!(usage.reserve(room(3)).is_err() && usage.is_refusing());
    usage.set_limit(Some(20 * BLOCK));
    assert!(!usage.is_refusing(), "another limit may leave room");
}

#[test]
fn what_cannot_be_removed_lets_nothing_come_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    for i in 0..10 {
        put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
    }
    let refused = usage.reserve_by(room(1), &|_| Err(io::ErrorKind::PermissionDenied.into()), false).map(drop);
    assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    assert_eq!(on_disk(folder.path()), 10 * BLOCK);
}

#[test]
fn nothing_more_is_tried_on_a_volume_that_became_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    for i in 0..10 {
        put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
    }
    let tried = std::cell::Cell::new(0);
    let remove = |_: &Path| {
        tried.set(tried.get() + 1);
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    };
    let refused = usage.reserve_by(room(1), &remove, false).map(drop).map_err(|error| error.kind());
    assert_eq!((refused, tried.get()), (Err(io::ErrorKind::ReadOnlyFilesystem), 1));
    assert!(!usage.is_refusing(), "it is not for the limit");
}

#[test]
fn a_hash_whose_zip_is_gone_goes_and_one_whose_zip_may_be_on_its_way_stays() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 7);
    let names = ["orphan/@v/v1.0.0.ziphash", "ahead/@v/v1.0.0.ziphash", "fresh/@v/v1.0.0.ziphash", "m/@v/v1.0.0.zip"];
    let [orphan, ahead, fresh, zip] = names.map(|name| {
        put(&usage, folder.path(), &format!("a.example/{name}"), 1);
        folder.path().join("a.example").join(name)
    });
    let now = std::time::SystemTime::now();
    for (hash, time) in [(&orphan, now - ABANDONED * 2), (&ahead, now + ABANDONED * 2)] {
        File::options().write(true).open(hash).unwrap().set_modified(time).unwrap();
    }
    put(&usage, folder.path(), ".gomodcache/first-seen/a.example/n/@v/v1.0.0.zip", 2);
    put(&usage, folder.path(), ".gomodcache/first-seen/a.example/o/@v/v1.0.0.zip", 2);
    assert!(!orphan.exists() && !ahead.exists() && !zip.exists() && fresh.exists());
}

#[test]
fn what_is_in_quarantine_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 6);
    put(&usage, folder.path(), ".gomodcache/quarantine/a.example/m/@v/v1.0.0.mod", 3);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.mod", 2);
    put(&usage, folder.path(), "a.example/n/@v/v1.0.0.mod", 2);
    assert!(!folder.path().join(".gomodcache/quarantine/a.example/m/@v/v1.0.0.mod").exists());
    assert!(folder.path().join("a.example/m/@v/v1.0.0.mod").exists());
}

#[test]
fn a_folder_goes_with_its_last_file() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.zip", 4);
    put(&usage, folder.path(), "a.example/n/@v/v1.0.0.mod", 1);
    put(&usage, folder.path(), "b.example/o/@v/v1.0.0.zip", 4);
    put(&usage, folder.path(), "c.example/p/@v/v1.0.0.zip", 7);
    let exists = |name: &str| folder.path().join(name).exists();
    assert!(!exists("a.example/m") && !exists("b.example"));
    assert!(exists("a.example/n/@v/v1.0.0.mod") && exists("c.example/p/@v/v1.0.0.zip"));
}

#[test]
fn way_is_made_for_what_did_not_fit_unless_it_is_others_who_fill_the_volume() {
    for (limit, stay) in [(10, 4), (100, 9)] {
        let folder = tempfile::tempdir().unwrap();
        let usage = account(folder.path(), limit);
        // The account itself.
        usage.scan();
        for i in 0..9 {
            put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
        }
        usage.make_way(room(4));
        assert_eq!((on_disk(folder.path()), usage.ledger.last().room.bytes), (stay * BLOCK, (stay + 1) * BLOCK), "{limit}");
        usage.make_way(room(4));
        assert_eq!(on_disk(folder.path()), stay * BLOCK, "once is enough");
    }
}
