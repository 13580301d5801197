//! Memory stays flat whatever the size of a zip and however slow its readers. MEMORY_MIB (64) is the size of the zip,
//! MEMORY_CLIENTS (16) how many download it at the same time; half of them stop reading after 1 MiB until the others are done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod common;
use common::{Serving, proxy, serve};

const MIB: usize = 1 << 20;

/// Bytes of memory that are not files.
fn anonymous(proxy: &Serving) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn upstream(folder: &Path, mib: usize) -> u64 {
    let files = folder.join("big.example/m/@v");
    std::fs::create_dir_all(&files).unwrap();
    let mut writer = zip::ZipWriter::new(std::fs::File::create(files.join("v1.0.0.zip")).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("big.example/m@v1.0.0/data.go", stored).unwrap();
    let piece: Vec<u8> = (0..MIB).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for _ in 0..mib {
        writer.write_all(&piece).unwrap();
    }
    writer.finish().unwrap().metadata().unwrap().len()
}

fn start(folder: &Path) -> Serving {
    let goproxy = format!("file://{}/upstream", folder.display());
    let mut command = proxy(&folder.join("cache"));
    command.envs([("GOPROXY", goproxy.as_str()), ("GOSUMDB", "off"), ("GONOSUMDB", "none.example")]);
    serve(command, &folder.join("log"))
}

/// Downloads the zip; a slow reader stops after 1 MiB until the barrier falls. Returns the bytes of the body.
fn download(address: &str, slow: bool, others_done: &Barrier) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /big.example/m/@v/v1.0.0.zip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = Cursor::new(Vec::new());
    let mut buffer = vec![0; 256 << 10];
    let mut body = 0;
    let mut seen_head = false;
    let mut waited = !slow;
    loop {
        let n = stream.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        if seen_head {
            body += n as u64;
        } else {
            head.get_mut().extend_from_slice(&buffer[..n]);
            if let Some(end) = head.get_ref().windows(4).position(|w| w == b"\r\n\r\n") {
                assert!(head.get_ref().starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head.get_ref()[..end]));
                body = (head.get_ref().len() - end - 4) as u64;
                seen_head = true;
            }
        }
        if !waited && body >= MIB as u64 {
            others_done.wait();
            waited = true;
        }
    }
    if !slow {
        others_done.wait();
    }
    body
}

#[test]
fn many_downloads_of_a_large_zip_need_little_memory_also_when_half_of_the_readers_stop() {
    let (mib, clients) = (setting("MEMORY_MIB", 64), setting("MEMORY_CLIENTS", 16));
    let folder = tempfile::tempdir().unwrap();
    let length = upstream(&folder.path().join("upstream"), mib);
    let proxy = start(folder.path());
    std::thread::sleep(Duration::from_millis(300));
    let idle = anonymous(&proxy);

    let (others_done, all_done) = (Barrier::new(clients), AtomicBool::new(false));
    let mut peak = 0;
    // First while it arrives, then from the disk.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut peak = 0;
                while !all_done.load(Ordering::Relaxed) {
                    peak = peak.max(anonymous(&proxy));
                    std::thread::sleep(Duration::from_millis(20));
                }
                peak
            });
            let downloads: Vec<_> = (0..clients)
                .map(|i| {
                    scope.spawn({
                        let (address, others_done) = (&proxy.modules, &others_done);
                        move || download(address, i % 2 == 0, others_done)
                    })
                })
                .collect();
            let results: Vec<_> = downloads.into_iter().map(|download| download.join()).collect();
            all_done.store(true, Ordering::Relaxed);
            peak = peak.max(watcher.join().unwrap());
            for result in results {
                assert_eq!(result.unwrap(), length);
            }
        });
        all_done.store(false, Ordering::Relaxed);
    }
    eprintln!("RssAnon: idle {} MiB; peak with {clients} downloads of {mib} MiB {} MiB", idle / MIB, peak / MIB);
    assert!(idle < 30 * MIB, "idle: {idle} bytes");
    assert!(peak < 150 * MIB, "peak: {peak} bytes");
}
