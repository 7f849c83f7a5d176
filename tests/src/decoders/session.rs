//! Two replicas that work together honestly, and a stranger in between who changes, repeats and makes up frames.
//!
//! A replica may refuse what it is sent, close the link, or call itself an older copy; its store may not break, it
//! may not panic, and its clock may not be led away. At the end each store must open again with the root that the
//! replica had. The bytes are steps: one byte of which, then what that step takes, read as far as there is any.

use bytes::Bytes;
use replication::codec::message::Message;
use replication::entry::Kind;
use replication::kinds::{Change, ChangeError, Content};
use replication::link::MAX_FRAME_BYTES;
use replication::replica::{MAX_AHEAD_MS, MessageError, WriteError};
use replication::store::memory::MemoryStore;
use replication::{
    Body, ChunkId, DigestKey, EntryId, Lane, Manifest, MemberRecord, NamespaceId, Now, Payload, Replica,
    ReplicaId, Settings, Value,
};

/// The two that are tested, named as the simulator names its replicas, so that its frames mean something here.
const IDS: [ReplicaId; 2] = [ReplicaId([1; 16]), ReplicaId([2; 16])];
/// Who frames come from that neither of the two has sent.
const STRANGER: ReplicaId = ReplicaId([3; 16]);
/// The simulator's wall clock starts here, and stops a minute later.
const EPOCH_MS: u64 = 1_767_225_600_000 + 60_000;
/// The most steps of a session.
const MAX_STEPS: usize = 100;
/// The most frames that the two exchange in one step.
const MAX_EXCHANGED: usize = 60;
/// The size at which an interval is split: small, so that a session has many.
const FRAME_BYTES: usize = 200;
/// The most events that may wait for the driver: queues are short whatever comes in.
const MAX_EVENTS: usize = 16;

/// The steps. The number of each is part of what the corpus means.
pub mod step {
    /// Which replica, which key, how long: a put.
    pub const PUT: u8 = 0;
    /// Which replica, which key: a delete.
    pub const DELETE: u8 = 1;
    /// Hundredths of a second that pass.
    pub const WAIT: u8 = 2;
    /// The two say to each other what they have to say.
    pub const EXCHANGE: u8 = 3;
    /// To which replica, where (two bytes), what: the other's next frames, the first with this byte changed.
    pub const CHANGED: u8 = 4;
    /// To which replica, from whom, length (two bytes), bytes: a frame.
    pub const FRAME: u8 = 5;
    /// Which replica: its link to the other breaks, and comes back.
    pub const RECONNECT: u8 = 6;
    /// Which replica: it loses what was not flushed, and starts again.
    pub const CRASH: u8 = 7;
    /// How many there are.
    pub const COUNT: u8 = 8;
}

/// Runs the session that these bytes tell.
pub fn check(bytes: &[u8]) {
    stores(bytes);
}

/// As [`check`]; gives what the two have on their disks in the end.
pub fn stores(bytes: &[u8]) -> [MemoryStore; 2] {
    let mut steps = Steps(bytes);
    let mut session = Session::begin();
    for _ in 0..MAX_STEPS {
        let Some(step) = steps.byte() else { break };
        session.step(step % step::COUNT, &mut steps);
    }
    session.exchange();
    for node in 0..2 {
        session.crash(node);
    }
    session.replicas.map(Replica::into_store)
}

/// The step that sends this frame to a replica.
pub fn frame_step(to: u8, from_stranger: bool, frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    let head = [step::FRAME, to, u8::from(from_stranger)];
    [&head[..], &len.to_le_bytes(), &frame[..usize::from(len)]].concat()
}

