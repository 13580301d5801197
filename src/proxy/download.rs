//! Downloads under way, one an object however many ask.
//!
//! A download is a task of its own, so a client that leaves cancels nothing for others. Its answer is there when the
//! object was verified; its place in the table stays until the object is on disk, so that nobody asks an upstream twice
//! in between. A long zip is shown while it arrives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::body::in_full;
use super::kept::{FRESH, may_change};
use crate::gomod::Request;
use crate::source::FetchError;
use crate::store::Growing;

const MAX_DOWNLOADS: usize = 4_096;

/// What a download gave.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A small object.
    Small(Bytes),
    /// A small object for those who wait, and for nobody later.
    Passing(Bytes),
    /// A zip: verified if the download has ended, else as far as it may be shown.
    Zip(Arc<Growing>),
}

impl Content {
    /// The same without a verdict.
    pub(super) fn unproven(self) -> Self {
        match self {
            Self::Small(bytes) => Self::Passing(bytes),
            other => other,
        }
    }

    /// The same after its verdict: a short zip, of which nobody was shown anything before, is read once for all who wait.
    pub(super) fn proven(self) -> Self {
        match self {
            Self::Zip(growing) if growing.is_wanted() => in_full(&growing).map_or(Self::Zip(growing), Self::Passing),
            other => other,
        }
    }
}

/// When it ended, and how.
type Ended = Option<(Instant, Result<Content, FetchError>)>;

/// One download, as those see it who wait for it.
#[derive(Clone, Debug)]
pub(super) struct Download {
    /// Of which configuration.
    epoch: u64,
    ended: watch::Receiver<Ended>,
    /// For zips.
    growing: Option<Arc<Growing>>,
    /// Ends it when its place is needed. There is one more of it for each who waits.
    given_up: Arc<CancellationToken>,
}

impl Download {
    /// Waits until there is something to answer a client.
    pub(super) async fn content(self) -> Result<Content, FetchError> {
        if let Some(growing) = &self.growing {
            growing.want();
            let mut progress = growing.watch();
            loop {
                let now = *progress.borrow_and_update();
                if now.end.is_none() && growing.show() {
                    return Ok(Content::Zip(Arc::clone(growing)));
                }
                if now.end.is_some() || progress.changed().await.is_err() {
                    break;
                }
            }
        }
        self.ended().await
    }

    /// Whether it is nothing but a place: nobody waits for it, and there is so little of it that it costs little to begin anew. A zip
    /// is that as long as nobody may be shown any of it: who is shown some waits no longer, and reads.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.given_up) == 1 && self.growing.as_ref().is_none_or(|growing| growing.progress().visible() == 0)
    }

    /// Whether there is something to answer, or the reason why not.
    fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Whether it has what somebody needs who asks now: it has not failed, and it is not a list that grows old while it waits for
    /// the disk.
    fn is_good(&self, request: &Request, now: Instant) -> bool {
        self.ended.borrow().as_ref().is_none_or(|(at, ended)| {
            let is_fresh = now.saturating_duration_since(*at) < FRESH;
            ended.is_ok() && (is_fresh || !may_change(request))
        })
    }

    /// Waits until the object was verified, or given up.
    pub(super) async fn ended(mut self) -> Result<Content, FetchError> {
        let ended = self.ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        ended.map_or_else(|| Err(FetchError::Failed), |(_, ended)| ended)
    }
}

/// The downloads of one cache.
#[derive(Debug, Default)]
pub(super) struct Downloads(Mutex<HashMap<Request, Download>>);

impl Downloads {
    /// Whether an object is being fetched in this epoch: other sources may give something else. What was fetched is on disk, or
    /// about to be; until then it can be joined.
    pub(super) fn is_fetching(&self, request: &Request, epoch: u64) -> bool {
        self.lock().get(request).is_some_and(|download| download.epoch == epoch && !download.has_ended())
    }

