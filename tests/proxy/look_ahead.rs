//! What is fetched before a client asks, and what never is.

use std::time::Duration;

use gomodcache::config::{Fallback, LookAhead, Policy, ProxyConfig, Resolution};

use crate::stage::{Stage, config, eventually};
use crate::upstream::{Answer, Asked, Gate, Upstream, zip_of};
use crate::wire::Wire;

/// `a.example/old` (go 1.16) -> `b.example/new` (go 1.24) -> `c.example/deep`; `a.example/pruned` (go 1.24) guesses
/// `b.example/new` and, absent everywhere, `d.example/absent`.
async fn graph() -> Upstream {
    Upstream::start(|asked: &Asked| {
        let Some((module, file)) = asked.path.trim_start_matches('/').split_once("/@v/") else { return Answer::not_found() };
        if module == "d.example/absent" {
            return Answer::not_found();
        }
        let (go, requires) = match module {
            "a.example/old" => ("1.16", "require b.example/new v1.0.0\n"),
            "b.example/new" => ("1.24", "require c.example/deep v1.0.0\n"),
            "a.example/pruned" => ("1.24", "require (\n b.example/new v1.0.0\n d.example/absent v1.0.0\n)\n"),
            _ => ("1.24", ""),
        };
        match file {
            "v1.0.0.info" => Answer::ok(r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#),
            "v1.0.0.mod" => Answer::ok(format!("module {module}\n\ngo {go}\n\n{requires}")),
            "v1.0.0.zip" => Answer::ok(zip_of(module, "v1.0.0", 100)),
            _ => Answer::not_found(),
        }
    })
    .await
}

fn ahead(upstream: &Upstream, look_ahead: LookAhead) -> ProxyConfig {
    ProxyConfig { look_ahead, ..config(&[upstream]) }
}

async fn kept_all(stage: &Stage, files: &[&str]) {
    for file in files {
        stage.kept(file).await;
    }
}

/// Long enough for what should not happen.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// A client has asked, and is where it waits for what is under way.
async fn until_somebody_waits(stage: &Stage) {
    eventually("the client", async || stage.metric("gomodcache_in_flight_requests", &[]).await == 1.0).await;
    settle().await;
}

#[tokio::test]
async fn a_zip_brings_the_go_mod_and_the_info_of_its_version_and_no_other_zip() {
    let upstream = graph().await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::All)).await;
    stage.get("/a.example/old/@v/v1.0.0.zip").await;
    kept_all(&stage, &["a.example/old/@v/v1.0.0.mod", "a.example/old/@v/v1.0.0.info"]).await;
    settle().await;
    let mut paths = upstream.take_paths();
    paths.sort();
    assert_eq!(paths, ["info", "mod", "zip"].map(|e| format!("/a.example/old/@v/v1.0.0.{e}")));
    eventually("their count", async || stage.metric("gomodcache_look_ahead_total", &["result=\"fetched\""]).await == 2.0).await;
}

#[tokio::test]
async fn a_head_alone_brings_nothing_else() {
    let upstream = graph().await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::All)).await;
    assert_eq!(stage.request(reqwest::Method::HEAD, "/a.example/old/@v/v1.0.0.zip").await.status, 200);
    settle().await;
    assert_eq!(upstream.take_paths(), ["/a.example/old/@v/v1.0.0.zip"]);
}

/// Longer than what memory keeps.
#[tokio::test]
async fn a_long_go_mod_that_is_on_the_disk_is_not_fetched_again() {
    let long = format!("module a.example/m\n\ngo 1.24\n// {}\n", "x".repeat(200_000));
    let upstream = Upstream::start(move |asked: &Asked| match asked.path.as_str() {
        "/a.example/m/@v/v1.0.0.mod" => Answer::ok(long.clone()),
        "/a.example/m/@v/v1.0.0.info" => Answer::ok(r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#),
        _ => Answer::ok(zip_of("a.example/m", "v1.0.0", 100)),
    })
    .await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::Certain)).await;
    stage.get("/a.example/m/@v/v1.0.0.mod").await;
    stage.kept("a.example/m/@v/v1.0.0.mod").await;
    settle().await;
    stage.get("/a.example/m/@v/v1.0.0.zip").await;
    stage.kept("a.example/m/@v/v1.0.0.info").await;
    settle().await;
    let mods = upstream.take_paths().into_iter().filter(|path| path.ends_with(".mod")).count();
    assert_eq!(mods, 1);
}

#[tokio::test]
async fn the_graph_below_an_old_module_is_fetched_to_the_last() {
    let upstream = graph().await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::Certain)).await;
    stage.get("/a.example/old/@v/v1.0.0.mod").await;
    kept_all(&stage, &["b.example/new/@v/v1.0.0.mod", "c.example/deep/@v/v1.0.0.mod"]).await;
}

