//! Datagrams in memory: paths that lose, delay, reorder, repeat, throttle and cut, all from one seed.
//!
//! It knows addresses and lengths, and nothing of QUIC. The rule upheld here: what happens to a datagram follows
//! from the seed, the virtual time and what was sent before, so one seed gives one trace.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use quinn::udp::EcnCodepoint;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::random::{Random, mix};

/// The largest payload that a path carries: Ethernet, less the headers of IPv4 and UDP.
const MTU_BYTES: usize = 1_472;
/// The headers of IPv4 and UDP.
const HEADER_BYTES: u64 = 28;
/// What waits at a throttled path; what comes on top is lost.
const PATH_QUEUE_BYTES: u64 = 16 << 10;
/// What waits at a socket that is not read.
const SOCKET_DATAGRAMS: usize = 4_096;

/// How one direction between two addresses treats datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Least delay.
    pub delay_us: u64,
    /// What is added to it at random: datagrams sent within it of one another may change places.
    pub jitter_us: u64,
    /// Of 1,000 datagrams, how many are lost.
    pub lost_permille: u64,
    /// Of 1,000 datagrams, how many come twice.
    pub repeated_permille: u64,
    /// Of 1,000 datagrams, how many come with a bit changed. The one thing for which the traces of one seed differ:
    /// what a changed header looks like once its protection is taken off depends on keys that TLS draws by chance.
    pub damaged_permille: u64,
    /// How many bytes pass in a second; without it, as many as come.
    pub bytes_per_s: Option<u64>,
    /// Nothing passes.
    pub cut: bool,
}

/// What became of the datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent by any socket.
    pub sent: u64,
    /// Given to a socket.
    pub delivered: u64,
    /// Lost by chance, by a full queue, or for being too large.
    pub lost: u64,
    /// That met a cut path, or nobody at their destination.
    pub cut: u64,
}

/// A datagram that was sent, whatever became of it.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    /// When.
    pub at_us: u64,
    /// By whom.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Its payload and the headers of IPv4 and UDP.
    pub wire_bytes: u64,
}

/// A datagram as it reaches a socket.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: Bytes,
}

/// The whole network; clones share it.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    /// Rung when a datagram takes off.
    sent: Arc<Notify>,
    start: Instant,
}

struct State {
    rng: Random,
    default_path: Path,
    paths: BTreeMap<(SocketAddr, SocketAddr), Path>,
    /// When a throttled path has passed on all that waits.
    free_at_us: BTreeMap<(SocketAddr, SocketAddr), u64>,
    plugs: BTreeMap<SocketAddr, Plug>,
    next_plug: u64,
    /// By arrival, and those of one moment in the order they were sent.
    flying: BTreeMap<(u64, u64), (SocketAddr, Datagram)>,
    next_flight: u64,
    trace: u64,
    /// A line for each datagram, where asked for.
    log: Option<String>,
    /// Each datagram that was sent, where asked for.
    sends: Option<Vec<Send>>,
    tally: Tally,
}

/// Where the datagrams for an address go.
struct Plug {
    number: u64,
    inbox: VecDeque<Datagram>,
    reader: Option<Waker>,
}

impl Network {
    /// A network without sockets, all of whose paths are `default_path`. Call it within a runtime whose time
    /// is paused, and keep [`Network::carry`] running.
    pub fn new(seed: u64, default_path: Path) -> Self {
        let state = State {
            rng: Random::new(seed),
            default_path,
            paths: BTreeMap::new(),
            free_at_us: BTreeMap::new(),
            plugs: BTreeMap::new(),
            next_plug: 0,
            flying: BTreeMap::new(),
            next_flight: 0,
            trace: seed,
            log: None,
            sends: None,
            tally: Tally::default(),
        };
        Self { state: Arc::new(Mutex::new(state)), sent: Arc::default(), start: Instant::now() }
    }

