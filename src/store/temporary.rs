//! Temporary files: what has no name yet. They are worth nothing when their process has gone, and no account has them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempPath;

use super::ledger::lock_shared;
use super::open::{own_file, plain_file};

/// A temporary file older than this belongs to no running download, of this process or another.
pub(super) const ABANDONED: Duration = Duration::from_secs(3600);

/// A temporary file. Group and others may read it: a volume is shared between pods of different users.
pub(super) fn new_temp(folder: &Path) -> io::Result<(File, TempPath)> {
    use std::os::unix::fs::PermissionsExt;
    let make = || tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o644)).tempfile_in(folder);
    let made = match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_again(folder).and_then(|()| make()),
        made => made,
    };
    Ok(made?.into_parts())
}

/// Makes the folders of our own that someone removed. Not the cache's: what is made in the place of a volume is not on it.
fn make_again(tmp: &Path) -> io::Result<()> {
    for folder in tmp.parent().into_iter().chain([tmp]) {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what processes that have gone left behind: all there is if no other has the volume open, else what is old. As long as
/// the file that it returns is open, others know of this process.
pub(super) fn take_over(tmp: &Path) -> Option<File> {
    let path = tmp.with_extension("lock");
    // Without it there may be processes that hold none: of an earlier version, or from before someone removed it.
    let is_new = !path.exists();
    let exclusive = own_file(&path).inspect_err(|error| tracing::debug!(%error, "can't open the lock of the temporary files")).ok();
    // A file system that knows no locks does not say that nobody else is there.
    let is_alone = exclusive.as_ref().is_some_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok());
    remove_left_over(tmp, is_alone && !is_new);
    drop(exclusive);
    // Not open for writing, for as long as the process runs: that would hold up whoever wants the volume read-only.
    plain_file(&path).inspect(lock_shared).ok()
}

/// Whether nobody waits for a file any more that was written last at this time. One that is as far ahead is from a clock that was wrong.
pub(super) fn is_abandoned(written: SystemTime) -> bool {
    SystemTime::now().duration_since(written).unwrap_or_else(|ahead| ahead.duration()) > ABANDONED
}

/// Removes what is old. Blocks.
pub(super) fn remove_abandoned(tmp: &Path) {
    remove_left_over(tmp, false);
}

fn remove_left_over(tmp: &Path, all: bool) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        if (all || entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_abandoned))
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "can't remove an abandoned temporary file");
        }
    }
}
