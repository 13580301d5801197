//! A word to all processes with this volume: something was moved into quarantine. What one of them, or the command `verify`, found
//! broken on the disk another one may have in memory, which it would answer with for ever.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{STATE_DIR, Store, new_temp};

const FILE: &str = "quarantined";

/// Says it. To be called when the object is gone from its place.
///
/// # Errors
/// The disk's.
pub(super) fn tell(root: &Path) -> io::Result<()> {
    let state = root.join(STATE_DIR);
    let tmp = state.join("tmp");
    fs::create_dir_all(&tmp)?;
    // A new file each time: the one that is there may be of a process with another user, who alone could change it.
    new_temp(&tmp)?.1.persist(state.join(FILE)).map_err(|error| error.error)
}

impl Store {
    /// What was said last. As long as it is the same, nothing was moved into quarantine. Blocks.
    #[must_use]
    pub fn quarantined(&self) -> impl PartialEq + Send + use<> {
        let said = fs::symlink_metadata(self.state_dir().join(FILE));
        said.map(|file| (file.ino(), file.mtime(), file.mtime_nsec())).ok()
    }
}