    /// Virtual time since the network came up.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// A hash of every datagram sent and delivered: time, source, destination, length.
    pub fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// From now on, keeps a line for each datagram.
    pub fn keep_log(&self) {
        self.lock().log.get_or_insert_default();
    }

    /// From now on, keeps what is sent.
    pub fn keep_sends(&self) {
        self.lock().sends = Some(Vec::new());
    }

    /// What was sent since [`Network::keep_sends`].
    pub fn sends(&self) -> Vec<Send> {
        self.lock().sends.clone().unwrap_or_default()
    }

    /// Adds a line of the caller's to the log, where one is kept.
    pub fn log(&self, line: &str) {
        let now_us = self.now_us();
        self.lock().log_line(now_us, line);
    }

    /// The log so far.
    pub fn take_log(&self) -> String {
        self.lock().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What became of the datagrams so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// Changes the path from one address to another; what is under way arrives as it would have.
    pub fn change_path(&self, from: SocketAddr, to: SocketAddr, change: impl FnOnce(&mut Path)) {
        let mut state = self.lock();
        let mut path = state.path(from, to);
        change(&mut path);
        state.paths.insert((from, to), path);
    }

    /// Makes every path `path`.
    pub fn heal(&self, path: Path) {
        let mut state = self.lock();
        state.default_path = path;
        state.paths.clear();
    }

    /// Brings a datagram on its way that no socket sent, from whatever address it claims.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.send(to, Datagram { from, ecn: None, bytes });
    }

    /// Connects an address, in the place of whoever had it. Gives the plug's number.
    pub(super) fn plug(&self, address: SocketAddr) -> u64 {
        let mut state = self.lock();
        state.next_plug += 1;
        let plug = Plug { number: state.next_plug, inbox: VecDeque::new(), reader: None };
        let number = plug.number;
        state.plugs.insert(address, plug);
        number
    }

    /// Pulls the plug: nothing reaches the address, nor leaves the socket that had it.
    pub fn unplug(&self, address: SocketAddr) {
        self.lock().plugs.remove(&address);
    }

    /// Sends from a plugged socket; without its plug, to nowhere.
    pub(super) fn send_from(&self, plug: u64, to: SocketAddr, datagram: Datagram) {
        if self.lock().plugs.get(&datagram.from).is_some_and(|held| held.number == plug) {
            self.send(to, datagram);
        }
    }

    fn send(&self, to: SocketAddr, datagram: Datagram) {
        let now_us = self.now_us();
        self.lock().send(now_us, to, datagram);
        self.sent.notify_one();
    }

