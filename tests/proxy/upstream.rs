//! An upstream that does to each request just what a test says, byte by byte, and remembers what it was asked.

use std::io::{Cursor, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// As it stands in the request.
    pub(crate) raw: String,
    /// With `!` for `%21`.
    pub(crate) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// How many requests for this path came before.
    pub(crate) before: usize,
}

impl Asked {
    /// A request for a path, with nothing else in it.
    pub(crate) fn of(path: &str) -> Self {
        Self { raw: path.to_owned(), path: path.to_owned(), headers: Vec::new(), before: 0 }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Version and extension of a request for a file of `corp.example/Tea`.
    pub(crate) fn file(&self) -> Option<(&str, &str)> {
        self.path.strip_prefix("/corp.example/!tea/@v/")?.rsplit_once('.')
    }

    pub(crate) fn is(&self, extension: &str) -> bool {
        self.file().is_some_and(|(_, found)| found == extension)
    }

    /// Where a `Range` begins.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// How an answer ends.
#[derive(Clone, Debug)]
enum End {
    Whole,
    /// After so many bytes of the body the connection is closed without a word.
    Closed(usize),
    /// After so many bytes nothing more comes.
    Silent(usize),
    /// After so many bytes there is a pause, long enough for a proxy to show them.
    Paused(usize),
    /// After so many bytes the rest waits for the gate.
    Held(usize, Gate),
    /// After so many bytes the connection waits for the gate, and is then closed without a word.
    Broken(usize, Gate),
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Zeros after the body.
    zeros: u64,
    /// What `Content-Length` says; absent: the body is chunked.
    length: Option<u64>,
    end: End,
}

impl Answer {
    /// Such as `404 Not Found`, with a body of plain text.
    pub(crate) fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = Some(body.len() as u64);
        let headers = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
        Self { status, headers, body, zeros: 0, length, end: End::Whole }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new("200 OK", body)
    }

    pub(crate) fn not_found() -> Self {
        Self::new("404 Not Found", "not found: no such version\n")
    }

    pub(crate) fn html(status: &'static str) -> Self {
        Self::new(status, "<h1>no</h1>").with("Content-Type", "text/html")
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::new("302 Found", "").with("Location", to.into())
    }

    /// What is left from a position on, as an answer to a `Range`.
    pub(crate) fn rest(body: &[u8], from: usize) -> Self {
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        Self::new("206 Partial Content", &body[from..]).with("Content-Range", range)
    }

    pub(crate) fn into_body(self) -> Vec<u8> {
        self.body
    }

    pub(crate) fn status(&self) -> &'static str {
        self.status
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Promises another length than the body has.
    pub(crate) fn promising(self, length: u64) -> Self {
        Self { length: Some(length), ..self }
    }

    pub(crate) fn chunked(self) -> Self {
        Self { length: None, ..self }
    }

    /// So many zeros follow the body. The promised length stays.
    pub(crate) fn and_zeros(self, zeros: u64) -> Self {
        Self { zeros, ..self }
    }

    pub(crate) fn closed_after(self, bytes: usize) -> Self {
        Self { end: End::Closed(bytes), ..self }
    }

    pub(crate) fn silent_after(self, bytes: usize) -> Self {
        Self { end: End::Silent(bytes), ..self }
    }

    pub(crate) fn paused_after(self, bytes: usize) -> Self {
        Self { end: End::Paused(bytes), ..self }
    }

    pub(crate) fn held_after(self, bytes: usize, gate: &Gate) -> Self {
        Self { end: End::Held(bytes, gate.clone()), ..self }
    }

    pub(crate) fn broken_after(self, bytes: usize, gate: &Gate) -> Self {
        Self { end: End::Broken(bytes, gate.clone()), ..self }
    }

    /// `false`: the connection is of no more use.
    async fn send(self, stream: &mut TcpStream) -> std::io::Result<bool> {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match self.length {
            Some(length) => format!("Content-Length: {length}\r\n\r\n"),
            None => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        };
        let (first, rest) = match &self.end {
            End::Whole => (self.body.as_slice(), [].as_slice()),
            End::Closed(after) | End::Silent(after) | End::Paused(after) | End::Held(after, _) | End::Broken(after, _) => {
                self.body.split_at(*after)
            }
        };
        if matches!(self.end, End::Silent(0)) {
            return std::future::pending().await;
        }
        stream.write_all(head.as_bytes()).await?;
        self.piece(stream, first).await?;
        match &self.end {
            End::Closed(_) => return Ok(false),
            End::Broken(_, gate) => {
                gate.passed().await;
                return Ok(false);
            }
            End::Silent(_) => return std::future::pending().await,
            End::Paused(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            End::Held(_, gate) => gate.passed().await,
            End::Whole => {}
        }
        self.piece(stream, rest).await?;
        let zeros = vec![0; 1 << 20];
        let mut left = self.zeros;
        while left > 0 {
            let now = usize::try_from(left).unwrap().min(zeros.len());
            self.piece(stream, &zeros[..now]).await?;
            left -= now as u64;
        }
        if self.length.is_none() {
            stream.write_all(b"0\r\n\r\n").await?;
        }
        // A promise that the body does not keep shows only when the connection ends.
        Ok(self.length.is_none_or(|length| length == self.body.len() as u64 + self.zeros))
    }

    async fn piece(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        if self.length.is_some() {
            return stream.write_all(bytes).await;
        }
        if !bytes.is_empty() {
            stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
            stream.write_all(bytes).await?;
            stream.write_all(b"\r\n").await?;
        }
        Ok(())
    }
}

/// What a test opens when answers may go on.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// A running upstream. It ends with its test.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Upstream {
    /// Answers as the function says.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", answer).await
    }

