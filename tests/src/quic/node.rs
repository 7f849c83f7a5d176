//! One node on the network in memory: the shipping transport, and behind it a replica driven as the engine does.
//!
//! Frames carry the number of their link and their place in its lane before what the replica wrote. The rule
//! upheld here: whatever the transport promises of links ([`LinkEvents`]), order and loss of frames is checked
//! at every call, and the first breach ends the run.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use littoral_node::identity::Identity;
use littoral_node::transport::{self, ChunkSource, LinkEvents, LinkSender, PeerInfo, Transport};
use replication::codec::message::Message;
use replication::replica::{Event, MessageError, WriteError};
use replication::store::memory::MemoryStore;
use replication::{Body, ChunkId, Dot, EntryId, Lane, MemberRecord, Now, Replica, ReplicaId, Settings};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::network::Network;
use super::socket;
use crate::random::mix;
use crate::sim::oracle::Oracle;

/// Wall clocks start here: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// As in the engine: frames that wait for a node's attention.
const MAX_QUEUED_FRAMES: usize = 64;
/// As in the engine: what one turn takes.
const MAX_GROUP: usize = 1_024;
/// The longest that a driver sleeps.
const MAX_SLEEP_US: u64 = 500_000;
/// The shortest, so that time passes.
const MIN_SLEEP_US: u64 = 1_000;
/// How long an engine that is busy with a flush lets a frame wait.
const BUSY: Duration = Duration::from_millis(1);
/// Before each frame: the link's number at the sender, and the frame's place in its lane.
const STAMP_BYTES: usize = 8;

/// What all nodes of a run share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) network: Network,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    /// The first thing that must not have happened.
    pub(super) violation: Arc<Mutex<Option<String>>>,
    pub(super) replica: Settings,
}

impl Shared {
    pub(super) fn now(&self) -> Now {
        let now_us = self.network.now_us();
        Now { wall_ms: EPOCH_MS + now_us / 1_000, mono_us: now_us }
    }

    fn report(&self, violation: String) {
        lock(&self.violation).get_or_insert(violation);
    }
}

/// Who a node is.
pub(super) struct Place {
    pub(super) identity: Identity,
    pub(super) replica: ReplicaId,
    pub(super) address: SocketAddr,
    /// Whom it dials.
    pub(super) peers: Vec<(String, String)>,
    /// Whether it founds the cluster, which the others join.
    pub(super) is_founder: bool,
    /// What it may send.
    pub(super) budgets: transport::Budgets,
}

impl Place {
    pub(super) fn settings(&self) -> transport::Settings {
        transport::Settings {
            listen: self.address,
            pop: self.identity.pop.clone(),
            region: "eu".into(),
            replica: self.replica,
            peers: self.peers.clone(),
            budgets: self.budgets.clone(),
            packs: true,
        }
    }
}

/// A node, running or down. Its disk outlives it.
pub(super) struct Node {
    pub(super) place: Place,
    shared: Shared,
    seed: u64,
    starts: u32,
    disk: MemoryStore,
    running: Option<Running>,
}

struct Running {
    transport: Transport,
    engine: Arc<Mutex<Engine>>,
    commands: mpsc::UnboundedSender<Command>,
    driver: JoinHandle<()>,
}

impl Node {
    pub(super) fn new(place: Place, shared: Shared, seed: u64) -> Self {
        Self { place, shared, seed, starts: 0, disk: MemoryStore::default(), running: None }
    }

