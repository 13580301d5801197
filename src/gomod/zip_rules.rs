//! What a zip must be so that every go command unpacks it, and unpacks the same: `CheckZip` of `golang.org/x/mod/zip`.
//!
//! File modes are not looked at: Go's checker doesn't either, and unpacks what claims to be a link as an ordinary file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::file_path::{FilePathError, check_file_path, fold};
use super::major::{check_path_major, split_path_version};
use super::zip_error::{MAX_GO_MOD_BYTES, MAX_NAMES, MAX_ZIP_BYTES, ZipError};
use super::{ModulePath, Version};

/// Whether a module can have a version, and the version is written the one way that zips are named by.
///
/// `CanonicalVersion` and `Check` of `golang.org/x/mod/module`.
///
/// # Errors
/// [`ZipError::Module`].
pub fn check_module(module: &ModulePath, version: &Version) -> Result<(), ZipError> {
    let fits = split_path_version(module.as_str()).is_some_and(|(_, major)| check_path_major(version.as_str(), major).is_ok());
    if version.is_canonical() && fits { Ok(()) } else { Err(ZipError::Module(module.to_string(), version.to_string())) }
}

/// A name in a folder.
struct Seen {
    /// What this one is called as a folder; the root is 0.
    number: u32,
    /// The name, if folding changed it.
    kept: Option<Box<str>>,
    is_folder: bool,
}

/// Checks the entries of one zip, one after another. Keeps their names.
pub(super) struct Rules {
    prefix: String,
    /// By the folder's number and the folded name in it. A tree of names and not a set of paths, for a path of 64 KiB can
    /// have as many folders as a set would keep copies of its beginnings.
    seen: HashMap<(u32, Box<str>), Seen>,
    declared_bytes: u64,
}

impl Rules {
    pub(super) fn new(module: &ModulePath, version: &Version) -> Self {
        Self { prefix: format!("{module}@{version}/"), seen: HashMap::new(), declared_bytes: 0 }
    }

    /// Checks the next entry by its whole name and its declared size in bytes.
    ///
    /// A name that ends in a slash is a directory's, and its size is not looked at here. That of the module's own root is legal.
    pub(super) fn check(&mut self, name: &[u8], size: u64) -> Result<(), ZipError> {
        let lossy = || String::from_utf8_lossy(name).into_owned();
        let below = name.strip_prefix(self.prefix.as_bytes()).ok_or_else(|| ZipError::Prefix(lossy()))?;
        if below.is_empty() {
            return Ok(());
        }
        // Bytes that are no UTF-8 are refused for the character that stands for them.
        let below = std::str::from_utf8(below).map_err(|_| ZipError::Path(lossy(), FilePathError::Character('\u{fffd}')))?;
        let folder = below.strip_suffix('/');
        let path = folder.unwrap_or(below);
        check_file_path(path).map_err(|why| ZipError::Path(lossy(), why))?;
        self.check_collision(path, folder.is_some())?;
        if folder.is_some() { Ok(()) } else { self.check_file(path, size) }
    }

    fn check_file(&mut self, path: &str, size: u64) -> Result<(), ZipError> {
        let base = path.rsplit('/').next().unwrap_or(path);
        if base.eq_ignore_ascii_case("go.mod") && path != "go.mod" {
            return Err(ZipError::GoMod(path.to_owned()));
        }
        self.declared_bytes = self.declared_bytes.saturating_add(size);
        if self.declared_bytes > MAX_ZIP_BYTES {
            return Err(ZipError::TooLarge);
        }
        if matches!(path, "go.mod" | "LICENSE") && size > MAX_GO_MOD_BYTES {
            return Err(ZipError::FileTooLarge(path.to_owned()));
        }
        Ok(())
    }

