//! The checksum database: what it says of a version ([`Database`]), and which requests are for its relay. Everything else
//! under `/sumdb/` is refused without a call to anyone: an open relay would be a way into the cluster's network.

mod database;

pub use database::{Ask, Database, Missing, Sums};

use crate::gomod::{SumdbPath, Verifier};

/// Hash and key of the public database: a constant of the protocol, compiled into every go command. The hash covers the
/// name too, so that no other database can pass for it.
const PUBLIC_KEY: &str = "033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

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
mod tests {
    use super::*;

    #[test]
    fn only_the_configured_name_is_relayed() {
        assert_eq!(parse("sum.example/db", "sum.example/db/supported"), Some(SumdbPath::Supported));
        for other in
            ["sum.example/supported", "other.example/supported", "sum.example/dbx/supported", "sum.example/db", "sum.example/db/../x"]
        {
            assert_eq!(parse("sum.example/db", other), None, "{other}");
        }
    }
}