    /// Starts it on a new socket, if it is down.
    pub(super) fn start(&mut self) -> Result<(), String> {
        if self.running.is_some() {
            return Ok(());
        }
        let pop = &self.place.identity.pop;
        self.starts += 1;
        let disk = std::mem::take(&mut self.disk);
        let mut replica = Replica::open(disk, self.shared.replica, self.place.replica)
            .map_err(|error| format!("{pop} does not open: {error}"))?;
        // The first founds the cluster; founding and joining a second time do nothing.
        let record = MemberRecord { pop: pop.clone(), region: "eu".into() };
        if self.place.is_founder {
            let founded = replica.found(self.shared.now(), &record);
            founded.map_err(|error| format!("{pop} cannot found the cluster: {error}"))?;
        } else {
            replica.join(record);
        }
        let (commands, taken) = mpsc::unbounded_channel();
        let engine = Arc::new(Mutex::new(Engine {
            pop: pop.clone(),
            shared: self.shared.clone(),
            replica: Some(replica),
            links: BTreeMap::new(),
            next_link: self.starts << 16,
            staged: Vec::new(),
            links_had: 0,
            links_closed: 0,
        }));
        let door = Door { commands: commands.clone(), places: Arc::new(Semaphore::new(MAX_QUEUED_FRAMES)) };
        let seed = mix(self.seed ^ u64::from(self.starts));
        let wire = socket::wire(&self.shared.network, self.place.address, seed);
        let identity = &self.place.identity;
        let transport = transport::start_on(wire, self.place.settings(), identity, door, Arc::new(NoChunks))
            .map_err(|error| format!("{pop} does not start: {error}"))?;
        let driver = tokio::spawn(drive(engine.clone(), taken));
        self.running = Some(Running { transport, engine, commands, driver });
        Ok(())
    }

    /// Stops it as an operator does: the peers are told.
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.transport.shutdown().await;
            self.end(running);
        }
    }

    /// Ends it at once: nobody is told, and what it would still send goes nowhere.
    pub(super) fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            self.end(running);
        }
    }

    fn end(&mut self, running: Running) {
        self.shared.network.unplug(self.place.address);
        running.driver.abort();
        if let Some(replica) = lock(&running.engine).replica.take() {
            self.disk = replica.into_store();
            // Each turn ends with a flush, so a crash between turns loses nothing staged.
            self.disk.crash(0);
        }
    }

    /// Asks it for a write; one that is down is not asked.
    pub(super) fn write(&self, id: EntryId, body: Body) {
        if let Some(running) = &self.running {
            let _ = running.commands.send(Command::Write { id, body });
        }
    }

    pub(super) fn transport(&self) -> Option<&Transport> {
        self.running.as_ref().map(|running| &running.transport)
    }

    /// What `see` finds in the running node.
    pub(super) fn inspect<T>(&self, see: impl FnOnce(&Engine) -> T) -> Option<T> {
        self.running.as_ref().map(|running| see(&lock(&running.engine)))
    }

    /// Whether its driver, which never ends by itself, has ended.
    pub(super) fn is_broken(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.driver.is_finished())
    }
}

/// What the transport calls.
#[derive(Clone)]
struct Door {
    commands: mpsc::UnboundedSender<Command>,
    places: Arc<Semaphore>,
}

enum Command {
    Connected { peer: PeerInfo, link: LinkSender },
    Disconnected { replica: ReplicaId },
    Frame { from: ReplicaId, lane: Lane, frame: Bytes, _place: OwnedSemaphorePermit },
    Write { id: EntryId, body: Body },
    Wake,
}

/// Nobody listens to a node that has crashed, so an error of `send` is the end of the matter.
impl LinkEvents for Door {
    async fn connected(&self, peer: PeerInfo, link: LinkSender) {
        let _ = self.commands.send(Command::Connected { peer, link });
    }

    async fn disconnected(&self, replica: ReplicaId) {
        let _ = self.commands.send(Command::Disconnected { replica });
        // Time for a frame that must not come any more to come.
        sleep(2 * BUSY).await;
    }

    async fn frame(&self, replica: ReplicaId, lane: Lane, frame: Bytes) {
        if let Ok(place) = self.places.clone().acquire_owned().await {
            // Now and then, and in every run the same, the engine has no time at once.
            if frame.len().is_multiple_of(8) {
                sleep(BUSY).await;
            }
            let _ = self.commands.send(Command::Frame { from: replica, lane, frame, _place: place });
        }
    }

