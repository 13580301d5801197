//! What the file system below the cache says of itself.

use std::path::Path;

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

/// With less than one part in so many free, a small file that still fits proves nothing. It is less than what the cache's limit
/// leaves free.
const SPARE: u64 = 50;

pub(super) struct Volume(StatVfs);

impl Volume {
    /// `None`: it does not answer. Blocks.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        statvfs(folder).ok().map(Self)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.0.f_flag.contains(StatVfsMountFlags::RDONLY)
    }

    /// The bytes that are not set aside for the superuser; nothing if it does not say.
    pub(super) fn size(&self) -> Option<u64> {
        let Self(volume) = self;
        let set_aside = volume.f_bfree.saturating_sub(volume.f_bavail);
        Some(volume.f_blocks.saturating_sub(set_aside).saturating_mul(volume.f_frsize)).filter(|size| *size > 0)
    }

    /// How many files it may have, and how many more. Where that is nothing, it does not say.
    pub(super) fn files(&self) -> (u64, u64) {
        (self.0.f_files, self.0.f_favail)
    }

    /// Whether next to no bytes are left.
    pub(super) fn is_full(&self) -> bool {
        self.0.f_bavail < self.0.f_blocks / SPARE
    }
}
