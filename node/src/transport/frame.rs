//! Frames on a QUIC stream: a length (4 bytes, big-endian), then as many bytes.
//!
//! The rule upheld here: the length is checked against the caller's limit before memory is taken for it.

use bytes::Bytes;
use quinn::{ReadExactError, RecvStream, SendStream, WriteError};

/// Why no frame could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    /// The frame says it is longer than the limit.
    TooLong { len: u32 },
    /// The stream or the connection ended.
    Ended,
}

impl From<ReadExactError> for FrameError {
    fn from(_: ReadExactError) -> Self {
        Self::Ended
    }
}

/// The next frame, of at most `max_bytes`.
pub(super) async fn read(stream: &mut RecvStream, max_bytes: usize) -> Result<Bytes, FrameError> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len);
    let fits = usize::try_from(len).ok().filter(|len| *len <= max_bytes);
    let mut frame = vec![0; fits.ok_or(FrameError::TooLong { len })?];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

/// Writes one frame after the bytes of `head`, in one go.
pub(super) async fn write(
    stream: &mut SendStream,
    head: &'static [u8],
    frame: Bytes,
) -> Result<(), WriteError> {
    stream.write_all_chunks(&mut parts(head, frame)).await
}

/// What a frame is on the stream, after the bytes of `head`.
pub(super) fn parts(head: &'static [u8], frame: Bytes) -> [Bytes; 3] {
    let len = u32::try_from(frame.len()).expect("frames are bounded far below 4 GiB");
    [Bytes::from_static(head), Bytes::copy_from_slice(&len.to_be_bytes()), frame]
}
