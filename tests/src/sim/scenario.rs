//! What one seed expands to: the options of a run, each named scenario a function of the seed.
//!
//! A named scenario pushes rare states of one kind on purpose; `swarm` draws every option, so that all kinds meet.
//! What is drawn is printed with a violation, and the same seed and name always draw the same.

use replication::link::Lane;

use crate::random::{Random, mix};

/// How long a node is away in [`Fault::Away`], in virtual time.
pub(super) const WEEK_MS: u64 = 7 * 24 * 3_600_000;

/// The least step of epochs where anti-entropy has something to do.
const LEAST_EPOCH_OF_ROUNDS_MS: u64 = 4_000;

/// Longer than any run.
const NEVER_MS: u64 = 100 * WEEK_MS;

/// Whether a run ends in faults or in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults to the very end: what must never break is checked, agreement is not asked for.
    Safety,
    /// Faults stop, and all must agree within a bound: faults that always heal would hide a livelock.
    Liveness,
}

/// Which entries a replica forgets, once, when it crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amnesia {
    /// None.
    None,
    /// About a third of them, or it has them in a state of long ago.
    Some,
    /// All of one part of the digest tree.
    Shard,
}

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node loses power.
    Crash,
    /// A link breaks; both sides notice.
    Cut,
    /// One direction of a link drops everything, and neither side is told.
    OneWay,
    /// Some nodes are cut off from the others for long.
    Partition,
    /// One direction of a link becomes slow.
    Throttle,
    /// A node's wall clock jumps.
    ClockJump,
    /// One node is cut off from all others.
    Isolate,
    /// One node is cut off while a week goes by.
    Away,
    /// A copy of a node's disk is put aside; or, where there is one, the node is started from it.
    Restore,
    /// A second node is started from a copy of a node's disk.
    Clone,
    /// An operator removes a member, and later makes it anew.
    Remove,
    /// A new node joins.
    Add,
    /// An operator begins or ends the draining of a member.
    Drain,
    /// A region is cut off from the others.
    RegionCut,
    /// A node is cut off from its own region, and from no other.
    Estranged,
}

impl Fault {
    /// Whether a node may have to be made anew after it.
    fn costs_a_store(self) -> bool {
        matches!(self, Fault::Restore | Fault::Clone | Fault::Remove)
    }
}

/// What one seed expands to.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The seed it came from.
    pub seed: u64,
    /// Whether the run ends in faults or in peace.
    pub mode: Mode,
    /// How long faults go on, in virtual time.
    pub faulty_us: u64,
    /// How many replicas.
    pub replicas: usize,
    /// How many regions they are in.
    pub regions: usize,
    /// How many keys are written; few keys mean many conflicts.
    pub keys: u64,
    /// Mean time between two writes, anywhere.
    pub write_every_us: u64,
    /// Of 1,000 writes, how many are deletes.
    pub delete_permille: u64,
    /// Of 1,000 puts, how many have an expiry.
    pub expire_permille: u64,
    /// Of 1,000 writes, how many are batches.
    pub batches_permille: u64,
    /// Frames lost, of 1,000.
    pub lost_permille: u64,
    /// Frames delivered twice, of 1,000.
    pub repeated_permille: u64,
    /// Frames that come far too late, of 1,000.
    pub late_permille: u64,
    /// How late those may be.
    pub late_us: u64,
    /// The lanes whose frames may come too late.
    pub late_lanes: &'static [Lane],
    /// Least one-way delay.
    pub delay_us: u64,
    /// What is added to it at random: beyond the time between frames, they overtake one another.
    pub jitter_us: u64,
    /// What is added to the delay between regions.
    pub far_delay_us: u64,
    /// Frames lost between regions, of 1,000, beside the others.
    pub far_lost_permille: u64,
    /// What a slow direction carries.
    pub throttled_bytes_per_s: u64,
    /// Mean time between two faults.
    pub fault_every_us: u64,
    /// Which faults, and how often each is drawn against the others.
    pub faults: Vec<(Fault, u64)>,
    /// How long a link may stay cut, slow or one-way.
    pub cut_us: u64,
    /// How long a partition may last.
    pub partition_us: u64,
    /// The stable frontier moves in steps of this.
    pub epoch_every_ms: u64,
    /// A member that is silent for longer is evicted.
    pub max_away_ms: u64,
    /// Where more waits for those that are away, a hundredth of that is enough.
    pub max_waiting_bytes: u64,
    /// Of 1,000 groups that are not flushed at once, how many meet a crash there and then.
    pub crash_unflushed_permille: u64,
    /// How long a crashed replica may stay down.
    pub down_us: u64,
    /// How far a replica's wall clock may be off, either way. It is set anew whenever the replica starts.
    pub skew_ms: u64,
    /// How far a wall clock may jump, either way.
    pub jump_ms: u64,
    /// Wall clocks show multiples of this: the coarser, the more events fall into one reading.
    pub tick_ms: u64,
    /// Of 1,000 times that a lane is looked at, how often it has no room.
    pub busy_permille: u64,
    /// Size of a frame at which an interval is split.
    pub frame_bytes: usize,
    /// Whether a replica forgets entries it claims to hold.
    pub amnesia: Amnesia,
}

