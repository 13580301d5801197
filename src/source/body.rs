//! The body of an answer: small ones in memory ([`super::small_body`]), zips into a growing file that others read already.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::Response;

use super::upstream::Upstream;
use super::{Check, Class, FetchError, Fetched, Wanted, fault::chain_text};
use crate::gomod::MAX_ZIP_BYTES;
use crate::store::Growing;

/// Of the words on an absence, which are remembered for a moment.
const MAX_ERROR_BYTES: usize = 4 << 10;
/// At most this many received pieces are written at once.
const PIECES: usize = 32;
impl Upstream {
    /// Takes a body. The first `skip` bytes of a zip are here already, from a transfer that broke.
    pub(super) async fn accept(&self, response: Response, wanted: &Wanted, skip: u64) -> Result<Fetched, FetchError> {
        self.accept_part(response, wanted, skip, None).await
    }

    /// The same for an answer that may be a part of what was asked for. `whole`: the length of all of it, where that was said.
    pub(super) async fn accept_part(
        &self,
        response: Response,
        wanted: &Wanted,
        skip: u64,
        whole: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        let web_page = || self.fault(Class::Verification, "answered with a web page".to_owned());
        // Servers of files call what has no extension so: lists, and what is said of the latest version or a branch.
        let is_checked = matches!(wanted.check, Check::List | Check::AnyInfo | Check::Info(_));
        let is_html = is_html(&response);
        if is_html && !is_checked {
            return Err(web_page().into());
        }
        let encoding = encoding(&response);
        match &wanted.file {
            None => {
                let body = self.small_body(response, wanted, encoding.as_deref()).await?;
                if is_html && body.trim_ascii_start().starts_with(b"<") {
                    return Err(web_page().into());
                }
                self.check_small(body, &wanted.check)
            }
            // Its length and its ranges would be those of something else.
            Some(_) if encoding.is_some() => Err(self.encoded(&encoding.unwrap_or_default()).into()),
            Some(file) => {
                self.zip_body(response, file, skip, whole).await?;
                self.check_zip(wanted).await
            }
        }
    }

    pub(super) fn encoded(&self, encoding: &str) -> super::Fault {
        self.fault(Class::Verification, format!("answered with Content-Encoding {encoding:?}, and was asked for none"))
    }

