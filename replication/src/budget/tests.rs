//! Budgets under greedy and lazy links, on virtual time.

use proptest::prelude::*;

use super::*;

const DATAGRAM: u64 = 1_500;

fn rate(bytes_per_s: u64) -> Rate {
    Rate::new(bytes_per_s).unwrap()
}

/// Links that send as much as they may until `end_us`; gives for each what it sent, and when.
fn run_greedy(shaper: &mut Shaper<u8>, links: &[u8], end_us: u64) -> BTreeMap<u8, Vec<(u64, u64)>> {
    let mut asks: BTreeMap<(u64, u8), ()> = links.iter().map(|link| ((0, *link), ())).collect();
    let mut sent: BTreeMap<u8, Vec<(u64, u64)>> = BTreeMap::new();
    while let Some(((now_us, link), ())) = asks.pop_first() {
        if now_us >= end_us {
            break;
        }
        match shaper.take(now_us, Some(link), DATAGRAM) {
            Ok(()) => {
                sent.entry(link).or_default().push((now_us, DATAGRAM));
                asks.insert((now_us, link), ());
            }
            Err(again_us) => {
                assert!(again_us > now_us);
                asks.insert((again_us, link), ());
            }
        }
    }
    sent
}

fn total(sent: &[(u64, u64)]) -> u64 {
    sent.iter().map(|(_, bytes)| bytes).sum()
}

/// The most that went beyond the rate in any stretch of time.
fn burst_of(sent: &[(u64, u64)], rate: Rate) -> u64 {
    let (mut level, mut last_us, mut most) = (0u64, 0, 0);
    for (at_us, bytes) in sent {
        // Millionths of a byte, to be exact.
        level = level.saturating_sub(rate.bytes_per_s() * (at_us - last_us)) + bytes * PER_BYTE;
        (last_us, most) = (*at_us, most.max(level));
    }
    most.div_ceil(PER_BYTE)
}

#[test]
fn a_greedy_link_gets_its_rate_and_no_more() {
    for bytes_per_s in [MIN_RATE, 1_000_000, 125_000_000] {
        let (mut shaper, rate) = (Shaper::default(), rate(bytes_per_s));
        shaper.add(0, 1, LinkClass::Region, Some(rate));
        let sent = &run_greedy(&mut shaper, &[1], 2_000_000)[&1];
        assert!(burst_of(sent, rate) <= Burst::default().bytes_of(rate), "{bytes_per_s}");
        assert!(total(sent) >= 2 * bytes_per_s, "{bytes_per_s}: {}", total(sent));
    }
}

#[test]
fn links_share_a_class_equally_and_the_class_its_node() {
    let (mut shaper, class, node) = (Shaper::default(), rate(1_000_000), rate(3_000_000));
    shaper.set(0, Scope::Class(LinkClass::InterRegion), Some(class));
    shaper.set(0, Scope::Node, Some(node));
    for link in 1..=3 {
        shaper.add(0, link, LinkClass::InterRegion, None);
    }
    shaper.add(0, 4, LinkClass::Region, None);
    let sent = run_greedy(&mut shaper, &[1, 2, 3, 4], 10_000_000);
    let totals: Vec<u64> = sent.values().map(|sent| total(sent)).collect();
    for share in &totals[..3] {
        assert!(share.abs_diff(10_000_000 / 3) < 100_000, "{totals:?}");
    }
    // What the class leaves of the node's budget, the link inside the region has.
    assert!(totals[3].abs_diff(20_000_000) < 400_000, "{totals:?}");
    let mut all: Vec<_> = sent.into_values().flatten().collect();
    all.sort_unstable();
    assert!(burst_of(&all, node) <= Burst::default().bytes_of(node));
}

