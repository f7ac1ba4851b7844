//! Extracts frame heads (RFC 9113 section 4.1) from a connection's bytes. h2 validates the frames.

const HEAD_BYTES: usize = 9;
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`
const PREFACE_BYTES: usize = 24;

/// Length and type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Length of the payload in bytes.
    pub length: usize,
    /// Frame type.
    pub kind: u8,
}

/// The position in the byte stream of a connection.
#[derive(Debug)]
pub struct FrameScanner {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Remaining bytes of the current payload.
    skip: usize,
}

impl FrameScanner {
    /// The start of a connection, before its preface.
    pub fn new() -> Self {
        Self { head: [0; HEAD_BYTES], filled: 0, skip: PREFACE_BYTES }
    }

    /// Reports each frame head that these bytes complete.
    pub fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(FrameHead)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let count = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                (self.filled, self.skip) = (0, length);
                each(FrameHead { length, kind });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_heads_are_found_for_every_split() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut expected = Vec::new();
        for (length, kind, flags) in [(0, 4, 0), (8, 6, 1), (70_000, 0, 0), (4, 8, 0), (0, 0, 1)] {
            bytes.extend([(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags]);
            bytes.extend([0, 0, 0, 1]);
            bytes.extend(std::iter::repeat_n(0xff, length));
            expected.push(FrameHead { length, kind });
        }
        for step in [1, 2, 3, 8, 9, 10, 25, 1000, bytes.len()] {
            let (mut scanner, mut found) = (FrameScanner::new(), Vec::new());
            bytes.chunks(step).for_each(|part| scanner.scan(part, |head| found.push(head)));
            assert_eq!(found, expected, "{step}");
        }
    }
}
