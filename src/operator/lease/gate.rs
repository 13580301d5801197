//! The one way through which writes leave: a layer of the client, so that no write can forget to ask.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use super::Leadership;

/// Lets reads pass, and writes only while this process leads. A write that is under way when the lead is lost is given up.
#[derive(Clone)]
pub(crate) struct Gate(Leadership);

/// A write was held back.
#[derive(Debug, thiserror::Error)]
#[error("not written: this operator does not lead")]
pub(crate) struct NotLeader;

/// A client's service behind the gate.
pub(crate) struct Gated<S> {
    inner: S,
    leadership: Leadership,
}

impl Gate {
    /// Asks this before each write.
    #[must_use]
    pub(crate) fn new(leadership: Leadership) -> Self {
        Self(leadership)
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, leadership: self.0.clone() }
    }
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let answer = self.inner.call(request);
        if reads {
            return Box::pin(answer);
        }
        let leadership = self.leadership.clone();
        Box::pin(async move {
            tokio::select! {
                // First: at each step of the request the lead is looked at before the request goes on.
                biased;
                () = leadership.lost() => Err(NotLeader.into()),
                answer = answer => answer,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tower::service_fn;

    use super::super::clock;
    use super::*;

    /// What reached the inner service, and whether a request of this method was answered.
    async fn send(gate: &Gate, method: Method, sent: &Arc<AtomicU32>, hangs: bool) -> bool {
        let sent = sent.clone();
        let mut service = gate.layer(service_fn(move |_: Request<Body>| {
            let sent = sent.clone();
            async move {
                sent.fetch_add(1, Ordering::Relaxed);
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, BoxError>(Response::new(()))
            }
        }));
        let Ok(request) = Request::builder().method(method).uri("/").body(Body::empty()) else { return false };
        service.call(request).await.is_ok()
    }

    #[tokio::test]
    async fn only_a_leader_writes_and_only_while_it_leads() {
        let (word, leadership) = Leadership::new();
        let (gate, sent) = (Gate::new(leadership), Arc::new(AtomicU32::new(0)));
        assert!(send(&gate, Method::GET, &sent, false).await);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!send(&gate, method, &sent, false).await);
        }
        assert_eq!(sent.load(Ordering::Relaxed), 1);

        word.send_replace(Some(clock::now() + Duration::from_secs(3600)));
        assert!(send(&gate, Method::PATCH, &sent, false).await);
        word.send_replace(Some(clock::now() + Duration::from_millis(50)));
        assert!(!send(&gate, Method::PATCH, &sent, true).await, "an unanswered write outlived the lead");
        assert_eq!(sent.load(Ordering::Relaxed), 3);
    }
}
