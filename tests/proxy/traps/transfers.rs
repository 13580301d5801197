//! Long bodies: shared, broken, too long, and read slowly.

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use gomodcache::config::ProxyConfig;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::stage::{PATIENCE, Stage, client, config, eventually};
use crate::upstream::{Answer, Asked, Gate, Upstream, honest, zip};

const LONG: usize = 300_000;
const MIB: u64 = 1 << 20;

fn long_zip() -> Vec<u8> {
    zip("v1.0.0", LONG)
}

/// For a test that holds an answer back for longer than the other tests' time-outs.
fn patient(upstream: &Upstream) -> ProxyConfig {
    let mut config = config(&[upstream]);
    config.upstreams[0].timeouts.idle = PATIENCE;
    config
}

#[tokio::test]
async fn a_hundred_requests_for_one_uncached_zip_are_one_upstream_request() {
    let upstream = Upstream::start(|asked: &Asked| honest(asked).paused_after(100)).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for got in futures::future::join_all((0..100).map(|_| stage.tea("v1.0.0.zip"))).await {
        assert!(got.is(&zip("v1.0.0", 100)), "{got:?}");
    }
    assert_eq!(upstream.take_seen().len(), 1);
}

#[tokio::test]
async fn a_request_that_finds_the_file_on_disk_joins_no_download_that_has_ended() {
    const VERSIONS: usize = 40;
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for i in 0..VERSIONS {
        let file = format!("v1.{i}.0.zip");
        stage.tea(&file).await;
        while !stage.has(&file) {
            tokio::task::yield_now().await;
        }
        stage.tea(&file).await;
    }
    assert_eq!(stage.metric("gomodcache_requests_total", &["result=\"hit\""]).await, VERSIONS as f64);
}

/// And a hundred more than that: in most containers a process may open 1,024 files until it asks for more. A third of the
/// clients leave half way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_for_one_uncached_zip_are_one_upstream_request_and_those_that_leave_cancel_nothing() {
    const CLIENTS: usize = 1_100;
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: most.maximum, ..most };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).expect("a soft limit up to the hard one");
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_: &Asked| Answer::ok(long_zip()).held_after(LONG / 2, &held)).await;
    let stage = Stage::start(&patient(&upstream)).await;
    let (client, expected) = (client(), Bytes::from(long_zip()));
    let url = format!("{}/corp.example/!tea/@v/v1.0.0.zip", stage.url);
    let (arrived, everybody) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(CLIENTS)));
    let downloads = (0..CLIENTS).map(|i| {
        let (request, expected) = (client.get(&url), expected.clone());
        let (arrived, everybody) = (Arc::clone(&arrived), Arc::clone(&everybody));
        tokio::spawn(async move {
            let mut response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            let mut read = response.chunk().await.unwrap().unwrap().len();
            arrived.fetch_add(1, Ordering::Relaxed);
            everybody.wait().await;
            if i % 3 == 0 {
                return;
            }
            while let Some(piece) = response.chunk().await.unwrap() {
                assert!(expected[read..].starts_with(&piece), "wrong bytes at {read}");
                read += piece.len();
            }
            assert_eq!(read, expected.len());
        })
    });
    let downloads: Vec<_> = downloads.collect();
    eventually("the beginning of the zip at every client", async || arrived.load(Ordering::Relaxed) == CLIENTS).await;
    // Those that leave are gone before the rest arrives.
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    for download in downloads {
        download.await.unwrap();
    }
    assert_eq!(upstream.take_seen().len(), 1);
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
}

#[tokio::test]
async fn clients_that_leave_cancel_no_download() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_: &Asked| Answer::ok(long_zip()).held_after(LONG / 2, &held)).await;
    let stage = Stage::start(&patient(&upstream)).await;
    let url = format!("{}/corp.example/!tea/@v/v1.0.0.zip", stage.url);
    // The first client starts the download, sees its beginning, and leaves.
    let mut first = client().get(&url).send().await.unwrap();
    assert!(first.chunk().await.unwrap().is_some());
    let second = client().get(&url).send().await.unwrap();
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    assert!(second.bytes().await.unwrap() == long_zip());
    assert_eq!(upstream.take_seen().len(), 1);
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
}

#[tokio::test]
async fn a_download_goes_on_when_every_client_has_left() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_: &Asked| Answer::ok(long_zip()).held_after(LONG / 2, &held)).await;
    let stage = Stage::start(&patient(&upstream)).await;
    let mut only = client().get(format!("{}/corp.example/!tea/@v/v1.0.0.zip", stage.url)).send().await.unwrap();
    assert!(only.chunk().await.unwrap().is_some());
    drop(only);
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    assert_eq!(upstream.take_seen().len(), 1);
}

