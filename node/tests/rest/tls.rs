//! TLS on a port: real clients over HTTP/1.1 and HTTP/2, new certificates while it serves, bad ones, and slow clients.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use littoral_node::http::{Door, Limits, Listener, Tls, TlsError, TlsFiles};
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ACCOUNT, LIMITS, Peer, Running, TOKEN, namespaces_path, start};

/// Often enough for a test.
const RELOAD_EVERY: Duration = Duration::from_millis(20);

/// A node with a port that speaks TLS.
pub(crate) struct Secured {
    running: Running,
    pub(crate) address: SocketAddr,
    files: TlsFiles,
    pub(crate) certificate: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

pub(crate) async fn secured(limits: Limits) -> Secured {
    let folder = tempfile::tempdir().unwrap();
    let files = files_in(folder.path());
    let certificate = write_pair(&files);
    let tls = Arc::new(Tls::load(files.clone()).unwrap());
    tokio::spawn(tls.clone().keep_fresh(RELOAD_EVERY));
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    let listeners = vec![Listener::tcp(port, Door::Node).secured(tls)];
    let running = start(folder.path(), Arc::new(Peer::default()), limits, 0, listeners).await;
    Secured { running, address, files, certificate, folder }
}

fn files_in(folder: &Path) -> TlsFiles {
    TlsFiles { certificate: folder.join("tls.pem"), key: folder.join("tls-key.pem") }
}

fn pair() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Writes a new pair, the key first, and gives its certificate.
fn write_pair(files: &TlsFiles) -> CertificateDer<'static> {
    let pair = pair();
    fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    fs::write(&files.certificate, pair.cert.pem()).unwrap();
    pair.cert.der().clone()
}

impl Secured {
    /// Its certificate as it is on the disk.
    pub(crate) fn pem(&self) -> Vec<u8> {
        fs::read(&self.files.certificate).unwrap()
    }

    /// A connection that believes in this certificate alone.
    pub(crate) async fn connect(
        &self,
        certificate: &CertificateDer<'static>,
        protocol: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        Ok(stream)
    }

