//! What can go wrong on the way to an upstream, in words for the person whose build it stops.

use std::error::Error as _;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;

use crate::report::{MAX_SENTENCE, sentence};

/// The bounded reason of an upstream's fault; a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The name has no (permitted) address.
    Dns,
    /// No connection, or it broke.
    Connect,
    /// The certificate was not accepted.
    Tls,
    /// Silence for too long.
    Timeout,
    /// 401, 403, or a credential that is missing.
    Auth,
    /// The same, of the HTTP proxy.
    ProxyAuth,
    /// 429.
    RateLimited,
    /// Any other 4xx, or an answer that no proxy gives.
    ClientError,
    /// 5xx.
    ServerError,
    /// The bytes are not what was asked for.
    Verification,
}

impl Class {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Auth | Self::ProxyAuth => "auth",
            Self::RateLimited => "rate_limited",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Verification => "verification",
        }
    }

    /// What the client gets. Never 404: with `GOPROXY=cache,direct` that would send private paths to the internet.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::RateLimited => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether a second try within a second may help.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Connect | Self::ServerError)
    }

    /// Whether this may go away when it is asked again as late as the upstream said.
    #[must_use]
    pub(super) fn may_be_retried_later(self) -> bool {
        matches!(self, Self::RateLimited | Self::ServerError)
    }

    /// Whether the upstream said nothing at all.
    #[must_use]
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Dns | Self::Connect | Self::Tls | Self::Timeout)
    }

    /// Whether the upstream has a problem with us, and not only with what was asked for.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::ClientError | Self::Verification)
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Dns => "check the host's name and the addresses that the cache may use",
            Self::Connect => "check that the host is up and that the cache may reach it",
            Self::Tls => "check the host's certificate, or give the upstream a CA bundle",
            Self::Timeout => "the upstream is slow or away; try again later",
            Self::Auth => "check the credential of this upstream and what it may read",
            Self::ProxyAuth => "check the credential of the HTTP proxy (httpProxy)",
            Self::RateLimited => "the upstream limits requests; try again later",
            Self::ClientError => "check the upstream's URL and its redirect hosts",
            Self::ServerError => "the upstream has a problem; try again later",
            Self::Verification => "the answer was not kept; try again, or tell the upstream's owner",
        }
    }
}

/// An upstream that could not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("upstream {host}: {reason}")]
pub struct Fault {
    /// The reason in one word.
    pub class: Class,
    /// Which host.
    pub host: String,
    /// The reason in a sentence, without secrets and without signed URLs.
    pub reason: String,
    /// How long the upstream wants to be left alone.
    pub retry_after: Option<std::time::Duration>,
    /// A part of the zip had come: what broke or stalled is this answer, and not the upstream.
    pub(super) had_begun: bool,
    /// It was not even asked, since it did not answer lately.
    pub(super) is_held_back: bool,
}

impl Fault {
    /// With a reason that may quote what an upstream sent: one line of it, and no long one.
    pub(super) fn new(class: Class, host: String, reason: String) -> Self {
        let is_line = reason.len() <= MAX_SENTENCE && !reason.contains(char::is_control);
        let reason = if is_line { reason } else { sentence(&reason) };
        Self { class, host, reason, retry_after: None, had_begun: false, is_held_back: false }
    }

    /// As the metrics have it.
    pub(super) fn label(&self) -> &'static str {
        if self.is_held_back { "breaker" } else { self.class.as_str() }
    }

    /// Whether nothing was heard, so that others would hear nothing either.
    pub(super) fn is_silence(&self) -> bool {
        self.class.is_silence() && !self.had_begun
    }

    /// Since when nothing was heard: of a connection that broke since it was asked for something, and of one that is silent until
    /// this moment.
    pub(super) fn began(&self, asked: Instant) -> Instant {
        if self.class == Class::Timeout { Instant::now() } else { asked }
    }

    /// The text for the client.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{self}\n{}\n", self.class.advice())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// An upstream said so, with 404 or 410.
    #[error("not found")]
    NotFound {
        /// 404 or 410.
        status: StatusCode,
        /// The upstream's words, if they were text.
        text: Bytes,
    },
    /// No upstream is configured.
    #[error("not cached, and this cache is offline")]
    Offline,
    /// A private module, and nobody who may hear of it.
    #[error("a private module, and no upstream is declared internal: nobody is asked for it")]
    Private,
    /// A look-up of a private module.
    #[error("a private module, which is not named to the checksum database: set GONOSUMDB for this client")]
    PrivateLookUp,
    /// A rule of the cache's policy is against it.
    #[error("this cache's policy does not allow it: {0}")]
    Denied(String),
    /// An upstream has it, and the checksum database did not say what it must be.
    #[error("no verdict of {database}: {reason}")]
    NoVerdict {
        /// The database's name.
        database: String,
        /// The reason in a sentence.
        reason: String,
    },
    /// An upstream could not answer.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Nobody waits for it, and the upstream was in trouble a moment ago.
    #[error("not fetched ahead: the upstream is in trouble")]
    HeldBack,
    /// Nobody waits for it, and there is no room for one more long answer.
    #[error("not fetched ahead: too many long answers are under way")]
    NoRoom,
    /// As much is being downloaded as may be.
    #[error("{0} are under way; try again")]
    Busy(String),
    /// It began well, and did not end so.
    #[error("the download failed or was not what was asked for; try again, or see what /explain on the admin address says of it")]
    Failed,
    /// The cache's own failure: its disk's, most likely.
    #[error("the cache failed, and no upstream: {0}; tell whoever runs it")]
    Local(String),
}

/// An error and its causes, without reqwest's own first line: it carries the URL, which may be signed.
pub(super) fn chain_text(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        parts.push(inner.to_string());
        source = inner.source();
    }
    if parts.is_empty() { "the request failed".to_owned() } else { parts.join(": ") }
}
