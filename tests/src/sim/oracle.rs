//! What must hold, said without a word of how replicas work: only of writes, acknowledgements and claims.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use replication::codec::row;
use replication::{Body, Dot, EntryId, Hlc, Now, Replica, ReplicaId, Store, keys};

use super::disk::Disk;

/// Every write there was.
#[derive(Default)]
pub struct Oracle {
    /// Acknowledged as durable, or found so after a crash.
    durable: BTreeMap<Dot, (EntryId, Body)>,
    /// Staged when their node crashed: its store tells at the next start whether they survived.
    unsettled: BTreeMap<Dot, (EntryId, Body)>,
    /// The newest durable write of each entry.
    newest: BTreeMap<EntryId, Dot>,
}

impl Oracle {
    /// This write was acknowledged.
    ///
    /// # Errors
    /// Where its dot was acknowledged before for another write.
    pub fn acknowledge(&mut self, dot: Dot, id: EntryId, body: Body) -> Result<(), String> {
        let newest = self.newest.entry(id.clone()).or_insert(dot);
        *newest = dot.max(*newest);
        match self.durable.insert(dot, (id, body)) {
            Some(_) => Err(format!("the dot {dot:?} was used twice")),
            None => Ok(()),
        }
    }

    /// This write's node crashed before it was acknowledged.
    pub fn crashed(&mut self, dot: Dot, id: EntryId, body: Body) {
        self.unsettled.insert(dot, (id, body));
    }

    /// The node has started again: of its unacknowledged writes, those in its store stand, and the others
    /// must never be seen anywhere.
    pub fn started(&mut self, replica: &Replica<Disk>) -> Result<(), String> {
        let (mine, others) =
            std::mem::take(&mut self.unsettled).into_iter().partition(|(dot, _)| dot.replica == replica.id());
        self.unsettled = others;
        let mine: BTreeMap<Dot, (EntryId, Body)> = mine;
        for (dot, (id, body)) in mine.into_iter().filter(|(dot, _)| replica.vector().covers(*dot)) {
            self.acknowledge(dot, id, body)?;
        }
        Ok(())
    }

    /// A replica claims all that it has acknowledged itself.
    pub fn check_own(&self, replica: &Replica<Disk>) -> Result<(), String> {
        let newest = self.durable.keys().filter(|dot| dot.replica == replica.id()).max();
        match newest.filter(|dot| !replica.vector().covers(**dot)) {
            Some(dot) => Err(format!("{:?} has acknowledged {dot:?}, and does not claim it", replica.id())),
            None => Ok(()),
        }
    }

    /// `vector[o] >= t` implies the effect of all of `o`'s acknowledged events up to `t`.
    pub fn check_claims(&self, replica: &Replica<Disk>) -> Result<(), String> {
        let entries = entries(replica)?;
        for (dot, (id, _)) in self.durable.iter().filter(|(dot, _)| replica.vector().covers(**dot)) {
            if entries.get(id).is_none_or(|(held, _)| held < dot) {
                return Err(format!(
                    "{:?} claims to hold {dot:?} on {:?}, and does not",
                    replica.id(),
                    id.key
                ));
            }
        }
        Ok(())
    }

    /// What a replica holds of another was durable there before it left.
    pub fn check_origins(&self, replica: &Replica<Disk>) -> Result<(), String> {
        let foreign = entries(replica)?.into_iter().filter(|(_, (dot, _))| dot.replica != replica.id());
        match foreign.map(|(id, (dot, _))| (id, dot)).find(|(_, dot)| !self.durable.contains_key(dot)) {
            Some((id, dot)) => Err(format!(
                "{:?} holds {dot:?} on {:?}, which its origin has not made durable",
                replica.id(),
                id.key
            )),
            None => Ok(()),
        }
    }

    /// A replica knows of its own events exactly how many each peer lacks.
    pub fn check_lag(&self, replica: &Replica<Disk>, now: Now) -> Result<(), String> {
        let me = replica.id();
        let lags = replica.lag(now).map_err(|error| error.to_string())?;
        for peer in replica.peers() {
            let missing = self.durable_after(me, peer.claims.hlc(me), replica.vector().hlc(me));
            let said = lags.iter().find(|lag| lag.origin == me && lag.replica == peer.replica);
            let said = said.ok_or_else(|| format!("{me:?} does not tell the lag of {:?}", peer.replica))?;
            if said.ops != missing {
                return Err(format!(
                    "{me:?} says {:?} lacks {} events, and it lacks {missing}",
                    peer.replica, said.ops
                ));
            }
        }
        Ok(())
    }

    /// Durable events of `origin` after one time and up to another.
    fn durable_after(&self, origin: ReplicaId, after: Hlc, upto: Hlc) -> u64 {
        let inside = |dot: &&Dot| dot.replica == origin && dot.hlc > after && dot.hlc <= upto;
        self.durable.keys().filter(inside).count() as u64
    }

    /// At the end: the surviving state of every entry is a write that was issued, as it was issued, and no older
    /// than any that was acknowledged.
    pub fn check_end(&self, replica: &Replica<Disk>) -> Result<(), String> {
        let entries = entries(replica)?;
        for (id, newest) in &self.newest {
            let (dot, body) = entries.get(id).ok_or_else(|| format!("the entry {:?} is lost", id.key))?;
            if dot < newest {
                return Err(format!("{:?} stands at {dot:?}, though {newest:?} was acknowledged", id.key));
            }
            let issued = self.durable.get(dot);
            if issued != Some(&(id.clone(), body.clone())) {
                return Err(format!(
                    "{:?} has {body:?} by {dot:?}, but what was issued is {issued:?}",
                    id.key
                ));
            }
        }
        Ok(())
    }
}

/// One entry as its store has it, staged changes left out.
pub(super) fn entry(replica: &Replica<Disk>, id: &EntryId) -> Result<Option<(Dot, Body)>, String> {
    let row_key = keys::entry(id);
    let row = replica.store().read(&row_key).map_err(|error| error.to_string())?;
    row.map(|row| decoded(&origins(replica)?, &row_key, &row)).transpose()
}

/// The entries of a store, with the dots that wrote them.
pub(super) fn entries(replica: &Replica<Disk>) -> Result<BTreeMap<EntryId, (Dot, Body)>, String> {
    let origins = origins(replica)?;
    let mut entries = BTreeMap::new();
    let scanned = replica.store().scan(&[keys::ENTRY], &mut |row_key, row| {
        if let Some(id) = keys::parse_entry(row_key) {
            entries.insert(id, decoded(&origins, row_key, &row));
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    entries.into_iter().map(|(id, entry)| Ok((id, entry?))).collect()
}

fn decoded(origins: &[ReplicaId], row_key: &[u8], row: &Bytes) -> Result<(Dot, Body), String> {
    let row = row::decode_entry(row_key, row).map_err(|why| why.to_string())?;
    let replica = origins.get(usize::from(row.origin_index)).ok_or("a row of an origin without a name")?;
    Ok((Dot { hlc: row.hlc, replica: *replica }, row.body))
}

/// The origins by their index in the rows of this store.
fn origins(replica: &Replica<Disk>) -> Result<Vec<ReplicaId>, String> {
    let Some(summary) = replica.store().read(keys::SUMMARY).map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let summary = row::decode_summary(&summary).map_err(|why| why.to_string())?;
    Ok(summary.origins.into_iter().map(|(origin, _)| origin).collect())
}
