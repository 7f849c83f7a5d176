//! Chunks are fetched, and checked.

use replication::entry::CHUNK_BYTES;

use super::*;

#[tokio::test]
async fn a_chunk_is_fetched_from_whoever_has_it() {
    let cluster = Cluster::new(1);
    let mut fra = TestNode::start(&cluster, "fra", 1, &[]);
    let lone = ChunkId::of(b"lone");
    assert_eq!(fra.transport.fetch_chunk(lone).await, Err(FetchError::NoPeer { id: lone }));
    let peers = [("ams", 2), ("lon", 3), ("par", 4)]
        .map(|(pop, replica)| TestNode::start(&cluster, pop, replica, &[("fra", fra.address())]));
    for _ in &peers {
        fra.connected().await;
    }
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let id = ChunkId::of(&chunk);
    assert_eq!(fra.transport.fetch_chunk(id).await, Err(FetchError::NotFound { id, asked: 3 }));
    // One peer lies about it, one has more than a chunk may hold, the third has it.
    peers[0].chunks.0.lock().unwrap().insert(id.0, Bytes::from_static(b"something else"));
    peers[1].chunks.0.lock().unwrap().insert(id.0, Bytes::from(vec![7; CHUNK_BYTES + 1]));
    peers[2].chunks.0.lock().unwrap().insert(id.0, chunk.clone());
    let fetches = (0..40).map(|_| fra.transport.fetch_chunk(id));
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
    assert_eq!(soon(fra.transport.fetch_chunk(id)).await, Err(expected));
}
