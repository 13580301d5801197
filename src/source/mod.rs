//! Where modules come from: the ordered chain of upstreams, redirects, credentials and dialling. Knows nothing of the
//! cache or of clients.

mod attempt;
mod body;
mod breaker;
mod chain;
mod credential;
mod door;
mod environment;
mod facts;
mod fault;
mod http_proxy;
mod journal;
mod known;
mod relay;
mod request;
mod resolve;
mod small_body;
mod transfer;
mod upstream;
mod zip_check;

use std::sync::Arc;

use bytes::Bytes;

use crate::gomod::{ModulePath, SumdbPath, Version};
use crate::store::Growing;

pub use chain::Chain;
pub use environment::{EnvironmentError, from_environment};
pub use fault::{Class, Fault, FetchError};
pub use journal::{Attempt, Journal};

/// The endpoint of all that is asked of a checksum database.
const SUMDB: &str = "sumdb";

/// What must be true of an answer before it is believed.
#[derive(Clone, Debug)]
pub enum Check {
    /// Anything but an HTML page.
    Text,
    /// The same, and not empty.
    GoMod,
    /// As [`Check::Text`]. Pseudo-versions are left out: a list that a module cache keeps has them, one that a proxy answers has not.
    List,
    /// JSON with a `Version`.
    AnyInfo,
    /// JSON with this very `Version`.
    Info(Version),
    /// A complete zip of this module and version.
    Zip(ModulePath, Version),
    /// What has the form of a checksum database's answer to this.
    Sumdb(SumdbPath),
}

/// What to ask an upstream for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Escaped, without a leading slash, relative to the upstream's URL.
    pub path: String,
    /// The kind, for metrics.
    pub endpoint: &'static str,
    /// Only internal upstreams may be asked.
    pub is_private: bool,
    /// No client waits for it: an upstream in trouble is not asked.
    pub is_ahead: bool,
    /// How the answer is verified.
    pub check: Check,
    /// Where a body too large for memory is written, and read by others at the same time. Absent: it is kept in memory.
    pub file: Option<Arc<Growing>>,
}

impl Wanted {
    /// Whether no client waits for it. One may have come since: it reads what has arrived, and nobody else would resume the rest.
    fn gives_way(&self) -> bool {
        self.is_ahead && !self.file.as_ref().is_some_and(|file| file.is_wanted())
    }

    /// Whether it asks no more than who relays a checksum database.
    fn is_offer(&self) -> bool {
        self.endpoint == SUMDB && self.path.ends_with("/supported")
    }
}

/// A verified answer.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// A small object.
    Bytes(Bytes),
    /// A zip, complete in [`Wanted::file`].
    Zip {
        /// Its `h1:` hash.
        h1: String,
    },
}
