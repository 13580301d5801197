//! What comes in parts, or never comes whole.

use crate::stage::{Stage, config};
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

/// A range may be answered with a part of it.
#[tokio::test]
async fn a_rest_that_comes_in_parts_is_put_together() {
    let upstream = Upstream::start(|asked: &Asked| match asked.from() {
        Some(from) if asked.before == 1 => {
            let to = from + 1_000;
            Answer::new("206 Partial Content", &long_zip()[from..to])
                .with("Content-Range", format!("bytes {from}-{}/{}", to - 1, long_zip().len()))
        }
        Some(from) => Answer::rest(&long_zip(), from),
        None => Answer::ok(long_zip()).closed_after(LONG / 2),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let got = stage.tea("v1.0.0.zip").await;
    assert!(got.is(&long_zip()), "{got:?}");
    assert_eq!(upstream.take_seen().len(), 3);
}
