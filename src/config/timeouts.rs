//! How long an upstream may be silent.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as words;
use serde::{Deserialize, Serialize};

/// A clock can't say what is far beyond.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long an upstream may be silent, each in words such as `10s` or `1m30s`. How long a whole transfer takes has no limit:
/// a long zip over a slow line is no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Timeouts {
    /// For a connection, TLS included; and for one that is shared (HTTP/2) to say that it lives.
    #[serde(with = "words")]
    pub connect: Duration,
    /// Until the head of an answer: a public mirror takes up to 58 s for a module that it does not have yet.
    #[serde(with = "words")]
    pub head: Duration,
    /// Between two pieces of a body.
    #[serde(with = "words")]
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), head: Duration::from_secs(75), idle: Duration::from_secs(30) }
    }
}

impl Timeouts {
    /// Whether these are the defaults, which need not be written.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all are more than nothing, so that an upstream can answer in time, and none is longer than anybody waits.
    #[must_use]
    pub fn are_usable(&self) -> bool {
        [self.connect, self.head, self.idle].iter().all(|timeout| !timeout.is_zero() && *timeout <= LONGEST)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_keeps_its_default_and_what_is_written_is_read() {
        let timeouts: Timeouts = serde_json::from_str(r#"{"head": "1m30s"}"#).unwrap();
        assert_eq!(timeouts, Timeouts { head: Duration::from_secs(90), ..Timeouts::default() });
        assert_eq!(serde_json::from_str::<Timeouts>(&serde_json::to_string(&timeouts).unwrap()).unwrap(), timeouts);
    }

    #[test]
    fn a_public_mirror_may_think_for_58_seconds() {
        assert!(Timeouts::default().head > Duration::from_secs(60));
    }

    #[test]
    fn one_is_more_than_nothing_and_no_more_than_a_day() {
        let with = |idle: &str| serde_json::from_value::<Timeouts>(serde_json::json!({ "idle": idle })).unwrap().are_usable();
        assert_eq!(["0s", "1ms", "24h", "24h1s", "18446744073709551615s"].map(with), [false, true, true, false, false]);
    }

    #[test]
    fn a_number_without_a_unit_and_an_unknown_key_are_refused() {
        assert!(serde_json::from_str::<Timeouts>(r#"{"head": 90}"#).is_err());
        assert!(serde_json::from_str::<Timeouts>(r#"{"total": "90s"}"#).is_err());
    }
}
