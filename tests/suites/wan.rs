//! The wide-area network itself: what is asked of a path is what packets meet, and all of it is counted; and two real
//! nodes over it agree after a cut. `cargo wan` measures nodes over it.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use littoral_tests::cluster::{self, Options};
use littoral_tests::random::Random;
use littoral_tests::wan::scenarios::Stage;
use littoral_tests::wan::{self, Apart, Counts, Terms, Wan, site_address};

/// The bytes of IP and UDP before what a probe carries.
const HEADER_BYTES: usize = 28;
const PROBE_PORT: u16 = 4_242;
/// How soon a packet that is not lost must be there, beside its delay: generous, since machines are busy.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How late a packet may be on a machine that is not too busy.
const LATE: Duration = Duration::from_millis(60);
const MS: Duration = Duration::from_millis(1);

/// Runs `test` on a network of two sites with a socket in each, and compares all counters after it. False where there
/// can be none.
fn check(seed: u64, test: impl FnOnce(&Wan, &[Probe; 2]) + Send) {
    on_a_network(|place| {
        let wan = Wan::new(place, 2, seed).unwrap();
        let probes = [0, 1].map(|site| Probe::new(&wan, site));
        test(&wan, &probes);
        wan.check_counts().unwrap();
    });
}

fn on_a_network(test: impl FnOnce(&Apart) + Send) {
    if let Some(reason) = wan::missing() {
        println!("SKIP: there can be no wide-area network here: {reason}");
        return;
    }
    wan::apart(|place| {
        test(place);
        Ok(())
    })
    .unwrap();
}

/// A UDP socket at a site.
struct Probe {
    socket: UdpSocket,
}

impl Probe {
    fn new(wan: &Wan, site: usize) -> Self {
        let bind = || {
            let socket = UdpSocket::bind((site_address(site), PROBE_PORT))?;
            socket.set_read_timeout(Some(SEEN_WITHIN))?;
            Ok(socket)
        };
        Self { socket: wan.namespace(site).enter(bind).unwrap() }
    }

    /// Sends so many bytes, the first of which are this number.
    fn send(&self, site: usize, number: u32, bytes: usize) {
        let mut packet = vec![0; bytes];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        let to = SocketAddr::from((site_address(site), PROBE_PORT));
        assert_eq!(self.socket.send_to(&packet, to).unwrap(), bytes);
    }

    /// The number of the next packet.
    fn receive(&self) -> u32 {
        let mut packet = [0; 2_000];
        let length = self.socket.recv(&mut packet).unwrap();
        assert!(length >= 4);
        u32::from_be_bytes(packet[..4].try_into().unwrap())
    }
}

/// Waits until the counters of a path are such.
fn await_counts(wan: &Wan, path: (usize, usize), wanted: impl Fn(&Counts) -> bool) -> Counts {
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let counts = wan.counts().remove(&path).unwrap();
        if wanted(&counts) {
            return counts;
        }
        assert!(Instant::now() < deadline, "path {path:?}: {counts:?}");
        std::thread::sleep(MS);
    }
}

#[test]
fn a_packet_takes_the_delay_of_its_direction() {
    check(1, |wan, probes| {
        wan.set(0, 1, Terms { delay: 40 * MS, jitter: 10 * MS, ..Terms::default() });
        wan.set(1, 0, Terms { delay: 15 * MS, ..Terms::default() });
        for (from, to, least, most) in [(0, 1, 40 * MS, 50 * MS), (1, 0, 15 * MS, 15 * MS)] {
            let mut took = Vec::new();
            for number in 0..15 {
                let sent = Instant::now();
                probes[from].send(to, number, 100);
                assert_eq!(probes[to].receive(), number);
                took.push(sent.elapsed());
            }
            took.sort_unstable();
            assert!(took[0] >= least, "{from} to {to}: too early: {took:?}");
            assert!(took[took.len() / 2] <= most + LATE, "{from} to {to}: too late: {took:?}");
        }
    });
}

