//! The handshake frame: what each side says about itself before anything else may travel on a link.
//!
//! Layout, all of it bounded by [`MAX_HELLO_BYTES`]: magic (4 bytes), protocol version (1), and from there
//! as version 1 has it: cluster id (16), replica id (16), boot nonce (16), PoP, region, each as one byte of
//! length with that many bytes. The rule upheld here: a hello from a peer is parsed once, into a type that
//! cannot be wrong, and only a peer whose certificate proves what it says gets past [`Hello::check`].

use replication::ReplicaId;
use replication::link::PROTOCOL_VERSION;
use rustls::pki_types::CertificateDer;

use super::refusal::Refusal;
use crate::identity::{self, ClusterId, MAX_POP_BYTES};

/// The largest hello, in bytes.
pub(crate) const MAX_HELLO_BYTES: usize = 512;
const MAGIC: [u8; 4] = *b"LITT";
const _: () = assert!(4 + 1 + 3 * 16 + 2 * (1 + MAX_POP_BYTES) <= MAX_HELLO_BYTES);

/// What one side says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: ReplicaId,
    /// Random for each process, so that a restarted peer is told from one still running.
    pub(crate) boot_nonce: [u8; 16],
    /// The PoP; its name is a DNS label.
    pub(crate) pop: String,
    /// The region; its name is a DNS label too.
    pub(crate) region: String,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_HELLO_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(PROTOCOL_VERSION);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.replica.0);
        bytes.extend_from_slice(&self.boot_nonce);
        for label in [&self.pop, &self.region] {
            bytes.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, Refusal> {
        let rest = &mut bytes;
        if take(rest)? != MAGIC {
            return Err(Refusal::MalformedHello("it does not start with the magic bytes"));
        }
        let [version] = take(rest)?;
        if version != PROTOCOL_VERSION {
            // What follows is laid out as that version pleases.
            return Err(Refusal::UnknownVersion { theirs: version });
        }
        let hello = Self {
            cluster: ClusterId(take(rest)?),
            replica: ReplicaId(take(rest)?),
            boot_nonce: take(rest)?,
            pop: take_label(rest)?,
            region: take_label(rest)?,
        };
        if rest.is_empty() {
            Ok(hello)
        } else {
            Err(Refusal::MalformedHello("there are bytes after its end"))
        }
    }

    /// Whether `theirs`, sent by the holder of the certificate `leaf`, may be linked with `self`.
    pub(crate) fn check(&self, theirs: &Hello, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        if theirs.cluster != self.cluster {
            return Err(Refusal::OtherCluster { theirs: theirs.cluster });
        }
        if !identity::certificate_names(leaf, &theirs.pop) {
            return Err(Refusal::NameNotInCertificate { pop: theirs.pop.clone() });
        }
        if theirs.replica == self.replica {
            return Err(Refusal::OwnReplica { pop: theirs.pop.clone() });
        }
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Refusal> {
    let (taken, after) = rest.split_first_chunk().ok_or(Refusal::MalformedHello("it is cut short"))?;
    *rest = after;
    Ok(*taken)
}

fn take_label(rest: &mut &[u8]) -> Result<String, Refusal> {
    let [len] = take(rest)?;
    let (taken, after) =
        rest.split_at_checked(usize::from(len)).ok_or(Refusal::MalformedHello("it is cut short"))?;
    *rest = after;
    let text = std::str::from_utf8(taken).ok().filter(|text| identity::is_label(text));
    text.map(String::from).ok_or(Refusal::MalformedHello("its pop or region is no DNS label"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId([1; 16]),
            replica: ReplicaId([2; 16]),
            boot_nonce: [3; 16],
            pop: "x".repeat(MAX_POP_BYTES),
            region: "eu".into(),
        }
    }

    #[test]
    fn a_hello_survives_the_wire() {
        let bytes = hello().encode();
        assert!(bytes.len() <= MAX_HELLO_BYTES);
        assert_eq!(Hello::decode(&bytes).unwrap(), hello());
    }

    #[test]
    fn a_hello_that_is_not_whole_is_malformed() {
        let bytes = hello().encode();
        let malformed = |bytes: &[u8]| matches!(Hello::decode(bytes), Err(Refusal::MalformedHello(_)));
        for len in 0..bytes.len() {
            assert!(malformed(&bytes[..len]), "{len} bytes");
        }
        assert!(malformed(&[&bytes[..], b"x"].concat()));
        assert!(malformed(&Hello { pop: "A".into(), ..hello() }.encode()));
        assert!(malformed(&Hello { region: String::new(), ..hello() }.encode()));
    }

    #[test]
    fn another_version_is_not_parsed_any_further() {
        let refusal = Hello::decode(&[&MAGIC[..], &[PROTOCOL_VERSION + 1]].concat()).unwrap_err();
        assert!(matches!(refusal, Refusal::UnknownVersion { theirs } if theirs == PROTOCOL_VERSION + 1));
    }
}
