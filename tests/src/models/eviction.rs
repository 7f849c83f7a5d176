//! How a replica is put out for ever, and how what only it had comes back: fence, cut, new incarnation, replay.
//!
//! A, B and C are members that all hold an old value. C has made a write that it acknowledged to its client, B deletes
//! the key, and A removes C, in any order. Then C may come back as D. The rules, as [`Rule::Built`] has them:
//!
//! - *Removal* is a record, an event of A. Who holds it counts C no longer among those who must hold everything,
//!   and takes no frame from C itself (the *fence*), but still takes C's events from others.
//! - C's events hold the epoch back until the *cut* is known: the last heartbeat of each member, as a whole,
//!   covers the record, all have the same component of C, and the events of each member up to that heartbeat are
//!   held here, so that no joiner of theirs is unknown.
//! - A *joiner* is admitted by a record, an event of its sponsor, and copies only then. A copied entry replaces what
//!   the joiner has. With the last one it claims what its source held when the copy began, and takes the epoch
//!   its source has at the end.
//! - Who hears of an epoch that its vector does not cover is *behind*: a joiner copies anew.
//! - A joiner is a *member* once it holds, of each member, everything up to the Hlc of its own admission, and knows
//!   the cut of whoever is removed. Whoever does not know of it can only reach epochs below that Hlc.
//! - A stream is served from no lower than the epoch, below which the log is gone; except that of an origin that was
//!   admitted above the epoch, and so has no events below.
//! - *Replay*: a write that only C had is written anew by D when it is a member, if what D has is older. Where D has
//!   nothing, the write is written anew if it is above the epoch, and is a *dead letter* if not.
//!
//! Bounds: C was cut off before it made its write at Hlc 2; it hears nothing any more, and its frames may still come.
//! B deletes at Hlc 3. The removal is at [`Eviction::removal_hlc`], below the epoch or above. There is one epoch to
//! reach, [`EPOCH`]. An event comes from its origin, C's from anyone. In [`Play::Return`] A admits D, in
//! [`Play::Growth`] B does. An exchange of events is one step, since what frames in flight can do is the matter of
//! the other model, and so is anti-entropy. The epoch is reached by claims as they are, which is what lagging ones
//! come to; the heartbeats that tell the cut lag.

mod rules;

use stateright::{Model, Property};

/// A, B, C, and D, which is C's new incarnation or another joiner.
const REPLICAS: usize = 4;
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;
/// All but the one that goes.
const LASTING: [usize; 3] = [A, B, D];

/// The epoch that all are to reach; the one before is 0.
pub const EPOCH: u8 = 3;

/// The rules, or a variant that leaves one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As the core does it.
    Built,
    /// The cut is taken from acknowledgements of single origins, joined as they come.
    CutOfAcknowledgements,
    /// The cut is what the replica itself has.
    CutOfOne,
    /// The cut is taken though a member may have admitted joiners that are not known here.
    CutWithoutJoiners,
    /// No cut: C stops to count as soon as the record is held.
    NoCut,
    /// Who holds the record still takes C's frames.
    NoFence,
    /// C comes back with what it had, and others merge it.
    OldStoreMerged,
    /// Writes that are absent and at or below the epoch are replayed too.
    OldWritesReplayed,
    /// D is a member as soon as it holds what all others held when it was admitted.
    MemberEarly,
    /// D is a member though it does not know the cut of a removed origin.
    MemberWithoutCut,
    /// The log of an origin admitted above the epoch counts as cut off at the epoch, as all others.
    FloorOfNewOrigin,
    /// D takes the epoch that its source had when the copy began.
    EpochOfBegin,
    /// A joiner copies before it is admitted, and does not notice that it is behind.
    CopyBeforeAdmission,
    /// A joiner is admitted first, but does not notice that it is behind.
    BehindUnnoticed,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// C comes back as D.
    Return,
    /// D is another joiner, which may come before C goes; C stays away.
    Growth,
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// The rules that are tried.
    pub rule: Rule,
    /// What is played.
    pub play: Play,
    /// The Hlc of the removal, which may be below the epoch or above.
    pub removal_hlc: u8,
}

/// The states the key can have, by who writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Write {
    /// A's, which all hold when it begins.
    Old,
    /// C's, acknowledged to its client.
    Unsent,
    /// B's tombstone.
    Delete,
    /// D's, with the value of `Unsent`.
    Replayed,
}

const WRITES: [Write; 4] = [Write::Old, Write::Unsent, Write::Delete, Write::Replayed];

