//! One table of what an upstream can do wrong. The test plays every row against a proxy of its own, and holds
//! `docs/faults.md`, which is the same table for people, against it. `GOMODCACHE_BLESS=1` writes that file anew.

mod answers;
mod rows;
mod transfers;

use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use gomodcache::config::{ChecksumDatabase, ChecksumMode, Fallback, ProxyConfig, Resolution, Timeouts, WhenUnavailable};
use gomodcache::gomod::{ModulePath, Version, hash_zip};

use crate::stage::{Stage, config, entry};
use crate::upstream::{Answer, Asked, Upstream, honest};

/// What a client sees of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// An answer that is complete; a 200 is also the right one.
    Status(u16),
    /// A 200 whose body breaks off, so that the client knows.
    Aborted,
}

/// What is special about the proxy of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    None,
    /// Nobody listens at the upstream's address.
    Refuses,
    /// The upstream's name has no address.
    Nameless,
    /// The upstream's certificate is its own invention.
    SelfSigned,
    /// The version was downloaded before, with other content.
    SeenBefore,
    /// The checksum database can't be reached.
    NoVerdict(WhenUnavailable),
    /// A list was downloaded ten minutes ago.
    OldList,
    /// So many requests before this one failed.
    Tried(usize),
}

/// What an upstream does with a request.
type Play = fn(&Asked) -> Answer;

/// One row: a fault and everything that follows from it.
struct Row {
    /// The upstream …
    upstream: &'static str,
    special: Special,
    play: Play,
    /// What stands between this upstream and the next one, and what the next one does.
    next: Option<(Fallback, Play)>,
    file: &'static str,
    gets: Gets,
    /// The body of an error; `…` stands for anything.
    says: &'static str,
    kept: bool,
    /// Of `gomodcache_upstream_requests_total`, in order.
    classes: &'static [&'static str],
    /// How often the first upstream was asked for the file.
    requests: usize,
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");

fn rows() -> impl Iterator<Item = &'static Row> {
    answers::ROWS.iter().chain(transfers::ROWS)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_an_upstream_has_its_row_and_the_document_says_the_same() {
    let (certificate_of_its_own, _) = crate::tls::serve(|_| String::new()).await;
    let outcomes = futures::stream::iter(rows()).map(|row| play(row, &certificate_of_its_own)).buffered(6).collect::<Vec<_>>().await;
    let wrong: Vec<String> = outcomes.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let (rendered, committed) = (render(), std::fs::read_to_string(DOCUMENT).unwrap_or_default());
    if std::env::var_os("GOMODCACHE_BLESS").is_some() {
        return std::fs::write(DOCUMENT, rendered).unwrap();
    }
    assert!(rendered == committed, "docs/faults.md does not say what the test does: run it with GOMODCACHE_BLESS=1");
}

