//! An EventSource parser, written from the WHATWG specification, independent of the gateway's code.

use std::fmt;

/// An event as a browser dispatches it, with the fields of its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The `id` of this block, if it had one.
    pub id: Option<String>,
    /// `lastEventId`, which a browser sends on a reconnect after this event.
    pub last_id: String,
    /// The name of the event (`message` if the block has none).
    pub event: String,
    /// The data, with lines joined by LF.
    pub data: String,
    /// The `retry` of this block, if it had one, ms.
    pub retry: Option<u64>,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }

    /// The id of this block; panics if it has none.
    pub fn own_id(&self) -> super::Id {
        let id = self.id.as_deref();
        super::Id::of(id.unwrap_or_else(|| panic!("no id: {self}")))
    }

    /// Whether this is a system event of the gateway.
    pub fn is_system(&self) -> bool {
        self.event.starts_with("sse.")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data: String = self.data.chars().take(160).collect();
        let id = self.id.as_deref().unwrap_or("-");
        write!(f, "[{id} {} {data:?}]", self.event)
    }
}

/// An incremental parser.
#[derive(Default)]
pub struct Parser {
    started: bool,
    after_cr: bool,
    line: Vec<u8>,
    last_id: String,
    id: Option<String>,
    event: String,
    data: String,
    block_retry: Option<u64>,
    /// The current reconnection time, ms.
    pub retry: Option<u64>,
    /// All comment lines so far.
    pub comments: Vec<String>,
}

impl Parser {
    /// Parses the next bytes of the stream. Returns the events they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&bytes).into_owned();
        if !std::mem::replace(&mut self.started, true)
            && let Some(rest) = line.strip_prefix('\u{feff}')
        {
            line = rest.to_string();
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.split_once(':') {
            Some(("", comment)) => {
                self.comments.push(comment.to_string());
                return None;
            }
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line.as_str(), ""),
        };
        match field {
            "event" => self.event = value.to_string(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_string());
                self.last_id = value.to_string();
            }
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.block_retry = value.parse().ok();
                self.retry = self.block_retry.or(self.retry);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let (id, retry) = (self.id.take(), self.block_retry.take());
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        Some(Event {
            id,
            last_id: self.last_id.clone(),
            event: if event.is_empty() { "message".to_string() } else { event },
            data,
            retry,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stream: &str) -> Vec<Event> {
        Parser::default().feed(stream.as_bytes())
    }

    #[test]
    fn each_line_ending_ends_one_line() {
        let events = parse("data: a\rdata: b\r\ndata: c\n\ndata: d\r\rdata: e\r\n\r\n");
        let data: Vec<_> = events.iter().map(|e| e.data.as_str()).collect();
        assert_eq!(data, ["a\nb\nc", "d", "e"]);
    }

    #[test]
    fn bom_is_removed_once_and_unfinished_block_dropped() {
        let events = parse("\u{feff}data: \u{feff}a\n\ndata: lost\n");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].data, "\u{feff}a");
    }

    #[test]
    fn id_with_nul_is_ignored_and_empty_resets() {
        let events = parse("id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid\ndata: c\n\n");
        let ids: Vec<_> = events.iter().map(|e| e.last_id.as_str()).collect();
        assert_eq!(ids, ["1", "1", ""]);
        assert_eq!(events[1].id, None);
    }

    #[test]
    fn block_without_data_keeps_its_id_and_retry() {
        let mut parser = Parser::default();
        let events = parser.feed(b":hi\nid: 7\nretry: 30\nevent: x\n\ndata\n\n");
        assert_eq!((events.len(), parser.retry), (1, Some(30)));
        assert_eq!((events[0].event.as_str(), events[0].data.as_str()), ("message", ""));
        assert_eq!((events[0].last_id.as_str(), &events[0].id), ("7", &None));
        assert_eq!(parser.comments, ["hi"]);
    }
}