    /// On an address of the loopback network other than the usual one: another host.
    pub(crate) async fn start_on(address: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, seen, answer) = (listener.local_addr().unwrap(), Arc::default(), Arc::new(answer));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&record), Arc::clone(&answer));
                // Else a body waits until its head is acknowledged, which takes 40 ms.
                stream.set_nodelay(true).unwrap();
                // A client that leaves is nothing that this upstream minds.
                tokio::spawn(async move { converse(stream, &seen, &*answer).await });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Asked> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// What was asked last.
    pub(crate) fn last(&self) -> Asked {
        self.seen.lock().unwrap().last().expect("a request").clone()
    }

    /// The paths that were asked, which are remembered.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }

    /// The paths that were asked since the last call.
    pub(crate) fn take_paths(&self) -> Vec<String> {
        self.take_seen().into_iter().map(|asked| asked.path).collect()
    }
}

async fn converse(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    loop {
        let mut lines = Vec::new();
        let mut reader = BufReader::with_capacity(1, &mut stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let raw = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let path = raw.replace("%21", "!");
        let headers = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let asked = {
            let mut seen = seen.lock().unwrap();
            let before = seen.iter().filter(|asked| asked.path == path).count();
            let asked = Asked { raw, path, headers, before };
            seen.push(asked.clone());
            asked
        };
        if !answer(&asked).send(&mut stream).await? {
            return Ok(());
        }
    }
}

/// The zip of a version of `corp.example/Tea` that holds so many bytes that can't be made shorter.
pub(crate) fn zip(version: &str, bytes: usize) -> Vec<u8> {
    zip_of("corp.example/Tea", version, bytes)
}

/// The zip of a module's version, not packed.
pub(crate) fn zip_of(module: &str, version: &str, bytes: usize) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file(format!("{module}@{version}/go.mod"), options).unwrap();
    writer.write_all(format!("module {module}\n").as_bytes()).unwrap();
    writer.start_file(format!("{module}@{version}/tea.go"), options).unwrap();
    writer.write_all(b"package tea // ").unwrap();
    writer.write_all(&vec![b'x'; bytes]).unwrap();
    writer.finish().unwrap().into_inner()
}

/// As gzip packs it.
pub(crate) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// With upper-case letters for `!` and the lower-case ones.
fn unescaped(version: &str) -> String {
    let mut parts = version.split('!');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + &part[..1].to_uppercase() + &part[1..])
}

/// What every well-behaved upstream says of `corp.example/Tea`: each version exists, each file is right.
pub(crate) fn honest(asked: &Asked) -> Answer {
    match asked.file().map(|(version, kind)| (unescaped(version), kind)) {
        // In another zone, and with a field that nobody knows.
        Some((version, "info")) => {
            Answer::ok(format!(r#"{{"Version":"{version}","Time":"2024-01-01T00:00:00+02:00","Origin":{{"VCS":"tea"}}}}"#))
        }
        Some((_, "mod")) => Answer::ok("module corp.example/Tea\n"),
        Some((version, "zip")) => Answer::ok(zip(&version, 100)).with("Content-Type", "application/zip"),
        _ => Answer::not_found(),
    }
}