#[tokio::test]
async fn a_guess_goes_one_level_deep_and_its_absence_is_nobodys_answer() {
    let upstream = graph().await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::All)).await;
    stage.get("/a.example/pruned/@v/v1.0.0.mod").await;
    stage.kept("b.example/new/@v/v1.0.0.mod").await;
    settle().await;
    let guessed = upstream.take_paths();
    assert!(guessed.contains(&"/d.example/absent/@v/v1.0.0.mod".to_owned()), "{guessed:?}");
    assert!(!guessed.iter().any(|path| path.starts_with("/c.example/")), "{guessed:?}");
    // Asked for by a client it is asked for again: nobody was told that it is absent.
    assert_eq!(stage.get("/d.example/absent/@v/v1.0.0.mod").await.status, 404);
    assert_eq!(upstream.take_paths(), ["/d.example/absent/@v/v1.0.0.mod"]);
}

#[tokio::test]
async fn without_guesses_only_what_is_certain_is_fetched_and_without_anything_nothing() {
    for look_ahead in [LookAhead::Certain, LookAhead::Disabled] {
        let upstream = graph().await;
        let stage = Stage::start(&ahead(&upstream, look_ahead)).await;
        stage.get("/a.example/pruned/@v/v1.0.0.mod").await;
        settle().await;
        assert_eq!(upstream.take_paths(), ["/a.example/pruned/@v/v1.0.0.mod"], "{look_ahead:?}");
    }
}

#[tokio::test]
async fn a_guess_that_a_client_asks_for_is_followed_then() {
    let upstream = graph().await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::All)).await;
    stage.get("/a.example/pruned/@v/v1.0.0.mod").await;
    stage.kept("b.example/new/@v/v1.0.0.mod").await;
    stage.get("/b.example/new/@v/v1.0.0.mod").await;
    stage.kept("c.example/deep/@v/v1.0.0.mod").await;
}

#[tokio::test]
async fn what_is_denied_is_not_fetched_ahead() {
    let upstream = graph().await;
    let policy = Policy { deny: vec!["b.example".to_owned()], ..Policy::default() };
    let stage = Stage::start(&ProxyConfig { policy, ..ahead(&upstream, LookAhead::All) }).await;
    stage.get("/a.example/old/@v/v1.0.0.mod").await;
    settle().await;
    assert_eq!(upstream.take_paths(), ["/a.example/old/@v/v1.0.0.mod"]);
}

#[tokio::test]
async fn an_upstream_in_trouble_is_left_alone_for_a_while() {
    let upstream = Upstream::start(|asked: &Asked| {
        if asked.path.contains("a.example/old") {
            let requires: String = (0..100).map(|i| format!(" b.example/m{i} v1.0.0\n")).collect();
            return Answer::ok(format!("module a.example/old\n\ngo 1.16\n\nrequire (\n{requires})\n"));
        }
        Answer::new("429 Too Many Requests", "").with("Retry-After", "60")
    })
    .await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::All)).await;
    stage.get("/a.example/old/@v/v1.0.0.mod").await;
    eventually("the first refusal", async || !upstream.take_paths().is_empty()).await;
    settle().await;
    let asked = upstream.take_paths().len();
    assert!(asked <= 70, "{asked} of 100 were asked for though the upstream wants to be left alone");
}

/// A public module needs private ones, which another upstream has.
#[tokio::test]
async fn an_upstream_in_trouble_does_not_hold_up_what_another_one_has() {
    let troubled = Upstream::start(|asked: &Asked| match asked.path.as_str() {
        "/a.example/old/@v/v1.0.0.mod" => {
            Answer::ok(format!("module a.example/old\n\ngo 1.16\n\nrequire (\n{}{})\n", requires("b.example"), requires("corp.example")))
        }
        _ => Answer::new("429 Too Many Requests", "").with("Retry-After", "60"),
    })
    .await;
    let private = Upstream::start(|asked: &Asked| {
        let Some((module, "v1.0.0.mod")) = asked.path.trim_start_matches('/').split_once("/@v/") else { return Answer::not_found() };
        Answer::ok(format!("module {module}\n\ngo 1.16\n"))
    })
    .await;
    let mut config = ProxyConfig { private_modules: vec!["corp.example/*".to_owned()], ..ahead(&troubled, LookAhead::All) };
    config.upstreams[0].internal = false;
    config.resolution = Resolution::System { private_addresses: true };
    config.upstreams.push(crate::stage::entry(&private.url(), Fallback::OnNotFound));
    let stage = Stage::start(&config).await;
    stage.get("/a.example/old/@v/v1.0.0.mod").await;
    eventually("all that the other one has", async || private.paths().len() == 100).await;
    settle().await;
    let asked = troubled.paths().len();
    assert!(asked <= 70, "{asked} of 100 were asked for though the upstream wants to be left alone");
}

