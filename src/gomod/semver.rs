//! Semantic versions as Go writes and orders them.
//!
//! The rules are those of `golang.org/x/mod/semver`: semver 2.0.0 with a leading `v`, where `v1` and `v1.2` stand for
//! `v1.0.0` and `v1.2.0`, numbers have no upper limit, and build metadata never takes part in a comparison.

use std::cmp::Ordering;

/// A version string that was taken apart. It borrows the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semver<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    prerelease: &'a str,
    build: &'a str,
}

impl<'a> Semver<'a> {
    /// Takes a version apart; `None` if it is not a semantic version in Go's sense.
    #[must_use]
    pub fn parse(version: &'a str) -> Option<Self> {
        let (major, rest) = number(version.strip_prefix('v')?)?;
        let short = Self { major, minor: "0", patch: "0", prerelease: "", build: "" };
        if rest.is_empty() {
            return Some(short);
        }
        let (minor, rest) = number(rest.strip_prefix('.')?)?;
        if rest.is_empty() {
            return Some(Self { minor, ..short });
        }
        let (patch, rest) = number(rest.strip_prefix('.')?)?;
        // The plus sign is looked for first: a build may contain hyphens, a pre-release no plus sign.
        let (prerelease, build) = rest.split_at(rest.find('+').unwrap_or(rest.len()));
        let prerelease_ok = prerelease.is_empty() || prerelease.strip_prefix('-')?.split('.').all(is_prerelease_identifier);
        let build_ok = build.is_empty() || build.strip_prefix('+')?.split('.').all(is_identifier);
        (prerelease_ok && build_ok).then_some(Self { major, minor, patch, prerelease, build })
    }

    /// `v1` of `v1.2.3`.
    #[must_use]
    pub fn major(&self) -> String {
        format!("v{}", self.major)
    }

    /// `v1.2` of `v1.2.3`, and `v1.0` of `v1`.
    #[must_use]
    pub fn major_minor(&self) -> String {
        format!("v{}.{}", self.major, self.minor)
    }

    /// The third number, without limit of length.
    #[must_use]
    pub fn patch(&self) -> &'a str {
        self.patch
    }

    /// `-pre.1` of `v1.2.3-pre.1+meta`; empty if there is none.
    #[must_use]
    pub fn prerelease(&self) -> &'a str {
        self.prerelease
    }

    /// `+meta` of `v1.2.3-pre.1+meta`; empty if there is none.
    #[must_use]
    pub fn build(&self) -> &'a str {
        self.build
    }

    /// Whether the second and third numbers are these.
    pub(super) fn numbers_are(&self, minor: &str, patch: &str) -> bool {
        self.minor == minor && self.patch == patch
    }

    /// All three numbers and the pre-release, without build metadata.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("v{}.{}.{}{}", self.major, self.minor, self.patch, self.prerelease)
    }

    /// Semver's precedence: build metadata is not looked at, and a pre-release comes before its release.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        compare_numbers(self.major, other.major)
            .then_with(|| compare_numbers(self.minor, other.minor))
            .then_with(|| compare_numbers(self.patch, other.patch))
            .then_with(|| compare_prereleases(self.prerelease, other.prerelease))
    }
}

/// Whether Go takes this for a semantic version. `v1`, `v1.2` and build metadata are allowed.
#[must_use]
pub fn is_valid(version: &str) -> bool {
    Semver::parse(version).is_some()
}

/// The form in which a version names a module: canonical, with `+incompatible` as the only build metadata that stays.
/// `None` if it is not a semantic version. The rule is `module.CanonicalVersion`.
#[must_use]
pub fn canonical_version(version: &str) -> Option<String> {
    let parsed = Semver::parse(version)?;
    let mut canonical = parsed.canonical();
    if parsed.build == INCOMPATIBLE {
        canonical.push_str(INCOMPATIBLE);
    }
    Some(canonical)
}

/// The build metadata of a version at v2 or above of a module without go.mod.
pub const INCOMPATIBLE: &str = "+incompatible";

