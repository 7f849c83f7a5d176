//! Who a node is: the certificate that proves its PoP, and the cluster it belongs to.
//!
//! A cluster is a certificate authority, a random id and a digest secret, made offline by
//! [`init_cluster`] in a folder that stays with the operator. [`join_token`] turns that folder into one
//! line of text for one PoP, and [`init_node`] turns the line into the node's identity folder, which
//! [`Identity::load`] reads. All keys are Ed25519.
//!
//! A certificate lives two years. To renew it, make a fresh join token, run `node init` into a new folder,
//! point the node at that folder and restart it. The authority lives ten years.
//!
//! The rule upheld here: an identity is whole or absent. Folders come into being by one rename, nothing is
//! ever overwritten, and what [`Identity::load`] returns belongs together.

mod authority;
mod folder;
pub(crate) mod token;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use replication::clock::{NotHex, parse_hex};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde::{Deserialize, Serialize};

pub use authority::init_cluster;
#[cfg(test)]
pub(crate) use authority::{Authority, Validity};
pub use token::{TokenError, init_node, join_token};

/// The longest name of a PoP, in bytes: that of a DNS label.
pub const MAX_POP_BYTES: usize = 63;
/// The largest file of an identity or cluster folder, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

const CLUSTER_FILE: &str = "cluster.toml";
const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
const CERTIFICATE_FILE: &str = "node.pem";
const KEY_FILE: &str = "node-key.pem";
const DIGEST_SECRET_FILE: &str = "digest-secret";

/// Names a cluster: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ClusterId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self)
    }
}

/// What [`init_cluster`] made.
#[derive(Clone, Debug)]
pub struct ClusterSummary {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Where its authority is. Whoever holds this folder can admit nodes: keep it off the nodes.
    pub folder: PathBuf,
    /// When the authority's certificate ends, in Unix seconds.
    pub expires_at_s: i64,
}

/// What [`init_node`] made.
#[derive(Clone, Debug)]
pub struct NodeSummary {
    /// The PoP this identity is for.
    pub pop: String,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Where it is.
    pub folder: PathBuf,
}

/// A node's identity, as its folder has it.
pub struct Identity {
    /// The PoP the certificate is for.
    pub pop: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Keys the digests of the cluster. Never leaves the nodes.
    pub digest_secret: [u8; 32],
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("pop", &self.pop)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the folder that [`init_node`] wrote. An expired certificate is no error here, for a node
    /// serves its PoP without peers too; its peers refuse it, and the transport says so at start.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let membership = Membership::load(folder)?;
        let file = folder.join(CLUSTER_FILE);
        let pop = membership
            .pop
            .ok_or_else(|| malformed(&file, "it names no pop, so it is a cluster's and not a node's"))?;
        check_pop(&pop)?;

        let path = folder.join(CERTIFICATE_FILE);
        let chain = CertificateDer::pem_slice_iter(&read_file(&path)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|problem| malformed(&path, problem))?;
        let Some(leaf) = chain.first() else { return Err(malformed(&path, "it holds no certificate")) };
        if !certificate_names(leaf, &pop) {
            return Err(malformed(
                &path,
                format_args!("the certificate is not for the pop {pop:?} of {CLUSTER_FILE}"),
            ));
        }
        Ok(Self {
            cluster: membership.cluster,
            digest_secret: load_digest_secret(folder)?,
            key: load_pem(&folder.join(KEY_FILE))?,
            authority: load_pem(&folder.join(CA_FILE))?,
            pop,
            chain,
        })
    }
}

/// Why an identity could not be made or read. Each says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder is in use; nothing in it was touched.
    #[error("{} is not empty, and nothing in it is ever overwritten; name a new folder, or move this one away first", folder.display())]
    Occupied {
        /// The folder that was to be written.
        folder: PathBuf,
    },
    /// There is no identity.
    #[error("{} does not exist; make a cluster with `littoral cluster init` and a node's identity with `littoral node init`", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// The disk or its permissions.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// What was being read or written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is there and is not what it should be.
    #[error("{} cannot be used: {problem}; restore it from a copy, or make a fresh join token and run `littoral node init` into a new folder", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A name that no certificate can carry.
    #[error("{pop:?} cannot name a PoP; use 1 to {MAX_POP_BYTES} of a-z, 0-9 and -, with no - at either end")]
    PopName {
        /// What was given.
        pop: String,
    },
    /// The join token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The random source or the certificate encoder failed.
    #[error("cannot make a key or certificate: {problem}")]
    Issue {
        /// What it said.
        problem: String,
    },
}

/// Whether `pop` may name a PoP: one lower-case DNS label.
pub(crate) fn check_pop(pop: &str) -> Result<(), IdentityError> {
    if is_label(pop) { Ok(()) } else { Err(IdentityError::PopName { pop: pop.into() }) }
}

/// Whether `text` is a lower-case DNS label, which PoPs and regions have for names.
pub(crate) fn is_label(text: &str) -> bool {
    let of_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_POP_BYTES).contains(&text.len())
        && text.bytes().all(of_label)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The DNS name that a PoP's certificate carries; never looked up.
pub(crate) fn pop_dns_name(pop: &str) -> String {
    format!("{pop}.pop.littoral.internal")
}

/// Whether the certificate is for this PoP.
pub(crate) fn certificate_names(leaf: &CertificateDer<'_>, pop: &str) -> bool {
    let Ok(name) = ServerName::try_from(pop_dns_name(pop)) else { return false };
    webpki::EndEntityCert::try_from(leaf)
        .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
}

/// `cluster.toml`: which cluster a folder belongs to and, in a node's folder, which PoP.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    #[serde(with = "as_text")]
    cluster: ClusterId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pop: Option<String>,
}

impl Membership {
    fn load(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(CLUSTER_FILE);
        toml::from_str(&load_text(&path)?).map_err(|problem| malformed(&path, problem.message()))
    }

    fn to_toml(&self) -> String {
        toml::to_string(self).expect("two strings have a TOML form")
    }
}

/// Serde by way of `Display` and `FromStr`.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn load_digest_secret(folder: &Path) -> Result<[u8; 32], IdentityError> {
    let path = folder.join(DIGEST_SECRET_FILE);
    parse_hex(load_text(&path)?.trim_end()).map_err(|problem| malformed(&path, problem))
}

fn load_pem<T: PemObject>(path: &Path) -> Result<T, IdentityError> {
    T::from_pem_slice(&read_file(path)?).map_err(|problem| malformed(path, problem))
}

fn load_text(path: &Path) -> Result<String, IdentityError> {
    String::from_utf8(read_file(path)?).map_err(|problem| malformed(path, problem))
}

fn read_file(path: &Path) -> Result<Vec<u8>, IdentityError> {
    use io::Read;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.into() },
        _ => IdentityError::Io { doing: "read", path: path.into(), source },
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(malformed(path, format_args!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

fn malformed(path: &Path, problem: impl fmt::Display) -> IdentityError {
    IdentityError::Malformed { path: path.into(), problem: problem.to_string() }
}

/// Lower-case hexadecimal digits of `bytes`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
