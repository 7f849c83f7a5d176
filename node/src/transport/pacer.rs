//! Budgets at the socket: what goes on the wire is counted and paced here, so that acknowledgements, retransmissions and
//! handshakes count too.
//!
//! A datagram that has no budget yet is refused as by a full socket. QUIC keeps it, waits for the time that its poller
//! knows, and builds no more until then: what it has not built, a more urgent lane can still overtake.
//!
//! The rule upheld here: no datagram leaves but by [`Pacer::take`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use replication::ReplicaId;
use replication::budget::{Burst, LinkClass, Rate, Scope, Shaper};

use tokio::time::{Instant, Sleep, sleep_until};

use super::in_force::{Bounds, Budgets, InForce, MonthView, Passed};
use super::meter::Meter;
use super::month::{Months, PerLinks};

/// What IP and UDP put before each datagram's payload.
const IPV4_HEADER_BYTES: u64 = 28;
const IPV6_HEADER_BYTES: u64 = 48;

/// The longest that a refused sender sleeps: a budget may be raised meanwhile.
const MAX_SLEEP_US: u64 = 50_000;

/// Where a path is slower than its budget, QUIC sends what it was given when it can: how soon to look again.
const STUCK_AGAIN_US: u64 = 5_000;
/// What QUIC was given may have been taken back: a peer that wants a chunk no more. After this long it counts as sent.
const MAX_STUCK_US: u64 = 1_000_000;

/// A batch of datagrams is at most what the tightest budget gives in this time.
const BATCH_MS: u64 = 2;

/// About the largest datagram.
const DATAGRAM_BYTES: u64 = 1_500;

/// How much was sent, to a PoP or in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Bytes on the wire since the node started.
    pub bytes: u64,
    /// Bytes a second, of late.
    pub bytes_per_s: u64,
}

/// Paces and counts all that a node sends.
pub(super) struct Pacer {
    state: Mutex<State>,
    start: Instant,
    /// Datagrams that one batch may hold.
    batch: AtomicUsize,
}

struct State {
    shaper: Shaper<ReplicaId>,
    budgets: Budgets,
    bounds: Bounds,
    /// The links that are up, by the address at the other end.
    links: BTreeMap<SocketAddr, Route>,
    meters: BTreeMap<String, Meter>,
    shared_meters: PerLinks<Meter>,
}

struct Route {
    replica: ReplicaId,
    pop: String,
    class: LinkClass,
    /// About how much QUIC was given that it has not sent yet.
    ahead_bytes: u64,
    /// Since when that is too much for more to be given.
    stuck_since_us: Option<u64>,
}

impl Pacer {
    pub(super) fn new(budgets: Budgets) -> Arc<Self> {
        let mut shaper = Shaper::default();
        shaper.set_burst(0, budgets.burst);
        let mut state = State {
            shaper,
            bounds: Bounds::new(&budgets),
            budgets,
            links: BTreeMap::new(),
            meters: BTreeMap::new(),
            shared_meters: PerLinks::default(),
        };
        state.put_in_force(0);
        let pacer =
            Self { start: Instant::now(), batch: AtomicUsize::new(usize::MAX), state: Mutex::new(state) };
        pacer.choose_batch(&pacer.lock());
        Arc::new(pacer)
    }

    /// The class of a link to this PoP.
    pub(super) fn class_of(&self, pop: &str, is_same_region: bool) -> LinkClass {
        match (self.lock().budgets.metered.contains(pop), is_same_region) {
            (true, _) => LinkClass::Metered,
            (false, true) => LinkClass::Region,
            (false, false) => LinkClass::InterRegion,
        }
    }

    /// A link is up.
    pub(super) fn add(&self, address: SocketAddr, replica: ReplicaId, pop: &str, class: LinkClass) {
        let now_us = self.now_us();
        let mut state = self.lock();
        let rate = state.budgets.pops.get(pop).copied();
        state.shaper.add(now_us, replica, class, rate);
        state.links.insert(
            address,
            Route { replica, pop: pop.to_owned(), class, ahead_bytes: 0, stuck_since_us: None },
        );
        self.choose_batch(&state);
    }

