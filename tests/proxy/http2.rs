//! An upstream that speaks HTTP/2: all requests to it share one connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gomodcache::config::{Fallback, Timeouts};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{PATIENCE, Stage, config, entry, eventually};
use crate::upstream::{Asked, honest};

/// The other end of one that is frozen takes what it is sent, and nothing else ever happens on it.
type Frozen = Arc<AtomicBool>;

/// Long enough for a busy machine to answer a ping, and to be waited for twice.
const PING: Duration = Duration::from_secs(3);

#[tokio::test]
async fn requests_on_a_connection_whose_other_end_is_gone_are_answered_on_another() {
    let (server, certificate) = serve().await;
    let (relay, connections) = relay(server).await;
    let mut config = config(&[]);
    config.upstreams.push(entry(&format!("https://{relay}"), Fallback::OnNotFound));
    config.upstreams[0].ca_bundle = Some(certificate);
    config.upstreams[0].timeouts = Timeouts { connect: PING, head: PATIENCE, idle: PATIENCE };
    let stage = Stage::start(&config).await;
    eventually("an answer on the first connection", async || stage.tea("v1.0.0.mod").await.status == 200).await;
    connections.lock().unwrap().iter().for_each(|frozen| frozen.store(true, Ordering::Relaxed));
    // Each on its own would be enough to keep others from being asked.
    let asked = (1..=6).map(async |i| stage.tea(&format!("v1.{i}.0.mod")).await);
    for got in futures::future::join_all(asked).await {
        assert_eq!(got.status, 200, "{got:?}");
    }
    assert!(connections.lock().unwrap().len() >= 2);
    assert_eq!(stage.metric("gomodcache_upstream_requests_total", &["class=\"breaker\""]).await, 0.0);
}

/// Its address and certificate.
async fn serve() -> (SocketAddr, String) {
    let (acceptor, certificate) = crate::tls::acceptor(&["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(async |request: hyper::Request<Incoming>| {
                    let body = honest(&Asked::of(request.uri().path())).into_body();
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(Bytes::from(body))))
                });
                // It ends when the client has gone.
                drop(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, certificate)
}

/// The address of what passes connections on, and all of them.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Frozen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections: Arc<Mutex<Vec<Frozen>>> = Arc::default();
    let all = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (near, far) = (near.into_split(), TcpStream::connect(to).await.unwrap().into_split());
            let frozen = Frozen::default();
            all.lock().unwrap().push(Arc::clone(&frozen));
            tokio::spawn(pass(near.0, far.1, Arc::clone(&frozen)));
            tokio::spawn(pass(far.0, near.1, frozen));
        }
    });
    (address, connections)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, frozen: Frozen) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !frozen.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
