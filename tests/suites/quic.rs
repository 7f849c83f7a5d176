//! Seeds of the links on virtual time, few enough for every test run; `cargo quic` runs more.

use littoral_node::transport::Reason;
use littoral_tests::quic::cluster::{Cluster, address, on_virtual_time};
use littoral_tests::quic::network::Path;
use littoral_tests::quic::vandal::{self, Standing};
use littoral_tests::quic::{self, CLIFF_BYTES_PER_S, Scenario};
use littoral_tests::random::Random;
use tokio::time::{Duration, sleep};

/// Paths within a region.
const NEAR: Path = Path {
    delay_us: 5_000,
    jitter_us: 1_000,
    lost_permille: 0,
    repeated_permille: 0,
    damaged_permille: 0,
    bytes_per_s: None,
    cut: false,
};
/// How long a link may outlive its path: both ends' idle timeouts, one after the other, and slack.
const NOTICED_S: u64 = 12;
/// How long a link may take to come back: a handshake in vain, the longest pause, a handshake.
const BACK_S: u64 = 15;

/// Seeds that run with every test run. Any other may be added once it has found something.
const SEEDS: std::ops::Range<u64> = 0..8;

#[test]
fn writes_converge_and_none_is_lost_whatever_happens_to_links_and_nodes() {
    let (mut path_faults, mut restarts) = (0, 0);
    for seed in SEEDS {
        let outcome = quic::run(&Scenario::of(seed), false).unwrap_or_else(|violation| {
            panic!("seed {seed}: {violation}\nreplay it with: cargo quic -- --seed {seed}")
        });
        path_faults += outcome.path_faults;
        restarts += outcome.restarts;
    }
    // A run in which nothing went wrong shows nothing.
    assert!(path_faults > 10 && restarts > 10, "{path_faults} faults of paths, {restarts} restarts");
}

#[test]
fn the_same_seed_gives_the_same_trace_of_datagrams() {
    for seed in 0..4 {
        let outcomes = [0, 1].map(|_| quic::run(&Scenario::of(seed), false));
        assert_eq!(outcomes[0], outcomes[1], "seed {seed}");
    }
}

/// Starts a cluster, lets it agree on a first write, and has it go through what a test is about.
fn check(nodes: usize, act: impl AsyncFn(Cluster) -> Result<(), String>) {
    for seed in 0..3 {
        let run = async {
            let mut cluster = Cluster::start(seed, nodes, NEAR)?;
            cluster.write(0, "first", 100);
            cluster.until("all agree at first", BACK_S, Cluster::agrees).await?;
            act(cluster).await
        };
        on_virtual_time(run).unwrap_or_else(|violation| {
            panic!("seed {seed}: {violation}\nreplay it with: cargo test -p littoral-tests --test quic")
        });
    }
}

/// The peer that is not heard stays up for itself only until nothing comes back from the other.
#[test]
fn a_link_that_is_cut_in_one_direction_closes_at_both_ends_and_comes_back() {
    check(3, async |mut cluster| {
        cluster.network.change_path(address(0), address(1), |path| path.cut = true);
        let closed = |cluster: &Cluster| !cluster.is_linked(0, 1) && !cluster.is_linked(1, 0);
        cluster.until("both ends are closed", NOTICED_S, closed).await?;
        cluster.write(0, "during", 100);
        cluster.write(1, "during too", 100);
        // By way of the third, whose links stay.
        let spread = |cluster: &Cluster| cluster.holds_all_of(1, 0) && cluster.holds_all_of(0, 1);
        cluster.until("what they write reaches them by the third", 5, spread).await?;
        sleep(Duration::from_secs(30)).await;
        assert!(closed(&cluster), "a link without a way back");
        assert!([(0, 2), (2, 0), (1, 2), (2, 1)].iter().all(|(a, b)| cluster.is_linked(*a, *b)));
        cluster.network.heal(NEAR);
        cluster.until("all agree", BACK_S, Cluster::agrees).await?;
        cluster.check_end()
    });
}

#[test]
fn a_link_of_64_kbit_holds_up_only_itself() {
    check(4, async |mut cluster| {
        for (from, to) in [(0, 1), (1, 0)] {
            let narrow = |path: &mut Path| path.bytes_per_s = Some(CLIFF_BYTES_PER_S);
            cluster.network.change_path(address(from), address(to), narrow);
        }
        let links_had = cluster.links_had(0);
        let mut slowest_ms = 0;
        for round in 0..400 {
            // 40 kB/s from each: five times what the narrow link carries.
            for node in 0..4 {
                cluster.write(node, &format!("key-{node}-{}", round % 50), 2_000);
            }
            sleep(Duration::from_millis(50)).await;
            cluster.check()?;
            let others = (0..4).flat_map(|a| (0..4).map(move |b| (a, b)));
            for (a, b) in others.filter(|(a, b)| a != b && (a.min(b), a.max(b)) != (&0, &1)) {
                slowest_ms = slowest_ms.max(cluster.lag_ms(a, b).unwrap_or(u64::MAX));
            }
        }
        assert!(slowest_ms < 500, "a write took {slowest_ms} ms over a link that is not narrow");
        assert_eq!(cluster.links_had(0), links_had, "the narrow link stays up all the same");
        cluster.network.heal(NEAR);
        cluster.until("all agree", BACK_S, Cluster::agrees).await?;
        cluster.check_end()
    });
}

#[test]
fn noise_damage_and_impostors_are_refused_and_the_others_go_on() {
    check(4, async |mut cluster| {
        cluster.crash(3);
        let down = |cluster: &Cluster| (0..3).all(|node| !cluster.is_linked(node, 3));
        cluster.until("the others notice that a node is down", NOTICED_S, down).await?;
        let links_had = [0, 1, 2].map(|node| cluster.links_had(node));
        let impostor = cluster.start_vandal(5, Standing::Impostor { node: 3 })?;
        let member = cluster.start_vandal(7, Standing::Member)?;
        // From nobody, from each other, and from themselves.
        let sources = [address(9), address(0), address(1), address(2)];
        cluster.network.heal(Path { damaged_permille: 20, ..NEAR });
        let mut rng = Random::new(11);
        for round in 0..200 {
            for node in 0..3 {
                let from = *rng.pick(&sources);
                vandal::send_noise(&cluster.network, &mut rng, from, address(node));
            }
            cluster.write(round % 3, &format!("key-{}", round % 20), 500);
            sleep(Duration::from_millis(50)).await;
            cluster.check()?;
        }
        for (node, had) in links_had.into_iter().enumerate() {
            let refusals = cluster.transport(node).map(|transport| transport.refusals().borrow().clone());
            let impostors = refusals.and_then(|refusals| refusals.get(&Reason::WrongCa).copied());
            assert!(impostors > Some(0), "node {node} refused no impostor");
            let broken = cluster.links_closed(node);
            assert!(broken > 0, "node {node} closed no link over noise");
            let others = cluster.links_had(node) - had - broken;
            assert!(others <= 1, "{others} links of node {node} to its peers had to come back");
        }
        drop((impostor, member));
        cluster.network.heal(NEAR);
        cluster.restart(3)?;
        cluster.until("all agree", BACK_S, Cluster::agrees).await?;
        cluster.check_end()
    });
}
