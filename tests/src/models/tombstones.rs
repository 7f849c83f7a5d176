//! When a tombstone may be dropped: by the epoch, below which every replica holds everything of every origin.
//!
//! Three replicas, one key, writes of different origins. The rules, as [`Rule::Built`] has them:
//!
//! - A replica's own component rises with its writes and with its clock when it is idle. A write's Hlc is above
//!   all that its writer has seen.
//! - A delta carries the interval `(after, upto]` of an origin, and with it the state that its sender then has
//!   of the key, which may be newer than the event. A receiver takes it only where it holds `after`, skips a row
//!   whose event it holds, and claims `upto`. Deltas of a link come in order, or are lost with it.
//! - The stable frontier G is the least component of any origin in the claims of any replica. What a replica
//!   knows of the claims of others lags. The epoch E is G rounded down; the greatest one heard is adopted.
//! - A replica whose epoch rises sweeps: it drops a tombstone at or below E. Until it has, it takes part in no
//!   round of anti-entropy.
//! - A repair row counts only in a round of one epoch: its receiver has that epoch still, and has swept.
//!
//! Left out, each so that the model can do more than the core: rows may be repaired at any time within a round,
//! not only where digests differ; acknowledgements take no time, but need not happen, and one that was long on
//! its way tells the same as one that happened when it left; so does a delta without a row. What is not here: damage to a store. A store that
//! falls back to an old state below the epoch cannot be told from one that has what others lost.

use stateright::{Model, Property};

/// Replicas, named by index.
pub const REPLICAS: usize = 3;

/// The rule by which a tombstone goes, or a variant that is known to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As the core does it.
    Built,
    /// A tombstone goes once everyone is known to have it: claims of its own origin only.
    EveryoneHasIt,
    /// Repair rows are taken whatever epoch their round was of.
    RepairOfAnyEpoch,
    /// A tombstone goes when it is old by the replica's own clock.
    Age,
    /// A delta's row is merged though its event is held already.
    RowsHeldAlready,
}

/// The model, with its bounds.
#[derive(Clone, Debug)]
pub struct Tombstones {
    /// The rule that is tried.
    pub rule: Rule,
    /// The writes: who makes them, and whether they delete. Each is made at most once, in any order.
    pub writes: Vec<Write>,
    /// Clocks go from 0 up to this.
    pub last_hlc: u8,
    /// Epochs are multiples of this.
    pub epoch_every: u8,
    /// Deltas on their way at the same time, at most.
    pub max_deltas: usize,
    /// Repair rows on their way at the same time, at most.
    pub max_repairs: usize,
}

/// A write of the key.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The replica that makes it.
    pub origin: usize,
    /// Whether it leaves a tombstone.
    pub deletes: bool,
}

/// A write by its index in [`Tombstones::writes`].
type WriteIndex = u8;

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    replicas: [Replica; REPLICAS],
    /// The Hlc of each write; 0 while it is not made.
    issued: Vec<u8>,
    /// By link, and in order on each.
    deltas: Vec<Delta>,
    repairs: Vec<Repair>,
}

/// What a replica holds and knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Replica {
    /// Its vector.
    held: [u8; REPLICAS],
    /// Of each other, the least component that its claims were last known to have.
    known: [u8; REPLICAS],
    epoch: u8,
    sweeping: bool,
    /// The state of the key; nothing where it was never written or its tombstone was dropped.
    entry: Option<WriteIndex>,
    /// For the properties alone, since no replica remembers it: the newest state it ever had.
    newest: Option<WriteIndex>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Delta {
    from: usize,
    to: usize,
    origin: usize,
    after: u8,
    upto: u8,
    /// The last event in the interval, and the state that goes with it.
    row: Option<(u8, WriteIndex)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Repair {
    from: usize,
    to: usize,
    /// The epoch of the round.
    epoch: u8,
    row: WriteIndex,
}

/// A step of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica writes.
    Write(WriteIndex),
    /// A replica without writes lets its own component rise.
    Idle(usize),
    /// A delta leaves.
    Send {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// Whose events it carries.
        origin: usize,
    },
    /// The first delta on a link comes.
    Deliver {
        /// Its sender.
        from: usize,
        /// Its receiver.
        to: usize,
    },
    /// A link is lost with all that is on it, both ways.
    Reset(usize, usize),
    /// A replica learns what another claims.
    Acknowledge {
        /// Who claims.
        from: usize,
        /// Who learns of it.
        to: usize,
    },
    /// A replica raises its epoch to the stable frontier it knows.
    Advance(usize),
    /// A replica hears of a higher epoch.
    Adopt {
        /// Who has it.
        from: usize,
        /// Who takes it over.
        to: usize,
    },
    /// A replica drops what it may.
    Sweep(usize),
    /// A repair row leaves.
    Offer {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
    },
    /// A repair row comes.
    Repair(usize),
}

