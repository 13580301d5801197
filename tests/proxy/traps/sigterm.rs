//! The end of a process.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::stage::{Stage, client, config, eventually};
use crate::upstream::{Upstream, honest};

/// A Service sends connections here until it has heard that the pod is going.
#[tokio::test]
async fn after_sigterm_connections_are_taken_for_a_while_though_it_is_not_ready() {
    let upstream = Upstream::start(honest).await;
    let mut stage = Stage::with_args(&config(&[&upstream]), &["--linger", "2s"]).await;
    stage.signal("-TERM");
    eventually("it is unready", async || !stage.is_ready().await).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.status, 200);
    assert!(stage.ended().await.success());
    assert!(client().get(&stage.url).send().await.is_err());
}

#[tokio::test]
async fn sigterm_does_not_wait_for_connections_on_which_nobody_asks() {
    let upstream = Upstream::start(honest).await;
    for said in ["", "GET /livez HTTP/1.1\r\nHost: x\r\n"] {
        let mut stage = Stage::start(&config(&[&upstream])).await;
        let mut admin = TcpStream::connect(stage.admin().strip_prefix("http://").unwrap()).await.unwrap();
        admin.write_all(said.as_bytes()).await.unwrap();
        let _silent = TcpStream::connect(stage.url.strip_prefix("http://").unwrap()).await.unwrap();
        // Both have been accepted by the time that later ones are answered.
        assert!(stage.is_ready().await && stage.tea("v1.0.0.mod").await.status == 200);
        stage.signal("-TERM");
        let told = std::time::Instant::now();
        assert!(stage.ended().await.success(), "{said:?}");
        assert!(told.elapsed() < Duration::from_secs(10), "{said:?}: after {:?}", told.elapsed());
    }
}

/// What the volume was about to get is not lost with the process, and neither is what was seen first.
#[tokio::test]
async fn what_was_answered_before_sigterm_is_kept() {
    let upstream = Upstream::start(honest).await;
    let mut stage = Stage::start(&config(&[&upstream])).await;
    for version in 0..40 {
        for kind in ["info", "mod", "zip"] {
            assert_eq!(stage.tea(&format!("v1.{version}.0.{kind}")).await.status, 200);
        }
    }
    stage.signal("-TERM");
    assert!(stage.ended().await.success());
    for version in 0..40 {
        for below in ["", ".gomodcache/first-seen/"] {
            let zip = format!("{below}corp.example/!tea/@v/v1.{version}.0.zip");
            assert!(stage.path(&zip).exists(), "{zip}");
        }
        assert!(stage.has(&format!("v1.{version}.0.info")) && stage.has(&format!("v1.{version}.0.mod")));
    }
    let left = std::fs::read_dir(stage.path(".gomodcache/tmp")).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp")).count(), 0);
}
