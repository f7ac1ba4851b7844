//! An event: decoded once, encoded once, shared by every connection that receives it.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use super::{
    channel::{Channel, is_name},
    frame,
    id::EventId,
    presence::check_stored_type,
};

/// A published event.
///
/// ```
/// use sse_gateway::core::{channel::Channel, event::Event, id::EventId};
///
/// let message = b"5-1.k3 4-0.k3 - news update\nline 1\nline 2";
/// let event = Event::from_live(None, message).expect("an event");
/// assert_eq!(Some(event.channel.clone()), Channel::parse("broadcast:news"));
/// assert_eq!(event.id, EventId::parse("5-1.k3"));
/// assert_eq!((event.kind(), &*event.data()), ("update", "line 1\nline 2"));
/// assert_eq!(event.frame, "id: 5-1.k3\nevent: update\ndata: line 1\ndata: line 2\n\n");
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
    /// The frame as a chunk of HTTP/1.1.
    pub chunk: Bytes,
    /// Position of the event name in the frame. The data follows, up to the end of the frame.
    kind: Range<usize>,
}

impl Event {
    /// Decodes a sequenced message of a live channel (ARCHITECTURE.md#live-messages); `None` if our
    /// library did not write it. `user` is the channel of the user whose live channel it is;
    /// without it, this is the live channel of all broadcasts, and the message names the topic.
    pub fn from_live(user: Option<Channel>, message: &[u8]) -> Option<Self> {
        let (head, payload) = std::str::from_utf8(message).ok()?.split_once('\n')?;
        let mut parts = head.splitn(if user.is_some() { 4 } else { 5 }, ' ');
        let id = EventId::parse(parts.next()?)?;
        let predecessor = EventId::parse(parts.next()?)?;
        if predecessor >= id {
            return None;
        }
        let retry = match parts.next()? {
            "-" => None,
            ms => Some(ms.parse().ok()?),
        };
        let channel = match user {
            Some(channel) => channel,
            None => {
                let topic = parts.next().filter(|topic| is_name(topic))?;
                Channel::Broadcast(topic.into())
            }
        };
        let kind = parts.next()?;
        check_stored_type(&channel, kind).ok()?;
        Some(Self::new(id, predecessor, channel, retry, kind, payload))
    }

    /// Creates an event; `kind` must have passed [`check_stored_type`].
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
        let frame::Encoded { frame, chunk, name } =
            frame::encode_event(retry_ms, id, kind, payload);
        Self { id, predecessor, channel, frame, chunk, kind: name }
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
        let user = Channel::parse("user:1:events").unwrap();
        let (own, shared) =
            ("5-1.b 4-0.a 300 my type\nline 1\nline 2", "5-1.b 4-0.a - a/b my type\n");
        let event = Event::from_live(Some(user.clone()), own.as_bytes()).unwrap();
        assert_eq!(
            (event.id, event.predecessor),
            (EventId::parse("5-1.b"), EventId::parse("4-0.a").unwrap())
        );
        assert_eq!(
            event.frame,
            "retry: 300\nid: 5-1.b\nevent: my type\ndata: line 1\ndata: line 2\n\n"
        );
        assert_eq!((event.kind(), &*event.data()), ("my type", "line 1\nline 2"));
        let later = Event::from_live(Some(user), b"5-1.a 4-0.b - t\n");
        assert!(later.is_none(), "in a log, epochs never decrease");
        let event = Event::from_live(None, shared.as_bytes()).unwrap();
        assert_eq!(
            (event.channel, event.frame),
            (
                Channel::parse("broadcast:a/b").unwrap(),
                "id: 5-1.b\nevent: my type\ndata: \n\n".into(),
            )
        );
    }

    #[test]
    fn malformed_live_messages_are_rejected() {
        for bad in [
            "",
            "5-1.a 4-0.a - t",
            "5-1 4-0 - t\nd",
            "x 4-0.a - t\n",
            "5-1.a 4-0.a t\n",
            "5-1.a 4-0.a x t\nd",
            "5-1.a 5-1.a - t\nd",
            "5-1.a 5-1.b - t\nd",
            "5-1.a 4-0.a - a\rid: 9\nd",
            "5-1.a 4-0.a - sse.gap\nd",
        ] {
            let user = Channel::parse("user:1:events");
            assert_eq!(Event::from_live(user, bad.as_bytes()), None, "{bad:?}");
        }
        for bad in ["5-1.a 4-0.a - t\nd", "5-1.a 4-0.a - a,b t\nd", "5-1.a 4-0.a - a sse.x\nd"] {
            assert_eq!(Event::from_live(None, bad.as_bytes()), None, "{bad:?}");
        }
    }
}
