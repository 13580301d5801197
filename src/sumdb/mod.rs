//! The relay of the checksum database: which requests are for it. Everything else under `/sumdb/` is refused without a
//! call to anyone: an open relay would be a way into the cluster's network.

use crate::gomod::SumdbPath;

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
