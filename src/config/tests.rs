#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn an_unknown_key_is_refused_and_named() {
    let error = ProxyConfig::parse("version: 1\nupstream: []\n").unwrap_err().to_string();
    assert!(error.contains("upstream"), "{error}");
}

#[test]
fn a_later_version_says_upgrade() {
    let error = ProxyConfig::parse("version: 2\nnew: true\n").unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("upgrade"), "{error}");
}

#[test]
fn a_password_in_a_url_is_refused_and_not_echoed() {
    let error = ProxyConfig::parse("version: 1\nupstreams: [{url: 'https://u:hunter2@modules.example/'}]").unwrap_err().to_string();
    assert!(error.contains("upstreams[0].url") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_password_in_a_url_that_cannot_be_read_is_not_echoed_either() {
    let url = |url: &str| format!("version: 1\nupstreams:\n- url: {url}\n");
    let texts = [
        url("'https://u:hunter2@modules.example:99999/'"),
        url("https://u:hunter2@[modules.example/"),
        url("https://u:hunter2@modules.example/\n  fallbak: OnError"),
        url("https://u:pass word hunter2@modules.example:x/"),
        "version: 1\nhttpProxy: {url: 'http://u:hunter2@egress.example:99999'}\n".to_owned(),
        "version: 1\nchecksumDatabase: {name: sum.example, mode: Relay, url: 'https://u:hunter2@sum.example:99999/'}\n".to_owned(),
        "version: 1\nchecksumDatabase: {name: sum.example, mode: Relay, url: 'https://u:hunter2@sum.example/'}\n".to_owned(),
        "version: one\nupstreams: [{url: 'https://u:hunter2@modules.example/'}]\n".to_owned(),
        url("https:/u:hunter2@modules.example:99999"),
        url("https:u:hunter2@modules.example:99999"),
        url("https:u:hunter2'\"x@modules.example:99999"),
        url(r#""https:\/\/u:hunter2@modules.example:99999""#),
        url(r#""https:\\\\u:hunter2@modules.example:99999""#),
        url(r#""https://u:hunter2\x40modules.example:99999""#),
        r#"{"version":1,"upstreams":[{"url":"https:\/\/u:hunter2\u0040modules.example:99999"}]}"#.to_owned(),
        "version: 1\nupstreams: [{url:\t'https:/u:hunter2@modules.example:99999'}]\n".to_owned(),
        url("https://u:hunter2\n    word@modules.example:99999"),
        url("\"https://u:hunter2\n    'word@modules.example:99999\""),
    ];
    for text in texts {
        let error = ProxyConfig::parse(&text).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
    let error = ProxyConfig::parse(&url("https:/u:hunter2@modules.example:99999")).unwrap_err().to_string();
    let first = error.lines().next().unwrap_or_default();
    assert!(first.contains("line 3") && first.contains("invalid port number") && first.contains("modules.example:99999"), "{error}");
    let error = ProxyConfig::parse(&url("https://u:hunter2@modules.example/\n  fallbak: OnError")).unwrap_err().to_string();
    assert!(error.contains("fallbak") && error.contains("modules.example"), "all else stays: {error}");
}

#[test]
fn a_database_name_stays_in_its_folder() {
    for name in ["../x", "sum.example/../x", "", "sum.example//x", "sum.example/.x", "a b"] {
        let text = format!("version: 1\nchecksumDatabase: {{name: '{name}', mode: Relay}}");
        assert!(ProxyConfig::parse(&text).unwrap_err().to_string().starts_with("checksumDatabase.name"), "{name}");
    }
    assert!(ProxyConfig::parse("version: 1\nchecksumDatabase: {name: sum.example/db, mode: Relay}").is_ok());
}

#[test]
fn a_database_that_verifies_needs_its_key() {
    let error = ProxyConfig::parse("version: 1\nchecksumDatabase: {name: sum.example}").unwrap_err().to_string();
    assert!(error.starts_with("checksumDatabase.key") && error.contains("name+hash+key"), "{error}");
}

#[test]
fn what_is_written_is_read() {
    let config = ProxyConfig {
        version: CONFIG_VERSION,
        upstreams: vec![Upstream {
            url: "https://modules.example/go".parse().unwrap(),
            fallback: Fallback::OnError,
            credential: Some("corp".into()),
            redirect_hosts: vec!["storage.example".into()],
            internal: false,
            ca_bundle: Some("-----BEGIN CERTIFICATE-----\nx\n".into()),
            timeouts: Timeouts { head: std::time::Duration::from_millis(1_500), ..Timeouts::default() },
        }],
        checksum_database: Some(ChecksumDatabase {
            name: "sum.example/db".into(),
            key: None,
            mode: ChecksumMode::Relay,
            when_unavailable: WhenUnavailable::Refuse,
            url: None,
        }),
        private_modules: vec!["corp.example/*".into()],
        cache_limit: Some(1 << 30),
        policy: Policy {
            deny: vec!["evil.example/*".into(), "a.example/m@v1.2.3".into()],
            allow: Vec::new(),
            minimum_release_age: Some("72h".into()),
        },
        look_ahead: LookAhead::Certain,
        resolution: Resolution::Pinned {
            hosts: vec![PinnedHost { host: "modules.example".into(), addresses: vec!["203.0.113.7".parse().unwrap()] }],
        },
        http_proxy: Some(HttpProxy {
            url: "http://egress.corp.example:3128".parse().unwrap(),
            no_proxy: vec![".corp.example".into()],
            credential: Some("egress".into()),
        }),
    };
    assert_eq!(ProxyConfig::parse(&config.to_yaml().unwrap()).unwrap(), config);
}