#[test]
fn a_link_that_waits_for_its_own_budget_holds_nobody_up() {
    let mut shaper = Shaper::default();
    shaper.set(0, Scope::Node, Some(rate(1_000_000)));
    shaper.add(0, 1, LinkClass::Region, Some(rate(MIN_RATE)));
    shaper.add(0, 2, LinkClass::Region, None);
    let sent = run_greedy(&mut shaper, &[1, 2], 5_000_000);
    assert!(total(&sent[&1]) <= 5 * MIN_RATE + MIN_BURST_BYTES);
    assert!(total(&sent[&1]) >= 5 * MIN_RATE);
    assert!(total(&sent[&1]) + total(&sent[&2]) >= 5_000_000, "{}", total(&sent[&2]));
}

#[test]
fn whoever_does_not_come_back_is_not_waited_for() {
    let mut shaper = Shaper::default();
    shaper.set(0, Scope::Node, Some(rate(MIN_RATE)));
    for link in 1..=2 {
        shaper.add(0, link, LinkClass::Region, None);
    }
    // Both find the bucket empty; the first never asks again.
    while shaper.take(0, Some(1), DATAGRAM).is_ok() {}
    let again_us = shaper.take(0, Some(2), DATAGRAM).unwrap_err();
    assert!(shaper.take(again_us, Some(2), MIN_BURST_BYTES).is_err(), "the first has a place before it");
    let late_us = again_us + 2_000_000;
    assert_eq!(shaper.take(late_us, Some(2), MIN_BURST_BYTES), Ok(()));
}

#[test]
fn a_budget_is_changed_and_lifted_while_links_wait() {
    let (mut shaper, slow, fast) = (Shaper::default(), rate(MIN_RATE), rate(10_000_000));
    shaper.add(0, 1, LinkClass::Metered, Some(slow));
    assert_eq!(shaper.tightest(1), Some(slow));
    let again_us = loop {
        if let Err(again_us) = shaper.take(0, Some(1), DATAGRAM) {
            break again_us;
        }
    };
    // Changing it often gives nobody a fresh burst.
    for _ in 0..10 {
        shaper.set(0, Scope::Link(1), Some(fast));
        shaper.set(0, Scope::Link(1), Some(slow));
    }
    assert_eq!(shaper.take(0, Some(1), DATAGRAM), Err(again_us));
    shaper.set(0, Scope::Link(1), Some(fast));
    assert!(shaper.take(0, Some(1), DATAGRAM).unwrap_err() < again_us);
    shaper.set(0, Scope::Link(1), None);
    assert_eq!((shaper.take(0, Some(1), 1 << 30), shaper.tightest(1)), (Ok(()), None));
    assert_eq!((Rate::new(MIN_RATE - 1), Rate::new(MAX_RATE + 1)), (None, None));
}

proptest! {
    /// Whatever is asked for, in whatever order: no budget is ever exceeded.
    #[test]
    fn no_budget_is_exceeded_over_any_time(
        rates in [MIN_RATE..2_000_000, MIN_RATE..2_000_000, MIN_RATE..2_000_000],
        asks in proptest::collection::vec((0u64..20_000, 0u8..3, 1u64..9_000), 1..400),
    ) {
        let [node, class, own] = rates.map(rate);
        let mut shaper = Shaper::default();
        shaper.set(0, Scope::Node, Some(node));
        shaper.set(0, Scope::Class(LinkClass::Metered), Some(class));
        shaper.add(0, 1, LinkClass::Metered, Some(own));
        shaper.add(0, 2, LinkClass::Metered, None);
        let (mut now_us, mut sent) = (0, Vec::new());
        for (pause_us, link, bytes) in asks {
            now_us += pause_us;
            // 0 is a link that is coming up.
            if shaper.take(now_us, (link > 0).then_some(link), bytes).is_ok() {
                sent.push((link, (now_us, bytes)));
            }
        }
        let of = |wanted: &[u8]| -> Vec<(u64, u64)> {
            sent.iter().filter(|(link, _)| wanted.contains(link)).map(|(_, sent)| *sent).collect()
        };
        prop_assert!(burst_of(&of(&[0, 1, 2]), node) <= Burst::default().bytes_of(node));
        prop_assert!(burst_of(&of(&[1, 2]), class) <= Burst::default().bytes_of(class));
        prop_assert!(burst_of(&of(&[1]), own) <= Burst::default().bytes_of(own));
    }
}

