//! What a link between two replicas must provide: ordered lanes that carry bounded frames.

/// The largest frame on a link, in bytes.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// The protocol version this build speaks; carried in the handshake and in every frame.
pub const PROTOCOL_VERSION: u8 = 6;

/// A class of traffic between two replicas. Frames of one lane arrive in order or not at all; lanes are
/// independent. A lower number goes first when a link is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Heartbeats and acknowledgements; never starved.
    Control = 0,
    /// New writes of the sender.
    Delta = 1,
    /// Writes the receiver missed.
    CatchUp = 2,
    /// Digest comparison and repair.
    AntiEntropy = 3,
    /// Chunks of large values.
    Bulk = 4,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Lane; 5] = [Lane::Control, Lane::Delta, Lane::CatchUp, Lane::AntiEntropy, Lane::Bulk];

    /// The lane with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_stand_at_their_numbers() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_number(lane as u8), Some(lane));
        }
        assert_eq!(Lane::from_number(Lane::ALL.len() as u8), None);
    }
}
