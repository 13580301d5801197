//! What `/metrics` says, held against `docs/metrics.md`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gomodcache::config::{LookAhead, PinnedHost, ProxyConfig, Resolution, Timeouts};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::stage::{Stage, client, config, eventually};
use crate::upstream::{Answer, Asked, Gate, Upstream, honest};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const OPERATOR: &str = include_str!("../../src/operator/metrics.rs");

/// The first column of a table below a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

/// Of a running proxy.
async fn names(stage: &Stage) -> BTreeSet<String> {
    let text = client().get(format!("{}/metrics", stage.admin())).send().await.unwrap().text().await.unwrap();
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

/// A JSON Web Token that nobody signed.
fn token(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn with_token(stage_folder: &std::path::Path, name: &str, token: &str) {
    let text = format!(r#"{{"hosts":["127.0.0.1"],"secret":{{"token":"{token}"}}}}"#);
    std::fs::write(stage_folder.join(format!("credentials/credential.{name}")), text).unwrap();
}

fn naming(upstream: &Upstream, credential: &str) -> ProxyConfig {
    let mut config = config(&[upstream]);
    config.upstreams[0].credential = Some(credential.to_owned());
    config
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let upstream = Upstream::start(honest).await;
    let pin = |host: &str, last: &[u8]| PinnedHost {
        host: host.to_owned(),
        addresses: last.iter().map(|i| IpAddr::from([127, 0, 0, *i])).collect(),
    };
    let resolution = Resolution::Pinned { hosts: vec![pin("127.0.0.1", &[1]), pin("corp.example", &[7, 8])] };
    let config = ProxyConfig { look_ahead: LookAhead::All, resolution, ..naming(&upstream, "corp") };
    let stage = Stage::prepared(&config, |folder| with_token(folder, "corp", &token(r#"{"exp":1900000000}"#))).await;
    stage.tea("v1.0.0.zip").await;
    stage.kept("corp.example/!tea/@v/v1.0.0.info").await;
    assert_eq!(stage.metric("gomodcache_egress_addresses", &["host=\"corp.example\""]).await, 2.0);
    assert_eq!(names(&stage).await, documented("A cache"));
    let written: BTreeSet<String> =
        OPERATOR.split('"').filter(|text| text.starts_with("gomodcache_operator_")).map(str::to_owned).collect();
    assert_eq!(written, documented("The operator"));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_of_its_answer_is_counted_and_logged_as_any_other() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |asked: &Asked| honest(asked).held_after(0, &held)).await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].timeouts = Timeouts::default();
    let stage = Stage::start(&config).await;
    let path = "/corp.example/!tea/@v/v1.0.0.mod";
    let mut client = TcpStream::connect(stage.url.strip_prefix("http://").unwrap()).await.unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    eventually("the upstream's turn", async || upstream.paths() == [path]).await;
    let address = client.local_addr().unwrap().to_string();
    drop(client);
    let line = json!({"client": address, "path": path, "endpoint": "mod", "status": 499, "result": "left", "bytes": 0});
    eventually("its line", async || stage.access(&line) == 1).await;
    let counted = async |result: &str| stage.metric("gomodcache_requests_total", &["endpoint=\"mod\"", result]).await;
    assert_eq!((counted("result=\"left\"").await, counted("").await), (1.0, 1.0));
    assert_eq!(stage.metric("gomodcache_request_duration_seconds_count", &["endpoint=\"mod\""]).await, 0.0, "it had no head");
    assert_eq!(stage.metric("gomodcache_in_flight_requests", &[]).await, 0.0);
    gate.open();
    stage.kept(&path[1..]).await;
    assert!(stage.get(path).await.status == 200 && upstream.paths() == [path], "what was fetched is kept");
    eventually("the line of who stayed", async || stage.access(&json!({"path": path, "status": 200, "result": "hit"})) == 1).await;
    assert_eq!((counted("result=\"left\"").await, counted("").await), (1.0, 2.0));
}

#[tokio::test]
async fn an_upstreams_bytes_and_durations_are_told_by_its_host() {
    let upstream = Upstream::start(|asked: &Asked| if asked.is("mod") { Answer::not_found() } else { honest(asked) }).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let zip = stage.tea("v1.0.0.zip").await.body.unwrap().len();
    let absent = stage.tea("v1.0.0.mod").await.body.unwrap().len();
    let host = "host=\"127.0.0.1\"";
    assert_eq!(stage.metric("gomodcache_upstream_bytes_total", &[host]).await, (zip + absent) as f64);
    assert_eq!(stage.metric("gomodcache_upstream_request_duration_seconds_count", &[host]).await, 2.0);
    assert!(stage.metric("gomodcache_upstream_request_duration_seconds_sum", &[host]).await > 0.0);
}

#[tokio::test]
async fn an_upstream_that_is_held_back_is_told_until_its_pause_is_over_or_it_is_used_no_more() {
    let broken = Upstream::start(|asked: &Asked| honest(asked).closed_after(0)).await;
    let other = Upstream::start_on("127.0.0.2:0", honest).await;
    let stage = Stage::start(&config(&[&broken])).await;
    let open = async |host: &str| stage.metric("gomodcache_upstream_breaker_open", &[&format!("host=\"{host}\"")]).await;
    assert_eq!(open("127.0.0.1").await, 0.0);
    for round in 0..2 {
        let mut versions = 0..;
        eventually("that it is held back", async || {
            stage.tea(&format!("v1.{}.{round}.mod", versions.next().unwrap())).await;
            open("127.0.0.1").await == 1.0
        })
        .await;
        if round == 0 {
            eventually("the end of the pause, though nobody asks", async || open("127.0.0.1").await == 0.0).await;
        }
    }
    stage.configure(&config(&[&other]));
    eventually("nothing of it", async || open("127.0.0.1").await == 0.0).await;
}

#[tokio::test]
async fn a_credential_is_told_with_its_last_success_and_its_expiry_until_it_is_used_no_more() {
    let good = token(r#"{"exp":1900000000}"#);
    let expected = format!("Bearer {good}");
    let upstream =
        Upstream::start(
            move |asked: &Asked| {
                if asked.header("authorization") == Some(&expected) { honest(asked) } else { Answer::new("401 Unauthorized", "") }
            },
        )
        .await;
    let stage = Stage::prepared(&naming(&upstream, "corp"), |folder| {
        with_token(folder, "corp", &good);
        with_token(folder, "other", "opaque");
    })
    .await;
    let labels = ["credential=\"corp\"", "host=\"127.0.0.1\""];
    let success = async || stage.metric("gomodcache_credential_last_success_timestamp_seconds", &labels).await;
    let expiry = async || stage.metric("gomodcache_credential_expiry_timestamp_seconds", &labels).await;
    assert_eq!((expiry().await, success().await), (1.9e9, 0.0), "before it was used");
    stage.tea("v1.0.0.info").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&success().await));
    stage.configure(&naming(&upstream, "other"));
    eventually("the other credential", async || expiry().await == 0.0).await;
    assert_eq!(success().await, 0.0);
    assert_eq!(stage.tea("v1.1.0.info").await.status, 502);
    assert_eq!(stage.metric("gomodcache_credential_last_success_timestamp_seconds", &[]).await, 0.0, "a refusal is no success");
}

#[tokio::test]
async fn the_process_tells_its_memory_and_its_processor_time() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    let of = async |name: &str| stage.metric(name, &[]).await;
    let first = of("process_cpu_seconds_total").await;
    for i in 0..50 {
        stage.tea(&format!("v1.{i}.0.zip")).await;
    }
    assert!(of("process_cpu_seconds_total").await > first && first > 0.0);
    let (resident, anonymous) = (of("process_resident_memory_bytes").await, of("process_anonymous_memory_bytes").await);
    assert!(anonymous > 1e6 && resident >= anonymous && resident <= stage.peak_memory() as f64, "{anonymous} of {resident}");
    assert!(of("process_open_fds").await > 5.0);
    assert!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - of("process_start_time_seconds").await < 600.0);
}