/// What is left of the bytes; past the end all is zero, but for the next step, which is none.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte().unwrap_or(0))
    }

    fn node(&mut self) -> usize {
        self.number() % 2
    }

    fn long(&mut self) -> usize {
        self.number() | self.number() << 8
    }

    fn slice(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct Session {
    replicas: [Replica<MemoryStore>; 2],
    now: Now,
}

impl Session {
    fn begin() -> Self {
        let open = |id| Replica::open(MemoryStore::default(), settings(), id).expect("an empty store opens");
        let now = Now { wall_ms: EPOCH_MS, mono_us: 0 };
        let mut session = Self { replicas: IDS.map(open), now };
        let record = |pop: &str| MemberRecord { pop: pop.into(), region: "here".into() };
        session.replicas[0].found(now, &record("a")).expect("a new store takes its first record");
        session.replicas[1].join(record("b"));
        (0..2).for_each(|node| session.connect(node));
        session
    }

    fn connect(&mut self, node: usize) {
        self.replicas[node].handle_connected(self.now, IDS[1 - node]);
        self.replicas[node].handle_connected(self.now, STRANGER);
    }

    fn wait(&mut self, ms: u64) {
        self.now = Now { wall_ms: self.now.wall_ms + ms, mono_us: self.now.mono_us + ms * 1_000 };
    }

    fn step(&mut self, step: u8, steps: &mut Steps<'_>) {
        match step {
            step::PUT => {
                let (node, key, len) = (steps.node(), steps.number(), steps.number());
                self.write(node, key, Some(len));
            }
            step::DELETE => {
                let (node, key) = (steps.node(), steps.number());
                self.write(node, key, None);
            }
            step::WAIT => self.wait(10 * steps.number() as u64),
            step::EXCHANGE => self.exchange(),
            step::CHANGED => {
                let (to, at, with) = (steps.node(), steps.long(), steps.byte().unwrap_or(0));
                self.deliver_changed(to, at, with);
            }
            step::FRAME => {
                let (to, is_strange, len) = (steps.node(), steps.number() % 2 == 1, steps.long());
                let from = if is_strange { STRANGER } else { IDS[1 - to] };
                self.deliver(to, from, steps.slice(len));
                self.drive(to);
            }
            step::RECONNECT => {
                let node = steps.node();
                self.replicas[node].handle_disconnected(IDS[1 - node]);
                self.replicas[1 - node].handle_disconnected(IDS[node]);
                (0..2).for_each(|node| self.connect(node));
            }
            _ => {
                let node = steps.node();
                self.crash(node);
            }
        }
    }

    /// Stages a write; every third is left to a later flush.
    fn write(&mut self, node: usize, key: usize, len: Option<usize>) {
        let written = match key % 5 {
            4 => {
                let (id, change) = change(key, len);
                self.replicas[node].change(self.now, id, change)
            }
            _ => {
                let id = EntryId::value(NamespaceId([(key % 3) as u8 * 9; 16]), format!("key-{}", key % 12));
                let body = len.map_or(Body::Tombstone, |len| Body::Value(value(len)));
                self.replicas[node].write(self.now, id, body)
            }
        };
        match written {
            // Also of a counter: no frame may have made it count that far.
            Err(error @ WriteError::Change(ChangeError::WrongKind)) => panic!("{error}"),
            Err(WriteError::Change(ChangeError::LacksRights { .. })) => {
                let (id, _) = change(key, len);
                self.replicas[node].want_rights(id, 1, self.now.mono_us + 1_000_000);
            }
            Err(WriteError::Change(ChangeError::TooFar | ChangeError::TooOften | ChangeError::NoExpiry)) => {}
            Ok(_) | Err(WriteError::ClockSkew { .. } | WriteError::NotMember | WriteError::Draining) => {}
            Err(WriteError::Store(error)) => self.expect_told_to_stop(node, &error.reason),
            // Time only goes forward here, so a peer has led the clock away.
            Err(error @ WriteError::ClockBehind { .. }) => panic!("{error}"),
        }
        if !key.is_multiple_of(3) {
            self.drive(node);
        }
    }

    /// What a peer may say to stop a replica: that it is an older copy or a clone, or has fallen behind.
    fn expect_told_to_stop(&self, node: usize, reason: &str) {
        assert!(reason.contains("rebuild this node"), "a peer broke the store of {:?}: {reason}", IDS[node]);
    }

    fn deliver(&mut self, to: usize, from: ReplicaId, frame: &[u8]) {
        let Ok(message) = Message::from_frame(frame) else { return };
        match self.replicas[to].handle_message(self.now, from, message) {
            Ok(()) => {}
            Err(MessageError::Store(error)) => self.expect_told_to_stop(to, &error.reason),
            Err(MessageError::Protocol { .. }) => {
                self.replicas[to].handle_disconnected(from);
                self.replicas[to].handle_connected(self.now, from);
            }
        }
    }

    /// What a driver owes a replica, but for sending.
    fn drive(&mut self, node: usize) {
        let now = self.now;
        let replica = &mut self.replicas[node];
        let mut driven = replica.flush();
        if replica.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            driven = driven.and_then(|()| replica.handle_timeout(now)).and_then(|()| replica.flush());
        }
        let events = std::iter::from_fn(|| replica.poll_event()).count();
        assert!(events <= MAX_EVENTS, "{events} events after one turn");
        replica.lag(now).expect("memory reads");
        assert_eq!(replica.peers().count(), 2, "nobody else has connected");
        if let Err(error) = driven {
            self.expect_told_to_stop(node, &error.reason);
        }
    }

    /// The frames that a replica has for another now.
    fn frames(&mut self, from: usize, to: ReplicaId) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for lane in Lane::ALL {
            for _ in 0..4 {
                match self.replicas[from].poll_transmit(self.now, to, lane, FRAME_BYTES) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        self.expect_told_to_stop(from, &error.reason);
                        return frames;
                    }
                }
            }
        }
        for frame in &frames {
            assert!(frame.len() <= MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
            Message::from_frame(frame).expect("replicas send what replicas read");
        }
        frames
    }

    fn exchange(&mut self) {
        let mut exchanged = 0;
        loop {
            let before = exchanged;
            for from in 0..2 {
                self.drive(from);
                self.frames(from, STRANGER);
                for frame in self.frames(from, IDS[1 - from]) {
                    exchanged += 1;
                    self.deliver(1 - from, IDS[from], &frame);
                }
            }
            if exchanged == before || exchanged > MAX_EXCHANGED {
                return;
            }
            self.wait(1);
        }
    }

    fn deliver_changed(&mut self, to: usize, at: usize, with: u8) {
        self.drive(1 - to);
        let frames = self.frames(1 - to, IDS[to]);
        for (number, frame) in frames.iter().enumerate() {
            let mut frame = frame.to_vec();
            let len = frame.len();
            if number == 0 {
                frame[at % len] = with;
            }
            self.deliver(to, IDS[1 - to], &frame);
        }
        self.drive(to);
    }

    /// Loses what was not flushed; what was must open again, and be what the replica said it held.
    fn crash(&mut self, node: usize) {
        let (root, vector) = (self.replicas[node].root(), self.replicas[node].vector().clone());
        let mut disk = self.replicas[node].store().clone();
        disk.crash(0);
        let opened = Replica::open(disk, settings(), STRANGER);
        self.replicas[node] = opened.expect("what it has written, a replica can read");
        assert_eq!(self.replicas[node].root(), root);
        assert_eq!(*self.replicas[node].vector(), vector);
        assert_eq!(self.replicas[node].id(), IDS[node]);
        self.replicas[1 - node].handle_disconnected(IDS[node]);
        (0..2).for_each(|node| self.connect(node));
    }
}

