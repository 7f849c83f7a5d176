//! Who is turned away, that each reason is told apart, and that a healthy link does not notice.

use replication::link::{MAX_FRAME_BYTES, PROTOCOL_VERSION};
use rustls::RootCertStore;

use super::*;

/// A node with a healthy link, on which `probe` passes a frame each way.
struct Besieged {
    node: TestNode,
    friend: TestNode,
    to_node: LinkSender,
    to_friend: LinkSender,
}

impl Besieged {
    async fn new(cluster: &Cluster) -> Self {
        let mut node = TestNode::start(cluster, "fra", 5, &[]);
        let mut friend = TestNode::start(cluster, "ams", 6, &[("fra", node.address())]);
        let (_, to_friend) = node.connected().await;
        let (_, to_node) = friend.connected().await;
        Self { node, friend, to_node, to_friend }
    }

    async fn probe(&mut self) {
        self.to_node.send(Lane::Delta, Bytes::from_static(b"in"));
        self.to_friend.send(Lane::Delta, Bytes::from_static(b"out"));
        assert_eq!(self.node.frame().await.2, "in");
        assert_eq!(self.friend.frame().await.2, "out");
    }
}

/// Dials with a proper certificate and says `hello`: must be closed with `code` and counted as `reason`.
async fn check_hello(besieged: &mut Besieged, peer: &HandMade, hello: &[u8], reason: Reason, code: u64) {
    let before = besieged.node.transport.refusals().borrow().get(&reason).copied().unwrap_or(0);
    let connection = peer.dial("fra", besieged.node.address()).await.unwrap();
    say(&connection, hello).await;
    assert_eq!(close_code_of(&connection).await, code, "{reason:?}");
    besieged.node.refused(reason, before + 1).await;
    besieged.probe().await;
}

#[tokio::test]
async fn a_hello_that_does_not_fit_is_refused_with_its_reason() {
    let cluster = Cluster::new(1);
    let mut besieged = Besieged::new(&cluster).await;
    let peer = HandMade::new(&cluster.identity("lon"), 7);
    let fine = peer.hello.clone();
    let with = |hello: Hello| framed(&hello.encode());
    let mut next_version = fine.encode();
    next_version[4] = PROTOCOL_VERSION + 1;
    let cases = [
        (framed(b"GET / HTTP/1.1\r\n\r\n"), Reason::MalformedHello, 10),
        (framed(&fine.encode()[..40]), Reason::MalformedHello, 10),
        (fine.encode()[..3].to_vec(), Reason::MalformedHello, 10),
        (framed(&[0; hello::MAX_HELLO_BYTES + 1]), Reason::MalformedHello, 10),
        (u32::MAX.to_be_bytes().to_vec(), Reason::MalformedHello, 10),
        (framed(&next_version), Reason::UnknownVersion, 11),
        (with(Hello { cluster: ClusterId([9; 16]), ..fine.clone() }), Reason::OtherCluster, 12),
        (with(Hello { replica: besieged.node.replica, ..fine.clone() }), Reason::OwnReplica, 13),
        (with(Hello { pop: "par".into(), ..fine.clone() }), Reason::WrongName, 14),
    ];
    for (hello, reason, code) in &cases {
        check_hello(&mut besieged, &peer, hello, *reason, *code).await;
    }
}

#[tokio::test]
async fn a_frame_that_breaks_the_protocol_closes_its_link() {
    let cluster = Cluster::new(1);
    let mut besieged = Besieged::new(&cluster).await;
    let peer = HandMade::new(&cluster.identity("lon"), 7);
    let too_long = packing::head(2 * (MAX_FRAME_BYTES as u64 + 1));
    let unpackable = packing::head(2 * 9 + 1);
    let lane = Lane::Delta as u8;
    let cases: [(&[&[u8]], Reason, u64); 5] = [
        (&[&[&[lane], &too_long[..]].concat()], Reason::FrameTooLong, 15),
        (&[&[lane, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]], Reason::FrameTooLong, 15),
        (&[&[&[lane], &unpackable[..], b"no packer"].concat()], Reason::ProtocolViolation, 16),
        (&[&[Lane::ALL.len() as u8]], Reason::ProtocolViolation, 16),
        (&[&[lane], &[lane]], Reason::ProtocolViolation, 16),
    ];
    for (streams, reason, code) in cases {
        let before = besieged.node.transport.refusals().borrow().get(&reason).copied().unwrap_or(0);
        let connection = peer.dial("fra", besieged.node.address()).await.unwrap();
        say_hello(&connection, &peer.hello).await;
        besieged.node.connected().await;
        for bytes in streams {
            say(&connection, bytes).await;
        }
        assert_eq!(close_code_of(&connection).await, code, "{reason:?}");
        assert_eq!(besieged.node.disconnected().await, peer.hello.replica);
        besieged.node.refused(reason, before + 1).await;
        besieged.probe().await;
    }
}

