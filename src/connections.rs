//! Connections, of clients and of the admin address: HTTP/1.1, with a time for the head of each request and for taking the
//! answer, and an end.
//!
//! There is no HTTP/2: without TLS neither go commands nor probes speak it, and it would be one more door.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt::set_tcp_user_timeout;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How much of an answer waits for one client, and how long a request's head may be.
const BUFFERED: usize = 64 << 10;
/// Go commands take a zip as fast as it comes. Who takes nothing for so long has gone, or been forgotten, and would hold for ever
/// what was evicted meanwhile.
pub(crate) const UNREAD: Duration = Duration::from_secs(300);
/// How much waits in the kernel to be sent, beside what is on its way. It would be 4 MB a connection, which the pod's memory is
/// charged with; and a client that reads one of its connections for as long as there is something would not come to the others.
const UNSENT: u32 = 256 << 10;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long a client may leave a connection waiting.
#[derive(Clone, Copy)]
pub(crate) struct Waits {
    /// For the first byte, and for the head of each request.
    pub(crate) head: Duration,
    /// For room for more of an answer, or for word that what was sent has come.
    pub(crate) unread: Duration,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An address that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}")]
pub struct ListenError {
    /// The address.
    address: SocketAddr,
    /// The cause.
    source: io::Error,
}

/// Listens. `0.0.0.0` is every address of the machine, as in Go, those of IPv6 too: a pod's own may be one.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        match of_both_families(address.port()) {
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => return Err(ListenError { address, source }),
            // The kernel may do without IPv6.
            Err(error) => tracing::debug!(%error, "listening on IPv4 alone"),
            Ok(listener) => return Ok(listener),
        }
    }
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

fn of_both_families(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the token is cancelled. `connect` makes of a connection what is written to, and what answers.
///
/// What is returned waits for the answers that are still running.
pub(crate) async fn accept<I, S, B>(
    listener: TcpListener,
    waits: Waits,
    shutdown: &CancellationToken,
    connect: impl Fn(TcpStream, SocketAddr) -> (I, S) + Send + Sync + 'static,
) -> GracefulShutdown
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Cause>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Cause>,
{
    let (graceful, connect) = (GracefulShutdown::new(), Arc::new(connect));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(waits.head).max_buf_size(BUFFERED);
    let unread = u32::try_from(waits.unread.as_millis()).unwrap_or(u32::MAX);
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let (stream, client) = match accepted {
            // Of a listener of both families an IPv4 client has an address of IPv6.
            Ok((stream, client)) => (stream, SocketAddr::new(client.ip().to_canonical(), client.port())),
            Err(error) => {
                // Out of file descriptors, most likely: a pause lets connections end.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let unsent = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        let _best_effort = (unsent, stream.set_nodelay(true), set_tcp_user_timeout(&stream, unread));
        let (watcher, connect, builder) = (graceful.watcher(), Arc::clone(&connect), builder.clone());
        tokio::spawn(async move {
            let (io, service) = connect(stream, client);
            let connection = builder.serve_connection(TokioIo::new(io), service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%client, %error, "connection ended");
            }
        });
    }
    graceful
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(10);
    /// More than the buffers of a connection hold.
    const MUCH: usize = 64 << 20;

    /// A server, and what ends it.
    async fn server(head: Duration, unread: Duration) -> (SocketAddr, CancellationToken, JoinHandle<GracefulShutdown>) {
        let (listener, shutdown) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
        let (address, token) = (listener.local_addr().unwrap(), shutdown.clone());
        let answer = async |request: Request<Incoming>| {
            let much = request.uri().path() == "/much";
            Ok::<_, Infallible>(Response::new(Full::new(if much { vec![7; MUCH].into() } else { Bytes::from_static(b"tea") })))
        };
        let waits = Waits { head, unread };
        let connect = move |stream, _| {
            assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT);
            (stream, service_fn(answer))
        };
        let running = tokio::spawn(async move { accept(listener, waits, &token, connect).await });
        (address, shutdown, running)
    }

    #[tokio::test]
    async fn every_address_is_one_of_either_family_and_clients_keep_theirs() {
        let listener = listen("0.0.0.0:0".parse().unwrap()).await.unwrap();
        let (port, token) = (listener.local_addr().unwrap().port(), CancellationToken::new());
        let answer = |client: SocketAddr| {
            service_fn(move |_: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(client.ip().to_string()))))
            })
        };
        let (waits, closed) = (Waits { head: LONG, unread: LONG }, token.clone());
        let running = tokio::spawn(async move { accept(listener, waits, &closed, move |stream, client| (stream, answer(client))).await });
        for ip in ["127.0.0.1", "::1"] {
            let heard = hears(SocketAddr::new(ip.parse().unwrap(), port), "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
            assert!(heard.ends_with(&format!("\r\n\r\n{ip}")), "{heard}");
        }
        token.cancel();
        running.await.unwrap();
    }

    /// What a client hears that says this and then waits for the end of the connection. `None`: there was none.
    async fn hears(address: SocketAddr, says: &str) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(says.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.is_ok();
        ended.then(|| String::from_utf8_lossy(&heard).into_owned())
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_closed() {
        let (address, _shutdown, _running) = server(SHORT, LONG).await;
        for says in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let heard = hears(address, says).await;
            assert!(heard.as_ref().is_some_and(|heard| !heard.contains("tea")), "{says:?}: {heard:?}");
        }
    }

    #[tokio::test]
    async fn all_requests_of_a_connection_are_answered_until_it_rests_for_too_long() {
        let (address, _shutdown, _running) = server(SHORT, LONG).await;
        let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let heard = hears(address, &request.repeat(2)).await.unwrap_or_default();
        assert_eq!((heard.matches("200 OK").count(), heard.matches("tea").count()), (2, 2), "{heard}");
    }

    #[tokio::test]
    async fn the_end_waits_for_nobody_who_has_said_nothing() {
        let (address, shutdown, running) = server(LONG, LONG).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        // It was accepted before this one.
        assert!(hears(address, "GET / HTTP/1.0\r\n\r\n").await.is_some_and(|heard| heard.ends_with("tea")));
        let _silent_too = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(PATIENCE, running.await.unwrap().shutdown()).await.unwrap();
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_left() {
        // Long enough that a busy machine does not keep who reads from reading.
        let unread = 5 * SHORT;
        let (address, shutdown, running) = server(LONG, unread).await;
        let mut takes_nothing = TcpStream::connect(address).await.unwrap();
        takes_nothing.write_all(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /much HTTP/1.0\r\n\r\n").await.unwrap();
        let (mut piece, mut taken) = (vec![0; 8 << 20], 0);
        loop {
            // Less than `unread` apart, and for longer.
            tokio::time::sleep(unread / 10).await;
            match slow.read(&mut piece).await.unwrap() {
                0 => break,
                read => taken += read,
            }
        }
        assert!(taken > MUCH, "{taken}");
        shutdown.cancel();
        tokio::time::timeout(PATIENCE, running.await.unwrap().shutdown()).await.unwrap();
    }
}