    async fn http1(&self) -> http1::SendRequest<Body> {
        let stream = self.connect(&self.certificate, "http/1.1").await.unwrap();
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn http2(&self) -> (http2::SendRequest<Body>, tokio::task::JoinHandle<hyper::Result<()>>) {
        let stream = self.connect(&self.certificate, "h2").await.unwrap();
        let (client, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        (client, tokio::spawn(connection))
    }

    /// Waits until new connections see this certificate.
    async fn shows(&self, certificate: &CertificateDer<'static>) {
        while self.connect(certificate, "http/1.1").await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

fn status() -> Request<Body> {
    let request = Request::get("https://localhost/v1/status");
    request
        .header("Host", "localhost")
        .header("Authorization", format!("Bearer {TOKEN}"))
        .body(Body::empty())
        .unwrap()
}

async fn check_status(response: Response<hyper::body::Incoming>) {
    assert_eq!(response.status(), StatusCode::OK);
    let page = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
    assert!(page.starts_with(b"{\"pop\":\"test\""), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_and_http_2_are_served() {
    let node = secured(LIMITS).await;
    let mut client = node.http1().await;
    for _ in 0..2 {
        // Of one answer the end may be here before the connection is free for the next request.
        client.ready().await.unwrap();
        check_status(client.send_request(status()).await.unwrap()).await;
    }
    let (client, _) = node.http2().await;
    let mut clients = [client.clone(), client.clone(), client];
    for client in &mut clients {
        client.ready().await.unwrap();
    }
    for answer in
        futures_util::future::join_all(clients.iter_mut().map(|one| one.send_request(status()))).await
    {
        check_status(answer.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_believes_in_the_authority_it_is_given_and_in_no_other() {
    let node = secured(LIMITS).await;
    let url = format!("https://localhost:{}", node.address.port());
    let client = littoral::Client::builder().authorities(node.pem()).build(&url, TOKEN).unwrap();
    assert_eq!(client.status().await.unwrap().pop, "test");
    let namespace = client.account(ACCOUNT).create_namespace("t").await.unwrap();
    let kv = client.account(ACCOUNT).namespace(&namespace.id);
    kv.put("k", "over TLS", Default::default()).await.unwrap();
    assert_eq!(kv.get("k").await.unwrap().unwrap().bytes, "over TLS");

    let stranger = pair().cert.pem();
    let client = littoral::Client::builder().authorities(stranger).build(&url, TOKEN).unwrap();
    assert!(!client.is_ready().await);
    let error = client.status().await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let mut node = secured(LIMITS).await;
    let mut old = node.http1().await;
    check_status(old.send_request(status()).await.unwrap()).await;
    let new = write_pair(&node.files);
    node.shows(&new).await;
    check_status(old.send_request(status()).await.unwrap()).await;
    assert!(
        node.connect(&node.certificate, "h2").await.is_err(),
        "the old certificate is not shown any more"
    );

    // Neither a stranger's key nor a file that is gone ends what is good.
    fs::write(&node.files.key, pair().signing_key.serialize_pem()).unwrap();
    node.shows(&new).await;
    fs::remove_file(&node.files.certificate).unwrap();
    node.shows(&new).await;
    node.certificate = write_pair(&node.files);
    node.shows(&node.certificate).await;
    check_status(node.http1().await.send_request(status()).await.unwrap()).await;
    assert!(node.folder.path().exists());
}

#[test]
fn a_bad_pair_is_refused_with_the_setting_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let files = files_in(folder.path());
    let check = |certificate: Option<&str>, key: Option<&str>, words: &[&str]| {
        for (path, text) in [(&files.certificate, certificate), (&files.key, key)] {
            let _ = fs::remove_file(path);
            if let Some(text) = text {
                fs::write(path, text).unwrap();
            }
        }
        let error = Tls::load(files.clone()).err().expect("refused").to_string();
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
    };
    let (one, other) = (pair(), pair());
    let (certificate, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    let (certificate, key) = (certificate.as_str(), key.as_str());
    check(
        None,
        Some(key),
        &["http.tls.certificate: cannot read", "tls.pem", "No such file", "name a PEM file"],
    );
    check(Some(certificate), None, &["http.tls.key: cannot read", "tls-key.pem", "name a PEM file"]);
    check(Some("hello"), Some(key), &["http.tls.certificate: ", "holds no certificate in PEM form"]);
    check(Some(key), Some(key), &["http.tls.certificate: ", "holds no certificate in PEM form"]);
    check(Some(certificate), Some("hello"), &["http.tls.key: ", "holds no private key in PEM form"]);
    check(Some(certificate), Some(certificate), &["http.tls.key: ", "holds no private key in PEM form"]);
    let stranger = other.signing_key.serialize_pem();
    check(
        Some(certificate),
        Some(&stranger),
        &["http.tls.key: ", "is not the key of the certificate in", "tls.pem"],
    );
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(Some(garbled), Some(key), &["http.tls.certificate", "cannot be used"]);
    let long = "\n".repeat(littoral_node::http::MAX_PEM_BYTES as usize + 1 - certificate.len()) + certificate;
    check(Some(&long), Some(key), &["http.tls.certificate: cannot read", "more than 262144 bytes"]);
    fs::write(&files.certificate, &long[1..]).unwrap();
    assert!(Tls::load(files.clone()).is_ok(), "as long as it may be");
}

#[test]
fn an_expired_certificate_is_shown_all_the_same_and_its_end_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let files = files_in(folder.path());
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 9, 9);
    let key = KeyPair::generate().unwrap();
    fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let loaded: Result<Tls, TlsError> = metrics::with_local_recorder(&recorder, || Tls::load(files));
    assert!(loaded.is_ok());
    let page = recorder.handle().render();
    let line = "littoral_http_certificate_expiry_seconds 999993600";
    assert!(page.lines().any(|given| given == line), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_or_is_none_ends() {
    let node = secured(Limits { opening_timeout_ms: 1_000, ..LIMITS }).await;
    let started = Instant::now();
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let _ = silent.read_to_end(&mut Vec::new()).await;
    assert!(started.elapsed() >= Duration::from_secs(1));

    let mut plain = TcpStream::connect(node.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "a port with TLS says nothing in clear");

    // Its handshake is done, and then nothing comes.
    let mut quiet = node.connect(&node.certificate, "h2").await.unwrap();
    let _ = quiet.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_http_2_is_told_to_go() {
    let node = secured(Limits { opening_timeout_ms: 1_000, header_timeout_ms: 1_000, ..LIMITS }).await;
    let (mut client, connection) = node.http2().await;
    check_status(client.send_request(status()).await.unwrap()).await;
    connection.await.unwrap().expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_a_request_of_http_2_finish() {
    let mut node = secured(LIMITS).await;
    let (mut client, connection) = node.http2().await;
    check_status(client.send_request(status()).await.unwrap()).await;
    let (rest, body) = tokio::io::duplex(64);
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(body));
    let path = format!("https://localhost{}", namespaces_path(ACCOUNT));
    let create = Request::post(path).header("Authorization", format!("Bearer {TOKEN}")).body(body).unwrap();
    let mut rest = rest;
    rest.write_all(b"{\"title\":").await.unwrap();
    let answer = tokio::spawn(client.send_request(create));
    // The node has the request once it has seen one that came after it.
    check_status(client.send_request(status()).await.unwrap()).await;

    drop(node.running.stop.take());
    while TcpStream::connect(node.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    rest.write_all(b"\"t\"}").await.unwrap();
    drop(rest);
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    connection.await.unwrap().expect("an orderly end");
    node.running.serving.await.unwrap().unwrap();
}
