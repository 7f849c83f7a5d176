//! Frames of one lane, packed: all share one zstd stream (RFC 8878), so that what a frame has in common with those before
//! it (names, keys, positions, values) is not sent again.
//!
//! On the lane's stream a packed frame is a head and as many bytes: the head is the number `2 * bytes + 1`, in groups of
//! seven bits, the least first, each but the last with the top bit set. Where the last bit of the number is 0, the bytes
//! are the frame itself: it is too short to gain anything, or the sender does not pack.
//!
//! The rule this file upholds: what a peer sends is unpacked within bounds, of memory as of length.

use bytes::Bytes;
use quinn::{ReadExactError, RecvStream};
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The fastest level there is: links wait for nobody.
const LEVEL: i32 = 1;
/// How far back (two to this power, in bytes) a frame can refer; sender and receiver hold as much for each lane in use.
const WINDOW_LOG: u32 = 17;
/// A shorter frame goes as it is.
const MIN_PACKED_BYTES: usize = 24;
/// Room for what packing may add to bytes that cannot be packed.
const MAX_ADDED_BYTES: usize = 64;
/// What unpacking begins with, in times the packed bytes.
const USUAL_RATIO: usize = 4;
/// Seven bits of a length in each byte of a head.
const MAX_HEAD_BYTES: u32 = 5;
/// Packing fails for nothing else; a link that cannot go on is closed, as for any fault.
const MEMORY: &str = "zstd has memory, and its settings are sound";

/// Why no frame could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The frame is longer than the limit.
    TooLong { len: u64 },
    /// Its bytes are not what packing makes.
    Malformed,
    /// The stream or the connection ended.
    Ended,
}

impl From<ReadExactError> for Unreadable {
    fn from(_: ReadExactError) -> Self {
        Self::Ended
    }
}

/// The sending end of a lane.
pub(crate) struct Packer(Option<Encoder<'static>>);

impl Packer {
    /// One that packs, or sends all as it is.
    pub(crate) fn new(packs: bool) -> Self {
        if !packs {
            return Self(None);
        }
        let mut encoder = Encoder::new(LEVEL).expect(MEMORY);
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).expect(MEMORY);
        Self(Some(encoder))
    }

    /// The head and the bytes of a frame, as they are to be sent, in the order of the calls.
    pub(crate) fn pack(&mut self, frame: Bytes) -> [Bytes; 2] {
        let Some(encoder) = self.0.as_mut().filter(|_| frame.len() >= MIN_PACKED_BYTES) else {
            return [head(2 * frame.len() as u64), frame];
        };
        let mut packed = Vec::with_capacity(frame.len() + MAX_ADDED_BYTES);
        let mut input = InBuffer::around(&frame);
        loop {
            let len = packed.len();
            let mut output = OutBuffer::around_pos(&mut packed, len);
            let left = match input.pos() < frame.len() {
                true => encoder.run(&mut input, &mut output).map(|_| 1),
                false => encoder.flush(&mut output),
            };
            if left.expect(MEMORY) == 0 {
                return [head(2 * packed.len() as u64 + 1), packed.into()];
            }
            packed.reserve(MAX_ADDED_BYTES);
        }
    }
}

/// The receiving end of a lane.
pub(crate) struct Unpacker(Decoder<'static>);

impl Unpacker {
    pub(crate) fn new() -> Self {
        let mut decoder = Decoder::new().expect(MEMORY);
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).expect(MEMORY);
        Self(decoder)
    }

    /// The next frame, of at most `max_bytes`.
    pub(super) async fn read(
        &mut self,
        stream: &mut RecvStream,
        max_bytes: usize,
    ) -> Result<Bytes, Unreadable> {
        let number = read_head(stream).await?;
        let (len, is_packed) = (number / 2, number % 2 == 1);
        let most = if is_packed { max_bytes + MAX_ADDED_BYTES } else { max_bytes };
        let fits = usize::try_from(len).ok().filter(|len| *len <= most);
        let mut bytes = vec![0; fits.ok_or(Unreadable::TooLong { len })?];
        stream.read_exact(&mut bytes).await?;
        if is_packed { self.unpack(&bytes, max_bytes) } else { Ok(bytes.into()) }
    }

    /// The frame in what a packer made of it.
    pub(crate) fn unpack(&mut self, packed: &[u8], max_bytes: usize) -> Result<Bytes, Unreadable> {
        let mut frame = Vec::with_capacity((USUAL_RATIO * packed.len()).min(max_bytes + 1));
        let mut input = InBuffer::around(packed);
        loop {
            let len = frame.len();
            let mut output = OutBuffer::around_pos(&mut frame, len);
            self.0.run(&mut input, &mut output).map_err(|_| Unreadable::Malformed)?;
            if frame.len() > max_bytes {
                return Err(Unreadable::TooLong { len: frame.len() as u64 });
            }
            // With room left over, all that came is unpacked.
            if frame.len() < frame.capacity() && input.pos() == packed.len() {
                return Ok(frame.into());
            }
            let room = max_bytes + 1 - frame.len();
            frame.reserve(frame.len().max(MAX_ADDED_BYTES).min(room));
        }
    }
}

