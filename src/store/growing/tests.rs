use super::*;

fn growing(folder: &std::path::Path) -> Arc<Growing> {
    Arc::new(Growing::new(folder.to_owned(), Budget::new(MAX_MEMORY), Arc::default()).unwrap())
}

fn files_in(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn the_volume_is_left_alone_before_the_first_bytes_and_after_the_last_handle() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    assert_eq!((files_in(folder.path()), growing.reader().read(&mut [0]).unwrap()), (0, 0));
    assert!(growing.restart().await.unwrap());
    growing.append(vec![Bytes::from_static(b"x")]).await.unwrap();
    assert_eq!((files_in(folder.path()), growing.reader().read(&mut [0]).unwrap()), (1, 1));
    drop(growing);
    while files_in(folder.path()) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_volume_that_takes_no_new_file_is_passed_by() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(&folder.path().join("gone/.gomodcache/tmp"));
    growing.append(vec![Bytes::from_static(b"memory")]).await.unwrap();
    let mut text = String::new();
    growing.reader().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), growing.path()), ("memory", None));
}

#[tokio::test]
async fn what_the_volume_cannot_take_moves_to_memory_with_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    growing.append(vec![Bytes::from_static(b"volume, ")]).await.unwrap();
    let before = growing.file();
    // A handle that can't be written stands for a full disk.
    growing.file.store(Arc::new(File::open(growing.path().unwrap()).unwrap()));
    growing.append(vec![Bytes::from_static(b"mem"), Bytes::from_static(b"ory")]).await.unwrap();
    let mut text = String::new();
    growing.reader().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), growing.path()), ("volume, memory", None));
    assert_eq!(before.metadata().unwrap().len(), 8, "who reads the old file loses nothing");
    assert_eq!(files_in(folder.path()), 0);
    assert!(growing.restart().await.unwrap());
    assert_eq!(growing.file().metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn the_length_that_a_client_was_promised_stands() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    assert!(growing.promise(Some(1)) && growing.promise(Some(200_000)));
    growing.append(vec![Bytes::from(vec![1; 100_000])]).await.unwrap();
    assert!(growing.show() && growing.promise(Some(200_000)) && growing.promise(None));
    assert!(!growing.promise(Some(300_000)));
    assert_eq!(growing.progress().length, Some(200_000));
}

#[tokio::test]
async fn a_length_is_not_shorter_than_what_is_here() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    growing.append(vec![Bytes::from(vec![1; 100_000])]).await.unwrap();
    assert!(growing.show() && !growing.promise(Some(99_999)));
    assert_eq!(growing.progress().length, None);
    assert!(growing.promise(Some(100_000)));
}

#[tokio::test]
async fn however_much_follows_the_last_of_the_promised_bytes_wait_for_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    assert!(growing.promise(Some(100_000)));
    growing.append(vec![Bytes::from(vec![1; 300_000])]).await.unwrap();
    assert_eq!(growing.progress().visible(), 100_000 - HELD_BACK);
    growing.end(false);
    assert_eq!(growing.progress().visible(), 100_000 - HELD_BACK);
}

#[tokio::test]
async fn the_last_bytes_wait_for_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    growing.append(vec![Bytes::from(vec![1; 100_000]), Bytes::from_static(b"x")]).await.unwrap();
    assert_eq!(growing.progress().visible(), 100_001 - HELD_BACK);
    growing.end(true);
    assert_eq!(growing.progress().visible(), 100_001);
}

#[tokio::test]
async fn what_a_client_has_seen_is_not_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let growing = growing(folder.path());
    let long = Bytes::from(vec![1; 100_000]);
    growing.append(vec![long.clone()]).await.unwrap();
    assert!(growing.restart().await.unwrap() && !growing.show());
    growing.append(vec![long]).await.unwrap();
    assert!(growing.show() && !growing.restart().await.unwrap());
}
