//! A wide-area network on one machine, for real processes: each site is a network namespace with one TUN device, and a
//! thread carries IP packets between the devices with the delay, jitter, loss, rate and cuts of each directed path.
//!
//! The rule upheld: what is counted is what a sender put on its line, in bytes of whole IP packets, and nothing else
//! goes over it. Clients reach a site over an interface of its own. No packet leaves the machine: the program that
//! runs the bench sits in a namespace of its own too, and none has a route to anywhere else.

mod calls;
mod forwarder;
mod namespace;
mod path;
pub mod scenarios;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, ensure};

pub use self::forwarder::Counts;
pub use self::namespace::Namespace;
pub use self::path::Terms;

use self::forwarder::{Forwarder, Net};
use self::namespace::ip;
use crate::cluster::Site;

/// The most sites: what fits between the bytes of their addresses.
pub const MAX_SITES: usize = 250;

/// The network of the sites, a /16: 10.99.SITE.1.
const SITES: [u8; 2] = [10, 99];
/// The networks between clients and sites, a /24 each: 10.98.SITE.1 is the clients', 10.98.SITE.2 the site's.
const CLIENTS: [u8; 2] = [10, 98];
/// The name of the TUN device in each site.
const DEVICE: &str = "wan0";
/// So many packets wait for the forwarder before the kernel drops any: more than a node sends in a second of a busy
/// machine, so that whatever is lost is lost by a path's terms.
const DEVICE_QUEUE_PACKETS: u32 = 100_000;

/// The place clients are at: proof that this thread has left the machine's own network.
#[derive(Debug)]
pub struct Apart {
    clients: Arc<Namespace>,
}

/// Why the bench cannot run on this machine; `None` where it can.
pub fn missing() -> Option<String> {
    if !FilePath::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    apart(|place| Wan::new(place, 2, 0).map(drop)).err().map(|error| format!("{error:#}"))
}

/// Does something on a thread whose network, and that of all threads and processes it starts, is one of their own.
pub fn apart<T: Send>(work: impl FnOnce(&Apart) -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let clients = Arc::new(Namespace::new()?);
    clients.enter(|| work(&Apart { clients: clients.clone() }))
}

/// The sites and the paths between them, which pass everything on at once until told otherwise. All of it goes on drop.
pub struct Wan {
    forwarder: Forwarder,
    sites: Vec<Arc<Namespace>>,
    _ways_in: Vec<WayIn>,
}

/// The interface between clients and one site; taken away on drop, since the kernel takes its time to end a namespace,
/// and the next network needs the addresses.
struct WayIn {
    clients: Arc<Namespace>,
    name: String,
}

impl Wan {
    /// Makes so many sites, at most [`MAX_SITES`].
    pub fn new(place: &Apart, sites: usize, seed: u64) -> anyhow::Result<Self> {
        ensure!((1..=MAX_SITES).contains(&sites), "1 to {MAX_SITES} sites, not {sites}");
        let mut namespaces = Vec::new();
        let mut devices = Vec::new();
        let mut ways_in = Vec::new();
        for site in 0..sites {
            let namespace = Namespace::new()?;
            devices.push(namespace.enter(|| {
                let device = calls::open_tun(DEVICE).context("making a TUN device")?;
                ip(&format!("addr add {}/16 dev {DEVICE}", site_address(site)))?;
                ip(&format!("link set {DEVICE} txqueuelen {DEVICE_QUEUE_PACKETS} up"))?;
                Ok(device)
            })?);
            ways_in.push(WayIn::make(place, site, &namespace)?);
            namespaces.push(Arc::new(namespace));
        }
        let forwarder = Forwarder::start(Net::new(devices, seed))?;
        Ok(Self { forwarder, sites: namespaces, _ways_in: ways_in })
    }

    /// How many sites there are.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Never: there is one at least.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// A site as the place of a PoP.
    pub fn site(&self, site: usize, region: &str) -> Site {
        Site {
            region: region.to_owned(),
            http: client_address(site, 2),
            replication: site_address(site),
            namespace: Some(self.sites[site].clone()),
        }
    }

    /// The namespace of a site.
    pub fn namespace(&self, site: usize) -> &Namespace {
        &self.sites[site]
    }