/// In lines of a go.mod file: a hundred modules.
fn requires(host: &str) -> String {
    (0..100).map(|i| format!(" {host}/m{i} v1.0.0\n")).collect()
}

/// What the first upstream does not have the second one would be asked for, and it is in trouble.
#[tokio::test]
async fn a_client_that_asks_for_what_was_not_fetched_ahead_is_answered() {
    let gate = Gate::closed();
    let held = gate.clone();
    let first = Upstream::start(move |asked: &Asked| match asked.path.as_str() {
        "/a.example/old/@v/v1.0.0.mod" => Answer::ok("module a.example/old\n\ngo 1.16\n\nrequire b.example/new v1.0.0\n"),
        "/b.example/new/@v/v1.0.0.mod" if asked.before == 0 => Answer::not_found().held_after(0, &held),
        _ => Answer::not_found(),
    })
    .await;
    let second = Upstream::start(|asked: &Asked| match asked.path.as_str() {
        "/b.example/new/@v/v1.0.0.mod" => Answer::ok("module b.example/new\n"),
        _ => Answer::new("429 Too Many Requests", "").with("Retry-After", "60"),
    })
    .await;
    let mut config = ahead(&first, LookAhead::All);
    config.upstreams[0].timeouts.head = Duration::from_secs(10);
    config.upstreams.push(crate::stage::entry(&second.url(), Fallback::OnNotFound));
    let stage = Stage::start(&config).await;
    assert_eq!(stage.get("/c.example/limited/@v/v1.0.0.mod").await.status, 503);
    stage.get("/a.example/old/@v/v1.0.0.mod").await;
    eventually("the step ahead", async || first.paths().contains(&"/b.example/new/@v/v1.0.0.mod".to_owned())).await;
    let joins = async {
        until_somebody_waits(&stage).await;
        gate.open();
    };
    let (got, ()) = tokio::join!(stage.get("/b.example/new/@v/v1.0.0.mod"), joins);
    assert!(got.is(b"module b.example/new\n"), "{got:?}");
    eventually("its count", async || stage.metric("gomodcache_look_ahead_total", &["result=\"failed\""]).await == 1.0).await;
}

