//! Module paths and versions that were checked once, and Go's escaping of upper-case letters.

use std::fmt;

use super::major::split_path_version;
use super::pseudo::is_pseudo;
use super::semver::canonical_version;

/// Why a path or a version is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A raw upper-case letter, or a `!` that no lower-case letter follows.
    #[error("bad escaping: an upper-case letter is written as ! and the lower-case letter")]
    Escaping,
    /// Not a path that a module can have.
    #[error("not a module path")]
    Module,
    /// Not a name that a version can have.
    #[error("not a version")]
    Version,
    /// Not a request that a module proxy or a checksum database knows.
    #[error("not a path of a module proxy")]
    Unknown,
}

/// A module path, unescaped, as `module.CheckPath` of `golang.org/x/mod` accepts it. Ordered by its bytes,
/// as the go command sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModulePath(String);

/// A version, unescaped: a file name, not necessarily a semantic version, for branches and hashes are legal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl ModulePath {
    /// Checks an unescaped path.
    ///
    /// # Errors
    /// The go command would refuse it.
    pub fn new(path: &str) -> Result<Self, PathError> {
        let host = path.split('/').next().unwrap_or_default();
        let host_ok = host.contains('.') && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        let elements_ok = !path.starts_with('-') && path.split('/').all(is_module_element);
        let ok = host_ok && elements_ok && split_path_version(path).is_some();
        if ok { Ok(Self(path.to_owned())) } else { Err(PathError::Module) }
    }
}

impl Version {
    /// Checks an unescaped version: what `module.EscapeVersion` accepts, except for `%`.
    ///
    /// # Errors
    /// Not a file name that the go command accepts as a version.
    pub fn new(version: &str) -> Result<Self, PathError> {
        // The letters of other alphabets that a file in a module may have can't be escaped, and `!` is the escape itself.
        // Stricter than Go: a percent sign left after one decoding is a double encoding, and no tag or branch needs it.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"#$&()+,-.=@[]^_{}~ ".contains(&b);
        let ok = version.bytes().all(allowed) && is_file_element(version);
        if ok { Ok(Self(version.to_owned())) } else { Err(PathError::Version) }
    }

    /// Whether this is a canonical semantic version (`+incompatible` included): what it names never changes.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        canonical_version(&self.0).is_some_and(|canonical| canonical == self.0)
    }

    /// Whether this names a commit (`…-20060102150405-abcdefabcdef`) rather than a tag.
    #[must_use]
    pub fn is_pseudo(&self) -> bool {
        is_pseudo(&self.0)
    }
}