    /// Takes up to `limit` datagrams for the socket, or has it woken when there is one.
    pub(super) fn poll_take(
        &self,
        cx: &Context<'_>,
        address: SocketAddr,
        plug: u64,
        limit: usize,
    ) -> Poll<Vec<Datagram>> {
        let mut state = self.lock();
        match state.plugs.get_mut(&address).filter(|held| held.number == plug) {
            Some(held) if held.inbox.is_empty() => {
                held.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(held) => {
                let count = limit.min(held.inbox.len());
                Poll::Ready(held.inbox.drain(..count).collect())
            }
            // Its owner has crashed, and waits for nothing.
            None => Poll::Pending,
        }
    }

    /// Delivers datagrams as their time comes. Never ends.
    pub async fn carry(self) {
        loop {
            let now_us = self.now_us();
            let due_us = self.lock().deliver(now_us);
            match due_us {
                // Timers may wake a moment early or late; the loop looks again.
                Some(due_us) => {
                    let pause = sleep(Duration::from_micros(due_us - now_us));
                    // An error means that the time has come first.
                    let _ = timeout(pause.deadline() - Instant::now(), self.sent.notified()).await;
                }
                None => self.sent.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere fails the run anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn path(&self, from: SocketAddr, to: SocketAddr) -> Path {
        self.paths.get(&(from, to)).copied().unwrap_or(self.default_path)
    }

    fn send(&mut self, now_us: u64, to: SocketAddr, mut datagram: Datagram) {
        let len = datagram.bytes.len() as u64;
        self.note(now_us, "sent", datagram.from, to, len);
        if let Some(sends) = &mut self.sends {
            sends.push(Send { at_us: now_us, from: datagram.from, to, wire_bytes: len + HEADER_BYTES });
        }
        self.tally.sent += 1;
        let path = self.path(datagram.from, to);
        if path.cut {
            self.tally.cut += 1;
            return;
        }
        if datagram.bytes.len() > MTU_BYTES || self.rng.permille(path.lost_permille) {
            self.tally.lost += 1;
            return;
        }
        let mut leaves_us = now_us;
        if let Some(bytes_per_s) = path.bytes_per_s {
            let free_at_us = self.free_at_us.entry((datagram.from, to)).or_default();
            let starts_us = now_us.max(*free_at_us);
            if (starts_us - now_us) * bytes_per_s / 1_000_000 + len > PATH_QUEUE_BYTES {
                self.tally.lost += 1;
                return;
            }
            leaves_us = starts_us + len * 1_000_000 / bytes_per_s;
            *free_at_us = leaves_us;
        }
        if self.rng.permille(path.damaged_permille) {
            datagram.bytes = damaged(&mut self.rng, &datagram.bytes);
        }
        let copies = 1 + u64::from(self.rng.permille(path.repeated_permille));
        for _ in 0..copies {
            let arrives_us = leaves_us + path.delay_us + self.rng.below(path.jitter_us + 1);
            self.next_flight += 1;
            self.flying.insert((arrives_us, self.next_flight), (to, datagram.clone()));
        }
    }

    /// Delivers all that is due, and says when the next is.
    fn deliver(&mut self, now_us: u64) -> Option<u64> {
        while let Some(first) = self.flying.first_entry() {
            if first.key().0 > now_us {
                return Some(first.key().0);
            }
            let (to, datagram) = first.remove();
            // A path that was cut meanwhile lets through what is beyond the cut.
            let Some(plug) = self.plugs.get_mut(&to) else {
                self.tally.cut += 1;
                continue;
            };
            if plug.inbox.len() >= SOCKET_DATAGRAMS {
                self.tally.lost += 1;
                continue;
            }
            let (from, len) = (datagram.from, datagram.bytes.len() as u64);
            plug.inbox.push_back(datagram);
            if let Some(reader) = plug.reader.take() {
                reader.wake();
            }
            self.tally.delivered += 1;
            self.note(now_us, "came", from, to, len);
        }
        None
    }

    /// Takes a datagram into the trace.
    fn note(&mut self, now_us: u64, what: &str, from: SocketAddr, to: SocketAddr, len: u64) {
        for part in [now_us, number(from), number(to), len] {
            self.trace = mix(self.trace.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ part);
        }
        if self.log.is_some() {
            self.log_line(now_us, &format!("{what} {from} -> {to} {len}"));
        }
    }

    fn log_line(&mut self, now_us: u64, line: &str) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:>12.6} {line}", now_us as f64 / 1e6);
        }
    }
}

/// The bytes with one bit changed.
fn damaged(rng: &mut Random, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let changed = match bytes.len() as u64 {
        0 => None,
        // Half of the time among the first, which are the header, and not encrypted.
        len if rng.permille(500) => bytes.get_mut(rng.below(len.min(25)) as usize),
        len => bytes.get_mut(rng.below(len) as usize),
    };
    if let Some(byte) = changed {
        *byte ^= 1 << rng.below(8);
    }
    bytes.into()
}

/// Addresses of these tests are IPv4.
fn number(address: SocketAddr) -> u64 {
    match address {
        SocketAddr::V4(v4) => u64::from(v4.ip().to_bits()) << 16 | u64::from(v4.port()),
        SocketAddr::V6(v6) => v6.ip().to_bits() as u64 ^ u64::from(v6.port()),
    }
}
