//! The relay of the checksum database. Verification by it is in `tests/checksums.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gomodcache::config::{ChecksumDatabase, ChecksumMode, Fallback, ProxyConfig, Resolution, WhenUnavailable};
use gomodcache::gomod::{HASH_BYTES, Hash, SumdbPath, TileLevel, Tree};

use crate::stage::{Stage, config, entry, eventually};
use crate::upstream::{Answer, Asked, Upstream, honest};
use crate::wire::Wire;

const NAME: &str = "sum.example/db";

fn relaying(upstreams: &[&Upstream], url: Option<&Upstream>) -> ProxyConfig {
    ProxyConfig {
        checksum_database: Some(ChecksumDatabase {
            name: NAME.to_owned(),
            key: None,
            mode: ChecksumMode::Relay,
            when_unavailable: WhenUnavailable::default(),
            url: url.map(|upstream| upstream.url().parse().unwrap()),
        }),
        private_modules: ["corp.example/private", "*.internal.example", "golang.org/*"].map(str::to_owned).into(),
        ..config(upstreams)
    }
}

/// An upstream that relays the database.
fn relay(asked: &Asked) -> Answer {
    match asked.path.strip_prefix("/sumdb/sum.example/db/") {
        Some("supported") => Answer::ok(""),
        Some("latest") => Answer::ok(format!("tree {}\n", asked.before)),
        Some("tile/8/0/000.p/7") => Answer::not_found(),
        Some(path) => Answer::ok(answer(path, "relayed")),
        None => honest(asked),
    }
}

/// One that relays the database until it is down, and then has this answer for everything.
async fn relay_that_answers_when_down(status: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let play = move |asked: &Asked| if is_down.load(Ordering::Relaxed) { Answer::new(status, "") } else { relay(asked) };
    (Upstream::start(play).await, down)
}

/// The database itself.
fn database(asked: &Asked) -> Answer {
    Answer::ok(answer(asked.path.trim_start_matches('/'), "direct"))
}

/// What has the form of an answer. The hashes and the signature are nobody's.
fn answer(path: &str, who: &str) -> Vec<u8> {
    match SumdbPath::parse(path) {
        Ok(SumdbPath::Lookup(module, version)) => {
            let tree = Tree { size: 8, hash: Hash::of_nothing() }.text();
            format!("7\n{module} {version} h1:{who}=\n\n{tree}\n— {NAME} AAAAAAAA\n").into_bytes()
        }
        Ok(SumdbPath::Tile(tile)) if tile.level() == TileLevel::Data => {
            format!("a.example/m v1.0.0 h1:{who}=\n\n").repeat(tile.width() as usize).into_bytes()
        }
        Ok(SumdbPath::Tile(tile)) => vec![b'x'; tile.width() as usize * HASH_BYTES],
        other => panic!("{path}: {other:?}"),
    }
}

/// The look-up is asked for again, some seconds later, as long as there is no verdict.
#[tokio::test]
async fn a_module_that_becomes_private_is_not_named_to_the_database_any_more() {
    let (upstream, database) = (Upstream::start(honest).await, Upstream::start(|_: &Asked| Answer::not_found()).await);
    let mut verifying = relaying(&[&upstream], Some(&database));
    if let Some(database) = &mut verifying.checksum_database {
        database.key = Some("sum.example/db+9ec6ab89+ATPaWbMTM3SBxphpqrNCUkP6/tyJp/ULbQ5yQu4IC9Tb".to_owned());
        (database.mode, database.when_unavailable) = (ChecksumMode::Verify, WhenUnavailable::Serve);
    }
    let stage = Stage::start(&verifying).await;
    assert_eq!(stage.tea("v1.0.0.zip").await.status, 200);
    assert!(database.take_paths().iter().any(|path| path.contains("lookup")));
    let asked = std::time::Instant::now();
    verifying.private_modules.push("corp.example/Tea".to_owned());
    stage.configure(&verifying);
    let digest = gomodcache::report::config_digest(&std::fs::read_to_string(stage.folder().join("config/proxy.yaml")).unwrap());
    eventually("the new configuration", async || crate::report::report(&stage).await.config == digest).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "the first time that it is asked for again is not over");
    tokio::time::sleep(Duration::from_secs(6).saturating_sub(asked.elapsed())).await;
    assert_eq!(database.take_paths(), Vec::<String>::new());
    assert!(!stage.has("v1.0.0.zip"));
}