/// Holds of every rule that is right.
pub const STAYS_DELETED: &str = "no replica goes back to an older state than it had, or forgets a value";
const CLAIMS_TRUE: &str = "a claim means that the effect of each event up to it is held";
const EQUAL_VECTORS: &str = "where all vectors are equal, so are the visible values";
const COVERED: &str = "every replica holds all events up to any epoch";
const CONVERGES: &str = "where nothing is left to do, all agree, and no tombstone is left";
const DROPPED: &str = "a tombstone is dropped at one replica while another still has it";
const LATE: &str =
    "an overwritten value is on its way as a repair row of a lower epoch, above which it was deleted";

impl Tombstones {
    /// A put by replica 0 and a delete by replica 1, in either order, under `rule`.
    pub fn put_and_delete(rule: Rule) -> Self {
        let writes = vec![Write { origin: 0, deletes: false }, Write { origin: 1, deletes: true }];
        Self { rule, writes, last_hlc: 2, epoch_every: 2, max_deltas: 1, max_repairs: 1 }
    }

    fn dot(&self, cluster: &Cluster, write: WriteIndex) -> (u8, usize) {
        (cluster.issued[write as usize], self.writes[write as usize].origin)
    }

    fn deletes(&self, write: Option<WriteIndex>) -> bool {
        write.is_some_and(|write| self.writes[write as usize].deletes)
    }

    /// Whether the sweep of this epoch drops the state.
    fn droppable(&self, cluster: &Cluster, write: WriteIndex, epoch: u8) -> bool {
        self.deletes(Some(write)) && self.dot(cluster, write).0 <= epoch
    }

    /// The one door: the newer state stays.
    fn merge(&self, cluster: &mut Cluster, at: usize, write: WriteIndex) {
        let dot = self.dot(cluster, write);
        let newer = |than: Option<WriteIndex>| than.is_none_or(|than| self.dot(cluster, than) < dot);
        let (entry, newest) = (newer(cluster.replicas[at].entry), newer(cluster.replicas[at].newest));
        let replica = &mut cluster.replicas[at];
        replica.entry = if entry { Some(write) } else { replica.entry };
        replica.newest = if newest { Some(write) } else { replica.newest };
    }

    /// The Hlc of the next event at a replica: above all that it has seen.
    fn next_hlc(&self, cluster: &Cluster, at: usize) -> u8 {
        let replica = &cluster.replicas[at];
        let seen = replica.newest.map_or(0, |write| self.dot(cluster, write).0);
        replica.held[at].max(seen) + 1
    }

    /// The epoch that a replica's vector allows.
    fn least(&self, replica: &Replica) -> u8 {
        let least = match self.rule {
            Rule::EveryoneHasIt => {
                let tombstone = self.writes.iter().find(|write| write.deletes);
                tombstone.map_or(0, |write| replica.held[write.origin])
            }
            Rule::Age => *replica.held.iter().max().expect("there are replicas"),
            _ => *replica.held.iter().min().expect("there are replicas"),
        };
        least - least % self.epoch_every
    }