/// Its client has the first bytes, so nobody but us can ask for the rest; what no client waits for is left until one does.
#[tokio::test]
async fn a_zip_fetched_ahead_that_breaks_is_resumed_if_a_client_joined_it() {
    const HALF: usize = 200_000;
    let zip = |module: &str| zip_of(module, "v1.0.0", 2 * HALF);
    let breaks = Gate::closed();
    let gate = breaks.clone();
    let upstream = Upstream::start(move |asked: &Asked| {
        let Some((module, file)) = asked.path.trim_start_matches('/').split_once("/@v/") else { return Answer::not_found() };
        match (file, asked.from()) {
            ("v1.0.0.mod", _) => Answer::ok(format!("module {module}\n\ngo 1.24\n")),
            ("v1.0.0.info", _) => Answer::ok(r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#),
            (_, Some(from)) => Answer::rest(&zip(module), from).with("ETag", "\"one\""),
            _ if module == "a.example/first" => Answer::ok(zip(module)),
            _ => Answer::ok(zip(module)).with("ETag", "\"one\"").broken_after(HALF, &gate),
        }
    })
    .await;
    let mut config = ahead(&upstream, LookAhead::Certain);
    config.upstreams[0].timeouts.idle = Duration::from_secs(60);
    let stage = Stage::start(&config).await;
    let mut client = Wire::open(&stage.url).await;
    let modules = ["a.example/first", "b.example/joined", "c.example/alone"];
    for file in ["mod", "info"] {
        for module in modules {
            assert_eq!(client.ask("GET", &format!("/{module}/@v/v1.0.0.{file}")).await.0, 200);
        }
    }
    client.ask("GET", "/a.example/first/@v/v1.0.0.zip").await;
    eventually("both zips ahead", async || upstream.paths().iter().filter(|path| path.ends_with("zip")).count() == 3).await;
    let joins = async {
        // It has the beginning, and its request is counted with that.
        eventually("the client", async || stage.metric("gomodcache_requests_total", &["endpoint=\"zip\""]).await == 2.0).await;
        breaks.open();
    };
    let (got, ()) = tokio::join!(stage.get("/b.example/joined/@v/v1.0.0.zip"), joins);
    assert!(got.is(&zip("b.example/joined")), "{got:?}");
    settle().await;
    let asked = |module: &str| upstream.paths().iter().filter(|path| **path == format!("/{module}/@v/v1.0.0.zip")).count();
    assert_eq!(modules.map(asked), [1, 2, 1]);
    assert!(stage.get("/c.example/alone/@v/v1.0.0.zip").await.is(&zip("c.example/alone")), "it is there as soon as somebody asks");
}

/// Of small objects. What a zip needs is bandwidth, of which more of them at a time do not make more.
#[tokio::test]
async fn an_upstream_that_answers_is_asked_for_more_at_once_but_for_no_more_zips() {
    const MODULES: usize = 300;
    let (mods, zips) = (Gate::closed(), Gate::closed());
    let (held_mods, held_zips) = (mods.clone(), zips.clone());
    let answered = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |asked: &Asked| {
        let Some((module, file)) = asked.path.trim_start_matches('/').split_once("/@v/") else { return Answer::not_found() };
        let go_mod = || Answer::ok(format!("module {module}\n\ngo 1.24\n"));
        match file {
            "v1.0.0.mod" if module == "a.example/old" => {
                let requires: String = (0..MODULES).map(|i| format!(" b.example/m{i} v1.0.0\n")).collect();
                Answer::ok(format!("module {module}\n\ngo 1.16\n\nrequire (\n{requires})\n"))
            }
            "v1.0.0.mod" if answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 100 => go_mod(),
            "v1.0.0.mod" => go_mod().held_after(0, &held_mods),
            "v1.0.0.info" => Answer::ok(r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#),
            _ => Answer::ok(zip_of(module, "v1.0.0", 100)).held_after(0, &held_zips),
        }
    })
    .await;
    let mut config = ahead(&upstream, LookAhead::Certain);
    config.upstreams[0].timeouts.head = Duration::from_secs(60);
    let stage = Stage::start(&config).await;
    stage.get("/a.example/old/@v/v1.0.0.mod").await;
    let asked_for = |endpoint: &'static str| upstream.paths().iter().filter(move |path| path.ends_with(endpoint)).count();
    eventually("128 that wait", async || asked_for(".mod") >= 1 + 100 + 128).await;
    settle().await;
    assert_eq!(asked_for(".mod"), 1 + 100 + 128);
    mods.open();
    eventually("all of them", async || asked_for(".mod") == 1 + MODULES).await;
    let mut client = Wire::open(&stage.url).await;
    for file in ["mod", "info"] {
        for i in 0..60 {
            assert_eq!(client.ask("GET", &format!("/b.example/m{i}/@v/v1.0.0.{file}")).await.0, 200);
        }
    }
    let then = async {
        eventually("zips that wait", async || asked_for(".zip") >= 32).await;
        settle().await;
        assert!(asked_for(".zip") <= 33, "the client's own and 32 others");
        zips.open();
    };
    // All that waits is asked for beside the first one, which waits too.
    tokio::join!(client.ask("GET", "/b.example/m0/@v/v1.0.0.zip"), then);
    eventually("all zips", async || asked_for(".zip") == 60).await;
}

/// The real go command: after its first `.info` and its first `.zip` it finds everything there.
#[tokio::test]
async fn a_real_download_finds_its_infos_and_zips_already_there() {
    const MODULES: usize = 12;
    let upstream = Upstream::start(|asked: &Asked| {
        let Some((module, file)) = asked.path.trim_start_matches('/').split_once("/@v/") else { return Answer::not_found() };
        match file {
            "v1.0.0.info" => Answer::ok(r#"{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}"#),
            "v1.0.0.mod" => Answer::ok(format!("module {module}\n\ngo 1.24\n")),
            "v1.0.0.zip" => Answer::ok(zip_of(module, "v1.0.0", 100)),
            _ => Answer::not_found(),
        }
    })
    .await;
    let stage = Stage::start(&ahead(&upstream, LookAhead::All)).await;
    let folder = tempfile::tempdir().unwrap();
    let requires: String = (0..MODULES).map(|i| format!(" a.example/m{i} v1.0.0\n")).collect();
    std::fs::write(folder.path().join("go.mod"), format!("module main.example\n\ngo 1.24\n\nrequire (\n{requires})\n")).unwrap();
    let output = tokio::process::Command::new("go")
        .args(["mod", "download"])
        .current_dir(folder.path())
        .envs([("GOPROXY", stage.url.as_str()), ("GOSUMDB", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-modcacherw")])
        .envs([("GOMAXPROCS", "2")])
        .env("GOMODCACHE", folder.path().join("modcache"))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let paths = upstream.take_paths();
    for endpoint in ["info", "zip"] {
        let fetched = stage.metric("gomodcache_look_ahead_total", &[&format!("endpoint=\"{endpoint}\""), "result=\"fetched\""]).await;
        assert!(fetched >= 6.0, "{fetched} of {MODULES} {endpoint}s were fetched ahead");
        let asked = paths.iter().filter(|path| path.ends_with(endpoint)).count();
        assert_eq!(asked, MODULES, "each {endpoint} was asked for once");
    }
}