/// Changes what was drawn into what its scenario is about.
type Shape = fn(&mut Scenario, &mut Random);

/// The named scenarios with what each pushes, in the order they are run in.
const SCENARIOS: [(&str, &str, Shape); 20] = [
    ("swarm", "every option drawn, every fault that is drawn with it", |_, _| {}),
    ("clock-jumps", "clocks that jump, run apart and show coarse times", clock_jumps),
    ("one-way", "directions of links that drop everything in silence, and slow ones", one_way),
    ("partitions", "groups cut off for most of the run, conflicts on few keys", partitions),
    ("late-frames", "frames that arrive seconds after their time", late_frames),
    ("power-cuts", "crashes that find much unflushed", power_cuts),
    (
        "states-ahead",
        "crashes in catch-up, when states are ahead of claims and clocks behind both",
        states_ahead,
    ),
    ("amnesia", "a replica without entries that it claims to hold: anti-entropy alone can tell", amnesia),
    ("lost-shard", "a replica without a whole part of its entries", lost_shard),
    ("stale-repairs", "repairs that arrive epochs after they were sent", stale_repairs),
    ("away", "a node cut off for a week, and back", away),
    ("evicted", "a node away for too long: evicted, made anew, its own writes replayed", evicted),
    ("restore", "a node started from an old copy of its disk", restore),
    ("clone", "two live nodes from one disk", clone),
    ("gc-partition", "one-way links and late frames while epochs follow one another", gc_partition),
    ("membership", "members added, drained and removed under load", membership),
    ("regions", "two or three regions far apart: cuts between them, and relays that fail", regions),
    ("ttl", "nearly every value expires soon", ttl),
    ("batches", "batches on few keys, whose states run ahead of the events they came with", batches),
    ("quiet", "no faults but long silence: what waits to be dropped must go", quiet),
];

impl Scenario {
    /// The scenario of this name and seed; `None` when there is none of this name.
    pub fn named(name: &str, seed: u64) -> Option<Self> {
        let (name, _, shape) = SCENARIOS.iter().find(|(known, _, _)| *known == name)?;
        let name_bits = name.bytes().fold(0, |bits, byte| mix(bits ^ u64::from(byte)));
        let mut rng = Random::new(seed ^ name_bits);
        let mut scenario = Self::drawn(name, seed, &mut rng);
        if scenario.amnesia != Amnesia::None {
            scenario.leave_time_for_rounds();
        }
        shape(&mut scenario, &mut rng);
        if scenario.amnesia != Amnesia::None {
            // The one other store that has what was forgotten must stay.
            scenario.faults.retain(|(fault, _)| !fault.costs_a_store());
            scenario.max_away_ms = NEVER_MS;
        }
        Some(scenario)
    }

