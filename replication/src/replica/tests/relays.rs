//! Who is relay, as a member of another region sees it.

use super::*;

const OTHERS: [ReplicaId; 2] = [ReplicaId([5; 16]), ReplicaId([6; 16])];

/// What a member of another region says that holds these events.
fn say(pair: &mut Pair, from: ReplicaId, vector: VersionVector) {
    let heartbeat = Heartbeat { vector, ..heartbeat(pair.now(0)) };
    pair.replicas[0].handle_message(pair.now(0), from, Message::Heartbeat(heartbeat)).unwrap();
}

fn relay(pair: &Pair) -> ReplicaId {
    let relays: Vec<_> = pair.replicas[0].peers().filter(|peer| peer.is_relay).collect();
    assert_eq!(relays.len(), 1, "{relays:?}");
    relays[0].replica
}

/// Found on an emulated wide-area network: the first acknowledgement after a while without writes came from the other
/// member, which has its events from the relay; that made the relay look seconds behind, and all went by the other again.
#[test]
fn a_relay_stays_it_where_another_acknowledges_first() {
    let mut pair = Pair::connected();
    for id in OTHERS {
        pair.replicas[0].handle_connected(pair.now(0), id);
        let join = Message::Join { pop: format!("{id}"), region: "there".into() };
        pair.replicas[0].handle_message(pair.now(0), id, join).unwrap();
        pair.replicas[0].flush().unwrap();
        say(&mut pair, id, VersionVector::default());
    }
    let first = relay(&pair);
    let other = OTHERS.into_iter().find(|id| *id != first).unwrap();
    pair.now_us += 10_000_000;
    OTHERS.into_iter().for_each(|id| say(&mut pair, id, VersionVector::default()));
    pair.put(0, "k", "v").unwrap();
    let held = pair.replicas[0].vector().clone();
    say(&mut pair, other, held);
    assert_eq!(relay(&pair), first);
}
