//! `GET /report`: what the operator hears of a running proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gomodcache::config::{ChecksumDatabase, ChecksumMode, ProxyConfig, WhenUnavailable};
use gomodcache::report::{CredentialVerdict, ProxyReport, RefusedRedirect, config_digest};

use crate::stage::{Stage, client, config, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest, zip};

/// What the proxy says of itself now.
pub(crate) async fn report(stage: &Stage) -> ProxyReport {
    let response = client().get(format!("{}/report", stage.admin())).send().await.unwrap();
    assert_eq!(response.status(), 200);
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn name_of(config: &ProxyConfig) -> String {
    config_digest(&config.to_yaml().unwrap())
}

#[tokio::test]
async fn it_names_what_is_in_use_and_says_why_newer_files_are_not() {
    let (one, other) = (Upstream::start(honest).await, Upstream::start(honest).await);
    let (first, second) = (config(&[&one]), config(&[&one, &other]));
    let mut stage = Stage::prepared(&first, |folder| std::fs::write(folder.join("credentials/generation"), "g1\n").unwrap()).await;
    let now = report(&stage).await;
    assert_eq!((now.version, now.config_versions, now.config, now.credentials), (1, vec![1], name_of(&first), "g1".to_owned()));
    assert_eq!(now.refused, None);

    stage.configure(&second);
    std::fs::write(stage.folder().join("credentials/generation"), "g2").unwrap();
    let is_second = async |stage: &Stage| {
        let now = report(stage).await;
        now.config == name_of(&second) && now.credentials == "g2"
    };
    eventually("the second configuration", async || is_second(&stage).await).await;

    let later = "version: 2\nnew: true\n";
    std::fs::write(stage.folder().join("config/proxy.yaml"), later).unwrap();
    eventually("the refusal", async || report(&stage).await.refused.is_some()).await;
    assert!(is_second(&stage).await, "what was in use stays in use");
    let refused = report(&stage).await.refused.unwrap();
    assert_eq!((refused.config, refused.credentials), (config_digest(later), "g2".to_owned()));
    assert!(refused.reason.contains("configuration version 2 is not supported"), "{}", refused.reason);

    // A malformed credential is named and not quoted.
    std::fs::write(stage.folder().join("credentials/credential.corp"), "{\"password\": \"hunter2").unwrap();
    stage.configure(&first);
    eventually("the other refusal", async || report(&stage).await.refused.is_some_and(|r| r.config == name_of(&first))).await;
    assert_eq!(report(&stage).await.refused.unwrap().reason, "the credential corp is malformed");
    std::fs::remove_file(stage.folder().join("credentials/credential.corp")).unwrap();
    eventually("no refusal", async || report(&stage).await.refused.is_none()).await;
    assert_eq!(report(&stage).await.config, name_of(&first));

    // After a restart the last good one is in use, and says so. It is kept a moment after it came into use.
    let kept = || std::fs::read_to_string(stage.path(".gomodcache/last-good.yaml")).unwrap_or_default();
    eventually("the last good one", async || config_digest(&kept()) == name_of(&first)).await;
    stage.restart_as_is(|folder| std::fs::write(folder.join("config/proxy.yaml"), later).unwrap()).await;
    let now = report(&stage).await;
    assert_eq!((now.config, now.refused.unwrap().config), (name_of(&first), config_digest(later)));
}

#[tokio::test]
async fn with_an_admin_token_it_is_closed_to_everybody_else() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    std::fs::write(stage.folder().join("credentials/admin-token"), "s3cret\n").unwrap();
    let ask =
        async |token: &str| client().get(format!("{}/report", stage.admin())).bearer_auth(token).send().await.unwrap().status().as_u16();
    eventually("the token", async || ask("other").await == 401).await;
    assert_eq!(client().get(format!("{}/report", stage.admin())).send().await.unwrap().status(), 401);
    assert_eq!(ask("s3cret").await, 200);
}