    /// The epoch that a replica may compute by what it knows.
    fn epoch(&self, cluster: &Cluster, at: usize) -> u8 {
        let replica = &cluster.replicas[at];
        let others = (0..REPLICAS).filter(|other| *other != at).map(|other| replica.known[other]);
        match self.rule {
            Rule::Age => replica.held[at] - replica.held[at] % self.epoch_every,
            _ => others.min().expect("there are others").min(self.least(replica)),
        }
    }

    /// How far the component of an idle replica rises: one by one while it has something to write, since its
    /// writes may come at any time, and else to the next epoch, since nothing is told apart in between.
    fn idle_until(&self, cluster: &Cluster, at: usize) -> u8 {
        let held = cluster.replicas[at].held[at];
        let writes = self.writes.iter().zip(&cluster.issued);
        let writes_on = writes.into_iter().any(|(write, hlc)| write.origin == at && *hlc == 0);
        if writes_on { held + 1 } else { held + self.epoch_every - held % self.epoch_every }
    }

    fn delta(&self, cluster: &Cluster, from: usize, to: usize, origin: usize) -> Option<Delta> {
        let on_link = cluster.deltas.iter().rev().filter(|delta| (delta.from, delta.to) == (from, to));
        let sent = on_link.into_iter().find(|delta| delta.origin == origin).map(|delta| delta.upto);
        let after = sent.unwrap_or(cluster.replicas[to].held[origin]);
        let upto = cluster.replicas[from].held[origin];
        if after >= upto {
            return None;
        }
        let events = (0..self.writes.len()).filter(|write| self.writes[*write].origin == origin);
        let positions = events.map(|write| cluster.issued[write]).filter(|at| after < *at && *at <= upto);
        let row = positions.max().zip(cluster.replicas[from].entry);
        let delta = Delta { from, to, origin, after, upto, row };
        let waits = self.waits(cluster, &delta);
        (!waits || cluster.deltas.len() < self.max_deltas).then_some(delta)
    }

    /// Whether a delta takes time. One without a row does not: it only raises a claim, and coming late is then the
    /// same as a claim that was raised at once and not yet told.
    fn waits(&self, cluster: &Cluster, delta: &Delta) -> bool {
        delta.row.is_some() || delta.after > cluster.replicas[delta.to].held[delta.origin]
    }

    fn deliver(&self, cluster: &mut Cluster, from: usize, to: usize) {
        let first = cluster.deltas.iter().position(|delta| (delta.from, delta.to) == (from, to));
        let delta = cluster.deltas.remove(first.expect("the step is there for a delta"));
        let held = cluster.replicas[to].held[delta.origin];
        if delta.after > held {
            return;
        }
        if let Some((position, write)) = delta.row
            && (position > held || self.rule == Rule::RowsHeldAlready)
        {
            self.merge(cluster, to, write);
        }
        cluster.replicas[to].held[delta.origin] = held.max(delta.upto);
    }

    /// What a replica may send as repair: in a round of its epoch, once it has swept.
    fn offer(&self, cluster: &Cluster, from: usize, to: usize) -> Option<Repair> {
        let replica = &cluster.replicas[from];
        let row = replica.entry.filter(|write| !self.droppable(cluster, *write, replica.epoch))?;
        let repair = Repair { from, to, epoch: replica.epoch, row };
        let room = cluster.repairs.len() < self.max_repairs && !cluster.repairs.contains(&repair);
        (room && !replica.sweeping).then_some(repair)
    }

    fn repair(&self, cluster: &mut Cluster, index: usize) {
        let repair = cluster.repairs.remove(index);
        let replica = &cluster.replicas[repair.to];
        let in_round = repair.epoch == replica.epoch && !replica.sweeping;
        let droppable = self.droppable(cluster, repair.row, replica.epoch);
        if !droppable && (in_round || self.rule == Rule::RepairOfAnyEpoch) {
            self.merge(cluster, repair.to, repair.row);
        }
    }

    fn raise(&self, cluster: &mut Cluster, at: usize, epoch: u8) {
        let replica = &mut cluster.replicas[at];
        replica.epoch = epoch;
        replica.sweeping = true;
    }

