//! Who holds what was written, or seen: of each member, and how far it is behind.

use littoral::api::whereabouts::{HeldAt, Holders};
use replication::replica::Lag;
use replication::{Replica, ReplicaId, StoreError};

use super::reach::Named;
use super::{Engine, ReadError};
use crate::cursor::{Beyond, Cursor};
use crate::storage::SledStore;

impl Engine {
    /// Which members hold all that this cursor reaches; `None` where it has an origin that nobody knows.
    ///
    /// # Errors
    /// In quarantine, or when the store has failed.
    pub(crate) async fn holders(&self, of: Cursor) -> Result<Option<Holders>, ReadError> {
        let members = self.held().members.clone();
        let pop = self.pop().to_owned();
        let found = self.ask(move |replica, now| {
            if !is_known(replica, &of) {
                return Ok(None);
            }
            let lags = replica.lag(now)?;
            let shown = |member| held_at(replica, member, members.get(&member), &of, &lags);
            let mut holders: Vec<HeldAt> =
                replica.members().current().map(|(member, _)| shown(member)).collect();
            holders.sort_by(|a, b| (&a.pop, &a.replica).cmp(&(&b.pop, &b.replica)));
            Ok(Some(Holders { pop, members: holders }))
        });
        found.await?.map_err(|error: StoreError| ReadError { reason: error.reason })
    }
}

/// Whether all origins are ones that this replica has met, members or not. What everyone holds needs no origin.
fn is_known(replica: &Replica<SledStore>, of: &Cursor) -> bool {
    let met = || replica.vector().iter().map(|(origin, _)| origin);
    let members = || replica.members().iter().map(|(member, _)| member);
    let is_met = |part: &Beyond| part.is_of_all() || met().chain(members()).any(|origin| part.is_of(origin));
    of.beyond(&Cursor::default()).iter().all(is_met)
}

fn held_at(
    replica: &Replica<SledStore>,
    member: ReplicaId,
    named: Option<&Named>,
    of: &Cursor,
    lags: &[Lag],
) -> HeldAt {
    let claims = replica.held_by(member);
    let lacks = |part: &Beyond| {
        let is_complete = || replica.members().current().all(|(origin, _)| claims.hlc(origin) >= part.hlc);
        part.hlc > replica.epoch() && !(part.is_of_all() && is_complete())
    };
    let mut held = HeldAt {
        pop: named.map(|named| named.pop.clone()).unwrap_or_default(),
        region: named.map(|named| named.region.clone()).unwrap_or_default(),
        replica: member.to_string(),
        is_this: member == replica.id(),
        holds: !of.beyond(&Cursor::of(&claims)).iter().any(lacks),
        ..HeldAt::default()
    };
    let of_origin = |lag: &&Lag| of.beyond(&Cursor::default()).iter().any(|part| part.is_of(lag.origin));
    for lag in lags.iter().filter(|lag| lag.replica == member).filter(of_origin) {
        held.ops += lag.ops;
        held.bytes += lag.bytes;
        held.time_ms = held.time_ms.max(lag.time_ms);
    }
    held
}