#[tokio::test]
async fn another_database_is_404_without_an_outbound_call_to_anyone() {
    let upstream = Upstream::start(relay).await;
    let stage = Stage::start(&relaying(&[&upstream], None)).await;
    let own = upstream.address;
    let mut wire = Wire::open(&stage.url).await;
    for path in [
        "/sumdb/other.example/supported".to_owned(),
        "/sumdb/sum.example/supported".to_owned(),
        "/sumdb/sum.example/dbx/supported".to_owned(),
        "/sumdb/sum.example/db".to_owned(),
        "/sumdb/sum.example/db/".to_owned(),
        "/sumdb/sum.example/db/../x/supported".to_owned(),
        "/sumdb/sum.example/db%2F..%2Fsupported".to_owned(),
        "/sumdb/SUM.example/db/supported".to_owned(),
        "/sumdb/sum.example/db/anything".to_owned(),
        "/sumdb/169.254.169.254/latest/meta-data".to_owned(),
        format!("/sumdb/{own}/supported"),
        "/sumdb/".to_owned(),
    ] {
        let (status, kind, _) = wire.ask("GET", &path).await;
        assert_eq!((status, kind.as_str()), (404, "text/plain; charset=utf-8"), "{path}");
    }
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
}

#[tokio::test]
async fn supported_is_answered_here_and_a_name_may_hold_slashes() {
    let upstream = Upstream::start(relay).await;
    let stage = Stage::start(&relaying(&[&upstream], None)).await;
    let got = stage.get("/sumdb/sum.example/db/supported").await;
    assert_eq!((got.status, got.text().as_str()), (200, ""));
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
    // Without a database there is nothing to support.
    let without = Stage::start(&config(&[&upstream])).await;
    assert_eq!(without.get("/sumdb/sum.example/db/supported").await.status, 404);
}

#[tokio::test]
async fn look_ups_and_tiles_are_kept_for_ever_and_the_newest_tree_never() {
    let upstream = Upstream::start(relay).await;
    let mut stage = Stage::start(&relaying(&[&upstream], None)).await;
    let paths = ["lookup/corp.example/!tea@v1.0.0", "tile/8/0/001", "tile/8/0/001.p/7", "tile/8/data/001"];
    for path in paths {
        assert_eq!(stage.get(&format!("/sumdb/{NAME}/{path}")).await.body, Some(answer(path, "relayed")));
        stage.kept(&format!(".gomodcache/sumdb/{NAME}/{path}")).await;
    }
    assert_eq!(stage.get(&format!("/sumdb/{NAME}/latest")).await.text(), "tree 0\n");
    assert_eq!(stage.get(&format!("/sumdb/{NAME}/latest")).await.text(), "tree 1\n");
    upstream.take_seen();
    stage.restart(&relaying(&[&upstream], None)).await;
    for path in paths {
        assert_eq!(stage.get(&format!("/sumdb/{NAME}/{path}")).await.body, Some(answer(path, "relayed")));
    }
    // The other spelling of `!`, which clients use if our URL has a path.
    let other = stage.get(&format!("/sumdb/{NAME}/lookup/corp.example/%21tea@v1.0.0")).await;
    assert_eq!(other.body, Some(answer("lookup/corp.example/!tea@v1.0.0", "relayed")));
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
    // The client asks for the full tile after that.
    assert_eq!(stage.get(&format!("/sumdb/{NAME}/tile/8/0/000.p/7")).await.status, 404);
}

