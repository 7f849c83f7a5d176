//! Chunks are fetched, and checked.

use replication::entry::CHUNK_BYTES;

use replication::budget::{Rate, Scope};

use super::*;

/// As one who pulls does.
async fn fetch(node: &TestNode, id: ChunkId) -> Result<Bytes, FetchError> {
    node.transport.fetch_chunk(id, watch::channel(Urgency::Background).1).await
}

/// Bytes without a pattern that repeats, and their name.
fn noise() -> (ChunkId, Bytes) {
    let hashes = (0..CHUNK_BYTES as u64 / 32).map(|number| ChunkId::of(&number.to_le_bytes()));
    let bytes: Vec<u8> = hashes.flat_map(|hash| hash.0).collect();
    (ChunkId::of(&bytes), bytes.into())
}

/// A node that has the chunk, and sends so many bytes a second.
fn holder(cluster: &Cluster, pop: &str, replica: u8, to: &TestNode, bytes_per_s: u64) -> TestNode {
    let holder = TestNode::start(cluster, pop, replica, &[("fra", to.address())]);
    let (id, bytes) = noise();
    holder.chunks.0.lock().unwrap().insert(id.0, bytes);
    holder.transport.set_budget(&Scope::Node, Rate::new(bytes_per_s)).unwrap();
    holder
}

/// Polls `fetching` until so much has come over the link to this replica.
async fn until_received(
    node: &TestNode,
    from: ReplicaId,
    bytes: u64,
    fetching: &mut (impl Future<Output = Result<Bytes, FetchError>> + Unpin),
) {
    let received = async {
        while node.transport.link_stats(from).is_none_or(|link| link.received_bytes < bytes) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = soon(received) => {}
        fetched = fetching => panic!("it came too soon, or not at all: {:?}", fetched.map(|bytes| bytes.len())),
    }
}

#[tokio::test]
async fn after_a_cut_the_next_holder_is_asked_for_the_rest_only() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let slow = holder(&cluster, "ams", 2, &fra, 300_000);
    fra.connected().await;
    let (id, bytes) = noise();
    {
        let mut fetching = Box::pin(fetch(&fra, id));
        until_received(&fra, slow.replica, 150_000, &mut fetching).await;
        slow.transport.shutdown().await;
        let problem = "the link went down";
        assert_eq!(soon(fetching).await, Err(FetchError::Failed { id, pop: "ams".into(), problem }));
    }
    let next = holder(&cluster, "lon", 3, &fra, 100 << 20);
    fra.disconnected().await;
    fra.connected().await;
    assert_eq!(soon(fetch(&fra, id)).await, Ok(bytes));
    let received = fra.transport.link_stats(next.replica).unwrap().received_bytes;
    assert!(received < CHUNK_BYTES as u64 - 80_000, "{received} bytes came again");
}

#[tokio::test]
async fn parts_that_do_not_fit_are_fetched_anew() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let _holder = holder(&cluster, "ams", 2, &fra, 100 << 20);
    fra.connected().await;
    let (id, bytes) = noise();
    for wrong in [1, 1_000, CHUNK_BYTES - 1, CHUNK_BYTES] {
        fra.transport.local.chunk_parts.keep(id, bytes::BytesMut::from(&vec![1; wrong][..]));
        assert_eq!(soon(fetch(&fra, id)).await, Ok(bytes.clone()), "{wrong}");
    }
}

#[tokio::test]
async fn a_fetch_that_becomes_urgent_goes_on_where_it_is() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let slow = holder(&cluster, "ams", 2, &fra, 400_000);
    fra.connected().await;
    let (id, bytes) = noise();
    let (raise, urgency) = watch::channel(Urgency::Background);
    let mut fetching = Box::pin(fra.transport.fetch_chunk(id, urgency));
    until_received(&fra, slow.replica, 150_000, &mut fetching).await;
    raise.send_replace(Urgency::Reader);
    slow.transport.set_budget(&Scope::Node, None).unwrap();
    assert_eq!(soon(fetching).await, Ok(bytes));
    // The rest was asked for, and what was under way by the first request came for nothing.
    let received = fra.transport.link_stats(slow.replica).unwrap().received_bytes;
    assert!(received < CHUNK_BYTES as u64 * 3 / 2, "{received} bytes came");
}

#[tokio::test]
async fn a_chunk_is_fetched_from_whoever_has_it() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let lone = ChunkId::of(b"lone");
    assert_eq!(fetch(&fra, lone).await, Err(FetchError::NoPeer { id: lone }));
    let peers = [("ams", 2), ("lon", 3), ("par", 4)]
        .map(|(pop, replica)| TestNode::start(&cluster, pop, replica, &[("fra", fra.address())]));
    for _ in &peers {
        fra.connected().await;
    }
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let id = ChunkId::of(&chunk);
    assert_eq!(fetch(&fra, id).await, Err(FetchError::NotFound { id, asked: 3 }));
    // One peer lies about it, one has more than a chunk may hold, the third has it.
    peers[0].chunks.0.lock().unwrap().insert(id.0, Bytes::from_static(b"something else"));
    peers[1].chunks.0.lock().unwrap().insert(id.0, Bytes::from(vec![7; CHUNK_BYTES + 1]));
    peers[2].chunks.0.lock().unwrap().insert(id.0, chunk.clone());
    let fetches = (0..40).map(|_| fetch(&fra, id));
    let fetched = soon(futures_util::future::join_all(fetches)).await;
    assert!(fetched.iter().all(|fetched| *fetched == Ok(chunk.clone())));
}

#[tokio::test]
async fn a_corrupted_answer_is_refused() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let ams = TestNode::start(&cluster, "ams", 2, &[("fra", fra.address())]);
    fra.connected().await;
    let id = ChunkId::of(b"what was written");
    ams.chunks.0.lock().unwrap().insert(id.0, Bytes::from_static(b"what was wr1tten"));
    let problem = "it sent bytes that are not the chunk's";
    let expected = FetchError::Failed { id, pop: "ams".into(), problem };
    assert_eq!(soon(fetch(&fra, id)).await, Err(expected));
}
