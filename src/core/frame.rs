//! The encoder: one SSE frame from its parts (WHATWG HTML, section 9.2).

use std::{
    fmt::{Display, Write},
    ops::Range,
};

use bytes::{Bytes, BytesMut};

use super::id::Cursor;

/// The start of each line of the data.
pub(super) const DATA: &str = "\ndata: ";
/// The end of a frame.
pub(super) const END: &str = "\n\n";

/// Encodes a frame. CR, LF and CRLF in the data each start a new `data:` line, so the data cannot
/// end the event. `event` must not contain line breaks (`envelope::check_type`).
///
/// ```
/// use sse_gateway::core::{frame::encode, id::EventId};
///
/// let frame = encode(Some(5000), None::<EventId>, "update", "line 1\r\nline 2");
/// assert_eq!(frame, "retry: 5000\nevent: update\ndata: line 1\ndata: line 2\n\n");
/// ```
pub fn encode(retry_ms: Option<u64>, id: Option<impl Display>, event: &str, data: &str) -> Bytes {
    encode_event(retry_ms, id, event, data).frame
}

/// An encoded frame; the parts share one buffer.
pub struct Encoded {
    /// The SSE frame.
    pub frame: Bytes,
    /// The frame as a chunk of HTTP/1.1 (RFC 9112 section 7.1).
    pub chunk: Bytes,
    /// Position of the event name in the frame.
    pub name: Range<usize>,
}

/// Space for the size of a chunk: 8 hexadecimal digits and CRLF.
const SIZE_SPACE: &str = "          ";
const SIZE_BYTES: usize = SIZE_SPACE.len();
const CHUNK_END: &str = "\r\n";

/// Encodes a frame as [`encode`] does, and also as a chunk.
pub fn encode_event(
    retry_ms: Option<u64>,
    id: Option<impl Display>,
    event: &str,
    data: &str,
) -> Encoded {
    debug_assert!(!event.contains(['\r', '\n']));
    let mut out = String::with_capacity(SIZE_BYTES + 66 + event.len() + data.len());
    out.push_str(SIZE_SPACE);
    if let Some(ms) = retry_ms {
        let _ = writeln!(out, "retry: {ms}");
    }
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    out.push_str("event: ");
    let name = out.len() - SIZE_BYTES..out.len() - SIZE_BYTES + event.len();
    out.push_str(event);
    let mut rest = data;
    loop {
        out.push_str(DATA);
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest.as_bytes()) else { break };
        out.push_str(&rest[..end]);
        let line_break = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + line_break..];
    }
    out.push_str(rest);
    out.push_str(END);
    let end = out.len();
    out.push_str(CHUNK_END);
    let mut out = out.into_bytes();
    let start = put_size(&mut out[..SIZE_BYTES], end - SIZE_BYTES);
    let out = Bytes::from(out);
    Encoded { frame: out.slice(SIZE_BYTES..end), chunk: out.slice(start..), name }
}

/// Writes the size of a chunk, and CRLF, to the end of `space`; returns where it starts.
fn put_size(space: &mut [u8], mut size: usize) -> usize {
    let mut start = space.len() - CHUNK_END.len();
    space[start..].copy_from_slice(CHUNK_END.as_bytes());
    loop {
        start -= 1;
        space[start] = b"0123456789abcdef"[size % 16];
        size /= 16;
        if size == 0 {
            return start;
        }
    }
}

/// The `retry:` in ms that a frame begins with.
pub(super) fn retry_of(frame: &[u8]) -> Option<u64> {
    let line = frame.strip_prefix(b"retry: ")?.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Appends a frame to `out`, with `id` in place of the id that it was encoded with. A frame without
/// an id stays without one.
pub fn put_with_id(out: &mut BytesMut, frame: &[u8], id: Cursor) {
    // `encode_event` writes the id first, or after the line of `retry:`.
    let line_end = |from: usize| {
        frame[from..].iter().position(|byte| *byte == b'\n').map_or(frame.len(), |n| from + n + 1)
    };
    let start = if frame.starts_with(b"retry: ") { line_end(0) } else { 0 };
    if !frame[start..].starts_with(b"id: ") {
        return out.extend_from_slice(frame);
    }
    out.extend_from_slice(&frame[..start]);
    let _ = writeln!(out, "id: {id}");
    out.extend_from_slice(&frame[line_end(start)..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{EventId, StreamPosition};

    fn text(retry: Option<u64>, id: Option<EventId>, event: &str, data: &str) -> String {
        String::from_utf8(encode(retry, id, event, data).to_vec()).unwrap()
    }

    #[test]
    fn fields_are_written_in_a_fixed_order() {
        let id = Some(EventId { epoch: 0, ms: 5, seq: 1 });
        assert_eq!(text(Some(9), id, "a", "x"), "retry: 9\nid: 5-1.0\nevent: a\ndata: x\n\n");
        assert_eq!(text(None, None, "a", ""), "event: a\ndata: \n\n");
    }

    #[test]
    fn id_line_is_replaced_only_where_there_is_one() {
        let position = StreamPosition::parse("5-1.0~6-0.1").unwrap();
        let id = Some(EventId { epoch: 0, ms: 5, seq: 1 });
        let replaced = |frame: Bytes| {
            let mut out = BytesMut::from("before ");
            put_with_id(&mut out, &frame, position.into());
            String::from_utf8(out.to_vec()).unwrap()
        };
        let data = "id: 1-0.a\nid: 2-0.a";
        let rest = "event: a\ndata: id: 1-0.a\ndata: id: 2-0.a\n\n";
        for (retry, line) in [(None, ""), (Some(9), "retry: 9\n")] {
            let with_id = replaced(encode(retry, id, "a", data));
            assert_eq!(with_id, format!("before {line}id: 5-1.0~6-0.1\n{rest}"));
            let without = replaced(encode(retry, None::<EventId>, "a", data));
            assert_eq!(without, format!("before {line}{rest}"));
        }
    }

    #[test]
    fn every_line_break_starts_a_data_line() {
        assert_eq!(
            text(None, None, "a", "1\n2\r3\r\n4\n\n5\r"),
            "event: a\ndata: 1\ndata: 2\ndata: 3\ndata: 4\ndata: \ndata: 5\ndata: \n\n"
        );
    }

    #[test]
    fn chunk_is_the_frame_with_its_size() {
        for len in [0, 1, 9000] {
            let Encoded { frame, chunk, name } =
                encode_event(Some(1), None::<EventId>, "a", &"x".repeat(len));
            let size = format!("{:x}\r\n", frame.len());
            assert_eq!(chunk, [size.as_bytes(), &frame, b"\r\n"].concat());
            assert_eq!(&frame[name], b"a");
        }
    }

    #[test]
    fn data_cannot_inject_fields() {
        let frame = text(None, None, "a", "x\n\nid: 1\nevent: evil\r\rdata: y");
        assert!(
            frame.split("\n").all(|l| l.is_empty() || l.starts_with("data: ") || l == "event: a")
        );
        assert_eq!(frame.matches("\n\n").count(), 1);
    }
}