/// What a row claims and a proxy does not do.
async fn play(row: &Row, certificate_of_its_own: &str) -> Vec<String> {
    let first = Upstream::start(row.play).await;
    let mut config = config(&[&first]);
    if let Some((fallback, play)) = row.next {
        let next = Upstream::start(play).await;
        config.upstreams[0].fallback = fallback;
        config.upstreams.push(entry(&next.url(), Fallback::OnNotFound));
    }
    if row.classes.contains(&"timeout") {
        let second = Duration::from_secs(1);
        config.upstreams[0].timeouts = Timeouts { connect: second, head: second, idle: second };
    }
    specialise(&mut config, row.special, certificate_of_its_own);
    let stage = Stage::prepared(&config, |folder| prepare(folder, row)).await;
    if let Special::Tried(times) = row.special {
        for i in 0..times {
            stage.tea(&format!("v1.9.{i}.mod")).await;
        }
    }
    let got = stage.tea(row.file).await;
    let mut wrong = Vec::new();
    let mut claim = |what: &str, claimed: String, found: String| {
        if claimed != found {
            wrong.push(format!("{} ({}): {what}: the table says {claimed}, and it is {found}", row.upstream, row.file));
        }
    };
    let gets = if got.body.is_some() { Gets::Status(got.status) } else { Gets::Aborted };
    claim("the answer", format!("{:?}", row.gets), format!("{gets:?}"));
    if gets == Gets::Status(200) {
        claim(
            "the content",
            "right".to_owned(),
            if is_right(row.file, got.body.as_deref().unwrap()) { "right" } else { "wrong" }.to_owned(),
        );
    } else if got.body.is_some() {
        let said = got.text().replace("127.0.0.1", "modules.example");
        claim("the message", row.says.to_owned(), if matches(row.says, said.trim_end()) { row.says.to_owned() } else { said });
        claim("the type", "text/plain; charset=utf-8".to_owned(), got.header("content-type").to_owned());
    }
    if row.kept {
        stage.kept(&kept_path(row.file)).await;
    } else {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    claim("kept", row.kept.to_string(), stage.path(&kept_path(row.file)).exists().to_string());
    claim("the classes", format!("{:?}", row.classes), format!("{:?}", stage.classes().await));
    let asked = first.take_seen().iter().filter(|asked| asked.path.ends_with(row.file)).count();
    claim("the requests", row.requests.to_string(), asked.to_string());
    wrong
}

fn specialise(config: &mut ProxyConfig, special: Special, certificate_of_its_own: &str) {
    let mut move_to = |url: &str| config.upstreams[0].url = url.parse().unwrap();
    match special {
        // Port 1 of the loopback network: nobody listens there.
        Special::Refuses | Special::Tried(_) => move_to("http://127.0.0.1:1"),
        Special::Nameless => {
            move_to("http://modules.example");
            config.resolution = Resolution::Pinned { hosts: Vec::new() };
        }
        Special::SelfSigned => move_to(certificate_of_its_own),
        Special::NoVerdict(when_unavailable) => {
            config.checksum_database = Some(ChecksumDatabase {
                name: "sum.example/db".to_owned(),
                key: Some("sum.example/db+9ec6ab89+ATPaWbMTM3SBxphpqrNCUkP6/tyJp/ULbQ5yQu4IC9Tb".to_owned()),
                mode: ChecksumMode::Verify,
                when_unavailable,
                url: Some(config.upstreams[0].url.join("sumdb-away/").unwrap()),
            });
        }
        Special::None | Special::SeenBefore | Special::OldList => {}
    }
}

fn prepare(folder: &Path, row: &Row) {
    let write = |below: &str, text: &str| {
        let path = folder.join("cache/.gomodcache").join(below).join("corp.example/!tea/@v").join(row.file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    };
    match row.special {
        Special::SeenBefore => write("first-seen", "h1:Of+other+content="),
        Special::OldList => write("mutable", "v1.0.0\n"),
        _ => {}
    }
}

fn kept_path(file: &str) -> String {
    let mutable = if file == "list" { ".gomodcache/mutable/" } else { "" };
    format!("{mutable}corp.example/!tea/@v/{file}")
}

fn is_right(file: &str, body: &[u8]) -> bool {
    match file.rsplit_once('.') {
        Some((version, "zip")) => {
            hash_zip(Cursor::new(body), &ModulePath::new("corp.example/Tea").unwrap(), &Version::new(version).unwrap()).is_ok()
        }
        Some((version, "info")) => serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|info| info["Version"] == version),
        Some((_, "mod")) => body == b"module corp.example/Tea\n",
        _ => body == b"v1.0.0\n",
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        // What ends with anything may go on.
        rest = if part.is_empty() { "" } else { after };
    }
    rest.is_empty()
}

fn render() -> String {
    let mut text = include_str!("head.md").to_owned();
    for row in rows() {
        let then = match row.next {
            Some((Fallback::OnNotFound, play)) => format!(", then a comma and an upstream that {}", of_next(play)),
            Some((Fallback::OnError, play)) => format!(", then a bar and an upstream that {}", of_next(play)),
            None => String::new(),
        };
        let kind = row.file.rsplit('.').next().unwrap_or_default();
        let gets = match row.gets {
            Gets::Status(status) => status.to_string(),
            Gets::Aborted => "200, and a body that breaks off".to_owned(),
        };
        let says = if row.says.is_empty() { "—".to_owned() } else { row.says.replace('|', "\\|").replace('\n', "<br>") };
        let kept = if row.kept { "yes" } else { "no" };
        let classes = row.classes.iter().map(|class| format!("`{class}`")).collect::<Vec<_>>().join(", ");
        let requests = if row.requests == 0 { "—".to_owned() } else { row.requests.to_string() };
        text += &format!("| {}{then} | {kind} | {gets} | {says} | {kept} | {classes} | {requests} |\n", row.upstream);
    }
    text
}

fn of_next(play: Play) -> &'static str {
    let request = Asked::of("/corp.example/!tea/@v/v1.0.0.info");
    if play(&request).status() == honest(&request).status() { "has it" } else { "answers 404" }
}