    /// Every name, with what it pushes.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        SCENARIOS.iter().map(|(name, pushes, _)| (*name, *pushes))
    }

    fn drawn(name: &'static str, seed: u64, rng: &mut Random) -> Self {
        let lossy = rng.permille(500);
        let late = rng.permille(250);
        let jumpy = rng.permille(200);
        Self {
            name,
            seed,
            mode: if rng.permille(250) { Mode::Safety } else { Mode::Liveness },
            faulty_us: 10_000_000,
            replicas: 2 + rng.below(4) as usize,
            regions: 1,
            keys: *rng.pick(&[3, 30, 300]),
            write_every_us: *rng.pick(&[4_000, 20_000, 200_000]),
            delete_permille: *rng.pick(&[50, 250, 500]),
            expire_permille: 50,
            batches_permille: 0,
            lost_permille: if lossy { rng.below(200) } else { 0 },
            repeated_permille: if lossy { rng.below(100) } else { 0 },
            late_permille: if late { 1 + rng.below(50) } else { 0 },
            late_us: *rng.pick(&[300_000, 5_000_000]),
            late_lanes: &Lane::ALL,
            delay_us: *rng.pick(&[100, 5_000, 80_000]),
            jitter_us: *rng.pick(&[0, 1_000, 50_000]),
            far_delay_us: 0,
            far_lost_permille: 0,
            throttled_bytes_per_s: *rng.pick(&[2_000, 50_000]),
            fault_every_us: *rng.pick(&[300_000, 2_000_000, 30_000_000]),
            faults: vec![
                (Fault::Crash, 8),
                (Fault::Cut, 4),
                (Fault::OneWay, *rng.pick(&[0, 2, 6])),
                (Fault::Partition, *rng.pick(&[0, 2])),
                (Fault::Throttle, *rng.pick(&[0, 2])),
                (Fault::ClockJump, if jumpy { 3 } else { 0 }),
                (Fault::Isolate, *rng.pick(&[0, 1])),
                (Fault::Away, *rng.pick(&[0, 0, 1])),
                (Fault::Restore, *rng.pick(&[0, 0, 2])),
                (Fault::Clone, *rng.pick(&[0, 0, 0, 1])),
                (Fault::Remove, *rng.pick(&[0, 0, 1])),
                (Fault::Add, *rng.pick(&[0, 1])),
                (Fault::Drain, *rng.pick(&[0, 1])),
            ],
            cut_us: *rng.pick(&[500_000, 5_000_000]),
            partition_us: *rng.pick(&[2_000_000, 8_000_000]),
            epoch_every_ms: *rng.pick(&[300, 1_000, 3_000]),
            max_away_ms: *rng.pick(&[3_000, NEVER_MS, NEVER_MS]),
            max_waiting_bytes: u64::MAX,
            crash_unflushed_permille: *rng.pick(&[0, 10, 50]),
            down_us: *rng.pick(&[1_000, 200_000, 3_000_000]),
            skew_ms: *rng.pick(&[0, 10, 140]),
            jump_ms: *rng.pick(&[50, 1_000, 20_000]),
            tick_ms: *rng.pick(&[1, 1, 16, 100]),
            busy_permille: *rng.pick(&[0, 300, 900]),
            frame_bytes: *rng.pick(&[64, 1_000, 64 << 10]),
            amnesia: *rng.pick(&[Amnesia::None, Amnesia::None, Amnesia::None, Amnesia::Some, Amnesia::Shard]),
        }
    }

    /// A new epoch ends a round of anti-entropy: leaves it the time to get somewhere.
    fn leave_time_for_rounds(&mut self) {
        self.epoch_every_ms = self.epoch_every_ms.max(LEAST_EPOCH_OF_ROUNDS_MS);
        self.delay_us = self.delay_us.min(5_000);
        self.busy_permille = self.busy_permille.min(300);
    }

    /// Whether a replica may have reason to think that its clock is off.
    pub fn clocks_may_seem_off(&self) -> bool {
        // A slow or late frame makes a round trip long, and half of it is how wrong an offset may be.
        let is_slow = self.has(Fault::Throttle) || self.has(Fault::Away) || self.late_permille > 0;
        self.has(Fault::ClockJump) || is_slow
    }

    /// The region a node is in.
    pub fn region_of(&self, node: usize) -> usize {
        node % self.regions
    }

    /// Whether two nodes are in different regions.
    pub fn are_apart(&self, a: usize, b: usize) -> bool {
        self.region_of(a) != self.region_of(b)
    }

    /// Whether silence may get a member evicted.
    pub fn evicts(&self) -> bool {
        self.max_away_ms < NEVER_MS
    }

    /// Whether this fault may come.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(kind, weight)| *kind == fault && *weight > 0)
    }
}