    /// A link is gone.
    pub(super) fn remove(&self, replica: ReplicaId) {
        let mut state = self.lock();
        state.shaper.remove(replica);
        state.links.retain(|_, route| route.replica != replica);
        self.choose_batch(&state);
    }

    /// Sets or lifts a budget, of a PoP also for links to come.
    pub(super) fn set(&self, scope: &Scope<String>, rate: Option<Rate>) {
        let now_us = self.now_us();
        let mut state = self.lock();
        match scope {
            Scope::Node => *state.budgets.base.of_mut(None) = rate,
            Scope::Class(class) => *state.budgets.base.of_mut(Some(*class)) = rate,
            Scope::Link(pop) => {
                match rate {
                    Some(rate) => drop(state.budgets.pops.insert(pop.clone(), rate)),
                    None => drop(state.budgets.pops.remove(pop)),
                }
                let linked = state.links.values().filter(|route| route.pop == *pop);
                let replicas: Vec<ReplicaId> = linked.map(|route| route.replica).collect();
                for replica in replicas {
                    state.shaper.set(now_us, Scope::Link(replica), rate);
                }
            }
        }
        state.put_in_force(now_us);
        self.choose_batch(&state);
    }

    /// Sets what may go at once after a pause.
    pub(super) fn set_burst(&self, burst: Burst) {
        let now_us = self.now_us();
        let mut state = self.lock();
        state.budgets.burst = burst;
        state.shaper.set_burst(now_us, burst);
    }

    /// What may go at once after a pause.
    pub(super) fn burst(&self) -> Burst {
        self.lock().budgets.burst
    }

    /// Counts what was sent to its month, and puts the rates in force that hold at this time. Tells which parts of
    /// monthly caps were passed.
    pub(super) fn review(&self, unix_s: u64) -> Vec<Passed> {
        let now_us = self.now_us();
        let mut state = self.lock();
        let totals = PerLinks::each(|links| state.shared_meters.of(links).total_bytes());
        let passed = state.bounds.review(now_us, unix_s, totals);
        state.put_in_force(now_us);
        self.choose_batch(&state);
        passed
    }

    /// The budgets of PoPs as they are now.
    pub(super) fn pops(&self) -> BTreeMap<String, Rate> {
        self.lock().budgets.pops.clone()
    }

    /// What is set for links of a class, or without one for the node; what is in force; and this month.
    pub(super) fn shared(&self, links: Option<LinkClass>) -> (Option<Rate>, InForce, MonthView) {
        let state = self.lock();
        let base = *state.budgets.base.of(links);
        (base, state.bounds.in_force(links, base), state.bounds.month(links))
    }

    /// What was sent in each month, as of the last review.
    pub(super) fn months(&self) -> Months {
        self.lock().bounds.months().clone()
    }

    /// The least rate that a link's bytes pass.
    pub(super) fn tightest(&self, replica: ReplicaId) -> Option<Rate> {
        self.lock().shaper.tightest(replica)
    }

    /// What was sent to a PoP.
    pub(super) fn sent_to(&self, pop: &str) -> Sent {
        let now_s = self.now_us() / 1_000_000;
        self.lock().meters.get(pop).map_or_else(Sent::default, |meter| sent(meter, now_s))
    }

    /// What was sent over links of a class; without one, in all.
    pub(super) fn sent_over(&self, class: Option<LinkClass>) -> Sent {
        let (now_s, state) = (self.now_us() / 1_000_000, self.lock());
        sent(state.shared_meters.of(class), now_s)
    }

    /// Whether QUIC may be given so many bytes for this link that are not urgent: it sends them at once, and what is more
    /// urgent finds room after them. Else when to ask again. QUIC by itself would take a whole window of them, and then
    /// whatever comes has to wait until something is acknowledged.
    pub(super) fn room(&self, replica: ReplicaId, bytes: u64) -> Result<(), Instant> {
        let now_us = self.now_us();
        let mut state = self.lock();
        let Some(rate) = state.shaper.tightest(replica) else { return Ok(()) };
        let State { shaper, links, budgets, .. } = &mut *state;
        let Some(route) = links.values_mut().find(|route| route.replica == replica) else { return Ok(()) };
        let burst_bytes = budgets.burst.bytes_of(rate);
        if route.ahead_bytes > burst_bytes / 2 {
            let stuck_since_us = *route.stuck_since_us.get_or_insert(now_us);
            if now_us < stuck_since_us + MAX_STUCK_US {
                return Err(self.start + Duration::from_micros(now_us + STUCK_AGAIN_US));
            }
            route.ahead_bytes = 0;
        }
        route.stuck_since_us = None;
        let again = shaper.room(now_us, replica, (route.ahead_bytes + bytes).min(burst_bytes));
        again.map_err(|again_us| self.start + Duration::from_micros(again_us.min(now_us + MAX_SLEEP_US)))
    }

