//! Join tokens: a node's whole identity as one line of text, to be carried from the operator to the node.
//!
//! A token is a secret: it holds the private key of the PoP and the cluster's digest secret. Whoever reads
//! it can be that PoP until the certificate ends; its own expiry only makes one left lying about useless
//! for [`init_node`], it cannot take back what was read. Send it over a channel you would send a key over.
//!
//! Form: `littoral-join-1.`, then in base64url without padding: [`Contents`] as JSON, then the first
//! [`CHECKSUM_BYTES`] of its BLAKE3 hash. The checksum finds copying mistakes; it does not authenticate.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use replication::clock::parse_hex;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, Validity};
use super::folder::{self, NewFile};
use super::{
    CA_FILE, CERTIFICATE_FILE, CLUSTER_FILE, ClusterId, DIGEST_SECRET_FILE, IdentityError, KEY_FILE,
    Membership, NodeSummary, check_pop, hex,
};

/// What a token starts with; the number is that of its form.
const PREFIX: &str = "littoral-join-1.";
/// The longest token, in bytes. Real ones have about 2,400.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// How much of the hash a token carries.
const CHECKSUM_BYTES: usize = 8;

/// Why a join token was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error(
        "this is not a join token: one starts with {PREFIX:?}; make one with `littoral cluster join-token`"
    )]
    NotAToken,
    /// Some of it is missing or changed.
    #[error("the join token is damaged: part of it is missing or was changed; copy the whole line again")]
    Damaged,
    /// Its time is over.
    #[error(
        "the join token expired {ago_s} seconds ago; make a fresh one with `littoral cluster join-token`"
    )]
    Expired {
        /// How long ago, in seconds.
        ago_s: u64,
    },
}

/// Issues the certificate of `pop` and packs it, with all else a node needs, into one line that
/// [`init_node`] takes within `valid_for`. The line is a secret.
pub fn join_token(cluster_folder: &Path, pop: &str, valid_for: Duration) -> Result<String, IdentityError> {
    check_pop(pop)?;
    let authority = Authority::load(cluster_folder)?;
    let issued = authority.issue(pop, Validity::of_certificates())?;
    let contents = Contents {
        cluster: authority.cluster,
        pop: pop.into(),
        expires_at_s: unix_now_s().saturating_add(valid_for.as_secs()),
        digest_secret: hex(&authority.digest_secret),
        authority: authority.certificate_pem,
        certificate: issued.certificate_pem,
        key: issued.key_pem,
    };
    Ok(contents.pack())
}

/// Writes the identity in `token` to a folder that must be absent or empty. Either all of it is there
/// afterwards, durably, or nothing.
pub fn init_node(identity_folder: &Path, token: &str) -> Result<NodeSummary, IdentityError> {
    folder::check_vacant(identity_folder)?;
    let contents = Contents::unpack(token)?;
    check_pop(&contents.pop)?;
    let now_s = unix_now_s();
    if contents.expires_at_s <= now_s {
        return Err(TokenError::Expired { ago_s: now_s - contents.expires_at_s }.into());
    }
    let membership = Membership { cluster: contents.cluster, pop: Some(contents.pop.clone()) };
    folder::write(
        identity_folder,
        &[
            NewFile { name: CLUSTER_FILE, bytes: membership.to_toml().into(), secret: false },
            NewFile { name: CA_FILE, bytes: contents.authority.into(), secret: false },
            NewFile { name: CERTIFICATE_FILE, bytes: contents.certificate.into(), secret: false },
            NewFile { name: KEY_FILE, bytes: contents.key.into(), secret: true },
            NewFile { name: DIGEST_SECRET_FILE, bytes: contents.digest_secret.into(), secret: true },
        ],
    )?;
    Ok(NodeSummary { pop: contents.pop, cluster: contents.cluster, folder: identity_folder.into() })
}

/// What a token carries.
#[derive(Serialize, Deserialize)]
pub(crate) struct Contents {
    #[serde(with = "super::as_text")]
    cluster: ClusterId,
    pop: String,
    /// Unix seconds.
    expires_at_s: u64,
    /// 64 hexadecimal digits.
    digest_secret: String,
    /// The authority's certificate, the PoP's certificate and its key, each as PEM.
    authority: String,
    certificate: String,
    key: String,
}

impl Contents {
    pub(crate) fn pack(&self) -> String {
        seal(serde_json::to_vec(self).expect("strings and a number have a JSON form"))
    }

    pub(crate) fn unpack(token: &str) -> Result<Self, TokenError> {
        let encoded = token.trim().strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        if encoded.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Damaged)?;
        let (json, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if blake3::hash(json).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
            return Err(TokenError::Damaged);
        }
        let contents: Self = serde_json::from_slice(json).map_err(|_| TokenError::Damaged)?;
        parse_hex::<32>(&contents.digest_secret).map_err(|_| TokenError::Damaged)?;
        Ok(contents)
    }
}

/// The token that carries these bytes, its checksum being right.
pub(crate) fn seal(mut bytes: Vec<u8>) -> String {
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(expires_at_s: u64) -> Contents {
        Contents {
            cluster: ClusterId([7; 16]),
            pop: "fra".into(),
            expires_at_s,
            digest_secret: "ab".repeat(32),
            authority: "A".into(),
            certificate: "C".into(),
            key: "K".into(),
        }
    }

    #[track_caller]
    fn check(token: &str, expected: TokenError) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("identity");
        match init_node(&target, token) {
            Err(IdentityError::Token(error)) => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
        assert!(!target.exists());
    }

    #[test]
    fn a_token_that_is_not_whole_is_refused() {
        let token = contents(u64::MAX).pack();
        let in_the_middle = token.len() / 2;
        let swapped = if token.as_bytes()[in_the_middle] == b'A' { "B" } else { "A" };
        let altered = format!("{}{swapped}{}", &token[..in_the_middle], &token[in_the_middle + 1..]);
        check(&altered, TokenError::Damaged);
        check(&token[..token.len() - 1], TokenError::Damaged);
        check(&token[..token.len() - 4], TokenError::Damaged);
        check(PREFIX, TokenError::Damaged);
        check(&format!("{PREFIX}{}", "A".repeat(MAX_TOKEN_BYTES + 1)), TokenError::Damaged);
        check(&token[1..], TokenError::NotAToken);
        check("", TokenError::NotAToken);
    }

    #[test]
    fn an_expired_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            init_node(&folder.path().join("identity"), &contents(unix_now_s() - 90).pack()).unwrap_err();
        assert!(matches!(error, IdentityError::Token(TokenError::Expired { ago_s: 90..=95 })), "{error}");
    }

    #[test]
    fn space_around_a_token_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let token = format!(" {}\n", contents(u64::MAX).pack());
        assert_eq!(init_node(&folder.path().join("identity"), &token).unwrap().pop, "fra");
    }
}
