//! What two replicas say to each other, and the frames it travels in.
//!
//! A frame is a version byte and one message. Those of anti-entropy are in [`super::round`].

use bincode::de::{BorrowDecode, BorrowDecoder, Decode};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode as DeriveDecode, Encode as DeriveEncode};
use bytes::Bytes;

use super::delta::{decode_id, encode_id};
use super::{Malformed, decode_exact, encode_into};
use crate::clock::{Hlc, ReplicaId};
use crate::digest::Digest;
use crate::entry::EntryId;
use crate::link::{MAX_FRAME_BYTES, PROTOCOL_VERSION};
use crate::vector::{Position, VersionVector};

pub use super::copy::{Snapshot, SnapshotLog};
pub use super::delta::{Batches, Delta, DeltaRow};
pub use super::round::Round;

/// Everything that crosses a link between two cores.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub enum Message {
    /// What the sender holds, in intervals.
    Heartbeat(Heartbeat),
    /// The sender holds events durably up to here.
    Ack(Ack),
    /// Send me this origin's events after this one.
    Pull {
        /// Whose events.
        origin: ReplicaId,
        /// The newest one held.
        after: Hlc,
        /// Send a state with every event, also where an earlier one should have brought it: it did not.
        whole: bool,
    },
    /// Events.
    Delta(Delta),
    /// Anti-entropy.
    Round(Round),
    /// Make me a member, and let me copy what you hold.
    Join {
        /// My PoP, at most [`crate::member::MAX_NAME_BYTES`].
        pop: String,
        /// My region, at most as much.
        region: String,
    },
    /// You are a member; the record of it is durable here.
    Admitted {
        /// When, by the sponsor's clock: your own events come after it.
        at: Hlc,
    },
    /// You are a member no more.
    Removed {
        /// 0 by an operator, 1 for your silence, 2 replaced by a later incarnation.
        reason: u8,
        /// The newest of your events that is known here.
        cut: Hlc,
    },
    /// What you claim is below my epoch: what you lack of it cannot be told any more.
    Behind {
        /// The epoch.
        epoch: Hlc,
    },
    /// There are two of you: two nodes run under one replica id.
    Cloned,
    /// You claim less than you did: your store is an older copy.
    OlderCopy,
    /// Send me rows from this row key on; what came before it in this session has arrived.
    Copy {
        /// Chosen by the one who copies; a new one starts anew.
        session: u32,
        /// Where the next range begins: the end of an earlier [`Snapshot`], or the start.
        from: Vec<u8>,
    },
    /// Rows you asked for.
    Snapshot(Snapshot),
    /// Give me rights to take from a bounded counter.
    Rights(RightsWanted),
}

/// Which rights are asked for. Whoever is asked knows by it what is on its way already, so that asking again, or a question
/// that comes late, brings nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightsWanted {
    /// The bounded counter.
    pub id: EntryId,
    /// How much the sender lacks.
    pub lacking: u64,
    /// How much the receiver has given it in all, as far as it knows.
    pub received: u64,
}

impl Encode for RightsWanted {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encode_id(&self.id, encoder)?;
        (self.lacking, self.received).encode(encoder)
    }
}

impl<'de, C> BorrowDecode<'de, C> for RightsWanted {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let id = decode_id(decoder)?;
        let (lacking, received) = Decode::decode(decoder)?;
        Ok(Self { id, lacking, received })
    }
}

/// Up to where events are held durably. Nearly always those of the receiver alone, which then need no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Ack {
    /// The receiver's own.
    pub yours: Option<Position>,
    /// Those of others, which it has passed on.
    pub others: Vec<(ReplicaId, Position)>,
}

/// How far a replica has come into its cluster, as it tells its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub enum Stage {
    /// It has nothing, and is not a member.
    #[default]
    Fresh,
    /// It is a member, and copies what the cluster holds; it claims nothing yet.
    Copying,
    /// It holds a copy, and catches up.
    CatchingUp,
    /// It is a full member.
    Member,
    /// It was removed.
    Removed,
}

impl Stage {
    /// Whether it has a whole store, and takes part: in events, rounds and epochs.
    pub fn takes_part(self) -> bool {
        matches!(self, Stage::CatchingUp | Stage::Member)
    }
}

/// What a replica says of itself in intervals.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Heartbeat {
    /// The sender's wall clock, Unix milliseconds.
    pub wall_ms: u64,
    /// The sender's monotonic clock, microseconds; comes back in `echo_us`.
    pub mono_us: u64,
    /// The receiver's latest `mono_us`, and how long it lay here: their difference is the round trip.
    pub echo_us: Option<(u64, u64)>,
    /// What the sender holds durably.
    pub vector: VersionVector,
    /// The root of its digest tree at that vector.
    pub root: [u8; 16],
    /// The epoch it has adopted.
    pub epoch: Hlc,
    /// Whether it has dropped all that is over at that epoch.
    pub swept: bool,
    /// How far it has come into the cluster.
    pub stage: Stage,
    /// The digest of the members it knows.
    pub members: u64,
    /// The oldest write of an earlier incarnation that it is yet to write anew: no epoch may pass that.
    pub carried: Option<Hlc>,
    /// Whose heartbeats reach the sender over a link that is up. Nobody takes them out for their silence.
    pub hears: Vec<ReplicaId>,
    /// A random number of this run of its process: of two that alternate, two processes run under one id.
    pub boot: u64,
}

