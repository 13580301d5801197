//! Rows: broken transfers, wrong answers and redirects.

use gomodcache::config::WhenUnavailable;

use super::rows::{BAR, LONG, PLAIN, failing, long_zip};
use super::{Gets, Row, Special};
use crate::upstream::{Answer, honest, packed, zip};
/// The zip with a byte of its content changed.
fn spoilt(mut zip: Vec<u8>) -> Vec<u8> {
    let middle = zip.len() / 2;
    zip[middle] ^= 1;
    zip
}

/// The zip without its second half.
fn half(mut zip: Vec<u8>) -> Vec<u8> {
    zip.truncate(zip.len() / 2);
    zip
}

pub(super) const ROWS: &[Row] = &[
    Row {
        upstream: "breaks off in the middle of a short zip, each time",
        file: "v1.0.0.zip",
        play: |asked| honest(asked).closed_after(200),
        says: "upstream modules.example: broke off: …\ncheck that the host is up and that the cache may reach it",
        classes: &["connect"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a long zip, each time",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(long_zip(asked)).closed_after(LONG / 2),
        gets: Gets::Aborted,
        classes: &["connect"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a short zip, each time",
        file: "v1.0.0.zip",
        play: |asked| honest(asked).closed_after(200),
        next: Some((BAR, honest)),
        gets: Gets::Status(200),
        kept: true,
        classes: &["connect", "ok"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a long zip, each time",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(long_zip(asked)).closed_after(LONG / 2),
        next: Some((BAR, honest)),
        gets: Gets::Aborted,
        classes: &["connect"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a zip, and then sends the rest",
        file: "v1.0.0.zip",
        play: |asked| match asked.from() {
            Some(from) => Answer::rest(&long_zip(asked), from),
            None => Answer::ok(long_zip(asked)).closed_after(LONG / 2),
        },
        gets: Gets::Status(200),
        kept: true,
        classes: &["connect", "ok"],
        requests: 2,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a zip, and then sends it from the start",
        file: "v1.0.0.zip",
        play: |asked| match asked.before {
            0 => Answer::ok(long_zip(asked)).closed_after(LONG / 2),
            _ => Answer::ok(long_zip(asked)),
        },
        gets: Gets::Status(200),
        kept: true,
        classes: &["connect", "ok"],
        requests: 2,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a zip, answers 416 to a request for the rest, and sends it from the start",
        file: "v1.0.0.zip",
        play: |asked| match asked.from() {
            Some(_) => Answer::new("416 Range Not Satisfiable", ""),
            None if asked.before == 0 => Answer::ok(long_zip(asked)).closed_after(LONG / 2),
            None => Answer::ok(long_zip(asked)),
        },
        gets: Gets::Status(200),
        kept: true,
        classes: &["connect", "ok"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a short zip, answers 416 to a request for the rest, and then has another zip",
        file: "v1.0.0.zip",
        play: |asked| match asked.from() {
            Some(_) => Answer::new("416 Range Not Satisfiable", ""),
            None if asked.before == 0 => Answer::ok(zip(asked.file().unwrap().0, 2_000)).closed_after(1_500),
            None => honest(asked),
        },
        gets: Gets::Status(200),
        kept: true,
        classes: &["connect", "ok"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of another version's long zip, and then sends more than the rest, without a length",
        file: "v1.0.0.zip",
        play: |asked| {
            let wrong = zip("v1.0.1", LONG);
            match asked.from() {
                Some(from) => Answer::rest(&wrong, from).chunked().and_zeros(200_000),
                None => Answer::ok(wrong).closed_after(LONG / 2),
            }
        },
        gets: Gets::Aborted,
        classes: &["connect", "verification"],
        requests: 2,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a short zip, and then promises a rest of almost 2^64 bytes",
        file: "v1.0.0.zip",
        play: |asked| match asked.from() {
            Some(from) => Answer::rest(&honest(asked).into_body(), from).promising(u64::MAX - 2),
            None => honest(asked).closed_after(200),
        },
        says: "upstream modules.example: answered with more than 524288000 bytes\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["connect", "verification"],
        requests: 2,
        ..PLAIN
    },
    Row {
        upstream: "breaks off in the middle of a `.mod`, and then sends it",
        file: "v1.0.0.mod",
        play: |asked| if asked.before == 0 { honest(asked).closed_after(10) } else { honest(asked) },
        gets: Gets::Status(200),
        kept: true,
        classes: &["connect", "ok"],
        requests: 2,
        ..PLAIN
    },
    // Wrong answers.
    Row {
        upstream: "sends half a short zip as if it were whole",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(half(zip(asked.file().unwrap().0, 100))),
        says: "upstream modules.example: the zip is bad: …\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "sends half a long zip as if it were whole",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(half(long_zip(asked))).paused_after(LONG / 3),
        gets: Gets::Aborted,
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "sends a corrupt short zip",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(spoilt(zip(asked.file().unwrap().0, 2_000))),
        says: "upstream modules.example: the zip is bad: …\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "sends a corrupt long zip",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(spoilt(long_zip(asked))).paused_after(LONG / 2),
        gets: Gets::Aborted,
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "sends the zip of another version",
        file: "v1.0.0.zip",
        play: |_| Answer::ok(zip("v1.0.1", 100)),
        says: "upstream modules.example: the zip is bad: …\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "sends a zip of other content than before (wrong hash)",
        special: Special::SeenBefore,
        file: "v1.0.0.zip",
        says: "upstream modules.example: this cache saw h1:Of+other+content= before, and now h1:…: the version was changed; if the first was wrong, remove .gomodcache/first-seen/corp.example/!tea/@v/v1.0.0.zip\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["ok"],
        ..PLAIN
    },
    Row {
        upstream: "sends it, and the checksum database is away (`whenUnavailable: Serve`)",
        special: Special::NoVerdict(WhenUnavailable::Serve),
        play: |asked| if asked.path.contains("sumdb") { failing(asked) } else { honest(asked) },
        file: "v1.0.0.zip",
        gets: Gets::Status(200),
        classes: &["ok", "server_error"],
        ..PLAIN
    },
    Row {
        upstream: "sends it, and the checksum database is away (`whenUnavailable: Refuse`)",
        special: Special::NoVerdict(WhenUnavailable::Refuse),
        play: |asked| if asked.path.contains("sumdb") { failing(asked) } else { honest(asked) },
        file: "v1.0.0.zip",
        says: "no verdict of sum.example/db: the checksum database can't be asked: upstream modules.example: answered 500 Internal Server Error\nwhenUnavailable is Refuse, so it was not served; try again later, or see what is wrong with the checksum database",
        classes: &["ok", "server_error"],
        ..PLAIN
    },
    Row {
        upstream: "sends the information of another version",
        play: |_| Answer::ok(r#"{"Version":"v1.0.1"}"#),
        says: "upstream modules.example: asked for v1.0.0, answered for \"v1.0.1\"\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "answers 200 with a web page (a log-in, say)",
        file: "v1.0.0.mod",
        play: |_| Answer::html("200 OK"),
        says: "upstream modules.example: answered with a web page\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "answers 200 with an empty `.mod`",
        file: "v1.0.0.mod",
        play: |_| Answer::ok(""),
        says: "upstream modules.example: the go.mod file is empty, and every one names its module\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "sends a `.mod` packed with gzip, unasked",
        file: "v1.0.0.mod",
        play: |_| Answer::ok(packed(b"module corp.example/Tea\n")).with("Content-Encoding", "gzip"),
        gets: Gets::Status(200),
        kept: true,
        classes: &["ok"],
        ..PLAIN
    },
    Row {
        upstream: "sends a zip packed with gzip, unasked",
        file: "v1.0.0.zip",
        play: |_| Answer::ok(packed(&zip("v1.0.0", 100))).with("Content-Encoding", "gzip"),
        says: "upstream modules.example: answered with Content-Encoding \"gzip\", and was asked for none\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    Row {
        upstream: "promises a zip of more than 500 MiB",
        file: "v1.0.0.zip",
        play: |_| Answer::ok("PK").promising((500 << 20) + 1),
        says: "upstream modules.example: answered with more than 524288000 bytes\nthe answer was not kept; try again, or tell the upstream's owner",
        classes: &["verification"],
        ..PLAIN
    },
    // Redirects.
    Row {
        upstream: "redirects to a host that is not declared",
        play: |_| Answer::redirect("https://elsewhere.example/x?signature=secret"),
        says: "upstream modules.example: redirected to elsewhere.example, which is not declared: add it to the upstream's redirect hosts\ncheck the upstream's URL and its redirect hosts",
        classes: &["client_error"],
        ..PLAIN
    },
    Row {
        upstream: "redirects to itself for ever",
        play: |asked| Answer::redirect(asked.raw.clone()),
        says: "upstream modules.example: redirected more than 10 times\ncheck the upstream's URL and its redirect hosts",
        classes: &["client_error"],
        requests: 11,
        ..PLAIN
    },
    Row {
        upstream: "redirects to nowhere",
        play: |_| Answer::new("302 Found", ""),
        says: "upstream modules.example: redirected without a usable Location\ncheck the upstream's URL and its redirect hosts",
        classes: &["client_error"],
        ..PLAIN
    },
];