    fn ready(&self, _replica: ReplicaId, _lane: Lane) {
        let _ = self.commands.send(Command::Wake);
    }
}

/// Chunks take another thread to read, which virtual time cannot wait for.
pub(super) struct NoChunks;

impl ChunkSource for NoChunks {
    fn read(&self, _: &ChunkId) -> io::Result<Option<Bytes>> {
        Ok(None)
    }
}

async fn drive(engine: Arc<Mutex<Engine>>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut taken = Vec::new();
    loop {
        let patience = lock(&engine).patience();
        // An error means that nothing came in the meantime; the replica may have something to do.
        let _ = timeout(patience, commands.recv_many(&mut taken, MAX_GROUP)).await;
        let mut engine = lock(&engine);
        if let Err(violation) = engine.turn(taken.drain(..)) {
            let violation = format!("{}: {violation}", engine.pop);
            engine.shared.report(violation);
            return;
        }
    }
}

/// The engine of one run of a node.
pub(super) struct Engine {
    pop: String,
    shared: Shared,
    /// None after its end.
    pub(super) replica: Option<Replica<MemoryStore>>,
    links: BTreeMap<ReplicaId, Link>,
    next_link: u32,
    staged: Vec<(Dot, EntryId, Body)>,
    /// Links that came up.
    pub(super) links_had: u64,
    /// Links closed because the peer broke the protocol.
    pub(super) links_closed: u64,
}

struct Link {
    sender: LinkSender,
    number: u32,
    sent: [u32; Lane::ALL.len()],
    /// The number that the peer has given the link.
    theirs: Option<u32>,
    received: [u32; Lane::ALL.len()],
}

impl Engine {
    /// Whether there is a link to the replica.
    pub(super) fn is_linked(&self, peer: ReplicaId) -> bool {
        self.links.contains_key(&peer)
    }

    fn patience(&self) -> Duration {
        let due_us = self.replica.as_ref().and_then(Replica::poll_timeout).unwrap_or(u64::MAX);
        let pause_us = due_us.saturating_sub(self.shared.network.now_us());
        Duration::from_micros(pause_us.clamp(MIN_SLEEP_US, MAX_SLEEP_US))
    }

    /// The engine's turn: take what waits, stage it, flush, acknowledge, then send.
    fn turn(&mut self, commands: impl Iterator<Item = Command>) -> Result<(), String> {
        let Some(mut replica) = self.replica.take() else { return Ok(()) };
        let result = self.turn_of(&mut replica, commands);
        self.replica = Some(replica);
        result
    }

