//! What is kept of what may change, and for how long it is believed.

use std::time::Duration;

use bytes::Bytes;

use crate::gomod::Request;

/// How long a list, `@latest` or branch is served without asking again.
pub(super) const FRESH: Duration = Duration::from_secs(30);
/// What a kept answer begins with, before the name of its sources.
const ORIGIN: &[u8] = b"# sources ";

/// Whether a later answer may be another one: of a list, `@latest` or a branch. What a database says that changes is not kept here.
pub(super) fn may_change(request: &Request) -> bool {
    !request.is_immutable() && !matches!(request, Request::Sumdb(_))
}

/// What is kept of something that changes: who said it, on a line of its own, and what. Another process with this volume may have
/// other sources, and so may this one when it has come so far as to be written.
pub(super) fn by(origin: &str, bytes: &[u8]) -> Bytes {
    [ORIGIN, origin.as_bytes(), b"\n", bytes].concat().into()
}

/// The opposite of [`by`]. What does not say who said it was said by others.
pub(super) fn origin_of(file: &Bytes) -> (Option<Bytes>, Bytes) {
    let end = file.starts_with(ORIGIN).then(|| file.iter().position(|byte| *byte == b'\n')).flatten();
    end.map_or((None, file.clone()), |end| (Some(file.slice(ORIGIN.len()..end)), file.slice(end + 1..)))
}
