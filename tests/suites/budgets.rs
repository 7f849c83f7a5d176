//! Budgets over the shipping links on virtual time: what goes on the wire, datagram by datagram. And once as an
//! operator sees them, of real processes.

use std::net::SocketAddr;

use littoral_node::transport::{Budgets, PerLinks, Schedule};
use littoral_tests::cluster::{self, Options, Rest, Site};
use littoral_tests::quic::cluster::{Cluster, address, on_virtual_time};
use littoral_tests::quic::network::{Path, Send};
use replication::budget::{Burst, LinkClass, MIN_RATE, Rate, Scope};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

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
    check_with(&Budgets::default(), act);
}

/// As [`check`], of nodes that have these budgets from the start.
fn check_with(budgets: &Budgets, act: impl AsyncFn(Cluster) -> Result<(), String>) {
    for seed in 0..2 {
        let run = async {
            let mut cluster = Cluster::start_with(seed, 3, WIDE, budgets)?;
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
            assert!(burst_of(&sent, rate) <= Burst::default().bytes_of(rate), "{}", burst_of(&sent, rate));
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
            assert!(burst_of(&sent, rate) <= Burst::default().bytes_of(rate), "{}", burst_of(&sent, rate));
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

/// Monday, 23 November 2026, 00:00 UTC.
const MONDAY_S: u64 = 1_795_392_000;

#[test]
fn a_schedule_slows_links_while_its_window_lasts() {
    let scheduled = rate(200_000);
    let schedule = Schedule {
        links: Some(LinkClass::Region),
        days: [true; 7],
        from_minutes: 8 * 60,
        to_minutes: 20 * 60,
        rate: Some(scheduled),
    };
    check_with(&Budgets { schedules: vec![schedule], ..Budgets::default() }, async |mut cluster| {
        cluster.network.heal(Path { lost_permille: 0, ..WIDE });
        let review = |cluster: &Cluster, hour: u64| {
            let transport = cluster.transport(0).ok_or("it is down")?;
            transport.review_budgets(MONDAY_S + hour * 3_600);
            Ok::<_, String>(())
        };
        for (hour, is_slow) in [(7, false), (8, true), (20, false)] {
            review(&cluster, hour)?;
            cluster.until("nothing is under way", 15, Cluster::agrees).await?;
            cluster.network.keep_sends();
            let begun_us = cluster.network.now_us();
            write_backlog(&mut cluster, 0, 60);
            sleep(Duration::from_secs(4)).await;
            let sent = between(&cluster.network.sends(), address(0), &[address(1), address(2)]);
            let used = used_percent(&sent, scheduled, begun_us + 1_000_000, begun_us + 4_000_000);
            let burst = burst_of(&sent, scheduled);
            if is_slow {
                assert!(
                    burst <= Burst::default().bytes_of(scheduled) && used >= 97,
                    "{burst} B, {used} % at {hour}"
                );
            } else {
                assert!(burst > 10 * Burst::default().bytes_of(scheduled), "{burst} B, {used} % at {hour}");
            }
        }
        cluster.until("all agree", 30, Cluster::agrees).await?;
        cluster.check_end()
    });
}

#[test]
fn a_used_up_cap_leaves_a_trickle_until_the_month_ends() {
    const CAP_BYTES: u64 = 1_500_000;
    let trickle = rate(MIN_RATE);
    let caps = PerLinks { region: Some(CAP_BYTES), ..PerLinks::default() };
    check_with(&Budgets { caps, beyond_cap: Some(trickle), ..Budgets::default() }, async |mut cluster| {
        let begun_us = cluster.network.now_us();
        let review = |cluster: &Cluster, month_s: u64| {
            let second = (cluster.network.now_us() - begun_us) / 1_000_000;
            let transport = cluster.transport(0).ok_or("it is down")?;
            transport.review_budgets(MONDAY_S + month_s + second);
            let region =
                transport.shared_budgets().into_iter().find(|it| it.class == Some(LinkClass::Region));
            region.ok_or("no budget of the region".to_owned())
        };
        review(&cluster, 0)?;
        write_backlog(&mut cluster, 0, 150);
        let mut region = review(&cluster, 0)?;
        while region.month.sent_bytes < CAP_BYTES {
            assert_eq!(region.in_force.rate, None);
            sleep(Duration::from_millis(100)).await;
            region = review(&cluster, 0)?;
        }
        assert_eq!(region.in_force.rate, Some(trickle));
        cluster.network.keep_sends();
        // More than trickles through in the minute that is looked at.
        write_backlog(&mut cluster, 0, 150);
        let links_had = cluster.links_had(0);
        let lag_ms = || cluster.lag_ms(0, 1).max(cluster.lag_ms(0, 2));
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            review(&cluster, 0)?;
        }
        let sent = between(&cluster.network.sends(), address(0), &[address(1), address(2)]);
        assert!(
            burst_of(&sent, trickle) <= Burst::default().bytes_of(trickle),
            "{}",
            burst_of(&sent, trickle)
        );
        let bytes: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes >= 30 * MIN_RATE, "it trickles: {bytes} in a minute");
        assert!(lag_ms().is_some_and(|lag_ms| lag_ms > 30_000), "{:?}", lag_ms());
        assert!(cluster.is_linked(0, 1) && cluster.is_linked(0, 2) && cluster.links_had(0) == links_had);
        // Nine days later there is a cap to use anew.
        assert_eq!(review(&cluster, 9 * 86_400)?.in_force.rate, None);
        cluster.until("all agree", 30, Cluster::agrees).await?;
        cluster.check_end()
    });
}

/// A page of a PoP, once it is as wanted.
async fn page_when(rest: &Rest, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = rest.page(path).await.expect("it answers");
        let page = serde_json::from_slice(&answer.body).expect("pages are JSON");
        if is_wanted(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "{path} does not come to be as wanted: {page:#}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The budget of links between regions, in such a page.
fn between_regions(page: &Value) -> &Value {
    let budgets = page["budgets"].as_array().expect("a list of budgets");
    budgets.iter().find(|budget| budget["of"] == "inter_region").expect("each kind of links has one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_a_cap_being_used_up_and_a_restart_forgets_nothing() {
    let site = |region: &str| Site { region: region.into(), ..Site::default() };
    let options = Options {
        pops: 2,
        sites: vec![site("eu"), site("us")],
        more_settings: "[budgets.monthly]\ninter_region_bytes = 1048576\n".into(),
        ..Options::default()
    };
    let mut cluster = cluster::Cluster::started(options).await.expect("it starts");
    let namespace = cluster.rest(0, "").create_namespace("capped").await.expect("made");
    let rest = cluster.rest(0, &namespace);
    let links = page_when(&rest, "/v1/links", |page| page["links"][0]["is_relay"] == true).await;
    assert_eq!(
        (&links["links"][0]["kind"], &links["links"][0]["pop"]),
        (&"inter_region".into(), &"pop-1".into())
    );
    assert_eq!(between_regions(&links)["why"]["by"], "base");
    // Of bytes that zstd makes nothing of.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut write = async |keys: std::ops::Range<usize>| {
        for number in keys {
            let value = (0..VALUE_BYTES).map(|_| noise()).collect();
            assert_eq!(rest.put(&format!("key-{number}"), value).await.expect("answered").status, 200);
        }
    };
    write(0..120).await;
    let used_up = |page: &Value| between_regions(page)["why"]["by"] == "monthly_cap";
    let page = page_when(&rest, "/v1/budgets", used_up).await;
    let (budget, cap) = (between_regions(&page), 1_048_576);
    assert_eq!((&budget["in_force_bytes_per_s"], &budget["bytes_per_s"]), (&16_384.into(), &Value::Null));
    assert_eq!(budget["month"]["cap_bytes"], cap);
    let listed = cluster.run(0, &["link", "list"]).expect("listed");
    assert!(listed.contains("up, relay") || listed.contains("coalescing, relay"), "{listed}");
    assert!(listed.contains("monthly cap used up") && listed.contains("THIS MONTH"), "{listed}");
    // What is written now goes at the trickle's pace, and that is told.
    write(120..180).await;
    let is_forecast = |page: &Value| {
        let lag = page["lag"].as_array().into_iter().flatten().find(|lag| lag["origin"] == "pop-0");
        lag.is_some_and(|lag| {
            lag["shrinks_bytes_per_s"].as_i64() > Some(0) && lag["gone_in_ms"].as_u64() > Some(1_000)
        })
    };
    page_when(&rest, "/v1/lag", is_forecast).await;
    let metrics = rest.page("/metrics").await.expect("it answers").text();
    assert!(metrics.contains("littoral_month_cap_bytes{links=\"inter_region\"} 1048576"), "{metrics}");
    assert!(cluster.log(0).contains("100 % of a monthly cap are used up"), "{}", cluster.log_tail(0));

    let sent = |page: &Value| between_regions(page)["month"]["sent_bytes"].as_u64();
    let sent_before = sent(&page_when(&rest, "/v1/budgets", used_up).await);
    assert!(cluster.stop(0).expect("stopped").success());
    cluster.start(0).expect("started");
    cluster.wait_ready(0).await.expect("ready");
    let page = page_when(&rest, "/v1/budgets", |_| true).await;
    assert!(used_up(&page) && sent(&page) >= sent_before, "{sent_before:?} {page:#}");

    assert!(cluster.stop(0).expect("stopped").success());
    std::fs::write(cluster.data_dir(0).join("sent.json"), "{").expect("written");
    cluster.start(0).expect("started");
    cluster.wait_ready(0).await.expect("a damaged count is in nobody's way");
    let page = page_when(&rest, "/v1/budgets", |_| true).await;
    assert!(sent(&page) < Some(cap), "{page:#}");
    assert!(cluster.log(0).contains("monthly caps count from zero"), "{}", cluster.log_tail(0));
}