type Vector = [u8; REPLICAS];

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    replicas: [Replica; REPLICAS],
    /// The Hlc of each write; 0 while it is not made.
    issued: [u8; 4],
    /// The Hlc of the record that removes C, an event of A; 0 while there is none.
    removal: u8,
    /// The record that admits D: its sponsor and Hlc.
    admission: Option<(usize, u8)>,
    /// What D must hold of its sponsor's claims, see [`Rule::MemberEarly`].
    target: Vector,
    /// The greatest claims that D ever made: others know them still when D copies anew.
    claimed: Vector,
    copy: Option<Session>,
    salvage: Salvage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    /// Not there yet, or no more; C's end too.
    #[default]
    Out,
    /// Admitted, without a finished copy.
    Copying,
    CatchingUp,
    Member,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Replica {
    stage: Stage,
    held: Vector,
    epoch: u8,
    entry: Option<Write>,
    /// For the properties alone: the newest state it ever had.
    newest: Option<Write>,
    /// What it knows of each other's last heartbeat, as far as the cut needs it.
    heard: [Heartbeat; REPLICAS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Heartbeat {
    /// It covers the removal.
    removal: bool,
    /// Its component of C.
    cut: u8,
    /// Its sender's own component; 0 once the receiver holds that.
    own: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    source: usize,
    base: Vector,
    epoch: u8,
    row: bool,
}

/// What became of C's own write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Salvage {
    /// C is not told yet that it is out.
    Away,
    /// C had nothing that others might not have.
    Nothing,
    /// It lies in D's store.
    Waits,
    Superseded,
    Anew,
    /// Written anew though a newer delete was dropped somewhere before.
    AnewTooLate,
    DeadLetter,
}

/// A step of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// B deletes the key.
    WriteDelete,
    /// An idle replica lets its own component rise.
    Idle(usize),
    /// A replica takes over what another holds of an origin.
    Exchange {
        /// Who has it.
        from: usize,
        /// Who takes it.
        to: usize,
        /// Whose events.
        origin: usize,
    },
    /// A replica hears of a higher epoch.
    Adopt {
        /// Who has it.
        from: usize,
        /// Who takes it over.
        to: usize,
    },
    /// A replica raises its epoch to the stable frontier.
    Advance(usize),
    /// A replica drops the tombstone.
    Sweep(usize),
    /// A heartbeat comes, as far as the cut and D's stage need it.
    Heartbeat {
        /// Its sender.
        from: usize,
        /// Its receiver.
        to: usize,
    },
    /// An acknowledgement for one origin comes.
    Acknowledge {
        /// Who claims.
        from: usize,
        /// Who learns of it.
        to: usize,
        /// Whose events.
        origin: usize,
    },
    /// A removes C.
    Remove,
    /// C hears that it is out, and salvages.
    Tell(usize),
    /// A sponsor admits D.
    Admit(usize),
    /// D begins to copy.
    BeginCopy(usize),
    /// The row comes.
    CopyRow,
    /// The last frame of the copy comes.
    EndCopy,
    /// D becomes a member.
    Join,
    /// D replays what was salvaged.
    Replay,
    /// A replica merges C's old store.
    MergeOldStore(usize),
}

/// No replica shows what it had replaced or deleted.
pub const STAYS_DELETED: &str = "no replica goes back to an older state than it had, or forgets a value";
/// What C acknowledged is accounted for.
pub const NOT_LOST: &str = "C's write is visible, superseded, to be replayed, or a dead letter";
/// A replay never outlives a delete that was settled before.
pub const REPLAYED_IN_TIME: &str = "nothing is written anew of which a newer delete was at or below an epoch";
/// Claims are what they say.
pub const CLAIMS_TRUE: &str = "a claim means that the effect of each event up to it is held";
/// A member never has to stop.
pub const NOT_BEHIND: &str = "no member is behind an epoch, but C once it is removed";
/// The cut is where C ends.
pub const CUT_HOLDS: &str = "nobody holds more of C than a member whose epoch has passed C";
/// Nothing waits for ever.
pub const CONVERGES: &str = "where nothing is left to do, all agree, and no tombstone is left";
const CUT: &str = "the epoch passes C's last event";
const PENDING: &str = "D is a member and has something to replay";
const DEAD_LETTER: &str = "a write becomes a dead letter";