pub(super) fn head(mut number: u64) -> Bytes {
    let mut head = Vec::with_capacity(MAX_HEAD_BYTES as usize);
    while number >= 0x80 {
        head.push(number as u8 | 0x80);
        number >>= 7;
    }
    head.push(number as u8);
    head.into()
}

async fn read_head(stream: &mut RecvStream) -> Result<u64, Unreadable> {
    let mut number = 0;
    for place in 0..MAX_HEAD_BYTES {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        number |= u64::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(Unreadable::TooLong { len: number / 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::noise;

    const MAX_BYTES: usize = 1 << 20;

    fn through(packer: &mut Packer, unpacker: &mut Unpacker, frame: &Bytes) -> usize {
        let [head, packed] = packer.pack(frame.clone());
        if head[0] & 1 == 0 {
            assert_eq!(packed, frame);
        } else {
            assert_eq!(unpacker.unpack(&packed, MAX_BYTES).unwrap(), frame);
        }
        head.len() + packed.len()
    }

    #[test]
    fn every_frame_comes_back_and_what_was_said_before_costs_little() {
        let (mut packer, mut unpacker) = (Packer::new(true), Unpacker::new());
        let mut sizes = Vec::new();
        for len in [0, 1, 23, 24, 300, 300, 5_000, 70_000, 70_000, MAX_BYTES] {
            sizes.push(through(&mut packer, &mut unpacker, &noise(len, len as u64)));
        }
        assert!(sizes[4] <= 300 + 2 + 16 && sizes[9] <= MAX_BYTES + 4 + MAX_ADDED_BYTES, "{sizes:?}");
        assert!(sizes[5] < 40 && sizes[8] < 20_000, "{sizes:?}");
    }

    #[test]
    fn frames_beyond_the_bound_are_refused_before_memory_is_taken() {
        let mut packer = Packer::new(true);
        let [_, packed] = packer.pack(vec![7; 64 * MAX_BYTES].into());
        assert!(packed.len() < MAX_BYTES);
        let refused = Unpacker::new().unpack(&packed, MAX_BYTES);
        assert!(matches!(refused, Err(Unreadable::TooLong { .. })), "{refused:?}");
        // Exactly as long as it may be, and one byte more.
        for (len, is_taken) in [(MAX_BYTES, true), (MAX_BYTES + 1, false)] {
            let [_, packed] = Packer::new(true).pack(vec![7; len].into());
            let unpacked = Unpacker::new().unpack(&packed, MAX_BYTES);
            assert_eq!(unpacked.is_ok(), is_taken, "{len}");
        }
    }

    #[test]
    fn foreign_bytes_are_an_error() {
        for seed in 0..200 {
            let mut unpacker = Unpacker::new();
            let foreign = unpacker.unpack(&noise(100, seed), MAX_BYTES);
            assert_eq!(foreign, Err(Unreadable::Malformed));
        }
        // A frame that was changed on its way: an error, or other bytes, which the core's decoder has to do with.
        let [_, packed] = Packer::new(true).pack(noise(200, 1));
        for at in 0..packed.len() {
            let mut changed = packed.to_vec();
            changed[at] ^= 1;
            let _ = Unpacker::new().unpack(&changed, MAX_BYTES);
        }
    }
}
