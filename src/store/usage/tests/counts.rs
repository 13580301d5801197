//! The figure of what the volume holds, and how a count of it puts that right.

use super::*;

#[test]
fn a_scan_counts_what_is_there_and_a_restart_knows_it_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.example/m/@v/v1.0.0.zip");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![0; 5_000]).unwrap();
    let usage = account(folder.path(), 10);
    assert!(!usage.is_known());
    usage.scan();
    let restarted = account(folder.path(), 10);
    assert!(restarted.is_known());
    // The zip, and the account itself.
    assert_eq!(restarted.ledger.last().room, Room { bytes: 3 * BLOCK, objects: 2 });
}

#[test]
fn a_first_count_that_was_given_up_leaves_a_figure_that_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.example/m/@v/v1.0.0.zip"), 5);
    let killed = account(folder.path(), 10);
    killed.stop();
    killed.scan();
    put(&killed, folder.path(), "a.example/n/@v/v1.0.0.zip", 1);
    assert!(!account(folder.path(), 10).is_known());
    account(folder.path(), 10).scan();
    assert!(account(folder.path(), 10).is_known());
}

#[test]
fn a_count_has_all_that_was_committed_meanwhile_though_more_was_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 100);
    put(&usage, folder.path(), "a.example/stays/@v/v1.0.0.zip", 5);
    put(&usage, folder.path(), "a.example/goes/@v/v1.0.0.zip", 5);
    let since = usage.count(|| {
        // The new one comes where the count was already, and what goes is where it was not yet.
        put(&usage, folder.path(), "a.example/comes/@v/v1.0.0.zip", 2);
        fs::remove_file(folder.path().join("a.example/goes/@v/v1.0.0.zip")).unwrap();
        usage.ledger.change(|figures| figures.room = figures.room.minus(room(5)));
        Some(room(5))
    });
    let (figure, left) = (usage.ledger.last().room.bytes, on_disk(folder.path()));
    assert!(figure >= left, "{figure}, and {left} are on disk");
    assert_eq!(since, Some(room(2)));
}

#[test]
fn a_count_that_began_before_what_was_booked_was_visible_does_not_lose_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (account(folder.path(), 100), account(folder.path(), 100));
    let booking = one.reserve(room(2)).unwrap();
    two.count(|| Some(Room::default()));
    write(&folder.path().join("a.example/m/@v/v1.0.0.zip"), 2);
    one.settle(booking, Room::default());
    assert_eq!(account(folder.path(), 100).ledger.last().room, room(2));
}

#[test]
fn a_count_that_misses_already_what_is_being_evicted_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (usage, other) = (account(folder.path(), 10), account(folder.path(), 10));
    for i in 0..10 {
        put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
    }
    let counted = std::cell::Cell::new(false);
    let remove = |path: &Path| {
        fs::remove_file(path)?;
        if !counted.replace(true) {
            other.scan();
        }
        Ok(())
    };
    let booking = usage.reserve_by(room(1), &remove, false).unwrap();
    write(&folder.path().join("a.example/new/@v/v1.0.0.zip"), 1);
    usage.settle(booking, Room::default());
    let (figure, left) = (usage.ledger.last().room.bytes, on_disk(folder.path()));
    // The account itself was counted, too.
    assert_eq!(figure, left + BLOCK);
}

#[test]
fn a_figure_that_is_too_high_costs_nothing_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 20);
    for i in 0..18 {
        put(&usage, folder.path(), &format!("a.example/m{i}/@v/v1.0.0.zip"), 1);
    }
    for i in 0..16 {
        fs::remove_file(folder.path().join(format!("a.example/m{i}/@v/v1.0.0.zip"))).unwrap();
    }
    for i in 0..12 {
        put(&usage, folder.path(), &format!("a.example/n{i}/@v/v1.0.0.zip"), 1);
    }
    assert_eq!(on_disk(folder.path()), 14 * BLOCK, "two were there, and twelve came");
    // And the account itself.
    assert_eq!(usage.ledger.last().room.bytes, 15 * BLOCK);
    for i in 0..12 {
        put(&usage, folder.path(), &format!("a.example/o{i}/@v/v1.0.0.zip"), 1);
    }
    assert!((15 * BLOCK..=20 * BLOCK).contains(&on_disk(folder.path())), "the limit holds as before");
}

#[test]
fn a_figure_that_is_too_low_is_put_right_when_the_volume_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.zip", 1);
    for i in 0..12 {
        write(&folder.path().join(format!("a.example/copied{i}/@v/v1.0.0.zip")), 1);
    }
    usage.make_way(room(3));
    assert_eq!(on_disk(folder.path()), 5 * BLOCK, "with the account itself, and what is to come, nine tenths");
}

#[test]
fn what_someone_else_removed_is_not_counted_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 10);
    put(&usage, folder.path(), "a.example/m/@v/v1.0.0.zip", 9);
    fs::remove_file(folder.path().join("a.example/m/@v/v1.0.0.zip")).unwrap();
    put(&usage, folder.path(), "a.example/n/@v/v1.0.0.zip", 2);
    // And the account itself.
    assert_eq!(usage.ledger.last().room.bytes, on_disk(folder.path()) + BLOCK);
}

#[test]
fn what_could_not_be_read_is_not_taken_for_gone() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 100);
    for module in ["m", "n"] {
        put(&usage, folder.path(), &format!("a.example/{module}/@v/v1.0.0.zip"), 10);
    }
    fs::remove_file(folder.path().join("a.example/n/@v/v1.0.0.zip")).unwrap();
    // The innermost has a longer path than a kernel takes.
    let (outermost, long) = (folder.path().join("a.example/deep"), "d".repeat(250));
    fs::create_dir(&outermost).unwrap();
    let mut deep = File::open(&outermost).unwrap();
    for _ in 0..20 {
        mkdirat(&deep, &long, Mode::RWXU).unwrap();
        deep = openat(&deep, &long, OFlags::DIRECTORY, Mode::empty()).unwrap().into();
    }
    usage.scan();
    assert_eq!(usage.ledger.last().room.bytes, 20 * BLOCK, "nobody knows what is below");
    let stock = usage.take_stock(Class::Zip, &mut Booking::default());
    assert!(!stock.walked.is_whole && stock.objects.len() == 1);
    assert_eq!(usage.ledger.last().room.bytes, 20 * BLOCK);
    fs::remove_dir_all(outermost).unwrap();
    usage.scan();
    assert_eq!(usage.ledger.last().room.bytes, on_disk(folder.path()) + BLOCK);
}

#[test]
fn what_the_folders_take_is_not_left_to_files() {
    fn folders(folder: &Path) -> u64 {
        let below = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_dir());
        below.map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.metadata().unwrap()) * 512 + folders(&entry.path())).sum()
    }
    let folder = tempfile::tempdir().unwrap();
    let usage = account(folder.path(), 1);
    usage.set_limit(None);
    let before = usage.limit();
    for i in 0..50 {
        write(&folder.path().join(format!("a.example/m{i}/@v/v1.0.0.mod")), 1);
    }
    usage.scan();
    assert_eq!(before - usage.limit(), folders(folder.path()));
    fs::remove_dir_all(folder.path().join("a.example")).unwrap();
    usage.scan();
    assert_eq!(before - usage.limit(), folders(folder.path()));
    usage.set_limit(Some(BLOCK));
    assert_eq!(usage.limit(), BLOCK, "what was allowed is for files");
}
