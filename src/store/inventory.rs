//! What lies in a cache folder, and what becomes of each file when room is needed. What goes first of a class is decided in
//! `eviction.rs`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::STATE_DIR;
use super::eviction::Object;
use super::ledger::Room;
use super::temporary::is_abandoned;
use crate::gomod::{ModulePath, Patterns};

/// The files of one cache folder.
#[derive(Debug)]
pub(super) struct Inventory {
    root: PathBuf,
    private: ArcSwap<Patterns>,
}

/// What one walk found.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// The objects of the class that was asked for.
    pub(super) objects: Vec<Object>,
    /// The room of what must be kept.
    pub(super) kept: Room,
    /// The room of all there is.
    pub(super) found: Room,
    pub(super) walked: Walked,
}

/// What a walk came by beside the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walked {
    /// What the folders take, in bytes: some file systems give each a block, which for small modules is more than the files have.
    pub(super) folders: u64,
    /// Nothing was left out: what can't be read now may hold much.
    pub(super) is_whole: bool,
}

impl Default for Walked {
    fn default() -> Self {
        Self { folders: 0, is_whole: true }
    }
}

impl Walked {
    fn failed(&mut self, error: &io::Error) {
        // Evicted meanwhile; or a disk's own `lost+found`, which is nobody's to read.
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) {
            self.is_whole = false;
        }
    }
}

/// What becomes of a file when room is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// They are what fills a disk, and a graph of requirements needs only the rest. What is broken is worth no more.
    Zip,
    /// Files of versions, lists, and what a checksum database said: all of it can be had again.
    Small,
    /// A zip of a private module: nobody in the world has another copy, so it goes last.
    PrivateZip,
    /// The hash of a zip goes with the zip.
    Hash,
    /// What was seen first, and the newest tree of a database, must outlive what was seen; and our own books are not cache.
    Kept,
}

impl Inventory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, private: ArcSwap::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Says which modules are private.
    pub(super) fn set_private(&self, modules: Patterns) {
        self.private.store(Arc::new(modules));
    }

    /// Every regular file but the temporary ones, as long as `visit` says to go on.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(PathBuf, &fs::Metadata) -> bool) -> Walked {
        let mut walked = Walked::default();
        let mut folders = vec![self.root.clone()];
        let tmp = self.root.join(STATE_DIR).join("tmp");
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).inspect_err(|error| walked.failed(error));
            for entry in entries.into_iter().flatten() {
                let (path, metadata) = match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) {
                    Ok(found) => found,
                    Err(error) => {
                        walked.failed(&error);
                        continue;
                    }
                };
                if metadata.is_file() {
                    if !visit(path, &metadata) {
                        return walked;
                    }
                } else if metadata.is_dir() {
                    walked.folders += taken(&metadata);
                    if path != tmp {
                        folders.push(path);
                    }
                }
            }
        }
        walked
    }

    /// The objects of a class, and how much there is beside them.
    pub(super) fn objects(&self, wanted: Class) -> Stock {
        let mut stock = Stock::default();
        stock.walked = self.walk(&mut |path, metadata| {
            let room = Room::of(metadata.len());
            stock.found = stock.found.plus(room);
            match self.class(&path) {
                Class::Kept => stock.kept = stock.kept.plus(room),
                Class::Hash if wanted == Class::Small && is_orphan(&path) => stock.objects.push(Object::new(path, metadata)),
                class if class == wanted => stock.objects.push(Object::new(path, metadata)),
                _ => {}
            }
            true
        });
        stock
    }

    fn class(&self, path: &Path) -> Class {
        match path.strip_prefix(self.root.join(STATE_DIR)) {
            Ok(state) if state.starts_with("mutable") => Class::Small,
            Ok(state) if state.starts_with("sumdb") && !state.ends_with("latest") => Class::Small,
            Ok(state) if state.starts_with("quarantine") => Class::Zip,
            Ok(_) => Class::Kept,
            Err(_) if path.extension().is_some_and(|extension| extension == "zip") => {
                if self.is_private(path) {
                    Class::PrivateZip
                } else {
                    Class::Zip
                }
            }
            Err(_) if is_hash(path) => Class::Hash,
            Err(_) => Class::Small,
        }
    }

    /// Whether a file is one of a private module.
    fn is_private(&self, path: &Path) -> bool {
        let private = self.private.load();
        let below = path.strip_prefix(&self.root).ok().filter(|_| !private.is_empty());
        let escaped = below.and_then(Path::to_str).and_then(|below| below.split_once("/@v/"));
        escaped.and_then(|(module, _)| ModulePath::from_escaped(module).ok()).is_some_and(|module| private.matches(module.as_str()))
    }

    /// Removes the folders that a file was the last in. A commit makes them again. Returns the bytes that they took.
    pub(super) fn remove_empty_folders(&self, file: &Path) -> u64 {
        let mut freed = 0;
        for folder in file.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            let taken = fs::symlink_metadata(folder).map_or(0, |folder| taken(&folder));
            // The first that is not empty ends it.
            if fs::remove_dir(folder).is_err() {
                break;
            }
            freed += taken;
        }
        freed
    }
}

/// What a folder takes, in bytes.
pub(super) fn taken(folder: &fs::Metadata) -> u64 {
    folder.blocks() * 512
}

pub(super) fn is_hash(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "ziphash")
}

/// Whether a hash outlived its zip. A new one has its zip in a moment, if its process lives.
pub(super) fn is_orphan(hash: &Path) -> bool {
    fs::metadata(hash).and_then(|metadata| metadata.modified()).is_ok_and(is_abandoned)
        && hash.with_extension("zip").try_exists().is_ok_and(|there| !there)
}