    /// QUIC was given so many bytes for this link.
    pub(super) fn gave(&self, replica: ReplicaId, bytes: usize) {
        let mut state = self.lock();
        if let Some(route) = state.links.values_mut().find(|route| route.replica == replica) {
            route.ahead_bytes += bytes as u64;
        }
    }

    /// Whether so many bytes may go there now; else when to ask again.
    fn take(&self, to: SocketAddr, bytes: u64) -> Result<(), Instant> {
        let now_us = self.now_us();
        let mut state = self.lock();
        let State { shaper, links, meters, shared_meters, .. } = &mut *state;
        let route = links.get_mut(&to);
        let taken = shaper.take(now_us, route.as_ref().map(|route| route.replica), bytes);
        taken.map_err(|again_us| self.start + Duration::from_micros(again_us.min(now_us + MAX_SLEEP_US)))?;
        let now_s = now_us / 1_000_000;
        shared_meters.node.count(now_s, bytes);
        if let Some(route) = route {
            route.ahead_bytes = route.ahead_bytes.saturating_sub(bytes);
            shared_meters.of_mut(Some(route.class)).count(now_s, bytes);
            match meters.get_mut(&route.pop) {
                Some(meter) => meter.count(now_s, bytes),
                None => meters.entry(route.pop.clone()).or_default().count(now_s, bytes),
            }
        }
        Ok(())
    }

