//! What no checksum database vouches for is kept only as what was seen first of it: a version that is changed must not come to the
//! volume, neither by a process that could not write down what it saw, nor by one of two that saw something else at once.

use std::io;
use std::path::PathBuf;

use super::super::MAX_STATE;
use super::super::open::read_at_most;

/// The hash of an object that must be what was seen first of it.
#[derive(Clone, Debug)]
pub struct First {
    /// Where the hash that was seen first stands. Once it is there it never becomes another one.
    pub file: PathBuf,
    /// The object's.
    pub hash: String,
}

impl First {
    /// Whether it stands there. It was sent before the object, so it does unless it could not be written.
    ///
    /// # Errors
    /// It does not; [`io::ErrorKind::InvalidData`]: another one does.
    pub(super) fn stands(self) -> io::Result<()> {
        let there = match read_at_most(&self.file, MAX_STATE) {
            Ok(there) => String::from_utf8_lossy(there.trim_ascii()).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(io::Error::other(format!("what was seen first of it, {}, can't be read: {error}", self.file.display())));
            }
        };
        if there == self.hash {
            return Ok(());
        }
        let Self { file, hash } = self;
        Err(if there.is_empty() {
            io::Error::other(format!("what was seen first of it could not be written to {}", file.display()))
        } else {
            let text = format!("it is {hash}, and another process with this volume saw {there} first");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}