    fn sweep(&self, cluster: &mut Cluster, at: usize) {
        let epoch = cluster.replicas[at].epoch;
        let drops = cluster.replicas[at].entry.is_some_and(|write| self.droppable(cluster, write, epoch));
        let replica = &mut cluster.replicas[at];
        replica.entry = replica.entry.filter(|_| !drops);
        replica.sweeping = false;
    }

    /// The steps that go on towards agreement: all but faults and repair rows that nobody needs.
    fn progress(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        for (write, hlc) in cluster.issued.iter().enumerate() {
            if *hlc == 0 && self.next_hlc(cluster, self.writes[write].origin) <= self.last_hlc {
                steps.push(Step::Write(write as WriteIndex));
            }
        }
        for (at, replica) in cluster.replicas.iter().enumerate() {
            if self.idle_until(cluster, at) <= self.last_hlc {
                steps.push(Step::Idle(at));
            }
            if self.epoch(cluster, at) > replica.epoch {
                steps.push(Step::Advance(at));
            }
            if replica.sweeping {
                steps.push(Step::Sweep(at));
            }
        }
        for (from, to) in links() {
            for origin in 0..REPLICAS {
                if self.delta(cluster, from, to, origin).is_some() {
                    steps.push(Step::Send { from, to, origin });
                }
            }
            if cluster.deltas.iter().any(|delta| (delta.from, delta.to) == (from, to)) {
                steps.push(Step::Deliver { from, to });
            }
            let (sender, receiver) = (&cluster.replicas[from], &cluster.replicas[to]);
            if self.least(sender) > receiver.known[from] {
                steps.push(Step::Acknowledge { from, to });
            }
            if sender.epoch > receiver.epoch {
                steps.push(Step::Adopt { from, to });
            }
        }
        steps.extend((0..cluster.repairs.len()).map(Step::Repair));
    }

    fn stays_deleted(&self, cluster: &Cluster) -> bool {
        cluster.replicas.iter().all(|replica| match replica.entry {
            None => replica.newest.is_none() || self.deletes(replica.newest),
            entry => entry == replica.newest,
        })
    }

    fn claims_true(&self, cluster: &Cluster) -> bool {
        let issued = (0..self.writes.len()).filter(|write| cluster.issued[*write] > 0);
        let mut dots = issued.map(|write| self.dot(cluster, write as WriteIndex));
        dots.all(|(hlc, origin)| {
            cluster.replicas.iter().filter(|replica| replica.held[origin] >= hlc).all(|replica| {
                replica.newest.is_some_and(|newest| self.dot(cluster, newest) >= (hlc, origin))
            })
        })
    }

    fn visible(&self, replica: &Replica) -> Option<WriteIndex> {
        replica.entry.filter(|write| !self.deletes(Some(*write)))
    }

    fn equal_vectors_show_equal_values(&self, cluster: &Cluster) -> bool {
        let [first, others @ ..] = &cluster.replicas;
        let differ = others.iter().any(|other| other.held != first.held);
        differ || others.iter().all(|other| self.visible(other) == self.visible(first))
    }

    fn converged(&self, cluster: &Cluster) -> bool {
        let [first, others @ ..] = &cluster.replicas;
        let same = |other: &Replica| {
            (other.held, other.epoch, other.entry) == (first.held, first.epoch, first.entry)
        };
        others.iter().all(same) && !self.deletes(first.entry) && first.epoch == self.last_hlc
    }

    /// Whether the next state of the rule would bring a late repair row back, were it not for the rounds.
    fn late_repair(&self, cluster: &Cluster) -> bool {
        cluster.repairs.iter().any(|repair| {
            let replica = &cluster.replicas[repair.to];
            let deleted = replica.entry.is_none() && self.deletes(replica.newest);
            deleted && repair.epoch < replica.epoch && !self.deletes(Some(repair.row))
        })
    }
}

