//! Folders: what is in them, and moving one into another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) type Digest = [u8; 32];

/// Every file below a folder, by its path from there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

pub(crate) fn bytes(folder: &Path) -> u64 {
    files(folder).iter().map(|file| folder.join(file).metadata().map_or(0, |metadata| metadata.len())).sum()
}

/// The SHA-256 of every file.
pub(crate) fn digests(folder: &Path) -> BTreeMap<PathBuf, Digest> {
    let files = files(folder);
    let digest = |file: &PathBuf| {
        let content = std::fs::read(folder.join(file)).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &content).as_ref().try_into().unwrap();
        (file.clone(), digest)
    };
    let halves = files.split_at(files.len() / 2);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| halves.0.iter().map(digest).collect::<Vec<_>>());
        let mut all: BTreeMap<_, _> = halves.1.iter().map(digest).collect();
        all.extend(first.join().unwrap());
        all
    })
}

/// Moves what another folder does not have yet into it.
pub(crate) fn merge(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        if !target.exists() {
            std::fs::rename(from.join(&file), target).unwrap();
        }
    }
    std::fs::remove_dir_all(from).unwrap();
}
