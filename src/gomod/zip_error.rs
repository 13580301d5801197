//! Why a zip is refused, and how much of it there may be.

use std::io;

use super::file_path::FilePathError;

/// Go's limit for a module zip, and for what it unpacks to, in bytes.
pub const MAX_ZIP_BYTES: u64 = 500 << 20;

/// Go's limit for a module's `go.mod`, and for its `LICENSE`, in bytes.
pub const MAX_GO_MOD_BYTES: u64 = 16 << 20;

/// The most that the central directory may take, in bytes: a quarter of a million files.
///
/// Go has no such limit. Without one a zip of 500 MiB that is all directory would be held in memory several times over.
pub(super) const MAX_DIRECTORY_BYTES: u64 = 32 << 20;

/// The most files and folders that are kept in mind. As for [`MAX_DIRECTORY_BYTES`], Go has no such limit.
pub(super) const MAX_NAMES: u32 = 1 << 19;

/// Why a zip is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// Truncated, corrupt, or no zip at all.
    #[error("not a complete zip: {0}")]
    Corrupt(String),
    /// The zip could not be read, which says nothing about what is in it.
    #[error("could not read the zip: {0}")]
    Io(#[from] io::Error),
    /// No zip can be that of such a version of such a module.
    #[error("{0} has no version {1}: it is not canonical, or of another major version than the path")]
    Module(String, String),
    /// Another module's files.
    #[error("entry {0:?} does not begin with the module's path and version")]
    Prefix(String),
    /// A name that the go command does not write to a disk.
    #[error("entry {0:?} has {1} in its name")]
    Path(String, FilePathError),
    /// Two entries that are one file on a disk that ignores case, or a file that is a directory too: the name of the first
    /// in its folder, and the path of the second.
    #[error("{0:?} and entry {1:?} can not both be unpacked")]
    Collision(String, String),
    /// A `go.mod` in a folder, where it would begin another module, or in other letters.
    #[error("entry {0:?} is a go.mod other than the module's own")]
    GoMod(String),
    /// A `go.mod` or a `LICENSE` larger than Go allows.
    #[error("entry {0:?} has more than {MAX_GO_MOD_BYTES} bytes")]
    FileTooLarge(String),
    /// Larger than Go allows.
    #[error("has or unpacks to more than {MAX_ZIP_BYTES} bytes")]
    TooLarge,
    /// More names than we keep in memory. The one thing that is refused and that Go accepts.
    #[error("has more than {MAX_NAMES} files and folders, or more than {MAX_DIRECTORY_BYTES} bytes of names")]
    Directory,
}
