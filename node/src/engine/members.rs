//! What operators ask of the engine about members, garbage and dead letters, and what they have it do.
//!
//! The rule this file upholds: a question is answered, and an order confirmed, after the turn's flush: what was done is
//! durable by then. An order that could lose writes is refused unless it says that it may.

use littoral::api::State;
use littoral::api::members::{
    ChunkGarbage, Copy, DeadLetter, DeadLetters, Garbage, GarbageReport, Holder, Member, MembersReport,
    Reason, Removed, Stage,
};
use replication::codec::message::Stage as CoreStage;
use replication::codec::round::RepairRow;
use replication::replica::{Quorum, Standing, WriteError as CoreError};
use replication::{Dot, Hlc, RemovalReason, Replica, ReplicaId, StoreError};
use tokio::sync::oneshot;

use super::Engine;
use super::driver::Driver;
use super::inbox::Command;
use crate::storage::SledStore;

/// What the engine does in a turn, for one who waits.
pub(super) type Act = Box<dyn FnOnce(&mut Driver) -> Answer + Send>;
/// Tells the one who waits, after the flush; with what failed there.
pub(super) type Answer = Box<dyn FnOnce(Option<&StoreError>)>;

/// Why the engine did not do what an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// There is no such member.
    #[error("no member has the replica id {replica}: GET /v1/members lists them")]
    NoSuchMember {
        /// What was named.
        replica: String,
    },
    /// There is no such dead letter.
    #[error("there is no dead letter {dot}: GET /v1/dead-letters lists them")]
    NoSuchLetter {
        /// What was named.
        dot: String,
    },
    /// A node cannot remove itself.
    #[error("this is the node that you ask: ask another PoP to remove it")]
    Itself,
    /// It would lose writes, or may.
    #[error("{pop} cannot be removed without the risk of loss: {why}. {loss}, if it is forced")]
    WouldLose {
        /// The member.
        pop: String,
        /// What stands in the way.
        why: String,
        /// What would be lost.
        loss: String,
    },
    /// The node does not serve, its clock is off, its store has failed, or it is stopping.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl Engine {
    /// The cluster as this node knows it.
    ///
    /// # Errors
    /// Where this node has no replica, or is stopping.
    pub async fn members(&self) -> Result<MembersReport, OperatorError> {
        self.operate(|driver| Ok(members(driver, driver.asked_replica()?))).await
    }

    /// Has a member take no more writes, or take them again. Gives the members as they are then.
    ///
    /// # Errors
    /// Where there is no such member, or this node cannot write.
    pub async fn drain_member(&self, id: &str, draining: bool) -> Result<MembersReport, OperatorError> {
        let id = id.to_owned();
        self.operate(move |driver| {
            let replica = find_member(driver, &id)?;
            driver.order(|core, now| core.drain_member(now, replica, draining))?;
            Ok(members(driver, driver.asked_replica()?))
        })
        .await
    }

    /// Takes a member out for ever. Gives the members as they are then.
    ///
    /// # Errors
    /// Where there is no such member, or it is this node, or writes may be lost and `force` is not set.
    pub async fn remove_member(&self, id: &str, force: bool) -> Result<MembersReport, OperatorError> {
        let id = id.to_owned();
        self.operate(move |driver| {
            let replica = find_member(driver, &id)?;
            check_removal(driver, replica, force)?;
            driver.order(|core, now| core.remove_member(now, replica, RemovalReason::Operator))?;
            Ok(members(driver, driver.asked_replica()?))
        })
        .await
    }

    /// What waits to be dropped, and for whom.
    ///
    /// # Errors
    /// As [`Engine::members`].
    pub async fn garbage(&self) -> Result<GarbageReport, OperatorError> {
        self.operate(|driver| {
            let replica = driver.asked_replica()?;
            let holders = replica.garbage().holders;
            let holder = |holder: replication::replica::Holder| Holder {
                pop: driver.pop_of(holder.member),
                replica: holder.member.to_string(),
                connected: holder.member == replica.id() || driver.is_linked(holder.member),
                origin: driver.pop_of(holder.origin),
                upto_ms: holder.upto.wall_ms(),
            };
            Ok(GarbageReport {
                pop: driver.settings.pop.clone(),
                now_ms: driver.now().wall_ms,
                epoch_every_ms: driver.settings.replica.epoch_every_ms,
                garbage: garbage(replica),
                max_waiting_bytes: driver.settings.replica.max_waiting_bytes,
                holders: holders.into_iter().map(holder).collect(),
                // The engine knows no files.
                chunks: ChunkGarbage::default(),
            })
        })
        .await
    }

    /// Writes of earlier incarnations that are not part of the state.
    ///
    /// # Errors
    /// As [`Engine::members`].
    pub async fn dead_letters(&self) -> Result<DeadLetters, OperatorError> {
        self.operate(|driver| dead_letters(driver)).await
    }

    /// Writes a dead letter anew, or forgets it. Gives those that are left.
    ///
    /// # Errors
    /// Where there is no such letter, or this node cannot write.
    pub async fn settle_dead_letter(&self, dot: &str, write: bool) -> Result<DeadLetters, OperatorError> {
        let name = dot.to_owned();
        self.operate(move |driver| {
            let none = || OperatorError::NoSuchLetter { dot: name.clone() };
            let dot = parse_dot(&name).ok_or_else(none)?;
            if !driver.order(|core, now| core.settle_dead_letter(now, dot, write))? {
                return Err(none());
            }
            // What is staged only is not in the listing, nor out of it.
            driver.with_replica(|core| core.flush()).unwrap_or(Ok(())).map_err(store_failed)?;
            dead_letters(driver)
        })
        .await
    }

    pub(super) async fn operate<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Driver) -> Result<T, OperatorError> + Send + 'static,
    ) -> Result<T, OperatorError> {
        let (reply, answer) = oneshot::channel();
        let act: Act = Box::new(move |driver| {
            let found = question(driver);
            Box::new(move |failed| {
                let found = failed.map_or(found, |error| Err(store_failed(error.clone())));
                // Whoever asked may be gone.
                let _ = reply.send(found);
            })
        });
        self.shared.inbox.queue(Command::Act { act });
        let stopping = || OperatorError::Unavailable { reason: "this node is stopping".into() };
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl Driver {
    fn asked_replica(&self) -> Result<&Replica<SledStore>, OperatorError> {
        self.replica.as_ref().ok_or_else(|| OperatorError::Unavailable { reason: self.condition().explain() })
    }

    /// Stages an order, if this node serves.
    pub(super) fn order<T>(
        &mut self,
        order: impl FnOnce(&mut Replica<SledStore>, replication::Now) -> Result<T, CoreError>,
    ) -> Result<T, OperatorError> {
        let condition = self.condition();
        let now = self.now();
        let Some(replica) = self.replica.as_mut().filter(|_| condition.state == State::Ready) else {
            return Err(OperatorError::Unavailable { reason: condition.explain() });
        };
        order(replica, now).map_err(|error| OperatorError::Unavailable { reason: error.to_string() })
    }
}

fn store_failed(error: StoreError) -> OperatorError {
    OperatorError::Unavailable { reason: error.reason }
}

fn find_member(driver: &Driver, id: &str) -> Result<ReplicaId, OperatorError> {
    let members = driver.asked_replica()?.members();
    let found = id.parse().ok().filter(|replica| members.contains(*replica));
    found.ok_or_else(|| OperatorError::NoSuchMember { replica: id.to_owned() })
}

fn check_removal(driver: &Driver, member: ReplicaId, force: bool) -> Result<(), OperatorError> {
    let replica = driver.asked_replica()?;
    if member == replica.id() {
        return Err(OperatorError::Itself);
    }
    let standing = replica.standings(driver.now()).into_iter().find(|standing| standing.replica == member);
    match standing.as_ref().and_then(|standing| Some((standing, standing.obstacle?))) {
        Some((standing, why)) if !force => Err(OperatorError::WouldLose {
            pop: driver.pop_of(member),
            why: why.to_string(),
            loss: loss(standing, replica.quorum()),
        }),
        _ => Ok(()),
    }
}

/// What may be lost, in words.
fn loss(standing: &Standing, quorum: Quorum) -> String {
    let unknown = if standing.connected {
        "what it writes until it hears of its removal"
    } else {
        "what it has written since it was last heard"
    };
    let lost = match standing.unsent_ops {
        0 => format!("Lost is {unknown}"),
        ops => format!("Lost are up to {ops} events that are known of, and {unknown}"),
    };
    if quorum.is_met() {
        return lost;
    }
    let Quorum { here, of } = quorum;
    format!(
        "{lost}; and with {here} of {of} members here, what is deleted from now on, if others go on without this one"
    )
}

fn members(driver: &Driver, replica: &Replica<SledStore>) -> MembersReport {
    let copy = replica.copied().map(|(entries, total)| Copy { entries, total });
    let standings = replica.standings(driver.now()).into_iter();
    let mut members: Vec<Member> = standings.map(|standing| member(driver, replica, standing)).collect();
    members.sort_by(|a, b| (&a.pop, &a.replica).cmp(&(&b.pop, &b.replica)));
    let mut removed: Vec<Removed> = replica
        .members()
        .iter()
        .filter_map(|(id, member)| Some((id, member.removed?)))
        .map(|(id, (why, at))| Removed {
            pop: driver.pop_of(id),
            replica: id.to_string(),
            reason: reason(why),
            removed_ms: at.hlc.wall_ms(),
        })
        .collect();
    removed.sort_by(|a, b| (&a.pop, a.removed_ms).cmp(&(&b.pop, b.removed_ms)));
    MembersReport {
        pop: driver.settings.pop.clone(),
        replica: replica.id().to_string(),
        stage: stage(replica.stage()),
        copy,
        members,
        removed,
    }
}

fn member(driver: &Driver, replica: &Replica<SledStore>, standing: Standing) -> Member {
    let known = replica.members().find(standing.replica);
    let record = known.and_then(|known| known.record.as_ref());
    Member {
        pop: driver.pop_of(standing.replica),
        region: record.map(|record| record.region.clone()).unwrap_or_default(),
        replica: standing.replica.to_string(),
        is_this: standing.replica == replica.id(),
        connected: standing.connected,
        stage: standing.stage.map(stage),
        draining: known.is_some_and(|known| known.draining),
        lacks_ops: standing.lacks_ops,
        unsent_ops: standing.unsent_ops,
        joined_ms: known.and_then(|known| known.joined).map_or(0, |joined| joined.hlc.wall_ms()),
        last_known_ms: standing.last_known_ms,
        kept_because: standing.obstacle.map(|obstacle| obstacle.to_string()),
    }
}

fn dead_letters(driver: &Driver) -> Result<DeadLetters, OperatorError> {
    let letters = driver.asked_replica()?.dead_letters().map_err(store_failed)?;
    Ok(DeadLetters { pop: driver.settings.pop.clone(), letters: letters.iter().map(dead_letter).collect() })
}

fn dead_letter(state: &RepairRow) -> DeadLetter {
    DeadLetter {
        dot: show_dot(state.entry.dot),
        written_ms: state.entry.dot.hlc.wall_ms(),
        namespace: state.id.namespace.to_string(),
        key: String::from_utf8_lossy(&state.id.key).into_owned(),
        bytes: (!state.entry.body.is_tombstone()).then(|| state.entry.user_bytes()),
    }
}

/// An event's name in paths: its time in 16 hexadecimal digits, and its replica.
pub(crate) fn show_dot(dot: Dot) -> String {
    format!("{:016x}-{}", dot.hlc.to_bits(), dot.replica)
}

/// The event of this name.
pub(crate) fn parse_dot(text: &str) -> Option<Dot> {
    let (hlc, replica) = text.split_once('-')?;
    let bits = replication::clock::parse_hex::<8>(hlc).ok()?;
    Some(Dot { hlc: Hlc::from_bits(u64::from_be_bytes(bits)), replica: replica.parse().ok()? })
}

pub(super) fn garbage(replica: &Replica<SledStore>) -> Garbage {
    let found = replica.garbage();
    Garbage {
        epoch_ms: found.epoch.wall_ms(),
        swept: found.swept,
        frontier_ms: found.frontier.wall_ms(),
        tombstones: found.waiting.tombstones,
        tombstone_bytes: found.waiting.tombstone_bytes,
        expiring: found.waiting.expiring,
        log_rows: found.log_rows,
        log_bytes: found.waiting.log_bytes,
    }
}

pub(super) fn stage(stage: CoreStage) -> Stage {
    match stage {
        CoreStage::Fresh => Stage::Fresh,
        CoreStage::Copying => Stage::Copying,
        CoreStage::CatchingUp => Stage::CatchingUp,
        CoreStage::Member => Stage::Member,
        CoreStage::Removed => Stage::Removed,
    }
}

fn reason(reason: RemovalReason) -> Reason {
    match reason {
        RemovalReason::Operator => Reason::Operator,
        RemovalReason::Silent => Reason::Silent,
        RemovalReason::Replaced => Reason::Replaced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_name_parses_back_and_nothing_else_does() {
        let dot = Dot { hlc: Hlc::new(1_700_000_000_000, 7), replica: ReplicaId([0xab; 16]) };
        let name = show_dot(dot);
        assert_eq!(parse_dot(&name), Some(dot));
        for wrong in ["", "-", &name[1..], &name[..40], &format!("{name}0"), &name.replace('-', "+")] {
            assert_eq!(parse_dot(wrong), None, "{wrong}");
        }
    }
}