impl Model for Eviction {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        let member = |held| Replica {
            stage: Stage::Member,
            held,
            entry: Some(Write::Old),
            newest: Some(Write::Old),
            ..Replica::default()
        };
        let mut replicas = [
            member([self.removal_hlc - 1, 2, 1, 0]),
            member([1, 2, 1, 0]),
            member([1, 2, 2, 0]),
            Replica::default(),
        ];
        (replicas[C].entry, replicas[C].newest) = (Some(Write::Unsent), Some(Write::Unsent));
        vec![Cluster {
            replicas,
            issued: [1, 2, 0, 0],
            removal: 0,
            admission: None,
            target: [0; REPLICAS],
            claimed: [0; REPLICAS],
            copy: None,
            salvage: Salvage::Away,
        }]
    }

    fn actions(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        self.steps(cluster, steps);
    }

    fn next_state(&self, before: &Cluster, step: Step) -> Option<Cluster> {
        let mut cluster = before.clone();
        self.take(before, &mut cluster, step);
        cluster.forget_what_no_longer_counts();
        Some(cluster)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(STAYS_DELETED, |_, cluster: &Cluster| cluster.stays_deleted()),
            Property::always(NOT_LOST, |_, cluster: &Cluster| cluster.unsent_is_accounted_for()),
            Property::always(CLAIMS_TRUE, |_, cluster: &Cluster| cluster.claims_true()),
            Property::always(REPLAYED_IN_TIME, |_, cluster: &Cluster| {
                cluster.salvage != Salvage::AnewTooLate
            }),
            Property::always(NOT_BEHIND, |_, cluster: &Cluster| !cluster.member_is_behind()),
            Property::always(CUT_HOLDS, |_, cluster: &Cluster| cluster.cut_holds()),
            Property::always(CONVERGES, |model: &Self, cluster: &Cluster| {
                let mut steps = Vec::new();
                model.steps(cluster, &mut steps);
                !steps.is_empty() || model.converged(cluster)
            }),
            Property::sometimes(CUT, |_, cluster: &Cluster| {
                let lasting = [A, B].map(|at| &cluster.replicas[at]);
                lasting.iter().any(|replica| replica.held[C] < replica.epoch)
            }),
        ];
        if self.play == Play::Return {
            properties.extend([
                Property::sometimes(PENDING, |_, cluster: &Cluster| {
                    cluster.salvage == Salvage::Waits && cluster.replicas[D].stage == Stage::Member
                }),
                Property::sometimes(DEAD_LETTER, |_, cluster: &Cluster| {
                    cluster.salvage == Salvage::DeadLetter
                }),
            ]);
        }
        properties
    }
}

impl Eviction {
    fn converged(&self, cluster: &Cluster) -> bool {
        let first = &cluster.replicas[A];
        let same = |other: &Replica| {
            (other.held, other.epoch, other.entry) == (first.held, EPOCH, first.entry)
                && other.stage == Stage::Member
        };
        let dropped = first.entry != Some(Write::Delete) || cluster.issued[Write::Delete as usize] > EPOCH;
        let settled = !matches!(cluster.salvage, Salvage::Away | Salvage::Waits);
        LASTING.into_iter().all(|at| same(&cluster.replicas[at]))
            && dropped
            && (self.play == Play::Growth || settled)
    }
}

impl Cluster {
    /// The replicas whose states and claims count.
    fn live(&self) -> impl Iterator<Item = &Replica> {
        let live = |replica: &&Replica| matches!(replica.stage, Stage::CatchingUp | Stage::Member);
        self.replicas.iter().filter(live)
    }

    fn lasting(&self) -> impl Iterator<Item = &Replica> {
        let lasting = LASTING.map(|at| &self.replicas[at]).into_iter();
        lasting.filter(|replica| matches!(replica.stage, Stage::CatchingUp | Stage::Member))
    }

    fn stays_deleted(&self) -> bool {
        self.live().all(|replica| match replica.entry {
            None => replica.newest.is_none_or(|newest| newest == Write::Delete),
            entry => entry == replica.newest,
        })
    }

    fn claims_true(&self) -> bool {
        let mut issued = WRITES.into_iter().filter(|write| self.issued[*write as usize] > 0);
        issued.all(|write| {
            let (hlc, origin) = self.dot(write);
            let mut claim = self.live().filter(|replica| replica.held[origin] >= hlc);
            claim.all(|replica| replica.newest.is_some_and(|newest| self.dot(newest) >= (hlc, origin)))
        })
    }

    fn unsent_is_accounted_for(&self) -> bool {
        match self.salvage {
            Salvage::Nothing | Salvage::Superseded if self.issued[Write::Unsent as usize] > 0 => {
                let dot = self.dot(Write::Unsent);
                let lasting = LASTING.map(|at| &self.replicas[at]);
                let has = |replica: &&Replica| replica.newest.is_some_and(|newest| self.dot(newest) >= dot);
                lasting.iter().filter(|replica| replica.stage == Stage::Member).any(has)
            }
            _ => true,
        }
    }

    fn cut_holds(&self) -> bool {
        let last = self.lasting().map(|replica| replica.held[C]);
        let mut passed =
            [A, B].map(|at| &self.replicas[at]).into_iter().filter(|replica| replica.epoch == EPOCH);
        let last = last.max();
        passed.all(|replica| Some(replica.held[C]) >= last)
    }

    fn member_is_behind(&self) -> bool {
        let epoch = self.replicas.iter().map(|replica| replica.epoch).max();
        LASTING.into_iter().any(|at| {
            self.replicas[at].stage == Stage::Member && epoch == Some(EPOCH) && !self.covers_epoch(at)
        })
    }
}
