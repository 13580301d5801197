//! Small answers: read whole, decoded and checked in memory. Of those that are longer than any honest one there are only a few at a
//! time.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::upstream::Upstream;
use super::{Check, Class, FetchError, Fetched, Wanted};
use crate::gomod::{Version, VersionInfo};

/// Go's limit for a go.mod; a list or an `.info` is far smaller.
const MAX_SMALL_BYTES: usize = 16 << 20;
/// Up to this length an answer needs no room: go.mod files and lists of the largest projects are shorter.
const USUAL: usize = 256 << 10;
/// In KiB: what the longest answer may need, and what there is for all of them together, until they are on disk and at their
/// clients. Some kilobytes of gzip are megabytes here, and a go.mod file may name hundreds of others.
const LONGEST: u32 = (MAX_SMALL_BYTES >> 10) as u32;
static ROOM: Semaphore = Semaphore::const_new(2 * LONGEST as usize);

type Room = SemaphorePermit<'static>;

/// A long answer, which gives back its room when nobody has it any more.
struct Long {
    body: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Upstream {
    /// Reads an answer, and unpacks it: nobody asked for an encoding, but there are stores of files that answer with gzip all the
    /// same, and go commands unpack it.
    pub(super) async fn small_body(&self, mut response: Response, wanted: &Wanted, encoding: Option<&str>) -> Result<Bytes, FetchError> {
        let is_gzip = match encoding {
            None => false,
            Some("gzip" | "x-gzip") => true,
            Some(other) => return Err(self.encoded(other).into()),
        };
        let mut room = None;
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            let length = body.len() + chunk.len();
            if length > MAX_SMALL_BYTES {
                return Err(self.fault(Class::Verification, format!("answered with more than {MAX_SMALL_BYTES} bytes")).into());
            }
            if length > USUAL && room.is_none() {
                room = Some(self.room(wanted).await?);
            }
            body.extend_from_slice(&chunk);
        }
        if !is_gzip {
            return Ok(with_room(body.into(), room));
        }
        let mut decoder = flate2::read::MultiGzDecoder::new(&body[..]).take(MAX_SMALL_BYTES as u64 + 1);
        let mut plain = Vec::new();
        let bad = |_| self.fault(Class::Verification, "answered with bad gzip".to_owned());
        decoder.by_ref().take(USUAL as u64).read_to_end(&mut plain).map_err(bad)?;
        if plain.len() >= USUAL {
            if room.is_none() {
                room = Some(self.room(wanted).await?);
            }
            decoder.read_to_end(&mut plain).map_err(bad)?;
        }
        if plain.len() > MAX_SMALL_BYTES {
            return Err(self.fault(Class::Verification, format!("answered with more than {MAX_SMALL_BYTES} bytes of gzip")).into());
        }
        Ok(with_room(plain, room))
    }

    /// Waits until there is room for one more long answer. What nobody waits for does not wait either.
    async fn room(&self, wanted: &Wanted) -> Result<Room, FetchError> {
        if wanted.is_ahead {
            return ROOM.try_acquire_many(LONGEST).map_err(|_| FetchError::NoRoom);
        }
        let waited = tokio::time::timeout(self.timeouts.idle, ROOM.acquire_many(LONGEST)).await;
        waited.ok().and_then(Result::ok).ok_or_else(|| FetchError::Busy(format!("too many answers of more than {USUAL} bytes")))
    }

    pub(super) fn check_small(&self, body: Bytes, check: &Check) -> Result<Fetched, FetchError> {
        let wrong = |reason: String| FetchError::from(self.fault(Class::Verification, reason));
        if let Check::AnyInfo | Check::Info(_) = check {
            let info = VersionInfo::parse(&body).map_err(|e| wrong(format!("the version's information can't be read: {e}")))?;
            if let Check::Info(version) = check
                && info.version != version.as_str()
            {
                return Err(wrong(format!("asked for {version}, answered for {:?}", info.version)));
            }
        }
        if matches!(check, Check::GoMod) && body.trim_ascii().is_empty() {
            return Err(wrong("the go.mod file is empty, and every one names its module".to_owned()));
        }
        if matches!(check, Check::GoMod | Check::List)
            && let Some(other) = other_than_lines(&body)
        {
            return Err(wrong(format!("answered with {other}")));
        }
        if let Check::Sumdb(asked) = check {
            asked.check_form(&body).map_err(|e| wrong(format!("that is no answer of a checksum database: {e}")))?;
        }
        Ok(Fetched::Bytes(if matches!(check, Check::List) { without_pseudo_versions(body) } else { body }))
    }
}

/// What has no place for a line of a go.mod file or a list, whatever its Content-Type: a log-in's page, or a store's error.
fn other_than_lines(body: &[u8]) -> Option<&'static str> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let begins_with = |mark: &str| text.get(..mark.len()).is_some_and(|there| there.eq_ignore_ascii_case(mark.as_bytes()));
    if ["<!doctype", "<html", "<?xml"].into_iter().any(begins_with) {
        return Some("a web page");
    }
    let is_object = text.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    is_object.then_some("a JSON object")
}

/// The body, with as much of its room as it needs from now on.
fn with_room(body: Vec<u8>, room: Option<Room>) -> Bytes {
    match room.and_then(|mut room| room.split(body.len().div_ceil(1 << 10))) {
        Some(room) => Bytes::from_owner(Long { body, _room: room }),
        None => Bytes::from(body),
    }
}

/// The same bytes, if there is none, or nothing else: where nobody answers `@latest` the go command takes the newest of them.
fn without_pseudo_versions(list: Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(&list) else { return list };
    let is_pseudo =
        |line: &&str| line.split_whitespace().next().and_then(|first| Version::new(first).ok()).is_some_and(|version| version.is_pseudo());
    if !text.lines().any(|line| is_pseudo(&line)) {
        return list;
    }
    let others = text.lines().filter(|line| !is_pseudo(line)).fold(String::new(), |list, line| list + line + "\n");
    if others.trim().is_empty() { list } else { Bytes::from(others) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_and_an_error_are_no_lines_and_what_need_not_parse_is() {
        for page in ["<!DOCTYPE html>\n", "\u{feff}\n <html>", "<?xml version=\"1.0\"?><Error/>"] {
            assert_eq!(other_than_lines(page.as_bytes()), Some("a web page"), "{page}");
        }
        assert_eq!(other_than_lines(b" {\"errors\": [{\"status\": 404}]}\n"), Some("a JSON object"));
        for lines in
            ["", "module a.example/m\n", "v1.0.0\n", "<<<<<<< HEAD\nmodule a.example/m\n", "{\nmodule a.example/m\n", "<", "// <html>\n"]
        {
            assert_eq!(other_than_lines(lines.as_bytes()), None, "{lines}");
        }
    }
}
