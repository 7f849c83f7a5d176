//! Budgets over the shipping links on virtual time: what goes on the wire, datagram by datagram.

use std::net::SocketAddr;

use littoral_tests::quic::cluster::{Cluster, address, on_virtual_time};
use littoral_tests::quic::network::{Path, Send};
use replication::budget::{LinkClass, Rate, Scope};
use tokio::time::{Duration, sleep};

/// Paths that carry far more than any budget here.
const WIDE: Path = Path {
    delay_us: 40_000,
    jitter_us: 500,
    lost_permille: 5,
    repeated_permille: 0,
    damaged_permille: 0,
    bytes_per_s: None,
    cut: false,
};
/// As PoPs are named by [`Cluster`].
const POPS: [&str; 3] = ["ams", "fra", "lon"];
const VALUE_BYTES: usize = 10_000;

fn rate(bytes_per_s: u64) -> Rate {
    Rate::new(bytes_per_s).expect("a rate")
}

/// Starts three nodes, lets them agree on a first write, and has them go through what a test is about.
fn check(act: impl AsyncFn(Cluster) -> Result<(), String>) {
    for seed in 0..2 {
        let run = async {
            let mut cluster = Cluster::start(seed, 3, WIDE)?;
            cluster.write(0, "first", 100);
            cluster.until("all agree at first", 15, Cluster::agrees).await?;
            act(cluster).await
        };
        on_virtual_time(run).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

fn set(cluster: &Cluster, node: usize, scope: Scope<String>, rate: Option<Rate>) -> Result<(), String> {
    let transport = cluster.transport(node).ok_or("it is down")?;
    transport.set_budget(&scope, rate).map_err(|error| error.to_string())
}

/// So many values of [`VALUE_BYTES`], each under a key of its own.
fn write_backlog(cluster: &mut Cluster, node: usize, values: usize) {
    for number in 0..values {
        cluster.write(node, &format!("backlog-{node}-{number}"), VALUE_BYTES);
    }
}

fn between(sends: &[Send], from: SocketAddr, to: &[SocketAddr]) -> Vec<(u64, u64)> {
    let between = sends.iter().filter(|send| send.from == from && to.contains(&send.to));
    between.map(|send| (send.at_us, send.wire_bytes)).collect()
}

/// The most that was sent beyond the rate in any stretch of time, a second and a minute among them.
fn burst_of(sent: &[(u64, u64)], rate: Rate) -> u64 {
    let (mut level, mut last_us, mut most) = (0u64, 0, 0);
    for (at_us, bytes) in sent {
        level = level.saturating_sub(rate.bytes_per_s() * (at_us - last_us)) + bytes * 1_000_000;
        (last_us, most) = (*at_us, most.max(level));
    }
    most.div_ceil(1_000_000)
}

/// The part of the budget that was used from `from_us` to `to_us`, in percent.
fn used_percent(sent: &[(u64, u64)], rate: Rate, from_us: u64, to_us: u64) -> u64 {
    let within = sent.iter().filter(|(at_us, _)| (from_us..to_us).contains(at_us));
    let bytes: u64 = within.map(|(_, bytes)| bytes).sum();
    bytes * 1_000_000 * 100 / (rate.bytes_per_s() * (to_us - from_us))
}

#[test]
fn a_link_keeps_its_budget_over_any_time_and_uses_it() {
    check(async |mut cluster| {
        // With losses it is the congestion control that holds a link back.
        cluster.network.heal(Path { lost_permille: 0, ..WIDE });
        for bytes_per_s in [50_000, 1_000_000] {
            let rate = rate(bytes_per_s);
            set(&cluster, 0, Scope::Link(POPS[1].into()), Some(rate))?;
            // What was handed over before goes by the budget that holds now.
            cluster.until("nothing is under way", 15, Cluster::agrees).await?;
            cluster.network.keep_sends();
            let begun_us = cluster.network.now_us();
            write_backlog(&mut cluster, 0, 8 * bytes_per_s as usize / VALUE_BYTES);
            sleep(Duration::from_secs(7)).await;
            assert!(!cluster.holds_all_of(1, 0), "there is a backlog all the time");
            let sent = between(&cluster.network.sends(), address(0), &[address(1)]);
            assert!(burst_of(&sent, rate) <= rate.burst_bytes(), "{}", burst_of(&sent, rate));
            let used = used_percent(&sent, rate, begun_us + 1_000_000, begun_us + 7_000_000);
            assert!(used >= 97, "{used} % of {bytes_per_s} B/s");
            cluster.until("all agree", 30, Cluster::agrees).await?;
        }
        cluster.check_end()
    });
}

#[test]
fn links_share_the_nodes_budget_and_those_of_a_class_theirs() {
    for scope in [Scope::Node, Scope::Class(LinkClass::Region)] {
        check(async |mut cluster| {
            let rate = rate(400_000);
            set(&cluster, 0, scope.clone(), Some(rate))?;
            cluster.network.keep_sends();
            let begun_us = cluster.network.now_us();
            // Each of the two others must get all of it from here.
            for (from, to) in [(1, 2), (2, 1)] {
                cluster.network.change_path(address(from), address(to), |path| path.cut = true);
            }
            write_backlog(&mut cluster, 0, 200);
            sleep(Duration::from_secs(8)).await;
            let sends = cluster.network.sends();
            let sent = between(&sends, address(0), &[address(1), address(2)]);
            assert!(burst_of(&sent, rate) <= rate.burst_bytes(), "{}", burst_of(&sent, rate));
            let (from_us, to_us) = (begun_us + 1_000_000, begun_us + 8_000_000);
            let used = used_percent(&sent, rate, from_us, to_us);
            assert!(used >= 97, "{used} %");
            for to in [1, 2] {
                let own = used_percent(&between(&sends, address(0), &[address(to)]), rate, from_us, to_us);
                assert!((45..=55).contains(&own), "{own} % of it go to {to}");
            }
            cluster.network.heal(WIDE);
            cluster.until("all agree", 40, Cluster::agrees).await?;
            cluster.check_end()
        });
    }
}

#[test]
fn a_new_write_does_not_wait_behind_catch_up() {
    check(async |mut cluster| {
        // The third writes much that the second can get from the first only.
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
            cluster.network.change_path(address(from), address(to), |path| path.cut = true);
        }
        write_backlog(&mut cluster, 2, 400);
        cluster.until("the first has it", 30, |cluster| cluster.holds_all_of(0, 2)).await?;
        set(&cluster, 0, Scope::Link(POPS[1].into()), Some(rate(200_000)))?;
        for (from, to) in [(0, 1), (1, 0)] {
            cluster.network.change_path(address(from), address(to), |path| *path = WIDE);
        }
        cluster.until("they are linked", 30, |cluster| cluster.is_linked(0, 1)).await?;
        sleep(Duration::from_secs(3)).await;
        let mut waits_ms = Vec::new();
        for round in 0..20 {
            cluster.write(0, &format!("new-{round}"), 200);
            let written_us = cluster.network.now_us();
            while !cluster.holds_all_of(1, 0) {
                assert!(cluster.network.now_us() < written_us + 10_000_000, "it does not come");
                sleep(Duration::from_millis(1)).await;
            }
            waits_ms.push((cluster.network.now_us() - written_us) / 1_000);
            sleep(Duration::from_millis(200)).await;
        }
        assert!(!cluster.holds_all_of(1, 2), "the backlog lasts");
        waits_ms.sort_unstable();
        // One way, and at most a quarter of a round trip; now and then a datagram is lost, and then a round trip or two more.
        assert!(waits_ms[10] <= 40 + 20 && waits_ms[19] <= 40 + 3 * 80, "{waits_ms:?} ms");
        cluster.network.heal(WIDE);
        cluster.until("all agree", 60, Cluster::agrees).await?;
        cluster.check_end()
    });
}

#[test]
fn a_paused_link_has_heartbeats_only_and_goes_on_where_it_was() {
    check(async |mut cluster| {
        let pause = |cluster: &Cluster, paused| {
            let transport = cluster.transport(0).ok_or("it is down")?;
            transport.pause(POPS[1], paused).map_err(|error| error.to_string())
        };
        for (from, to) in [(1, 2), (2, 1)] {
            cluster.network.change_path(address(from), address(to), |path| path.cut = true);
        }
        pause(&cluster, true)?;
        cluster.write(0, "during", VALUE_BYTES);
        cluster.until("the third has it", 15, |cluster| cluster.holds_all_of(2, 0)).await?;
        sleep(Duration::from_secs(10)).await;
        assert!(!cluster.holds_all_of(1, 0) && cluster.is_linked(0, 1));
        let lag_ms = cluster.lag_ms(0, 1);
        assert!(lag_ms.is_some_and(|lag_ms| lag_ms >= 9_000), "{lag_ms:?}");
        let unknown = cluster.transport(0).map(|transport| transport.pause("nowhere", true).is_err());
        assert_eq!(unknown, Some(true));
        pause(&cluster, false)?;
        cluster.until("it has come", 5, |cluster| cluster.holds_all_of(1, 0)).await?;
        cluster.network.heal(WIDE);
        cluster.until("all agree", 30, Cluster::agrees).await?;
        cluster.check_end()
    });
}
