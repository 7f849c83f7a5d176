//! The certificate that the TCP ports show: read from two PEM files, and read again when these change.
//!
//! The rule this file upholds: what was good serves on until something good replaces it. New files hold for new
//! connections only; the old ones go on with what they began with.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// The largest certificate or key file, in bytes.
pub const MAX_PEM_BYTES: u64 = 256 << 10;

/// HTTP/2, where the client has it too.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

const EXPIRY: &str = "littoral_http_certificate_expiry_seconds";
const REFUSED: &str = "littoral_http_certificates_refused_total";

/// Why there is no certificate to show. The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is larger than [`MAX_PEM_BYTES`].
    #[error("{setting}: cannot read {}: {problem}; name a PEM file that this process may read", path.display())]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        problem: io::Error,
    },
    /// A file holds something else.
    #[error("{setting}: {} holds no {wanted}: {problem}", path.display())]
    NotPem {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wanted.
        wanted: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Both files are good, and not of the same certificate.
    #[error(
        "http.tls.key: {} is not the key of the certificate in {} (http.tls.certificate), which must come first there; name the two that belong together",
        key.display(), certificate.display()
    )]
    Strangers {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The certificate or key is of a kind that cannot be used.
    #[error(
        "http.tls.certificate, http.tls.key: {} and {} cannot be used: {problem}; take a certificate with an RSA, ECDSA (P-256, P-384) or Ed25519 key",
        certificate.display(), key.display()
    )]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Where certificate and key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM: the certificate, and behind it those of the authorities up to the root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// What new connections are secured with.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    loaded: Contents,
}

/// What both files held when they were read, as one hash; none where one could not be read.
type Contents = Option<blake3::Hash>;

impl Tls {
    /// Reads both files. One that has expired is used all the same, and warned of.
    ///
    /// # Errors
    /// [`TlsError`], where they are not a certificate and its key.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        describe_gauge!(
            EXPIRY,
            Unit::Seconds,
            "The Unix time at which the certificate of the HTTP ports ends"
        );
        describe_counter!(REFUSED, "New certificates or keys that were refused, while the old ones serve on");
        counter!(REFUSED).increment(0);
        let (texts, contents) = files.read();
        let config = files.parse(texts?)?;
        Ok(Self { files, current: ArcSwap::from_pointee(config), loaded: contents })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Looks at the files this often, and takes over what they hold anew. Never ends.
    pub async fn keep_fresh(self: Arc<Self>, every: Duration) {
        let mut looks = Looks { taken: self.loaded, last: self.loaded };
        loop {
            tokio::time::sleep(every).await;
            let tls = self.clone();
            // Only a panic ends it otherwise, and that has been reported.
            looks = tokio::task::spawn_blocking(move || tls.look(looks)).await.unwrap_or(looks);
        }
    }

    /// A pair that is bad may be one of which only half is written, so it is refused when it is the same at two looks.
    fn look(&self, looks: Looks) -> Looks {
        let (texts, contents) = self.files.read();
        let stands_still = looks.last == contents;
        if looks.taken == contents {
            return Looks { last: contents, ..looks };
        }
        match texts.and_then(|texts| self.files.parse(texts)) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(certificate = %self.files.certificate.display(), "new connections see a new certificate");
            }
            Err(_) if !stands_still => return Looks { last: contents, ..looks },
            Err(error) => {
                counter!(REFUSED).increment(1);
                tracing::error!("a new certificate is refused, and the old one serves on: {error}");
            }
        }
        Looks { taken: contents, last: contents }
    }
}

/// What was found when the files were looked at.
#[derive(Clone, Copy)]
struct Looks {
    /// What was last taken over or refused.
    taken: Contents,
    /// What was there at the last look.
    last: Contents,
}