fn clock_jumps(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = vec![(Fault::ClockJump, 20), (Fault::Crash, 4), (Fault::Cut, 4)];
    scenario.fault_every_us = 300_000;
    scenario.replicas = 2 + rng.below(3) as usize;
    scenario.keys = *rng.pick(&[3, 10]);
    scenario.write_every_us = 10_000;
}

fn one_way(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = vec![(Fault::OneWay, 8), (Fault::Throttle, 4), (Fault::Crash, 1)];
    scenario.fault_every_us = *rng.pick(&[200_000, 1_000_000]);
    scenario.replicas = 3 + rng.below(3) as usize;
}

fn partitions(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = vec![(Fault::Partition, 8), (Fault::Crash, 2)];
    scenario.fault_every_us = 1_500_000;
    scenario.partition_us = 9_000_000;
    scenario.replicas = 3 + rng.below(3) as usize;
    scenario.keys = *rng.pick(&[3, 10]);
    scenario.tick_ms = *rng.pick(&[1, 300]);
    scenario.skew_ms = 20;
}

fn late_frames(scenario: &mut Scenario, rng: &mut Random) {
    scenario.late_permille = 50 + rng.below(300);
    scenario.late_us = *rng.pick(&[1_000_000, 8_000_000]);
    scenario.fault_every_us = 2_000_000;
    scenario.keys = *rng.pick(&[3, 30]);
}

fn power_cuts(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = vec![(Fault::Crash, 8), (Fault::Cut, 1)];
    scenario.fault_every_us = *rng.pick(&[100_000, 500_000]);
    scenario.crash_unflushed_permille = 100;
    scenario.down_us = *rng.pick(&[1_000, 300_000]);
    scenario.delay_us = *rng.pick(&[100, 80_000]);
    scenario.write_every_us = *rng.pick(&[4_000, 20_000]);
}

fn states_ahead(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = vec![(Fault::Crash, 10), (Fault::Partition, 2), (Fault::Cut, 4)];
    scenario.fault_every_us = 150_000;
    scenario.partition_us = 1_000_000;
    scenario.cut_us = 500_000;
    scenario.down_us = 2_000;
    scenario.faulty_us = 5_000_000;
    scenario.replicas = 2 + rng.below(2) as usize;
    scenario.keys = *rng.pick(&[2, 6]);
    scenario.write_every_us = *rng.pick(&[3_000, 8_000]);
    scenario.frame_bytes = 64;
    scenario.busy_permille = *rng.pick(&[300, 900]);
    scenario.delay_us = 5_000;
    scenario.skew_ms = 140;
    scenario.tick_ms = 1;
}

fn amnesia(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = vec![(Fault::Crash, 12), (Fault::Cut, 4)];
    scenario.mode = Mode::Liveness;
    scenario.amnesia = Amnesia::Some;
    scenario.fault_every_us = *rng.pick(&[300_000, 1_000_000]);
    scenario.keys = *rng.pick(&[30, 1_000]);
    scenario.write_every_us = *rng.pick(&[4_000, 20_000]);
    scenario.leave_time_for_rounds();
}

fn lost_shard(scenario: &mut Scenario, rng: &mut Random) {
    amnesia(scenario, rng);
    scenario.amnesia = Amnesia::Shard;
    scenario.delete_permille = 50;
}