    /// Refuses a path that some disk takes for another's, or whose folder is a file; and keeps it with all its folders.
    fn check_collision(&mut self, path: &str, is_folder: bool) -> Result<(), ZipError> {
        let mut folder = 0;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let is_folder = is_folder || names.peek().is_some();
            let number = u32::try_from(self.seen.len()).unwrap_or(MAX_NAMES) + 1;
            let folded = fold(name);
            let kept = (*folded != *name).then(|| Box::from(name));
            folder = match self.seen.entry((folder, Box::from(&*folded))) {
                Entry::Vacant(_) if number > MAX_NAMES => return Err(ZipError::Directory),
                Entry::Vacant(place) => place.insert(Seen { number, kept, is_folder }).number,
                Entry::Occupied(other) => {
                    let seen = other.get();
                    if seen.kept != kept || !(seen.is_folder && is_folder) {
                        let other_name = seen.kept.as_ref().unwrap_or(&other.key().1);
                        return Err(ZipError::Collision(other_name.to_string(), path.to_owned()));
                    }
                    seen.number
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::new(&ModulePath::new("corp.example/a").unwrap(), &Version::new("v1.0.0").unwrap())
    }

    /// Checks names below the prefix, each with its size.
    fn check(entries: &[(&str, u64)]) -> Result<(), ZipError> {
        let mut rules = rules();
        entries.iter().try_for_each(|(name, size)| rules.check(format!("corp.example/a@v1.0.0/{name}").as_bytes(), *size))
    }

    fn names(names: &[&str]) -> Result<(), ZipError> {
        check(&names.iter().map(|name| (*name, 1)).collect::<Vec<_>>())
    }

    #[test]
    fn one_file_on_a_disk_that_ignores_case_is_one_file() {
        for pair in [["a.go", "A.go"], ["d/x", "D/y"], ["ſ.go", "S.go"], ["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a/", "A/"], ["a", "a/"]]
        {
            assert!(matches!(names(&pair), Err(ZipError::Collision(..))), "{pair:?}");
        }
    }

    #[test]
    fn folders_may_be_named_any_number_of_times() {
        names(&["", "d/", "d/", "d/e/f.go", "d/e/", "d/e/g.go", ""]).unwrap();
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let deep = vec!["d"; 30_000].join("/");
        let paths = || (0..20).map(|i| format!("{i}/{deep}"));
        let entries: Vec<_> = paths().collect();
        assert!(matches!(names(&entries.iter().map(String::as_str).collect::<Vec<_>>()), Err(ZipError::Directory)));
        names(&entries.iter().take(17).map(String::as_str).collect::<Vec<_>>()).unwrap();
    }

    #[test]
    fn the_only_go_mod_is_the_modules_own() {
        for name in ["Go.mod", "GO.MOD", "d/go.mod", "d/GO.mod"] {
            assert!(matches!(names(&[name]), Err(ZipError::GoMod(_))), "{name}");
        }
        names(&["go.mod", "d/_go.mod", "go.mod.txt", "e/go.mod/"]).unwrap();
    }

    #[test]
    fn names_are_checked_below_the_prefix() {
        let mut rules = rules();
        assert!(matches!(rules.check(b"corp.example/a@v1.0.1/x", 1), Err(ZipError::Prefix(_))));
        assert!(matches!(rules.check(b"corp.example/a@v1.0.0", 1), Err(ZipError::Prefix(_))));
        assert!(matches!(rules.check(b"corp.example/a@v1.0.0/\xff", 1), Err(ZipError::Path(..))));
        for name in ["../x", "/", "//", "d//", "con.go", "a\\b", "x."] {
            assert!(matches!(names(&[name]), Err(ZipError::Path(..))), "{name}");
        }
    }

    #[test]
    fn sizes_count_together_and_folders_do_not_count() {
        let half = MAX_ZIP_BYTES / 2;
        check(&[("a", half), ("b", half), ("d/", u64::MAX)]).unwrap();
        assert!(matches!(check(&[("a", half), ("b", half), ("c", 1)]), Err(ZipError::TooLarge)));
        assert!(matches!(check(&[("a", u64::MAX), ("b", 2)]), Err(ZipError::TooLarge)));
        check(&[("go.mod", MAX_GO_MOD_BYTES), ("LICENSE", MAX_GO_MOD_BYTES), ("d/LICENSE", MAX_GO_MOD_BYTES + 1)]).unwrap();
        for name in ["go.mod", "LICENSE"] {
            assert!(matches!(check(&[(name, MAX_GO_MOD_BYTES + 1)]), Err(ZipError::FileTooLarge(_))), "{name}");
        }
    }

    #[test]
    fn a_path_and_a_version_must_agree() {
        let check = |path: &str, version: &str| {
            ModulePath::new(path).is_ok_and(|path| check_module(&path, &Version::new(version).unwrap()).is_ok())
        };
        for (path, version) in [
            ("a.example/b", "v0.1.0"),
            ("a.example/b", "v1.0.0-rc.1"),
            ("a.example/b", "v2.0.0+incompatible"),
            ("a.example/b/v2", "v2.0.1"),
            ("a.example/b/v20", "v20.0.0"),
            ("a.example/b/v", "v1.0.0"),
            ("gopkg.in/x.v2", "v2.1.0"),
            ("gopkg.in/x.v0", "v0.1.0"),
            ("gopkg.in/x.v1-unstable", "v1.1.0"),
            ("gopkg.in/x.v1", "v0.0.0-20240102030405-abcdefabcdef"),
        ] {
            assert!(check(path, version), "{path} {version}");
        }
        for (path, version) in [
            ("a.example/b", "v2.0.0"),
            ("a.example/b", "main"),
            ("a.example/b", "v1.0"),
            ("a.example/b", "v1.0.0+meta"),
            ("a.example/b/v2", "v1.0.0"),
            ("a.example/b/v2", "v20.0.0"),
            ("a.example/b/v2", "v3.0.0+incompatible"),
            ("a.example/b/v1.2", "v1.2.0"),
            ("gopkg.in/x", "v1.0.0"),
            ("gopkg.in/x.v2", "v1.0.0"),
            ("gopkg.in/x.v2", "v0.0.0-20240102030405-abcdefabcdef"),
            ("gopkg.in/x.v0-unstable", "v0.1.0"),
            ("gopkg.in/x.v-unstable", "v0.1.0"),
            ("gopkg.in/x/v2", "v2.0.0"),
        ] {
            assert!(!check(path, version), "{path} {version}");
        }
    }
}
