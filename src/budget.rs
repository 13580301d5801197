//! How much memory may be taken for one purpose, by all who take of it together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much is taken, of how much.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    taken: AtomicU64,
}

/// What one has of it; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes, taken: AtomicU64::new(0) })
    }
}

impl Share {
    pub(crate) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Another one, of the same budget.
    pub(crate) fn another(&self) -> Self {
        Self::of(&self.budget)
    }

    /// Takes more, if so much is left.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.budget.bytes);
        let has = self.budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if has { bytes } else { 0 };
        has
    }

    pub(crate) fn give_back(&mut self) {
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
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_stay_below_the_limit_and_come_back() {
        let budget = Budget::new(100);
        let mut one = Share::of(&budget);
        let mut other = one.another();
        assert!(one.grow(99) && other.grow(1) && !other.grow(1));
        drop(one);
        assert!(other.grow(99) && !other.grow(1));
        other.give_back();
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