fn stale_repairs(scenario: &mut Scenario, rng: &mut Random) {
    amnesia(scenario, rng);
    // Rounds are slow, and all else is as quick as it can be: epochs follow one another while repairs travel.
    scenario.late_lanes = &[Lane::AntiEntropy];
    scenario.late_permille = 700;
    scenario.late_us = *rng.pick(&[5_000_000, 9_000_000]);
    (scenario.lost_permille, scenario.repeated_permille) = (0, 0);
    (scenario.delay_us, scenario.jitter_us) = (100, 0);
    scenario.epoch_every_ms = LEAST_EPOCH_OF_ROUNDS_MS;
    scenario.faulty_us = 20_000_000;
    scenario.replicas = 2 + rng.below(2) as usize;
    scenario.keys = *rng.pick(&[30, 100]);
    scenario.delete_permille = 500;
    scenario.write_every_us = *rng.pick(&[50_000, 200_000]);
    scenario.frame_bytes = 64 << 10;
    scenario.faults = vec![(Fault::Crash, 1)];
    scenario.fault_every_us = 2_000_000;
    scenario.down_us = 1_000;
}

fn away(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.faults = vec![(Fault::Away, 4), (Fault::Crash, 2), (Fault::Cut, 2)];
    scenario.fault_every_us = 1_000_000;
    scenario.cut_us = *rng.pick(&[1_000_000, 4_000_000]);
    scenario.replicas = 2 + rng.below(3) as usize;
    scenario.keys = *rng.pick(&[3, 30]);
    scenario.delete_permille = 400;
    // A week away is near the bound, or far below it, or far above.
    scenario.max_away_ms = *rng.pick(&[3_000, WEEK_MS + 60_000, NEVER_MS]);
}

fn evicted(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.faults = vec![(Fault::Isolate, 8), (Fault::Crash, 2), (Fault::Partition, 1)];
    scenario.fault_every_us = 1_500_000;
    scenario.partition_us = *rng.pick(&[5_000_000, 9_000_000]);
    scenario.max_away_ms = *rng.pick(&[1_000, 2_500]);
    if rng.permille(300) {
        // By the time alone it would take far too long.
        scenario.max_away_ms *= 100;
        scenario.max_waiting_bytes = *rng.pick(&[0, 2_000]);
    }
    scenario.epoch_every_ms = *rng.pick(&[200, 1_000]);
    scenario.down_us = *rng.pick(&[200_000, 3_000_000]);
    scenario.replicas = 3 + rng.below(3) as usize;
    scenario.keys = *rng.pick(&[3, 30, 300]);
    scenario.delete_permille = *rng.pick(&[250, 500]);
    scenario.write_every_us = *rng.pick(&[5_000, 20_000]);
}

fn restore(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.faults = vec![(Fault::Restore, 8), (Fault::Crash, 2), (Fault::Isolate, *rng.pick(&[0, 3]))];
    scenario.fault_every_us = *rng.pick(&[400_000, 1_500_000]);
    scenario.partition_us = 3_000_000;
    scenario.max_away_ms = NEVER_MS;
    scenario.epoch_every_ms = *rng.pick(&[200, 1_000]);
}

fn clone(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.faults = vec![(Fault::Clone, 6), (Fault::Crash, 1), (Fault::Cut, 3)];
    scenario.fault_every_us = 1_000_000;
    scenario.max_away_ms = NEVER_MS;
    scenario.epoch_every_ms = *rng.pick(&[300, 2_000]);
}

fn gc_partition(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.faults = vec![(Fault::OneWay, 8), (Fault::Partition, 3), (Fault::Crash, 2), (Fault::Cut, 2)];
    scenario.fault_every_us = *rng.pick(&[200_000, 800_000]);
    scenario.cut_us = *rng.pick(&[700_000, 3_000_000]);
    scenario.partition_us = 3_000_000;
    scenario.epoch_every_ms = *rng.pick(&[100, 400]);
    scenario.late_permille = *rng.pick(&[0, 100]);
    scenario.late_us = 3_000_000;
    scenario.replicas = 3 + rng.below(3) as usize;
    scenario.keys = *rng.pick(&[2, 10]);
    scenario.delete_permille = 500;
    scenario.write_every_us = *rng.pick(&[5_000, 40_000]);
    scenario.max_away_ms = NEVER_MS;
}

