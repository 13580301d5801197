//! The checksum database, relayed to clients: they check every answer themselves, so what they may see and what the cache
//! may keep are two questions. What a proof has checked is kept for ever; the rest passes through. Only without the
//! database's key, when nothing can be proven, everything is kept that has the form of an answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::answer::{Answer, not_found};
use super::cache::Cache;
use super::labels::Outcome;
use super::memory::Hot;
use super::verify::missing;
use crate::gomod::{Request, SumdbPath};
use crate::source::{Chain, Class, FetchError};
use crate::sumdb::{self, Database, Missing};

impl Cache {
    /// Answers a request below `/sumdb/`.
    pub(super) async fn answer_sumdb(self: &Arc<Self>, request: &Arc<Request>, rest: &str) -> (Answer, Outcome) {
        let chain = self.live.chain();
        let Some((name, asked)) = chain.sumdb_name().and_then(|name| Some((name, sumdb::parse(name, rest)?))) else {
            return Answer::error(not_found("this cache does not relay that checksum database\n"));
        };
        let uncached = |bytes| Answer::fresh(bytes, Duration::ZERO, request);
        let verify = self.live.verify();
        match (&asked, verify.database()) {
            (SumdbPath::Supported, _) => (uncached(Bytes::new()), Outcome::Hit),
            (SumdbPath::Latest, _) => match chain.fetch_sumdb("latest").await {
                Ok(bytes) => (uncached(bytes), Outcome::Miss),
                Err(error) => Answer::error(error),
            },
            // A look-up would name the module to the database, and so to the world.
            (SumdbPath::Lookup(module, _), _) if verify.is_private(module) => Answer::error(FetchError::PrivateLookUp),
            (_, Some(database)) => {
                let (relayed, outcome) = relay(database, &chain, &asked).await;
                match relayed {
                    Ok((bytes, true)) => (Answer::Hot(Arc::new(Hot::immutable(bytes, request, &database.file(&asked)))), outcome),
                    Ok((bytes, false)) => (uncached(bytes), outcome),
                    Err(error) => Answer::error(error),
                }
            }
            (_, None) => self.answer_immutable(request, self.store.sumdb_dir(name).join(asked.escaped()), &|| ()).await,
        }
    }
}

async fn relay(database: &Database, chain: &Arc<Chain>, asked: &SumdbPath) -> (Result<(Bytes, bool), FetchError>, Outcome) {
    let upstream_was_asked = AtomicBool::new(false);
    // The database's own words, which tell an outage from a bad credential; whoever waits for another's question has none.
    let cause = Mutex::new(None);
    let ask = |path: String| {
        upstream_was_asked.store(true, Ordering::Relaxed);
        let (chain, cause) = (Arc::clone(chain), &cause);
        async move {
            let fetched = chain.fetch_sumdb(&path).await;
            fetched.map_err(|error| {
                let missing = missing(&error);
                *cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                missing
            })
        }
        .boxed()
    };
    let relayed = database.relay(asked, &ask).await.map_err(|error| {
        let cause = cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (error, cause) {
            (dishonest @ (Missing::Dishonest(_) | Missing::Forked(_)), _) => chain.sumdb_fault(Class::Verification, dishonest.to_string()),
            (_, Some(cause)) => cause,
            (Missing::Unknown, None) => not_found("not found: the checksum database does not know it\n"),
            (Missing::Unavailable(reason), None) => chain.sumdb_fault(Class::Connect, reason),
        }
    });
    let outcome = if upstream_was_asked.into_inner() { Outcome::Miss } else { Outcome::Hit };
    (relayed, outcome)
}
