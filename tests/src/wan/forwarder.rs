//! The thread that carries packets between the TUN devices. It counts each path under the lock under which it reads
//! and writes, so that a look at the counters is one moment of all of them, and of the kernel's too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::calls;
use super::path::{Fate, Path};

/// How long the thread waits for packets before it looks whether it is to end.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// Packets read from one device before the others have their turn.
const READS_A_TURN: usize = 64;
/// The largest IP packet there is.
const MAX_PACKET_BYTES: usize = 65_535;

/// What one direction has carried. Bytes are whole IP packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What the sender sent, whatever became of it.
    pub sent_packets: u64,
    /// Its bytes.
    pub sent_bytes: u64,
    /// What has arrived.
    pub arrived_packets: u64,
    /// Its bytes.
    pub arrived_bytes: u64,
    /// Lost by chance.
    pub lost_packets: u64,
    /// Dropped for want of room.
    pub overflowed_packets: u64,
    /// Sent into a cut, or on the way when it came.
    pub cut_packets: u64,
    /// How many packets were sent of each length.
    pub lengths: BTreeMap<usize, u64>,
}

/// The paths, with all that is on them.
pub(super) struct Net {
    devices: Vec<File>,
    /// By source and destination.
    paths: BTreeMap<(usize, usize), (Path, Counts)>,
    /// Packets of each source to nowhere, with their bytes.
    strays: Vec<(u64, u64)>,
    /// What is on its way: the nearest arrival is on top, and of one moment the packet sent first.
    flights: BinaryHeap<Reverse<Flight>>,
    sent: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrives: Duration,
    number: u64,
    path: (usize, usize),
    packet: Vec<u8>,
}

/// The running thread; it ends on drop.
pub(super) struct Forwarder {
    net: Arc<Mutex<Net>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Net {
    /// Paths between all pairs of devices; the address of device n ends in the two bytes n and 1.
    pub(super) fn new(devices: Vec<File>, seed: u64) -> Self {
        let all = 0..devices.len();
        let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        let paths = pairs.filter(|(from, to)| from != to).map(|(from, to)| {
            let path = Path::new(seed ^ crate::random::mix((from * 256 + to) as u64 + 1));
            ((from, to), (path, Counts::default()))
        });
        Self {
            paths: paths.collect(),
            strays: vec![(0, 0); devices.len()],
            flights: BinaryHeap::new(),
            sent: 0,
            devices,
        }
    }

    pub(super) fn path(&mut self, from: usize, to: usize) -> &mut Path {
        &mut self.paths.get_mut(&(from, to)).expect("a path between two sites").0
    }

    pub(super) fn counts(&self) -> BTreeMap<(usize, usize), Counts> {
        self.paths.iter().map(|(pair, (_, counts))| (*pair, counts.clone())).collect()
    }

    /// Packets of a site to nowhere, and their bytes.
    pub(super) fn strays(&self, site: usize) -> (u64, u64) {
        self.strays[site]
    }

    /// Takes what the devices have to send, and gives how long the next arrival is away.
    fn turn(&mut self, started: Instant, buffer: &mut [u8]) -> Duration {
        for from in 0..self.devices.len() {
            for _ in 0..READS_A_TURN {
                match self.devices[from].read(buffer) {
                    Ok(length) => self.send(from, &buffer[..length], started.elapsed()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("a TUN device cannot be read: {error}"),
                }
            }
        }
        self.arrive(started)
    }

    fn send(&mut self, from: usize, packet: &[u8], now: Duration) {
        let known = destination(packet).and_then(|to| Some((to, self.paths.get_mut(&(from, to))?)));
        let Some((to, (path, counts))) = known else {
            self.strays[from].0 += 1;
            self.strays[from].1 += packet.len() as u64;
            return;
        };
        counts.sent_packets += 1;
        counts.sent_bytes += packet.len() as u64;
        *counts.lengths.entry(packet.len()).or_default() += 1;
        match path.send(now, packet.len()) {
            Fate::Arrives(arrives) => {
                self.sent += 1;
                let (number, path) = (self.sent, (from, to));
                self.flights.push(Reverse(Flight { arrives, number, path, packet: packet.to_vec() }));
            }
            Fate::Lost => counts.lost_packets += 1,
            Fate::Overflows => counts.overflowed_packets += 1,
            Fate::Cut => counts.cut_packets += 1,
        }
    }

    fn arrive(&mut self, started: Instant) -> Duration {
        while let Some(Reverse(next)) = self.flights.peek() {
            let wait = next.arrives.saturating_sub(started.elapsed());
            if !wait.is_zero() {
                return wait.min(MAX_PAUSE);
            }
            let Some(Reverse(flight)) = self.flights.pop() else { break };
            let (path, counts) = self.paths.get_mut(&flight.path).expect("it was sent on it");
            if !path.is_open() {
                counts.cut_packets += 1;
                continue;
            }
            match self.devices[flight.path.1].write(&flight.packet) {
                Ok(written) => {
                    assert_eq!(written, flight.packet.len(), "a TUN device takes whole packets");
                    counts.arrived_packets += 1;
                    counts.arrived_bytes += flight.packet.len() as u64;
                }
                // The receiving side has no room, as a card may have none.
                Err(_) => counts.overflowed_packets += 1,
            }
        }
        MAX_PAUSE
    }
}

impl Forwarder {
    pub(super) fn start(net: Net) -> anyhow::Result<Self> {
        let waited = net.devices.iter().map(File::try_clone).collect::<Result<Vec<_>, _>>()?;
        let net = Arc::new(Mutex::new(net));
        let is_over = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (net.clone(), is_over.clone());
        let thread = std::thread::Builder::new().name("forwarder".into()).spawn(move || {
            let started = Instant::now();
            let mut buffer = vec![0; MAX_PACKET_BYTES];
            while !ends.load(Ordering::Relaxed) {
                let pause = lock(&shared).turn(started, &mut buffer);
                // An interrupted wait is a short one.
                let _ = calls::wait_readable(&waited, pause);
            }
        })?;
        Ok(Self { net, is_over, thread: Some(thread) })
    }

    /// The paths as they are now; packets wait meanwhile.
    pub(super) fn net(&self) -> MutexGuard<'_, Net> {
        lock(&self.net)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the forwarder has panicked");
        }
    }
}

/// The site an IPv4 packet is for, by its address: see [`super::site_address`].
fn destination(packet: &[u8]) -> Option<usize> {
    let [version, ..] = packet else { return None };
    let address = packet.get(16..20)?;
    let is_ours = version >> 4 == 4 && address[..2] == super::SITES && address[3] == 1;
    is_ours.then_some(usize::from(address[2]))
}

fn lock(net: &Mutex<Net>) -> MutexGuard<'_, Net> {
    net.lock().unwrap_or_else(PoisonError::into_inner)
}
