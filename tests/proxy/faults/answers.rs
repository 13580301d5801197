//! Rows: absences, refusals, limits and outages.

use super::rows::{BAR, COMMA, LONG, PLAIN, failing, long_zip, not_found};
use super::{Gets, Row, Special};
use crate::upstream::{Answer, Asked, honest};
const UNAUTHORIZED: &str =
    "upstream modules.example: answered 401 Unauthorized\ncheck the credential of this upstream and what it may read";
const FAILING: &str = "upstream modules.example: answered 500 Internal Server Error\nthe upstream has a problem; try again later";

fn unauthorized(_: &Asked) -> Answer {
    Answer::new("401 Unauthorized", "who are you?\n")
}

fn silent(_: &Asked) -> Answer {
    Answer::ok("").silent_after(0)
}

pub(super) const ROWS: &[Row] = &[
    Row { upstream: "has it", gets: Gets::Status(200), kept: true, classes: &["ok"], ..PLAIN },
    // Absences.
    Row {
        upstream: "answers 404 in plain text",
        play: not_found,
        gets: Gets::Status(404),
        says: "not found: no such version",
        classes: &["not_found"],
        ..PLAIN
    },
    Row {
        upstream: "answers 404 with a web page",
        play: |_| Answer::html("404 Not Found"),
        gets: Gets::Status(404),
        says: "not found: modules.example does not have it",
        classes: &["not_found"],
        ..PLAIN
    },
    Row {
        upstream: "answers 410 in plain text",
        play: |_| Answer::new("410 Gone", "retracted by its owner\n"),
        gets: Gets::Status(410),
        says: "retracted by its owner",
        classes: &["not_found"],
        ..PLAIN
    },
    Row {
        upstream: "answers 404",
        play: not_found,
        next: Some((COMMA, honest)),
        gets: Gets::Status(200),
        kept: true,
        classes: &["not_found", "ok"],
        ..PLAIN
    },
    // Refusals.
    Row { upstream: "answers 401", play: unauthorized, says: UNAUTHORIZED, classes: &["auth"], ..PLAIN },
    Row { upstream: "answers 401", play: unauthorized, next: Some((COMMA, honest)), says: UNAUTHORIZED, classes: &["auth"], ..PLAIN },
    Row {
        upstream: "answers 401",
        play: unauthorized,
        next: Some((BAR, honest)),
        gets: Gets::Status(200),
        kept: true,
        classes: &["auth", "ok"],
        ..PLAIN
    },
    Row {
        upstream: "answers 401",
        play: unauthorized,
        next: Some((BAR, not_found)),
        says: UNAUTHORIZED,
        classes: &["auth", "not_found"],
        ..PLAIN
    },
    Row {
        upstream: "answers 403",
        play: |_| Answer::new("403 Forbidden", ""),
        says: "upstream modules.example: answered 403 Forbidden\ncheck the credential of this upstream and what it may read",
        classes: &["auth"],
        ..PLAIN
    },
    Row {
        upstream: "answers 400",
        play: |_| Answer::new("400 Bad Request", ""),
        says: "upstream modules.example: answered 400 Bad Request\ncheck the upstream's URL and its redirect hosts",
        classes: &["client_error"],
        ..PLAIN
    },
    Row {
        upstream: "answers 204, which is no answer to this",
        play: |_| Answer::new("204 No Content", ""),
        says: "upstream modules.example: answered 204 No Content\ncheck the upstream's URL and its redirect hosts",
        classes: &["client_error"],
        ..PLAIN
    },
    // Limits of rate.
    Row {
        upstream: "answers 429",
        play: |_| Answer::new("429 Too Many Requests", ""),
        gets: Gets::Status(503),
        says: "upstream modules.example: answered 429 Too Many Requests\nthe upstream limits requests; try again later",
        classes: &["rate_limited"],
        ..PLAIN
    },
    Row {
        upstream: "answers 429 with `Retry-After: 3600`",
        play: |_| Answer::new("429 Too Many Requests", "").with("Retry-After", "3600"),
        gets: Gets::Status(503),
        says: "upstream modules.example: answered 429 Too Many Requests\nthe upstream limits requests; try again later",
        classes: &["rate_limited"],
        ..PLAIN
    },
    Row {
        upstream: "answers 429 with `Retry-After: 1`, and then has it",
        play: |asked| match asked.before {
            0 => Answer::new("429 Too Many Requests", "").with("Retry-After", "1"),
            _ => honest(asked),
        },
        gets: Gets::Status(200),
        kept: true,
        classes: &["ok", "rate_limited"],
        requests: 2,
        ..PLAIN
    },
    // Outages.
    Row { upstream: "answers 500", play: failing, says: FAILING, classes: &["server_error"], requests: 3, ..PLAIN },
    Row {
        upstream: "answers 500 once, and then has it",
        play: |asked| if asked.before == 0 { failing(asked) } else { honest(asked) },
        gets: Gets::Status(200),
        kept: true,
        classes: &["ok", "server_error"],
        requests: 2,
        ..PLAIN
    },
    Row {
        upstream: "answers 500",
        play: failing,
        next: Some((COMMA, honest)),
        says: FAILING,
        classes: &["server_error"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "answers 500",
        play: failing,
        next: Some((BAR, honest)),
        gets: Gets::Status(200),
        kept: true,
        classes: &["ok", "server_error"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "answers 500",
        play: failing,
        next: Some((BAR, not_found)),
        says: FAILING,
        classes: &["not_found", "server_error"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "answers 500, and a list of ten minutes ago is kept",
        special: Special::OldList,
        play: failing,
        file: "list",
        gets: Gets::Status(200),
        kept: true,
        classes: &["server_error"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "answers 503",
        play: |_| Answer::new("503 Service Unavailable", ""),
        says: "upstream modules.example: answered 503 Service Unavailable\nthe upstream has a problem; try again later",
        classes: &["server_error"],
        requests: 3,
        ..PLAIN
    },
    Row {
        upstream: "answers 503 with `Retry-After: 3600`",
        play: |_| Answer::new("503 Service Unavailable", "").with("Retry-After", "3600"),
        says: "upstream modules.example: answered 503 Service Unavailable\nthe upstream has a problem; try again later",
        classes: &["server_error"],
        ..PLAIN
    },
    Row {
        upstream: "hangs before it answers",
        play: silent,
        gets: Gets::Status(504),
        says: "upstream modules.example: no answer within 1s\nthe upstream is slow or away; try again later",
        classes: &["timeout"],
        ..PLAIN
    },
    Row {
        upstream: "hangs before it answers",
        play: silent,
        next: Some((BAR, honest)),
        gets: Gets::Status(200),
        kept: true,
        classes: &["ok", "timeout"],
        ..PLAIN
    },
    Row {
        upstream: "hangs in the middle of a short zip",
        file: "v1.0.0.zip",
        play: |asked| honest(asked).silent_after(200),
        gets: Gets::Status(504),
        says: "upstream modules.example: sent nothing for 1s\nthe upstream is slow or away; try again later",
        classes: &["timeout"],
        ..PLAIN
    },
    Row {
        upstream: "hangs in the middle of a long zip",
        file: "v1.0.0.zip",
        play: |asked| Answer::ok(long_zip(asked)).silent_after(LONG / 2),
        gets: Gets::Aborted,
        classes: &["timeout"],
        ..PLAIN
    },
    Row {
        upstream: "refuses connections",
        special: Special::Refuses,
        says: "upstream modules.example: client error (Connect): tcp connect error: Connection refused…\ncheck that the host is up and that the cache may reach it",
        classes: &["connect"],
        requests: 0,
        ..PLAIN
    },
    Row {
        upstream: "did not answer the last five requests",
        special: Special::Tried(5),
        says: "upstream modules.example: has not answered lately; it is asked again in … s\ncheck that the host is up and that the cache may reach it",
        classes: &["breaker", "connect"],
        requests: 0,
        ..PLAIN
    },
    Row {
        upstream: "has a name without an address",
        special: Special::Nameless,
        says: "upstream modules.example: modules.example has no pinned address; the cache dials only hosts that its configuration names\ncheck the host's name and the addresses that the cache may use",
        classes: &["dns"],
        requests: 0,
        ..PLAIN
    },
    Row {
        upstream: "has a certificate that nobody vouches for",
        special: Special::SelfSigned,
        says: "upstream modules.example: client error (Connect): invalid peer certificate: …\ncheck the host's certificate, or give the upstream a CA bundle",
        classes: &["tls"],
        requests: 0,
        ..PLAIN
    },
];
