//! Bodies: bytes in memory, a file, or a file that still grows. Memory stays flat however large the file and however slow
//! the reader: a body holds one buffer, and the next is read when the connection asks for it.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::store::{Fate, Growing, Large, Progress};

/// Files are read in pieces of this size: longer ones are sent no faster, and every slow client holds one.
const PIECE: usize = 64 << 10;
/// At most this many unused buffers are kept.
const MAX_SPARE: usize = 128;

/// The body of an answer.
pub(super) enum Body {
    /// In memory.
    Full(Bytes),
    /// A file that is complete.
    File(FileBody),
    /// A file that is being downloaded.
    Growing(Box<GrowingBody>),
}

/// The rest of a file.
pub(super) struct FileBody {
    file: Arc<File>,
    offset: u64,
    end: u64,
    pending: Option<JoinHandle<io::Result<Bytes>>>,
    /// Of an object; a download under way has its own.
    fate: Option<Fate>,
}

/// What is left of a download, as far as it may be shown.
pub(super) struct GrowingBody {
    growing: Arc<Growing>,
    length: Option<u64>,
    /// What may be shown is read as a file whose end moves.
    file: FileBody,
    progress: Option<watch::Receiver<Progress>>,
    change: Option<Pin<Box<dyn Future<Output = watch::Receiver<Progress>> + Send>>>,
}

impl Body {
    pub(super) fn file(Large { file, length, fate }: Large) -> Self {
        Self::File(FileBody { file: Arc::new(file), offset: 0, end: length, pending: None, fate: Some(fate) })
    }

    pub(super) fn growing(growing: Arc<Growing>, length: Option<u64>) -> Self {
        let file = FileBody { file: growing.file(), offset: 0, end: 0, pending: None, fate: None };
        let progress = Some(growing.watch());
        Self::Growing(Box::new(GrowingBody { growing, length, file, progress, change: None }))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => None,
            Self::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Self::File(file) => ready!(file.poll_piece(context)),
            Self::Growing(growing) => ready!(growing.poll_piece(context)),
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::File(file) => file.offset == file.end,
            Self::Growing(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::File(file) => SizeHint::with_exact(file.end - file.offset),
            Self::Growing(growing) => growing.length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl FileBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let length = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX).min(PIECE);
        if length == 0 {
            return Poll::Ready(None);
        }
        let read = match &mut self.pending {
            Some(pending) => {
                let read = ready!(Pin::new(pending).poll(context));
                self.pending = None;
                read.unwrap_or_else(|e| Err(io::Error::other(e)))
            }
            None => match read_cached(&self.file, self.offset, length) {
                Some(read) => read,
                None => {
                    let (file, offset) = (Arc::clone(&self.file), self.offset);
                    self.pending = Some(tokio::task::spawn_blocking(move || read_waiting(&file, offset, length)));
                    return self.poll_piece(context);
                }
            },
        };
        if let (Err(error), Some(fate)) = (&read, &self.fate) {
            fate.broke_off(error);
        }
        Poll::Ready(Some(read.inspect(|bytes| self.offset += bytes.len() as u64)))
    }
}

impl GrowingBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let progress = self.growing.progress();
            if self.file.pending.is_none() {
                // A download moves when its volume is full; what was read stays where it was.
                self.file.file = self.growing.file();
                self.file.end = progress.visible().max(self.file.offset);
            }
            if self.file.offset < self.file.end {
                return self.file.poll_piece(context);
            }
            match progress.end {
                Some(true) => return Poll::Ready(None),
                // The framing breaks, so the client sees a failure and not a short zip.
                Some(false) => return Poll::Ready(Some(Err(io::Error::other("the download failed or was not what was asked for")))),
                None => {}
            }
            if self.change.is_none() {
                let Some(mut receiver) = self.progress.take() else { return Poll::Ready(None) };
                // A change between the look above and this is not lost: the receiver has not seen it yet.
                self.change = Some(Box::pin(async move {
                    // The sender lives as long as this body's `growing`.
                    let _sender_lives = receiver.changed().await;
                    receiver
                }));
            }
            if let Some(change) = &mut self.change {
                self.progress = Some(ready!(change.as_mut().poll(context)));
                self.change = None;
            }
        }
    }
}

/// All of a zip that is not longer than a piece, if it has arrived and the page cache has it.
pub(super) fn in_full(growing: &Growing) -> Option<Bytes> {
    let length = usize::try_from(growing.progress().written).ok().filter(|length| *length <= PIECE)?;
    let read = read_cached(&growing.file(), 0, length)?.ok()?;
    // A buffer goes back to the others.
    (read.len() == length).then(|| Bytes::copy_from_slice(&read))
}

/// Reads what the page cache has without waiting for a disk; `None`: not now, or not on this file system.
fn read_cached(file: &File, offset: u64, length: usize) -> Option<io::Result<Bytes>> {
    let mut buffer = Buffer::take();
    let into = buffer.0.get_mut(..length)?;
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT) {
        Ok(0) => Some(Err(cut_short())),
        Ok(read) => Some(Ok(Bytes::from_owner(Filled { buffer, length: read }))),
        Err(_) => None,
    }
}

fn read_waiting(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::take();
    match file.read_at(buffer.0.get_mut(..length).unwrap_or_default(), offset)? {
        0 => Err(cut_short()),
        read => Ok(Bytes::from_owner(Filled { buffer, length: read })),
    }
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a cached file is shorter than it was")
}

/// A buffer that goes back to the spare ones: a fresh one costs more than what is read into it.
struct Buffer(Vec<u8>);

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

impl Buffer {
    fn take() -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(spare.unwrap_or_else(|| vec![0; PIECE]))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MAX_SPARE {
            spare.push(std::mem::take(&mut self.0));
        }
    }
}

struct Filled {
    buffer: Buffer,
    length: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.0.get(..self.length).unwrap_or_default()
    }
}