#[tokio::test]
async fn a_broken_zip_goes_on_where_it_broke_and_only_if_it_is_still_the_same() {
    let upstream = Upstream::start(|asked: &Asked| match asked.from() {
        Some(from) => Answer::rest(&long_zip(), from).with("ETag", "\"one\""),
        None => Answer::ok(long_zip()).with("ETag", "\"one\"").closed_after(LONG / 2),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert!(stage.tea("v1.0.0.zip").await.is(&long_zip()));
    let seen = upstream.take_seen();
    assert_eq!((seen.len(), seen[1].from(), seen[1].header("if-range")), (2, Some(LONG / 2), Some("\"one\"")));
}

/// As when a load balancer resets the one connection that carried them all: each goes on where it broke.
#[tokio::test]
async fn many_downloads_that_break_at_the_same_time_all_go_on() {
    const MANY: usize = 8;
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |asked: &Asked| {
        let whole = zip(asked.file().unwrap().0, LONG);
        match asked.from() {
            Some(from) => Answer::rest(&whole, from).with("ETag", "\"one\""),
            None => Answer::ok(whole).with("ETag", "\"one\"").broken_after(LONG / 2, &held),
        }
    })
    .await;
    let stage = Stage::start(&patient(&upstream)).await;
    let clients = futures::future::join_all((0..MANY).map(async |i| {
        let version = format!("v1.{i}.0");
        stage.tea(&format!("{version}.zip")).await.is(&zip(&version, LONG))
    }));
    let break_them = async {
        eventually("all downloads", async || upstream.paths().len() == MANY).await;
        gate.open();
    };
    let (whole, ()) = tokio::join!(clients, break_them);
    assert_eq!(whole, [true; MANY]);
    assert_eq!(stage.metric("gomodcache_upstream_requests_total", &["class=\"breaker\""]).await, 0.0);
}

/// The beginning of a longer file is not a shorter one, though it has as many bytes as the client was promised.
#[tokio::test]
async fn a_broken_zip_that_goes_on_as_another_file_is_never_a_complete_answer() {
    for chunked in [false, true] {
        let upstream = Upstream::start(move |asked: &Asked| match asked.before {
            0 => Answer::ok(long_zip()).promising(LONG as u64 - 1_000).closed_after(LONG / 2),
            _ if chunked => Answer::ok(long_zip()).chunked(),
            _ => Answer::ok(long_zip()),
        })
        .await;
        let stage = Stage::start(&config(&[&upstream])).await;
        let got = stage.tea("v1.0.0.zip").await;
        assert!(!got.is_complete(), "chunked: {chunked}: {got:?}");
        assert!(!stage.has("v1.0.0.zip"));
    }
}

/// A client that comes later would be told the shorter length, and so much is here to be shown.
#[tokio::test]
async fn a_broken_zip_of_unknown_length_that_goes_on_as_a_shorter_one_is_never_a_complete_answer() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |asked: &Asked| match asked.before {
        0 => Answer::ok(long_zip()).chunked().closed_after(LONG / 2),
        _ => Answer::ok(zip("v1.0.1", LONG / 4)).held_after(LONG / 8, &held),
    })
    .await;
    let stage = Stage::start(&patient(&upstream)).await;
    let mut first = client().get(format!("{}/corp.example/!tea/@v/v1.0.0.zip", stage.url)).send().await.unwrap();
    assert!(first.chunk().await.unwrap().is_some());
    eventually("a second try", async || upstream.paths().len() == 2).await;
    let (second, ()) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stage.tea("v1.0.0.zip").await
        },
        async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            gate.open();
        }
    );
    assert!(!second.is_complete(), "{second:?}");
    assert!(!stage.has("v1.0.0.zip"));
}

#[tokio::test]
async fn a_zip_of_unknown_length_is_served_whole_or_breaks_off_by_its_framing() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", _)) => Answer::ok(long_zip()).chunked().paused_after(LONG / 2),
        _ => Answer::ok(long_zip()).chunked().closed_after(LONG / 2),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let good = stage.tea("v1.0.0.zip").await;
    assert!(good.is(&long_zip()) && good.header("content-length").is_empty(), "{good:?}");
    let cut = stage.tea("v1.1.0.zip").await;
    assert!(!cut.is_complete(), "{cut:?}");
}

