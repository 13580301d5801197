//! A client's connection. What memory also holds as a file is sent by the kernel from there: a copy into the socket costs
//! more than all the rest of an answer of some 50 KB, and the client pays for it too, with cold caches.
//!
//! This changes how bytes are sent, never which: they are recognised by where they lie in memory, and the file holds the same.

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes, and a file in memory that holds the same.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    bytes: Bytes,
    file: Arc<File>,
}

impl Twin {
    /// Copies the bytes into a file.
    pub(super) fn new(bytes: Bytes) -> io::Result<Self> {
        let mut file = File::from(rustix::fs::memfd_create("object", rustix::fs::MemfdFlags::CLOEXEC)?);
        io::Write::write_all(&mut file, &bytes)?;
        Ok(Self { bytes, file: Arc::new(file) })
    }

    /// Where in the file a piece is, if it is a piece of these very bytes.
    fn offset_of(&self, piece: &[u8]) -> Option<u64> {
        let offset = piece.as_ptr().addr().checked_sub(self.bytes.as_ptr().addr())?;
        let end = offset.checked_add(piece.len())?;
        (!piece.is_empty() && end <= self.bytes.len()).then_some(offset as u64)
    }
}

/// What a connection is answering with, if that has a twin.
#[derive(Clone, Default)]
pub(super) struct Answering(Arc<Mutex<Option<Twin>>>);

impl Answering {
    /// The next answer is this one.
    pub(super) fn with(&self, twin: &Twin) {
        *self.lock() = Some(twin.clone());
    }

    /// A panic elsewhere leaves one of the two values there.
    fn lock(&self) -> MutexGuard<'_, Option<Twin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection.
pub(super) struct Connection {
    stream: TcpStream,
    answering: Answering,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, answering: Answering) -> Self {
        Self { stream, answering }
    }

    /// Sends the first of the pieces, or as much of it as there is room for.
    fn send(stream: &TcpStream, twin: &Twin, pieces: &[IoSlice<'_>]) -> io::Result<Sent> {
        let Some((first, rest)) = pieces.split_first() else { return Ok(Sent::NotOfTwin) };
        if let Some(mut offset) = twin.offset_of(first) {
            let sent = rustix::fs::sendfile(stream, &twin.file, Some(&mut offset), first.len())?;
            return Ok(if offset == twin.bytes.len() as u64 { Sent::End(sent) } else { Sent::Part(sent) });
        }
        if rest.first().and_then(|next| twin.offset_of(next)).is_none() {
            return Ok(Sent::NotOfTwin);
        }
        // The head before it: one packet with what follows.
        Ok(Sent::Part(rustix::net::send(stream, first, SendFlags::MORE | SendFlags::NOSIGNAL)?))
    }
}

/// What became of an attempt to send.
enum Sent {
    /// So many bytes.
    Part(usize),
    /// So many, and with them the last of the twin.
    End(usize),
    /// Nothing: it is another answer by now.
    NotOfTwin,
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(piece)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self { stream, answering } = self.get_mut();
        let mut answering = answering.lock();
        let Some(twin) = &*answering else { return Pin::new(stream).poll_write_vectored(context, pieces) };
        let sent = loop {
            ready!(stream.poll_write_ready(context))?;
            match stream.try_io(Interest::WRITABLE, || Self::send(stream, twin, pieces)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        if !matches!(sent, Sent::Part(_)) {
            // An idle connection must not hold what memory has forgotten.
            *answering = None;
        }
        match sent {
            Sent::Part(bytes) | Sent::End(bytes) => Poll::Ready(Ok(bytes)),
            Sent::NotOfTwin => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (Connection, Answering, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let answering = Answering::default();
        let stream = listener.accept().await.unwrap().0;
        // So that nothing long is sent in one go.
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 1).unwrap();
        (Connection::new(stream, answering.clone()), answering, client)
    }

    /// The file of a test's twin holds the complement, so that one sees which of the two was sent.
    fn twin(length: usize) -> Twin {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let twin = Twin::new(complement(&bytes).into()).unwrap();
        Twin { bytes: bytes.into(), file: twin.file }
    }

    fn complement(bytes: &[u8]) -> Vec<u8> {
        bytes.iter().map(|byte| !byte).collect()
    }

    /// As a server writes: what was not taken is offered again with what follows.
    async fn write(connection: &mut Connection, pieces: &[&[u8]]) {
        let (mut written, mut slices) = (0, pieces.iter().copied().map(IoSlice::new).collect::<Vec<_>>());
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let sent = connection.write_vectored(left).await.unwrap();
            IoSlice::advance_slices(&mut left, sent);
            written += 1;
        }
        assert!(written > pieces.len() || pieces.len() == 1, "{written} writes");
    }

    #[tokio::test]
    async fn what_has_a_twin_is_sent_from_the_file_and_all_else_as_it_is() {
        let (mut connection, answering, mut client) = connection().await;
        let twin = twin(300_000);
        answering.with(&twin);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all
        });
        let body = twin.bytes.clone();
        write(&mut connection, &[b"head", &body]).await;
        assert!(answering.lock().is_none(), "held after its end");
        write(&mut connection, &[b"tail"]).await;
        drop(connection);
        assert!(reader.await.unwrap() == [b"head", &complement(&body)[..], b"tail"].concat());
    }

    #[tokio::test]
    async fn another_answer_is_sent_as_it_is_and_lets_the_twin_go() {
        let (mut connection, answering, mut client) = connection().await;
        answering.with(&twin(50_000));
        connection.write_all(b"bbbb").await.unwrap();
        assert!(answering.lock().is_none());
        drop(connection);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "bbbb");
    }
}