    /// With a tight budget, batches are small: a batch goes as one.
    fn choose_batch(&self, state: &State) {
        let batch = state.shaper.tightest_of_all().map_or(usize::MAX, |rate| {
            let datagrams = rate.bytes_per_s() * BATCH_MS / 1000 / DATAGRAM_BYTES;
            usize::try_from(datagrams).unwrap_or(usize::MAX).max(1)
        });
        self.batch.store(batch, Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros().try_into().unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Has the budgets that links share shaped by the rates in force.
    fn put_in_force(&mut self, now_us: u64) {
        for links in PerLinks::<Rate>::ALL {
            let rate = self.bounds.in_force(links, *self.budgets.base.of(links)).rate;
            self.shaper.set(now_us, links.map_or(Scope::Node, Scope::Class), rate);
        }
    }
}

fn sent(meter: &Meter, now_s: u64) -> Sent {
    Sent { bytes: meter.total_bytes(), bytes_per_s: meter.bytes_per_s(now_s) }
}

thread_local! {
    /// The last refusal on this thread, until its poller has taken it. QUIC asks the connection's poller right after a
    /// refusal, in the same call, but does not tell it where the datagram was to go.
    static REFUSED: Cell<Option<(SocketAddr, Instant)>> = const { Cell::new(None) };
}

impl std::fmt::Debug for Pacer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

/// A socket all of whose datagrams pass a pacer.
pub(super) struct PacedSocket {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    pub(super) pacer: Arc<Pacer>,
}

impl AsyncUdpSocket for PacedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(PacedPoller { socket: self.socket.clone().create_io_poller(), to: None, timer: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let payload = transmit.contents.len();
        let datagrams = transmit.segment_size.map_or(1, |size| payload.div_ceil(size.max(1)));
        let header = if transmit.destination.is_ipv6() { IPV6_HEADER_BYTES } else { IPV4_HEADER_BYTES };
        let bytes = payload as u64 + datagrams as u64 * header;
        if let Err(again) = self.pacer.take(transmit.destination, bytes) {
            REFUSED.set(Some((transmit.destination, again)));
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A datagram that the system then has no room for counts as sent: rare, and on the safe side.
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(self.pacer.batch.load(Ordering::Relaxed))
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl std::fmt::Debug for PacedSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacedSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Knows when one connection may send again.
struct PacedPoller {
    socket: Pin<Box<dyn UdpPoller>>,
    /// Where this connection sends, once it has been refused.
    to: Option<SocketAddr>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for PacedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some((to, again)) = REFUSED.get()
            && self.to.is_none_or(|ours| ours == to)
        {
            REFUSED.set(None);
            self.to = Some(to);
            self.timer = Some(Box::pin(sleep_until(again)));
        }
        if let Some(timer) = &mut self.timer {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
        self.socket.as_mut().poll_writable(cx)
    }
}

impl std::fmt::Debug for PacedPoller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacedPoller").field("to", &self.to).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::*;

    const METERED: Option<LinkClass> = Some(LinkClass::Metered);
    const REPLICA: ReplicaId = ReplicaId([1; 16]);
    /// Sunday, 22 November 2026, 12:00 UTC.
    const NOON_S: u64 = 1_795_348_800;

    fn rate(bytes_per_s: u64) -> Option<Rate> {
        Rate::new(bytes_per_s)
    }

    /// One with a metered link to `sin`, and where that is.
    fn pacer(budgets: Budgets) -> (Arc<Pacer>, SocketAddr) {
        let pacer = Pacer::new(Budgets { metered: ["sin".to_owned()].into(), ..budgets });
        let address = SocketAddr::from(([192, 0, 2, 1], 4_433));
        pacer.add(address, REPLICA, "sin", pacer.class_of("sin", false));
        (pacer, address)
    }

    #[test]
    fn what_is_sent_over_a_link_uses_up_its_cap_and_the_nodes_and_then_the_trickle_is_left() {
        let caps = PerLinks { metered: Some(100_000), node: Some(1_000_000), ..PerLinks::default() };
        let (pacer, sin) = pacer(Budgets { caps, beyond_cap: rate(20_000), ..Budgets::default() });
        let stranger = SocketAddr::from(([192, 0, 2, 9], 4_433));
        (0..99).for_each(|_| pacer.take(sin, 1_000).unwrap());
        (0..7).for_each(|_| pacer.take(stranger, 1_000).unwrap());
        let percents =
            |passed: Vec<Passed>| passed.iter().map(|it| (it.links, it.percent)).collect::<Vec<_>>();
        assert_eq!(percents(pacer.review(NOON_S)), [(METERED, 80)]);
        assert_eq!(pacer.tightest(REPLICA), None);
        pacer.take(sin, 1_000).unwrap();
        assert_eq!(percents(pacer.review(NOON_S + 1)), [(METERED, 100)]);
        assert_eq!(pacer.tightest(REPLICA), rate(20_000));
        let taken = (0..1_000).take_while(|_| pacer.take(sin, 1_000).is_ok()).count() as u64;
        // A burst, and what the rate gave while this ran.
        assert!((16..100).contains(&taken), "{taken} kB went at once");
        assert!(pacer.take(stranger, 1_000).is_ok(), "the node's cap is not used up");
        assert_eq!((pacer.shared(METERED).2.sent_bytes, pacer.shared(None).2.sent_bytes), (100_000, 107_000));
        let month_s = 10 * 86_400;
        pacer.review(NOON_S + month_s);
        assert_eq!(pacer.tightest(REPLICA), None, "a new month");
    }

    #[test]
    fn what_an_operator_sets_is_the_base_under_a_schedule_and_stays_when_that_ends() {
        let schedule = Schedule {
            links: METERED,
            days: [true; 7],
            from_minutes: 12 * 60,
            to_minutes: 13 * 60,
            rate: rate(50_000),
        };
        let (pacer, _) = pacer(Budgets { schedules: vec![schedule], ..Budgets::default() });
        let set = |bytes_per_s| pacer.set(&Scope::Class(LinkClass::Metered), rate(bytes_per_s));
        let check = |tightest| assert_eq!(pacer.tightest(REPLICA), rate(tightest));
        set(90_000);
        pacer.review(NOON_S - 1);
        check(90_000);
        pacer.review(NOON_S);
        check(50_000);
        set(80_000);
        check(50_000);
        assert_eq!(pacer.shared(METERED).0, rate(80_000));
        set(40_000);
        check(40_000);
        set(70_000);
        pacer.review(NOON_S + 3_600);
        check(70_000);
    }
}
