//! The proxy is killed before each system call of a commit that matters, under `strace`: whatever is visible on the volume
//! after that is whole, and the next proxy serves everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::io::{Cursor, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

mod common;
use common::{Serving, serve};

/// What makes, fills, syncs, times and names files, and how often each is survived at most.
const POINTS: [(&str, u32); 10] = [
    ("mkdir", 4),
    ("write", 8),
    ("pwrite64", 3),
    ("copy_file_range", 2),
    ("fsync", 6),
    ("syncfs", 2),
    ("rename", 5),
    ("renameat2", 2),
    ("utimensat", 5),
    ("unlink", 2),
];
const FILES: [&str; 3] = ["v1.0.0.zip", "v1.0.0.mod", "v1.0.0.info"];

/// An upstream in a folder: `file://`, so that the system calls are the store's and not a network's.
fn upstream(folder: &Path) {
    let files = folder.join("crash.example/m/@v");
    std::fs::create_dir_all(&files).unwrap();
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("crash.example/m@v1.0.0/data.go", stored).unwrap();
    writer.write_all(&vec![b'x'; 300_000]).unwrap();
    std::fs::write(files.join("v1.0.0.zip"), writer.finish().unwrap().into_inner()).unwrap();
    std::fs::write(files.join("v1.0.0.mod"), "module crash.example/m\n").unwrap();
    std::fs::write(files.join("v1.0.0.info"), r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#).unwrap();
}

/// `inject`: what strace does. With -D it is not in between: the process is the proxy.
fn start(goproxy: &str, cache: &Path, inject: Option<&str>) -> Serving {
    let binary = env!("CARGO_BIN_EXE_gomodcache");
    let mut command = match inject {
        None => Command::new(binary),
        Some(inject) => {
            let mut strace = Command::new("strace");
            strace.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-e", inject, binary]);
            strace
        }
    };
    command.args(["proxy", "--cache-dir"]).arg(cache).envs([("GOPROXY", goproxy), ("GOSUMDB", "off"), ("GONOSUMDB", "none.example")]);
    serve(command, &cache.with_extension("log"))
}

fn get(address: &str, file: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET /crash.example/m/@v/{file} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    answer.starts_with(b"HTTP/1.0 200").then(|| answer.split_off(head + 4))
}

#[test]
fn a_kill_before_any_step_of_a_commit_leaves_nothing_torn() {
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace is not installed, and under CI no test may be left out");
        eprintln!("not run: strace is not installed");
        return;
    }
    let source = tempfile::tempdir().unwrap();
    upstream(source.path());
    let goproxy = format!("file://{}", source.path().display());
    let mut hit = 0;
    for (call, times) in POINTS {
        for when in 1..=times {
            let folder = tempfile::tempdir().unwrap();
            let cache = folder.path().join("cache");
            std::fs::create_dir(&cache).unwrap();
            let mut proxy = start(&goproxy, &cache, Some(&format!("inject={call}:signal=KILL:when={when}")));
            std::thread::scope(|scope| {
                for file in FILES {
                    scope.spawn(|| get(&proxy.modules, file));
                }
            });
            // The commit is due a tenth of a second after the answers.
            let until = Instant::now() + Duration::from_millis(600);
            let died = loop {
                match proxy.process.0.try_wait().unwrap() {
                    Some(status) => break status.signal() == Some(9) || status.code() == Some(137),
                    None if Instant::now() > until => break false,
                    None => std::thread::sleep(Duration::from_millis(10)),
                }
            };
            drop(proxy);
            hit += u32::from(died);
            let point = format!("before {call} number {when} of its thread");
            verify(&cache, &point);
            if died {
                let next = start(&goproxy, &cache, None);
                for file in FILES {
                    let wanted = std::fs::read(source.path().join("crash.example/m/@v").join(file)).unwrap();
                    assert!(get(&next.modules, file) == Some(wanted), "{file} after a kill {point}");
                }
            }
        }
    }
    assert!(hit >= 12, "only {hit} kills hit a system call");
}

fn verify(cache: &Path, point: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_gomodcache")).arg("verify").arg("--cache-dir").arg(cache).output().unwrap();
    assert!(output.status.success(), "killed {point}: {}", String::from_utf8_lossy(&output.stdout));
}