    /// Gives one direction other terms, from the next packet on. Cuts are made and healed by [`Wan::cut`].
    pub fn set(&self, from: usize, to: usize, terms: Terms) {
        let mut net = self.forwarder.net();
        let path = net.path(from, to);
        path.terms = Terms { is_cut: path.terms.is_cut, ..terms };
    }

    /// Gives every direction the terms that `choose` has for it.
    pub fn set_all(&self, choose: impl Fn(usize, usize) -> Terms) {
        for from in 0..self.len() {
            (0..self.len()).filter(|to| *to != from).for_each(|to| self.set(from, to, choose(from, to)));
        }
    }

    /// Cuts one direction, or heals it.
    pub fn cut(&self, from: usize, to: usize, is_cut: bool) {
        self.forwarder.net().path(from, to).cut(is_cut);
    }

    /// What each direction has carried, all at one moment.
    pub fn counts(&self) -> BTreeMap<(usize, usize), Counts> {
        self.forwarder.net().counts()
    }

    /// Compares the forwarder's counts with the kernel's of each device, at one moment; says what differs.
    pub fn check_counts(&self) -> anyhow::Result<()> {
        let net = self.forwarder.net();
        let counts = net.counts();
        for (site, namespace) in self.sites.iter().enumerate() {
            let kernel =
                namespace.enter(|| device_counts(&std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
            let sum = |of: &dyn Fn(&Counts) -> u64, is_it: &dyn Fn(&(usize, usize)) -> bool| -> u64 {
                counts.iter().filter(|(pair, _)| is_it(pair)).map(|(_, counts)| of(counts)).sum()
            };
            let (comes, goes) =
                (|pair: &(usize, usize)| pair.1 == site, |pair: &(usize, usize)| pair.0 == site);
            let strays = net.strays(site);
            let forwarder = DeviceCounts {
                received_bytes: sum(&|counts| counts.arrived_bytes, &comes),
                received_packets: sum(&|counts| counts.arrived_packets, &comes),
                sent_bytes: sum(&|counts| counts.sent_bytes, &goes) + strays.1,
                sent_packets: sum(&|counts| counts.sent_packets, &goes) + strays.0,
                dropped_packets: 0,
            };
            ensure!(kernel == forwarder, "site {site}: the kernel counted {kernel:?}, we {forwarder:?}");
        }
        Ok(())
    }
}

impl WayIn {
    fn make(place: &Apart, site: usize, namespace: &Namespace) -> anyhow::Result<Self> {
        let (near, far) = (client_address(site, 1), client_address(site, 2));
        let way = Self { clients: place.clients.clone(), name: format!("site{site}") };
        let name = &way.name;
        way.clients.enter(|| {
            ip(&format!("link add {name} type veth peer name clients netns {}", namespace.path()))?;
            ip(&format!("addr add {near}/24 dev {name}"))?;
            ip(&format!("link set {name} up"))
        })?;
        namespace.enter(|| {
            ip(&format!("addr add {far}/24 dev clients"))?;
            ip("link set clients up")
        })?;
        Ok(way)
    }
}

impl Drop for WayIn {
    fn drop(&mut self) {
        // It may not have come into being, or be gone with the site already.
        let _ = self.clients.enter(|| ip(&format!("link del {}", self.name)));
    }
}

/// The address of a site for other sites.
pub fn site_address(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(SITES[0], SITES[1], site as u8, 1)
}

fn client_address(site: usize, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(CLIENTS[0], CLIENTS[1], site as u8, end)
}

#[derive(Debug, PartialEq, Eq)]
struct DeviceCounts {
    received_bytes: u64,
    received_packets: u64,
    sent_bytes: u64,
    sent_packets: u64,
    /// By the kernel, which should pass on everything.
    dropped_packets: u64,
}

/// Reads the line of the TUN device in `/proc/net/dev`: eight figures of what came, eight of what went.
fn device_counts(table: &str) -> anyhow::Result<DeviceCounts> {
    let line = table.lines().find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'));
    let figures = line.context("there is no such device")?.split_whitespace().map(str::parse);
    let figures = figures.collect::<Result<Vec<u64>, _>>()?;
    ensure!(figures.len() == 16, "{} figures", figures.len());
    Ok(DeviceCounts {
        received_bytes: figures[0],
        received_packets: figures[1],
        sent_bytes: figures[8],
        sent_packets: figures[9],
        dropped_packets: figures[3] + figures[11],
    })
}
