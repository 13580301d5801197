//! Versions of Go itself, as `go` lines name them: `1.16`, `1.21`, `1.21rc2`, `1.21.3`.
//!
//! They are not semantic versions. The rules are those of the go command's package gover: since 1.21 a version without
//! patch is the language, which comes before its own release candidates: `1.21 < 1.21rc1 < 1.21.0`.

use std::cmp::Ordering;

use super::semver::{compare_numbers, number};

/// What a go.mod file without a `go` line means: <https://go.dev/ref/mod#go-mod-file-go>.
pub const GO_VERSION_IF_ABSENT: &str = "1.16";

/// The parts of a version in the order in which they are compared. All empty is what is malformed.
#[derive(Clone, Copy, Debug, Default)]
struct GoVersion<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    /// `alpha`, `beta`, `rc`: in this order by their letters, and after none at all.
    kind: &'a str,
    prerelease: &'a str,
}

impl<'a> GoVersion<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (major, rest) = number(text)?;
        if rest.is_empty() {
            return Some(Self { major, minor: "0", patch: "0", ..Self::default() });
        }
        let (minor, rest) = number(rest.strip_prefix('.')?)?;
        let version = Self { major, minor, ..Self::default() };
        if rest.is_empty() {
            // Before 1.21 the first release of 1.N was called 1.N.
            let patch = if compare_numbers(minor, "21").is_lt() { "0" } else { "" };
            return Some(Self { patch, ..version });
        }
        if let Some(rest) = rest.strip_prefix('.') {
            let (patch, rest) = number(rest)?;
            return rest.is_empty().then_some(Self { patch, ..version });
        }
        let (kind, digits) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let kind_ok = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase());
        let digits_ok = digits.is_empty() || number(digits).is_some_and(|(_, rest)| rest.is_empty());
        (kind_ok && digits_ok).then_some(Self { kind, prerelease: digits, ..version })
    }
}

/// Compares two versions of Go, written without a leading `go`. What is malformed comes before everything else and
/// equals its like.
#[must_use]
pub fn compare_go_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (GoVersion::parse(a).unwrap_or_default(), GoVersion::parse(b).unwrap_or_default());
    compare_numbers(a.major, b.major)
        .then_with(|| compare_numbers(a.minor, b.minor))
        .then_with(|| compare_numbers(a.patch, b.patch))
        .then_with(|| a.kind.cmp(b.kind))
        .then_with(|| compare_numbers(a.prerelease, b.prerelease))
}

/// Whether the value of a `go` line is at least this version; no line means [`GO_VERSION_IF_ABSENT`].
#[must_use]
pub fn go_version_at_least(go: Option<&str>, minimum: &str) -> bool {
    compare_go_versions(go.unwrap_or(GO_VERSION_IF_ABSENT), minimum).is_ge()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_one(a in "[12](\\.(0|1[0-9]|2[0-2])(\\.[0-9]|(rc|beta)[1-9]?)?)?", b in "[12]\\.(0|1[0-9]|2[0-2])(\\.[0-9]|(rc|beta)[1-9])?", c in "[0-9.a-c]{0,6}") {
            prop_assert_eq!(compare_go_versions(&a, &b), compare_go_versions(&b, &a).reverse());
            let mut list = [&a, &b, &c];
            list.sort_by(|a, b| compare_go_versions(a, b));
            let [first, _, last] = list;
            prop_assert!(compare_go_versions(first, last).is_le());
        }
    }

    #[test]
    fn versions_are_ordered_as_the_go_command_does() {
        let ordered = ["1.", "1", "1.5", "1.16", "1.17", "1.20.9", "1.21", "1.21alpha1", "1.21rc1", "1.21rc10", "1.21.0", "1.100", "2"];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare_go_versions(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare_go_versions("1.20", "1.20.0"), Ordering::Equal);
        for malformed in ["", "go1.20", "1.20.", "1.02", "1.20-x", "1.20rc01", "1.20.1rc1", "1.20RC1", "01.2"] {
            assert_eq!(compare_go_versions(malformed, ""), Ordering::Equal, "{malformed}");
        }
    }

    #[test]
    fn a_file_without_a_go_line_is_old() {
        assert!(!go_version_at_least(None, "1.17"));
        assert!(go_version_at_least(None, "1.16"));
        assert!(go_version_at_least(Some("1.17"), "1.17"));
        assert!(!go_version_at_least(Some("1.24rc1"), "1.24.0"));
        assert!(go_version_at_least(Some("1.24rc1"), "1.24"));
    }
}
