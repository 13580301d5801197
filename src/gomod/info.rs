//! What an `.info` file says of a version.

use jiff::Timestamp;
use serde::Deserialize;

/// The fields that a go command reads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VersionInfo {
    /// Canonical.
    #[serde(rename = "Version")]
    pub version: String,
    /// Of the commit; its author chose it.
    #[serde(rename = "Time")]
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