fn membership(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.faults = vec![
        (Fault::Remove, 4),
        (Fault::Add, 4),
        (Fault::Drain, 3),
        (Fault::Crash, 3),
        (Fault::Isolate, 2),
        (Fault::Cut, 2),
    ];
    scenario.fault_every_us = *rng.pick(&[300_000, 1_000_000]);
    scenario.partition_us = 2_000_000;
    scenario.epoch_every_ms = *rng.pick(&[200, 1_000]);
    scenario.max_away_ms = *rng.pick(&[2_500, NEVER_MS]);
    scenario.delete_permille = 400;
}

fn regions(scenario: &mut Scenario, rng: &mut Random) {
    scenario.replicas = 5 + rng.below(3) as usize;
    scenario.regions = *rng.pick(&[2, 3]);
    scenario.delay_us = *rng.pick(&[100, 5_000]);
    scenario.far_delay_us = *rng.pick(&[20_000, 80_000]);
    scenario.far_lost_permille = *rng.pick(&[0, 0, 20, 150]);
    scenario.busy_permille = *rng.pick(&[0, 300]);
    scenario.faults = vec![
        (Fault::Crash, 6),
        (Fault::Cut, 4),
        (Fault::OneWay, *rng.pick(&[0, 2])),
        (Fault::Isolate, 3),
        (Fault::Partition, 1),
        (Fault::RegionCut, 3),
        (Fault::Estranged, 3),
    ];
    scenario.fault_every_us = *rng.pick(&[300_000, 1_000_000, 2_000_000]);
    scenario.cut_us = *rng.pick(&[500_000, 3_000_000]);
    scenario.partition_us = *rng.pick(&[2_000_000, 5_000_000]);
    scenario.max_away_ms = NEVER_MS;
}

fn ttl(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.expire_permille = 800;
    scenario.epoch_every_ms = *rng.pick(&[100, 500]);
    scenario.keys = *rng.pick(&[3, 30]);
    scenario.faults = vec![(Fault::Crash, 4), (Fault::Partition, 4), (Fault::OneWay, 2), (Fault::Cut, 2)];
    scenario.fault_every_us = 500_000;
    scenario.partition_us = 4_000_000;
}

fn batches(scenario: &mut Scenario, rng: &mut Random) {
    scenario.amnesia = Amnesia::None;
    scenario.batches_permille = *rng.pick(&[300, 700]);
    scenario.replicas = 3 + rng.below(3) as usize;
    scenario.jitter_us = *rng.pick(&[1_000, 50_000]);
    scenario.faults = vec![
        (Fault::Crash, 4),
        (Fault::Cut, 6),
        (Fault::OneWay, *rng.pick(&[0, 3])),
        (Fault::Partition, 3),
        (Fault::Throttle, *rng.pick(&[0, 4])),
    ];
    scenario.fault_every_us = *rng.pick(&[200_000, 1_000_000]);
    scenario.cut_us = *rng.pick(&[500_000, 3_000_000]);
    scenario.partition_us = *rng.pick(&[1_000_000, 5_000_000]);
    scenario.write_every_us = *rng.pick(&[4_000, 20_000]);
    scenario.frame_bytes = *rng.pick(&[64, 1_000]);
    scenario.throttled_bytes_per_s = *rng.pick(&[2_000, 20_000]);
    scenario.max_away_ms = NEVER_MS;
}

fn quiet(scenario: &mut Scenario, rng: &mut Random) {
    scenario.mode = Mode::Liveness;
    scenario.faults = Vec::new();
    scenario.amnesia = Amnesia::None;
    scenario.write_every_us = *rng.pick(&[20_000, 500_000]);
    scenario.epoch_every_ms = *rng.pick(&[100, 1_000, 5_000]);
}
