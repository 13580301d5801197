//! One upstream: a request, its redirects, its body and the verdict on it.

use std::error::Error as _;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use reqwest::{Client, Response};
use url::{Host, Url};

use super::resolve::{ResolveError, Resolver};
use super::{Check, Class, Fault, FetchError, Fetched, Timeouts, Wanted};
use crate::config::{self, Credential, CredentialSecret, Fallback, Resolution};
use crate::gomod::{MAX_ZIP_BYTES, hash_zip};
use crate::telemetry::Metrics;

const MAX_REDIRECTS: usize = 10;
const ATTEMPTS: u32 = 3;
/// Go's limit for a go.mod; a list or an `.info` is far smaller.
const MAX_SMALL_BYTES: u64 = 16 << 20;
const MAX_ERROR_BYTES: u64 = 16 << 10;

/// One upstream, ready to be asked.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) url: Url,
    pub(super) fallback: Fallback,
    pub(super) internal: bool,
    host: String,
    redirect_hosts: Vec<String>,
    /// The name of the credential, and the credential if there is one of that name.
    credential: Option<(String, Option<Credential>)>,
    client: Client,
    resolver: Resolver,
    timeouts: Timeouts,
    metrics: Arc<Metrics>,
}

impl Upstream {
    pub(super) fn new(
        config: &config::Upstream,
        credential: Option<&Credential>,
        resolution: &Resolution,
        timeouts: Timeouts,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, String> {
        let host = config.url.host_str().unwrap_or("localhost").to_ascii_lowercase();
        if config.url.scheme() == "http" && !config.internal {
            return Err(format!("{}: plain http needs internal: true", config.url));
        }
        let resolver = Resolver::new(resolution, config.internal);
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeouts.connect)
            .user_agent(concat!("gomodcache/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(resolver.clone()));
        if let Some(pem) = &config.ca_bundle {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|e| format!("{host}: caBundle: {e}"))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client =
            builder.build().map_err(|e| format!("{host}: can't make a TLS client (are CA certificates installed?): {}", chain_text(&e)))?;
        let credential = config.credential.clone().map(|name| (name, credential.cloned()));
        Ok(Self {
            url: config.url.clone(),
            fallback: config.fallback,
            internal: config.internal,
            host,
            redirect_hosts: config.redirect_hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            credential,
            client,
            resolver,
            timeouts,
            metrics: Arc::clone(metrics),
        })
    }

    /// Asks for one object, a few times if that may help, and counts every try.
    pub(super) async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let mut attempt = 1;
        loop {
            self.metrics.upstream_endpoint_requests.with_label_values(&[wanted.endpoint]).inc();
            let result = self.try_fetch(wanted).await;
            let class = match &result {
                Ok(_) => "ok",
                Err(FetchError::NotFound { .. }) => "not_found",
                Err(FetchError::Fault(fault)) => fault.class.as_str(),
                Err(FetchError::Offline | FetchError::Local(_)) => return result,
            };
            self.metrics.upstream_requests.with_label_values(&[&self.host, class]).inc();
            match &result {
                Err(FetchError::Fault(fault)) if fault.class.is_transient() && attempt < ATTEMPTS => {
                    let jitter = rand::random_range(0..100);
                    tokio::time::sleep(Duration::from_millis(u64::from(100 * attempt) + jitter)).await;
                    attempt += 1;
                }
                _ => return result,
            }
        }
    }

    async fn try_fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        if self.url.scheme() == "file" {
            return self.read_local(wanted).await;
        }
        let response = self.follow(&wanted.path).await?;
        let status = response.status();
        match status {
            StatusCode::OK => self.accept(response, wanted).await,
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound { status, text: self.error_text(response).await }),
            _ => {
                let class = match status.as_u16() {
                    401 | 403 | 407 => Class::Auth,
                    429 => Class::RateLimited,
                    500.. => Class::ServerError,
                    _ => Class::ClientError,
                };
                Err(self.fault(class, format!("answered {status}")).into())
            }
        }
    }

    /// Sends the request and follows redirects, each hop only where the configuration allows.
    async fn follow(&self, path: &str) -> Result<Response, Fault> {
        let mut url = self.join(path)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(url.clone()).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).and_then(|l| url.join(l).ok());
            let Some(next) = next else {
                return Err(self.fault(Class::ClientError, "redirected without a usable Location".to_owned()));
            };
            let host = next.host_str().unwrap_or_default().to_ascii_lowercase();
            if host != self.host && !self.redirect_hosts.contains(&host) {
                let reason = format!("redirected to {host}, which is not declared: add it to the upstream's redirect hosts");
                return Err(self.fault(Class::ClientError, reason));
            }
            let downgrade = url.scheme() == "https" && next.scheme() != "https";
            if downgrade || !matches!(next.scheme(), "http" | "https") || (next.scheme() == "http" && !self.internal) {
                return Err(self.fault(Class::ClientError, format!("redirected to {host} without TLS")));
            }
            url = next;
        }
        Err(self.fault(Class::ClientError, format!("redirected more than {MAX_REDIRECTS} times")))
    }

    async fn send(&self, url: Url) -> Result<Response, Fault> {
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = literal {
            let own = url.host() == self.url.host();
            self.resolver.check_literal(address, own).map_err(|e| self.fault(Class::Dns, e.to_string()))?;
        }
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(value) = self.authorization(&url)? {
            request = request.header(AUTHORIZATION, value);
        }
        match tokio::time::timeout(self.timeouts.head, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.transport_fault(&error)),
            Err(_) => Err(self.fault(Class::Timeout, format!("no answer within {} s", self.timeouts.head.as_secs()))),
        }
    }

    /// The credential, for the upstream's own host over TLS and for no other: a redirect never carries it elsewhere.
    fn authorization(&self, url: &Url) -> Result<Option<HeaderValue>, Fault> {
        let Some((name, credential)) = &self.credential else { return Ok(None) };
        let same_origin = url.host() == self.url.host() && url.port_or_known_default() == self.url.port_or_known_default();
        if !same_origin || (url.scheme() != "https" && !self.internal) {
            return Ok(None);
        }
        let auth = |reason: String| self.fault(Class::Auth, reason);
        let credential = credential.as_ref().ok_or_else(|| auth(format!("the credential {name} is missing")))?;
        if !credential.hosts.iter().any(|host| host.eq_ignore_ascii_case(&self.host)) {
            return Err(auth(format!("the credential {name} may not be sent to this host: its owner must list it")));
        }
        let text = match &credential.secret {
            CredentialSecret::Basic { username, password } => format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))),
            CredentialSecret::Token(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| auth(format!("the credential {name} can't stand in a header")))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn accept(&self, mut response: Response, wanted: &Wanted) -> Result<Fetched, FetchError> {
        if is_html(&response) {
            return Err(self.fault(Class::Verification, "answered with a web page".to_owned()).into());
        }
        let Some(path) = &wanted.file else {
            let mut body = BytesMut::new();
            while let Some(chunk) = self.chunk(&mut response).await? {
                if (body.len() + chunk.len()) as u64 > MAX_SMALL_BYTES {
                    return Err(self.fault(Class::Verification, format!("answered with more than {MAX_SMALL_BYTES} bytes")).into());
                }
                body.extend_from_slice(&chunk);
            }
            return self.check_small(body.freeze(), &wanted.check);
        };
        let mut file = File::create(path).map_err(|e| FetchError::Local(e.to_string()))?;
        let mut size = 0;
        while let Some(chunk) = self.chunk(&mut response).await? {
            size += chunk.len() as u64;
            if size > MAX_ZIP_BYTES {
                return Err(self.fault(Class::Verification, format!("answered with more than {MAX_ZIP_BYTES} bytes")).into());
            }
            // A write to the page cache; what is slow, the sync, happens elsewhere.
            file.write_all(&chunk).map_err(|e| FetchError::Local(e.to_string()))?;
        }
        drop(file);
        self.check_zip(wanted).await
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Fault> {
        match tokio::time::timeout(self.timeouts.idle, response.chunk()).await {
            Ok(Ok(chunk)) => {
                self.metrics.upstream_bytes.inc_by(chunk.as_ref().map_or(0, |c| c.len() as u64));
                Ok(chunk)
            }
            Ok(Err(error)) => Err(self.fault(Class::Connect, format!("broke off: {}", chain_text(&error.without_url())))),
            Err(_) => Err(self.fault(Class::Timeout, format!("sent nothing for {} s", self.timeouts.idle.as_secs()))),
        }
    }

    fn check_small(&self, body: Bytes, check: &Check) -> Result<Fetched, FetchError> {
        #[derive(serde::Deserialize)]
        struct Info {
            #[serde(rename = "Version")]
            version: String,
        }
        let wrong = |reason: String| FetchError::from(self.fault(Class::Verification, reason));
        if let Check::AnyInfo | Check::Info(_) = check {
            let info: Info = serde_json::from_slice(&body).map_err(|e| wrong(format!("the version's information is not JSON: {e}")))?;
            if let Check::Info(version) = check
                && info.version != version.as_str()
            {
                return Err(wrong(format!("asked for {version}, answered for {:?}", info.version)));
            }
        }
        Ok(Fetched::Bytes(body))
    }

    async fn check_zip(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let (Check::Zip(module, version), Some(path)) = (wanted.check.clone(), wanted.file.clone()) else {
            return Err(FetchError::Local("a file that is no zip".to_owned()));
        };
        let verdict = tokio::task::spawn_blocking(move || {
            let file = File::open(path).map_err(|e| FetchError::Local(e.to_string()))?;
            Ok::<_, FetchError>(hash_zip(std::io::BufReader::new(file), &module, &version))
        });
        let hash = verdict.await.map_err(|e| FetchError::Local(e.to_string()))??;
        let h1 = hash.map_err(|e| self.fault(Class::Verification, format!("the zip is bad: {e}")))?;
        Ok(Fetched::Zip { h1 })
    }

    /// The upstream's own words on a 404, if they are words.
    async fn error_text(&self, mut response: Response) -> Bytes {
        let text = response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).is_some_and(|t| t.starts_with("text/plain"));
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk(&mut response).await {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_ERROR_BYTES {
                break;
            }
        }
        if text && std::str::from_utf8(&body).is_ok() {
            body.freeze()
        } else {
            Bytes::from(format!("not found: {} does not have it\n", self.host))
        }
    }

    async fn read_local(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let root = self.url.to_file_path().map_err(|()| self.fault(Class::ClientError, "not a folder of this machine".to_owned()))?;
        let path = root.join(&wanted.path);
        let not_found = || FetchError::NotFound { status: StatusCode::NOT_FOUND, text: Bytes::from_static(b"not found\n") };
        let read = match &wanted.file {
            Some(to) => tokio::fs::copy(&path, to).await.map(|_| Bytes::new()),
            None => tokio::fs::read(&path).await.map(Bytes::from),
        };
        match read {
            Ok(_) if wanted.file.is_some() => self.check_zip(wanted).await,
            Ok(bytes) => self.check_small(bytes, &wanted.check),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let versions = path.parent().filter(|_| wanted.endpoint == "list").map(crate::store::versions_in).unwrap_or_default();
                if versions.is_empty() { Err(not_found()) } else { Ok(Fetched::Bytes(Bytes::from(versions.join("\n") + "\n"))) }
            }
            Err(error) => Err(self.fault(Class::Connect, error.to_string()).into()),
        }
    }

    fn join(&self, path: &str) -> Result<Url, Fault> {
        let base = self.url.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/{path}")).map_err(|e| self.fault(Class::ClientError, e.to_string()))
    }

    fn transport_fault(&self, error: &reqwest::Error) -> Fault {
        let text = chain_text(error);
        let mut source = error.source();
        let mut resolve = None;
        while let Some(inner) = source {
            resolve = resolve.or_else(|| inner.downcast_ref::<ResolveError>());
            source = inner.source();
        }
        let class = if resolve.is_some() || text.contains("dns error") {
            Class::Dns
        } else if error.is_timeout() {
            Class::Timeout
        } else if text.contains("certificate") || text.contains("TLS") || text.contains("tls") || text.contains("handshake") {
            Class::Tls
        } else {
            Class::Connect
        };
        self.fault(class, resolve.map_or(text, ToString::to_string))
    }

    fn fault(&self, class: Class, reason: String) -> Fault {
        Fault { class, host: self.host.clone(), reason }
    }
}

fn is_html(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).is_some_and(|t| t.starts_with("text/html"))
}

/// An error and its causes, without reqwest's own first line: it carries the URL, which may be signed.
fn chain_text(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        parts.push(inner.to_string());
        source = inner.source();
    }
    if parts.is_empty() { "the request failed".to_owned() } else { parts.join(": ") }
}
