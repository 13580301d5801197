//! Lists and `@latest`: what changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::stage::{Stage, config, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest};

pub(crate) const LIST: &str = ".gomodcache/mutable/corp.example/!tea/@v/list";

/// Makes an object that was downloaded just now seem older. What is in memory stays there.
pub(crate) async fn grow_old(stage: &Stage, below: &str, seconds: u64) {
    // A download that is not quite over is joined, however old its file seems, and its folders may take their time to be synced.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let file = std::fs::File::open(stage.path(below)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

fn age(stage: &Stage, below: &str) -> Duration {
    std::fs::metadata(stage.path(below)).unwrap().modified().unwrap().elapsed().unwrap_or_default()
}

/// Asked in the spelling that is not in memory.
async fn list(stage: &Stage) -> crate::stage::Got {
    stage.get("/corp.example/%21tea/@v/list").await
}

/// An upstream with one more version at each request for the list.
async fn growing() -> Upstream {
    Upstream::start(|asked: &Asked| match asked.path.as_str() {
        "/corp.example/!tea/@v/list" => Answer::ok((0..=asked.before).map(|i| format!("v1.{i}.0\n")).collect::<String>()),
        _ => honest(asked),
    })
    .await
}

#[tokio::test]
async fn a_new_tag_is_seen_within_the_ttl_though_other_versions_are_cached() {
    let upstream = growing().await;
    let stage = Stage::start(&config(&[&upstream])).await;
    stage.tea("v1.0.0.info").await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    stage.kept(LIST).await;
    // Fresh: nobody is asked.
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    // Stale: the old one at once, while the upstream is asked.
    grow_old(&stage, LIST, 40).await;
    let stale = list(&stage).await;
    assert_eq!((stale.text().as_str(), stale.header("cache-status")), ("v1.0.0\n", "gomodcache; hit; detail=stale"));
    assert!((40..60).contains(&stale.header("age").parse::<u64>().unwrap()));
    eventually("the new tag", async || list(&stage).await.text() == "v1.0.0\nv1.1.0\n").await;
}

#[tokio::test]
async fn a_list_older_than_its_ttl_is_asked_for_anew() {
    let upstream = growing().await;
    let stage = Stage::start(&config(&[&upstream])).await;
    stage.tea("list").await;
    stage.kept(LIST).await;
    grow_old(&stage, LIST, 61).await;
    assert_eq!(list(&stage).await.text(), "v1.0.0\nv1.1.0\n");
}

#[tokio::test]
async fn an_old_list_is_served_as_stale_when_the_upstream_fails_and_not_when_it_says_not_found() {
    for (status, expected) in
        [("500 Internal Server Error", 200), ("429 Too Many Requests", 200), ("401 Unauthorized", 200), ("404 Not Found", 404)]
    {
        let upstream =
            Upstream::start(move |asked: &Asked| if asked.before == 0 { Answer::ok("v1.0.0\n") } else { Answer::new(status, "no\n") })
                .await;
        let stage = Stage::start(&config(&[&upstream])).await;
        stage.tea("list").await;
        stage.kept(LIST).await;
        grow_old(&stage, LIST, 600).await;
        let got = list(&stage).await;
        assert_eq!(got.status, expected, "{status}");
        if expected == 200 {
            assert_eq!((got.text().as_str(), got.header("cache-status")), ("v1.0.0\n", "gomodcache; hit; detail=stale"));
            assert!(got.header("age").parse::<u64>().unwrap() >= 600);
        }
    }
}

/// While its last answer is shown, and after.
#[tokio::test]
async fn an_upstream_that_fails_is_not_asked_at_each_request() {
    for (status, seconds) in [("429 Too Many Requests", 40), ("404 Not Found", 40), ("429 Too Many Requests", 600)] {
        let fails = Arc::new(AtomicBool::new(false));
        let has_failed = Arc::clone(&fails);
        let answer = move |_: &Asked| match has_failed.load(Ordering::Relaxed) {
            false => Answer::ok("v1.0.0\n"),
            true => Answer::new(status, "no\n"),
        };
        let upstream = Upstream::start(answer).await;
        let mut stage = Stage::start(&config(&[&upstream])).await;
        stage.tea("list").await;
        stage.kept(LIST).await;
        // No download is joined then that is not quite over.
        stage.restart(&config(&[&upstream])).await;
        grow_old(&stage, LIST, seconds).await;
        upstream.take_seen();
        fails.store(true, Ordering::Relaxed);
        let (started, mut answers) = (std::time::Instant::now(), Vec::new());
        for _ in 0..100 {
            answers.push(list(&stage).await.status);
        }
        if status.starts_with("404") {
            eventually("the absence is believed", async || list(&stage).await.status == 404).await;
        } else {
            assert!(answers.iter().all(|answer| *answer == 200), "{answers:?}");
        }
        // Three tries, and again after a second at the earliest.
        let (asked, most) = (upstream.take_seen().len() as u64, 3 * (started.elapsed().as_secs() + 1));
        assert!((1..=most).contains(&asked), "{status}: asked {asked} times, at most {most}");
    }
}

/// Another process with the same volume has them, or this one had them before it was started anew.
#[tokio::test]
async fn a_list_of_other_sources_is_not_taken_for_that_of_these() {
    let (theirs, ours) = (growing().await, Upstream::start(|_: &Asked| Answer::ok("v7.0.0\n")).await);
    let mut stage = Stage::start(&config(&[&theirs])).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    stage.kept(LIST).await;
    let other = Stage::on_volume(&config(&[&ours]), &stage.path("")).await;
    assert_eq!(other.tea("list").await.text(), "v7.0.0\n");
    eventually("their list in the place of ours", async || {
        std::fs::read_to_string(stage.path(LIST)).is_ok_and(|list| list.ends_with("\nv7.0.0\n"))
    })
    .await;
    drop(other);
    stage.restart(&config(&[&theirs])).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\nv1.1.0\n");
    eventually("it is kept", async || std::fs::read_to_string(stage.path(LIST)).is_ok_and(|list| list.ends_with("\nv1.1.0\n"))).await;
    stage.restart(&config(&[&theirs])).await;
    theirs.take_seen();
    assert!(stage.tea("list").await.text().starts_with("v1.0.0\n") && theirs.take_paths().is_empty(), "its own is, after a restart");
}

#[tokio::test]
async fn the_list_file_of_a_module_cache_is_never_served() {
    let upstream = growing().await;
    let prepare = |folder: &std::path::Path| {
        let versions = folder.join("cache/corp.example/!tea/@v");
        std::fs::create_dir_all(&versions).unwrap();
        std::fs::write(versions.join("list"), "v0.0.0-20240101000000-abcdefabcdef\nv0.9.0\n").unwrap();
    };
    let mut stage = Stage::prepared(&config(&[&upstream]), prepare).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    // Nor when there is nobody to ask and nothing else.
    std::fs::remove_dir_all(stage.path(".gomodcache/mutable")).unwrap_or_default();
    stage.restart(&config(&[])).await;
    let offline = stage.tea("list").await;
    assert!(offline.status == 404 || offline.text() == "v1.0.0\n", "{offline:?}");
}

#[tokio::test]
async fn offline_a_list_is_made_of_the_tags_that_are_cached() {
    let upstream = growing().await;
    let mut stage = Stage::start(&config(&[&upstream])).await;
    for version in ["v1.10.0", "v1.2.0", "v1.2.0-rc.1", "v0.0.0-20240101000000-abcdefabcdef"] {
        assert_eq!(stage.tea(&format!("{version}.info")).await.status, 200);
        stage.kept(&format!("corp.example/!tea/@v/{version}.info")).await;
    }
    stage.restart(&config(&[])).await;
    assert_eq!(stage.tea("list").await.text(), "v1.2.0-rc.1\nv1.2.0\nv1.10.0\n");
    let unknown = stage.get("/corp.example/coffee/@v/list").await;
    assert_eq!((unknown.status, unknown.text().as_str()), (404, "not cached, and this cache is offline\n"));
    let missing = stage.tea("v1.3.0.zip").await;
    assert_eq!((missing.status, missing.text().as_str()), (503, "not cached, and this cache is offline\n"));
}

#[tokio::test]
async fn pseudo_versions_in_an_upstreams_list_are_left_out_and_times_are_kept() {
    let upstream = Upstream::start(|_: &Asked| {
        Answer::ok("v1.0.0\nv0.0.0-20240101000000-abcdefabcdef\nv1.1.0 2024-01-01T00:00:00Z\nv1.1.1-0.20240101000000-abcdefabcdef\n")
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\nv1.1.0 2024-01-01T00:00:00Z\n");
}

/// Then the go command takes the newest of them, if nobody answers `@latest`.
#[tokio::test]
async fn a_list_of_nothing_but_pseudo_versions_is_passed_on() {
    const PSEUDO: &str = "v0.0.0-20240101000000-abcdefabcdef 2024-01-01T00:00:00Z\nv0.0.0-20240102000000-abcdefabcdef\n";
    let upstream = Upstream::start(|_: &Asked| Answer::ok(PSEUDO)).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("list").await.text(), PSEUDO);
}

#[tokio::test]
async fn an_empty_list_is_a_200_so_that_the_client_asks_for_the_latest() {
    let upstream = Upstream::start(|asked: &Asked| match asked.path.as_str() {
        "/corp.example/!tea/@v/list" => Answer::ok(""),
        "/corp.example/!tea/@latest" => Answer::ok(r#"{"Version":"v0.0.0-20240101000000-abcdefabcdef"}"#),
        _ => Answer::not_found(),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for _uncached_then_cached in 0..2 {
        let got = stage.tea("list").await;
        assert_eq!((got.status, got.text().as_str()), (200, ""));
    }
    assert_eq!(stage.get("/corp.example/!tea/@latest").await.text(), r#"{"Version":"v0.0.0-20240101000000-abcdefabcdef"}"#);
}

#[tokio::test]
async fn a_folder_of_files_is_an_upstream_and_the_pseudo_versions_of_its_list_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let versions = folder.path().join("corp.example/!tea/@v");
    std::fs::create_dir_all(&versions).unwrap();
    std::fs::write(versions.join("list"), "v1.0.0\nv0.0.0-20240101000000-abcdefabcdef\n").unwrap();
    let mut config = config(&[]);
    config.upstreams.push(crate::stage::entry(&format!("file://{}", folder.path().display()), gomodcache::config::Fallback::OnNotFound));
    let stage = Stage::start(&config).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
}

#[tokio::test]
async fn a_folder_of_files_without_a_list_hides_no_other_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let versions = folder.path().join("corp.example/!tea/@v");
    std::fs::create_dir_all(&versions).unwrap();
    std::fs::write(versions.join("v1.0.0.info"), r#"{"Version":"v1.0.0"}"#).unwrap();
    let upstream = Upstream::start(|asked: &Asked| match asked.path.as_str() {
        "/corp.example/!tea/@v/list" if asked.before == 0 => Answer::ok("v1.0.0\nv1.2.0\n"),
        _ => Answer::not_found(),
    })
    .await;
    let mut config = config(&[&upstream]);
    let files = crate::stage::entry(&format!("file://{}", folder.path().display()), gomodcache::config::Fallback::OnNotFound);
    config.upstreams.insert(0, files);
    // The second time nobody has a list, and the files are one.
    for expected in ["v1.0.0\nv1.2.0\n", "v1.0.0\n"] {
        assert_eq!(Stage::start(&config).await.tea("list").await.text(), expected);
    }
}

/// An upstream whose list has two versions from the third request on, and says when it was not changed.
async fn careful(validator: fn(usize) -> (&'static str, &'static str, &'static str)) -> Upstream {
    Upstream::start(move |asked: &Asked| {
        let (name, value, condition) = validator(usize::from(asked.before > 1));
        let dated = |answer: Answer| answer.with(name, value).with("Date", "Sat, 01 Jan 2028 13:00:00 GMT");
        match asked.path.as_str() {
            "/corp.example/!tea/@v/list" if asked.header(condition) == Some(value) => dated(Answer::new("304 Not Modified", "")),
            "/corp.example/!tea/@v/list" if asked.before > 1 => dated(Answer::ok("v1.0.0\nv1.1.0\n")),
            "/corp.example/!tea/@v/list" => dated(Answer::ok("v1.0.0\n")),
            _ => honest(asked),
        }
    })
    .await
}

#[tokio::test]
async fn a_list_that_did_not_change_costs_a_304_and_one_that_did_is_seen() {
    let validators: [fn(usize) -> _; 2] = [
        |change| ("ETag", ["W/\"one\"", "W/\"two\""][change], "if-none-match"),
        |change| ("Last-Modified", ["Sat, 01 Jan 2028 11:00:00 GMT", "Sat, 01 Jan 2028 12:00:00 GMT"][change], "if-modified-since"),
    ];
    for validator in validators {
        let upstream = careful(validator).await;
        let stage = Stage::start(&config(&[&upstream])).await;
        let bytes = async || stage.metric("gomodcache_upstream_bytes_total", &[]).await;
        stage.tea("list").await;
        stage.kept(LIST).await;
        let (_, value, condition) = validator(0);
        // In spellings that are not in memory.
        for (path, expected, received) in [("%21tea/@v/list", "v1.0.0\n", 7.0), ("%21tea/%40v/list", "v1.0.0\nv1.1.0\n", 21.0)] {
            grow_old(&stage, LIST, 61).await;
            let got = stage.get(&format!("/corp.example/{path}")).await;
            assert_eq!((got.status, got.text().as_str(), bytes().await), (200, expected, received));
            assert_eq!(upstream.last().header(condition), Some(value));
            eventually("the list in the cache, young again", async || age(&stage, LIST) < Duration::from_secs(30)).await;
        }
        assert_eq!(stage.classes().await, ["ok"]);
    }
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_a_fault() {
    let upstream = Upstream::start(|_: &Asked| Answer::new("304 Not Modified", "")).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!((stage.tea("list").await.status, stage.tea("v1.0.0.zip").await.status), (502, 502));
}

/// Its list may be another one for another reader.
#[tokio::test]
async fn a_tag_is_sent_to_the_upstream_that_gave_it_and_to_no_other() {
    let tagged = |asked: &Asked| if asked.path.ends_with("/list") { Answer::ok("v1.0.0\n").with("ETag", "\"one\"") } else { honest(asked) };
    let (first, second) = (Upstream::start(tagged).await, Upstream::start(tagged).await);
    let stage = Stage::start(&config(&[&first])).await;
    stage.tea("list").await;
    stage.kept(LIST).await;
    stage.configure(&config(&[&second]));
    eventually("the other upstream", async || stage.tea("list").await.status == 200 && !second.paths().is_empty()).await;
    assert!(second.last().header("if-none-match").is_none());
    // The configuration changes, and the upstream stays: its tag is still good.
    let mut patient = config(&[&second]);
    patient.upstreams[0].timeouts.head = Duration::from_secs(2);
    stage.configure(&patient);
    eventually("the same upstream", async || stage.tea("list").await.status == 200 && second.paths().len() > 1).await;
    assert_eq!(second.last().header("if-none-match"), Some("\"one\""));
}

/// Where it is sent the other server has the same tag, and a longer list.
#[tokio::test]
async fn a_list_that_is_redirected_since_is_asked_for_without_a_condition() {
    let elsewhere = Upstream::start(|asked: &Asked| match asked.header("if-none-match") {
        Some(_) => Answer::new("304 Not Modified", ""),
        None => Answer::ok("v1.0.0\nv1.1.0\n"),
    })
    .await;
    let to = elsewhere.url();
    let upstream = Upstream::start(move |asked: &Asked| match asked.before {
        0 => Answer::ok("v1.0.0\n").with("ETag", "\"one\""),
        _ => Answer::redirect(format!("{to}/list")),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("list").await.text(), "v1.0.0\n");
    stage.kept(LIST).await;
    grow_old(&stage, LIST, 120).await;
    assert_eq!(list(&stage).await.text(), "v1.0.0\nv1.1.0\n");
}