#[test]
fn packets_keep_their_order_under_jitter() {
    check(2, |wan, probes| {
        wan.set(0, 1, Terms { delay: 5 * MS, jitter: 20 * MS, ..Terms::default() });
        (0..100).for_each(|number| probes[0].send(1, number, 50));
        assert_eq!((0..100).map(|_| probes[1].receive()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn the_share_asked_for_is_lost_and_one_seed_loses_the_same_packets() {
    const SENT: u64 = 2_000;
    let mut lost = Vec::new();
    for _ in 0..2 {
        check(3, |wan, probes| {
            wan.set(0, 1, Terms { loss_permille: 200, ..Terms::default() });
            (0..SENT).for_each(|number| probes[0].send(1, number as u32, 20));
            let counts = await_counts(wan, (0, 1), |counts| counts.sent_packets == SENT);
            await_counts(wan, (0, 1), |counts| counts.arrived_packets + counts.lost_packets == SENT);
            assert!((300..=500).contains(&counts.lost_packets), "{counts:?}");
            assert_eq!(counts.sent_bytes, SENT * (20 + HEADER_BYTES as u64));
            lost.push(counts.lost_packets);
        });
    }
    assert!(lost.windows(2).all(|pair| pair[0] == pair[1]), "{lost:?}");
}

#[test]
fn a_line_carries_its_rate_and_drops_what_its_queue_has_no_room_for() {
    check(4, |wan, probes| {
        let (rate, queue_bytes, packet) = (100_000, 20_000, 1_000 - HEADER_BYTES);
        wan.set(0, 1, Terms { rate_bytes_per_s: Some(rate), queue_bytes, ..Terms::default() });
        let sent = Instant::now();
        (0..60).for_each(|number| probes[0].send(1, number, packet));
        let counts = await_counts(wan, (0, 1), |counts| counts.sent_packets == 60);
        let passed = 60 - counts.overflowed_packets;
        // Twenty wait, one is being sent, three are the burst; what leaves meanwhile makes room for more.
        assert!(passed >= 24 && counts.overflowed_packets > 0, "{counts:?}");
        (0..passed).for_each(|_| assert!(probes[1].receive() < 60));
        let least = Duration::from_millis((passed - 3) * 10);
        assert!(sent.elapsed() >= least, "{passed} packets after {:?}, not {least:?}", sent.elapsed());
    });
}

#[test]
fn a_cut_stops_one_direction_and_what_is_on_its_way() {
    check(5, |wan, probes| {
        wan.set(0, 1, Terms { delay: 500 * MS, ..Terms::default() });
        probes[0].send(1, 1, 100);
        await_counts(wan, (0, 1), |counts| counts.sent_packets == 1);
        wan.cut(0, 1, true);
        probes[0].send(1, 2, 100);
        await_counts(wan, (0, 1), |counts| counts.cut_packets == 2);
        probes[1].send(0, 3, 100);
        assert_eq!(probes[0].receive(), 3, "the other direction is not cut");
        wan.cut(0, 1, false);
        probes[0].send(1, 4, 100);
        assert_eq!(probes[1].receive(), 4, "the first after the cut");
    });
}

#[test]
fn a_packet_to_nowhere_is_counted_too() {
    check(6, |wan, probes| {
        // The counters of the device and of the forwarder are compared after this.
        probes[0].send(7, 1, 100);
        probes[0].send(1, 2, 100);
        assert_eq!(probes[1].receive(), 2);
        assert!(wan.counts().values().map(|counts| counts.sent_packets).sum::<u64>() == 1);
    });
}

/// The kernel ends a namespace when it has time; the interfaces to the sites of the network before were once in the way.
#[test]
fn one_network_can_follow_another() {
    on_a_network(|place| {
        for seed in 0..5 {
            let wan = Wan::new(place, 3, seed).unwrap();
            let probes = [0, 1].map(|site| Probe::new(&wan, site));
            probes[0].send(1, 9, 100);
            assert_eq!(probes[1].receive(), 9);
        }
    });
}

#[test]
fn two_pops_agree_after_a_cut_and_clients_are_not_counted() {
    // Built while there is still a network, in case that something has to be fetched.
    cluster::binary().unwrap();
    on_a_network(|place| {
        let seed = Random::fresh_seed();
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            let stage = Stage::set(place, &["a", "b"], Options::default(), seed).await.unwrap();
            stage.wan.set_all(|_, _| Terms { delay: 10 * MS, loss_permille: 10, ..Terms::default() });
            for (from, to) in [(0, 1), (1, 0)] {
                stage.wan.cut(from, to, true);
            }
            stage.linked(0, 1, false).await.unwrap();
            stage.linked(1, 0, false).await.unwrap();
            let before = stage.wan.counts();
            stage.write_bulk(0, "here", 500).await.unwrap();
            stage.write_bulk(1, "away", 500).await.unwrap();
            let sent = |(path, counts): (_, Counts)| counts.sent_bytes - before[&path].sent_bytes;
            let dialled: u64 = stage.wan.counts().into_iter().map(sent).sum();
            assert!(dialled < 50_000, "{dialled} bytes into a cut path while clients wrote 116,000");
            for (from, to) in [(0, 1), (1, 0)] {
                stage.wan.cut(from, to, false);
            }
            stage.agree().await.unwrap();
            stage.wan.check_counts().unwrap();
        });
    });
}
