//! `kill -9` at random under load: what is on the volume is whole, and what a client got was right or was seen to be cut.
//! KILL_ROUNDS (20) says how often.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;

mod common;
use common::{Serving, proxy, serve};

type Objects = Arc<HashMap<String, Vec<u8>>>;

const MODULES: usize = 40;

/// Modules of 1 KB to 4 MB: small ones go through memory, long ones are shown while they arrive.
fn objects() -> Objects {
    let mut objects = HashMap::new();
    for i in 0..MODULES {
        let (path, size) = (format!("load.example/m{i}"), 1_000 << (i % 13));
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        writer.start_file(format!("{path}@v1.0.0/data.go"), stored).unwrap();
        writer.write_all(&(0..size).map(|n| u8::try_from((n * 31 + i) % 251).unwrap()).collect::<Vec<u8>>()).unwrap();
        objects.insert(format!("/{path}/@v/v1.0.0.zip"), writer.finish().unwrap().into_inner());
        objects.insert(format!("/{path}/@v/v1.0.0.mod"), format!("module {path}\n").into_bytes());
        objects.insert(format!("/{path}/@v/v1.0.0.info"), br#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#.to_vec());
    }
    Arc::new(objects)
}

async fn upstream(State(objects): State<Objects>, request: Request) -> Response {
    match objects.get(request.uri().path()) {
        // In pieces, so that a kill often hits a zip that is arriving.
        Some(bytes) => {
            let pieces: Vec<Bytes> = bytes.chunks(bytes.len() / 8 + 1).map(Bytes::copy_from_slice).collect();
            let slow = futures::stream::iter(pieces).then(|piece| async move {
                tokio::time::sleep(Duration::from_millis(15)).await;
                Ok::<_, std::io::Error>(piece)
            });
            Response::builder().header("content-length", bytes.len()).body(Body::from_stream(slow)).unwrap()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn start(goproxy: &str, folder: &Path) -> Serving {
    let log = folder.join("log");
    let mut command = proxy(&folder.join("cache"));
    command.envs([("GOPROXY", goproxy), ("GOSUMDB", "off"), ("GONOSUMDB", "none.example")]);
    let proxy = serve(command, &log);
    for _ in 0..1_000 {
        if reqwest::get(format!("http://{}/readyz", proxy.admin)).await.is_ok_and(|response| response.status().is_success()) {
            return proxy;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the proxy did not become ready: {}", std::fs::read_to_string(&log).unwrap());
}

/// Asks for everything, many at a time. Returns how many whole answers came; each of them must be right.
async fn load(address: &str, objects: &Objects) -> usize {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let paths: Vec<String> = objects.keys().cloned().collect();
    let answers = futures::stream::iter(paths).map(|path| {
        let (request, objects) = (client.get(format!("http://{address}{path}")), Arc::clone(objects));
        async move {
            let Ok(response) = request.send().await else { return 0 };
            let status = response.status();
            let Ok(body) = response.bytes().await else { return 0 };
            assert!(status == 200 && body == objects[&path], "{path}: {status} with {} bytes that are not the object's", body.len());
            1
        }
    });
    answers.buffer_unordered(16).collect::<Vec<usize>>().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxy_leaves_nothing_broken() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let rounds: u32 = std::env::var("KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let objects = objects();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let goproxy = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(upstream).with_state(Arc::clone(&objects));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let (mut whole, mut cut) = (0, 0);
    for round in 0..rounds {
        let proxy = start(&goproxy, folder.path()).await;
        let running = tokio::spawn({
            let (address, objects) = (proxy.modules.clone(), Arc::clone(&objects));
            async move { load(&address, &objects).await }
        });
        // From before the first answer to after the last commit: a round of load takes about half a second.
        tokio::time::sleep(Duration::from_millis(u64::from(round * 37 % 500))).await;
        drop(proxy);
        let answers = running.await.unwrap();
        whole += answers;
        cut += objects.len() - answers;
        verify(&cache);
        // A third of what is there goes, so that the next round has something to fetch.
        forget(&cache, &objects, round);
    }
    assert!(whole > 0 && (cut > 0 || rounds < 20), "{whole} whole answers and {cut} cut ones: the kills did not hit");

    let proxy = start(&goproxy, folder.path()).await;
    assert_eq!(load(&proxy.modules, &objects).await, objects.len());
    // What is answered is on its way to the disk.
    let until = Instant::now() + Duration::from_secs(60);
    let is_kept = |path: &String| cache.join(path.trim_start_matches('/')).exists();
    while !objects.keys().all(is_kept) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(proxy);
    let offline = start("off", folder.path()).await;
    assert_eq!(load(&offline.modules, &objects).await, objects.len(), "after a kill and without an upstream");
}

fn verify(cache: &Path) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_gomodcache")).args(["verify", "--output", "json", "--cache-dir"]).arg(cache).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn forget(cache: &Path, objects: &Objects, round: u32) {
    for (i, path) in objects.keys().enumerate() {
        if (i + round as usize).is_multiple_of(3) {
            let _not_there = std::fs::remove_file(cache.join(path.trim_start_matches('/')));
        }
    }
}