impl Heartbeat {
    /// The root as a digest.
    pub fn root(&self) -> Digest {
        Digest::from_bytes(self.root)
    }
}

impl Message {
    /// The frame that carries this message.
    pub fn to_frame(&self) -> Bytes {
        let mut frame = vec![PROTOCOL_VERSION];
        encode_into(self, &mut frame);
        debug_assert!(frame.len() <= MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
        frame.into()
    }

    /// Reads a frame that came from a peer.
    pub fn from_frame(frame: &[u8]) -> Result<Self, Malformed> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(Malformed::Form(format!("a frame of {} bytes, over {MAX_FRAME_BYTES}", frame.len())));
        }
        match frame.split_first() {
            Some((&PROTOCOL_VERSION, message)) => decode_exact(message),
            Some((version, _)) => Err(Malformed::Version(*version)),
            None => Err(Malformed::Form("empty".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Dot;
    use crate::entry::{
        Body, Entry, EntryId, MAX_INLINE_BYTES, MAX_METADATA_BYTES, NamespaceId, Payload, Value,
    };

    fn row(ms: u64, ops: u64, key: &'static str, dot: Option<(u64, u8)>) -> DeltaRow {
        let entry = dot.map(|(ms, replica)| Entry {
            dot: Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([replica; 16]) },
            body: Body::Value(Value {
                payload: Payload::Inline(Bytes::from("v")),
                metadata: None,
                expires_at_s: None,
            }),
            base: Hlc::ZERO,
        });
        let position = Position { hlc: Hlc::new(ms, 0), ops, bytes: 2 * ops };
        DeltaRow { position, id: EntryId::value(NamespaceId([1; 16]), key), entry }
    }

    fn delta(rows: Vec<DeltaRow>) -> Message {
        let after = Position { hlc: Hlc::new(10, 0), ops: 4, bytes: 8 };
        let upto = rows.last().map_or(after, |row| row.position);
        Message::Delta(Delta {
            origin: ReplicaId([7; 16]),
            group: 0,
            after,
            upto,
            rows,
            batches: Batches::default(),
        })
    }

    fn check(message: Message) -> usize {
        let frame = message.to_frame();
        assert_eq!(Message::from_frame(&frame), Ok(message));
        for len in 0..frame.len() {
            assert!(Message::from_frame(&frame[..len]).is_err(), "cut at {len}");
        }
        frame.len()
    }

    #[test]
    fn deltas_survive_and_cost_at_most_eight_bytes_an_event() {
        let one = check(delta(vec![row(11, 5, "a", Some((11, 7)))]));
        let two = check(delta(vec![row(11, 5, "a", Some((11, 7))), row(12, 6, "b", Some((12, 7)))]));
        assert!(two - one - 2 <= 8, "{} bytes of framing", two - one - 2);
        // Overwritten by another origin, by a later event, and carried before.
        check(delta(vec![
            row(11, 9, "a", Some((14, 7))),
            row(13, 11, "b", Some((2, 9))),
            row(14, 12, "a", None),
        ]));
    }

    /// What is on the wire is a promise to every node of the last version: a change here needs a new one.
    #[test]
    fn the_encoding_of_a_delta_stays_what_it_is() {
        let frame = delta(vec![row(11, 5, "a", Some((11, 7))), row(12, 6, "b", Some((9, 8)))]).to_frame();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let origin = "07".repeat(16);
        let namespace = "01".repeat(16);
        let other = "08".repeat(16);
        let after = "0a0000000000000408";
        let rows = "000001000161017610000100016201090000000000000176";
        assert_eq!(hex, format!("060301{origin}{after}01{namespace}01{other}02{rows}"));
    }

    /// One small write: a line of its own costs as much as its key, value and namespace, and 21 bytes.
    #[test]
    fn what_is_common_to_all_deltas_is_not_said() {
        let own = vec![row(11, 5, "a", Some((11, 7))), row(12, 6, "b", Some((20, 7)))];
        let Message::Delta(delta) = delta(own) else { return };
        let named = Message::Delta(delta.clone()).to_frame().len();
        let said = delta.clone().said_by(delta.origin);
        assert_eq!(said.clone().heard_from(ReplicaId([7; 16])), delta);
        assert_eq!(check(Message::Delta(said.clone())), named - 16);
        // Of another's events all is named, whoever overwrote them since.
        assert_eq!(delta.clone().said_by(ReplicaId([9; 16])), delta);
        let one = Delta { rows: said.rows[..1].to_vec(), upto: said.rows[0].position, ..said };
        assert_eq!(check(Message::Delta(one)), 21 + 16 + "a".len() + "v".len());
    }

    #[test]
    fn an_interval_that_goes_on_behind_its_rows_says_how_far() {
        let Message::Delta(delta) = delta(vec![row(11, 5, "a", None)]) else { return };
        let upto = Position { hlc: Hlc::new(99, 0), ..delta.upto };
        let longer = check(Message::Delta(Delta { upto, ..delta.clone() }));
        assert!(longer > check(Message::Delta(delta.clone())));
        check(Message::Delta(Delta { group: 7, ..delta.clone() }));
        check(Message::Delta(Delta { rows: Vec::new(), upto: delta.after, ..delta }));
    }

    #[test]
    fn what_is_said_of_batches_survives_and_is_checked() {
        let rows = vec![row(11, 5, "a", Some((11, 7))), row(12, 6, "b", Some((12, 7)))];
        let Message::Delta(delta) = delta(rows) else { return };
        let said = |going_on: &[u32], ends: &[(u8, u64)]| {
            let ends =
                ends.iter().map(|(replica, ms)| (ReplicaId([*replica; 16]), Hlc::new(*ms, 0))).collect();
            Message::Delta(Delta { batches: Batches { going_on: going_on.to_vec(), ends }, ..delta.clone() })
        };
        check(said(&[0], &[(7, 12)]));
        check(said(&[0, 1], &[]));
        check(said(&[], &[(7, 12), (9, 40)]));
        for going_on in [&[2][..], &[1, 0], &[0, 0]] {
            assert!(Message::from_frame(&said(going_on, &[]).to_frame()).is_err(), "{going_on:?}");
        }
        let Message::Delta(own) = said(&[0], &[(7, 12)]) else { return };
        let travelling = own.clone().said_by(own.origin);
        assert_eq!(travelling.batches.ends[0].0, ReplicaId::SENDER);
        assert_eq!(travelling.heard_from(own.origin), own);
    }

    #[test]
    fn an_acknowledgement_of_the_receivers_own_events_names_nobody() {
        let position = Position { hlc: Hlc::new(11, 0), ops: 5, bytes: 8 };
        assert_eq!(check(Message::Ack(Ack { yours: Some(position), others: Vec::new() })), 13);
        check(Message::Ack(Ack { yours: None, others: vec![(ReplicaId([7; 16]), position)] }));
    }

    #[test]
    fn a_question_for_rights_survives() {
        let id = EntryId::whole(NamespaceId([1; 16]), crate::entry::Kind::Bounded, "stock");
        check(Message::Rights(RightsWanted { id, lacking: 3, received: u64::MAX }));
    }

    /// Every byte of a real frame, changed to anything: an error or another message, never a panic.
    #[test]
    fn a_changed_byte_never_panics() {
        let frame = delta(vec![row(11, 9, "a", Some((14, 7))), row(13, 11, "b", Some((2, 9)))]).to_frame();
        for at in 0..frame.len() {
            for byte in 0..=u8::MAX {
                let mut frame = frame.to_vec();
                frame[at] = byte;
                let _ = Message::from_frame(&frame);
            }
        }
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        let Message::Delta(mut delta) = delta(vec![row(11, 5, "a", None), row(12, 6, "b", None)]) else {
            return;
        };
        delta.upto.hlc = Hlc::new(11, 0);
        assert!(Message::from_frame(&Message::Delta(delta).to_frame()).is_err());
    }

    /// Found while the fuzz targets were written: a forged count at its end overflowed when the delta was sent on.
    #[test]
    fn counts_at_their_end_wrap() {
        let Message::Delta(mut delta) = delta(vec![row(11, 5, "a", Some((11, 7)))]) else { return };
        (delta.after.ops, delta.after.bytes) = (u64::MAX, u64::MAX);
        check(Message::Delta(delta));
    }

    /// No honest replica has such an entry, and one that took it could not send it on: with what is around it, it
    /// does not fit a frame.
    #[test]
    fn an_entry_beyond_its_bounds_is_refused() {
        let entry = |value_bytes: usize, metadata_bytes: usize| {
            let mut row = row(11, 5, "a", Some((11, 7)));
            let payload = Payload::Inline(Bytes::from(vec![b'v'; value_bytes]));
            let metadata = Some(Bytes::from(vec![b'1'; metadata_bytes]));
            let value = Value { payload, metadata, expires_at_s: None };
            row.entry.as_mut().expect("it has a state").body = Body::Value(value);
            Message::from_frame(&delta(vec![row]).to_frame())
        };
        for (value_bytes, metadata_bytes) in
            [(MAX_INLINE_BYTES - 1, 1), (MAX_INLINE_BYTES, MAX_METADATA_BYTES)]
        {
            assert!(entry(value_bytes, metadata_bytes).is_ok());
        }
        assert!(entry(MAX_INLINE_BYTES + 1, 1).is_err());
        assert!(entry(1, MAX_METADATA_BYTES + 1).is_err());
    }

    #[test]
    fn other_versions_and_oversize_frames_are_refused() {
        assert_eq!(Message::from_frame(&[9, 0]), Err(Malformed::Version(9)));
        assert!(Message::from_frame(&vec![PROTOCOL_VERSION; MAX_FRAME_BYTES + 1]).is_err());
    }
}
