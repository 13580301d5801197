//! Whether this process leads, for everyone who wants to write.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;

use super::clock;

/// The elector's word, read against the clock each time that it is asked: a process that slept past its lease finds out
/// before it does anything else.
#[derive(Clone, Debug)]
pub(crate) struct Leadership(watch::Receiver<Option<Duration>>);

/// Its other end: until when this process leads, by [`clock::now`].
pub(crate) type Word = watch::Sender<Option<Duration>>;

impl Leadership {
    /// Nobody leads yet.
    #[must_use]
    pub(crate) fn new() -> (Word, Self) {
        let (word, heard) = watch::channel(None);
        (word, Self(heard))
    }

    /// Whether this process leads now.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| clock::now() < until)
    }

    /// Waits until this process leads; for ever if its elector has ended.
    pub(crate) async fn acquired(&self) {
        let mut heard = self.0.clone();
        while !self.holds() {
            if heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this process no longer leads. It looks at the clock whenever it is polled, since a timer may be late.
    pub(crate) async fn lost(&self) {
        let mut expired = pin!(self.expired());
        poll_fn(|context| if self.holds() { expired.as_mut().poll(context) } else { std::task::Poll::Ready(()) }).await;
    }

    async fn expired(&self) {
        let mut heard = self.0.clone();
        loop {
            let until = heard.borrow_and_update().unwrap_or_default();
            let Some(left) = until.checked_sub(clock::now()).filter(|left| !left.is_zero()) else { return };
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = heard.changed() => if changed.is_err() { tokio::time::sleep(left).await },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_believed_ends_by_the_clock_and_by_word() {
        let (word, leadership) = Leadership::new();
        assert!(!leadership.holds());
        leadership.lost().await;
        word.send_replace(Some(clock::now() + Duration::from_millis(50)));
        leadership.acquired().await;
        assert!(leadership.holds());
        leadership.lost().await;
        assert!(!leadership.holds());

        word.send_replace(Some(clock::now() + Duration::from_secs(3600)));
        let (other, waiting) = (leadership.clone(), leadership.clone());
        let waiting = tokio::spawn(async move { waiting.lost().await });
        tokio::task::yield_now().await;
        assert!(other.holds() && !waiting.is_finished());
        word.send_replace(None);
        assert!(waiting.await.is_ok());
    }
}
