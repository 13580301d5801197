//! Who vouches for public modules.

use serde::{Deserialize, Serialize};

/// The checksum database that is relayed under `/sumdb/<name>/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChecksumDatabase {
    /// The name in the database's key; may hold slashes.
    pub name: String,
    /// `name+hash+key`. Absent: the public database's, if the name is the one that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the cache does with it.
    #[serde(default)]
    pub mode: ChecksumMode,
    /// What becomes of a version for which it can't be asked.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
    /// Where to ask. Absent: the first upstream that relays it, else `https://<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<url::Url>,
}

/// What a cache does with the checksum database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumMode {
    /// Nothing is kept that it contradicts, and it is relayed.
    #[default]
    Verify,
    /// It is relayed to clients, who verify.
    Relay,
}

/// What becomes of a version for which the checksum database can't be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenUnavailable {
    /// It is served, and kept only when the verdict has come: clients check their go.sum themselves.
    #[default]
    Serve,
    /// It is refused with 502.
    Refuse,
}

/// Whether a checksum database may have this name. It becomes a folder of the volume and a path of an upstream.
#[must_use]
pub fn is_database_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':');
    name.split('/').all(|element| !element.is_empty() && !element.starts_with('.') && element.bytes().all(allowed))
}
