//! A client that writes its requests as they are: no path is tidied, no connection is renewed.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) async fn open(url: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()))
    }

    /// Status, content type and body, if that is a text.
    pub(crate) async fn ask(&mut self, method: &str, path: &str) -> (u16, String, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: cache.example\r\nAccept-Encoding: gzip\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let head = self.line().await;
        let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no answer to {path}")).parse().unwrap();
        let (mut kind, mut length) = (String::new(), 0);
        loop {
            let line = self.line().await;
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-type") => value.clone_into(&mut kind),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        (status, kind, String::from_utf8_lossy(&body).into_owned())
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }
}