/// Dials with a TLS client that must not get in.
async fn check_tls(besieged: &mut Besieged, intruder: &HandMade, reason: Reason) {
    // TLS 1.3 ends for the client before the server has looked at its certificate.
    if let Ok(connection) = intruder.dial("fra", besieged.node.address()).await {
        assert!(refusal::refused_by_peer(&soon(connection.closed()).await));
    }
    besieged.node.refused(reason, 1).await;
    besieged.probe().await;
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused_with_its_reason() {
    let cluster = Cluster::new(1);
    let mut besieged = Besieged::new(&cluster).await;

    let hour = Duration::from_secs(3_600);
    let now = time::OffsetDateTime::now_utc();
    let past = Validity { not_before: now - 2 * hour, not_after: now - hour };
    let expired = HandMade::new(&cluster.identity_valid("lon", past), 7);
    check_tls(&mut besieged, &expired, Reason::CertificateExpired).await;

    // It trusts our authority, so that the refusal is ours; its certificate is another's.
    let mut foreign = Cluster::new(2).identity("lon");
    foreign.authority = cluster.identity("lon").authority;
    check_tls(&mut besieged, &HandMade::new(&foreign, 7), Reason::WrongCa).await;

    // Another authority that calls itself by the name of ours.
    let mut forged = Cluster::new(1).identity("lon");
    forged.authority = cluster.identity("lon").authority;
    let before = besieged.node.transport.refusals().borrow().clone();
    let connection = HandMade::new(&forged, 7).dial("fra", besieged.node.address()).await;
    if let Ok(connection) = connection {
        assert!(refusal::refused_by_peer(&soon(connection.closed()).await));
    }
    let mut counts = besieged.node.transport.refusals();
    soon(counts.wait_for(|counts| *counts != before)).await.unwrap();
    besieged.probe().await;

    let mut intruder = HandMade::new(&cluster.identity("lon"), 7);
    intruder.client = without_certificate(&cluster, tls::ALPN);
    check_tls(&mut besieged, &intruder, Reason::NoCertificate).await;
    intruder.client = without_certificate(&cluster, b"littoral/2");
    check_tls(&mut besieged, &intruder, Reason::UnknownVersion).await;
}

fn without_certificate(cluster: &Cluster, protocol: &[u8]) -> quinn::ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(cluster.identity("lon").authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![protocol.to_vec()];
    quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap()))
}

#[tokio::test]
async fn a_dialler_refuses_a_peer_that_is_not_the_pop_it_dialled() {
    let cluster = Cluster::new(1);
    let ams = HandMade::new(&cluster.identity("ams"), 2);
    let fra = TestNode::start(&cluster, "fra", 1, &[("lon", ams.address())]);
    let incoming = soon(ams.endpoint.accept()).await.unwrap();
    let error = soon(incoming.accept().unwrap()).await.unwrap_err();
    assert!(refusal::refused_by_peer(&error), "{error:?}");
    fra.refused(Reason::BadCertificate, 1).await;
}

#[tokio::test]
async fn a_dialler_refuses_a_peer_of_another_authority() {
    let stranger = HandMade::new(&Cluster::new(2).identity("ams"), 2);
    let fra = TestNode::start(&Cluster::new(1), "fra", 1, &[("ams", stranger.address())]);
    let incoming = soon(stranger.endpoint.accept()).await.unwrap();
    assert!(soon(incoming.accept().unwrap()).await.is_err());
    fra.refused(Reason::WrongCa, 1).await;
}

#[tokio::test]
async fn refusals_and_links_show_in_the_metrics() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // The runtime of this test has one thread, so that this holds for all its tasks.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = Cluster::new(1);
    let mut besieged = Besieged::new(&cluster).await;
    let peer = HandMade::new(&cluster.identity("lon"), 7);
    check_hello(&mut besieged, &peer, b"\0\0\0\x01x", Reason::MalformedHello, 10).await;
    let text = metrics.render();
    for line in [
        "littoral_link_refused_total{reason=\"malformed_hello\"} 1",
        "littoral_link_up{peer=\"ams\"} 1",
        "littoral_link_received_bytes{peer=\"ams\",lane=\"delta\"} 2",
        "littoral_link_sent_bytes{peer=\"ams\",lane=\"delta\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