/// What module paths and versions have in common once they are checked.
macro_rules! escapable {
    ($name:ident) => {
        impl $name {
            /// Unescapes and checks what stands in a request.
            ///
            /// # Errors
            /// Bad escaping, or what `new` refuses.
            pub fn from_escaped(escaped: &str) -> Result<Self, PathError> {
                Self::new(&unescape(escaped)?)
            }

            /// As people write it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// As requests and disks write it.
            #[must_use]
            pub fn escaped(&self) -> String {
                escape(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

escapable!(ModulePath);
escapable!(Version);

fn escape(plain: &str) -> String {
    let mut escaped = String::with_capacity(plain.len() + 4);
    for c in plain.chars() {
        if c.is_ascii_uppercase() {
            escaped.push('!');
        }
        escaped.push(c.to_ascii_lowercase());
    }
    escaped
}

/// Turns `!x` into `X`.
///
/// # Errors
/// Non-ASCII, a raw upper-case letter, or a `!` that no lower-case letter follows.
pub fn unescape(escaped: &str) -> Result<String, PathError> {
    let mut plain = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match c {
            '!' => match chars.next() {
                Some(next) if next.is_ascii_lowercase() => plain.push(next.to_ascii_uppercase()),
                _ => return Err(PathError::Escaping),
            },
            c if c.is_ascii_uppercase() || !c.is_ascii() => return Err(PathError::Escaping),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

fn is_module_element(element: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let short = element.split('.').next().unwrap_or_default();
    // Names that end in ~1 may be another file's short name on Windows.
    let tilde = short.rsplit_once('~').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    element.bytes().all(allowed) && !element.starts_with('.') && !tilde && is_file_element(element)
}

/// Neither empty, nor dots only, nor ending in a dot, nor a device of Windows.
pub(super) fn is_file_element(element: &str) -> bool {
    let short = element.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = short.strip_prefix("com").or_else(|| short.strip_prefix("lpt"));
    let device = numbered.is_some_and(|n| matches!(n.as_bytes(), [b'1'..=b'9'])) || matches!(short.as_str(), "con" | "prn" | "aux" | "nul");
    !element.is_empty() && !element.ends_with('.') && !device
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escaping_round_trips(path in "[a-z]{1,5}\\.[a-z]{2}(/[A-Za-z][A-Za-z0-9_-]{0,8}x){0,4}") {
            if let Ok(path) = ModulePath::new(&path) {
                prop_assert!(!path.escaped().bytes().any(|b| b.is_ascii_uppercase()));
                prop_assert_eq!(ModulePath::from_escaped(&path.escaped()).unwrap(), path);
            }
        }

        #[test]
        fn nothing_that_is_accepted_leaves_its_folder(text in "[ -~]{0,24}") {
            if let Ok(path) = ModulePath::from_escaped(&text) {
                let escaped = path.escaped();
                prop_assert!(escaped.split('/').all(|e| !e.is_empty() && !e.starts_with('.')));
                prop_assert_eq!(escaped, text.clone());
            }
            if let Ok(version) = Version::from_escaped(&text) {
                prop_assert!(!version.escaped().contains(['/', '\\', '%']) && version.escaped() != "..");
            }
        }
    }

    #[test]
    fn impossible_paths_are_refused() {
        for path in [
            "",
            "nodot",
            "a.example/../b",
            "a.example//b",
            "a.example/.hid",
            "a.example/b.",
            "a.example/con",
            "A.example/b",
            "-a.example",
            "a.example/v1",
            "a.example/v02",
            "a.example/x~1",
            "a.example/é",
            "/a.example",
            "a.example/",
            ".a.example",
            "gopkg.in/yaml",
            "a.example/v1.2",
        ] {
            assert!(ModulePath::new(path).is_err(), "{path}");
        }
        for path in ["a.example", "a.example/Azure/x", "a.example/v2", "a.example/go.mod", "a.example/vx", "gopkg.in/yaml.v0"] {
            assert!(ModulePath::new(path).is_ok(), "{path}");
        }
        for escaped in ["a.example/Azure", "a.example/!", "a.example/!A", "a.example/!!a", "a.example/%41"] {
            assert!(ModulePath::from_escaped(escaped).is_err(), "{escaped}");
        }
    }

    #[test]
    fn canonical_versions_are_told_from_branches() {
        for canonical in
            ["v1.0.0", "v0.0.1-go1.21.0.linux-amd64", "v2.0.0+incompatible", "v1.2.3-RC1", "v0.0.0-20240102030405-abcdefabcdef"]
        {
            assert!(Version::new(canonical).unwrap().is_canonical(), "{canonical}");
        }
        for other in ["main", "v1", "v1.2", "v01.0.0", "v1.0.0+meta", "v1.0.0-01", "abcdef0"] {
            assert!(!Version::new(other).unwrap().is_canonical(), "{other}");
        }
        for impossible in ["", "..", "a/b", "a%20b", "a!b", "a\\b", "a:b", "x.", "nul"] {
            assert!(Version::new(impossible).is_err(), "{impossible}");
        }
    }

    #[test]
    fn pseudo_versions_are_told_from_tags() {
        for pseudo in [
            "v0.0.0-20240102030405-abcdefabcdef",
            "v1.2.4-0.20240102030405-abcdefabcdef",
            "v2.0.0-20240102030405-abcdefabcdef+incompatible",
        ] {
            assert!(Version::new(pseudo).unwrap().is_pseudo(), "{pseudo}");
        }
        for tag in ["v1.0.0", "v1.0.0-rc.1", "v1.0.0-a-b"] {
            assert!(!Version::new(tag).unwrap().is_pseudo(), "{tag}");
        }
    }
}