/// There is no key to tell a good answer from a bad one for ever.
#[tokio::test]
async fn what_has_not_the_form_of_a_look_up_or_a_tile_is_a_bad_answer_and_not_kept() {
    let upstream = Upstream::start(|asked: &Asked| match (asked.path.ends_with("/supported"), asked.before) {
        (true, _) | (false, 2..) => relay(asked),
        (false, 0) => Answer::ok("try later\n"),
        (false, _) => Answer::ok(""),
    })
    .await;
    let stage = Stage::start(&relaying(&[&upstream], None)).await;
    for path in ["lookup/corp.example/!tea@v1.0.0", "tile/8/0/001", "tile/8/0/001.p/7", "tile/8/data/001"] {
        for bad in ["try later", "nothing"] {
            let got = stage.get(&format!("/sumdb/{NAME}/{path}")).await;
            assert_eq!(got.status, 502, "{bad}, for {path}");
            assert!(got.text().contains("upstream 127.0.0.1"), "{}", got.text());
        }
        assert_eq!(stage.get(&format!("/sumdb/{NAME}/{path}")).await.body, Some(answer(path, "relayed")));
        stage.kept(&format!(".gomodcache/sumdb/{NAME}/{path}")).await;
    }
}

#[tokio::test]
async fn a_look_up_of_a_private_module_is_403_with_words_and_is_told_to_nobody() {
    let upstream = Upstream::start(relay).await;
    let stage = Stage::start(&relaying(&[&upstream], None)).await;
    for module in ["corp.example/private", "corp.example/private/deeper", "git.internal.example/x"] {
        let got = stage.get(&format!("/sumdb/{NAME}/lookup/{module}@v1.0.0")).await;
        assert_eq!((got.status, got.header("content-type")), (403, "text/plain; charset=utf-8"), "{module}");
        assert!(got.text().contains("private") && got.text().contains("GONOSUMDB"), "{}", got.text());
    }
    assert_eq!(upstream.take_paths(), Vec::<String>::new());
    assert_eq!(stage.get(&format!("/sumdb/{NAME}/lookup/corp.example/public@v1.0.0")).await.status, 200);
}

/// Go ignores GONOSUMDB and GOPRIVATE for them, so a pattern that covers them must not cut the clients off.
#[tokio::test]
async fn toolchains_are_never_private() {
    let upstream = Upstream::start(|asked: &Asked| {
        if asked.path.starts_with("/golang.org/toolchain/@v/") { Answer::ok("module golang.org/toolchain\n") } else { relay(asked) }
    })
    .await;
    let mut config = relaying(&[&upstream], None);
    let stage = Stage::start(&config).await;
    let version = "v0.0.1-go1.99.1.linux-amd64";
    assert_eq!(stage.get(&format!("/sumdb/{NAME}/lookup/golang.org/toolchain@{version}")).await.status, 200);
    assert_eq!(stage.get(&format!("/sumdb/{NAME}/lookup/golang.org/x/tools@v0.1.0")).await.status, 403);
    // Nor do they need an internal upstream. This one's address is a private one, so it fails at that and not at the rule.
    config.upstreams[0].internal = false;
    config.upstreams[0].url = "https://127.0.0.1:1".parse().unwrap();
    stage.configure(&config);
    let toolchain = format!("/golang.org/toolchain/@v/{version}.mod");
    eventually("the new configuration", async || stage.get("/golang.org/x/tools/@v/v0.1.0.mod").await.status == 403).await;
    assert_eq!(stage.get(&toolchain).await.status, 502);
}

#[tokio::test]
async fn the_database_is_asked_at_its_url_else_through_the_first_upstream_that_relays_it() {
    let (silent, relaying_one) = (Upstream::start(|_: &Asked| Answer::not_found()).await, Upstream::start(relay).await);
    let direct = Upstream::start(database).await;
    let path = format!("/sumdb/{NAME}/lookup/corp.example/!tea@v1.0.0");
    let explicit = Stage::start(&relaying(&[&relaying_one], Some(&direct))).await;
    assert!(explicit.get(&path).await.text().contains("h1:direct="));
    assert_eq!(relaying_one.take_paths(), Vec::<String>::new());
    let found = Stage::start(&relaying(&[&silent, &relaying_one], None)).await;
    assert!(found.get(&path).await.text().contains("h1:relayed="));
    assert_eq!(silent.take_paths(), ["/sumdb/sum.example/db/supported"]);
}

