//! From an answer to bytes on the wire. Every error is `text/plain`: anything else costs the client its connection.

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{AGE, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio_util::io::ReaderStream;

use super::cache::Answer;
use crate::gomod::Request;
use crate::source::FetchError;

/// A body: in memory, or streamed from a file.
pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// Larger files are streamed in pieces of this size.
const PIECE: usize = 128 << 10;
const TEXT: &str = "text/plain; charset=utf-8";
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Turns an answer into a response; the second value is the length of its body.
pub(super) async fn respond(request: &Request, answer: Answer) -> (Response<Body>, u64) {
    match answer {
        Answer::Bytes(bytes) => with_type(request, bytes),
        Answer::Error(error) => from_error(&error),
        Answer::File(path) => from_file(request, &path).await,
        Answer::Stale(path, age) => {
            let (mut response, length) = from_file(request, &path).await;
            response.headers_mut().insert(AGE, HeaderValue::from(age.as_secs()));
            response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static("gomodcache; hit; detail=stale"));
            (response, length)
        }
    }
}

/// An answer in a few lines of text.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> (Response<Body>, u64) {
    let bytes = text.into();
    let length = bytes.len() as u64;
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
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
    response.map(|_| full(Bytes::new()))
}

fn from_error(error: &FetchError) -> (Response<Body>, u64) {
    match error {
        FetchError::NotFound { status, text: words } => text(*status, words.clone()),
        FetchError::Offline => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        FetchError::Fault(fault) => text(fault.class.status(), fault.text()),
        FetchError::Local(_) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn from_file(request: &Request, path: &std::path::Path) -> (Response<Body>, u64) {
    let opened = async {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        if length <= PIECE as u64 {
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
            tokio::io::AsyncReadExt::read_to_end(&mut file, &mut bytes).await?;
            return Ok::<_, std::io::Error>(with_type(request, Bytes::from(bytes)));
        }
        let stream = ReaderStream::with_capacity(file, PIECE).map_ok(Frame::data);
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
        response.headers_mut().insert(CONTENT_TYPE, content_type(request));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        Ok((response, length))
    };
    match opened.await {
        Ok(answer) => answer,
        Err(error) => from_error(&FetchError::Local(error.to_string())),
    }
}

fn with_type(request: &Request, bytes: Bytes) -> (Response<Body>, u64) {
    let (mut response, length) = text(StatusCode::OK, bytes);
    response.headers_mut().insert(CONTENT_TYPE, content_type(request));
    (response, length)
}

fn content_type(request: &Request) -> HeaderValue {
    HeaderValue::from_static(match request {
        Request::Zip(..) => "application/zip",
        Request::Info(..) | Request::Latest(_) => "application/json",
        Request::List(_) | Request::Mod(..) | Request::Sumdb(_) => TEXT,
    })
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
