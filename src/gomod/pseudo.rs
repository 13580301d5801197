//! Pseudo-versions: version strings that the go command makes for commits without a tag.
//!
//! The rules are those of `golang.org/x/mod/module`. There are three forms, each with optional build metadata:
//! `vX.0.0-<time>-<revision>` without a tag before the commit, `vX.Y.(Z+1)-0.<time>-<revision>` after the tag `vX.Y.Z`,
//! and `vX.Y.Z-pre.0.<time>-<revision>` after the tag `vX.Y.Z-pre`.

use jiff::civil::DateTime;

use super::semver::Semver;

/// A pseudo-version that was taken apart. It borrows the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PseudoVersion<'a> {
    version: Semver<'a>,
    /// What is before the time: empty, `0.` or `pre.0.`.
    base: &'a str,
    time: &'a str,
    revision: &'a str,
}

impl<'a> PseudoVersion<'a> {
    /// Takes a pseudo-version apart; `None` if it is none. The time need not exist in a calendar: Go does not look.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let version = Semver::parse(text)?;
        let (left, revision) = version.prerelease().strip_prefix('-')?.rsplit_once('-')?;
        let (base, time) = left.split_at_checked(left.len().checked_sub(14)?)?;
        let form = match base {
            "" => version.numbers_are("0", "0"),
            base => base == "0." || base.ends_with(".0."),
        };
        let time_ok = time.bytes().all(|b| b.is_ascii_digit());
        let revision_ok = !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_alphanumeric());
        (form && time_ok && revision_ok).then_some(Self { version, base, time, revision })
    }

    /// The commit's time in UTC, to the second; `None` if the digits are no date.
    #[must_use]
    pub fn time(&self) -> Option<DateTime> {
        let field = |from: usize, to: usize| self.time.get(from..to)?.parse::<i8>().ok();
        let year = self.time.get(..4)?.parse().ok()?;
        DateTime::new(year, field(4, 6)?, field(6, 8)?, field(8, 10)?, field(10, 12)?, field(12, 14)?, 0).ok()
    }

    /// The commit, by convention the first 12 digits of its hash.
    #[must_use]
    pub fn revision(&self) -> &'a str {
        self.revision
    }

    /// The tag before the commit; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// No tag can have led to this version: it has build metadata without a tag, or the patch before it is negative.
    pub fn base(&self) -> Result<Option<String>, NoBase> {
        let build = self.version.build();
        let numbers = self.version.major_minor();
        match self.base {
            "" if build.is_empty() => Ok(None),
            "" => Err(NoBase),
            "0." => {
                let patch = one_less(self.version.patch()).ok_or(NoBase)?;
                Ok(Some(format!("{numbers}.{patch}{build}")))
            }
            base => {
                let prerelease = base.strip_suffix(".0.").unwrap_or(base);
                Ok(Some(format!("{numbers}.{}-{prerelease}{build}", self.version.patch())))
            }
        }
    }
}

/// A pseudo-version that contradicts itself about the tag before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no version can be before this pseudo-version")]
pub struct NoBase;

/// Whether a version names a commit rather than a tag.
#[must_use]
pub fn is_pseudo(version: &str) -> bool {
    PseudoVersion::parse(version).is_some()
}

/// A decimal number of any length, less one; `None` for zero.
fn one_less(number: &str) -> Option<String> {
    let nonzero = number.trim_end_matches('0');
    let zeros = number.len() - nonzero.len();
    let (head, last) = nonzero.split_at_checked(nonzero.len().checked_sub(1)?)?;
    let last = last.parse::<u8>().ok()?.checked_sub(1)?;
    // 1000 - 1 is 999 and not 0999.
    let lead = if head.is_empty() && last == 0 && zeros > 0 { String::new() } else { format!("{head}{last}") };
    Some(lead + &"9".repeat(zeros))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(text: &str) -> Result<Option<String>, NoBase> {
        PseudoVersion::parse(text).unwrap().base()
    }

    proptest! {
        #[test]
        fn a_pseudo_version_lies_just_above_its_base(major in 0_u8..3, minor in 0_u8..20, patch in 0_u64.., pre in "(-[a-z]{1,3}(\\.[1-9])?)?") {
            let tag = format!("v{major}.{minor}.{patch}{pre}");
            let next = u128::from(patch) + u128::from(pre.is_empty());
            let dot = if pre.is_empty() { "-0." } else { ".0." };
            let text = format!("v{major}.{minor}.{next}{pre}{dot}20240102030405-abcdefabcdef");
            prop_assert!(super::super::semver::compare(&tag, &text).is_lt());
            prop_assert_eq!(base(&text), Ok(Some(tag)));
        }

        #[test]
        fn one_less_is_subtraction(n in 1_u128..) {
            prop_assert_eq!(one_less(&n.to_string()).unwrap(), (n - 1).to_string());
        }
    }

    #[test]
    fn the_three_forms_know_their_tags() {
        assert_eq!(base("v0.0.0-20240102030405-abcdefabcdef"), Ok(None));
        assert_eq!(base("v1.3.0-0.20240102030405-abcdefabcdef"), Err(NoBase));
        assert_eq!(base("v2.0.0-20240102030405-abcdefabcdef+incompatible"), Err(NoBase));
        assert_eq!(base("v2.3.10-0.20240102030405-abc+incompatible"), Ok(Some("v2.3.9+incompatible".to_owned())));
        assert_eq!(base("v1.2.3-rc.1.0.20240102030405-abc"), Ok(Some("v1.2.3-rc.1".to_owned())));
        assert_eq!(one_less("0"), None);
        assert_eq!(one_less("1").unwrap(), "0");
        assert_eq!(one_less("1000").unwrap(), "999");
    }

    #[test]
    fn the_time_must_exist_to_be_told() {
        let time = |text| PseudoVersion::parse(text).unwrap().time().map(|t| t.to_string());
        assert_eq!(time("v0.0.0-20240229030405-abc").unwrap(), "2024-02-29T03:04:05");
        assert_eq!(time("v0.0.0-20230229030405-abc"), None);
        assert_eq!(time("v0.0.0-99999999999999-abc"), None);
    }

    #[test]
    fn tags_are_no_pseudo_versions() {
        for tag in [
            "v1.0.0",
            "v1.0.0-rc.1",
            "v1.0.0-a-b",
            "v1.2.0-20240102030405-abcdefabcdef",
            "v1.0.0-2024010203040-abcdefabcdef",
            "v1.0.0-x20240102030405-abcdefabcdef",
            "v1.0.0-1.20240102030405-abcdefabcdef",
            "v0.0.0-20240102030405",
            "v0.0.0-20240102030405-",
            "v0.0.0-20240102030405-ab.c",
            "0.0.0-20240102030405-abcdefabcdef",
        ] {
            assert!(!is_pseudo(tag), "{tag}");
        }
        assert_eq!(PseudoVersion::parse("v1.0.1-0.20240102030405-abcdefabcdef").unwrap().revision(), "abcdefabcdef");
    }
}