fn settings() -> Settings {
    Settings::new([1; 16], DigestKey::new([2; 32]))
}

/// A value whose form follows from its length.
/// A change of a counter, set or map.
fn change(key: usize, len: Option<usize>) -> (EntryId, Change) {
    let namespace = NamespaceId([9; 16]);
    let content = |len: usize| Content { bytes: Bytes::from(vec![7; len % 100]), expires_at_s: None };
    match (key % 3, len) {
        (0, Some(len)) if len % 3 == 0 => {
            let change = Change::Add { amount: len as i64 % 9 - 4, expires_at_s: None };
            (EntryId::whole(namespace, Kind::Bounded, "stock"), change)
        }
        (0, Some(len)) => {
            let change = Change::Add {
                amount: len as i64 - 40,
                expires_at_s: (len % 7 == 0).then_some(2_000_000_000),
            };
            (EntryId::whole(namespace, Kind::Counter, "count"), change)
        }
        (0, None) if key.is_multiple_of(2) => {
            (EntryId::whole(namespace, Kind::Bounded, "stock"), Change::Clear)
        }
        (0, None) => (EntryId::whole(namespace, Kind::Counter, "count"), Change::Clear),
        (kind, Some(len)) => {
            let kind = if kind == 1 { Kind::Set } else { Kind::Map };
            (EntryId::element(namespace, kind, "of", format!("{}", len % 4)), Change::Put(content(len)))
        }
        (_, None) if key.is_multiple_of(2) => (EntryId::whole(namespace, Kind::Set, "of"), Change::Clear),
        (_, None) => (EntryId::element(namespace, Kind::Map, "of", "1"), Change::Remove),
    }
}

fn value(len: usize) -> Value {
    let payload = match len {
        250.. => Payload::Chunked(Manifest { len: 17 << 10, chunks: vec![ChunkId([len as u8; 32])] }),
        len => Payload::Inline(vec![b'v'; len].into()),
    };
    let metadata = (len % 5 == 1).then(|| Bytes::from_static(b"{}"));
    let expires_at_s = (len % 7 == 1).then_some((EPOCH_MS + MAX_AHEAD_MS) / 1_000);
    Value { payload, metadata, expires_at_s }
}
