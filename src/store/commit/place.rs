//! Giving a file its name, and alone.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::super::ledger;
use super::super::open::own_file;

/// How often a folder is made anew that another process removes.
const TRIES: u32 = 8;
const LOCK: &str = "replace.lock";

/// A lock that only one process with this volume has. It goes with the file.
pub(super) fn exclusive(tmp: &Path) -> io::Result<File> {
    let file = own_file(&tmp.with_file_name(LOCK)).map_err(|error| {
        // Whoever sent it may not wait for the result.
        tracing::warn!(%error, "can't open .gomodcache/{LOCK}, so what is seen first is not noted: look at what stands there");
        error
    })?;
    ledger::lock(&file);
    Ok(file)
}

/// Gives a file its name. A folder that is missed is made: it is new, or another process evicted the last file in it, which it
/// may do again at any time.
pub(super) fn place(temp: &Path, to: &Path, folder: &Path) -> io::Result<()> {
    let mut placed = fs::rename(temp, to);
    for _ in 0..TRIES {
        if !placed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        placed = fs::create_dir_all(folder).and_then(|()| fs::rename(temp, to));
    }
    placed
}
