#![allow(clippy::unwrap_used)]

use super::*;

fn policy(yaml: &str) -> Policy {
    Policy::new(&ProxyConfig::parse(&format!("version: 1\nprivateModules: [corp.example]\npolicy: {yaml}")).unwrap()).unwrap()
}

fn refusal(policy: &Policy, path: &str) -> Option<String> {
    policy.refusal(&Request::parse(path).unwrap()).map(|error| error.to_string())
}

#[test]
fn a_denied_module_is_refused_at_every_endpoint_with_its_rule() {
    let policy = policy("{deny: ['evil.example/*', 'b.example/Mixed']}");
    for path in ["@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/main.info"] {
        let text = refusal(&policy, &format!("/evil.example/m/v2/{path}")).unwrap();
        assert!(text.ends_with("deny evil.example/*"), "{text}");
    }
    assert!(refusal(&policy, "/b.example/mixed/@v/list").is_some() && refusal(&policy, "/b.example/!m!i!xed/@v/list").is_some());
    assert_eq!(refusal(&policy, "/good.example/m/@v/list"), None);
}

#[test]
fn a_denied_version_is_refused_and_its_module_is_not() {
    let policy = policy("{deny: ['a.example/m@v1.2.3']}");
    assert!(refusal(&policy, "/a.example/m/@v/v1.2.3.zip").is_some());
    assert!(refusal(&policy, "/a.example/m/@v/v1.2.3+incompatible.zip").is_some());
    assert_eq!(refusal(&policy, "/a.example/m/@v/v1.2.4.zip"), None);
    assert_eq!(refusal(&policy, "/a.example/m/@v/list"), None);
}

#[test]
fn an_allow_list_refuses_what_it_does_not_name_but_toolchains() {
    let policy = policy("{allow: ['a.example', 'b.example/m@v1.0.0']}");
    assert_eq!(refusal(&policy, "/a.example/x/@v/list"), None);
    assert_eq!(refusal(&policy, "/golang.org/toolchain/@v/v0.0.1-go1.26.0.linux-amd64.zip"), None);
    assert_eq!(refusal(&policy, "/b.example/m/@v/v1.0.0.zip"), None);
    assert_eq!(refusal(&policy, "/b.example/m/@v/list"), None);
    assert!(refusal(&policy, "/b.example/m/@v/v1.0.1.zip").is_some());
    assert!(refusal(&policy, "/c.example/x/@v/list").is_some());
}

#[tokio::test]
async fn a_list_of_a_hundred_thousand_versions_leaves_others_their_turn_and_asks_each_pattern_once() {
    let patterns: Vec<String> = (0..100).map(|i| format!("'a{i}.example/*/x*y'")).collect();
    let policy = policy(&format!("{{deny: ['a.example/m@v1.0.3'], allow: [{}, 'a.example/m']}}", patterns.join(", ")));
    let module = ModulePath::new("a.example/m").unwrap();
    assert_eq!(policy.rules_about(&module).allow.unwrap().len(), 1);

    let list: String = (0..100_000).map(|i| format!("v1.{}.{} 2026-01-01T00:00:00Z\n", i / 1_000, i % 1_000)).collect();
    let (listed, turns) = (policy.listed(&module, &list), std::cell::Cell::new(0));
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let listed = tokio::select! { listed = listed => listed, () = others => unreachable!() };
    assert!(listed.len() == 99_999 && listed.get(3).is_some_and(|version| version.as_str() == "v1.0.4"), "{}", listed.len());
    assert!(turns.get() >= 100_000 / LINES_AT_ONCE, "{turns:?}");
}

#[test]
fn private_modules_and_toolchains_have_no_minimum_age() {
    let policy = policy("{minimumReleaseAge: 3d}");
    let age = |module| policy.minimum_age(&ModulePath::new(module).unwrap());
    assert_eq!(age("a.example/m"), Some(Duration::from_secs(3 * 86_400)));
    assert_eq!((age("corp.example/m"), age(TOOLCHAIN)), (None, None));
}

#[test]
fn a_version_is_judged_by_the_time_of_its_info() {
    let policy = policy("{minimumReleaseAge: 72h}");
    let minimum = Duration::from_secs(72 * 3_600);
    assert!(policy.judge_info(br#"{"Version":"v1.0.0","Time":"2020-01-01T00:00:00+02:00"}"#, minimum).is_ok());
    let young = format!(r#"{{"Version":"v1.0.1","Time":"{}"}}"#, Timestamp::now());
    let text = policy.judge_info(young.as_bytes(), minimum).unwrap_err().to_string();
    assert!(text.contains("minimumReleaseAge 72h: v1.0.1 is from 20"), "{text}");
    assert!(policy.judge_info(br#"{"Version":"v1.0.1"}"#, minimum).is_err());
}

#[test]
fn a_rule_that_cannot_be_read_is_named() {
    for (yaml, says) in [
        ("{deny: ['a.example/[']}", "policy.deny: \"a.example/[\""),
        ("{allow: ['@v1.0.0']}", "policy.allow: \"@v1.0.0\" names no module path"),
        ("{deny: ['a.example/m@latest']}", "is not a whole version such as v1.2.3"),
        ("{deny: ['a.example/m@v1.2']}", "is not a whole version such as v1.2.3"),
        ("{minimumReleaseAge: '3 weeks'}", "policy.minimumReleaseAge: \"3 weeks\" is not a duration such as 90m, 72h or 14d"),
    ] {
        let config = ProxyConfig::parse(&format!("version: 1\npolicy: {yaml}")).unwrap();
        let text = Policy::new(&config).unwrap_err();
        assert!(text.contains(says), "{text}");
    }
}
