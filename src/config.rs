//! What the operator tells a proxy: a versioned YAML file, and beside it a directory of credentials.
//!
//! The proxy pod mounts two directories with fixed names: [`CONFIG_DIR`] (ConfigMap `<cache>-config`, the file
//! [`CONFIG_FILE`]) and [`CREDENTIALS_DIR`] (Secret `<cache>-credentials`). So a change of either reaches a running proxy
//! without a new pod. An unknown key is an error: a proxy must not run half of what it was told.

mod ca_bundle;
mod checksum_database;
mod credential;
mod http_proxy;
mod resolution;
mod timeouts;
mod versions;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::gomod::{PatternError, Patterns};
use crate::sumdb;

pub use ca_bundle::check_ca_bundle;
pub use checksum_database::{ChecksumDatabase, ChecksumMode, WhenUnavailable, is_database_name};
pub use credential::{Credential, CredentialSecret};
pub use http_proxy::HttpProxy;
pub use resolution::{PRIVATE_RANGES, PinnedHost, Resolution, host_names, is_private};
pub use timeouts::Timeouts;
pub use versions::{Versions, file_name, version_of};

/// The newest version of the configuration format that this build writes and reads; see [`Versions`].
pub const CONFIG_VERSION: u32 = 1;
/// Where the pod mounts the ConfigMap `<cache>-config`.
pub const CONFIG_DIR: &str = "/etc/gomodcache/config";
/// The key of the ConfigMap, and so the name of the file, for the first version of the format; see [`file_name`].
pub const CONFIG_FILE: &str = "proxy.yaml";
/// Where the pod mounts the Secret `<cache>-credentials`.
pub const CREDENTIALS_DIR: &str = "/etc/gomodcache/credentials";
/// Where the pod mounts the volume.
pub const CACHE_DIR: &str = "/var/cache/gomodcache";
/// The key of the credentials Secret that names its content: a random id, new only when the content is new.
pub const GENERATION_KEY: &str = "generation";
/// The key of the credentials Secret whose content opens the admin endpoints that name modules.
pub const ADMIN_TOKEN_KEY: &str = "admin-token";
/// Each credential is one key of the credentials Secret: this prefix and the name of the user's Secret.
pub const CREDENTIAL_KEY_PREFIX: &str = "credential.";
/// The port of the module endpoints, in the pod and on the Service.
pub const HTTP_PORT: u16 = 8080;
/// The port of `/livez`, `/readyz` and `/metrics`.
pub const ADMIN_PORT: u16 = 9090;

/// The whole configuration of one proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProxyConfig {
    /// The format's.
    pub version: u32,
    /// Tried in order. Empty means offline: only what is cached is served.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// Absent: `/sumdb/` answers 404, and clients fall back to what their own environment says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum_database: Option<ChecksumDatabase>,
    /// Module paths, in GOPRIVATE's syntax, that are never sent to an upstream that is not internal, nor to the checksum
    /// database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_modules: Vec<String>,
    /// Bytes that the cache may hold, and at most 95 % of the file system, which is also the limit if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_limit: Option<u64>,
    /// What clients may not have.
    #[serde(default, skip_serializing_if = "Policy::is_empty")]
    pub policy: Policy,
    /// How far to fetch ahead of a client.
    #[serde(default)]
    pub look_ahead: LookAhead,
    /// How hosts become addresses.
    #[serde(default)]
    pub resolution: Resolution,
    /// Through which HTTP proxy upstreams are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<HttpProxy>,
}

/// One entry of the source chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Upstream {
    /// `http` or `https`, never with userinfo, query or fragment; `file` only when the proxy runs alone.
    pub url: url::Url,
    /// When the next upstream is asked.
    #[serde(default)]
    pub fallback: Fallback,
    /// The name of a credential in the credentials directory (without [`CREDENTIAL_KEY_PREFIX`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Hosts to which this upstream may redirect, besides itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirect_hosts: Vec<String>,
    /// Private addresses and plain http are allowed.
    #[serde(default)]
    pub internal: bool,
    /// PEM certificates trusted for this upstream besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// How long it may be silent.
    #[serde(default, skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
}

/// GOPROXY's two separators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fallback {
    /// `,`: the next upstream is asked after 404 and 410 only.
    #[default]
    OnNotFound,
    /// `|`: the next upstream is asked after any error.
    OnError,
}

/// What clients may not have. A rule is a glob of module paths as in GOPRIVATE, or one and a version: `a.example/m@v1.2.3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// Nobody gets these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Nobody gets anything else. Empty: everything is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Such as `72h`: younger versions are neither listed nor served. Counted from the time of the version's commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_release_age: Option<String>,
}

impl Policy {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is fetched before a client asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LookAhead {
    /// What a go command certainly asks for next, and go.mod files that it may ask for.
    #[default]
    All,
    /// Only what is certain.
    Certain,
    /// Nothing.
    Disabled,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Not the YAML that this version expects. The text names key and line.
    #[error("{}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// A version that this build does not speak.
    #[error("configuration version {found} is not supported: this proxy speaks version {known}; upgrade the proxy image")]
    Version {
        /// What the file says.
        found: u32,
        /// The newest that it could be.
        known: u32,
    },
    /// A value that parses and still makes no sense.
    #[error("{key}: {reason}")]
    Invalid {
        /// Path of the key.
        key: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

impl ProxyConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Unreadable, not YAML of this version, an unknown key, or a value that makes no sense.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|error| match error {
            ConfigError::Parse { reason, .. } => ConfigError::Parse { path: path.into(), reason },
            other => other,
        })
    }

