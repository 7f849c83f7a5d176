//! What one seed expands to: the options of a run, each named scenario a function of the seed.
//!
//! A named scenario pushes rare states of one kind on purpose; `swarm` draws every option, so that all kinds meet.
//! What is drawn is printed with a violation, and the same seed and name always draw the same.

use crate::random::{Random, mix};

/// Whether a run ends in faults or in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults to the very end: what must never break is checked, agreement is not asked for.
    Safety,
    /// Faults stop, and all must agree within a bound: faults that always heal would hide a livelock.
    Liveness,
}

/// The faults there are, and how often each is drawn against the others.
#[derive(Clone, Copy, Debug)]
pub struct FaultWeights {
    /// A node loses power.
    pub crash: u64,
    /// A link breaks; both sides notice.
    pub cut: u64,
    /// One direction of a link drops everything, and neither side is told.
    pub one_way: u64,
    /// Some nodes are cut off from the others for long.
    pub partition: u64,
    /// One direction of a link becomes slow.
    pub throttle: u64,
    /// A node's wall clock jumps.
    pub clock_jump: u64,
}

impl FaultWeights {
    const NONE: Self = Self { crash: 0, cut: 0, one_way: 0, partition: 0, throttle: 0, clock_jump: 0 };
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
    /// How many keys are written; few keys mean many conflicts.
    pub keys: u64,
    /// Mean time between two writes, anywhere.
    pub write_every_us: u64,
    /// Of 1,000 writes, how many are deletes.
    pub delete_permille: u64,
    /// Of 1,000 puts, how many have an expiry.
    pub expire_permille: u64,
    /// Frames lost, of 1,000.
    pub lost_permille: u64,
    /// Frames delivered twice, of 1,000.
    pub repeated_permille: u64,
    /// Frames that come far too late, of 1,000.
    pub late_permille: u64,
    /// How late those may be.
    pub late_us: u64,
    /// Least one-way delay.
    pub delay_us: u64,
    /// What is added to it at random: beyond the time between frames, they overtake one another.
    pub jitter_us: u64,
    /// What a slow direction carries.
    pub throttled_bytes_per_s: u64,
    /// Mean time between two faults.
    pub fault_every_us: u64,
    /// Which faults.
    pub faults: FaultWeights,
    /// How long a link may stay cut, slow or one-way.
    pub cut_us: u64,
    /// How long a partition may last.
    pub partition_us: u64,
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
    pub amnesia: bool,
}

/// Changes what was drawn into what its scenario is about.
type Shape = fn(&mut Scenario, &mut Random);

/// The named scenarios with what each pushes, in the order they are run in.
const SCENARIOS: [(&str, &str, Shape); 8] = [
    ("swarm", "every option drawn, every fault that is drawn with it", |_, _| {}),
    ("clock-jumps", "clocks that jump, run apart and show coarse times", clock_jumps),
    ("one-way", "directions of links that drop everything in silence, and slow ones", one_way),
    ("partitions", "groups cut off for most of the run, conflicts on few keys", partitions),
    ("late-frames", "frames that arrive seconds after their time", late_frames),
    ("power-cuts", "crashes that find much unflushed", power_cuts),
    ("states-ahead", "crashes in catch-up, when states are ahead of claims and clocks behind both", states_ahead),
    ("amnesia", "a replica without entries that it claims to hold: anti-entropy alone can tell", amnesia),
];

