//! Opens what lies in the folder, and nothing that it points to: a volume may be filled from elsewhere, and neither a link to a
//! mounted credential, nor a pipe that nobody writes to, nor a device is an object.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fcntl_setfl, open, openat, openat2};
use rustix::io::Errno;

/// A pipe is opened without waiting for its writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW);

/// The folder that all objects lie in.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

impl Root {
    /// # Errors
    /// It is no folder, or may not be read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path: path.to_owned(), folder })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a plain file below the folder, with its length. `None`: there is none, or it is something else, or lies behind a link.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn file(&self, path: &Path) -> io::Result<Option<(File, u64)>> {
        let Ok(below) = path.strip_prefix(&self.path) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = match openat2(self.folder.as_fd(), below, READ, Mode::empty(), resolve) {
            // An old kernel, or a sandbox that does not know the call: then only the last element is no link.
            Err(Errno::NOSYS | Errno::PERM) => openat(self.folder.as_fd(), below, READ, Mode::empty()),
            opened => opened,
        };
        plain(opened)
    }
}

/// The same for a file anywhere, of whose folders none is a link.
///
/// # Errors
/// The disk's; one that is not there among them.
pub(super) fn plain_file(path: &Path) -> io::Result<File> {
    let file = match openat(CWD, path, READ, Mode::empty()) {
        Err(Errno::NOENT) => return Err(io::ErrorKind::NotFound.into()),
        opened => plain(opened)?,
    };
    file.map(|(file, _)| file).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no plain file"))
}

/// A plain file's first bytes, one more than `most` at most: that one says that it is too long.
///
/// # Errors
/// As [`plain_file`].
pub(super) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    plain_file(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a small file of our own to be read, written or locked, and makes it if there is none, with what the umask allows. What is in
/// it stays.
///
/// # Errors
/// The disk's; something else stands in its place.
pub(super) fn own_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = plain(openat(CWD, path, flags, Mode::from_raw_mode(0o666)))?;
    file.map(|(file, _)| file).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no plain file"))
}

fn plain(opened: rustix::io::Result<OwnedFd>) -> io::Result<Option<(File, u64)>> {
    let file = match opened {
        Ok(file) => File::from(file),
        // LOOP: a link. NXIO: a socket.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(Some((file, metadata.len())))
}
