//! What an `.info` file says of a version.

use jiff::Timestamp;
use serde::Deserialize;

/// The fields that a go command reads. It reads their names in any case; servers that write them in lower case are known.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VersionInfo {
    /// Canonical.
    #[serde(rename = "Version", alias = "version")]
    pub version: String,
    /// Of the commit; its author chose it.
    #[serde(rename = "Time", alias = "time")]
    pub time: Option<Timestamp>,
}

impl VersionInfo {
    /// Reads the file.
    ///
    /// # Errors
    /// Not JSON, no version, or a time that is none.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_in_lower_case_and_others_are_nothing_to_us() {
        let info = VersionInfo::parse(br#"{"version":"v1.0.0","time":"2024-01-01T00:00:00Z","origin":{"version":1}}"#).unwrap();
        assert_eq!(info, VersionInfo::parse(br#"{"Version":"v1.0.0","Time":"2024-01-01T02:00:00+02:00"}"#).unwrap());
        assert_eq!(VersionInfo::parse(br#"{"Version":"v1.0.0"}"#).unwrap().time, None);
        assert!(VersionInfo::parse(br#"{"Time":"2024-01-01T00:00:00Z"}"#).unwrap_err().to_string().contains("Version"));
    }
}
