//! Whether the volume takes nothing new. A failed write says so first, of this process or of the one before; whether it is still so
//! is asked of the volume itself, since after a full disk nobody may write for hours.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::volume::Volume;
use super::{is_exhausted, new_temp};
use crate::report::StorageTrouble;

/// Whether a write may have failed since the volume was last found to be well.
#[derive(Debug)]
pub(super) struct Trouble(AtomicBool);

impl Default for Trouble {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Trouble {
    /// Takes note of a failed write.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// What is wrong now. Asks the volume only after a failed write. Blocks.
    pub(super) fn look(&self, tmp: &Path) -> Option<StorageTrouble> {
        if !self.0.load(Ordering::Relaxed) {
            return None;
        }
        let now = trouble_of(tmp);
        self.0.store(now.is_some(), Ordering::Relaxed);
        now
    }
}

fn trouble_of(tmp: &Path) -> Option<StorageTrouble> {
    let volume = Volume::of(tmp);
    if volume.as_ref().is_some_and(|volume| volume.is_read_only()) {
        return Some(StorageTrouble::ReadOnly);
    }
    if volume.as_ref().is_some_and(|volume| volume.is_full()) {
        return Some(StorageTrouble::Full);
    }
    match new_temp(tmp) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Some(StorageTrouble::ReadOnly),
        Err(error) if is_exhausted(&error) => Some(StorageTrouble::Full),
        Err(_) => Some(StorageTrouble::Failing),
        Ok(_) => None,
    }
}
