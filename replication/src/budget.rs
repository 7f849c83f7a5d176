//! Bandwidth budgets: how many bytes may leave, over which link, and when the next may.
//!
//! Budgets are token buckets (RFC 2215, section 3.4): over any time T no more than `rate * T + burst` bytes go. A link's
//! bytes pass three of them: the node's, that of the link's class, and its own. What counts is what goes on the wire, so
//! whoever asks here is the last before the socket.
//!
//! Links that wait for a bucket they share go in the order in which they came to wait, one datagram or batch of them each,
//! so that each gets an equal part of it. A link that waits for its own bucket holds nobody up: budgets that others leave
//! unused are used.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

/// The least and the most time of which a [`Burst`] is made, in milliseconds. A batch of datagrams goes at once, and must fit.
pub const BURST_MS: RangeInclusive<u64> = 5..=1_000;

/// The least burst: some datagrams at once, whatever the rate.
pub const MIN_BURST_BYTES: u64 = 16 << 10;

/// The least rate, in bytes a second: heartbeats, acknowledgements and a handshake still pass in good time.
pub const MIN_RATE: u64 = 16 << 10;

/// The greatest rate, in bytes a second: 800 Gbit/s.
pub const MAX_RATE: u64 = 100 << 30;

/// One part in so many of a full bucket is for what is urgent alone.
const RESERVED_PART: u64 = 4;

/// Whoever waits, and has not asked again for this long after it was told to, has gone.
const GONE_AFTER_US: u64 = 200_000;

/// Millionths of a byte in a byte: a rate in bytes a second gives as many in a microsecond.
const PER_BYTE: u64 = 1_000_000;

/// A rate in bytes a second, on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// This many bytes a second; none beyond [`MIN_RATE`] to [`MAX_RATE`].
    pub fn new(bytes_per_s: u64) -> Option<Self> {
        (MIN_RATE..=MAX_RATE).contains(&bytes_per_s).then_some(Self(bytes_per_s))
    }

    /// In bytes a second.
    pub fn bytes_per_s(self) -> u64 {
        self.0
    }
}

/// How much may go at once after a pause: what a rate gives in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    ms: u64,
}

impl Default for Burst {
    /// 50 ms.
    fn default() -> Self {
        Self { ms: 50 }
    }
}

impl Burst {
    /// What a rate gives in so many milliseconds; none beyond [`BURST_MS`].
    pub fn new(ms: u64) -> Option<Self> {
        BURST_MS.contains(&ms).then_some(Self { ms })
    }

    /// In milliseconds.
    pub fn ms(self) -> u64 {
        self.ms
    }

    /// In bytes, of this rate: at least [`MIN_BURST_BYTES`].
    pub fn bytes_of(self, rate: Rate) -> u64 {
        (rate.0 / 1000 * self.ms).max(MIN_BURST_BYTES)
    }
}

/// What kind of path a link takes, and so what its bytes cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LinkClass {
    /// To a PoP of the same region.
    Region = 0,
    /// To a PoP of another region.
    InterRegion = 1,
    /// To a PoP whose bytes are paid for one by one, as the configuration says.
    Metered = 2,
}

impl LinkClass {
    /// Every class.
    pub const ALL: [LinkClass; 3] = [LinkClass::Region, LinkClass::InterRegion, LinkClass::Metered];
}

/// What a budget is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<L> {
    /// Of all that this node sends.
    Node,
    /// Of all links of one class together.
    Class(LinkClass),
    /// Of one link.
    Link(L),
}

/// One token bucket. Without a rate it holds nobody up.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    rate: Option<Rate>,
    burst: Burst,
    /// Tokens, in millionths of a byte.
    level: u64,
    filled_us: u64,
}

impl Bucket {
    /// Sets the rate. A bucket that had one keeps its tokens, as far as the new burst holds them: changing a budget
    /// often must not be a way around it.
    fn set(&mut self, now_us: u64, rate: Option<Rate>) {
        self.fill(now_us);
        let full = rate.map_or(0, |rate| self.full(rate));
        self.level = if self.rate.is_some() { self.level.min(full) } else { full };
        (self.rate, self.filled_us) = (rate, now_us);
    }