impl Model for Tombstones {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        let issued = vec![0; self.writes.len()];
        vec![Cluster { replicas: Default::default(), issued, deltas: Vec::new(), repairs: Vec::new() }]
    }

    fn actions(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        self.progress(cluster, steps);
        for (from, to) in links() {
            let carries =
                |a: usize, b: usize| cluster.deltas.iter().any(|delta| (delta.from, delta.to) == (a, b));
            if from < to && (carries(from, to) || carries(to, from)) {
                steps.push(Step::Reset(from, to));
            }
            if self.offer(cluster, from, to).is_some() {
                steps.push(Step::Offer { from, to });
            }
        }
    }

    fn next_state(&self, before: &Cluster, step: Step) -> Option<Cluster> {
        let mut cluster = before.clone();
        match step {
            Step::Write(write) => {
                let origin = self.writes[write as usize].origin;
                let hlc = self.next_hlc(before, origin);
                cluster.issued[write as usize] = hlc;
                cluster.replicas[origin].held[origin] = hlc;
                self.merge(&mut cluster, origin, write);
            }
            Step::Idle(at) => cluster.replicas[at].held[at] = self.idle_until(before, at),
            Step::Send { from, to, origin } => {
                let delta = self.delta(before, from, to, origin)?;
                if self.waits(before, &delta) {
                    cluster.deltas.push(delta);
                    cluster.deltas.sort_by_key(|delta| (delta.from, delta.to));
                } else {
                    cluster.replicas[to].held[origin] = delta.upto;
                }
            }
            Step::Deliver { from, to } => self.deliver(&mut cluster, from, to),
            Step::Reset(a, b) => {
                let on_link = |from, to| (from, to) == (a, b) || (from, to) == (b, a);
                cluster.deltas.retain(|delta| !on_link(delta.from, delta.to));
                cluster.repairs.retain(|repair| !on_link(repair.from, repair.to));
            }
            Step::Acknowledge { from, to } => {
                cluster.replicas[to].known[from] = self.least(&before.replicas[from]);
            }
            Step::Advance(at) => self.raise(&mut cluster, at, self.epoch(before, at)),
            Step::Adopt { from, to } => self.raise(&mut cluster, to, before.replicas[from].epoch),
            Step::Sweep(at) => self.sweep(&mut cluster, at),
            Step::Offer { from, to } => {
                cluster.repairs.push(self.offer(before, from, to)?);
                cluster.repairs.sort();
            }
            Step::Repair(index) => self.repair(&mut cluster, index),
        }
        Some(cluster)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(STAYS_DELETED, |model: &Self, cluster| model.stays_deleted(cluster)),
            Property::always(CLAIMS_TRUE, |model: &Self, cluster| model.claims_true(cluster)),
            Property::always(EQUAL_VECTORS, |model: &Self, cluster| {
                model.equal_vectors_show_equal_values(cluster)
            }),
            Property::always(COVERED, |_, cluster: &Cluster| {
                let epoch = cluster.replicas.iter().map(|replica| replica.epoch).max();
                cluster.replicas.iter().flat_map(|replica| replica.held).min() >= epoch
            }),
            Property::always(CONVERGES, |model: &Self, cluster| {
                let mut steps = Vec::new();
                model.progress(cluster, &mut steps);
                !steps.is_empty() || model.converged(cluster)
            }),
            Property::sometimes(DROPPED, |model: &Self, cluster: &Cluster| {
                let dropped = |replica: &Replica| replica.entry.is_none() && model.deletes(replica.newest);
                cluster.replicas.iter().any(dropped)
                    && cluster.replicas.iter().any(|replica| model.deletes(replica.entry))
            }),
        ];
        if self.max_repairs > 0 {
            properties.push(Property::sometimes(LATE, |model: &Self, cluster| model.late_repair(cluster)));
        }
        properties
    }
}

/// Every link, one way each.
fn links() -> impl Iterator<Item = (usize, usize)> {
    (0..REPLICAS * REPLICAS).map(|link| (link / REPLICAS, link % REPLICAS)).filter(|(from, to)| from != to)
}
