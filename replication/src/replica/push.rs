//! Events on their way: one stream per peer and origin, live push and catch-up alike.
//!
//! A stream sends intervals `(after, upto]` of an origin's log, each as the latest state of the entries its
//! events touched. The receiver takes an interval only where it joins what it holds; where it does not, it
//! asks for what comes after that. So there are no gap lists, and a claim is true at every step.
//!
//! To peers of its region a replica pushes its own origin unasked, and to other regions by relays
//! ([`super::topology`]). Others are sent when asked for ([`Message::Pull`]).
//!
//! [`Message::Pull`]: crate::codec::message::Message::Pull

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{MessageError, Replica};
use crate::clock::{Dot, Hlc, Now, ReplicaId};
use crate::codec::message::{Batches, Delta, DeltaRow};
use crate::codec::row;
use crate::keys;
use crate::link::Lane;
use crate::store::{Store, StoreError};
use crate::vector::Position;

/// The most bytes of a stream that may wait for their acknowledgement. Bounds what a receiver must take in.
const MAX_UNACKNOWLEDGED_BYTES: usize = 4 << 20;

/// A stream without an acknowledgement for this long starts again from what the peer holds.
const REWIND_AFTER_US: u64 = 5_000_000;

/// A live stream that has sent something gathers what follows for at most this part of a round trip, so that a frame has
/// more in it: fewer packets, of which fewer are lost, each holding up what comes behind it.
const GATHERS_PART_OF_RTT: u64 = 16;

/// Or until this much has come together.
const GATHERED_BYTES: u64 = 16 << 10;

/// What an event counts for at most: of a large value, however long, only the list of its chunks goes with it.
const EVENT_BYTES: u64 = 4 << 10;

/// A stream at most this far behind is live push, beyond it catch-up.
const LIVE_BACKLOG_BYTES: u64 = 256 << 10;

/// A stream of catch-up that is at most this far behind waits for its acknowledgements, to go on as live push.
const GOES_LIVE_BACKLOG_BYTES: u64 = 32 << 10;

/// It does so at most this often: one that falls behind while it waits has more to send than this lane is for.
const GOES_LIVE_EVERY_US: u64 = 5_000_000;

/// A frame holds all of a batch, and if need be more than it was asked for, as long as it is not larger than this by then:
/// other replicas may have made the states of its entries larger than the batch was.
const MAX_WHOLE_BATCH_BYTES: usize = 768 << 10;

/// Events from further ahead than this are put off until their time has come: they are neither clamped nor
/// let into our clock.
pub const MAX_AHEAD_MS: u64 = 500;

/// How far a stream goes before it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// It does not: it follows the origin for as long as the link is up.
    Open,
    /// To this event.
    To(Hlc),
    /// To this event, and then on until this time.
    Leased { at_least: Hlc, until_us: u64 },
}

impl Span {
    pub(super) fn is_over(self, now: Now, sent: Hlc) -> bool {
        match self {
            Span::Open => false,
            Span::To(end) => sent >= end,
            Span::Leased { at_least, until_us } => sent >= at_least && now.mono_us >= until_us,
        }
    }
}

/// One origin's events on their way to one peer.
pub(super) struct Outgoing {
    lane: Lane,
    span: Span,
    /// Sent up to here.
    sent: Position,
    /// Where this run of the stream began: what was sent before is not remembered.
    began: Hlc,
    /// Events up to here were in the store when this run began.
    existed: Hlc,
    /// The ends of the intervals not yet acknowledged, with their bytes.
    unacknowledged: VecDeque<(Hlc, usize)>,
    unacknowledged_bytes: usize,
    /// When the oldest of them was sent, or the last acknowledgement came.
    waiting_since_us: u64,
    /// From then on it may wait to go live.
    goes_live_us: u64,
    /// When it last sent something.
    sent_us: Option<u64>,
}

impl Outgoing {
    fn new(from: Position, upto: Position, span: Span) -> Self {
        let backlog = backlog_bytes(from, upto);
        Self {
            lane: if backlog <= LIVE_BACKLOG_BYTES { Lane::Delta } else { Lane::CatchUp },
            span,
            sent: from,
            began: from.hlc,
            existed: upto.hlc,
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            waiting_since_us: 0,
            goes_live_us: 0,
            sent_us: None,
        }
    }

