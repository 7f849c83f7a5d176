//! Quotas: how much a namespace may be asked, and may hold.
//!
//! A quota is an entry of [`NamespaceId::SYSTEM`], key `quota/<namespace>`, value [`Quota`] as JSON, so it replicates like
//! every other entry. Requests are counted by each PoP for itself, and what a namespace holds is what this PoP's copy has:
//! writes at two PoPs at once can exceed a limit by what is on its way between them.
//!
//! The rule this file upholds: what was set holds, or it is an error: a quota that cannot be read lets nothing grow.

use std::sync::Arc;

use littoral::api::quotas::{
    MAX_QUOTA_BYTES, MAX_QUOTA_DOCUMENT_OPS, MAX_QUOTA_KEYS, Quota, QuotaReport, Used,
};
use littoral::api::tokens::MAX_REQUESTS_PER_S;
use replication::{NamespaceId, Payload, Value};
use serde::Deserialize;

use crate::documents::Limits;
use crate::engine::{Ack, Engine, ReadError, StorageQuota, Write, WriteError};
use crate::request_rate::{RequestRate, TooMany};
use crate::system_cache::SystemCache;

/// Why a quota was not set.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// It cannot be one.
    #[error("{key} is {least} to {most}, not {given}; null lifts it")]
    OutOfBounds {
        /// Which.
        key: &'static str,
        /// The least it can be.
        least: u64,
        /// The most it can be.
        most: u64,
        /// What was asked for.
        given: u64,
    },
    /// The engine could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine could not write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The quotas of all namespaces, as this node's engine holds them.
pub struct Quotas {
    engine: Engine,
    known: SystemCache<NamespaceId, Arc<InForce>>,
}

/// A quota, and what was let through of it.
#[derive(Default)]
pub(crate) struct InForce {
    quota: Quota,
    rate: Option<RequestRate>,
}

impl InForce {
    /// Counts a request.
    pub(crate) fn admit(&self) -> Result<(), TooMany> {
        self.rate.as_ref().map_or(Ok(()), RequestRate::take)
    }

    /// What may be stored.
    pub(crate) fn storage(&self) -> StorageQuota {
        StorageQuota { max_keys: self.quota.max_keys, max_bytes: self.quota.max_bytes }
    }

    /// What a document may be where the node takes this much.
    pub(crate) fn document(&self, node: Limits) -> Limits {
        let Quota { max_document_bytes, max_document_ops, .. } = self.quota;
        Limits {
            max_bytes: node.max_bytes.or_lower(max_document_bytes, "the namespace's max_document_bytes"),
            max_ops: node.max_ops.or_lower(max_document_ops, "the namespace's max_document_ops"),
        }
    }
}

impl Quotas {
    /// Those that this engine holds.
    pub fn new(engine: Engine) -> Self {
        Self { engine, known: SystemCache::default() }
    }

    /// What holds for a namespace, which exists. On every request: a look-up in memory.
    pub(crate) fn in_force(&self, namespace: NamespaceId) -> Result<Arc<InForce>, ReadError> {
        let read = |last: Option<Arc<InForce>>| {
            let quota = self.read(namespace)?;
            // A change elsewhere must not fill the bucket.
            Ok(Some(match last {
                Some(last) if last.quota == quota => last,
                _ => Arc::new(InForce { quota, rate: quota.requests_per_s.map(RequestRate::new) }),
            }))
        };
        Ok(self.known.find(&self.engine, namespace, read)?.unwrap_or_default())
    }

    /// The quota, and what the namespace has of it.
    ///
    /// # Errors
    /// Where the node does not serve.
    pub async fn report(&self, namespace: NamespaceId) -> Result<QuotaReport, ReadError> {
        let quota = self.read(namespace)?;
        let used = self.engine.usage(namespace).await?;
        let used = Used { bytes: used.bytes, keys: used.keys };
        Ok(QuotaReport { namespace: namespace.to_string(), quota, used })
    }

    /// Sets all bounds of a namespace.
    ///
    /// # Errors
    /// See [`QuotaError`].
    pub async fn set(&self, namespace: NamespaceId, quota: Quota) -> Result<(), QuotaError> {
        for (key, given, least, most) in [
            ("requests_per_s", quota.requests_per_s, 1, MAX_REQUESTS_PER_S),
            ("max_bytes", quota.max_bytes, 0, MAX_QUOTA_BYTES),
            ("max_keys", quota.max_keys, 0, MAX_QUOTA_KEYS),
            ("max_document_bytes", quota.max_document_bytes, 0, MAX_QUOTA_BYTES),
            ("max_document_ops", quota.max_document_ops, 0, MAX_QUOTA_DOCUMENT_OPS),
        ] {
            if let Some(given) = given.filter(|given| !(least..=most).contains(given)) {
                return Err(QuotaError::OutOfBounds { key, least, most, given });
            }
        }
        let key = row_key(namespace).into();
        let write = if quota == Quota::default() {
            Write::Delete { namespace: NamespaceId::SYSTEM, key }
        } else {
            let json = serde_json::to_vec(&quota).expect("numbers are JSON");
            let value = Value { payload: Payload::Inline(json.into()), metadata: None, expires_at_s: None };
            Write::Put { namespace: NamespaceId::SYSTEM, key, value }
        };
        self.engine.write(vec![write], Ack::Durable).await?;
        Ok(())
    }

    fn read(&self, namespace: NamespaceId) -> Result<Quota, ReadError> {
        let entry = self.engine.read(NamespaceId::SYSTEM, &row_key(namespace))?;
        Ok(entry.map_or_else(Quota::default, |entry| quota_of(&entry)))
    }
}

/// The key of a namespace's quota.
pub(crate) fn row_key(namespace: NamespaceId) -> Vec<u8> {
    format!("quota/{namespace}").into_bytes()
}

/// A quota as its entry has it. What a later version adds is passed over, so that versions can stand side by side.
#[derive(Default, Deserialize)]
struct Record {
    requests_per_s: Option<u64>,
    max_bytes: Option<u64>,
    max_keys: Option<u64>,
    max_document_bytes: Option<u64>,
    max_document_ops: Option<u64>,
}

/// One that cannot be read is no reason to let more in than was meant.
fn quota_of(entry: &Value) -> Quota {
    let record = match &entry.payload {
        Payload::Inline(bytes) => serde_json::from_slice(bytes).ok(),
        Payload::Chunked(_) => None,
    };
    let nothing = Record { max_bytes: Some(0), max_keys: Some(0), ..Record::default() };
    let Record { requests_per_s, max_bytes, max_keys, max_document_bytes, max_document_ops } =
        record.unwrap_or(nothing);
    Quota { requests_per_s, max_bytes, max_keys, max_document_bytes, max_document_ops }
}
