//! One try: what is asked for beside the path, and what the status of the answer means.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_RANGE, ETAG, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use reqwest::Response;

use super::known::{State, Validator};
use super::transfer::{Transfer, here};
use super::upstream::Upstream;
use super::{Check, Class, FetchError, Fetched, Wanted};

impl Upstream {
    pub(super) async fn try_fetch(&self, wanted: &Wanted, transfer: &mut Transfer) -> Result<Fetched, FetchError> {
        if self.url.scheme() == "file" {
            return self.read_local(wanted).await;
        }
        // Held until the answer is here: it may be all that there is to answer with.
        let known = self.known.get(&wanted.path).filter(|_| may_change(wanted));
        let response = match &known {
            Some(state) => self.ask_if_changed(wanted, &state.validator, transfer).await?,
            None => self.ask_for_rest(wanted, transfer).await?,
        };
        let from = response.url().clone();
        self.take(response, known, wanted, transfer).await.map_err(|error| match error {
            FetchError::Fault(fault) => self.of(&from, fault).into(),
            error => error,
        })
    }

    async fn take(
        &self,
        response: Response,
        known: Option<Arc<State>>,
        wanted: &Wanted,
        transfer: &mut Transfer,
    ) -> Result<Fetched, FetchError> {
        // What another server says of its tags, at the end of a redirect, says nothing of this one's.
        let is_own = response.url() == &self.join(&wanted.path)?;
        let status = response.status();
        match (status, known) {
            (StatusCode::OK, _) if may_change(wanted) => {
                let validator = Validator::of(response.headers()).filter(|_| is_own);
                let fetched = self.accept(response, wanted, 0).await?;
                if let Fetched::Bytes(body) = &fetched {
                    self.known.set(&wanted.path, body, validator);
                }
                Ok(fetched)
            }
            (StatusCode::OK, _) => {
                // A weak tag says nothing about bytes.
                transfer.tag = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned();
                let skip = start_again(wanted).await?;
                self.accept(response, wanted, skip).await
            }
            (StatusCode::PARTIAL_CONTENT, _) if here(wanted) > 0 && starts_at(&response, here(wanted)) => {
                let whole = whole_length(&response, wanted);
                let end = response.content_length().map(|length| here(wanted).saturating_add(length));
                let accepted = self.accept_part(response, wanted, 0, whole).await;
                transfer.kept_its_word = end == Some(here(wanted));
                accepted
            }
            (StatusCode::NOT_MODIFIED, Some(state)) if is_own => Ok(Fetched::Bytes(state.body.clone())),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Err(FetchError::NotFound { status, text: self.error_text(response).await }),
            _ => Err(self.refused(&response).into()),
        }
    }

    /// Asks for an answer only if it would be another one than the one that is known.
    async fn ask_if_changed(&self, wanted: &Wanted, validator: &Validator, transfer: &Transfer) -> Result<Response, FetchError> {
        let response = self.follow(wanted, &validator.condition(), transfer.is_retry).await?;
        if response.status() == StatusCode::NOT_MODIFIED && response.url() != &self.join(&wanted.path)? {
            // It is redirected now, and what the other server has is not what is known here.
            self.known.forget(&wanted.path);
            return self.follow(wanted, &HeaderMap::new(), transfer.is_retry).await;
        }
        Ok(response)
    }

    /// Asks for what is not here yet; from the start, if the upstream has no such rest, or gives a part and nobody knows of how much: the
    /// part's end need not be the end.
    async fn ask_for_rest(&self, wanted: &Wanted, transfer: &mut Transfer) -> Result<Response, FetchError> {
        let response = self.follow(wanted, &transfer.range(here(wanted)), transfer.is_retry).await?;
        let is_useless = match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => true,
            StatusCode::PARTIAL_CONTENT => whole_length(&response, wanted).is_none(),
            _ => false,
        };
        if is_useless && here(wanted) > 0 {
            return self.follow(wanted, &HeaderMap::new(), transfer.is_retry).await;
        }
        Ok(response)
    }

    fn refused(&self, response: &Response) -> super::Fault {
        let status = response.status();
        let class = match status.as_u16() {
            401 | 403 => Class::Auth,
            407 => Class::ProxyAuth,
            429 => Class::RateLimited,
            500.. => Class::ServerError,
            _ => Class::ClientError,
        };
        super::Fault { retry_after: retry_after(response), ..self.fault(class, format!("answered {status}")) }
    }
}

/// Whether the answer may be another one tomorrow.
fn may_change(wanted: &Wanted) -> bool {
    matches!(wanted.check, Check::List | Check::AnyInfo)
}

/// Makes ready for a whole answer: forgets what is here, or says how much of it a client has seen the like of already.
async fn start_again(wanted: &Wanted) -> Result<u64, FetchError> {
    let Some(file) = &wanted.file else { return Ok(0) };
    let forgotten = file.restart().await.map_err(|e| FetchError::Local(e.to_string()))?;
    Ok(if forgotten { 0 } else { here(wanted) })
}

/// Seconds only: a date would need the upstream's clock.
fn retry_after(response: &Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn starts_at(response: &Response, offset: u64) -> bool {
    content_range(response).is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// The length of all that the answer is a part of, if it says so, or an earlier one did.
fn whole_length(response: &Response, wanted: &Wanted) -> Option<u64> {
    let said = || content_range(response)?.rsplit_once('/')?.1.parse().ok();
    said().or_else(|| wanted.file.as_ref()?.progress().length)
}

fn content_range(response: &Response) -> Option<&str> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()
}