/// Precedence of two strings. What is no semantic version comes before every one that is, and equals its like.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    match (Semver::parse(a), Semver::parse(b)) {
        (Some(a), Some(b)) => a.precedence(&b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// The order of a sorted list: precedence, then the bytes, so that equal versions have one order.
#[must_use]
pub fn compare_for_list(a: &str, b: &str) -> Ordering {
    compare(a, b).then_with(|| a.cmp(b))
}

/// Decimal numbers without leading zeros, of any length; an empty one comes before all others.
pub(super) fn compare_numbers(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Splits a decimal number without superfluous zeros from the front.
pub(super) fn number(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    is_number(number).then_some((number, rest))
}

fn is_number(text: &str) -> bool {
    is_digits(text) && (text == "0" || !text.starts_with('0'))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_prerelease_identifier(text: &str) -> bool {
    is_identifier(text) && (!is_digits(text) || is_number(text))
}

fn compare_prereleases(a: &str, b: &str) -> Ordering {
    match (a.strip_prefix('-'), b.strip_prefix('-')) {
        // Iterators compare as semver wants it: the first difference decides, else the longer one comes later.
        (Some(a), Some(b)) => a.split('.').map(Identifier).cmp(b.split('.').map(Identifier)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// One part of a pre-release: numbers come before words and are compared as numbers.
#[derive(PartialEq, Eq)]
struct Identifier<'a>(&'a str);

impl Ord for Identifier<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (is_digits(self.0), is_digits(other.0)) {
            (true, true) => compare_numbers(self.0, other.0),
            (false, false) => self.0.cmp(other.0),
            (a, b) => b.cmp(&a),
        }
    }
}

impl PartialOrd for Identifier<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSION: &str =
        "v(0|[1-9][0-9]{0,2})(\\.(0|[1-9][0-9]?)(\\.(0|[1-9][0-9]{0,24})(-[a-b1-2]{1,2}(\\.[a-b1-9-]{1,2}){0,2})?(\\+[a-z0]{1,3})?)?)?";

    proptest! {
        #[test]
        fn the_order_is_total(a in VERSION, b in VERSION, c in VERSION) {
            prop_assert!(is_valid(&a));
            prop_assert_eq!(compare_for_list(&a, &b), compare_for_list(&b, &a).reverse());
            prop_assert_eq!(compare_for_list(&a, &b) == Ordering::Equal, a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn versions_are_equal_when_their_canonical_forms_are(a in VERSION, b in VERSION) {
            let canonical = |v: &str| Semver::parse(v).unwrap().canonical();
            prop_assert_eq!(compare(&a, &canonical(&a)), Ordering::Equal);
            prop_assert_eq!(canonical(&canonical(&a)), canonical(&a));
            prop_assert_eq!(compare(&a, &b) == Ordering::Equal, canonical(&a) == canonical(&b));
        }

        #[test]
        fn any_text_has_a_place(a in "\\PC{0,12}", b in "v?[0-9.+-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }

    #[test]
    fn a_version_is_taken_apart() {
        let version = Semver::parse("v1.22.333-rc.1+meta-x.0").unwrap();
        assert_eq!((version.major(), version.major_minor(), version.patch()), ("v1".to_owned(), "v1.22".to_owned(), "333"));
        assert_eq!((version.prerelease(), version.build()), ("-rc.1", "+meta-x.0"));
        assert_eq!(version.canonical(), "v1.22.333-rc.1");
        let short = Semver::parse("v7").unwrap();
        assert_eq!((short.major_minor(), short.canonical()), ("v7.0".to_owned(), "v7.0.0".to_owned()));
    }

    #[test]
    fn what_semver_forbids_is_refused() {
        for text in [
            "",
            "v",
            "1.2.3",
            "v1.",
            "v1.2.",
            "v01",
            "v1.02.3",
            "v1-pre",
            "v1.2-pre",
            "v1+m",
            "v1.2.3-",
            "v1.2.3+",
            "v1.2.3-01",
            "v1.2.3-a..b",
            "v1.2.3-a+b+c",
            "v1.2.3.4",
            "v1.2.3 ",
            "v1.2.3-é",
            "V1.2.3",
            "v١.0.0",
        ] {
            assert!(!is_valid(text), "{text}");
        }
        for text in ["v1.2.3-0a", "v1.2.3+01", "v1.2.3--", "v1.2.3-a-b+c-d"] {
            assert!(is_valid(text), "{text}");
        }
    }

    #[test]
    fn versions_are_ordered_as_semver_says() {
        let ordered = [
            "junk",
            "v0.9.0",
            "v1.0.0-1",
            "v1.0.0-2",
            "v1.0.0-11",
            "v1.0.0-99999999999999999999999",
            "v1.0.0-alpha",
            "v1.0.0-alpha.1",
            "v1.0.0-alpha.beta",
            "v1.0.0-beta.2",
            "v1.0.0-beta.11",
            "v1.0.0",
            "v1.2.0",
            "v1.10.0",
            "v18446744073709551616.0.0",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        let mut list = vec!["v1.0.0+b", "v1", "v1.0.0+a", "v1.0.0-rc"];
        list.sort_by(|a, b| compare_for_list(a, b));
        assert_eq!(list, ["v1.0.0-rc", "v1", "v1.0.0+a", "v1.0.0+b"]);
    }

    #[test]
    fn only_the_incompatible_build_is_canonical() {
        assert_eq!(canonical_version("v2.0.0+incompatible").unwrap(), "v2.0.0+incompatible");
        assert_eq!(canonical_version("v2.0.0+incompatible.1").unwrap(), "v2.0.0");
        assert_eq!(canonical_version("v2").unwrap(), "v2.0.0");
        assert_eq!(canonical_version("main"), None);
    }
}