/// What is not urgent asks for room, hands a slice over and has it taken; what is urgent comes now and then.
#[test]
fn what_is_not_urgent_fills_the_rate_and_leaves_room_for_what_is() {
    for bytes_per_s in [MIN_RATE, 250_000, 125_000_000] {
        let (mut shaper, rate) = (Shaper::default(), rate(bytes_per_s));
        shaper.set(0, Scope::Node, Some(rate));
        shaper.add(0, 1, LinkClass::InterRegion, None);
        let (mut now_us, mut urgent_us, mut sent) = (0, 1_000, 0);
        while now_us < 10_000_000 {
            if now_us >= urgent_us {
                assert_eq!(shaper.take(now_us, Some(1), DATAGRAM), Ok(()), "{bytes_per_s} at {now_us}");
                (urgent_us, sent) = (urgent_us + 1_000_000, sent + DATAGRAM);
            }
            match shaper.room(now_us, 1, DATAGRAM) {
                Ok(()) => {
                    shaper.take(now_us, Some(1), DATAGRAM).unwrap();
                    sent += DATAGRAM;
                }
                Err(again_us) => now_us = again_us.min(urgent_us).max(now_us + 1),
            }
        }
        assert!(
            sent >= 10 * bytes_per_s && sent <= 10 * bytes_per_s + Burst::default().bytes_of(rate),
            "{sent}"
        );
    }
}

/// Room that was given is not taken by another link; and a full bucket has room for what it can hold.
#[test]
fn who_waited_for_room_is_served_in_its_order() {
    let (mut shaper, rate) = (Shaper::default(), rate(1_000_000));
    shaper.set(0, Scope::Node, Some(rate));
    (1..=2).for_each(|link| shaper.add(0, link, LinkClass::Region, None));
    assert_eq!(shaper.room(0, 1, Burst::default().bytes_of(rate)), Ok(()));
    assert_eq!(shaper.take(0, Some(2), Burst::default().bytes_of(rate)), Ok(()));
    let again_us = shaper.room(0, 1, DATAGRAM).unwrap_err();
    assert!(
        shaper.take(again_us, Some(2), Burst::default().bytes_of(rate) / 4).is_ok(),
        "what is reserved is for the urgent"
    );
    let again_us = shaper.room(again_us, 1, DATAGRAM).unwrap_err();
    let in_reserve = Burst::default().bytes_of(rate) / 4 + 1;
    assert!(shaper.take(again_us, Some(2), in_reserve).is_err(), "the first link came to wait before");
    assert_eq!(shaper.room(again_us, 1, DATAGRAM), Ok(()));
    assert_eq!(shaper.take(again_us, Some(1), DATAGRAM), Ok(()));
}

#[test]
fn a_burst_is_set_for_all_buckets_and_never_adds_tokens() {
    let (mut shaper, rate) = (Shaper::default(), rate(10_000_000));
    let [short, long] = [5, 1_000].map(|ms| Burst::new(ms).unwrap());
    shaper.set(0, Scope::Node, Some(rate));
    shaper.add(0, 1, LinkClass::Region, None);
    shaper.set_burst(0, short);
    shaper.add(0, 2, LinkClass::Region, Some(rate));
    for link in [1u8, 2] {
        assert!(shaper.take(1_000_000 * u64::from(link), Some(link), short.bytes_of(rate) + 1).is_err());
        assert_eq!(shaper.take(1_000_000 * u64::from(link), Some(link), short.bytes_of(rate)), Ok(()));
    }
    shaper.set_burst(2_000_000, long);
    assert!(shaper.take(2_000_000, Some(2), DATAGRAM).is_err(), "both buckets are empty");
    assert_eq!(shaper.take(4_000_000, Some(2), long.bytes_of(rate)), Ok(()));
    assert_eq!((Burst::new(4), Burst::new(1_001)), (None, None));
    assert_eq!(Burst::default().bytes_of(Rate::new(MIN_RATE).unwrap()), MIN_BURST_BYTES);
}
