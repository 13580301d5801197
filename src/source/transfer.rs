//! What the tries for one object have in common.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

use super::Wanted;

/// A try that breaks off after so much of a zip was not in vain.
const GAIN: u64 = 1 << 20;
/// How many tries there may be, however much each of them brings: more than there are megabytes in the largest zip.
const MAX_TRIES: u32 = 1_000;

/// What one try leaves to the next one.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    /// It was let through before.
    pub(super) is_retry: bool,
    /// The strong entity tag of what the bytes that are here are the beginning of.
    pub(super) tag: Option<HeaderValue>,
    /// The last answer was a part of the rest, and all of that part came.
    pub(super) kept_its_word: bool,
    tries: u32,
    in_vain: u32,
    /// The most bytes that were here: what begins anew brings them once more.
    most: u64,
}

impl Transfer {
    /// The headers that ask for what is not here yet.
    pub(super) fn range(&self, here: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if here > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={here}-"))
        {
            headers.insert(RANGE, range);
            headers.extend(self.tag.clone().map(|tag| (IF_RANGE, tag)));
        }
        headers
    }

    /// A try has ended with so many bytes here. How many were in vain since the last that was not; nothing if there were too many
    /// of any kind.
    pub(super) fn tried(&mut self, here: u64) -> Option<u32> {
        let gained = here.saturating_sub(self.most);
        self.most = self.most.max(here);
        let kept_its_word = std::mem::take(&mut self.kept_its_word);
        self.in_vain = if gained >= GAIN || (kept_its_word && gained > 0) { 0 } else { self.in_vain + 1 };
        self.tries += 1;
        self.is_retry = true;
        (self.tries < MAX_TRIES).then_some(self.in_vain)
    }
}

/// How many bytes are here, from a try before.
pub(super) fn here(wanted: &Wanted) -> u64 {
    wanted.file.as_ref().map_or(0, |file| file.progress().written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_brings_more_than_ever_was_here_is_not_in_vain() {
        let mut transfer = Transfer::default();
        let tried: Vec<_> = [GAIN, 2 * GAIN - 1, 0, GAIN, 2 * GAIN, 3 * GAIN].map(|here| transfer.tried(here)).into();
        assert_eq!(tried, [Some(0), Some(1), Some(2), Some(3), Some(4), Some(0)]);
        transfer.kept_its_word = true;
        assert_eq!(transfer.tried(3 * GAIN + 1), Some(0), "a part, and all of it");
        assert_eq!(transfer.tried(3 * GAIN + 2), Some(1));
    }

    #[test]
    fn tries_come_to_an_end_however_much_each_brings() {
        let mut transfer = Transfer::default();
        assert!((1..u64::from(MAX_TRIES)).all(|i| transfer.tried(i * GAIN).is_some()));
        assert_eq!(transfer.tried(u64::MAX), None);
    }
}