    async fn zip_body(&self, response: Response, file: &Arc<Growing>, mut skip: u64, whole: Option<u64>) -> Result<(), FetchError> {
        let here = file.progress().written;
        let too_large = || self.fault(Class::Verification, format!("answered with more than {MAX_ZIP_BYTES} bytes"));
        // A whole answer counts from zero, a partial one from where it goes on.
        let promised = response.content_length().map(|rest| if skip > 0 { rest } else { here.saturating_add(rest) });
        if promised.max(whole).is_some_and(|length| length > MAX_ZIP_BYTES) {
            return Err(too_large().into());
        }
        let other_length = || self.fault(Class::Verification, "went on with a file of another length".to_owned());
        if !file.promise(whole.or(promised)) {
            return Err(other_length().into());
        }
        let mut pieces = response.bytes_stream().ready_chunks(PIECES);
        // An upstream that never gets past the head is as good as silent.
        let mut had_begun = false;
        loop {
            let ready = match tokio::time::timeout(self.timeouts.idle, pieces.next()).await {
                Ok(Some(ready)) => ready,
                Ok(None) if file.progress().is_whole() => return Ok(()),
                // A range may be answered with a part of it, and the next try goes on there.
                Ok(None) if whole.is_some() => {
                    let fault = self.fault(Class::Connect, "broke off: answered with a part of the rest".to_owned());
                    return Err(super::Fault { had_begun: true, ..fault }.into());
                }
                Ok(None) => return Err(other_length().into()),
                Err(_) => return Err(super::Fault { had_begun, ..self.silent() }.into()),
            };
            let mut good = Vec::with_capacity(ready.len());
            let mut broken = None;
            for piece in ready {
                match piece {
                    Ok(mut piece) => {
                        self.bytes.inc_by(piece.len() as u64);
                        had_begun = true;
                        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                        skip -= skipped as u64;
                        good.push(piece.split_off(skipped));
                    }
                    Err(error) => broken = broken.or(Some(error)),
                }
            }
            let received: u64 = good.iter().map(|piece| piece.len() as u64).sum();
            let now = file.progress();
            if now.written + received > MAX_ZIP_BYTES {
                return Err(too_large().into());
            }
            // An answer without a length of its own goes on with a file that has one.
            if now.is_exceeded_by(received) {
                return Err(other_length().into());
            }
            file.append(good).await.map_err(|e| FetchError::Local(e.to_string()))?;
            if let Some(error) = broken {
                return Err(super::Fault { had_begun, ..self.broken(error) }.into());
            }
        }
    }

    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, super::Fault> {
        match tokio::time::timeout(self.timeouts.idle, response.chunk()).await {
            Ok(Ok(chunk)) => {
                self.bytes.inc_by(chunk.as_ref().map_or(0, |c| c.len() as u64));
                Ok(chunk)
            }
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn broken(&self, error: reqwest::Error) -> super::Fault {
        self.fault(Class::Connect, format!("broke off: {}", chain_text(&error.without_url())))
    }

    fn silent(&self) -> super::Fault {
        self.fault(Class::Timeout, format!("sent nothing for {:?}", self.timeouts.idle))
    }

    /// The upstream's own words on a 404, if they are words.
    pub(super) async fn error_text(&self, mut response: Response) -> Bytes {
        let text = response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).is_some_and(|t| t.starts_with("text/plain"));
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk(&mut response).await {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ERROR_BYTES {
                break;
            }
        }
        match words(&body).filter(|_| text) {
            Some(words) => Bytes::copy_from_slice(words.as_bytes()),
            None => Bytes::from(format!("not found: {} does not have it\n", self.host)),
        }
    }

    /// A `file://` upstream.
    pub(super) async fn read_local(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let root = self.url.to_file_path().map_err(|()| self.fault(Class::ClientError, "not a folder of this machine".to_owned()))?;
        let path = root.join(&wanted.path);
        let local = |e: std::io::Error| FetchError::Local(e.to_string());
        let not_found = || FetchError::NotFound { status: StatusCode::NOT_FOUND, text: Bytes::from_static(b"not found\n") };
        let opened = tokio::fs::File::open(&path).await;
        match opened {
            Ok(from) => match &wanted.file {
                Some(to) => {
                    let other_length = || self.fault(Class::Verification, "the zip's length changed while it was read".to_owned());
                    if !to.restart().await.map_err(local)? {
                        return Err(self.fault(Class::Verification, "broke off, and a client has the beginning".to_owned()).into());
                    }
                    if !to.promise(from.metadata().await.ok().map(|metadata| metadata.len())) {
                        return Err(other_length().into());
                    }
                    let mut pieces = tokio_util::io::ReaderStream::with_capacity(from, 1 << 20);
                    while let Some(piece) = pieces.next().await {
                        let piece = piece.map_err(|e| self.fault(Class::Connect, e.to_string()))?;
                        if to.progress().is_exceeded_by(piece.len() as u64) {
                            return Err(other_length().into());
                        }
                        to.append(vec![piece]).await.map_err(local)?;
                    }
                    if !to.progress().is_whole() {
                        return Err(other_length().into());
                    }
                    self.check_zip(wanted).await
                }
                None => {
                    let bytes = tokio::fs::read(&path).await.map_err(|e| self.fault(Class::Connect, e.to_string()))?;
                    self.check_small(Bytes::from(bytes), &wanted.check)
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_found()),
            Err(error) => Err(self.fault(Class::Connect, error.to_string()).into()),
        }
    }

    /// The versions that a `file://` upstream has files of, as a list: the `list` file of a folder of files may be missing.
    pub(super) async fn list_of_files(&self, wanted: &Wanted) -> Option<Bytes> {
        let folder = self.url.to_file_path().ok()?.join(&wanted.path).parent()?.to_owned();
        let versions = tokio::task::spawn_blocking(move || crate::store::versions_in(&folder)).await.ok()?;
        (!versions.is_empty()).then(|| Bytes::from(versions.join("\n") + "\n"))
    }
}

/// The beginning of a text, up to the end of a character.
fn words(text: &[u8]) -> Option<&str> {
    let length = text.len().min(MAX_ERROR_BYTES);
    let ends = if length < text.len() { length.saturating_sub(3)..=length } else { length..=length };
    ends.rev().find_map(|end| std::str::from_utf8(text.get(..end)?).ok())
}

/// Those that make other bytes of a body. What else a server calls an encoding (`utf-8`, `aws-chunked`) leaves them as they are, and a go
/// command does not look at it.
const PACKED: [&str; 7] = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"];

/// The encodings that a body has to be unpacked from.
fn encoding(response: &Response) -> Option<String> {
    let encodings = response.headers().get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let encodings = encodings.map(|names| names.to_ascii_lowercase()).collect::<Vec<_>>().join(",");
    let packed: Vec<&str> = encodings.split(',').map(str::trim).filter(|name| PACKED.contains(name)).collect();
    (!packed.is_empty()).then(|| packed.join(", "))
}

fn is_html(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|t| t.to_str().ok())
        .is_some_and(|t| t.trim_start().get(..9).is_some_and(|t| t.eq_ignore_ascii_case("text/html")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::super::Journal;
    use super::super::upstream::Shared;
    use super::*;
    use crate::config::{self, Fallback, Resolution, Timeouts};
    use crate::gomod::{ModulePath, Version};
    use crate::store::Store;
    use crate::telemetry::Metrics;

    #[test]
    fn long_words_are_cut_between_two_characters() {
        let long = "ä".repeat(MAX_ERROR_BYTES);
        let odd = format!("x{long}");
        for text in [long.as_bytes(), odd.as_bytes()] {
            let cut = words(text).unwrap();
            assert!(text.starts_with(cut.as_bytes()) && (MAX_ERROR_BYTES - 1..=MAX_ERROR_BYTES).contains(&cut.len()));
        }
        assert_eq!((words(b"not found\n"), words(b"\xff")), (Some("not found\n"), None));
        assert_eq!(words(b"cut off by the upstream \xc3"), None);
    }

    /// An upstream in a folder, and a zip that it is asked for.
    fn local(folder: &Path) -> (Upstream, Wanted) {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::open(&folder.join("cache"), None, &metrics).unwrap();
        let config = config::Upstream {
            url: url::Url::from_directory_path(folder).unwrap(),
            fallback: Fallback::OnNotFound,
            credential: None,
            redirect_hosts: Vec::new(),
            internal: true,
            ca_bundle: None,
            timeouts: Timeouts::default(),
        };
        let resolution = Resolution::System { private_addresses: true };
        let shared = Shared { resolution: &resolution, proxy: None, metrics: &metrics, journal: &Arc::new(Journal::default()) };
        let wanted = Wanted {
            path: "v1.0.0.zip".to_owned(),
            endpoint: "zip",
            is_private: false,
            is_ahead: false,
            check: Check::Zip(ModulePath::new("a.example/m").unwrap(), Version::new("v1.0.0").unwrap()),
            file: Some(Arc::new(store.growing().unwrap())),
        };
        (Upstream::new(&config, None, &shared).unwrap(), wanted)
    }

    #[tokio::test]
    async fn a_file_is_not_read_again_after_what_a_client_has_of_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("v1.0.0.zip"), vec![0; 100_000]).unwrap();
        let (upstream, wanted) = local(folder.path());
        let file = wanted.file.clone().unwrap();
        file.append(vec![Bytes::from(vec![0; 100_000])]).await.unwrap();
        assert!(file.show());
        let error = upstream.read_local(&wanted).await.unwrap_err().to_string();
        assert!(error.contains("broke off"), "{error}");
        assert_eq!(file.progress().written, 100_000);
    }

    #[tokio::test]
    async fn a_file_that_is_longer_than_it_said_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        // Such a file says that it is empty.
        std::os::unix::fs::symlink("/proc/self/status", folder.path().join("v1.0.0.zip")).unwrap();
        let (upstream, wanted) = local(folder.path());
        let error = upstream.read_local(&wanted).await.unwrap_err().to_string();
        assert!(error.contains("length changed"), "{error}");
        assert_eq!(wanted.file.unwrap().progress().written, 0);
    }
}
