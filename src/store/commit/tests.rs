use super::*;
use crate::telemetry::Metrics;

/// Whose disk does nothing: nobody takes from the queue.
fn on_a_dead_disk(places: usize) -> (Committer, mpsc::Receiver<Commit>) {
    let (queue, commits) = mpsc::sync_channel(places);
    let usage = Arc::new(Usage::new(PathBuf::from("/nowhere"), None, Arc::new(Metrics::new().unwrap())));
    let (backlog, patience) = (watch::Sender::default(), Duration::from_millis(100));
    let queue = ArcSwapOption::from_pointee(queue);
    (Committer { queue, threads: Mutex::default(), backlog, stuck: Mutex::default(), patience, usage }, commits)
}

fn a_commit() -> Commit {
    let content = Content::Bytes(Bytes::from_static(b"x"), None);
    Commit { content, to: PathBuf::from("/nowhere/x"), first: None, done: oneshot::channel().0 }
}

fn send(committer: &Committer) -> io::Result<()> {
    committer.send(a_commit())
}

#[test]
fn what_keeps_coming_is_one_batch_until_it_pauses_or_the_first_has_waited_long_enough() {
    const SECOND: Duration = Duration::from_secs(1);
    let batch = |count: usize, pause: Duration, group: Duration, longest: Duration| {
        let (queue, commits) = mpsc::sync_channel(MAX_GROUP + 1);
        let sender = std::thread::spawn(move || {
            for _ in 0..count {
                if queue.send(a_commit()).is_err() {
                    // The test has what it wants.
                    break;
                }
                std::thread::sleep(pause);
            }
            queue
        });
        let batch = next_batch(&commits, Room { bytes: u64::MAX, objects: u64::MAX }, group, longest).unwrap().len();
        drop(commits);
        drop(sender.join().unwrap());
        batch
    };
    assert_eq!(batch(4, SECOND * 2 / 5, SECOND, SECOND * 60), 4, "the last comes later after the first than they may be apart");
    assert_eq!(batch(2, SECOND, SECOND / 20, SECOND * 60), 1, "a pause ends it");
    let first = batch(40, SECOND / 20, SECOND * 60, SECOND / 2);
    assert!((2..40).contains(&first), "{first}: so does the time that the first may wait");
    assert_eq!(batch(MAX_GROUP + 1, Duration::ZERO, SECOND, SECOND), MAX_GROUP);
}

#[test]
fn a_batch_is_no_more_than_a_part_of_what_a_volume_has() {
    for (most, expected) in [(Room { bytes: u64::MAX, objects: 3 }, 3), (Room { bytes: 2 * 4096, objects: u64::MAX }, 2)] {
        let (queue, commits) = mpsc::sync_channel(5);
        (0..5).for_each(|_| queue.send(a_commit()).unwrap());
        assert_eq!(next_batch(&commits, most, Duration::ZERO, Duration::from_secs(60)).unwrap().len(), expected, "{most:?}");
    }
}

#[test]
fn what_finds_no_place_is_refused_at_once_and_counts_for_nothing() {
    let (committer, commits) = on_a_dead_disk(2);
    send(&committer).unwrap();
    send(&committer).unwrap();
    assert!(send(&committer).unwrap_err().to_string().contains("the disk is slow"));
    let waiting = *committer.backlog.borrow();
    assert_eq!((waiting.bytes, waiting.commits, waiting.done), (2, 2, 0));
    drop(commits);
    assert!(send(&committer).unwrap_err().to_string().contains("has ended"));
}

#[tokio::test]
async fn many_small_objects_hold_up_the_next_download_once_and_a_dead_disk_no_other() {
    let (committer, _commits) = on_a_dead_disk(QUEUE);
    let took = async || {
        let since = Instant::now();
        committer.caught_up().await;
        since.elapsed()
    };
    (0..BEHIND).for_each(|_| send(&committer).unwrap());
    assert!(took().await < committer.patience, "as many may wait");
    send(&committer).unwrap();
    assert!(took().await >= committer.patience, "one more may not");
    assert!(took().await < committer.patience, "a disk that does nothing is waited for once");
    send(&committer).unwrap();
    committer.backlog.send_modify(|backlog| backlog.leave(1, 1));
    assert!(took().await >= committer.patience, "one that goes on is waited for again");
    committer.backlog.send_modify(|backlog| backlog.leave(1, 1));
    assert!(took().await < committer.patience, "it has caught up");
}

#[tokio::test]
async fn what_finds_no_room_beside_what_must_be_kept_is_answered_like_what_a_full_disk_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join(".gomodcache/first-seen/corp.example/m/@v/v1.0.0.zip");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, vec![0; 1 << 20]).unwrap();
    let tmp = folder.path().join(".gomodcache/tmp");
    fs::create_dir_all(&tmp).unwrap();
    let usage = Arc::new(Usage::new(folder.path().to_owned(), Some(1 << 20), Arc::new(Metrics::new().unwrap())));
    let committer = Committer::start(tmp, usage, Arc::default()).unwrap();
    let (done, result) = oneshot::channel();
    let to = folder.path().join("a.example/m/@v/v1.0.0.mod");
    let content = Content::Bytes(Bytes::from_static(b"module a.example/m\n"), None);
    committer.send(Commit { content, to: to.clone(), first: None, done }).unwrap();
    assert_eq!(result.await.unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(!to.exists() && committer.backlog.borrow().commits <= 1);
}

#[test]
fn a_folder_that_another_process_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let usage = Usage::new(folder.path().to_owned(), None, Arc::new(Metrics::new().unwrap()));
    let to = folder.path().join("a.example/m/@v/v1.0.0.mod");
    let mut folders = BTreeSet::new();
    for _ in 0..2 {
        let staged = Staged { temp: Temp::Own(write(b"x", folder.path()).unwrap()), to: to.clone(), unless: None };
        rename(staged, &mut Lock::new(folder.path()), &mut folders, &usage).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"x");
        fs::remove_dir_all(folder.path().join("a.example")).unwrap();
    }
}
