//! From an answer to a response. Every error is `text/plain`: anything else costs the client its connection.

use bytes::Bytes;
use http::header::{AGE, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::answer::Answer;
use super::body::Body;
use super::labels::Endpoint;
use crate::source::FetchError;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ZIP: HeaderValue = HeaderValue::from_static("application/zip");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What to do where the checksum database gives no verdict.
const NO_VERDICT: &str =
    "whenUnavailable is Refuse, so it was not served; try again later, or see what is wrong with the checksum database";

/// Turns an answer into a response; the second value is the length of its body, 0 if nobody knows it yet.
pub(super) fn respond(endpoint: Endpoint, answer: Answer) -> (Response<Body>, u64) {
    match answer {
        Answer::Hot(hot) => good(endpoint, hot.body.len() as u64, Body::Full(hot.body.clone())),
        Answer::File(file) => good(endpoint, file.length, Body::file(file)),
        Answer::Growing(growing) => {
            let progress = growing.progress();
            match progress.length.or((progress.end == Some(true)).then_some(progress.written)) {
                Some(length) => good(endpoint, length, Body::growing(growing, Some(length))),
                None => (with_type(endpoint, Body::growing(growing, None)), 0),
            }
        }
        Answer::Stale(bytes, age) => {
            let (mut response, length) = good(endpoint, bytes.len() as u64, Body::Full(bytes));
            response.headers_mut().insert(AGE, HeaderValue::from(age.as_secs()));
            response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static("gomodcache; hit; detail=stale"));
            (response, length)
        }
        Answer::Error(error) => from_error(&error),
    }
}

/// An answer in a few lines of text.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> (Response<Body>, u64) {
    let bytes = text.into();
    let (mut response, length) = good(Endpoint::Other, bytes.len() as u64, Body::Full(bytes));
    *response.status_mut() = status;
    (response, length)
}

/// 405 with what is allowed.
pub(super) fn method_not_allowed() -> (Response<Body>, u64) {
    let (mut response, length) = text(StatusCode::METHOD_NOT_ALLOWED, "a module proxy answers GET and HEAD only\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    (response, length)
}

/// The same head without the body.
pub(super) fn without_body(response: Response<Body>) -> Response<Body> {
    response.map(|_| Body::Full(Bytes::new()))
}

fn from_error(error: &FetchError) -> (Response<Body>, u64) {
    match error {
        FetchError::NotFound { status, text: words } => text(*status, words.clone()),
        FetchError::Offline | FetchError::HeldBack | FetchError::NoRoom | FetchError::Busy(_) | FetchError::Local(_) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
        }
        FetchError::Private | FetchError::PrivateLookUp | FetchError::Denied(_) => text(StatusCode::FORBIDDEN, format!("{error}\n")),
        FetchError::Failed => text(StatusCode::BAD_GATEWAY, format!("{error}\n")),
        FetchError::NoVerdict { .. } => text(StatusCode::BAD_GATEWAY, format!("{error}\n{NO_VERDICT}\n")),
        FetchError::Fault(fault) => text(fault.class.status(), fault.text()),
    }
}

fn good(endpoint: Endpoint, length: u64, body: Body) -> (Response<Body>, u64) {
    let mut response = with_type(endpoint, body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    (response, length)
}

fn with_type(endpoint: Endpoint, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type(endpoint));
    response
}

fn content_type(endpoint: Endpoint) -> HeaderValue {
    match endpoint {
        Endpoint::Zip => ZIP,
        Endpoint::Info | Endpoint::Latest => JSON,
        Endpoint::List | Endpoint::Mod | Endpoint::Sumdb | Endpoint::Other => TEXT,
    }
}
