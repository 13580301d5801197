//! What comes in parts, or never comes whole.

use gomodcache::config::Timeouts;

use crate::stage::{PATIENCE, Stage, config};
use crate::upstream::{Answer, Asked, Upstream, honest, zip};

const LONG: usize = 300_000;

fn long_zip() -> Vec<u8> {
    zip("v1.0.0", LONG)
}

/// Whoever asks for it again and again is told of this zip, and not that the upstream is away.
#[tokio::test]
async fn a_zip_that_always_breaks_keeps_nothing_else_from_being_asked_for() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", "zip")) => Answer::ok(long_zip()).closed_after(LONG / 2),
        _ => honest(asked),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for _ in 0..3 {
        assert!(!stage.tea("v1.0.0.zip").await.is_complete());
    }
    assert_eq!(stage.tea("v1.1.0.mod").await.status, 200);
    assert_eq!(stage.metric("gomodcache_upstream_requests_total", &["class=\"breaker\""]).await, 0.0);
}

/// Nor one that stalls. What is silent at once has no connection in common: each counts.
#[tokio::test]
async fn a_zip_that_always_stalls_keeps_nothing_else_from_being_asked_for() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some((version, "zip")) => Answer::ok(zip(version, LONG)).silent_after(LONG / 2),
        _ => honest(asked),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].timeouts = Timeouts { connect: PATIENCE, head: PATIENCE, idle: std::time::Duration::from_secs(1) };
    let stage = Stage::start(&config).await;
    let asked = (0..6).map(async |i| stage.tea(&format!("v1.{i}.0.zip")).await);
    assert!(futures::future::join_all(asked).await.iter().all(|got| !got.is_complete()));
    let got = stage.tea("v1.9.0.mod").await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(stage.metric("gomodcache_upstream_requests_total", &["class=\"breaker\""]).await, 0.0);
}

/// A range may be answered with a part of it.
#[tokio::test]
async fn a_rest_that_comes_in_parts_is_put_together() {
    const PART: usize = 20_000;
    let upstream = Upstream::start(|asked: &Asked| match asked.from() {
        Some(from) => {
            let to = long_zip().len().min(from + PART);
            Answer::new("206 Partial Content", &long_zip()[from..to])
                .with("Content-Range", format!("bytes {from}-{}/{}", to - 1, long_zip().len()))
        }
        None => Answer::ok(long_zip()).closed_after(LONG / 2),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let got = stage.tea("v1.0.0.zip").await;
    assert!(got.is(&long_zip()), "{got:?}");
    assert!(upstream.take_seen().len() > LONG / 2 / PART);
}

/// A part need not say of how much it is one.
#[tokio::test]
async fn the_end_of_a_part_is_not_taken_for_the_end() {
    const PART: usize = 20_000;
    let upstream = Upstream::start(|asked: &Asked| {
        let (version, whole) = (asked.file().unwrap().0, zip(asked.file().unwrap().0, LONG));
        match asked.from() {
            Some(from) => {
                let to = whole.len().min(from + PART);
                Answer::new("206 Partial Content", &whole[from..to]).with("Content-Range", format!("bytes {from}-{}/*", to - 1))
            }
            // Of the first the length is known, of the second nobody knows it, and it comes whole when it is asked for again.
            None if version == "v1.0.0" => Answer::ok(whole).closed_after(LONG / 2),
            None if asked.before == 0 => Answer::ok(whole).chunked().closed_after(LONG / 2),
            None => Answer::ok(whole).chunked(),
        }
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for version in ["v1.0.0", "v1.1.0"] {
        let got = stage.tea(&format!("{version}.zip")).await;
        assert!(got.is(&zip(version, LONG)), "{version}: {got:?}");
    }
}

/// As over a line that is cut every few minutes.
#[tokio::test]
async fn a_zip_of_which_each_try_brings_more_is_not_given_up() {
    const WHOLE: usize = 9 << 20;
    const EACH: usize = 3 << 19;
    let upstream = Upstream::start(|asked: &Asked| {
        let zip = zip("v1.0.0", WHOLE);
        let from = asked.from().unwrap_or_default();
        let answer = if from > 0 { Answer::rest(&zip, from) } else { Answer::ok(zip.clone()) };
        if from + EACH < zip.len() { answer.closed_after(EACH) } else { answer }
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let got = stage.tea("v1.0.0.zip").await;
    assert!(got.is(&zip("v1.0.0", WHOLE)), "{got:?}");
    assert!(upstream.take_seen().len() > 6);
}

/// One that brings the same again and again gains nothing.
#[tokio::test]
async fn a_zip_that_begins_anew_each_time_and_never_gets_further_is_given_up() {
    let upstream = Upstream::start(|_: &Asked| Answer::ok(zip("v1.0.0", 3 << 20)).closed_after(2 << 20)).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert!(!stage.tea("v1.0.0.zip").await.is_complete());
    assert_eq!(upstream.take_seen().len(), 4, "the first brought something");
}
