//! Links come up, carry frames, fall and come back.

use replication::link::MAX_FRAME_BYTES;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_on_every_lane_both_ways() {
    const FRAMES: usize = 20;
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let mut ams = TestNode::start(&cluster, "ams", 2, &[("fra", fra.address())]);
    let (ams_as_seen, to_ams) = fra.connected().await;
    let (fra_as_seen, to_fra) = ams.connected().await;
    assert_eq!((fra_as_seen.pop.as_str(), fra_as_seen.replica), ("fra", fra.replica));
    assert_eq!((ams_as_seen.pop.as_str(), ams_as_seen.region.as_str()), ("ams", "eu"));
    for number in 0..FRAMES {
        for lane in Lane::ALL {
            // From nothing to the largest, each telling its place.
            let frame = noise(number * MAX_FRAME_BYTES / (FRAMES - 1), number as u64);
            for (node, link, to) in [(&fra, &to_ams, ams.replica), (&ams, &to_fra, fra.replica)] {
                // As the engine does: what has no room waits for `ready`.
                node.wrote(to, lane, (number as u64).saturating_sub(LANE_QUEUE_FRAMES as u64 - 1)).await;
                assert!(link.has_room(lane));
                link.send(lane, frame.clone());
            }
        }
    }
    for (node, from) in [(&mut fra, ams.replica), (&mut ams, ReplicaId([1; 16]))] {
        let mut next = [0; Lane::ALL.len()];
        for _ in 0..FRAMES * Lane::ALL.len() {
            let (replica, lane, frame) = node.frame().await;
            let number = &mut next[lane as usize];
            assert_eq!(replica, from);
            let expected = noise(*number * MAX_FRAME_BYTES / (FRAMES - 1), *number as u64);
            assert!(frame == expected, "lane {lane:?}, frame {number}");
            *number += 1;
        }
        assert_eq!(next, [FRAMES; Lane::ALL.len()]);
    }
    let stats = fra.transport.link_stats(ams.replica).unwrap();
    let sent_bytes = (FRAMES * MAX_FRAME_BYTES / 2 * Lane::ALL.len()) as u64;
    assert!(
        stats.sent_bytes > sent_bytes && stats.received_bytes > sent_bytes && stats.rtt_us > 0,
        "{stats:?}"
    );
    assert_eq!(fra.transport.link_stats(ReplicaId([9; 16])), None);
}

