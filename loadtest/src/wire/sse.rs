//! Parser for event streams (WHATWG HTML, section 9.2.6). Does not copy events that are contained
//! in a single read.

use memchr::memchr2;

/// Event of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Event name; empty if there is none.
    pub name: &'a [u8],
    /// Id, if the event has one.
    pub id: Option<&'a [u8]>,
    /// First line of the data. Events published by this tool have only one.
    pub data: &'a [u8],
    /// Number of data lines.
    pub data_lines: u32,
    /// Reconnect delay in ms.
    pub retry_ms: Option<u64>,
}

/// Parses a stream that arrives in arbitrary pieces. Keeps only the start of an incomplete event.
#[derive(Debug, Default)]
pub struct Parser {
    partial: Vec<u8>,
    /// The last piece ended with the CR that ended an event: a leading LF of the next piece belongs
    /// to it.
    after_cr: bool,
}

impl Parser {
    /// Parses a piece and passes each completed event to `each`. Skips comments and blocks without
    /// a field.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event<'_>)) {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        if bytes.is_empty() {
            return;
        }
        if self.partial.is_empty() {
            let done = self.blocks(bytes, &mut each);
            self.partial.extend_from_slice(&bytes[done..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let done = self.blocks(&partial, &mut each);
            // Frees the buffer after complete events: otherwise each of thousands of streams would
            // keep one.
            if done < partial.len() {
                partial.drain(..done);
                self.partial = partial;
            }
        }
    }

    /// Passes the events that end in `bytes` to `each`. Returns how many bytes they took.
    fn blocks(&mut self, bytes: &[u8], each: &mut impl FnMut(Event<'_>)) -> usize {
        let mut done = 0;
        let mut at = 0;
        let mut event = EMPTY;
        let mut fields = false;
        while let Some(end) = memchr2(b'\n', b'\r', &bytes[at..]).map(|offset| at + offset) {
            let mut next = end + 1;
            let cr_at_end = bytes[end] == b'\r' && next == bytes.len();
            if bytes[end] == b'\r' && bytes.get(next) == Some(&b'\n') {
                next += 1;
            }
            let line = &bytes[at..end];
            at = next;
            if !line.is_empty() {
                fields |= field(&mut event, line);
                continue;
            }
            if fields {
                each(std::mem::replace(&mut event, EMPTY));
            }
            fields = false;
            done = next;
            self.after_cr = cr_at_end;
        }
        done
    }
}

const EMPTY: Event<'static> =
    Event { name: b"", id: None, data: b"", data_lines: 0, retry_ms: None };

fn field<'a>(event: &mut Event<'a>, line: &'a [u8]) -> bool {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    let value = line.get(colon + 1..).unwrap_or_default();
    let value = value.strip_prefix(b" ").unwrap_or(value);
    match &line[..colon] {
        b"data" => {
            if event.data_lines == 0 {
                event.data = value;
            }
            event.data_lines += 1;
        }
        b"event" => event.name = value,
        b"id" => event.id = Some(value),
        b"retry" => {
            event.retry_ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok())
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nretry: 250\nid: 1-0\nevent: sse.connected\ndata: {}\n\n\
                          data:a\r\ndata: b\r\nid: 2-0\r\n\r\n\
                          event: x\rdata:  two spaces\r\rid: 3-0\n\ndata\n\n\
                          unknown: y\n\n: c\r\rdata: last\r\n\r\ndata: unfinished\n";

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut parser, mut seen) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(piece, |e| {
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                seen.push(format!(
                    "{}|{:?}|{}|{}|{:?}",
                    text(e.name),
                    e.id.map(text),
                    text(e.data),
                    e.data_lines,
                    e.retry_ms
                ));
            });
        }
        seen
    }

    fn expected() -> Vec<String> {
        [
            "sse.connected|Some(\"1-0\")|{}|1|Some(250)",
            "|Some(\"2-0\")|a|2|None",
            "x|None| two spaces|1|None",
            "|Some(\"3-0\")||0|None",
            "|None||1|None",
            "|None|last|1|None",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn whole_stream_yields_all_events() {
        assert_eq!(read(&[STREAM.as_bytes()]), expected());
    }

    #[test]
    fn every_split_yields_all_events() {
        let bytes = STREAM.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read(&pieces), expected(), "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn single_bytes_parse_and_leave_no_buffer() {
        let bytes = STREAM.as_bytes();
        let pieces: Vec<&[u8]> = bytes.iter().map(std::slice::from_ref).collect();
        assert_eq!(read(&pieces), expected());

        let mut parser = Parser::default();
        for byte in b"data: x\n\n" {
            parser.feed(std::slice::from_ref(byte), |_| {});
        }
        assert_eq!(parser.partial.capacity(), 0);
    }

    #[test]
    fn lone_cr_completes_an_event_at_once() {
        assert_eq!(read(&[b"data: x\r\r"]).len(), 1);
        assert_eq!(read(&[b"data: x\r\r", b"\n", b"data: y\n\n"]).len(), 2);
    }
}
