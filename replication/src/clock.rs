//! Time and the names of events: the hybrid logical clock, replicas and dots.
//!
//! Nothing here reads a clock of the operating system: the caller passes [`Now`] in. The rule this file
//! upholds: one replica never issues the same [`Hlc`] twice, and never one below what it has seen.
//!
//! The clock is the hybrid logical clock of Kulkarni, Demirbas et al., "Logical Physical Clocks and
//! Consistent Snapshots in Globally Distributed Databases" (2014), with 48 bits of milliseconds and a
//! counter of 16 bits.

use std::fmt;
use std::str::FromStr;

/// The caller's clocks at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock: milliseconds since the Unix epoch. May jump either way.
    pub wall_ms: u64,
    /// Monotonic clock: microseconds since a moment of the caller's choice. Never goes back.
    pub mono_us: u64,
}

/// A hybrid logical clock reading: 48 bits of Unix milliseconds, then a 16-bit counter.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every event.
    pub const ZERO: Self = Self(0);
    /// The largest millisecond that fits: the year 10889.
    pub const MAX_WALL_MS: u64 = (1 << 48) - 1;

    /// The reading with these parts. `wall_ms` above [`Hlc::MAX_WALL_MS`] saturates.
    pub fn new(wall_ms: u64, counter: u16) -> Self {
        Self(wall_ms.min(Self::MAX_WALL_MS) << 16 | u64::from(counter))
    }

    /// From the packed form, as [`Hlc::to_bits`] gives it.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The packed form; ordered as the reading is.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The millisecond part.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The next reading; a full counter carries into the milliseconds.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The reading before; before zero there is none.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.counter())
    }
}

/// Names one incarnation of one data directory; not a host, and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// On the wire: whoever sends this. No replica has it for a name.
    pub const SENDER: Self = Self([0; 16]);
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell replicas apart in a log; Display has them all.
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ReplicaId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self)
    }
}

/// Not exactly the hexadecimal digits that were wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {digits} hexadecimal digits")]
pub struct NotHex {
    /// How many digits were wanted.
    pub digits: usize,
}

/// Parses exactly `2 * N` hexadecimal digits, of either case.
pub fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], NotHex> {
    let refused = NotHex { digits: 2 * N };
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refused);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| refused)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| refused)?;
    }
    Ok(bytes)
}

/// The name of one event. Its order (time, then replica) is the order of last writer wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// When, by the clock of the replica that issued it.
    pub hlc: Hlc,
    /// Where.
    pub replica: ReplicaId,
}

/// A replica's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A clock that continues after `last`, the greatest reading its store holds.
    pub fn after(last: Hlc) -> Self {
        Self { last }
    }

    /// A reading for a new event: above every earlier one and every observed one.
    pub fn tick(&mut self, now: Now) -> Hlc {
        self.last = self.last.next().max(Hlc::new(now.wall_ms, 0));
        self.last
    }

    /// Takes note of a reading made elsewhere.
    pub fn observe(&mut self, seen: Hlc) {
        if !planted!(SeenTimeIgnored) {
            self.last = self.last.max(seen);
        }
    }

    /// The greatest reading issued or observed.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: u64) -> Now {
        Now { wall_ms, mono_us: 0 }
    }

    #[test]
    fn readings_rise_when_the_wall_clock_stands_still_or_goes_back() {
        let mut clock = Clock::default();
        let readings = [at(100), at(100), at(40), at(101)].map(|now| clock.tick(now));
        assert!(readings.windows(2).all(|pair| pair[0] < pair[1]), "{readings:?}");
        assert_eq!(readings[3], Hlc::new(101, 0));
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::after(Hlc::new(7, u16::MAX));
        assert_eq!(clock.tick(at(7)), Hlc::new(8, 0));
    }

    #[test]
    fn an_observed_reading_is_passed() {
        let mut clock = Clock::default();
        clock.observe(Hlc::new(500, 3));
        assert_eq!(clock.tick(at(100)), Hlc::new(500, 4));
    }

    #[test]
    fn an_id_survives_its_text() {
        let id = ReplicaId([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("a5".parse::<ReplicaId>(), Err(NotHex { digits: 32 }));
        assert_eq!("+5".repeat(16).parse::<ReplicaId>(), Err(NotHex { digits: 32 }));
    }
}
