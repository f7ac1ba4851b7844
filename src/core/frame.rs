//! The encoder: one SSE frame from its parts (WHATWG HTML, section 9.2).

use std::{fmt::Write, ops::Range};

use bytes::Bytes;

use super::id::EventId;

/// The start of each line of the data.
pub(super) const DATA: &str = "\ndata: ";
/// The end of a frame.
pub(super) const END: &str = "\n\n";

/// Encodes a frame. CR, LF and CRLF in the data each start a new `data:` line, so the data cannot
/// end the event. `event` must not contain line breaks (`envelope::check_type`).
///
/// ```
/// use sse_gateway::core::frame::encode;
///
/// let frame = encode(Some(5000), None, "update", "line 1\r\nline 2");
/// assert_eq!(frame, "retry: 5000\nevent: update\ndata: line 1\ndata: line 2\n\n");
/// ```
pub fn encode(retry_ms: Option<u64>, id: Option<EventId>, event: &str, data: &str) -> Bytes {
    encode_event(retry_ms, id, event, data).0
}

/// Encodes a frame as [`encode`] does, and also returns the position of the event name.
pub fn encode_event(
    retry_ms: Option<u64>,
    id: Option<EventId>,
    event: &str,
    data: &str,
) -> (Bytes, Range<usize>) {
    debug_assert!(!event.contains(['\r', '\n']));
    let mut out = String::with_capacity(64 + event.len() + data.len());
    if let Some(ms) = retry_ms {
        let _ = writeln!(out, "retry: {ms}");
    }
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    out.push_str("event: ");
    let name = out.len()..out.len() + event.len();
    out.push_str(event);
    let mut rest = data;
    loop {
        out.push_str(DATA);
        let Some(end) = rest.find(['\r', '\n']) else { break };
        out.push_str(&rest[..end]);
        let line_break = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + line_break..];
    }
    out.push_str(rest);
    out.push_str(END);
    (Bytes::from(out), name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_line_break_starts_a_data_line() {
        assert_eq!(
            text(None, None, "a", "1\n2\r3\r\n4\n\n5\r"),
            "event: a\ndata: 1\ndata: 2\ndata: 3\ndata: 4\ndata: \ndata: 5\ndata: \n\n"
        );
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
