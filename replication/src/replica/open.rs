//! Opening a store: every row is read and checked, and what memory holds is made from them.
//!
//! The rule this file upholds: a store from which something is missing is not opened, since it would show missing rows
//! as absent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use super::chunk_index::ChunkRows;
use super::{Counters, OpenError, Replica, Settings, damaged, entry_of_row, epoch, membership};
use crate::clock::{Clock, Hlc, ReplicaId};
use crate::codec::row::{self, Identity};
use crate::codec::{Malformed, conflict, veil};
use crate::digest::{Digest, DigestTree};
use crate::entry::NamespaceId;
use crate::keys;
use crate::member::Members;
use crate::store::{Batch, Store};
use crate::vector::VersionVector;

impl<S: Store> Replica<S> {
    /// Opens a store; an empty one becomes the replica `fresh`. Reads every row: a row that fails its check,
    /// or rows missing against the last batch's summary, give [`OpenError::Damaged`].
    pub fn open(store: S, settings: Settings, fresh: ReplicaId) -> Result<Self, OpenError> {
        let mut replica = Self {
            id: fresh,
            settings,
            store,
            staged: Batch::new(),
            unflushed: false,
            failed: None,
            held: VersionVector::default(),
            ahead: super::reach::Ahead::default(),
            veils: super::veil::Veils::default(),
            durable: VersionVector::default(),
            durable_root: Digest::default(),
            origins: Vec::new(),
            clock: Clock::default(),
            tree: DigestTree::default(),
            entries: 0,
            log_rows: 0,
            let_go: BTreeSet::new(),
            ledger: super::conflicts::Ledger::default(),
            usages: super::usage::Usages::default(),
            waiting: epoch::Waiting::default(),
            epoch: Hlc::ZERO,
            sweep: None,
            put_off_since_us: None,
            thorough_due_us: None,
            members: Members::default(),
            progress: membership::Progress::default(),
            own_record: None,
            running_since_us: None,
            record_due_us: 0,
            tick_due_us: 0,
            returned_wait: false,
            carried: None,
            returned_cursor: vec![keys::RETURNED],
            peers: BTreeMap::new(),
            topology: super::topology::Topology::default(),
            peers_changed: false,
            peers_stored_us: 0,
            changed: None,
            documents: super::documents::Documents::default(),
            foldable: super::fold::Foldable::default(),
            rights: super::rights::Rights::default(),
            walk: None,
            events: VecDeque::new(),
            counters: Counters::default(),
        };
        match replica.store.read(keys::IDENTITY)? {
            Some(identity) => replica.load(&identity)?,
            None => replica.initialise()?,
        }
        Ok(replica)
    }