    /// Joins a download that has not failed, or starts one. One that ended this moment is also good for what changes. The flag says
    /// that it was started here; then `run` makes the task. Everybody waits for `growing`, so it must not wait for a disk.
    pub(super) fn join_or_start(
        self: &Arc<Self>,
        request: &Request,
        epoch: u64,
        is_ahead: bool,
        growing: impl FnOnce() -> std::io::Result<Option<Arc<Growing>>>,
        run: impl FnOnce(Reporter),
    ) -> Result<(Download, bool), FetchError> {
        let now = Instant::now();
        let mut downloads = self.lock();
        if let Some(download) = downloads.get(request).filter(|download| download.epoch == epoch && download.is_good(request, now)) {
            return Ok((download.clone(), false));
        }
        if downloads.len() >= MAX_DOWNLOADS {
            // What only waits for the disk can give up its place: at worst an upstream is asked for it again.
            downloads.retain(|_, download| !download.has_ended());
        }
        if downloads.len() >= MAX_DOWNLOADS {
            // Whoever asked for these has left: an upstream that takes its time must not keep the others from being asked.
            downloads.retain(|_, download| {
                let is_idle = download.is_idle();
                if is_idle {
                    download.given_up.cancel();
                }
                !is_idle
            });
        }
        if downloads.len() >= MAX_DOWNLOADS {
            return Err(FetchError::Busy(format!("{MAX_DOWNLOADS} downloads")));
        }
        let growing = growing().map_err(|e| FetchError::Local(e.to_string()))?;
        let (sender, ended) = watch::channel(None);
        let given_up = CancellationToken::new();
        let download = Download { epoch, ended, growing: growing.clone(), given_up: Arc::new(given_up.clone()) };
        downloads.insert(request.clone(), download.clone());
        drop(downloads);
        run(Reporter { downloads: Arc::clone(self), request: request.clone(), epoch, is_ahead, ended: sender, growing, given_up });
        Ok((download, true))
    }

    /// A panic elsewhere does not make the map wrong: every change of it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<Request, Download>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's side of a download. However the task ends, nobody waits for ever and its place is free again.
pub(super) struct Reporter {
    downloads: Arc<Downloads>,
    request: Request,
    epoch: u64,
    is_ahead: bool,
    ended: watch::Sender<Ended>,
    growing: Option<Arc<Growing>>,
    given_up: CancellationToken,
}

impl Reporter {
    /// Waits until its place is needed for something that somebody waits for.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// Of which configuration it is.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether no client asked for it when it was started.
    pub(super) fn is_ahead(&self) -> bool {
        self.is_ahead
    }

    /// The file that a zip is written to.
    pub(super) fn growing(&self) -> Option<&Arc<Growing>> {
        self.growing.as_ref()
    }

