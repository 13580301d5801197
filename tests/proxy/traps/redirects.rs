//! Redirects: followed here, only where the configuration allows, and without secrets.

use gomodcache::config::{Credential, ProxyConfig, Resolution};

use crate::stage::{Stage, client, config, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest, zip};

const SIGNATURE: &str = "q7Zsignature";
const PASSWORD: &str = "hunter2";

/// An upstream that sends clients elsewhere for its zips, and the store that it sends them to: another host.
async fn pair(store: fn(&Asked) -> Answer) -> (Upstream, Upstream, ProxyConfig) {
    let store = Upstream::start_on("127.0.0.2:0", store).await;
    let to = store.url();
    let upstream = Upstream::start(move |asked: &Asked| {
        if asked.is("zip") {
            Answer::redirect(format!("{to}{}?X-Signature={SIGNATURE}", asked.path.replace('!', "%21")))
        } else {
            honest(asked)
        }
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].redirect_hosts = vec!["127.0.0.2".to_owned()];
    config.upstreams[0].credential = Some("corp".to_owned());
    (upstream, store, config)
}

fn write_credential(folder: &std::path::Path) {
    let text = format!(r#"{{"hosts":["127.0.0.1","127.0.0.2"],"secret":{{"basic":{{"username":"u","password":"{PASSWORD}"}}}}}}"#);
    serde_json::from_str::<Credential>(&text).unwrap();
    std::fs::write(folder.join("credentials/credential.corp"), text).unwrap();
}

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_here_without_the_credential() {
    let (upstream, store, config) = pair(|_| Answer::ok(zip("v1.0.0", 100))).await;
    let stage = Stage::prepared(&config, write_credential).await;
    let got = stage.tea("v1.0.0.zip").await;
    assert!(got.is(&zip("v1.0.0", 100)) && got.header("location").is_empty(), "{got:?}");
    assert!(upstream.take_seen()[0].header("authorization").unwrap().starts_with("Basic "));
    let asked = store.take_seen().remove(0);
    assert_eq!(asked.header("authorization"), None);
    assert!(asked.raw.ends_with(SIGNATURE), "{}", asked.raw);
}

/// As one that moved to another path, and is asked without TLS because the process runs alone.
#[tokio::test]
async fn a_plain_upstream_may_redirect_to_itself() {
    let upstream = Upstream::start(|asked: &Asked| match asked.path.strip_prefix("/new") {
        Some(_) => Answer::ok("module corp.example/Tea\n"),
        None => Answer::redirect(format!("/new{}", asked.path)),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].internal = false;
    config.resolution = Resolution::System { private_addresses: true };
    let stage = Stage::start(&config).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.text(), "module corp.example/Tea\n");
}

#[tokio::test]
async fn where_a_redirect_leads_need_not_be_escaped() {
    let upstream = Upstream::start(|asked: &Asked| match asked.path.strip_prefix("/t%C3%A9") {
        Some(_) => Answer::ok("module corp.example/Tea\n"),
        None => Answer::redirect(format!("/té{}", asked.path)),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    assert_eq!(stage.tea("v1.0.0.mod").await.text(), "module corp.example/Tea\n");
}

#[tokio::test]
async fn a_redirect_to_another_port_of_the_same_host_carries_no_credential() {
    let other = Upstream::start(|_: &Asked| Answer::ok(zip("v1.0.0", 100))).await;
    let to = other.url();
    let upstream = Upstream::start(move |_: &Asked| Answer::redirect(format!("{to}/x"))).await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::prepared(&config, write_credential).await;
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
    assert_eq!(other.take_seen()[0].header("authorization"), None);
}

/// Neither when all is well, nor in the words on a failure, nor with every log turned on.
#[tokio::test]
async fn a_signed_url_is_neither_logged_nor_told_nor_used_as_a_key_and_a_password_is_not_logged() {
    let (_upstream, _store, config) = pair(|asked| match asked.file() {
        Some(("v1.0.0", _)) => Answer::ok(zip("v1.0.0", 100)),
        Some(("v1.1.0", _)) => Answer::new("403 Forbidden", format!("signature {SIGNATURE} expired")),
        Some(("v1.2.0", _)) => Answer::ok("zip").promising(1_000),
        Some(("v1.3.0", _)) => Answer::new("404 Not Found", ""),
        _ => Answer::redirect(format!("http://127.0.0.3:1/?X-Signature={SIGNATURE}")),
    })
    .await;
    let stage = Stage::prepared(&config, write_credential).await;
    for (version, status) in [("v1.0.0", 200), ("v1.1.0", 502), ("v1.2.0", 502), ("v1.3.0", 404), ("v1.4.0", 502)] {
        let got = stage.tea(&format!("{version}.zip")).await;
        assert_eq!(got.status, status, "{version}");
        assert!(!String::from_utf8_lossy(&got.body.unwrap()).contains(SIGNATURE), "{version}");
    }
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    for file in stage.files() {
        let content = std::fs::read(&file).unwrap();
        let holds = |secret: &str| content.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!file.to_string_lossy().contains(SIGNATURE) && !holds(SIGNATURE) && !holds(PASSWORD), "{}", file.display());
    }
    eventually("the log of the last request", async || stage.log().contains("v1.4.0.zip")).await;
    let log = stage.log();
    for secret in [SIGNATURE, PASSWORD, "dTpodW50ZXIy"] {
        assert!(!log.contains(secret), "{}", log.lines().find(|line| line.contains(secret)).unwrap());
    }
}

#[tokio::test]
async fn a_redirect_to_a_host_that_is_not_declared_is_refused_with_the_line_to_add_and_nobody_is_asked() {
    let (_upstream, store, mut config) = pair(|_| Answer::ok(zip("v1.0.0", 100))).await;
    config.upstreams[0].redirect_hosts.clear();
    let stage = Stage::prepared(&config, write_credential).await;
    let got = stage.tea("v1.0.0.zip").await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("redirected to 127.0.0.2, which is not declared"), "{}", got.text());
    assert_eq!(store.take_paths(), Vec::<String>::new());
    assert!(!stage.has("v1.0.0.zip"));
}

/// Without a configuration file, which would have a place for it.
#[tokio::test]
async fn a_proxy_that_runs_alone_follows_redirects_to_the_hosts_of_its_command_line() {
    let (upstream, _store, _config) = pair(|_| Answer::ok(zip("v1.0.0", 100))).await;
    for (args, status) in [(vec!["--redirect-hosts", "127.0.0.2"], 200), (vec![], 502)] {
        let stage = Stage::alone(&upstream.url(), &args).await;
        let got = stage.tea("v1.0.0.zip").await;
        assert_eq!(got.status, status, "{got:?}");
    }
}

/// Port 1 of the loopback network: nobody listens there.
#[tokio::test]
async fn a_store_that_is_away_is_named_and_is_no_fault_of_the_upstream_that_redirects_to_it() {
    let upstream =
        Upstream::start(|asked: &Asked| if asked.is("zip") { Answer::redirect("http://127.0.0.2:1/x") } else { honest(asked) }).await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].redirect_hosts = vec!["127.0.0.2".to_owned()];
    let stage = Stage::start(&config).await;
    for i in 0..5 {
        let got = stage.tea(&format!("v1.{i}.0.zip")).await;
        assert!(got.status == 502 && got.text().starts_with("upstream 127.0.0.2: "), "{got:?}");
    }
    // After five faults it is left alone, and the upstream is not.
    let mut i = 2;
    eventually("a store that is held back, and said to be", async || {
        i += 1;
        let got = stage.tea(&format!("v1.{i}.0.zip")).await;
        let is_open = stage.metric("gomodcache_upstream_breaker_open", &["host=\"127.0.0.2\""]).await == 1.0;
        is_open && got.text().contains("upstream 127.0.0.2: has not answered lately")
    })
    .await;
    assert_eq!(stage.tea("v1.3.0.mod").await.status, 200);
    let tries = async |labels: &[&str]| stage.metric("gomodcache_upstream_requests_total", labels).await;
    let (own, stores) = ("host=\"127.0.0.1\"", "host=\"127.0.0.2\"");
    assert_eq!(tries(&[own]).await, tries(&[own, "class=\"ok\""]).await, "nothing was wrong there");
    assert!(tries(&[stores, "class=\"connect\""]).await >= 5.0 && tries(&[stores, "class=\"breaker\""]).await >= 1.0);
    let path = format!("{}/explain/corp.example/Tea@v1.{i}.0", stage.admin());
    let said = client().get(path).send().await.unwrap().text().await.unwrap();
    assert!(said.replace(char::is_whitespace, "").contains(r#""host":"127.0.0.2","class":"breaker""#), "{said}");
}

#[tokio::test]
async fn a_store_that_is_away_holds_up_no_other_one_nor_a_redirect_to_the_upstream_itself() {
    let store = Upstream::start_on("127.0.0.2:0", |_| Answer::ok(zip("v1.8.0", 100))).await;
    let to = store.url();
    let upstream = Upstream::start(move |asked: &Asked| match (asked.file(), asked.path.strip_prefix("/moved")) {
        (Some(("v1.8.0", "zip")), _) => Answer::redirect(format!("{to}/x")),
        (Some((_, "zip")), _) => Answer::redirect("http://127.0.0.3:1/x"),
        (_, None) => Answer::redirect(format!("/moved{}", asked.path)),
        _ => Answer::ok("module corp.example/Tea\n"),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].redirect_hosts = vec!["127.0.0.2".to_owned(), "127.0.0.3".to_owned()];
    let stage = Stage::start(&config).await;
    for i in 0..5 {
        stage.tea(&format!("v1.{i}.0.zip")).await;
    }
    let got = stage.tea("v1.9.0.zip").await;
    assert!(got.text().contains("upstream 127.0.0.3: has not answered lately"), "{got:?}");
    let got = stage.tea("v1.8.0.zip").await;
    assert!(got.is(&zip("v1.8.0", 100)), "{got:?}");
    let got = stage.tea("v1.9.0.mod").await;
    assert_eq!(got.status, 200, "{got:?}");
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = Upstream::start(honest).await;
    let to = plain.url();
    let (url, certificate) =
        crate::tls::serve(move |path| format!("HTTP/1.1 302 Found\r\nLocation: {to}{path}\r\nContent-Length: 0\r\n\r\n")).await;
    let mut config = config(&[]);
    config.upstreams.push(gomodcache::config::Upstream {
        ca_bundle: Some(certificate),
        ..crate::stage::entry(&url, gomodcache::config::Fallback::OnNotFound)
    });
    let stage = Stage::start(&config).await;
    let got = stage.tea("v1.0.0.mod").await;
    assert!(got.status == 502 && got.text().contains("redirected to 127.0.0.1 without TLS"), "{got:?}");
    assert_eq!(plain.take_paths(), Vec::<String>::new());
}
