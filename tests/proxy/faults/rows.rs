//! What the rows have in common.

use gomodcache::config::Fallback;

use super::{Gets, Row, Special};
use crate::upstream::{Answer, Asked, honest, zip};

/// Longer than what waits for the verdict, so a client has some of it before the end.
pub(super) const LONG: usize = 300_000;

pub(super) const PLAIN: Row = Row {
    upstream: "",
    special: Special::None,
    play: honest,
    next: None,
    file: "v1.0.0.info",
    gets: Gets::Status(502),
    says: "",
    kept: false,
    classes: &[],
    requests: 1,
};

pub(super) const COMMA: Fallback = Fallback::OnNotFound;
pub(super) const BAR: Fallback = Fallback::OnError;

pub(super) fn not_found(_: &Asked) -> Answer {
    Answer::not_found()
}

pub(super) fn failing(_: &Asked) -> Answer {
    Answer::new("500 Internal Server Error", "")
}

pub(super) fn long_zip(asked: &Asked) -> Vec<u8> {
    zip(asked.file().unwrap().0, LONG)
}