    fn turn_of(
        &mut self,
        replica: &mut Replica<MemoryStore>,
        commands: impl Iterator<Item = Command>,
    ) -> Result<(), String> {
        let now = self.shared.now();
        for command in commands {
            match command {
                Command::Wake => {}
                Command::Connected { peer, link } => {
                    self.connected(peer.replica, link)?;
                    replica.handle_connected(now, peer.replica);
                }
                Command::Disconnected { replica: peer } => {
                    self.links.remove(&peer).ok_or("the end of a link that was not up")?;
                    replica.handle_disconnected(peer);
                }
                Command::Frame { from, lane, frame, _place } => {
                    self.frame(replica, now, from, lane, frame)?;
                }
                Command::Write { id, body } => match replica.write(now, id.clone(), body.clone()) {
                    Ok(dot) => self.staged.push((dot, id, body)),
                    // Over a throttled path half a round trip is more than a clock may be off.
                    Err(WriteError::NotMember | WriteError::ClockSkew { .. }) => {}
                    Err(error) => return Err(format!("a write failed: {error}")),
                },
            }
        }
        let failed = |error| format!("the store failed: {error}");
        replica.flush().map_err(failed)?;
        self.acknowledge(replica)?;
        if replica.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            replica.handle_timeout(now).map_err(failed)?;
            replica.flush().map_err(failed)?;
            self.acknowledge(replica)?;
        }
        self.transmit(replica, now).map_err(failed)
    }

    /// All that was staged is durable: what was asked for, and what the replica recorded of its own accord.
    fn acknowledge(&mut self, replica: &mut Replica<MemoryStore>) -> Result<(), String> {
        while let Some(event) = replica.poll_event() {
            match event {
                Event::Recorded { dot, id, body } => self.staged.push((dot, id, body)),
                Event::OlderCopy { .. }
                | Event::Cloned { .. }
                | Event::Behind { .. }
                | Event::Removed { .. } => {
                    return Err(format!("stopped: {event:?}"));
                }
                _ => {}
            }
        }
        for (dot, id, body) in self.staged.drain(..) {
            lock(&self.shared.oracle).acknowledge(dot, id, body)?;
        }
        Ok(())
    }

    fn connected(&mut self, peer: ReplicaId, sender: LinkSender) -> Result<(), String> {
        self.next_link += 1;
        self.links_had += 1;
        let link = Link {
            sender,
            number: self.next_link,
            sent: Default::default(),
            theirs: None,
            received: Default::default(),
        };
        match self.links.insert(peer, link) {
            Some(_) => Err(format!("a second link to {peer:?} before the end of the first")),
            None => Ok(()),
        }
    }

    fn frame(
        &mut self,
        replica: &mut Replica<MemoryStore>,
        now: Now,
        from: ReplicaId,
        lane: Lane,
        mut frame: Bytes,
    ) -> Result<(), String> {
        let link = self.links.get_mut(&from).ok_or("a frame without a link")?;
        let taken = if frame.len() < STAMP_BYTES {
            Err("a frame that is too short".to_owned())
        } else {
            let (number, place) = (frame.get_u32(), frame.get_u32());
            match Message::from_frame(&frame) {
                Ok(message) => {
                    link.check_order(lane, number, place)?;
                    match replica.handle_message(now, from, message) {
                        Err(MessageError::Store(error)) => return Err(error.to_string()),
                        taken => taken.map_err(|error| error.to_string()),
                    }
                }
                Err(malformed) => Err(malformed.to_string()),
            }
        };
        if let Err(reason) = taken {
            self.links_closed += 1;
            link.sender.close(&reason);
        }
        Ok(())
    }

    fn transmit(
        &mut self,
        replica: &mut Replica<MemoryStore>,
        now: Now,
    ) -> Result<(), replication::StoreError> {
        for (peer, link) in &mut self.links {
            for lane in Lane::ALL {
                while link.sender.has_room(lane) {
                    let Some(frame) = replica.poll_transmit(now, *peer, lane, link.sender.frame_bytes())?
                    else {
                        break;
                    };
                    link.send(lane, &frame);
                }
            }
        }
        Ok(())
    }
}

impl Link {
    fn send(&mut self, lane: Lane, frame: &Bytes) {
        let mut stamped = BytesMut::with_capacity(STAMP_BYTES + frame.len());
        let place = &mut self.sent[lane as usize];
        stamped.put_u32(self.number);
        stamped.put_u32(*place);
        stamped.put_slice(frame);
        *place += 1;
        self.sender.send(lane, stamped.freeze());
    }

    /// A lane gives every frame of its link from the first on, in the order they were sent.
    fn check_order(&mut self, lane: Lane, number: u32, place: u32) -> Result<(), String> {
        let theirs = *self.theirs.get_or_insert(number);
        let expected = &mut self.received[lane as usize];
        if (number, place) != (theirs, *expected) {
            return Err(format!(
                "on {lane:?}, frame {place} of link {number} came where frame {expected} of link {theirs} was due"
            ));
        }
        *expected += 1;
        Ok(())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere fails the run anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
