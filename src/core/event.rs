//! An event on its way: decoded once, encoded once, shared by every connection that gets it.

use bytes::Bytes;

use super::{channel::Channel, envelope::check_type, frame, id::EventId};

/// A relayed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place; `None` for a bare message in `relay` mode, which no cursor may name.
    pub id: Option<EventId>,
    /// The id of the event before it on its channel; zero if there was none.
    pub predecessor: EventId,
    /// Its channel.
    pub channel: Channel,
    /// The encoded SSE frame.
    pub frame: Bytes,
}

impl Event {
    /// Decodes a sequenced message of a live channel, `<id> <predecessor> <retry> <type>\n<payload bytes>` (DESIGN.md
    /// section 3). `None`: not written by our library.
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

    /// An event from its parts; `kind` must have passed [`check_type`].
    pub fn new(
        id: EventId,
        predecessor: EventId,
        channel: Channel,
        retry_ms: Option<u64>,
        kind: &str,
        payload: &str,
    ) -> Self {
        Self { id: Some(id), predecessor, channel, frame: frame::encode(retry_ms, Some(id), kind, payload) }
    }

    /// A bare message that is relayed live only.
    pub fn relayed(channel: Channel, envelope: &super::envelope::Envelope<'_>) -> Self {
        let frame = frame::encode(envelope.retry_ms, None, &envelope.kind, envelope.payload);
        Self { id: None, predecessor: EventId::ZERO, channel, frame }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_message_is_decoded_by_position() {
        let channel = Channel::parse("broadcast:a").unwrap();
        let event = Event::from_live(channel.clone(), b"5-1 4-0 300 my type\nline 1\nline 2").unwrap();
        assert_eq!((event.id, event.predecessor), (EventId::parse("5-1"), EventId { ms: 4, seq: 0 }));
        assert_eq!(event.frame, "retry: 300\nid: 5-1\nevent: my type\ndata: line 1\ndata: line 2\n\n");
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
