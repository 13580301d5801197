//! What downloads may take of the memory when the volume takes nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// For all downloads together: few zips are longer than some megabytes, and a full disk must not fill the memory as well.
const MAX_BYTES: u64 = 256 << 20;

/// How much is taken.
#[derive(Debug, Default)]
pub(super) struct Budget {
    taken: AtomicU64,
}

/// What one download has of it; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes more.
    pub(super) fn grow(&mut self, bytes: u64) -> io::Result<()> {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= MAX_BYTES);
        if self.budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            let text = format!("neither the volume nor the {} MiB of memory set aside for zips has room", MAX_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        self.bytes += bytes;
        Ok(())
    }

    pub(super) fn give_back(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_stay_below_the_limit_and_come_back() {
        let budget = Arc::new(Budget::default());
        let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
        one.grow(MAX_BYTES - 1).unwrap();
        assert!(other.grow(1).is_ok() && other.grow(1).is_err());
        drop(one);
        other.grow(MAX_BYTES - 1).unwrap();
        other.give_back();
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
