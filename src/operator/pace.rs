//! How often what repeats itself is done.

use std::time::Duration;

/// The one setting that shortens every period, so that a test sees in seconds what takes hours. Limits are none of its business.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    longest: Option<Duration>,
}

impl Pace {
    /// No period is longer than this; `None` leaves them as they are.
    #[must_use]
    pub(crate) fn new(longest: Option<Duration>) -> Self {
        Self { longest }
    }

    /// A period, perhaps shortened.
    #[must_use]
    pub(crate) fn of(self, period: Duration) -> Duration {
        self.longest.map_or(period, |longest| period.min(longest))
    }
}
