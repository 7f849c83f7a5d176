//! Bugs planted on purpose, which the simulator must find; in no build that ships, and none unless one is selected.
//!
//! This module exists only under `--cfg planted_bugs`, which `cargo sim -- --mutants` alone sets. Elsewhere the
//! macro `planted!` (in the crate's root) is the constant `false`. A bug is one condition at the place that it
//! breaks: `planted!(GapIgnored)`.

use std::sync::atomic::{AtomicU8, Ordering};

/// Declares the bugs with the file each is planted in and what it does.
macro_rules! bugs {
    ($($bug:ident, $place:literal, $wrong:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Bug {
            $(#[doc = $wrong] $bug,)*
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

            /// Its name, as commands take it.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$bug => stringify!($bug),)* }
            }

            /// The file it is planted in, below `replication/src`.
            pub const fn place(self) -> &'static str {
                match self { $(Bug::$bug => $place,)* }
            }

            /// What is wrong with it.
            pub const fn wrong(self) -> &'static str {
                match self { $(Bug::$bug => $wrong,)* }
            }
        }
    };
}

bugs! {
    AcknowledgedBeforeFlush, "replica.rs", "acknowledged before it is flushed";
    SentBeforeFlush, "replica.rs", "a state is sent before it is flushed";
    TieBreakForgotten, "entry.rs", "last writer wins without the replica as tie-break";
    MergeReplacesAlways, "replica/apply.rs", "merge replaces always";
    GapIgnored, "replica/push.rs", "a gap in an origin's events is ignored";
    ClaimBeyondCut, "replica/push.rs", "the claim moves to the sender's head when an interval was cut";
    EventTakenOnTrust, "replica/apply.rs", "an event without its state is taken on trust";
    LogRowForgotten, "replica/apply.rs", "a receiver keeps no log rows";
    DigestNeverSubtracts, "digest.rs", "the digest tree forgets to subtract";
    SeenTimeIgnored, "clock.rs", "the clock ignores what it sees";
    ClockFromClaimsOnly, "replica.rs", "the clock starts again at the claims only";
    LackNotAskedFor, "replica/anti_entropy/exchange.rs", "anti-entropy does not ask for what it lacks";
    SketchCountForgotten, "sketch.rs", "what leaves the sketch is not counted out of its cells";
    EventsMiscounted, "vector.rs", "events are counted wrongly";
    ExpiryLostOnWire, "codec/delta.rs", "the expiry is lost on the wire";
    DroppedAboveEpoch, "replica/sweep.rs", "tombstones from after the epoch are dropped";
    DroppedOnceHeldByAll, "replica/sweep.rs", "a tombstone is dropped when all have it, whatever else is on its way";
    RoundOutlivesEpoch, "replica/epoch.rs", "repairs of an ended epoch count";
    EpochTakenOnTrust, "replica/epoch.rs", "an epoch is adopted without holding what it covers";
    CutFromAcknowledgements, "replica/epoch.rs", "the cut of a removed replica is taken from acknowledgements";
    DroppedAtExpiry, "replica/sweep.rs", "an expired value is dropped at its expiry, not by the epoch";
    FenceForgotten, "replica.rs", "a removed replica is still listened to";
    OlderCopyUnnoticed, "replica/peer.rs", "an older copy of a store is not noticed";
    ChunkRowStays, "replica/chunk_index.rs", "a state that goes stays in the chunk index";
    RelayKeepsEvents, "replica/topology.rs", "a relay does not pass on what it gets";
    RemovalSpendsNothing, "kinds/element.rs", "a removal or an overwrite leaves standing what it has seen";
    PartDroppedOnceSpent, "kinds/element.rs", "a spent part is dropped before everyone knows that it is spent";
    PartsReplacedNotJoined, "replica/apply.rs", "a state made of parts replaces the one that is here";
    StaleJoinedAgain, "replica/apply.rs", "parts that were dropped come back with a state";
    ResetForgotten, "kinds/counter.rs", "a join forgets what a reset has noted";
    RightsKeptByGiver, "kinds/bounded.rs", "rights that were given are not subtracted from the giver's";
    SalvageSkipped, "replica/returned.rs", "what an evicted store alone holds is left behind";
    RunForgotten, "entry.rs", "a write over one's own takes that for its base";
    BatchForgotten, "replica/batch.rs", "the events of a batch are not marked as one";
    AheadShown, "replica/veil.rs", "readers see states that show a part of a batch";
    BatchMatesShown, "replica/veil.rs", "a batch that touches a veiled entry is shown but for that";
    FoldKeepsRemoved, "store/folding.rs", "a change that is dropped stays in its fold";
}

/// The selected bug, counted from 1 as in [`Bug::ALL`]; 0 while there is none.
static SELECTED: AtomicU8 = AtomicU8::new(0);

/// Plants this bug, and no other, in every replica of the process.
pub fn select(bug: Option<Bug>) {
    SELECTED.store(bug.map_or(0, |bug| bug as u8 + 1), Ordering::Relaxed);
}

/// Whether this bug is planted.
pub fn is_selected(bug: Bug) -> bool {
    SELECTED.load(Ordering::Relaxed) == bug as u8 + 1
}