#[tokio::test]
async fn a_lane_that_is_not_read_holds_up_only_itself() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let mut ams = TestNode::start(&cluster, "ams", 2, &[("fra", fra.address())]);
    let (_, to_fra) = ams.connected().await;
    fra.connected().await;
    fra.recorder.bulk.forget_permits(Semaphore::MAX_PERMITS);
    let (mut sent, mut stuck_for) = (0_u64, 0);
    while stuck_for < 64 {
        stuck_for += 1;
        if to_fra.has_room(Lane::Bulk) {
            to_fra.send(Lane::Bulk, noise(MAX_FRAME_BYTES, sent));
            (sent, stuck_for) = (sent + 1, 0);
            assert!(sent < 16, "{sent} MiB left for a reader that does not read");
        }
        // Each round trip of the control lane gives the bulk lane time to go as far as it may.
        to_fra.send(Lane::Control, Bytes::from_static(b"beat"));
        assert_eq!(fra.frame().await.1, Lane::Control);
    }
    fra.recorder.bulk.add_permits(64);
    for _ in 0..sent {
        assert_eq!(fra.frame().await.1, Lane::Bulk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_end_with_one_link() {
    let cluster = Cluster::new(1);
    let ((socket_a, a), (socket_b, b)) = (socket(), socket());
    let mut fra = TestNode::start_on(socket_a, &cluster, "fra", 1, &[("ams", b)]);
    let mut ams = TestNode::start_on(socket_b, &cluster, "ams", 2, &[("fra", a)]);
    // A link may be replaced once, and takes its frames with it; over the one that stays, they arrive.
    let mut heard = [false; 2];
    while heard != [true; 2] {
        let (node, event) = tokio::select! {
            event = fra.next() => (0, event),
            event = ams.next() => (1, event),
        };
        match event {
            Event::Connected(_, link) => link.send(Lane::Delta, Bytes::from_static(b"write")),
            Event::Disconnected(_) => {}
            Event::Frame(..) => heard[node] = true,
        }
    }
    let locals = [&fra.transport.local, &ams.transport.local];
    soon(async {
        while locals
            .iter()
            .any(|local| (local.endpoint.open_connections(), local.links.nearest_first().len()) != (1, 1))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Both sides dial at once: the peer's call comes up first, then ours is answered.
async fn check_duplicates(peer_replica: u8, ours_stays: bool) {
    let cluster = Cluster::new(1);
    let peer = HandMade::new(&cluster.identity("ams"), peer_replica);
    let mut fra = TestNode::start(&cluster, "fra", 5, &[("ams", peer.address())]);
    let ours = peer.accept().await;
    let theirs = peer.dial("fra", fra.address()).await.unwrap();
    say_hello(&theirs, &peer.hello).await;
    let (first, _link) = fra.connected().await;
    say_hello(&ours, &peer.hello).await;
    let closed = if ours_stays {
        assert_eq!(fra.disconnected().await, first.replica);
        assert_eq!(fra.connected().await.0.replica, first.replica);
        theirs
    } else {
        ours
    };
    assert_eq!(close_code_of(&closed).await, close_code::DUPLICATE.into_inner());
    assert!(fra.transport.link_stats(first.replica).is_some());
    assert!(fra.transport.refusals().borrow().is_empty(), "a duplicate is no error");
}

#[tokio::test]
async fn of_two_links_the_one_dialled_by_the_smaller_replica_stays() {
    check_duplicates(9, true).await;
    check_duplicates(1, false).await;
}

#[tokio::test]
async fn a_restarted_peer_takes_the_place_of_its_dead_link() {
    let cluster = Cluster::new(1);
    // A larger replica, whose call would lose against ours.
    let peer = HandMade::new(&cluster.identity("ams"), 9);
    let mut fra = TestNode::start(&cluster, "fra", 5, &[("ams", peer.address())]);
    let before = peer.accept().await;
    say_hello(&before, &peer.hello).await;
    fra.connected().await;
    let after = peer.dial("fra", fra.address()).await.unwrap();
    say_hello(&after, &Hello { boot_nonce: [77; 16], ..peer.hello.clone() }).await;
    assert_eq!(fra.disconnected().await, peer.hello.replica);
    assert_eq!(fra.connected().await.0.replica, peer.hello.replica);
    assert_eq!(close_code_of(&before).await, close_code::DUPLICATE.into_inner());
    assert_eq!(after.close_reason(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_restarted_on_its_port_is_linked_again() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let address = fra.address();
    let mut ams = TestNode::start(&cluster, "ams", 2, &[("fra", address)]);
    ams.connected().await;
    fra.connected().await;
    soon(fra.transport.shutdown()).await;
    assert_eq!(fra.disconnected().await, ams.replica, "the engine hears of every end");
    assert_eq!(ams.disconnected().await, fra.replica);
    drop(fra);
    let socket = soon(async {
        loop {
            match UdpSocket::bind(address) {
                Ok(socket) => break socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let mut fra = TestNode::start_on(socket.await, &cluster, "fra", 1, &[]);
    assert_eq!(fra.connected().await.0.replica, ams.replica);
    let (_, link) = ams.connected().await;
    link.send(Lane::Delta, Bytes::from_static(b"again"));
    assert_eq!(fra.frame().await.2, "again");
}

/// Passes datagrams between whoever dials it and `to`, until it is aborted.
async fn relay(to: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    use tokio::net::UdpSocket;
    let (front, back) = (UdpSocket::bind(LOOPBACK).await.unwrap(), UdpSocket::bind(LOOPBACK).await.unwrap());
    let address = front.local_addr().unwrap();
    let pass = async move {
        let (mut forth, mut back_again) = ([0; 65_536], [0; 65_536]);
        let mut dialler = address;
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut forth) => {
                    dialler = from;
                    back.send_to(&forth[..len], to).await.unwrap();
                }
                Ok((len, _)) = back.recv_from(&mut back_again) => {
                    front.send_to(&back_again[..len], dialler).await.unwrap();
                }
            }
        }
    };
    (address, tokio::spawn(pass))
}

#[tokio::test]
async fn a_dead_peer_is_noticed_and_an_idle_one_is_kept() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let mut idle = TestNode::start(&cluster, "ams", 2, &[("fra", fra.address())]);
    fra.connected().await;
    let (_, to_fra) = idle.connected().await;
    let (by_relay, relay) = relay(fra.address()).await;
    let mut dead = TestNode::start(&cluster, "lon", 3, &[("fra", by_relay)]);
    fra.connected().await;
    dead.connected().await;
    relay.abort();
    // Only the idle timeout can tell, so by then the other link has been idle for as long.
    assert_eq!(fra.disconnected().await, dead.replica);
    assert_eq!(dead.disconnected().await, fra.replica);
    to_fra.send(Lane::Delta, Bytes::from_static(b"still here"));
    assert_eq!(fra.frame().await, (idle.replica, Lane::Delta, Bytes::from_static(b"still here")));
}

#[tokio::test]
async fn the_engine_can_close_a_link_with_a_reason() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let peer = HandMade::new(&cluster.identity("ams"), 2);
    let connection = peer.dial("fra", fra.address()).await.unwrap();
    say_hello(&connection, &peer.hello).await;
    let (_, link) = fra.connected().await;
    link.close("evicted");
    match soon(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!((close.error_code, &close.reason[..]), (close_code::ENGINE, &b"evicted"[..]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fra.disconnected().await, peer.hello.replica);
    assert!(!link.has_room(Lane::Control));
}

#[tokio::test]
async fn a_start_that_cannot_succeed_says_why() {
    let cluster = Cluster::new(1);
    let (_taken, address) = socket();
    let fine = settings("fra", 1, &[]);
    let cases = [
        (Settings { listen: address, ..fine.clone() }, "in use"),
        (Settings { pop: "ams".into(), ..fine.clone() }, "the identity is for \"fra\""),
        (Settings { region: "Europe".into(), ..fine.clone() }, "\"Europe\" cannot name"),
        (Settings { peers: vec![("A".into(), "b:1".into())], ..fine.clone() }, "\"A\" cannot name"),
        (Settings { peers: vec![("fra".into(), "b:1".into())], ..fine.clone() }, "is this PoP"),
        (settings("fra", 1, &[("ams", address), ("ams", address)]), "listed twice"),
    ];
    for (settings, expected) in cases {
        let (events, _) = mpsc::unbounded_channel();
        let recorder =
            Recorder { events, ready: watch::Sender::default(), bulk: Arc::new(Semaphore::new(0)) };
        let started = start(settings, &cluster.identity("fra"), recorder, Arc::<Chunks>::default()).await;
        let problem = started.unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem:?} says nothing of {expected:?}");
    }
}
