//! What an upstream said last of what may change, and how it named that state: a list that did not change since costs a 304.
//! In memory only: after a restart each is asked for once without a condition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{DATE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

/// The most bytes that one upstream's answers may take.
const CAPACITY: u64 = 4 << 20;
/// What an entry costs besides its bytes.
const OVERHEAD: usize = 256;

/// How long a time of change is relied on: files that are put in the place of others, by a roll-out of an image or from an archive, may
/// bear the same one.
const TIME_LASTS: Duration = Duration::from_secs(600);

/// The answers of one upstream, by path.
#[derive(Debug)]
pub(super) struct Known(moka::sync::Cache<Box<str>, Arc<State>>);

/// One answer.
#[derive(Debug)]
pub(super) struct State {
    pub(super) body: Bytes,
    pub(super) validator: Validator,
    /// When all of it was sent last.
    sent: Instant,
}

impl State {
    fn may_be_relied_on(&self, now: Instant) -> bool {
        self.validator.name == IF_NONE_MATCH || now.saturating_duration_since(self.sent) < TIME_LASTS
    }
}

/// The header that asks for an answer only if it would be another one.
#[derive(Clone, Debug)]
pub(super) struct Validator {
    name: HeaderName,
    value: HeaderValue,
}

impl Validator {
    /// From the headers of an answer, if they have one that can be relied on.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(tag) = headers.get(ETAG) {
            return Some(Self { name: IF_NONE_MATCH, value: tag.clone() });
        }
        // What changed in the second of the answer may change again in it, and the time would be the same.
        let changed = headers.get(LAST_MODIFIED)?;
        headers.get(DATE).filter(|now| *now != changed).map(|_| Self { name: IF_MODIFIED_SINCE, value: changed.clone() })
    }

    pub(super) fn condition(&self) -> HeaderMap {
        HeaderMap::from_iter([(self.name.clone(), self.value.clone())])
    }
}

impl Known {
    pub(super) fn new() -> Self {
        #[allow(clippy::borrowed_box, reason = "the signature that the cache calls")]
        let weigh = |path: &Box<str>, state: &Arc<State>| u32::try_from(path.len() + state.body.len() + OVERHEAD).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().weigher(weigh).max_capacity(CAPACITY).build())
    }

    /// What was said last of a path, if the next answer may depend on it.
    pub(super) fn get(&self, path: &str) -> Option<Arc<State>> {
        self.get_at(path, Instant::now())
    }

    fn get_at(&self, path: &str, now: Instant) -> Option<Arc<State>> {
        self.0.get(path).filter(|state| state.may_be_relied_on(now))
    }

    /// Remembers an answer; without a validator nothing is known any more.
    pub(super) fn set(&self, path: &str, body: &[u8], validator: Option<Validator>) {
        match validator {
            Some(validator) => {
                // Bytes of its own: a long answer has its room back as soon as it is on disk.
                let body = Bytes::copy_from_slice(body);
                self.0.insert(path.into(), Arc::new(State { body, validator, sent: Instant::now() }));
            }
            None => self.forget(path),
        }
    }

    /// Forgets what was said of a path.
    pub(super) fn forget(&self, path: &str) {
        self.0.invalidate(path);
    }

    /// Takes over all that another one has.
    pub(super) fn take_over(&self, before: &Self) {
        before.0.iter().for_each(|(path, state)| self.0.insert(path.as_ref().clone(), state));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn validator(headers: &[(HeaderName, &'static str)]) -> Option<(HeaderName, HeaderValue)> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Validator::of(&headers).map(|validator| (validator.name, validator.value))
    }

    #[test]
    fn a_tag_is_better_than_a_time_and_a_time_must_be_over() {
        let (noon, later) = ("Sat, 01 Jan 2028 12:00:00 GMT", "Sat, 01 Jan 2028 12:00:01 GMT");
        let tag = (IF_NONE_MATCH, HeaderValue::from_static("W/\"1\""));
        assert_eq!(validator(&[(ETAG, "W/\"1\""), (LAST_MODIFIED, noon), (DATE, later)]), Some(tag));
        let since = (IF_MODIFIED_SINCE, HeaderValue::from_static(noon));
        assert_eq!(validator(&[(LAST_MODIFIED, noon), (DATE, later)]), Some(since));
        assert_eq!(validator(&[(LAST_MODIFIED, noon), (DATE, noon)]), None);
        assert_eq!(validator(&[(LAST_MODIFIED, noon)]), None);
    }

    #[test]
    fn a_time_is_relied_on_for_a_while_and_a_tag_for_ever() {
        let known = Known::new();
        for (path, name, lasts) in [("tag", IF_NONE_MATCH, true), ("time", IF_MODIFIED_SINCE, false)] {
            known.set(path, b"v1.0.0\n", Some(Validator { name, value: HeaderValue::from_static("x") }));
            let sent = known.get(path).unwrap().sent;
            assert_eq!(known.get_at(path, sent + TIME_LASTS).is_some(), lasts, "{path}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let known = Known::new();
        let tag = Validator { name: IF_NONE_MATCH, value: HeaderValue::from_static("\"1\"") };
        (0..1_000).for_each(|i| known.set(&i.to_string(), &vec![0; 100_000], Some(tag.clone())));
        known.0.run_pending_tasks();
        assert!(known.0.weighted_size() <= CAPACITY);
    }
}
