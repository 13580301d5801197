//! The limit holds under a working set ten times as large, and what is used stays. EVICTION_LIMIT_MIB (48) and
//! EVICTION_REQUESTS (3000) make it larger; the hit rate is printed beside that of a plain LRU on the same trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

mod common;
use common::{Serving, proxy, serve};

const AT_ONCE: usize = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

/// Sizes of 0.1 to 1.9 times the mean.
fn size(module: u64, mean: u64) -> u64 {
    mean / 10 + Numbers(module * 2_654_435_761 + 1).next() % (mean * 18 / 10)
}

fn zip(module: u64, bytes: u64) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file(format!("evict.example/m{module}@v1.0.0/data.go"), stored).unwrap();
    writer.write_all(&vec![b'x'; usize::try_from(bytes).unwrap()]).unwrap();
    writer.finish().unwrap().into_inner()
}

/// Most requests are for modules that many builds share (the more popular the lower the number), as Zipf says; a quarter
/// are for modules that nobody asks for twice.
fn trace(requests: u64, shared: u64) -> Vec<u64> {
    let weights: Vec<f64> = (1..=shared).map(|rank| 1.0 / f64::from(u32::try_from(rank).unwrap()).powf(0.9)).collect();
    let sums: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let total = *sums.last().unwrap();
    let mut numbers = Numbers(88_172_645_463_325_252);
    (0..requests)
        .map(|i| {
            if numbers.next().is_multiple_of(4) {
                return shared + i;
            }
            let at = numbers.unit() * total;
            sums.partition_point(|sum| *sum < at) as u64
        })
        .collect()
}

/// Hits of a plain LRU of so many bytes.
fn lru(trace: &[u64], sizes: impl Fn(u64) -> u64, limit: u64) -> usize {
    let (mut last_use, mut bytes, mut hits) = (HashMap::<u64, usize>::new(), 0, 0);
    for (now, module) in trace.iter().enumerate() {
        if last_use.insert(*module, now).is_some() {
            hits += 1;
            continue;
        }
        bytes += sizes(*module);
        while bytes > limit {
            let oldest = *last_use.iter().min_by_key(|(_, time)| **time).unwrap().0;
            last_use.remove(&oldest);
            bytes -= sizes(oldest);
        }
    }
    hits
}

type Seen = Arc<Mutex<Vec<u64>>>;

async fn upstream(State((seen, mean)): State<(Seen, u64)>, request: Request) -> Response {
    let path = request.uri().path();
    let module = path.strip_prefix("/evict.example/m").and_then(|rest| rest.strip_suffix("/@v/v1.0.0.zip"));
    let Some(module) = module.and_then(|number| number.parse().ok()) else { return http::StatusCode::NOT_FOUND.into_response() };
    seen.lock().unwrap().push(module);
    zip(module, size(module, mean)).into_response()
}

async fn start(goproxy: &str, folder: &Path, limit: u64) -> Serving {
    let mut command = proxy(&folder.join("cache"));
    command.args(["--cache-limit", &limit.to_string()]).envs([("GOPROXY", goproxy), ("GOSUMDB", "off"), ("GONOSUMDB", "none.example")]);
    let proxy = serve(command, &folder.join("log"));
    for _ in 0..400 {
        if reqwest::get(format!("http://{}/readyz", proxy.admin)).await.is_ok_and(|response| response.status().is_success()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy
}

/// Bytes of the objects, and of what is being downloaded.
fn on_disk(cache: &Path) -> (u64, u64) {
    let (mut objects, mut arriving) = (0, 0);
    let mut folders = vec![cache.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if folder.ends_with(".gomodcache/tmp") {
                arriving += metadata.len();
            } else {
                objects += metadata.len();
            }
        }
    }
    (objects, arriving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_and_what_is_used_stays() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let (limit, requests) = (setting("EVICTION_LIMIT_MIB", 48) << 20, setting("EVICTION_REQUESTS", 3_000));
    let shared = requests / 4;
    let trace = trace(requests, shared);
    let distinct: HashSet<u64> = trace.iter().copied().collect();
    // So that all that is asked for is ten times the limit.
    let mean = limit * 10 / distinct.len() as u64;
    let working_set: u64 = distinct.iter().map(|module| size(*module, mean)).sum();

    let seen: Seen = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let goproxy = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(upstream).with_state((Arc::clone(&seen), mean));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(&goproxy, folder.path(), limit).await;
    let (cache, url) = (folder.path().join("cache"), format!("http://{}", proxy.modules));

    let (ended, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watch = std::thread::spawn({
        let (ended, highest, cache) = (Arc::clone(&ended), Arc::clone(&highest), cache.clone());
        move || {
            while !ended.load(Ordering::Relaxed) {
                let mut found = on_disk(&cache).0;
                if found > limit {
                    // What goes from where was looked and comes where was not yet is found twice: once more.
                    found = found.min(on_disk(&cache).0);
                }
                highest.fetch_max(found, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answers = futures::stream::iter(trace.clone()).map(|module| {
        let request = client.get(format!("{url}/evict.example/m{module}/@v/v1.0.0.zip"));
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.unwrap().len() as u64 > size(module, mean));
        }
    });
    answers.buffered(AT_ONCE).collect::<()>().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ended.store(true, Ordering::Relaxed);
    watch.join().unwrap();

    let misses = seen.lock().unwrap().len();
    let hits = trace.len() - misses;
    let of_lru = lru(&trace, |module| size(module, mean), limit);
    let percent = |hits: usize| hits as f64 * 100.0 / trace.len() as f64;
    eprintln!(
        "limit {} MiB, working set {} MiB, highest {} MiB; {} requests: hit rate {:.1} %, LRU {:.1} %",
        limit >> 20,
        working_set >> 20,
        highest.load(Ordering::Relaxed) >> 20,
        trace.len(),
        percent(hits),
        percent(of_lru)
    );
    assert!(working_set >= limit * 9, "the working set is too small to show anything");
    assert!(highest.load(Ordering::Relaxed) <= limit, "{} bytes were on disk, and the limit is {limit}", highest.load(Ordering::Relaxed));
    assert!(percent(hits) >= percent(of_lru) - 3.0, "a plain LRU would be better");
}
