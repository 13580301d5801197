//! A host that speaks TLS, with a certificate of its own making.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// For whoever accepts connections, and the certificate.
pub(crate) fn acceptor(protocols: &[&str]) -> (tokio_rustls::TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "modules.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    (tokio_rustls::TlsAcceptor::from(Arc::new(server)), made.cert.pem())
}

/// Answers every request of a path with some text; returns the address and the certificate.
pub(crate) async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, String) {
    let (acceptor, certificate) = acceptor(&[]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                // A client that does not trust us is gone here.
                let mut stream = BufReader::new(acceptor.accept(stream).await?);
                let mut lines = (String::new(), String::new());
                stream.read_line(&mut lines.0).await?;
                while stream.read_line(&mut lines.1).await? > 2 {
                    lines.1.clear();
                }
                let path = lines.0.split(' ').nth(1).unwrap_or_default();
                stream.write_all(answer(path).as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
    (url, certificate)
}
