//! The major version that a module path ends in, and which versions it allows.
//!
//! From v2 on a path says its major version: `example.com/m/v2`. Paths on gopkg.in always say it, with a dot:
//! `gopkg.in/yaml.v3`. The rules are `SplitPathVersion` and `CheckPathMajor` of `golang.org/x/mod/module`.

use super::semver::{INCOMPATIBLE, Semver};

/// A version that does not belong to a path's major version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {version:?} does not fit the module path, which wants {wanted}")]
pub struct MajorMismatch {
    /// The version as it was given.
    pub version: String,
    /// `v2`, or `v0 or v1`.
    pub wanted: String,
}

/// Splits a path into what is before the major version and the suffix with its separator: `/v2`, `.v3`,
/// `.v3-unstable`, or empty. `None` if the end looks like a major version but is a forbidden one, such as `/v1`, `/v02`
/// or `/v1.2`, or if a path on gopkg.in has none.
#[must_use]
pub fn split_path_version(path: &str) -> Option<(&str, &str)> {
    if path.starts_with("gopkg.in/") {
        return split_gopkg_in(path);
    }
    let head = path.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = path.strip_prefix(head)?;
    let Some(prefix) = head.strip_suffix("/v").filter(|_| !number.is_empty()) else { return Some((path, "")) };
    let allowed = !number.contains('.') && !number.starts_with('0') && number != "1";
    if allowed { path.split_at_checked(prefix.len()) } else { None }
}

fn split_gopkg_in(path: &str) -> Option<(&str, &str)> {
    let head = path.strip_suffix("-unstable").unwrap_or(path).trim_end_matches(|c: char| c.is_ascii_digit());
    let prefix = head.strip_suffix(".v")?;
    let number = path.strip_prefix(head)?;
    // `.v-unstable` passes and `.v0-unstable` does not: so it is in Go.
    let allowed = !number.is_empty() && (!number.starts_with('0') || number == "0");
    if allowed { path.split_at_checked(prefix.len()) } else { None }
}

/// Checks a version against the suffix that [`split_path_version`] found.
///
/// # Errors
/// The version's major number is another one; a string that is no semantic version has none.
pub fn check_path_major(version: &str, path_major: &str) -> Result<(), MajorMismatch> {
    let suffix = if path_major.starts_with(".v") { path_major.strip_suffix("-unstable").unwrap_or(path_major) } else { path_major };
    // Old go commands made v0.0.0 pseudo-versions for gopkg.in paths that end in .v1; go.mod files still name them.
    if suffix == ".v1" && version.starts_with("v0.0.0-") {
        return Ok(());
    }
    let parsed = Semver::parse(version);
    let major = parsed.map(|v| v.major()).unwrap_or_default();
    let (fits, wanted) = match suffix.strip_prefix(['/', '.']) {
        Some(wanted) => (major == wanted, wanted),
        None if suffix.is_empty() => {
            (matches!(major.as_str(), "v0" | "v1") || parsed.is_some_and(|v| v.build() == INCOMPATIBLE), "v0 or v1")
        }
        None => (false, suffix),
    };
    if fits { Ok(()) } else { Err(MajorMismatch { version: version.to_owned(), wanted: wanted.to_owned() }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_make_up_the_path(path in "(gopkg\\.in/)?[a-z/.v0-2]{0,8}(-unstable)?") {
            if let Some((prefix, major)) = split_path_version(&path) {
                prop_assert_eq!(format!("{prefix}{major}"), path);
            }
        }

        #[test]
        fn a_version_fits_exactly_its_own_suffix(n in 2_u32.., m in 0_u32..) {
            let fits = check_path_major(&format!("v{m}.1.0"), &format!("/v{n}")).is_ok();
            prop_assert_eq!(fits, n == m);
        }
    }

    #[test]
    fn suffixes_are_told_from_names() {
        for (path, major) in [
            ("a.example/m", ""),
            ("a.example/m/v2", "/v2"),
            ("a.example/m/v10", "/v10"),
            ("a.example/m2", ""),
            ("a.example/mv2", ""),
            ("a.example/m/v", ""),
            ("a.example/1.2", ""),
            ("gopkg.in/yaml.v3", ".v3"),
            ("gopkg.in/yaml.v0", ".v0"),
            ("gopkg.in/yaml.v3-unstable", ".v3-unstable"),
        ] {
            assert_eq!(split_path_version(path).unwrap().1, major, "{path}");
        }
        for path in ["a.example/m/v1", "a.example/m/v0", "a.example/m/v02", "a.example/m/v1.2", "gopkg.in/yaml", "gopkg.in/yaml.v03"] {
            assert_eq!(split_path_version(path), None, "{path}");
        }
    }

    #[test]
    fn a_mismatch_says_what_was_wanted() {
        for (version, major) in [
            ("v1.2.3", ""),
            ("v2.0.0+incompatible", ""),
            ("v2.0.0", "/v2"),
            ("v3.0.0-unstable", ".v3-unstable"),
            ("v0.0.0-20161208181325-20d25e280405", ".v1"),
        ] {
            assert_eq!(check_path_major(version, major), Ok(()), "{version} {major}");
        }
        let message = |version, major| check_path_major(version, major).unwrap_err().to_string();
        assert!(message("v2.0.0", "").ends_with("wants v0 or v1"));
        assert!(message("v1.0.0", "/v2").ends_with("wants v2"));
        assert!(message("main", "").contains("\"main\""));
    }
}
