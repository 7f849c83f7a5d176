//! The cluster's certificate authority: makes it, and issues the certificates of PoPs.
//!
//! The rule upheld here: a certificate proves one PoP of one cluster and nothing else.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;

use super::folder::{self, NewFile};
use super::{
    CA_FILE, CA_KEY_FILE, CLUSTER_FILE, ClusterId, ClusterSummary, DIGEST_SECRET_FILE, IdentityError,
    Membership, check_pop, hex, load_digest_secret, load_pem, load_text, malformed, pop_dns_name,
};

/// How long an authority lives.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a PoP's certificate lives.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Certificates are valid from this long before they are made, for peers whose clocks run behind.
const CLOCK_LEEWAY: Duration = Duration::from_secs(3_600);

/// Makes a cluster: its authority, its id and its digest secret, in a folder that must be absent or empty.
///
/// Whoever holds the folder can admit nodes. It is needed for join tokens only and belongs offline.
pub fn init_cluster(folder: &Path) -> Result<ClusterSummary, IdentityError> {
    folder::check_vacant(folder)?;
    let cluster = ClusterId(random()?);
    let validity = Validity::from_now(AUTHORITY_LIFE);
    let authority = Authority::create(cluster, random()?, validity)?;
    let membership = Membership { cluster, pop: None };
    folder::write(
        folder,
        &[
            NewFile { name: CLUSTER_FILE, bytes: membership.to_toml().into(), secret: false },
            NewFile { name: CA_FILE, bytes: authority.certificate_pem.into(), secret: false },
            NewFile { name: CA_KEY_FILE, bytes: authority.issuer.key().serialize_pem().into(), secret: true },
            NewFile { name: DIGEST_SECRET_FILE, bytes: hex(&authority.digest_secret).into(), secret: true },
        ],
    )?;
    Ok(ClusterSummary { cluster, folder: folder.into(), expires_at_s: validity.not_after.unix_timestamp() })
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Validity {
    pub(crate) fn from_now(life: Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - CLOCK_LEEWAY, not_after: now + life }
    }

    pub(crate) fn of_certificates() -> Self {
        Self::from_now(CERTIFICATE_LIFE)
    }
}

/// A certificate with its key, both as PEM.
pub(crate) struct Issued {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// What a cluster folder holds.
pub(crate) struct Authority {
    pub(crate) cluster: ClusterId,
    pub(crate) digest_secret: [u8; 32],
    pub(crate) certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn create(
        cluster: ClusterId,
        digest_secret: [u8; 32],
        validity: Validity,
    ) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(issue_failed)?;
        let mut params = authority_params(cluster);
        (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
        let certificate_pem = params.self_signed(&key).map_err(issue_failed)?.pem();
        Ok(Self { cluster, digest_secret, certificate_pem, issuer: Issuer::new(params, key) })
    }

    pub(crate) fn load(folder: &Path) -> Result<Self, IdentityError> {
        let cluster = Membership::load(folder)?.cluster;
        let path = folder.join(CA_KEY_FILE);
        let key = load_pem::<PrivatePkcs8KeyDer<'_>>(&path)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)
            .map_err(|problem| malformed(&path, problem))?;
        Ok(Self {
            cluster,
            digest_secret: load_digest_secret(folder)?,
            certificate_pem: load_text(&folder.join(CA_FILE))?,
            // What an issuer puts into a certificate follows from the cluster's id, so that the
            // authority's own certificate need not be parsed.
            issuer: Issuer::new(authority_params(cluster), key),
        })
    }

    /// A fresh key and its certificate for `pop`.
    pub(crate) fn issue(&self, pop: &str, validity: Validity) -> Result<Issued, IdentityError> {
        check_pop(pop)?;
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(issue_failed)?;
        let mut params = CertificateParams::new([pop_dns_name(pop)]).map_err(issue_failed)?;
        params.serial_number = Some(serial_number(random()?));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, pop);
        (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue_failed)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn authority_params(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Littoral cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Positive, and of the same length whatever was drawn: DER leaves out leading zeros, and a handshake is to be
/// as long with one certificate as with another, so that simulated networks give the same trace each time.
fn serial_number(mut bytes: [u8; 16]) -> SerialNumber {
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(issue_failed)?;
    Ok(bytes)
}

fn issue_failed(problem: impl std::fmt::Display) -> IdentityError {
    IdentityError::Issue { problem: problem.to_string() }
}
