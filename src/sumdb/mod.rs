//! The checksum database: what it says of a version ([`Database`]), and which requests are for its relay. Everything else
//! under `/sumdb/` is refused without a call to anyone: an open relay would be a way into the cluster's network.

mod answers;
mod database;
mod head;
mod tiles;

pub use answers::Ask;
pub use database::{Database, Sums};

use crate::gomod::{SumdbPath, Verifier};

/// Hash and key of the public database: a constant of the protocol, compiled into every go command. The hash covers the
/// name too, so that no other database can pass for it.
const PUBLIC_KEY: &str = "033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

/// Why there are bytes of the database or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It says that it has none: 404 or 410.
    #[error("the checksum database does not know it")]
    Unknown,
    /// It can't be asked now.
    #[error("{0}")]
    Unavailable(String),
    /// It answered with something that no honest database signs.
    #[error("the checksum database can't be believed: {0}")]
    Dishonest(String),
    /// It signed two trees of which neither begins with the other.
    #[error("the checksum database can't be believed: {0}")]
    Forked(String),
}

fn dishonest(error: &dyn std::fmt::Display) -> Missing {
    Missing::Dishonest(error.to_string())
}

/// The key of a database: the one that is given, or the public one if the name is its.
///
/// # Errors
/// A sentence that says what is missing.
pub fn verifier(name: &str, key: Option<&str>) -> Result<Verifier, String> {
    match key {
        Some(key) => match Verifier::parse(key) {
            Ok(verifier) if verifier.name() == name => Ok(verifier),
            Ok(verifier) => Err(format!("is the key of {}, not of {name}", verifier.name())),
            Err(error) => Err(error.to_string()),
        },
        None => Verifier::parse(&format!("{name}+{PUBLIC_KEY}"))
            .map_err(|_| format!("{name} is not the public database: give its key, name+hash+key, or only relay it")),
    }
}

/// What is asked of the database of this name; nothing if the request is for another one, or for no database at all.
///
/// `rest` is what follows `/sumdb/`. A name may hold slashes, so it is matched as a literal prefix.
#[must_use]
pub fn parse(name: &str, rest: &str) -> Option<SumdbPath> {
    let path = rest.strip_prefix(name)?.strip_prefix('/')?;
    SumdbPath::parse(path).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(crate) mod fake;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
