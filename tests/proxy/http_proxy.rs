//! An HTTP proxy between the cache and its upstreams.

use std::sync::{Arc, Mutex};

use gomodcache::config::{Fallback, HttpProxy, ProxyConfig};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::stage::{Stage, config, entry, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest};

fn through(proxy: &str, upstreams: &[&str]) -> ProxyConfig {
    let upstreams = upstreams.iter().map(|url| entry(url, Fallback::OnNotFound)).collect();
    let http_proxy = HttpProxy { url: proxy.parse().unwrap(), no_proxy: Vec::new(), credential: None };
    ProxyConfig { upstreams, http_proxy: Some(http_proxy), ..config(&[]) }
}

/// The path of a request that names its host too, as a proxy is asked.
fn for_host(asked: &Asked) -> Option<Asked> {
    Some(Asked::of(asked.path.strip_prefix("http://modules.example")?))
}

#[tokio::test]
async fn plain_http_goes_through_with_the_proxys_own_credential_and_loopback_does_not() {
    let proxy = Upstream::start(|asked: &Asked| match (for_host(asked), asked.header("proxy-authorization")) {
        (Some(asked), Some("Basic Y2k6c2VjcmV0")) if asked.is("info") => honest(&asked),
        (Some(_), Some(_)) => Answer::not_found(),
        _ => Answer::new("407 Proxy Authentication Required", ""),
    })
    .await;
    let near = Upstream::start(honest).await;
    let mut config = through(&proxy.url(), &["http://modules.example", &near.url()]);
    config.http_proxy.as_mut().unwrap().credential = Some("egress".to_owned());
    let stage = Stage::prepared(&config, |folder| {
        let credential = r#"{"hosts": ["127.0.0.1"], "secret": {"basic": {"username": "ci", "password": "secret"}}}"#;
        std::fs::write(folder.join("credentials/credential.egress"), credential).unwrap();
    })
    .await;
    assert_eq!(stage.tea("v1.0.0.info").await.status, 200);
    assert_eq!(proxy.take_paths(), ["http://modules.example/corp.example/!tea/@v/v1.0.0.info"]);
    assert_eq!(near.take_paths(), Vec::<String>::new());
    assert_eq!(stage.tea("v1.0.0.mod").await.status, 200);
    let asked = near.take_seen();
    assert_eq!(asked[0].header("proxy-authorization"), None, "nobody else hears the proxy's credential");
    assert!(!stage.log().contains("c2VjcmV0") && !stage.log().contains("secret\""));
}