    fn initialise(&mut self) -> Result<(), OpenError> {
        let mut found = None;
        self.store.scan(&[], &mut |key, _| {
            found = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        if found.is_some() {
            return Err(OpenError::Damaged { reason: "there are rows, but no identity".into() });
        }
        let identity = Identity { replica: self.id, cluster: self.settings.cluster };
        self.staged.insert(keys::IDENTITY.to_vec(), Some(row::encode_identity(&identity)));
        self.origins.push(self.id);
        Ok(self.flush()?)
    }

    fn load(&mut self, identity: &[u8]) -> Result<(), OpenError> {
        let identity = row::decode_identity(identity).map_err(|why| damaged("the identity row", &why))?;
        if identity.cluster != self.settings.cluster {
            return Err(OpenError::OtherCluster);
        }
        self.id = identity.replica;
        let summary = self.store.read(keys::SUMMARY)?;
        let summary =
            summary.ok_or_else(|| OpenError::Damaged { reason: "the summary row is missing".into() })?;
        let summary = row::decode_summary(&summary).map_err(|why| damaged("the summary row", &why))?;
        self.origins = summary.origins.iter().map(|(origin, _)| *origin).collect();
        self.held = summary.origins.iter().copied().collect();
        self.clock = Clock::after(self.held.newest());
        self.epoch = summary.epoch;
        self.sweep = (!summary.swept).then(super::sweep::Sweep::thorough);
        let is_index_right = self.scan_rows()?;
        let found = self.summary();
        if found != summary {
            return Err(OpenError::Damaged {
                reason: format!(
                    "it has {} entries, {} log rows and root {}, but its last batch left {}, {} and {}",
                    found.entries,
                    found.log_rows,
                    found.root,
                    summary.entries,
                    summary.log_rows,
                    summary.root
                ),
            });
        }
        self.durable = self.held.clone();
        self.durable_root = self.tree.root();
        self.load_stage()?;
        self.load_peers()?;
        // A build that knew no index has written here, or rows of it are lost: it follows from the others.
        if is_index_right { Ok(()) } else { Ok(self.rebuild_chunk_index()?) }
    }

    /// Checks every row, and builds the tree and the counts from them. The clock takes note of every entry: states
    /// run ahead of claims, and a write must not lose to what its writer has seen. Gives whether the chunk index is what
    /// the states say.
    fn scan_rows(&mut self) -> Result<bool, OpenError> {
        let (own, mut fault) = (self.id, None);
        let (mut listed, mut named) = (ChunkRows::default(), ChunkRows::default());
        let Self {
            store,
            clock,
            tree,
            entries,
            log_rows,
            ledger,
            origins,
            settings,
            usages,
            documents,
            waiting,
            members,
            returned_wait,
            held,
            ahead,
            veils,
            ..
        } = self;
        let mut goes_on = false;
        store.scan(&[], &mut |row_key, row| {
            let checked = match row_key.first() {
                Some(&keys::ENTRY) => row::decode_entry(row_key, &row).and_then(|decoded| {
                    let id = keys::parse_entry(row_key).ok_or(Malformed::Form("a foreign row key".into()))?;
                    let entry = entry_of_row(origins, decoded)?;
                    if !planted!(ClockFromClaimsOnly) {
                        clock.observe(entry.dot.hlc);
                    }
                    let name = settings.digest_key.name_hash(&id);
                    tree.replace(name, None, Some(settings.digest_key.state_digest(name, &entry)));
                    *entries += 1;
                    usages.change(&id, None, Some(&entry.body));
                    documents.found(own, &id, &entry);
                    waiting.entry_came(&id, &entry);
                    ahead.note(held, &entry);
                    named.add_all(row_key, &entry.body);
                    if id.namespace == NamespaceId::SYSTEM {
                        members.note(&id, &entry);
                    }
                    Ok(())
                }),
                Some(&keys::CONFLICT) => conflict::decode_conflict(row_key, &row).map(|conflict| {
                    ledger.add(super::conflicts::kept_bytes(row_key, row.len(), &conflict));
                    named.add_all(row_key, &conflict.lost.body);
                }),
                Some(&keys::CONFLICT_AGE) => conflict::decode_conflict_age(row_key, &row),
                Some(&keys::LOG) => row::decode_log(row_key, Hlc::ZERO, &row).map(|log_row| {
                    if let Some((index, hlc)) = keys::parse_any_log(row_key)
                        && let Some(origin) = origins.get(usize::from(index))
                        && std::mem::replace(&mut goes_on, log_row.goes_on)
                    {
                        veils.note_end(*origin, hlc);
                    }
                    *log_rows += 1;
                    waiting.log_row_came(row_key.len() + row.len());
                }),
                Some(&keys::VEIL) => veil::shown_body(row_key, &row).map(|shown| {
                    shown.iter().for_each(|body| named.add_all(row_key, body));
                    veils.found(&row_key[1..]);
                }),
                _ if row_key == keys::VEILING => {
                    veil::decode_veiling(&row).map(|veiling| veils.found_veiling(veiling))
                }
                Some(&keys::RETURNED) => row::decode_returned(row_key, &row).map(|state| {
                    *returned_wait = true;
                    named.add_all(row_key, &state.entry.body);
                }),
                Some(&keys::CHUNK) => {
                    row::decode_chunk(row_key, &row).map(|bytes| listed.add(row_key, bytes))
                }
                _ => Ok(()),
            };
            match checked {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    fault = Some(damaged(&format!("the row {}", row_key.escape_ascii()), &why));
                    ControlFlow::Break(())
                }
            }
        })?;
        fault.map_or(Ok(listed == named), Err)
    }
}