/// Nor is a body without length one that a client can trust: it ends as it breaks off.
#[tokio::test]
async fn an_http_1_0_client_gets_a_length_or_an_error() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", _)) => Answer::ok(long_zip()).chunked().paused_after(LONG / 2),
        _ => Answer::ok(long_zip()).chunked().closed_after(LONG / 2),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    for (version, status, body) in [("v1.0.0", "200", long_zip()), ("v1.1.0", "502", Vec::new())] {
        let mut stream = TcpStream::connect(stage.url.strip_prefix("http://").unwrap()).await.unwrap();
        let request = format!("GET /corp.example/!tea/@v/{version}.zip HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
        let head = String::from_utf8_lossy(&answer[..200.min(answer.len())]).to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.0 {status}")) && head.contains("\r\ncontent-length: "), "{head}");
        assert!(answer.ends_with(&body));
    }
    eventually("the same words in the access log", async || {
        stage.access(&json!({"path": "/corp.example/!tea/@v/v1.1.0.zip", "status": 502, "result": "error"})) == 1
    })
    .await;
}

/// Promised or not, and whatever the client has of it already.
#[tokio::test]
async fn five_hundred_mib_and_one_byte_are_refused() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", _)) => Answer::ok("").promising(500 * MIB + 1),
        _ => Answer::ok("x").chunked().and_zeros(520 * MIB),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let promised = stage.tea("v1.0.0.zip").await;
    assert_eq!(promised.status, 502);
    assert!(promised.text().contains("more than 524288000 bytes"), "{}", promised.text());
    let mut streamed = client().get(format!("{}/corp.example/!tea/@v/v1.1.0.zip", stage.url)).send().await.unwrap().bytes_stream();
    let mut last = None;
    while let Some(piece) = streamed.next().await {
        last = Some(piece.is_ok());
    }
    assert_eq!(last, Some(false), "the body breaks off");
    assert!(!stage.has("v1.0.0.zip") && !stage.has("v1.1.0.zip"));
    // Not read to its end to find that it is no zip either.
    assert!(stage.metric("gomodcache_upstream_bytes_total", &[]).await < (510 * MIB) as f64);
    let temporary = stage.path(".gomodcache/tmp");
    eventually("no temporary file is left", async || std::fs::read_dir(&temporary).unwrap().next().is_none()).await;
    assert_eq!(stage.metric("gomodcache_upstream_requests_total", &["class=\"verification\""]).await, 2.0);
}

#[tokio::test]
async fn a_zip_of_300_mib_is_served_with_flat_memory_to_slow_readers_too() {
    let folder = tempfile::tempdir().unwrap();
    let versions = folder.path().join("corp.example/!tea/@v");
    std::fs::create_dir_all(&versions).unwrap();
    huge_zip(&versions.join("v1.0.0.zip"));
    let mut config = config(&[]);
    config.upstreams.push(crate::stage::entry(&format!("file://{}", folder.path().display()), gomodcache::config::Fallback::OnNotFound));
    let stage = Stage::start(&config).await;
    let expected = std::fs::metadata(versions.join("v1.0.0.zip")).unwrap().len();
    let url = format!("{}/corp.example/!tea/@v/v1.0.0.zip", stage.url);
    let read = async |pause: Duration| {
        let mut response = client().get(&url).send().await.unwrap();
        let mut bytes = 0;
        while let Some(piece) = response.chunk().await.unwrap() {
            // A slow reader stops once, early, for as long as the others take.
            if bytes == 0 {
                tokio::time::sleep(pause).await;
            }
            bytes += piece.len() as u64;
        }
        bytes
    };
    let slow = (0..6).map(|_| read(Duration::from_secs(2)));
    let (one, all) = tokio::join!(read(Duration::ZERO), futures::future::join_all(slow));
    assert!(one == expected && all.iter().all(|bytes| *bytes == expected));
    let peak = stage.peak_memory();
    assert!(peak < 100 * MIB, "{peak} bytes for a zip of {expected}");
}

/// Stored zeros: long and quickly made.
fn huge_zip(path: &std::path::Path) {
    let mut writer = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("corp.example/Tea@v1.0.0/zeros", options).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..300 {
        writer.write_all(&zeros).unwrap();
    }
    writer.finish().unwrap().seek(SeekFrom::Start(0)).unwrap();
}

#[tokio::test]
async fn sigterm_lets_running_answers_end_and_takes_no_new_ones() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_: &Asked| Answer::ok(long_zip()).held_after(LONG / 2, &held)).await;
    let mut stage = Stage::start(&patient(&upstream)).await;
    let mut response = client().get(format!("{}/corp.example/!tea/@v/v1.0.0.zip", stage.url)).send().await.unwrap();
    let mut body = response.chunk().await.unwrap().unwrap().to_vec();
    stage.signal("-TERM");
    eventually("no new connections", async || client().get(&stage.url).send().await.is_err()).await;
    assert!(!stage.is_ready().await);
    gate.open();
    while let Some(piece) = response.chunk().await.unwrap() {
        body.extend_from_slice(&piece);
    }
    assert!(body == long_zip());
    assert!(stage.ended().await.success());
}