#[tokio::test]
async fn the_proxys_credential_may_be_late_or_taken_back_and_all_that_goes_past_it_is_served() {
    let proxy = Upstream::start(|asked: &Asked| match (for_host(asked), asked.header("proxy-authorization")) {
        (Some(asked), Some("Bearer t0ken")) => honest(&asked),
        _ => Answer::new("407 Proxy Authentication Required", ""),
    })
    .await;
    let near = Upstream::start(honest).await;
    let mut config = through(&proxy.url(), &["http://modules.example"]);
    config.http_proxy.as_mut().unwrap().credential = Some("egress".to_owned());
    let mut stage = Stage::start(&config).await;
    let got = stage.tea("v1.0.0.mod").await;
    let says = "httpProxy: the credential egress is missing\ncheck the credential of the HTTP proxy";
    assert!(got.status == 502 && got.text().contains(says), "{got:?}");

    let credential = |hosts: &str| {
        let text = format!(r#"{{"hosts": [{hosts}], "secret": {{"token": "t0ken"}}}}"#);
        std::fs::write(stage.folder().join("credentials/credential.egress"), text).unwrap();
    };
    credential(r#""127.0.0.1""#);
    eventually("the credential", async || stage.tea("v1.0.0.mod").await.status == 200).await;
    stage.kept("corp.example/!tea/@v/v1.0.0.mod").await;
    credential("");
    let mut minor = 0;
    eventually("the owner's no", async || {
        minor += 1;
        let got = stage.tea(&format!("v1.{minor}.0.info")).await;
        got.status == 502 && got.text().contains("may not be sent to 127.0.0.1")
    })
    .await;
    assert_eq!(stage.tea("v1.0.0.mod").await.status, 200, "what is here is served");
    assert!(proxy.take_seen().iter().all(|asked| asked.header("proxy-authorization") == Some("Bearer t0ken")));

    // No start waits for it either, and it is nothing to those that are reached directly.
    config.upstreams.insert(0, entry(&near.url(), Fallback::OnNotFound));
    std::fs::remove_file(stage.folder().join("credentials/credential.egress")).unwrap();
    stage.restart(&config).await;
    assert_eq!(stage.tea("v2.0.0.info").await.status, 200);
}

#[tokio::test]
async fn an_upstreams_credential_does_not_pass_the_proxy_in_clear() {
    let proxy = Upstream::start(|asked: &Asked| for_host(asked).map_or_else(Answer::not_found, |asked| honest(&asked))).await;
    let mut config = through(&proxy.url(), &["http://modules.example"]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::prepared(&config, |folder| {
        let credential = r#"{"hosts": ["modules.example"], "secret": {"token": "t0ken"}}"#;
        std::fs::write(folder.join("credentials/credential.corp"), credential).unwrap();
    })
    .await;
    let got = stage.tea("v1.0.0.mod").await;
    assert!(got.status == 502 && got.text().contains("the credential corp would pass the HTTP proxy in clear"), "{got:?}");
    assert_eq!(proxy.take_paths(), Vec::<String>::new());
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_and_is_the_upstreams_own() {
    let (upstream, certificate) = crate::tls::serve(|path| {
        let body = honest(&Asked::of(&path.replace("%21", "!"))).into_body();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.len(), String::from_utf8(body).unwrap())
    })
    .await;
    let (proxy, asked) = tunnel(upstream.strip_prefix("https://").unwrap().to_owned()).await;
    let mut config = through(&proxy, &["https://modules.example"]);
    config.upstreams[0].ca_bundle = Some(certificate);
    let stage = Stage::start(&config).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.text(), "module corp.example/Tea\n");
    assert_eq!(*asked.lock().unwrap(), ["CONNECT modules.example:443 HTTP/1.1"]);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_no_absence() {
    let proxy = Upstream::start(|_: &Asked| Answer::new("407 Proxy Authentication Required", "")).await;
    let tunnelled = Stage::start(&through(&proxy.url(), &["https://modules.example"])).await;
    let got = tunnelled.tea("v1.0.0.mod").await;
    let says = "the HTTP proxy 127.0.0.1 opens no tunnel to it: proxy authorization required\ncheck the credential of the HTTP proxy";
    assert!(got.status == 502 && got.text().contains(says), "{got:?}");
    assert_eq!(proxy.take_seen().len(), 1, "a wrong password is not tried again: some proxies lock its owner out");
    let plain = Stage::start(&through(&proxy.url(), &["http://modules.example"])).await;
    let got = plain.tea("v1.0.0.mod").await;
    let says = "407 Proxy Authentication Required\ncheck the credential of the HTTP proxy";
    assert!(got.status == 502 && got.text().contains(says), "{got:?}");
}

/// A proxy that opens every tunnel to one address; its URL, and the first lines of what it was asked.
async fn tunnel(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (record, to) = (Arc::clone(&record), to.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::with_capacity(1, stream);
                let (mut first, mut line) = (String::new(), String::new());
                stream.read_line(&mut first).await?;
                record.lock().unwrap().push(first.trim_end().to_owned());
                while stream.read_line(&mut line).await? > 2 {
                    line.clear();
                }
                let mut upstream = tokio::net::TcpStream::connect(to).await?;
                stream.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
                tokio::io::copy_bidirectional(&mut stream, &mut upstream).await
            });
        }
    });
    (url, asked)
}