    pub(super) fn rewind_due_us(&self) -> Option<u64> {
        self.waiting_since_us().map(|since_us| since_us + REWIND_AFTER_US)
    }

    pub(super) fn acknowledged(&mut self, now: Now, upto: Position) {
        while let Some((end, bytes)) = self.unacknowledged.front()
            && *end <= upto.hlc
        {
            self.unacknowledged_bytes -= bytes;
            self.unacknowledged.pop_front();
            self.waiting_since_us = now.mono_us;
        }
        if upto.hlc > self.sent.hlc {
            // It got further by another way.
            *self = Self { lane: self.lane, ..Self::new(upto, upto, self.span) };
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Has the stream go on to this event, if it would end before.
    pub(super) fn extend_to(&mut self, hlc: Hlc) {
        match &mut self.span {
            Span::Open => {}
            Span::To(end) | Span::Leased { at_least: end, .. } => *end = hlc.max(*end),
        }
    }

    /// Since when an acknowledgement is awaited.
    pub(super) fn waiting_since_us(&self) -> Option<u64> {
        (!self.unacknowledged.is_empty()).then_some(self.waiting_since_us)
    }

    fn has_room(&self) -> bool {
        self.unacknowledged_bytes < MAX_UNACKNOWLEDGED_BYTES
    }

    fn note_sent(&mut self, now: Now, upto: Position, bytes: usize) {
        if self.unacknowledged.is_empty() {
            self.waiting_since_us = now.mono_us;
        }
        self.sent = upto;
        self.sent_us = Some(now.mono_us);
        self.unacknowledged.push_back((upto.hlc, bytes));
        self.unacknowledged_bytes += bytes;
    }

    /// With nothing on its way, a stream may change lanes without overtaking itself.
    fn choose_lane(&mut self, now: Now, upto: Position) {
        if self.unacknowledged.is_empty() {
            self.lane = Self::new(self.sent, upto, self.span).lane;
            if self.lane == Lane::CatchUp {
                self.goes_live_us = now.mono_us + GOES_LIVE_EVERY_US;
            }
        }
    }

    /// Until when what follows is to gather.
    fn gathers_until_us(&self, now: Now, upto: Position, gather_us: u64) -> Option<u64> {
        let gathered = backlog_bytes(self.sent, upto);
        let until_us = self.sent_us? + gather_us;
        let gathers = self.lane == Lane::Delta && gathered < GATHERED_BYTES && now.mono_us < until_us;
        gathers.then_some(until_us)
    }

    /// Whether it has caught up and only waits for the lane to be free to change: under steady writes there would
    /// always be something on its way, and fresh ones would stay behind all that is sent with catch-up.
    fn is_about_to_go_live(&self, now: Now, upto: Position) -> bool {
        let backlog = backlog_bytes(self.sent, upto);
        self.lane == Lane::CatchUp
            && self.sent.hlc >= self.existed
            && !self.unacknowledged.is_empty()
            && backlog <= GOES_LIVE_BACKLOG_BYTES
            && now.mono_us >= self.goes_live_us
    }
}

/// About how much there is to send.
fn backlog_bytes(from: Position, upto: Position) -> u64 {
    let events = upto.ops.saturating_sub(from.ops);
    upto.bytes.saturating_sub(from.bytes).min(events.saturating_mul(EVENT_BYTES))
}

impl<S: Store> Replica<S> {
    /// Begins, or begins again, the stream of `origin` to `to` from what that peer says it holds.
    /// With `whole`, every event goes with a state.
    pub(super) fn start_stream(&mut self, to: ReplicaId, origin: ReplicaId, whole: bool, span: Span) {
        let upto = self.durable.position(origin);
        // Of an origin that came after the epoch nothing was dropped.
        let log_begins = if self.is_from_before_epoch(origin) { self.epoch } else { Hlc::ZERO };
        if let Some(peer) = self.peers.get_mut(&to) {
            let after = peer.claims.hlc(origin);
            if after < log_begins && after < upto.hlc {
                // What it lacks is not in the log any more.
                peer.outgoing.remove(&origin);
                peer.behind_due = true;
                return;
            }
            let mut stream = Outgoing::new(peer.claims.position(origin), upto, span);
            if whole {
                stream.existed = Hlc::ZERO;
            }
            peer.outgoing.insert(origin, stream);
        }
    }

    pub(super) fn handle_pull(
        &mut self,
        now: Now,
        from: ReplicaId,
        origin: ReplicaId,
        (after, whole): (Hlc, bool),
    ) {
        let Some(peer) = self.peers.get(&from) else { return };
        // Its claims rise only; a request from before the last of them has been overtaken.
        if origin != from && after >= peer.claims.hlc(origin) {
            let span = self.span_of_pull(now, from, origin);
            self.start_stream(from, origin, whole, span);
        }
    }

    pub(super) fn rewind_unacknowledged(&mut self, now: Now, to: ReplicaId) {
        let Some(peer) = self.peers.get(&to) else { return };
        let due =
            peer.outgoing.iter().filter(|(_, s)| s.rewind_due_us().is_some_and(|due| due <= now.mono_us));
        let due: Vec<(ReplicaId, Span)> = due.map(|(origin, stream)| (*origin, stream.span)).collect();
        for (origin, span) in due {
            self.counters.rewinds += 1;
            self.start_stream(to, origin, false, span);
        }
    }

    /// The next interval for this lane of this peer.
    pub(super) fn next_delta(
        &mut self,
        now: Now,
        to: ReplicaId,
        lane: Lane,
        max_bytes: usize,
    ) -> Result<Option<Delta>, StoreError> {
        let Some(peer) = self.peers.get_mut(&to) else { return Ok(None) };
        let gather_us = self.settings.gather_us.min(peer.rtt_us.unwrap_or(0) / GATHERS_PART_OF_RTT);
        let mut chosen = None;
        for (origin, stream) in &mut peer.outgoing {
            let upto = self.durable.position(*origin);
            let has_more = upto.hlc > stream.sent.hlc && !stream.span.is_over(now, stream.sent.hlc);
            if !has_more || !stream.has_room() || stream.is_about_to_go_live(now, upto) {
                continue;
            }
            stream.choose_lane(now, upto);
            if stream.lane != lane {
                continue;
            }
            if let Some(until_us) = stream.gathers_until_us(now, upto, gather_us) {
                peer.gathers_until_us = Some(peer.gathers_until_us.map_or(until_us, |us| us.min(until_us)));
            } else {
                chosen = Some((*origin, stream.sent, stream.began, stream.existed));
                break;
            }
        }
        let Some((origin, after, began, existed)) = chosen else { return Ok(None) };
        let (mut delta, bytes) = self.build_delta(origin, after, began..existed, max_bytes)?;
        if let Some(claims) = self.claims_of(to) {
            delta.batches.ends = self.batches_beyond(claims);
        }
        self.counters.events_sent += delta.rows.len() as u64;
        if let Some(stream) = self.peers.get_mut(&to).and_then(|peer| peer.outgoing.get_mut(&origin)) {
            stream.note_sent(now, delta.upto, bytes);
        }
        Ok(Some(delta))
    }

    /// The interval that follows `after`. Of `run`, all events existed when the stream's run began.
    fn build_delta(
        &self,
        origin: ReplicaId,
        after: Position,
        run: std::ops::Range<Hlc>,
        max_bytes: usize,
    ) -> Result<(Delta, usize), StoreError> {
        let end = self.durable.position(origin);
        let mut delta =
            Delta { origin, group: 0, after, upto: end, rows: Vec::new(), batches: Batches::default() };
        let mut bytes = 0;
        let mut fault = None;
        let origin_index = self.known_origin_index(origin);
        let origin_index =
            origin_index.ok_or_else(|| StoreError::new("a claim for an origin without an index"))?;
        self.store.scan(&keys::log(origin_index, after.hlc.next()), &mut |row_key, row| {
            let Some(hlc) = keys::parse_log(row_key, origin_index).filter(|hlc| *hlc <= end.hlc) else {
                return ControlFlow::Break(());
            };
            // An interval ends only where the counts are known, at a repaired event they are not; and not within a batch,
            // if a frame holds all of it.
            let is_within_batch = delta.batches.goes_on(delta.rows.len().wrapping_sub(1));
            let may_end = !is_within_batch || bytes >= MAX_WHOLE_BATCH_BYTES;
            if bytes >= max_bytes && may_end && delta.rows.last().is_some_and(|row| row.position.ops > 0) {
                if !planted!(ClaimBeyondCut) {
                    delta.upto = delta.rows.last().map_or(after, |row| row.position);
                }
                return ControlFlow::Break(());
            }
            match self.delta_row(Dot { hlc, replica: origin }, row_key, &row, &run) {
                Ok((row, goes_on)) => {
                    bytes += row.frame_bytes();
                    if goes_on {
                        delta.batches.going_on.push(delta.rows.len() as u32);
                    }
                    delta.rows.push(row);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    fault = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        fault.map_or(Ok((delta, bytes)), Err)
    }

    fn delta_row(
        &self,
        dot: Dot,
        row_key: &[u8],
        row: &[u8],
        run: &std::ops::Range<Hlc>,
    ) -> Result<(DeltaRow, bool), StoreError> {
        let hlc = dot.hlc;
        let log_row = row::decode_log(row_key, hlc, row)
            .map_err(|why| StoreError::new(format!("the log row of {hlc} is damaged: {why}")))?;
        // This run has sent the entry with its previous event, and what it sent then held this event's effect,
        // since the event existed already. A later event has a row of its own.
        let sent_before = log_row.previous > run.start && hlc <= run.end;
        let missing = || StoreError::new(format!("the entry that event {hlc} wrote is missing"));
        // What lost unseen goes out by its own event, so that others too see it lose; then the next has to go as well.
        let entry = match self.lost_by(&log_row.id, dot)? {
            Some(lost) => Some(lost),
            None if sent_before => {
                let previous = Dot { hlc: log_row.previous, ..dot };
                if self.lost_by(&log_row.id, previous)?.is_some() { self.entry(&log_row.id)? } else { None }
            }
            None => Some(self.entry(&log_row.id)?.ok_or_else(missing)?),
        };
        Ok((DeltaRow { position: log_row.position, id: log_row.id, entry }, log_row.goes_on))
    }

    /// Whether this peer may tell of this origin. Of one whose record is not known nobody may: no epoch waits for what it
    /// wrote, and the record may never come. Of one that was removed only members may, for what they hold is in its cut.
    /// Whom it has let in after the others had fenced it holds more, and is unknown to them.
    pub(super) fn may_hand_on(&self, from: ReplicaId, origin: ReplicaId) -> bool {
        match self.members.removal(origin) {
            Some(_) => self.members.contains(from),
            None => self.members.contains(origin),
        }
    }

    pub(super) fn handle_delta(
        &mut self,
        now: Now,
        from: ReplicaId,
        delta: Delta,
    ) -> Result<(), MessageError> {
        let origin = delta.origin;
        if !self.stage().takes_part() {
            return Ok(());
        }
        if origin == self.id {
            return Err(MessageError::Protocol { reason: "it sends us our own events".into() });
        }
        if !self.may_hand_on(from, origin) {
            return Ok(());
        }
        let held = self.held.hlc(origin);
        let (upto, bytes) = (delta.upto.hlc, delta.upto.bytes.saturating_sub(delta.after.bytes));
        // States may run ahead of the interval that brings them.
        let states = delta.rows.iter().filter_map(|row| Some(row.entry.as_ref()?.dot.hlc));
        if states.fold(delta.upto.hlc, Hlc::max).wall_ms() > now.wall_ms + MAX_AHEAD_MS {
            // The sender repeats it when no acknowledgement comes.
            self.counters.held_back += 1;
            return Ok(());
        }
        if delta.after.hlc > held && !planted!(GapIgnored) {
            self.counters.gaps += 1;
            self.request_once(now, from, origin, false);
            return Ok(());
        }
        self.hear_of_batches(origin, &delta.batches, &delta.rows);
        let first_new = delta.rows.partition_point(|row| row.position.hlc <= held);
        let mut rows = delta.rows.into_iter().enumerate().skip(first_new).peekable();
        while rows.peek().is_some() {
            let mut events = Vec::with_capacity(1);
            for (number, row) in rows.by_ref() {
                events.push(row);
                if !delta.batches.goes_on(number) {
                    break;
                }
            }
            self.commit_if_full()?;
            if !self.apply_as_one(now, origin, events)? {
                // It counts on a state we never got: start again from what we hold, with every state.
                self.counters.gaps += 1;
                self.request_once(now, from, origin, true);
                return Ok(());
            }
        }
        self.clock.observe(delta.upto.hlc);
        self.claim(origin, delta.upto)?;
        self.request_progressed(now, origin);
        self.owe_acknowledgement(now, from, origin, bytes);
        if self.is_far(origin) {
            self.far_events_came(now, from, origin, (upto > held).then_some(upto));
        }
        Ok(())
    }
}

impl<S: Store> Replica<S> {
    /// Applies these events, a whole batch or a single one, of which all are staged or none. Gives whether they were.
    fn apply_as_one(
        &mut self,
        now: Now,
        origin: ReplicaId,
        events: Vec<DeltaRow>,
    ) -> Result<bool, StoreError> {
        for event in events.iter().filter(|_| events.len() > 1) {
            if !self.may_apply_event(origin, event)? {
                return Ok(false);
            }
        }
        self.veil(now, origin, &events)?;
        let count = events.len();
        for (number, event) in events.into_iter().enumerate() {
            let named = (&event.id, number + 1 < count);
            if !self.apply_event(origin, event.position, named, event.entry)? {
                return Ok(false);
            }
            self.counters.events_applied += 1;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under steady writes something is always on its way, and a stream that had caught up once stayed behind all that
    /// is sent with catch-up for as long as they went on.
    #[test]
    fn a_stream_that_has_caught_up_goes_live_while_writes_go_on() {
        let at = |ms: u64, kib: u64| Position { hlc: Hlc::new(ms, 0), ops: kib, bytes: kib << 10 };
        let now = |ms: u64| Now { wall_ms: ms, mono_us: ms * 1000 };
        let mut stream = Outgoing::new(at(0, 0), at(10, 1_000), Span::Open);
        assert_eq!(stream.lane, Lane::CatchUp);
        stream.note_sent(now(20), at(9, 990), 990 << 10);
        assert!(!stream.is_about_to_go_live(now(20), at(10, 1_000)), "the backlog is not sent yet");
        stream.note_sent(now(20), at(10, 1_000), 10 << 10);
        assert!(!stream.is_about_to_go_live(now(21), at(21, 1_100)), "too much has come since");
        assert!(stream.is_about_to_go_live(now(21), at(21, 1_001)));
        stream.acknowledged(now(30), at(10, 1_000));
        stream.choose_lane(now(30), at(30, 1_005));
        assert_eq!(stream.lane, Lane::Delta);
        // One that has fallen behind again in the meantime stays where it is for a while.
        let mut stream = Outgoing::new(at(0, 0), at(10, 1_000), Span::Open);
        stream.choose_lane(now(30), at(30, 2_000));
        stream.note_sent(now(30), at(30, 2_000), 2_000 << 10);
        assert!(!stream.is_about_to_go_live(now(31), at(31, 2_001)));
        assert!(stream.is_about_to_go_live(now(30 + GOES_LIVE_EVERY_US / 1000), at(31, 2_001)));
    }

    /// A large value's bytes were counted, which do not go with its event; so it went with catch-up, and all that was
    /// written after it, behind what others catch up with.
    #[test]
    fn a_large_value_is_no_backlog() {
        let at = |ms: u64, mib: u64| Position { hlc: Hlc::new(ms, 0), ops: ms, bytes: mib << 20 };
        assert_eq!(Outgoing::new(at(1, 0), at(9, 8 * 25), Span::Open).lane, Lane::Delta);
        assert_eq!(Outgoing::new(at(1, 0), at(1_000, 8 * 25), Span::Open).lane, Lane::CatchUp);
    }

    #[test]
    fn what_follows_at_once_gathers_for_a_part_of_the_round_trip() {
        let at = |ms: u64, bytes: u64| Position { hlc: Hlc::new(ms, 0), ops: bytes, bytes };
        let now = |us: u64| Now { wall_ms: 0, mono_us: us };
        let mut stream = Outgoing::new(at(0, 0), at(1, 100), Span::Open);
        assert_eq!(stream.gathers_until_us(now(9), at(1, 100), 5_000), None, "the first goes at once");
        stream.note_sent(now(10), at(1, 100), 100);
        assert_eq!(stream.gathers_until_us(now(11), at(2, 200), 5_000), Some(5_010));
        assert_eq!(stream.gathers_until_us(now(5_010), at(2, 200), 5_000), None, "it was long enough");
        assert_eq!(stream.gathers_until_us(now(11), at(2, 200), 0), None, "the round trip is short");
        assert_eq!(
            stream.gathers_until_us(now(11), at(2, 100 + GATHERED_BYTES), 5_000),
            None,
            "it is enough"
        );
    }
}
