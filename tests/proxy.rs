//! The real proxy binary between a real `go` client and an upstream that the tests control, all on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::{Cursor, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

type Seen = Arc<Mutex<Vec<String>>>;

fn zip(version: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file(format!("corp.example/Tea@{version}/go.mod"), zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(b"module corp.example/Tea\n").unwrap();
    writer.finish().unwrap().into_inner()
}

/// `corp.example/Tea` v1.0.0 is good; every other version is a fault.
async fn upstream(State(seen): State<Seen>, request: Request) -> Response {
    let path = request.uri().path().replace("%21", "!");
    seen.lock().unwrap().push(path.clone());
    let Some(file) = path.strip_prefix("/corp.example/!tea/@v/") else { return html_404() };
    match file {
        "v1.0.0.info" => r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00+02:00"}"#.into_response(),
        "v1.0.0.mod" => "module corp.example/Tea\n".into_response(),
        "v1.0.0.zip" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            zip("v1.0.0").into_response()
        }
        "v1.0.1.zip" => zip("v1.0.0").into_response(),
        "v1.0.2.zip" => b"no zip at all".to_vec().into_response(),
        "v1.0.3.info" => r#"{"Version":"v1.0.0"}"#.into_response(),
        "v1.1.0.info" => StatusCode::UNAUTHORIZED.into_response(),
        "v1.2.0.info" => StatusCode::FORBIDDEN.into_response(),
        "v1.3.0.info" => StatusCode::TOO_MANY_REQUESTS.into_response(),
        "v1.4.0.info" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "v1.5.0.info" => (StatusCode::FOUND, [(header::LOCATION, "https://elsewhere.example/x")]).into_response(),
        _ => html_404(),
    }
}

fn html_404() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/html")], "<h1>no</h1>").into_response()
}

struct Proxy {
    process: Child,
    url: String,
    cache: tempfile::TempDir,
    seen: Seen,
}

impl Proxy {
    async fn start() -> Self {
        let seen = Seen::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let goproxy = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(upstream).with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let cache = tempfile::tempdir().unwrap();
        let (process, url) = spawn(&goproxy, cache.path()).await;
        Self { process, url, cache, seen }
    }

    async fn get(&self, path: &str) -> (u16, String, Vec<u8>) {
        let response = reqwest_client().get(format!("{}{path}", self.url)).send().await.unwrap();
        let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        (response.status().as_u16(), kind, response.bytes().await.unwrap().to_vec())
    }

    fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn reqwest_client() -> reqwest::Client {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn spawn(goproxy: &str, cache: &Path) -> (Child, String) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_gomodcache"))
        .args(["proxy", "--listen", &address.to_string(), "--admin-listen", "127.0.0.1:0", "--cache-dir"])
        .arg(cache)
        .env("GOPROXY", goproxy)
        .env("GOSUMDB", "off")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (process, format!("http://{address}"))
}

async fn go_mod_download(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("go.mod"), "module corp.example/main\n\ngo 1.21\n\nrequire corp.example/Tea v1.0.0\n").unwrap();
    let output = tokio::process::Command::new("go")
        .args(["mod", "download"])
        .current_dir(folder.path())
        .env("GOPROXY", url)
        .env("GOSUMDB", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-modcacherw")
        .env("GOMODCACHE", folder.path().join("modcache"))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("modcache/corp.example/!tea@v1.0.0/go.mod").exists());
}

#[tokio::test]
async fn a_second_download_asks_the_upstream_for_nothing_also_after_kill_9_and_offline() {
    let mut proxy = Proxy::start().await;
    go_mod_download(&proxy.url).await;
    assert!(proxy.take_seen().iter().any(|path| path.ends_with("v1.0.0.zip")));
    go_mod_download(&proxy.url).await;
    assert_eq!(proxy.take_seen(), Vec::<String>::new());
    // Commits follow the answers within a moment.
    for _ in 0..100 {
        if proxy.cache.path().join("corp.example/!tea/@v/v1.0.0.zip").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    proxy.process.kill().unwrap();
    proxy.process.wait().unwrap();
    (proxy.process, proxy.url) = spawn("off", proxy.cache.path()).await;
    go_mod_download(&proxy.url).await;
    assert_eq!(proxy.get("/corp.example/!tea/@v/list").await.2, b"v1.0.0\n");
}

#[tokio::test]
async fn a_hundred_requests_for_one_uncached_zip_are_one_upstream_request() {
    let proxy = Proxy::start().await;
    let all = (0..100).map(|_| proxy.get("/corp.example/!tea/@v/v1.0.0.zip"));
    for (status, _, body) in futures::future::join_all(all).await {
        assert_eq!((status, body == zip("v1.0.0")), (200, true));
    }
    assert_eq!(proxy.take_seen().iter().filter(|path| path.ends_with(".zip")).count(), 1);
}

#[tokio::test]
async fn an_outage_is_never_a_404_and_an_absence_is_text() {
    let proxy = Proxy::start().await;
    for version in ["v1.1.0", "v1.2.0", "v1.3.0", "v1.4.0", "v1.5.0"] {
        let (status, kind, body) = proxy.get(&format!("/corp.example/!tea/@v/{version}.info")).await;
        assert!((502..=504).contains(&status), "{version}: {status}");
        assert!(kind.starts_with("text/plain") && String::from_utf8(body).unwrap().contains("127.0.0.1"), "{version}");
    }
    let (status, kind, body) = proxy.get("/corp.example/!tea/@v/v9.0.0.info").await;
    assert_eq!((status, kind.starts_with("text/plain")), (404, true));
    assert!(!String::from_utf8(body).unwrap().contains('<'));
}

#[tokio::test]
async fn a_wrong_answer_is_neither_served_nor_kept() {
    let proxy = Proxy::start().await;
    for file in ["v1.0.1.zip", "v1.0.2.zip", "v1.0.3.info"] {
        assert_eq!(proxy.get(&format!("/corp.example/!tea/@v/{file}")).await.0, 502, "{file}");
        assert!(!proxy.cache.path().join("corp.example/!tea/@v").join(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn an_impossible_path_is_404_without_an_upstream_request() {
    let proxy = Proxy::start().await;
    for path in [
        "/corp.example/Tea/@v/list",
        "/corp.example/%2521tea/@v/list",
        "/corp.example/a/@v/%2e%2e%2f%2e%2e%2fx.mod",
        "/sumdb/sum.example/supported",
    ] {
        assert_eq!(proxy.get(path).await.0, 404, "{path}");
    }
    assert_eq!(proxy.take_seen(), Vec::<String>::new());
}

#[tokio::test]
async fn both_spellings_of_an_upper_case_letter_are_one_object_with_its_bytes_unchanged() {
    let proxy = Proxy::start().await;
    let first = proxy.get("/corp.example/%21tea/@v/v1.0.0.info").await;
    let second = proxy.get("/corp.example/!tea/@v/v1.0.0.info").await;
    assert_eq!(first, second);
    assert!(String::from_utf8(first.2).unwrap().contains("+02:00"));
    assert_eq!(proxy.take_seen().len(), 1);
}
