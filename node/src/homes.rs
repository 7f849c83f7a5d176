//! Homes: the one PoP that decides about conditional writes of a namespace, for clients of all PoPs.
//!
//! A home is an entry of [`NamespaceId::SYSTEM`], key `home/<namespace>`, value `{"region": ..., "pop": ..., "after": ...}`,
//! so it replicates like every other entry. It is a region to whoever sets it, and one PoP of that region to the cluster: two
//! that decide would not be one.
//!
//! The rule this file upholds: of two conditional writes for one state, decided with a home, one is refused. So another
//! home is set by the one there is, between its decisions; the entry tells all that it has seen by then, and the new one
//! decides when it holds that: what its predecessor has written, and what that one had of those before it. Only where the
//! predecessor has been removed from the cluster is that left to whichever PoP is asked: what had not left it then is
//! gone, or comes back as its dead letters.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use littoral::api::homes::HomeReport;
use replication::{NamespaceId, Payload, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::cursor::Cursor;
use crate::engine::{Ack, Engine, ReadError, Write, WriteError};
use crate::system_cache::SystemCache;
use crate::transport::CallError;

/// How long a new home waits for decisions that are under way.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Why a home was not set, or nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// No PoP is there.
    #[error("no PoP is in the region {region:?}; there are {}", .present.join(", "))]
    NoSuchRegion {
        /// What was asked for.
        region: String,
        /// Regions with PoPs.
        present: Vec<String>,
    },
    /// The home cannot be asked. Nothing was done.
    #[error(
        "this namespace's home is {pop}, which decides about conditional writes and batches, and cannot be asked: {why}; try again later"
    )]
    Unreachable {
        /// The home.
        pop: String,
        /// What is in the way.
        why: CallError,
    },
    /// The home is no member any more. Nothing was done.
    #[error("this namespace's home was {pop}, which is no member any more: have an operator set another")]
    Gone {
        /// The home that was.
        pop: String,
    },
    /// The home was asked and has not answered.
    #[error(
        "{pop}, this namespace's home, was asked and has not answered ({why}): it may have been done or not, so read first"
    )]
    Silent {
        /// The home.
        pop: String,
        /// What went wrong.
        why: String,
    },
    /// This PoP is to decide, and lacks yet what the home before it has decided. Nothing was done.
    #[error(
        "{pop} has just been made this namespace's home, and has not heard of everything before that yet; try again in a second"
    )]
    Beginning {
        /// This PoP.
        pop: String,
    },
    /// Another PoP takes this one for the home. Nothing was done.
    #[error("this namespace's home has just changed to {pop}; try again in a second")]
    Moved {
        /// The home as known here.
        pop: String,
    },
    /// Decisions have not ended. Nothing was changed.
    #[error("conditional writes have been under way for {} s without an end; try again later", MAX_PAUSE.as_secs())]
    Busy,
    /// The engine could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine could not write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Who decides for a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) region: String,
    pub(crate) pop: String,
    /// What it must hold before it decides.
    after: Cursor,
}

/// A home as its entry has it. What a later version adds is passed over.
#[derive(Serialize, Deserialize)]
struct Record {
    region: String,
    pop: String,
    /// What whoever set it had seen: a [`Cursor`].
    after: String,
}

