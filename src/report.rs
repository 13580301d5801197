//! What a proxy tells the operator: `GET /report` on the admin address.
//!
//! Only what the proxy itself knows, and bounded. To whoever reads it, it is the word of a stranger: text is shortened and
//! cleaned before it is shown. Unlike the configuration, unknown keys are passed over, so that a newer proxy can say more.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The version of the format that this build writes.
pub const REPORT_VERSION: u32 = 1;
/// The path on the admin address.
pub const REPORT_PATH: &str = "/report";
/// No report is longer, in bytes.
pub const MAX_REPORT: usize = 64 << 10;
/// No sentence in a report is longer, in characters.
pub(crate) const MAX_SENTENCE: usize = 500;

/// What a proxy knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyReport {
    /// [`REPORT_VERSION`] of the proxy.
    pub version: u32,
    /// The versions of the configuration format that it reads.
    pub config_versions: Vec<u32>,
    /// [`config_digest`] of the configuration in use; empty when it runs without a file.
    #[serde(default)]
    pub config: String,
    /// The generation of the credentials in use; empty for none.
    #[serde(default)]
    pub credentials: String,
    /// The newest files, if they can't be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The volume, if it takes nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageTrouble>,
    /// Redirects that were refused within the last hour, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<RefusedRedirect>,
    /// Why the checksum database can't be asked, if it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum_database: Option<String>,
    /// What upstreams said to credentials; a credential that nobody was shown is not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<CredentialVerdict>,
}

/// Files that can't be used; the ones before them stay in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// [`config_digest`] of the configuration among them.
    pub config: String,
    /// The generation of the credentials among them.
    pub credentials: String,
    /// Why, in one sentence without secrets.
    pub reason: String,
}

/// Why a volume takes nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageTrouble {
    /// No room, or no quota.
    Full,
    /// Mounted read-only.
    ReadOnly,
    /// It answers writes with errors of another kind, or is there no more.
    Failing,
    /// Nothing more may be evicted, and there is no room below the cache's limit.
    Limit,
    /// Something that a later proxy knows of.
    #[serde(other)]
    Unknown,
}

/// A redirect to a host that is not declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRedirect {
    /// The upstream's host.
    pub upstream: String,
    /// Where it redirected to.
    pub host: String,
}

/// What an upstream said to a credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialVerdict {
    /// The name of the user's Secret.
    pub secret: String,
    /// The upstream's host.
    pub upstream: String,
    /// Whether it was accepted.
    pub accepted: bool,
}

/// The name of a configuration: the same text has the same one.
#[must_use]
pub fn config_digest(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// One line of at most 500 characters, for a condition or a log.
#[must_use]
pub fn sentence(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut out: String = line.chars().filter(|c| !c.is_control()).take(MAX_SENTENCE).collect();
    if line.chars().nth(MAX_SENTENCE).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_later_proxy_may_say_more() {
        let text = r#"{"version":2,"configVersions":[1,2],"storage":"Melted","colour":"blue"}"#;
        let report: ProxyReport = serde_json::from_str(text).unwrap();
        assert_eq!((report.config_versions, report.storage), (vec![1, 2], Some(StorageTrouble::Unknown)));
    }

    #[test]
    fn a_sentence_is_one_short_line() {
        assert_eq!(sentence("\n a\u{1b}[31mb\u{7}\nsecond"), "a[31mb");
        assert_eq!(sentence(&"x".repeat(600)).chars().count(), 501);
    }
}
