//! Up to when a copy is complete, and who holds what.

use super::*;

fn behind_ms(pair: &Pair, side: usize) -> u64 {
    let now = pair.now(side);
    now.wall_ms.saturating_sub(pair.replicas[side].complete_upto_ms().unwrap())
}

#[test]
fn a_copy_is_complete_up_to_the_latest_heartbeat_and_ages_without() {
    let mut pair = Pair::connected();
    pair.run_ms(2_000);
    assert!(behind_ms(&pair, 1) <= 600, "{}", behind_ms(&pair, 1));
    pair.disconnect();
    pair.put(0, "k", "v").unwrap();
    pair.now_us += 5_000_000;
    assert!(behind_ms(&pair, 1) >= 5_000, "{}", behind_ms(&pair, 1));
    pair.connect();
    pair.run_ms(600);
    assert!(behind_ms(&pair, 1) <= 600, "{}", behind_ms(&pair, 1));
}

/// That a peer is heard says nothing of what it has written and has not sent.
#[test]
fn a_heartbeat_counts_only_once_all_that_it_tells_of_is_here() {
    let mut pair = Pair::connected();
    pair.run_ms(1_000);
    let before = pair.replicas[1].complete_upto_ms().unwrap();
    pair.disconnect();
    let dot = pair.put(0, "k", "v").unwrap();
    pair.now_us += 3_000_000;
    let now = pair.now(1);
    pair.replicas[1].handle_connected(now, A);
    let told = Heartbeat { vector: pair.replicas[0].vector().clone(), ..heartbeat(now) };
    pair.replicas[1].handle_message(now, A, Message::Heartbeat(told)).unwrap();
    pair.replicas[1].flush().unwrap();
    assert_eq!(pair.replicas[1].complete_upto_ms().unwrap(), before);
    let upto = |pair: &Pair| pair.replicas[0].held_of(A).collect::<Vec<_>>();
    assert!(matches!(upto(&pair)[..], [(B, hlc)] if hlc < dot.hlc));
    pair.replicas[1].handle_disconnected(A);
    pair.connect();
    pair.run_ms(1_000);
    assert!(matches!(upto(&pair)[..], [(B, hlc)] if hlc >= dot.hlc));
    assert!(behind_ms(&pair, 1) <= 600);
}