#[tokio::test]
async fn a_refused_redirect_is_told_until_its_host_is_declared() {
    let upstream = Upstream::start(
        |asked: &Asked| {
            if asked.is("zip") { Answer::redirect("http://127.0.0.2:1/x?X-Signature=q7Z") } else { honest(asked) }
        },
    )
    .await;
    let mut config = config(&[&upstream]);
    let stage = Stage::start(&config).await;
    stage.tea("v1.0.0.mod").await;
    assert_eq!(report(&stage).await.redirects, []);
    stage.tea("v1.0.0.zip").await;
    let refused = [RefusedRedirect { upstream: "127.0.0.1".to_owned(), host: "127.0.0.2".to_owned() }];
    assert_eq!(report(&stage).await.redirects, refused);
    // A change of something else does not make it forget.
    config.private_modules = vec!["private.example".to_owned()];
    stage.configure(&config);
    eventually("the new configuration", async || report(&stage).await.config == name_of(&config)).await;
    assert_eq!(report(&stage).await.redirects, refused);
    config.upstreams[0].redirect_hosts = vec!["127.0.0.2".to_owned()];
    stage.configure(&config);
    eventually("the declared host", async || report(&stage).await.config == name_of(&config)).await;
    assert_eq!(report(&stage).await.redirects, []);
}

fn write_credential(stage: &Stage, token: &str, generation: &str) {
    let text = format!(r#"{{"hosts":["127.0.0.1"],"secret":{{"token":"{token}"}}}}"#);
    std::fs::write(stage.folder().join("credentials/credential.corp"), text).unwrap();
    std::fs::write(stage.folder().join("credentials/generation"), generation).unwrap();
}

#[tokio::test]
async fn the_upstreams_verdict_on_a_credential_is_told_and_a_new_credential_has_none() {
    let upstream = Upstream::start(|asked: &Asked| match asked.header("authorization") {
        Some("Bearer good") => honest(asked),
        _ => Answer::new("401 Unauthorized", ""),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.upstreams[0].credential = Some("corp".to_owned());
    let stage = Stage::start(&config).await;
    let uses = async |generation: &str| report(&stage).await.credentials == generation;
    write_credential(&stage, "bad", "g1");
    eventually("the first credential", async || uses("g1").await).await;
    assert_eq!(report(&stage).await.verdicts, []);
    stage.tea("v1.0.0.info").await;
    let verdict = |accepted| CredentialVerdict { secret: "corp".to_owned(), upstream: "127.0.0.1".to_owned(), accepted };
    assert_eq!(report(&stage).await.verdicts, [verdict(false)]);
    config.private_modules = vec!["private.example".to_owned()];
    stage.configure(&config);
    eventually("the new configuration", async || report(&stage).await.config == name_of(&config)).await;
    assert_eq!(report(&stage).await.verdicts, [verdict(false)], "it is the same credential still");
    write_credential(&stage, "good", "g2");
    eventually("the second credential", async || uses("g2").await).await;
    assert_eq!(report(&stage).await.verdicts, []);
    stage.tea("v1.0.0.info").await;
    assert_eq!(report(&stage).await.verdicts, [verdict(true)]);
}

#[tokio::test]
async fn a_checksum_database_that_cannot_be_asked_is_told_until_it_answers() {
    let back = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&back);
    let upstream = Upstream::start(move |asked: &Asked| match asked.path.strip_prefix("/sumdb/sum.example/db/") {
        Some("supported") => Answer::ok(""),
        // An answer, though none that vouches for anything.
        Some(_) if is_back.load(Ordering::Relaxed) => Answer::not_found(),
        Some(_) => Answer::new("503 Service Unavailable", ""),
        None if asked.is("zip") => Answer::ok(zip(asked.file().unwrap().0, 100)),
        None => honest(asked),
    })
    .await;
    let mut config = config(&[&upstream]);
    config.checksum_database = Some(ChecksumDatabase {
        name: "sum.example/db".to_owned(),
        key: Some("sum.example/db+9ec6ab89+ATPaWbMTM3SBxphpqrNCUkP6/tyJp/ULbQ5yQu4IC9Tb".to_owned()),
        mode: ChecksumMode::Verify,
        when_unavailable: WhenUnavailable::Serve,
        url: None,
    });
    let stage = Stage::start(&config).await;
    assert_eq!(report(&stage).await.checksum_database, None);
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
    let why = report(&stage).await.checksum_database.unwrap_or_default();
    assert!(why.contains("the checksum database can't be asked") && why.contains("503"), "{why}");
    back.store(true, Ordering::Relaxed);
    assert_eq!(stage.tea("v1.1.0.zip").await.status, 200);
    eventually("the database's answer", async || report(&stage).await.checksum_database.is_none()).await;
}
