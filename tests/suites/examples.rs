//! The examples of the crate `littoral`, as they stand in their files, against three PoPs as processes.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use littoral_tests::cluster::{ACCOUNT, Cluster, Options, TOKEN};

// Each has a `main` of its own, which nobody calls here.
#[allow(dead_code, reason = "run as a program")]
#[path = "../../client/examples/collaborative_document.rs"]
mod collaborative_document;
#[allow(dead_code, reason = "run as a program")]
#[path = "../../client/examples/feature_flags.rs"]
mod feature_flags;
#[allow(dead_code, reason = "run as a program")]
#[path = "../../client/examples/rate_limiter.rs"]
mod rate_limiter;
#[allow(dead_code, reason = "run as a program")]
#[path = "../../client/examples/shopping_cart.rs"]
mod shopping_cart;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_example_does_at_three_pops_what_it_says() {
    let cluster = Cluster::started(Options { pops: 3, ..Options::default() }).await.unwrap();
    let urls: Vec<_> = (0..3).map(|pop| cluster.url(pop)).collect();
    collaborative_document::run(&urls, ACCOUNT, TOKEN).await.unwrap();
    feature_flags::run(&urls, ACCOUNT, TOKEN).await.unwrap();
    rate_limiter::run(&urls, ACCOUNT, TOKEN).await.unwrap();
    shopping_cart::run(&urls, ACCOUNT, TOKEN).await.unwrap();
    // Once more, beside what the first run has left.
    for at in [&urls[..], &urls[1..2]] {
        shopping_cart::run(at, ACCOUNT, TOKEN).await.unwrap();
    }
}