    fn set_burst(&mut self, now_us: u64, burst: Burst) {
        self.fill(now_us);
        self.burst = burst;
        self.level = self.rate.map_or(0, |rate| self.level.min(self.full(rate)));
    }

    fn fill(&mut self, now_us: u64) {
        if let Some(rate) = self.rate {
            let elapsed_us = now_us.saturating_sub(self.filled_us);
            self.level = self.level.saturating_add(rate.0.saturating_mul(elapsed_us)).min(self.full(rate));
            self.filled_us = self.filled_us.max(now_us);
        }
    }

    /// The level of a full bucket.
    fn full(&self, rate: Rate) -> u64 {
        self.burst.bytes_of(rate) * PER_BYTE
    }

    /// In how many microseconds there will be so many bytes, if nobody else takes any.
    fn wait_us(&self, bytes: u64) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        bytes.saturating_mul(PER_BYTE).saturating_sub(self.level).div_ceil(rate.0)
    }

    /// So many bytes and a reserve, as far as the bucket can hold both.
    fn with_reserve(&self, bytes: u64) -> u64 {
        let full = self.rate.map_or(0, |rate| self.burst.bytes_of(rate));
        bytes.max(full.min(bytes + full / RESERVED_PART))
    }

    fn take(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(bytes.saturating_mul(PER_BYTE));
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    class: LinkClass,
    bucket: Bucket,
}

/// Somebody who was told to wait.
#[derive(Clone, Copy, Debug)]
struct Waiting<L> {
    link: Option<L>,
    bytes: u64,
    /// What it waits for is shared; else it is its own bucket alone.
    is_for_shared: bool,
    /// When it was to ask again.
    again_us: u64,
}

/// All budgets of a node, with the links that share them. `L` names a link.
#[derive(Debug)]
pub struct Shaper<L> {
    node: Bucket,
    classes: [Bucket; LinkClass::ALL.len()],
    links: BTreeMap<L, Link>,
    waiting: VecDeque<Waiting<L>>,
}

