//! Parsers of event streams (WHATWG HTML, section 9.2.6), for clients: `tail` and the load tester.
//! The gateway itself only writes streams.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The fields between two blank lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// Event name; empty if there is none.
    pub name: &'a [u8],
    /// Id, if the block has one.
    pub id: Option<&'a [u8]>,
    /// First line of the data; empty if there is none.
    pub first_line: &'a [u8],
    /// Number of data lines.
    pub data_lines: u32,
    /// Reconnection delay in ms.
    pub retry_ms: Option<u64>,
    /// All of its lines.
    lines: &'a [u8],
}

impl<'a> Block<'a> {
    /// Takes the field of a line. Returns whether it is a known one.
    fn take(&mut self, line: &'a [u8]) -> bool {
        let (name, value) = field(line);
        match name {
            b"data" => {
                if self.data_lines == 0 {
                    self.first_line = value;
                }
                self.data_lines += 1;
            }
            b"event" => self.name = value,
            b"id" if memchr(0, value).is_none() => self.id = Some(value),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry_ms = ms.or(self.retry_ms);
            }
            _ => return false,
        }
        true
    }

    /// All data lines, joined by LF. `None` if there are none: an `EventSource` dispatches nothing.
    pub fn data(&self) -> Option<Cow<'a, [u8]>> {
        match self.data_lines {
            0 => None,
            1 => Some(self.first_line.into()),
            _ => Some(self.joined().into()),
        }
    }

    fn joined(&self) -> Vec<u8> {
        let (mut data, mut rest) = (Vec::with_capacity(self.lines.len()), self.lines);
        while let Some((line, next)) = next_line(rest) {
            rest = &rest[next..];
            if let (b"data", value) = field(line) {
                data.extend_from_slice(value);
                data.push(b'\n');
            }
        }
        data.pop();
        data
    }
}

/// Name and value of the field in a line.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = memchr(b':', line).unwrap_or(line.len());
    let value = line.get(colon + 1..).unwrap_or_default();
    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

/// The first line, and where the next one starts; `None` if the line has no end yet.
fn next_line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr2(b'\n', b'\r', bytes)?;
    let is_crlf = bytes[end] == b'\r' && bytes.get(end + 1) == Some(&b'\n');
    Some((&bytes[..end], end + 1 + usize::from(is_crlf)))
}

/// Parses a stream that arrives in arbitrary pieces. Does not copy blocks that are contained in a
/// single piece, and keeps only the start of an incomplete one.
#[derive(Debug, Default)]
pub struct BlockParser {
    partial: Vec<u8>,
    /// The first block has ended: a byte order mark is possible before it only.
    has_begun: bool,
    /// The last piece ended with the CR that ended a block: a leading LF of the next piece belongs
    /// to it.
    after_cr: bool,
}

impl BlockParser {
    /// Parses a piece and passes each completed block to `each`. Skips comments and blocks without
    /// a known field.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Block<'_>)) {
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
            // Frees the buffer after complete blocks: otherwise each of thousands of streams would
            // keep one.
            if done < partial.len() {
                partial.drain(..done);
                self.partial = partial;
            }
        }
    }

    /// Passes the blocks that end in `bytes` to `each`. Returns how many bytes they took.
    fn blocks(&mut self, bytes: &[u8], each: &mut impl FnMut(Block<'_>)) -> usize {
        let (mut done, mut at) = (0, 0);
        let (mut block, mut has_fields) = (Block::default(), false);
        while let Some((line, next)) = next_line(&bytes[at..]) {
            let is_first = at == 0 && !self.has_begun;
            let line = line.strip_prefix(BOM).filter(|_| is_first).unwrap_or(line);
            at += next;
            if !line.is_empty() {
                has_fields |= block.take(line);
                continue;
            }
            if has_fields {
                block.lines = &bytes[done..at];
                each(std::mem::take(&mut block));
            }
            (has_fields, done, self.has_begun) = (false, at, true);
            self.after_cr = at == bytes.len() && bytes.ends_with(b"\r");
        }
        done
    }
}

/// An event as an `EventSource` would dispatch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The last event id after this event.
    pub id: String,
    /// The event name.
    pub kind: String,
    /// The data, with its lines joined by LF.
    pub data: String,
}

/// An incremental parser: accepts bytes in pieces of any size and dispatches complete events.
#[derive(Debug, Default)]
pub struct Parser {
    blocks: BlockParser,
    last_id: String,
    /// The last `retry:` in ms.
    pub retry_ms: Option<u64>,
}

impl Parser {
    /// Parses bytes, and calls `dispatch` with every event that they complete.
    pub fn push(&mut self, bytes: &[u8], mut dispatch: impl FnMut(Parsed)) {
        let Self { blocks, last_id, retry_ms } = self;
        blocks.feed(bytes, |block| {
            if let Some(id) = block.id {
                *last_id = text(id);
            }
            *retry_ms = block.retry_ms.or(*retry_ms);
            let Some(data) = block.data() else { return };
            let kind = if block.name.is_empty() { b"message" } else { block.name };
            dispatch(Parsed { id: last_id.clone(), kind: text(kind), data: text(&data) });
        });
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