    /// Tells everybody who waits.
    pub(super) fn report(&self, result: Result<Content, FetchError>) {
        let verified = result.is_ok();
        self.ended.send_replace(Some((Instant::now(), result)));
        if let Some(growing) = &self.growing {
            growing.end(verified);
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(growing) = self.growing.as_ref().filter(|growing| growing.progress().end.is_none()) {
            growing.end(false);
        }
        let mut downloads = self.downloads.lock();
        // Another configuration's, or a second try, may have taken the place.
        if downloads.get(&self.request).is_some_and(|download| download.ended.same_channel(&self.ended.subscribe())) {
            downloads.remove(&self.request);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::gomod::{ModulePath, Version};

    fn start(downloads: &Arc<Downloads>, i: usize) -> Result<(Download, Option<Reporter>), FetchError> {
        let request = Request::Mod(ModulePath::new("a.example/m").unwrap(), Version::new(&format!("v1.{i}.0")).unwrap());
        let mut reporter = None;
        let (download, _) = downloads.join_or_start(&request, 0, false, || Ok(None), |started| reporter = Some(started))?;
        Ok((download, reporter))
    }

    #[test]
    fn what_waits_for_the_disk_keeps_no_place_from_what_is_to_be_downloaded() {
        let downloads = Arc::new(Downloads::default());
        let (waiting, reporters): (Vec<_>, Vec<_>) = (0..MAX_DOWNLOADS).map(|i| start(&downloads, i).unwrap()).unzip();
        let reporters: Vec<Reporter> = reporters.into_iter().map(Option::unwrap).collect();
        assert!(matches!(start(&downloads, MAX_DOWNLOADS), Err(FetchError::Busy(_))));
        assert!(start(&downloads, 7).unwrap().1.is_none(), "one that is under way is joined");
        for reporter in &reporters[..2] {
            reporter.report(Ok(Content::Small(Bytes::new())));
        }
        assert!(start(&downloads, 0).unwrap().1.is_none(), "so is one that has ended, while there is room");
        let next = start(&downloads, MAX_DOWNLOADS).unwrap();
        assert!(next.1.is_some(), "and gives way when there is none");
        drop(reporters);
        drop(waiting);
        assert_eq!(downloads.lock().len(), 1, "places are given back by who has them");
    }

    #[test]
    fn what_nobody_waits_for_any_more_gives_way_and_ends() {
        let downloads = Arc::new(Downloads::default());
        let (waiting, reporters): (Vec<_>, Vec<_>) = (0..MAX_DOWNLOADS).map(|i| start(&downloads, i).unwrap()).unzip();
        let reporters: Vec<Reporter> = reporters.into_iter().map(Option::unwrap).collect();
        let mut waiting = waiting.into_iter();
        let (_first, second) = (waiting.next(), waiting.next());
        drop(waiting);
        assert!(start(&downloads, MAX_DOWNLOADS).is_ok());
        let is_given_up = |i: usize| reporters[i].given_up().now_or_never().is_some();
        assert_eq!((0..5).map(is_given_up).collect::<Vec<_>>(), [false, false, true, true, true]);
        drop(reporters);
        assert!(second.unwrap().ended().now_or_never().unwrap().is_err());
    }

    #[tokio::test]
    async fn a_zip_that_nobody_waits_for_gives_way_unless_some_of_it_may_be_shown() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(folder.path(), None, &Arc::new(crate::telemetry::Metrics::new().unwrap())).unwrap();
        // Each of its own would be a file each.
        let [nothing, little, shown] = [0, 50_000, 100_000].map(|length| (Arc::new(store.growing().unwrap()), length));
        for (growing, length) in [&nothing, &little, &shown] {
            growing.append(vec![Bytes::from(vec![7; *length])]).await.unwrap();
        }
        let downloads = Arc::new(Downloads::default());
        let start = |i: usize| {
            let request = Request::Zip(ModulePath::new("a.example/m").unwrap(), Version::new(&format!("v1.{i}.0")).unwrap());
            let growing = [&shown.0, &shown.0, &little.0].get(i).copied().unwrap_or(&nothing.0);
            let mut reporter = None;
            let started = downloads.join_or_start(&request, 0, false, || Ok(Some(Arc::clone(growing))), |started| reporter = Some(started));
            started.map(|(download, _)| (download, reporter.unwrap()))
        };
        let (mut waiting, reporters): (Vec<_>, Vec<_>) = (0..MAX_DOWNLOADS).map(|i| start(i).unwrap()).unzip();
        let Content::Zip(_read_by_a_client) = waiting[0].clone().content().await.unwrap() else { panic!("it is shown") };
        assert!(matches!(start(MAX_DOWNLOADS), Err(FetchError::Busy(_))), "somebody waits for each");
        let _still_waits = waiting.remove(3);
        drop(waiting);
        assert!(start(MAX_DOWNLOADS).is_ok());
        let is_given_up = |i: usize| reporters[i].given_up().now_or_never().is_some();
        assert_eq!((0..6).map(is_given_up).collect::<Vec<_>>(), [false, false, true, false, true, true]);
    }

    #[test]
    fn what_changes_is_not_joined_when_it_is_no_longer_fresh() {
        let downloads = Arc::new(Downloads::default());
        let now = Instant::now();
        for (path, is_good_later) in [("/a.example/m/@v/list", false), ("/a.example/m/@v/v1.0.0.info", true)] {
            let request = Request::parse(path).unwrap();
            let mut reporter = None;
            let (download, _) = downloads.join_or_start(&request, 0, false, || Ok(None), |started| reporter = Some(started)).unwrap();
            assert!(download.is_good(&request, now + 2 * FRESH), "one that is under way is joined");
            reporter.unwrap().report(Ok(Content::Small(Bytes::new())));
            assert!(download.is_good(&request, Instant::now()));
            assert_eq!(download.is_good(&request, now + 2 * FRESH), is_good_later, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_fetched_ahead_learns_that_a_client_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(folder.path(), None, &Arc::new(crate::telemetry::Metrics::new().unwrap())).unwrap();
        let growing = Arc::new(store.growing().unwrap());
        let (ended, receiver) = watch::channel(None);
        let download = Download { epoch: 0, ended: receiver, growing: Some(Arc::clone(&growing)), given_up: Arc::default() };
        let mut wanted = Box::pin(growing.wanted());
        assert!(download.clone().ended().now_or_never().is_none() && (&mut wanted).now_or_never().is_none());
        assert!(download.content().now_or_never().is_none());
        assert!(wanted.now_or_never().is_some());
        drop(ended);
    }

    #[tokio::test]
    async fn a_short_zip_is_read_once_for_all_who_wait() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(folder.path(), None, &Arc::new(crate::telemetry::Metrics::new().unwrap())).unwrap();
        for (length, is_wanted) in [(50_000, true), (50_000, false), (100_000, true)] {
            let growing = Arc::new(store.growing().unwrap());
            let bytes = Bytes::from(vec![7; length]);
            growing.append(vec![bytes.clone()]).await.unwrap();
            if is_wanted {
                growing.want();
            }
            match Content::Zip(growing).proven() {
                Content::Passing(read) => assert!(is_wanted && length == 50_000 && read == bytes),
                other => assert!(matches!(other, Content::Zip(_)) && !(is_wanted && length == 50_000)),
            }
        }
    }
}
