//! Finds the frames of RESP3 in what the socket brings. It decides only where a frame ends, and how
//! long it may be; `push.rs` and the parser of redis-rs read its contents.

use bytes::{Buf, BytesMut};

/// Free bytes that each read of the socket is offered.
const READ_BYTES: usize = 64 << 10;
/// A buffer that grew for a long frame is replaced when it is empty.
const KEPT_BYTES: usize = 1 << 20;
/// Maximum length of a line: the header of a value, a simple string, a number or an error.
const LINE_BYTES: usize = 64 << 10;
/// The shortest value has a type and the end of a line.
const SHORTEST_VALUE: usize = 3;

/// Why the bytes are no frame that may be read. The connection cannot continue after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame is longer than the limit, in bytes.
    #[error(
        "Redis sends a message or reply of more than {0} bytes; was it a PUBLISH? Run `CONFIG SET \
         proto-max-bulk-len 1048576`"
    )]
    TooLong(usize),
    /// The bytes are not RESP3.
    #[error("the server does not speak the protocol of Redis (RESP3)")]
    Malformed,
}

/// How far the frame at the beginning of the buffer was scanned.
#[derive(Debug)]
struct Scan {
    /// Bytes of complete values and headers.
    bytes: usize,
    /// Values that must follow.
    missing: usize,
}

impl Scan {
    const BEGIN: Self = Self { bytes: 0, missing: 1 };
}

/// What was received and not handled yet.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    /// Bytes of frames that were handled.
    handled: usize,
    scan: Scan,
    /// Maximum length of a frame, in bytes.
    limit: usize,
}

impl Frames {
    /// Creates an empty buffer for frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(READ_BYTES), handled: 0, scan: Scan::BEGIN, limit }
    }

    /// The buffer with room for a read. What is read must be appended.
    pub fn room(&mut self) -> &mut BytesMut {
        if self.handled == self.buffer.len() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.advance(self.handled);
        }
        self.handled = 0;
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next complete frame; `None` until more was read. It counts as handled.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn next(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let unhandled = &self.buffer[self.handled..];
        if !self.scan.advance(unhandled, self.limit)? {
            return Ok(None);
        }
        let begin = self.handled;
        self.handled += self.scan.bytes;
        self.scan = Scan::BEGIN;
        Ok(Some(&self.buffer[begin..self.handled]))
    }
}

impl Scan {
    /// Scans on; `true` if the frame is complete. A value that is not complete is scanned again
    /// from its header, which is short.
    fn advance(&mut self, frame: &[u8], limit: usize) -> Result<bool, FrameError> {
        while self.missing > 0 {
            let (value, follow) = match value(&frame[self.bytes..])? {
                Found::Nothing => return Ok(false),
                Found::Begin(length) if self.bytes.saturating_add(length) > limit => {
                    return Err(FrameError::TooLong(limit));
                }
                Found::Begin(_) => return Ok(false),
                Found::Value(length, follow) => (length, follow),
            };
            self.bytes += value;
            self.missing = (self.missing - 1).saturating_add(follow);
            if self.bytes.saturating_add(self.missing.saturating_mul(SHORTEST_VALUE)) > limit {
                return Err(FrameError::TooLong(limit));
            }
        }
        Ok(true)
    }
}

/// What is at the beginning of some bytes.
enum Found {
    /// Not even a complete header.
    Nothing,
    /// The beginning of a string; with its length.
    Begin(usize),
    /// A value, or the header of an aggregate; with its length and the number of values that follow
    /// it.
    Value(usize, usize),
}

fn value(bytes: &[u8]) -> Result<Found, FrameError> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(Found::Nothing) };
    if !b"+-:_,#($!=*~>%|".contains(kind) {
        return Err(FrameError::Malformed);
    }
    let Some(line) = line(rest)? else { return Ok(Found::Nothing) };
    let header = 1 + line.len() + 2;
    let count = || length(line).ok_or(FrameError::Malformed);
    let follow = match kind {
        // A negative length is RESP2's null.
        b'$' | b'*' if line.first() == Some(&b'-') => {
            length(&line[1..]).map(|_| 0).ok_or(FrameError::Malformed)?
        }
        b'$' | b'!' | b'=' => return string(bytes, header, count()?),
        b'*' | b'~' | b'>' => count()?,
        b'%' => count()?.saturating_mul(2),
        // Attributes precede the value that they describe.
        b'|' => count()?.saturating_mul(2).saturating_add(1),
        _ => 0,
    };
    Ok(Found::Value(header, follow))
}

fn string(bytes: &[u8], header: usize, length: usize) -> Result<Found, FrameError> {
    let end = header.saturating_add(length).saturating_add(2);
    match bytes.get(end - 2..end) {
        None => Ok(Found::Begin(end)),
        Some(b"\r\n") => Ok(Found::Value(end, 0)),
        Some(_) => Err(FrameError::Malformed),
    }
}

/// The line at the beginning, without its end. `None` if it is not complete.
pub(super) fn line(bytes: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let searched = &bytes[..bytes.len().min(LINE_BYTES)];
    let end = memchr::memchr_iter(b'\r', searched).find(|at| bytes.get(at + 1) == Some(&b'\n'));
    match end {
        Some(end) => Ok(Some(&bytes[..end])),
        None if searched.len() == LINE_BYTES => Err(FrameError::Malformed),
        None => Ok(None),
    }
}

