//! `GET /explain/<module>@<version>`: what a person sees who asks why.

use gomodcache::config::{Policy, ProxyConfig};
use serde_json::Value;

use crate::stage::{Stage, client, config, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest};

async fn explain(stage: &Stage, wanted: &str) -> Value {
    let response = client().get(format!("{}/explain/{wanted}", stage.admin())).send().await.unwrap();
    assert_eq!(response.status(), 200);
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn it_says_what_is_cached_and_what_upstreams_answered() {
    let upstream = Upstream::start(|asked: &Asked| match asked.file() {
        Some(("v1.0.0", "mod")) => Answer::new("401 Unauthorized", ""),
        _ => honest(asked),
    })
    .await;
    let stage = Stage::start(&config(&[&upstream])).await;
    stage.tea("v1.0.0.zip").await;
    stage.tea("v1.0.0.mod").await;
    stage.kept("corp.example/!tea/@v/v1.0.0.zip").await;
    let said = explain(&stage, "corp.example/Tea@v1.0.0").await;
    let object = |endpoint: &str| said["objects"].as_array().unwrap().iter().find(|o| o["endpoint"] == endpoint).unwrap().clone();
    assert_eq!((object("zip")["cached"].as_bool(), object("mod")["cached"].as_bool()), (Some(true), Some(false)));
    assert!(object("zip")["hash"].as_str().unwrap().starts_with("h1:"));
    let attempts = said["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["class"], "ok");
    assert_eq!((attempts[1]["class"].as_str(), attempts[1]["reason"].as_str()), (Some("auth"), Some("answered 401 Unauthorized")));
}

#[tokio::test]
async fn it_says_that_a_version_is_too_young() {
    let young = format!(r#"{{"Version":"v1.0.0","Time":"{}"}}"#, jiff::Timestamp::now());
    let upstream = Upstream::start(move |asked: &Asked| match asked.file() {
        Some(("v1.0.0", "info")) => Answer::ok(young.clone()),
        _ => honest(asked),
    })
    .await;
    let policy = Policy { minimum_release_age: Some("72h".to_owned()), ..Policy::default() };
    let stage = Stage::start(&ProxyConfig { policy, ..config(&[&upstream]) }).await;
    let denied = async |version: &str| explain(&stage, &format!("corp.example/Tea@{version}")).await["denied"].clone();
    assert_eq!(denied("v1.0.0").await, Value::Null, "nobody is asked for the sake of an explanation");
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 403);
    stage.kept("corp.example/!tea/@v/v1.0.0.info").await;
    assert!(denied("v1.0.0").await.as_str().unwrap().contains("minimumReleaseAge 72h: v1.0.0 is from"));
    assert!(denied("v0.0.0-22000101000000-abcdefabcdef").await.as_str().unwrap().contains("minimumReleaseAge"));
    assert_eq!(upstream.take_paths(), ["/corp.example/!tea/@v/v1.0.0.info"]);
}

#[tokio::test]
async fn with_an_admin_token_it_is_closed_to_everybody_else() {
    let upstream = Upstream::start(honest).await;
    let stage = Stage::start(&config(&[&upstream])).await;
    std::fs::write(stage.folder().join("credentials/admin-token"), "s3cret\n").unwrap();
    let ask = async |token: &str| {
        let request = client().get(format!("{}/explain/corp.example/Tea@v1.0.0", stage.admin())).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    eventually("the token", async || ask("other").await == 401).await;
    assert_eq!(ask("s3cret").await, 200);
}