impl TlsFiles {
    /// The texts of certificate and key, and what they are told from others by.
    fn read(&self) -> (Result<[Vec<u8>; 2], TlsError>, Contents) {
        let texts = read_bounded(&self.certificate, "http.tls.certificate")
            .and_then(|certificate| Ok([certificate, read_bounded(&self.key, "http.tls.key")?]));
        let contents = texts.as_ref().ok().map(|[certificate, key]| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(certificate.len() as u64).to_le_bytes()).update(certificate).update(key);
            hasher.finalize()
        });
        (texts, contents)
    }

    fn parse(&self, [certificate, key]: [Vec<u8>; 2]) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = self.chain(&certificate)?;
        let not_pem = |problem: String| TlsError::NotPem {
            setting: "http.tls.key",
            path: self.key.clone(),
            wanted: "private key in PEM form, without a passphrase",
            problem,
        };
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| not_pem(e.to_string()))?;
        let unusable = |problem: String| TlsError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            problem,
        };
        let leaf = chain[0].clone();
        if let Err(error) = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            return Err(match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::Strangers { key: self.key.clone(), certificate: self.certificate.clone() }
                }
                error => unusable(error.to_string()),
            });
        }
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| unusable(error.to_string()))?;
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        self.report_validity(&leaf, &provider).map_err(|error| unusable(error.to_string()))?;
        Ok(config)
    }

    /// At least one certificate.
    fn chain(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let not_pem = |problem: String| TlsError::NotPem {
            setting: "http.tls.certificate",
            path: self.certificate.clone(),
            wanted: "certificate in PEM form",
            problem,
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let chain = chain.map_err(|error| not_pem(error.to_string()))?;
        match chain.is_empty() {
            true => Err(not_pem("there is no line -----BEGIN CERTIFICATE-----".to_owned())),
            false => Ok(chain),
        }
    }

    fn report_validity(
        &self,
        leaf: &CertificateDer<'_>,
        provider: &CryptoProvider,
    ) -> Result<(), webpki::Error> {
        let file = self.certificate.display();
        if let Err(webpki::Error::CertNotValidYet { not_before, .. }) =
            valid_at(leaf, UnixTime::now(), provider)?
        {
            tracing::warn!(%file, not_before_s = not_before.as_secs(), "the certificate is not valid yet: clients will refuse it");
        }
        // How long it is valid is said of a time at which it is valid no more.
        let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
        let Err(webpki::Error::CertExpired { not_after, .. }) = valid_at(leaf, end_of_time, provider)? else {
            return Ok(());
        };
        if not_after < UnixTime::now() {
            tracing::warn!(%file, expired_at_s = not_after.as_secs(), "the certificate has expired: clients will refuse it; put a new one in its place");
        }
        gauge!(EXPIRY).set(not_after.as_secs() as f64);
        Ok(())
    }
}

/// What is said of a certificate at a time, by itself, without whoever issued it.
///
/// # Errors
/// Where it is no certificate.
fn valid_at(
    leaf: &CertificateDer<'_>,
    time: UnixTime,
    provider: &CryptoProvider,
) -> Result<Result<(), webpki::Error>, webpki::Error> {
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = webpki::KeyUsage::server_auth();
    Ok(leaf.verify_for_usage(algorithms, &[], &[], time, usage, None, None).map(drop))
}

fn read_bounded(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes));
    let problem = match read {
        Ok(_) if bytes.len() as u64 <= MAX_PEM_BYTES => return Ok(bytes),
        Ok(_) => io::Error::other(format!("it has more than {MAX_PEM_BYTES} bytes")),
        Err(error) => error,
    };
    Err(TlsError::Unreadable { setting, path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// Both files of a new pair, as PEM.
    fn pair() -> [String; 2] {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        [pair.cert.pem(), pair.signing_key.serialize_pem()]
    }

    #[test]
    fn a_pair_that_stays_bad_is_refused_once_and_half_a_good_one_is_waited_for() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let refused = |times: u32| {
            let page = recorder.handle().render();
            assert!(page.lines().any(|line| line == format!("{REFUSED} {times}")), "{times}: {page}");
        };
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: folder.path().join("c"), key: folder.path().join("k") };
        let write = |certificate: &str, key: &str| {
            fs::write(&files.certificate, certificate).unwrap();
            fs::write(&files.key, key).unwrap();
        };
        let [[old, old_key], [new, new_key]] = [pair(), pair()];
        write(&old, &old_key);
        metrics::with_local_recorder(&recorder, || {
            let tls = Tls::load(files.clone()).unwrap();
            let mut looks = Looks { taken: tls.loaded, last: tls.loaded };
            let shown = tls.current.load_full();
            // (certificate, key, looks, refused by then, whether the first is still shown)
            for (certificate, key, times, by_then, is_old) in [
                (&old, &old_key, 3, 0, true),
                (&new, &old_key, 1, 0, true),
                (&old, &old_key, 1, 0, true),
                (&new, &old_key, 4, 1, true),
                (&old, &new_key, 4, 2, true),
                (&new, &new_key, 1, 2, false),
            ] {
                write(certificate, key);
                (0..times).for_each(|_| looks = tls.look(looks));
                refused(by_then);
                assert_eq!(Arc::ptr_eq(&shown, &tls.current.load_full()), is_old, "{by_then}");
            }
        });
    }
}
