//! The seats for connections: how many may be open, and who goes when one more comes.
//!
//! The rule this file upholds: who has a request under way is never ended for another. Who has none goes when a seat is
//! needed, those first that have not come to a request at all, so that idle and hostile connections lock nobody out.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{describe_gauge, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pace::{Pace, Reason, Wanted};

/// How long a connection that was told to go may take before the next one is told.
const LEAVING_MS: u64 = 100;
/// Connections that have a seat.
const OPEN: &str = "littoral_http_connections";

pub(super) struct Seats {
    permits: Arc<Semaphore>,
    taken: Mutex<Taken>,
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Taken {
    next_number: u64,
    paces: BTreeMap<u64, Arc<Pace>>,
}

/// A seat, until it is dropped.
pub(super) struct Seat {
    pub(super) pace: Arc<Pace>,
    number: u64,
    seats: Arc<Seats>,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    /// So many; at least one.
    pub(super) fn new(count: usize) -> Arc<Self> {
        describe_gauge!(OPEN, "Connections of clients that are open");
        gauge!(OPEN).set(0);
        Reason::describe();
        let permits = Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { permits, taken: Mutex::default(), wanted: Arc::default() })
    }

    /// A seat for a connection that has come: a free one, or that of one who goes for it.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.make_room().await,
        };
        let pace = Arc::new(Pace::new(self.wanted.clone()));
        let mut taken = self.taken();
        let number = taken.next_number;
        taken.next_number += 1;
        taken.paces.insert(number, pace.clone());
        gauge!(OPEN).increment(1);
        Seat { pace, number, seats: self.clone(), _permit: permit }
    }

    async fn make_room(&self) -> OwnedSemaphorePermit {
        // From now on a request that ends tells so.
        let _flag = Flag::raise(&self.wanted);
        let acquired = self.permits.clone().acquire_owned();
        let mut permit = pin!(async { acquired.await.expect("the semaphore is never closed") });
        loop {
            let Some(pace) = self.first_to_go() else {
                tokio::select! {
                    permit = permit.as_mut() => return permit,
                    () = self.wanted.freed.notified() => continue,
                }
            };
            pace.tell_to_go();
            if let Ok(permit) = tokio::time::timeout(Duration::from_millis(LEAVING_MS), permit.as_mut()).await
            {
                return permit;
            }
        }
    }

    /// Looks at all of them: that happens only when there is no seat left.
    fn first_to_go(&self) -> Option<Arc<Pace>> {
        let taken = self.taken();
        let leaving = taken.paces.values().filter_map(|pace| Some((pace.leaves_at()?, pace)));
        leaving.min_by_key(|(at, _)| *at).map(|(_, pace)| pace.clone())
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().paces.remove(&self.number);
        gauge!(OPEN).decrement(1);
    }
}

/// Up while somebody waits for a seat.
struct Flag<'a>(&'a Wanted);

impl<'a> Flag<'a> {
    fn raise(wanted: &'a Wanted) -> Self {
        wanted.is_wanted.store(true, Ordering::SeqCst);
        Self(wanted)
    }
}

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for a seat beside those, and tells which of them was told to go.
    async fn told(seats: &Arc<Seats>, held: &mut Vec<Seat>) -> usize {
        let go = |seat: &Seat| {
            let pace = seat.pace.clone();
            Box::pin(async move { pace.told_to_go.notified().await })
        };
        let leaving = futures_util::future::select_all(held.iter().map(go));
        let leave = async {
            let (_, index, _) = leaving.await;
            index
        };
        let taking = seats.take();
        let mut taking = pin!(taking);
        let index = tokio::select! {
            biased;
            _ = taking.as_mut() => panic!("there is no seat"),
            index = leave => index,
        };
        drop(held.remove(index));
        held.push(taking.await);
        index
    }

    #[tokio::test]
    async fn who_never_came_to_a_request_goes_first_and_who_has_one_under_way_stays() {
        let seats = Seats::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(seats.take().await);
        }
        let busy = held[0].pace.begin();
        drop(held[1].pace.begin());
        // (which seat: those behind it move up, and who comes is the last)
        for expected in [2, 2, 1] {
            assert_eq!(told(&seats, &mut held).await, expected);
            drop(held[3].pace.begin());
        }
        drop(busy);
    }

    #[tokio::test]
    async fn with_all_at_work_one_more_waits_for_the_end_of_a_request() {
        let seats = Seats::new(2);
        let held = [seats.take().await, seats.take().await];
        let mut active = held.each_ref().map(|seat| Some(seat.pace.begin()));
        let mut taking = pin!(seats.take());
        let waited = tokio::time::timeout(Duration::from_millis(50), taking.as_mut()).await;
        assert!(waited.is_err());
        drop(active[1].take());
        tokio::select! {
            biased;
            _ = taking.as_mut() => panic!("there is no seat"),
            () = held[1].pace.told_to_go.notified() => {}
        }
        let [_, second] = held;
        drop(second);
        taking.await;
    }
}
