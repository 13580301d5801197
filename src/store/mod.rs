//! Objects on disk. The layout is that of `GOMODCACHE/cache/download`, so the folder is also a `file://` GOPROXY; one
//! more folder, `.gomodcache/`, holds what Go has no place for. Every object appears whole, by rename, after a sync.
//! Two processes may have the same folder open: nothing here needs exclusivity.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::TempPath;

use crate::gomod::{ModulePath, Request, Version};

/// A temporary file older than this belongs to no running download, of this process or another.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A cache folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens a folder, creates what is missing and removes temporary files that were abandoned.
    ///
    /// # Errors
    /// The folder can't be created or written.
    pub fn open(root: &Path) -> io::Result<Self> {
        let store = Self { root: root.to_owned() };
        fs::create_dir_all(store.tmp_dir())?;
        for entry in fs::read_dir(store.tmp_dir())?.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| SystemTime::now().duration_since(t).ok());
            if age.is_some_and(|age| age > ABANDONED)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(%error, "can't remove an abandoned temporary file");
            }
        }
        Ok(store)
    }

    /// The folder for our own state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.root.join(".gomodcache")
    }

    /// Where an object of a module lies. Mutable ones are kept apart: in Go's own layout a file `list` names only the
    /// versions that happen to be cached.
    #[must_use]
    pub fn path(&self, request: &Request) -> PathBuf {
        let base = if request.is_immutable() { self.root.clone() } else { self.state_dir().join("mutable") };
        base.join(request.escaped())
    }

    /// Where an answer of a checksum database lies.
    #[must_use]
    pub fn sumdb_path(&self, name: &str, escaped: &str) -> PathBuf {
        self.state_dir().join("sumdb").join(name).join(escaped)
    }

    /// A new temporary file on the same file system as the objects. Dropping the path removes it.
    ///
    /// # Errors
    /// Disk full, read-only, and the like.
    pub fn temp_file(&self) -> io::Result<(fs::File, TempPath)> {
        let file = tempfile::Builder::new().permissions(readable()).tempfile_in(self.tmp_dir())?;
        Ok(file.into_parts())
    }

    /// Makes a finished temporary file visible under its name.
    ///
    /// # Errors
    /// The file could not be synced or renamed; nothing is visible then.
    pub fn commit_file(&self, temp: TempPath, to: &Path) -> io::Result<()> {
        let parent = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent)?;
        fs::File::open(&temp)?.sync_all()?;
        temp.persist(to).map_err(|e| e.error)?;
        fs::File::open(parent)?.sync_all()
    }

    /// Writes a small object.
    ///
    /// # Errors
    /// As [`Store::commit_file`].
    pub fn commit_bytes(&self, bytes: &Bytes, to: &Path) -> io::Result<()> {
        let (mut file, temp) = self.temp_file()?;
        io::Write::write_all(&mut file, bytes)?;
        drop(file);
        self.commit_file(temp, to)
    }

    /// Makes a verified zip visible, its hash before it: a visible zip always has its `.ziphash`.
    ///
    /// # Errors
    /// As [`Store::commit_file`].
    pub fn commit_zip(&self, temp: TempPath, h1: &str, to: &Path) -> io::Result<()> {
        self.commit_bytes(&Bytes::from(h1.to_owned()), &to.with_extension("ziphash"))?;
        self.commit_file(temp, to)
    }

    /// The tagged versions of a module whose `.info` is here, for a list without an upstream.
    #[must_use]
    pub fn cached_versions(&self, module: &ModulePath) -> Vec<String> {
        versions_in(&self.root.join(module.escaped()).join("@v"))
    }

    fn tmp_dir(&self) -> PathBuf {
        self.state_dir().join("tmp")
    }
}

/// The tagged versions that have an `.info` file in a folder `@v`, sorted by name.
#[must_use]
pub fn versions_in(folder: &Path) -> Vec<String> {
    let mut versions: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = Version::from_escaped(name.to_str()?.strip_suffix(".info")?).ok()?;
            (version.is_canonical() && !version.is_pseudo()).then(|| version.as_str().to_owned())
        })
        .collect();
    versions.sort();
    versions
}

/// Group and others may read: a volume is shared between pods of different users.
fn readable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o644)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn info(version: &str) -> Request {
        Request::Info(ModulePath::new("corp.example/A").unwrap(), Version::new(version).unwrap())
    }

    #[test]
    fn immutable_and_mutable_objects_are_kept_apart() {
        let store = Store { root: "/c".into() };
        assert_eq!(store.path(&info("v1.0.0")), Path::new("/c/corp.example/!a/@v/v1.0.0.info"));
        assert_eq!(store.path(&info("main")), Path::new("/c/.gomodcache/mutable/corp.example/!a/@v/main.info"));
        let list = Request::List(ModulePath::new("corp.example/A").unwrap());
        assert_eq!(store.path(&list), Path::new("/c/.gomodcache/mutable/corp.example/!a/@v/list"));
    }

    #[test]
    fn only_tags_are_listed_from_what_is_cached() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for version in ["v1.1.0", "v1.0.0", "v0.0.0-20240102030405-abcdefabcdef"] {
            store.commit_bytes(&Bytes::from_static(b"{}"), &store.path(&info(version))).unwrap();
        }
        assert_eq!(store.cached_versions(&ModulePath::new("corp.example/A").unwrap()), ["v1.0.0", "v1.1.0"]);
    }

    #[test]
    fn a_temporary_file_that_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        drop(store.temp_file().unwrap());
        assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
    }

    #[test]
    fn only_an_old_temporary_file_is_removed_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (young, old) = (store.tmp_dir().join("young"), store.tmp_dir().join("old"));
        fs::write(&young, "x").unwrap();
        let file = fs::File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - ABANDONED - Duration::from_secs(60)).unwrap();
        Store::open(dir.path()).unwrap();
        assert!(young.exists() && !old.exists());
    }
}