#[tokio::test]
async fn a_relay_that_is_away_is_passed_over_where_modules_are_and_is_asked_again_later_only() {
    let (first, down) = relay_that_answers_when_down("403 Forbidden").await;
    let second = Upstream::start(relay).await;
    let mut config = relaying(&[&first, &second], None);
    config.upstreams[0] = entry(&first.url(), Fallback::OnError);
    let stage = Stage::start(&config).await;
    let look_up = async |i: usize| stage.get(&format!("/sumdb/{NAME}/lookup/corp.example/!tea@v1.{i}.0")).await.status;
    assert_eq!((look_up(0).await, second.take_paths().len()), (200, 0));
    down.store(true, Ordering::Relaxed);
    first.take_paths();
    assert_eq!(futures::future::join_all((1..20).map(look_up)).await, [200; 19]);
    assert_eq!(look_up(20).await, 200);
    let asked = first.take_paths().into_iter().filter(|path| path.ends_with("/supported")).count();
    assert!((1..=19).contains(&asked), "{asked}");
    first.take_paths();
    assert_eq!(look_up(21).await, 200);
    assert_eq!(first.take_paths(), Vec::<String>::new(), "it is remembered who relays, though one could not be asked");
}

/// Behind a bar, and with nobody after it: the database's own host can't be reached from here.
#[tokio::test]
async fn after_a_moment_of_trouble_the_relay_is_asked_again_and_not_what_is_out_of_reach() {
    let (upstream, down) = relay_that_answers_when_down("500 Internal Server Error").await;
    let mut config = relaying(&[&upstream], None);
    config.upstreams[0] = entry(&upstream.url(), Fallback::OnError);
    config.resolution = Resolution::Pinned { hosts: Vec::new() };
    let stage = Stage::start(&config).await;
    let look_up = async |i: usize| stage.get(&format!("/sumdb/{NAME}/lookup/corp.example/!tea@v1.{i}.0")).await;
    assert_eq!(look_up(0).await.status, 200);
    down.store(true, Ordering::Relaxed);
    for i in 1..3 {
        let got = look_up(i).await;
        assert!(got.status == 502 && got.text().contains("127.0.0.1") && !got.text().contains("pinned"), "{got:?}");
    }
    down.store(false, Ordering::Relaxed);
    let got = look_up(3).await;
    assert_eq!(got.status, 200, "{got:?}");
}

#[tokio::test]
async fn an_outage_of_the_database_is_never_404_and_a_version_it_does_not_know_yet_is() {
    let upstream = Upstream::start(|asked: &Asked| match asked.path.rsplit('/').next() {
        Some("supported") => Answer::ok(""),
        Some("!tea@v1.0.0") => Answer::new("404 Not Found", "not found: corp.example/Tea@v1.0.0\n"),
        Some("!tea@v1.1.0") => Answer::new("429 Too Many Requests", ""),
        _ => Answer::new("500 Internal Server Error", ""),
    })
    .await;
    let stage = Stage::start(&relaying(&[&upstream], None)).await;
    for (version, status) in [("v1.0.0", 404), ("v1.1.0", 503), ("v1.2.0", 502)] {
        let got = stage.get(&format!("/sumdb/{NAME}/lookup/corp.example/!tea@{version}")).await;
        assert_eq!((got.status, got.header("content-type")), (status, "text/plain; charset=utf-8"), "{version}");
    }
    // An upstream that fails is not one that does not relay: with a comma its fault is the answer.
    let failing = Upstream::start(|_: &Asked| Answer::new("500 Internal Server Error", "")).await;
    let other = Upstream::start(relay).await;
    let path = format!("/sumdb/{NAME}/lookup/corp.example/!tea@v1.0.0");
    let comma = Stage::start(&relaying(&[&failing, &other], None)).await;
    assert_eq!(comma.get(&path).await.status, 502);
    let mut with_bar = relaying(&[&failing, &other], None);
    with_bar.upstreams[0] = entry(&failing.url(), Fallback::OnError);
    assert_eq!(Stage::start(&with_bar).await.get(&path).await.status, 200);
}