/// A length of at most 10 digits.
pub(super) fn length(digits: &[u8]) -> Option<usize> {
    if !(1..=10).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, digit| n * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1000;

    fn frames(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Frames::new(LIMIT);
        frames.room().extend_from_slice(bytes);
        let mut all = Vec::new();
        while let Some(frame) = frames.next()? {
            all.push(frame.to_owned());
        }
        Ok(all)
    }

    #[test]
    fn every_type_ends_where_it_should() {
        for frame in [
            "+OK\r\n",
            "-MOVED 1 a:1\r\n",
            ":-7\r\n",
            "_\r\n",
            ",1.5\r\n",
            "#t\r\n",
            "(123\r\n",
            "$3\r\na\r\n\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "!3\r\nERR\r\n",
            "=5\r\ntxt:a\r\n",
            "*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
            "~1\r\n:1\r\n",
            "%1\r\n+a\r\n*1\r\n:1\r\n",
            "|1\r\n+a\r\n:1\r\n+value\r\n",
            ">2\r\n+x\r\n:1\r\n",
        ] {
            let three = [frame, frame, ":1\r\n", &frame[..frame.len() - 1]].concat();
            let expected = [frame, frame, ":1\r\n"].map(|f| f.as_bytes().to_owned());
            assert_eq!(frames(three.as_bytes()).unwrap(), expected, "{frame:?}");
            redis::parse_redis_value(frame.as_bytes()).expect(frame);
        }
    }

    #[test]
    fn long_frames_are_refused_before_they_arrive() {
        for begin in [
            "$1001\r\n",
            "$9999999999\r\n",
            "*334\r\n",
            "%167\r\n",
            ">3\r\n$1\r\na\r\n$990\r\n",
            "*2\r\n*200\r\n*200\r\n",
            "*9999999999\r\n*9999999999\r\n",
        ] {
            assert_eq!(frames(begin.as_bytes()), Err(FrameError::TooLong(LIMIT)), "{begin:?}");
        }
        let longest = format!("$991\r\n{}\r\n", "x".repeat(991));
        assert_eq!((longest.len(), frames(longest.as_bytes()).unwrap().len()), (999, 1));
    }

    #[test]
    fn other_protocols_are_refused() {
        for bytes in [
            "HTTP/1.1 200 OK\r\n",
            "$?\r\n",
            "$x\r\n",
            "*+1\r\n",
            "$--1\r\n",
            "~-1\r\n",
            "$1\r\nabc",
        ] {
            assert_eq!(frames(bytes.as_bytes()), Err(FrameError::Malformed), "{bytes:?}");
        }
        let endless = "+".repeat(LINE_BYTES + 1);
        assert_eq!(frames(endless.as_bytes()), Err(FrameError::Malformed));
    }

    #[test]
    fn long_frame_does_not_keep_its_memory() {
        let mut frames = Frames::new(8 << 20);
        let long = format!("${}\r\n{}\r\n", 4 << 20, "x".repeat(4 << 20));
        frames.room().extend_from_slice(long.as_bytes());
        assert!(frames.next().unwrap().is_some() && frames.next().unwrap().is_none());
        assert!(frames.room().capacity() < KEPT_BYTES);
    }

    /// Text in which most pieces are valid.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("*2\r\n".to_owned()),
            Just(">2\r\n".to_owned()),
            Just("%1\r\n".to_owned()),
            Just("|1\r\n".to_owned()),
            Just("~1\r\n".to_owned()),
            Just("*-1\r\n".to_owned()),
            Just("_\r\n".to_owned()),
            Just("#t\r\n".to_owned()),
            Just("$4\r\na\r\nb\r\n".to_owned()),
            Just("!3\r\nERR\r\n".to_owned()),
            Just("=5\r\ntxt:a\r\n".to_owned()),
            Just("+a\rb\r\n".to_owned()),
            Just("-ERR a b\r\n".to_owned()),
            any::<i32>().prop_map(|n| format!(":{n}\r\n")),
            "[$*+:>%0-9\r\n]{1,4}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|all| all.concat().into_bytes())
    }

    proptest! {
        /// This scan and the parser of redis-rs are in series: they must agree on each frame's end.
        #[test]
        fn parser_of_redis_rs_finds_the_same_end(bytes in pieces()) {
            let mut frames = Frames::new(LIMIT);
            frames.room().extend_from_slice(&bytes);
            while let Ok(Some(frame)) = frames.next() {
                let at_end = |error: &redis::RedisError| error.is_connection_dropped();
                match redis::parse_redis_value(frame) {
                    Err(error) => prop_assert!(!at_end(&error), "{frame:?}: more was expected"),
                    Ok(_) => {
                        let cut = redis::parse_redis_value(&frame[..frame.len() - 1]);
                        prop_assert!(cut.is_err_and(|e| at_end(&e)), "{frame:?}: less is needed");
                    }
                }
            }
        }

        #[test]
        fn pieces_of_any_size_give_the_same_frames(bytes in pieces(), size in 1_usize..5) {
            let whole = frames(&bytes);
            let mut parts = Frames::new(LIMIT);
            let (mut all, mut error) = (Vec::new(), None);
            'all: for piece in bytes.chunks(size) {
                parts.room().extend_from_slice(piece);
                loop {
                    match parts.next() {
                        Ok(Some(frame)) => all.push(frame.to_owned()),
                        Ok(None) => break,
                        Err(e) => { error = Some(e); break 'all; }
                    }
                }
            }
            prop_assert_eq!(whole, error.map_or(Ok(all), Err));
        }
    }
}
