//! An event: decoded once, encoded once, shared by every connection that receives it.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use super::{channel::Channel, envelope::check_type, frame, id::EventId};

/// A published event.
///
/// ```
/// use sse_gateway::core::{channel::Channel, event::Event, id::EventId};
///
/// let channel = Channel::parse("broadcast:news").expect("a channel");
/// let event = Event::from_live(channel, b"5-1 4-0 - update\nline 1\nline 2").expect("an event");
/// assert_eq!(event.id, EventId::parse("5-1"));
/// assert_eq!((event.kind(), &*event.data()), ("update", "line 1\nline 2"));
/// assert_eq!(event.frame, "id: 5-1\nevent: update\ndata: line 1\ndata: line 2\n\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's id; `None` for a plain message in `relay` mode, which cannot be a cursor.
    pub id: Option<EventId>,
    /// The id of the channel's previous event; zero for the first one.
    pub predecessor: EventId,
    /// Channel of the event.
    pub channel: Channel,
    /// The encoded SSE frame.
    pub frame: Bytes,
    /// Position of the event name in the frame. The data follows, up to the end of the frame.
    kind: Range<usize>,
}

impl Event {
    /// Decodes a sequenced message of a live channel, `<id> <predecessor> <retry> <type>\n<payload
    /// bytes>` (ARCHITECTURE.md#live-messages); `None` if our library did not write it.
    pub fn from_live(channel: Channel, message: &[u8]) -> Option<Self> {
        let (head, payload) = std::str::from_utf8(message).ok()?.split_once('\n')?;
        let mut parts = head.splitn(4, ' ');
        let id = EventId::parse(parts.next()?)?;
        let predecessor = EventId::parse(parts.next()?)?;
        if predecessor >= id {
            return None;
        }
        let retry = match parts.next()? {
            "-" => None,
            ms => Some(ms.parse().ok()?),
        };
        let kind = parts.next()?;
        check_type(kind).ok()?;
        Some(Self::new(id, predecessor, channel, retry, kind, payload))
    }

    /// Creates an event; `kind` must have passed [`check_type`].
    pub fn new(
        id: EventId,
        predecessor: EventId,
        channel: Channel,
        retry_ms: Option<u64>,
        kind: &str,
        payload: &str,
    ) -> Self {
        Self::encode(Some(id), predecessor, channel, retry_ms, kind, payload)
    }

    /// Creates an event without an id from a plain message that is delivered live only.
    pub fn relayed(channel: Channel, envelope: &super::envelope::Envelope<'_>) -> Self {
        let (retry_ms, kind) = (envelope.retry_ms, &envelope.kind);
        Self::encode(None, EventId::ZERO, channel, retry_ms, kind, envelope.payload)
    }

    fn encode(
        id: Option<EventId>,
        predecessor: EventId,
        channel: Channel,
        retry_ms: Option<u64>,
        kind: &str,
        payload: &str,
    ) -> Self {
        let (frame, kind) = frame::encode_event(retry_ms, id, kind, payload);
        Self { id, predecessor, channel, frame, kind }
    }

    /// The SSE event name.
    pub fn kind(&self) -> &str {
        self.text(self.kind.clone())
    }

    /// The data as an `EventSource` receives it: the payload, with its lines joined by LF.
    pub fn data(&self) -> Cow<'_, str> {
        let lines =
            self.text(self.kind.end + frame::DATA.len()..self.frame.len() - frame::END.len());
        if lines.contains('\n') {
            Cow::Owned(lines.replace(frame::DATA, "\n"))
        } else {
            lines.into()
        }
    }

    fn text(&self, range: Range<usize>) -> &str {
        self.frame.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_messages_are_decoded_by_position() {
        let channel = Channel::parse("broadcast:a").unwrap();
        let event =
            Event::from_live(channel.clone(), b"5-1 4-0 300 my type\nline 1\nline 2").unwrap();
        assert_eq!(
            (event.id, event.predecessor),
            (EventId::parse("5-1"), EventId { ms: 4, seq: 0 })
        );
        assert_eq!(
            event.frame,
            "retry: 300\nid: 5-1\nevent: my type\ndata: line 1\ndata: line 2\n\n"
        );
        assert_eq!((event.kind(), &*event.data()), ("my type", "line 1\nline 2"));
        for bad in [
            "",
            "5-1 4-0 - t",
            "x 4-0 - t\n",
            "5-1 4-0 t\n",
            "5-1 4-0 x t\nd",
            "5-1 5-1 - t\nd",
            "5-1 18446744073709551615-0 - t\nd",
            "5-1 4-0 - a\rid: 9\nd",
            "5-1 4-0 - sse.gap\nd",
        ] {
            assert_eq!(Event::from_live(channel.clone(), bad.as_bytes()), None, "{bad:?}");
        }
    }
}