    /// Parses and checks the text of a configuration file.
    ///
    /// # Errors
    /// As [`ProxyConfig::read`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_any(text, &Versions::default())
    }

    /// The same for any of these versions.
    ///
    /// # Errors
    /// As [`ProxyConfig::read`].
    pub fn parse_any(text: &str, versions: &Versions) -> Result<Self, ConfigError> {
        // The version first, alone: a later version's unknown keys are not this one's typing errors.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // What can't be read is quoted, and a password in a URL must not be told to whoever reads logs.
        let parse_error = |reason: String| ConfigError::Parse { path: PathBuf::from(CONFIG_FILE), reason: without_userinfo(&reason) };
        let versioned: Versioned = serde_saphyr::from_str(text).map_err(|e| parse_error(e.to_string()))?;
        let known = versions.newest_first();
        if !known.contains(&versioned.version) {
            return Err(ConfigError::Version { found: versioned.version, known: known.first().copied().unwrap_or(CONFIG_VERSION) });
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|e| parse_error(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for a configuration that [`ProxyConfig::parse`] accepts; serialisation is fallible by type only.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        // JSON is YAML, byte-stable, and needs no second opinion about quoting.
        serde_json::to_string_pretty(self)
            .map(|mut text| {
                text.push('\n');
                text
            })
            .map_err(|e| ConfigError::Parse { path: PathBuf::from(CONFIG_FILE), reason: e.to_string() })
    }

    /// The names of the credentials that it needs.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        let of_proxy = self.http_proxy.iter().filter_map(|proxy| proxy.credential.as_deref());
        self.upstreams.iter().filter_map(|upstream| upstream.credential.as_deref()).chain(of_proxy)
    }

    /// The private modules' patterns. Case is ignored: a private path in another spelling must not leave either.
    ///
    /// # Errors
    /// A pattern that can't be read; never for a configuration that [`ProxyConfig::parse`] accepts.
    pub fn private(&self) -> Result<Patterns, ConfigError> {
        let patterns = Patterns::parse(self.private_modules.iter().map(String::as_str));
        let invalid = |error: PatternError| ConfigError::Invalid { key: "privateModules".into(), reason: error.to_string() };
        patterns.map(Patterns::ignoring_case).map_err(invalid)
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (i, upstream) in self.upstreams.iter().enumerate() {
            let invalid = |reason: &str| ConfigError::Invalid { key: format!("upstreams[{i}].url"), reason: reason.into() };
            let url = &upstream.url;
            if !matches!(url.scheme(), "http" | "https" | "file") {
                return Err(invalid("the scheme must be http or https"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(invalid("must not carry a user name or password; name a credential instead"));
            }
            if url.query().is_some() || url.fragment().is_some() {
                return Err(invalid("must not have a query or a fragment"));
            }
            if !upstream.timeouts.are_usable() {
                let reason = "each must be longer than nothing, and no longer than 24h".into();
                return Err(ConfigError::Invalid { key: format!("upstreams[{i}].timeouts"), reason });
            }
        }
        self.private()?;
        self.http_proxy.as_ref().map_or(Ok(()), HttpProxy::check)?;
        if let Some(database) = &self.checksum_database
            && database.mode == ChecksumMode::Verify
            && let Err(reason) = sumdb::verifier(&database.name, database.key.as_deref())
        {
            return Err(ConfigError::Invalid { key: "checksumDatabase.key".into(), reason });
        }
        if let Some(url) = self.checksum_database.as_ref().and_then(|database| database.url.as_ref()) {
            let invalid = |reason: &str| ConfigError::Invalid { key: "checksumDatabase.url".into(), reason: reason.into() };
            if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
                return Err(invalid("must be an http or https URL, without a user name or password"));
            }
        }
        if let Some(database) = &self.checksum_database
            && !is_database_name(&database.name)
        {
            return Err(ConfigError::Invalid {
                key: "checksumDatabase.name".into(),
                reason: "must be the name in the database's key: a host, or a host and a path, without . or .. as an element".into(),
            });
        }
        if let Resolution::Pinned { hosts } = &self.resolution
            && let Some(host) = hosts.iter().find(|h| h.addresses.is_empty())
        {
            return Err(ConfigError::Invalid {
                key: format!("resolution.hosts[{}].addresses", host.host),
                reason: "must not be empty; leave the host out until it has an address".into(),
            });
        }
        Ok(())
    }
}

/// The same text without what stands before the `@` of a URL. It is cut too far rather than too short: what does not parse has its
/// password anywhere, maybe some lines before the `@`, and of a URL's slashes none need be there.
fn without_userinfo(text: &str) -> String {
    // Quotes of JSON and YAML may spell it otherwise.
    let at = |line: &str| ["@", "\\x40", "\\u0040", "\\U00000040"].iter().filter_map(|at| line.rfind(at)).max();
    let cut = |line: &str, is_own: bool| {
        let Some(end) = at(line) else { return line.to_owned() };
        let first = |marks: &[&str]| marks.iter().filter_map(|mark| Some(line[..end].find(mark)? + mark.len())).min();
        let (quotes, value) = (["\"", "'", "`"], [": "]);
        let start = if is_own { first(&quotes).or_else(|| first(&value)) } else { first(&[&quotes[..], &value].concat()) };
        format!("{}***{}", &line[..start.unwrap_or_default()], &line[end..])
    };
    // The first line is the parser's own, who quotes; the others are the file's, where a password may hold quotes.
    let (own, file) = text.split_once('\n').unwrap_or((text, ""));
    let lines: Vec<&str> = file.lines().collect();
    let last = lines.iter().rposition(|line| at(line).is_some()).unwrap_or_default();
    lines.iter().skip(last).fold(cut(own, true), |text, line| text + "\n" + &cut(line, false))
}

#[cfg(test)]
mod tests;