/// No other home is set while this is held.
pub(crate) struct Deciding(#[expect(dead_code, reason = "it is held")] OwnedRwLockReadGuard<()>);

/// The homes of all namespaces, as this node's engine holds them.
pub struct Homes {
    engine: Engine,
    known: SystemCache<NamespaceId, Arc<Home>>,
    deciding: Arc<RwLock<()>>,
}

impl Homes {
    /// Those that this engine holds.
    pub fn new(engine: Engine) -> Self {
        Self { engine, known: SystemCache::default(), deciding: Arc::default() }
    }

    /// The home of a namespace, where it has one: a look-up in memory then, and in the store where not.
    pub(crate) fn of(&self, namespace: NamespaceId) -> Result<Option<Arc<Home>>, ReadError> {
        self.known.find(&self.engine, namespace, |_| {
            let found = self.engine.read(NamespaceId::SYSTEM, &row_key(namespace))?;
            found.map(|value| home_of(namespace, &value).map(Arc::new)).transpose()
        })
    }

    /// Whether a home is this PoP.
    pub(crate) fn is_here(&self, home: &Home) -> bool {
        home.pop == self.engine.pop()
    }

    /// Whether a home is, as far as this PoP knows, a member of the cluster.
    pub(crate) fn is_member(&self, home: &Home) -> bool {
        self.is_here(home) || self.engine.held().members.values().any(|member| member.pop == home.pop)
    }

    /// Lets this PoP decide, as long as what is given is kept.
    ///
    /// # Errors
    /// Where another PoP is the home by now, or this one does not know enough yet.
    pub(crate) async fn decide(&self, namespace: NamespaceId) -> Result<Deciding, HomeError> {
        let deciding = Deciding(self.deciding.clone().read_owned().await);
        let Some(home) = self.of(namespace)? else { return Ok(deciding) };
        let held = self.engine.held();
        // What is at or below the epoch is held by everyone.
        let lacks = || home.after.beyond(&Cursor::of(&held.here)).iter().any(|part| part.hlc > held.epoch);
        match self.is_here(&home) {
            false => Err(HomeError::Moved { pop: home.pop.clone() }),
            true if lacks() => Err(HomeError::Beginning { pop: home.pop.clone() }),
            true => Ok(deciding),
        }
    }

    /// Sets the home, or has each PoP decide for itself. To be done at the home that there is.
    pub(crate) async fn set(&self, namespace: NamespaceId, region: Option<&str>) -> Result<(), HomeError> {
        let pause = tokio::time::timeout(MAX_PAUSE, self.deciding.write());
        let _nobody_decides = pause.await.map_err(|_| HomeError::Busy)?;
        let current = self.of(namespace)?;
        if let Some(home) = &current
            && self.is_member(home)
            && !self.is_here(home)
        {
            return Err(HomeError::Moved { pop: home.pop.clone() });
        }
        let key = row_key(namespace).into();
        let write = match region {
            None if current.is_none() => return Ok(()),
            None => Write::Delete { namespace: NamespaceId::SYSTEM, key },
            Some(region) => {
                let (region, pop) = (region.to_owned(), self.choose(region)?);
                if current.is_some_and(|home| (&home.region, &home.pop) == (&region, &pop)) {
                    return Ok(());
                }
                let after = Cursor::of(&self.engine.seen().await?).encode(&purpose(namespace));
                let record = Record { region, pop, after };
                let json = serde_json::to_vec(&record).expect("texts are JSON");
                let value =
                    Value { payload: Payload::Inline(json.into()), metadata: None, expires_at_s: None };
                Write::Put { namespace: NamespaceId::SYSTEM, key, value }
            }
        };
        self.engine.write(vec![write], Ack::Durable).await?;
        Ok(())
    }

    /// The home as it is shown.
    pub(crate) fn report(&self, namespace: NamespaceId) -> Result<HomeReport, ReadError> {
        let home = self.of(namespace)?;
        Ok(HomeReport {
            namespace: namespace.to_string(),
            region: home.as_ref().map(|home| home.region.clone()),
            pop: home.map(|home| home.pop.clone()),
        })
    }

    /// The PoP of a region that is to decide: this one, if it can.
    fn choose(&self, region: &str) -> Result<String, HomeError> {
        let held = self.engine.held();
        let in_it: BTreeSet<&str> = held
            .members
            .values()
            .filter(|member| member.region == region)
            .map(|member| member.pop.as_str())
            .collect();
        let here = Some(self.engine.pop()).filter(|pop| in_it.contains(pop));
        here.or(in_it.first().copied()).map(str::to_owned).ok_or_else(|| {
            let present: BTreeSet<_> = held.members.values().map(|member| member.region.clone()).collect();
            HomeError::NoSuchRegion { region: region.to_owned(), present: present.into_iter().collect() }
        })
    }
}

/// The key of a namespace's home.
pub(crate) fn row_key(namespace: NamespaceId) -> Vec<u8> {
    format!("home/{namespace}").into_bytes()
}

/// What tells the cursor in a home from others.
fn purpose(namespace: NamespaceId) -> Vec<u8> {
    [&b"home "[..], &namespace.0].concat()
}

/// One that cannot be read is no reason to decide here.
fn home_of(namespace: NamespaceId, value: &Value) -> Result<Home, ReadError> {
    let record = match &value.payload {
        Payload::Inline(bytes) => serde_json::from_slice(bytes).ok(),
        Payload::Chunked(_) => None,
    };
    let unreadable =
        || ReadError { reason: "this version cannot read which PoP is the namespace's home".into() };
    let Record { region, pop, after }: Record = record.ok_or_else(unreadable)?;
    let after = Cursor::decode(&after, &purpose(namespace)).ok_or_else(unreadable)?;
    Ok(Home { region, pop, after })
}

#[cfg(test)]
mod tests {
    use replication::{Dot, Hlc, ReplicaId};

    use super::*;

    #[test]
    fn a_home_is_read_as_it_was_written_and_anything_else_is_an_error() {
        let namespace = NamespaceId([1; 16]);
        let mut after = Cursor::default();
        after.tell(Dot { hlc: Hlc::new(5, 0), replica: ReplicaId([2; 16]) }, 3);
        let read = |text: String| {
            let value = Value { payload: Payload::Inline(text.into()), metadata: None, expires_at_s: None };
            home_of(namespace, &value).ok()
        };
        let told = after.encode(&purpose(namespace));
        let home = Home { region: "eu".into(), pop: "fra1".into(), after: after.clone() };
        assert_eq!(read(format!(r#"{{"region":"eu","pop":"fra1","after":"{told}","more":1}}"#)), Some(home));
        let of_another = after.encode(&purpose(NamespaceId([2; 16])));
        for bad in [
            String::new(),
            "{}".into(),
            format!(r#"{{"region":"eu","after":"{told}"}}"#),
            r#"{"region":"eu","pop":"fra1","after":"x"}"#.into(),
            format!(r#"{{"region":"eu","pop":"fra1","after":"{of_another}"}}"#),
        ] {
            assert_eq!(read(bad.clone()), None, "{bad}");
        }
    }
}
