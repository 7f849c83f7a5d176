//! Keeps one configured peer dialled, for as long as there is no link to it.
//!
//! The rule upheld here: a peer that is away costs little and is found soon: attempts are spaced by
//! exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015), and the
//! peer's address is looked up anew for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::handshake::{self, Failure, Greeted};
use super::refusal::{is_duplicate, refused_by_peer};
use super::{ChunkSource, Driver, LinkEvents, Local};

/// The longest pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after many failures.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// A link that lived this long was a good one: the pauses start anew.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// How long a lookup of the peer's name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses of one name are tried in one attempt.
const MAX_ADDRESSES: usize = 4;

/// Dials until the node stops, and runs the links that come of it.
pub(super) async fn keep_dialling<E: LinkEvents, C: ChunkSource>(
    driver: Arc<Driver<E, C>>,
    pop: String,
    address: String,
) {
    let local = driver.local.clone();
    let mut backoff = Backoff::default();
    for attempt in 0_u64.. {
        let jitter = u32::from_be_bytes(local.seed.draw(&format!("pause {attempt} of {pop}")));
        let linking = async {
            local.links.until_absent(&pop).await;
            connect(&local, &pop, &address).await
        };
        let Some(greeted) = local.stop.run_until_cancelled(linking).await else { return };
        let result = match greeted {
            Ok(greeted) => {
                let start = Instant::now();
                // Not cancelled by a stop: the engine is to hear of the link's end.
                let end = driver.run(greeted).await;
                if start.elapsed() >= GOOD_LINK {
                    backoff = Backoff::default();
                }
                end.map_or("duplicate", |end| if refused_by_peer(&end) { "refused" } else { "linked" })
            }
            Err(result) => result,
        };
        metrics::counter!("littoral_link_dials_total", "peer" => pop.clone(), "result" => result)
            .increment(1);
        let pause = backoff.next_pause(jitter);
        if local.stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// One attempt at each of the peer's addresses. The error is the metric's label for the outcome.
async fn connect(local: &Local, pop: &str, address: &str) -> Result<Greeted, &'static str> {
    let addresses: Vec<_> = match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(address)).await {
        Ok(Ok(addresses)) => addresses.filter(|to| local.can_reach(to)).take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => {
            tracing::debug!(peer = pop, address, "cannot look up the peer: {error}");
            return Err("unresolved");
        }
        Err(_) => return Err("unresolved"),
    };
    let mut result = "unresolved";
    for to in addresses {
        match handshake::dial(local, pop, to).await {
            Ok(greeted) => return Ok(greeted),
            Err(failure) => {
                local.refusals.explain(&failure, pop);
                result = label(&failure);
            }
        }
    }
    Err(result)
}

fn label(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(_) => "refused",
        Failure::Lost(error) if is_duplicate(error) => "duplicate",
        Failure::Lost(error) if refused_by_peer(error) => "refused",
        Failure::Lost(_) | Failure::TimedOut => "unreachable",
    }
}

/// The pauses between attempts.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A pause between nothing and the bound that doubles with each failure; `jitter` says where between.
    fn next_pause(&mut self, jitter: u32) -> Duration {
        let bound = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LAST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_jitter_is_full() {
        let mut backoff = Backoff::default();
        let bounds_ms: Vec<_> = (0..8).map(|_| backoff.next_pause(u32::MAX).as_millis()).collect();
        assert_eq!(bounds_ms, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(backoff.next_pause(0), Duration::ZERO);
        assert_eq!(Backoff { failures: u32::MAX }.next_pause(u32::MAX), LAST_PAUSE);
    }
}
