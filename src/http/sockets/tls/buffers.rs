//! The buffers of a worker. A connection uses them only while it reads or writes.

use std::{cell::RefCell, io::IoSlice};

/// Size of a read; a record has at most 16 KiB of content.
const READ_BYTES: usize = 16 << 10;
/// Maximum number of bytes that are encrypted for one write.
pub const MAX_PLAINTEXT_BYTES: usize = 16 << 10;
/// Larger buffers are freed after use: only an event of that size needs one.
const MAX_KEPT_BYTES: usize = 64 << 10;

thread_local! {
    static INBOUND: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static PLAINTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTBOUND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the buffer for bytes from a client.
pub fn with_inbound<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    INBOUND.with_borrow_mut(|bytes| read(bytes))
}

/// Lends an empty buffer for bytes to a client.
pub fn with_outbound<R>(write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    OUTBOUND.with_borrow_mut(|bytes| {
        bytes.clear();
        let written = write(bytes);
        if bytes.capacity() > MAX_KEPT_BYTES {
            *bytes = Vec::new();
        }
        written
    })
}

/// Lends the start of these slices in one piece, at most [`MAX_PLAINTEXT_BYTES`].
pub fn with_joined<R>(slices: &[IoSlice<'_>], write: impl FnOnce(&[u8]) -> R) -> R {
    PLAINTEXT.with_borrow_mut(|bytes| {
        bytes.clear();
        for slice in slices {
            let space = MAX_PLAINTEXT_BYTES - bytes.len();
            bytes.extend_from_slice(&slice[..slice.len().min(space)]);
        }
        write(bytes)
    })
}