impl<L> Default for Shaper<L> {
    fn default() -> Self {
        Self {
            node: Bucket::default(),
            classes: Default::default(),
            links: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl<L: Copy + Ord> Shaper<L> {
    /// A link has come up.
    pub fn add(&mut self, now_us: u64, link: L, class: LinkClass, rate: Option<Rate>) {
        let mut bucket = Bucket { burst: self.node.burst, ..Bucket::default() };
        bucket.set(now_us, rate);
        self.links.insert(link, Link { class, bucket });
    }

    /// A link has gone.
    pub fn remove(&mut self, link: L) {
        self.links.remove(&link);
        self.waiting.retain(|waiting| waiting.link != Some(link));
    }

    /// Sets or lifts a budget. Of a link that is not there it does nothing.
    pub fn set(&mut self, now_us: u64, scope: Scope<L>, rate: Option<Rate>) {
        match scope {
            Scope::Node => self.node.set(now_us, rate),
            Scope::Class(class) => self.classes[class as usize].set(now_us, rate),
            Scope::Link(link) => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.bucket.set(now_us, rate);
                }
            }
        }
    }

    /// Sets what every bucket holds, those of links to come included.
    pub fn set_burst(&mut self, now_us: u64, burst: Burst) {
        let links = self.links.values_mut().map(|link| &mut link.bucket);
        let buckets = links.chain(&mut self.classes).chain([&mut self.node]);
        buckets.for_each(|bucket| bucket.set_burst(now_us, burst));
    }

    /// The least rate that this link's bytes pass, where there is any.
    pub fn tightest(&self, link: L) -> Option<Rate> {
        let link = self.links.get(&link);
        let own = link.and_then(|link| link.bucket.rate);
        let class = link.and_then(|link| self.classes[link.class as usize].rate);
        [self.node.rate, class, own].into_iter().flatten().min()
    }

    /// The least of all rates.
    pub fn tightest_of_all(&self) -> Option<Rate> {
        let links = self.links.values().map(|link| link.bucket.rate);
        let rates = links.chain(self.classes.iter().map(|class| class.rate)).chain([self.node.rate]);
        rates.flatten().min()
    }

    /// Whether so many bytes may go over this link now, and takes them from its budgets; else when to ask again. No link
    /// means one that is coming up: its bytes are the node's only.
    ///
    /// # Errors
    /// The time at which there may be enough, in microseconds of `now_us`.
    pub fn take(&mut self, now_us: u64, link: Option<L>, bytes: u64) -> Result<(), u64> {
        self.ask(now_us, link, bytes, Bucket::wait_us)?;
        self.waiting.retain(|waiting| waiting.link != link);
        self.node.take(bytes);
        if let Some(own) = link.and_then(|link| self.links.get_mut(&link)) {
            own.bucket.take(bytes);
            self.classes[own.class as usize].take(bytes);
        }
        Ok(())
    }

    /// Whether there is room for so many bytes that are not urgent, and leaves a part of each bucket for those that are.
    /// Nothing is taken yet, but from now on this link is among those that wait, in its order.
    ///
    /// # Errors
    /// The time at which there may be room, as of [`Shaper::take`].
    pub fn room(&mut self, now_us: u64, link: L, bytes: u64) -> Result<(), u64> {
        self.ask(now_us, Some(link), bytes, |bucket, bytes| bucket.wait_us(bucket.with_reserve(bytes)))
    }

    /// Whether every bucket of this link has so many bytes, and those that others came to wait for before.
    fn ask(
        &mut self,
        now_us: u64,
        link: Option<L>,
        bytes: u64,
        wait_us: impl Fn(&Bucket, u64) -> u64,
    ) -> Result<(), u64> {
        self.fill(now_us, link);
        let own = link.and_then(|link| self.links.get(&link)).copied();
        let class = own.map(|own| own.class);
        let (before_in_node, before_in_class) = self.waiting_before(now_us, link, class);
        let own_wait_us = own.map_or(0, |own| wait_us(&own.bucket, bytes));
        let node_wait_us = wait_us(&self.node, bytes + before_in_node);
        let class_wait_us =
            class.map_or(0, |class| wait_us(&self.classes[class as usize], bytes + before_in_class));
        let shared_wait_us = node_wait_us.max(class_wait_us);
        if own_wait_us.max(shared_wait_us) == 0 {
            return Ok(());
        }
        let again_us = now_us + own_wait_us.max(shared_wait_us);
        let now_waiting = Waiting { link, bytes, is_for_shared: own_wait_us <= shared_wait_us, again_us };
        match self.waiting.iter_mut().find(|waiting| waiting.link == link) {
            Some(waiting) => *waiting = now_waiting,
            None => self.waiting.push_back(now_waiting),
        }
        Err(again_us)
    }

    fn fill(&mut self, now_us: u64, link: Option<L>) {
        self.node.fill(now_us);
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.bucket.fill(now_us);
            self.classes[link.class as usize].fill(now_us);
        }
    }

    /// What those who came to wait before this link will take of the node's budget, and of its class's.
    fn waiting_before(&mut self, now_us: u64, link: Option<L>, class: Option<LinkClass>) -> (u64, u64) {
        self.waiting.retain(|waiting| now_us <= waiting.again_us + GONE_AFTER_US || waiting.link == link);
        let before = self.waiting.iter().take_while(|waiting| waiting.link != link);
        let mut sums = (0, 0);
        for waiting in before.filter(|waiting| waiting.is_for_shared) {
            sums.0 += waiting.bytes;
            let theirs = waiting.link.and_then(|link| self.links.get(&link)).map(|link| link.class);
            if theirs == class {
                sums.1 += waiting.bytes;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