impl Scenario {
    /// The scenario of this name and seed; `None` when there is none of this name.
    pub fn named(name: &str, seed: u64) -> Option<Self> {
        let (name, _, shape) = SCENARIOS.iter().find(|(known, _, _)| *known == name)?;
        let name_bits = name.bytes().fold(0, |bits, byte| mix(bits ^ u64::from(byte)));
        let mut rng = Random::new(seed ^ name_bits);
        let mut scenario = Self::drawn(name, seed, &mut rng);
        shape(&mut scenario, &mut rng);
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
            keys: *rng.pick(&[3, 30, 300]),
            write_every_us: *rng.pick(&[4_000, 20_000, 200_000]),
            delete_permille: *rng.pick(&[50, 250, 500]),
            expire_permille: 50,
            lost_permille: if lossy { rng.below(200) } else { 0 },
            repeated_permille: if lossy { rng.below(100) } else { 0 },
            late_permille: if late { 1 + rng.below(50) } else { 0 },
            late_us: *rng.pick(&[300_000, 5_000_000]),
            delay_us: *rng.pick(&[100, 5_000, 80_000]),
            jitter_us: *rng.pick(&[0, 1_000, 50_000]),
            throttled_bytes_per_s: *rng.pick(&[2_000, 50_000]),
            fault_every_us: *rng.pick(&[300_000, 2_000_000, 30_000_000]),
            faults: FaultWeights {
                crash: 8,
                cut: 4,
                one_way: *rng.pick(&[0, 2, 6]),
                partition: *rng.pick(&[0, 2]),
                throttle: *rng.pick(&[0, 2]),
                clock_jump: if jumpy { 3 } else { 0 },
            },
            cut_us: *rng.pick(&[500_000, 5_000_000]),
            partition_us: *rng.pick(&[2_000_000, 8_000_000]),
            crash_unflushed_permille: *rng.pick(&[0, 10, 50]),
            down_us: *rng.pick(&[1_000, 200_000, 3_000_000]),
            skew_ms: *rng.pick(&[0, 10, 140]),
            jump_ms: *rng.pick(&[50, 1_000, 20_000]),
            tick_ms: *rng.pick(&[1, 1, 16, 100]),
            busy_permille: *rng.pick(&[0, 300, 900]),
            frame_bytes: *rng.pick(&[64, 1_000, 64 << 10]),
            amnesia: rng.permille(200),
        }
    }

    /// Whether a replica may have reason to think that its clock is off.
    pub fn clocks_may_seem_off(&self) -> bool {
        // A slow or late frame makes a round trip long, and half of it is how wrong an offset may be.
        self.faults.clock_jump > 0 || self.faults.throttle > 0 || self.late_permille > 0
    }
}

fn clock_jumps(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults.clock_jump = 20;
    scenario.fault_every_us = 300_000;
    scenario.replicas = 2 + rng.below(3) as usize;
    scenario.keys = *rng.pick(&[3, 10]);
    scenario.write_every_us = 10_000;
}

fn one_way(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = FaultWeights { one_way: 8, throttle: 4, crash: 1, ..FaultWeights::NONE };
    scenario.fault_every_us = *rng.pick(&[200_000, 1_000_000]);
    scenario.replicas = 3 + rng.below(3) as usize;
}

fn partitions(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = FaultWeights { partition: 8, crash: 2, ..FaultWeights::NONE };
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
    scenario.faults = FaultWeights { crash: 8, cut: 1, ..FaultWeights::NONE };
    scenario.fault_every_us = *rng.pick(&[100_000, 500_000]);
    scenario.crash_unflushed_permille = 100;
    scenario.down_us = *rng.pick(&[1_000, 300_000]);
    scenario.delay_us = *rng.pick(&[100, 80_000]);
    scenario.write_every_us = *rng.pick(&[4_000, 20_000]);
}

fn states_ahead(scenario: &mut Scenario, rng: &mut Random) {
    scenario.faults = FaultWeights { crash: 10, partition: 2, cut: 4, ..FaultWeights::NONE };
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
    scenario.mode = Mode::Liveness;
    scenario.amnesia = true;
    scenario.fault_every_us = *rng.pick(&[300_000, 1_000_000]);
    scenario.faults.crash = 20;
    scenario.keys = *rng.pick(&[30, 1_000]);
    scenario.write_every_us = *rng.pick(&[4_000, 20_000]);
}
