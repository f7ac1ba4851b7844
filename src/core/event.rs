//! An event: decoded once, encoded once, shared by every connection that receives it.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use super::{
    channel::{Channel, is_name},
    event_options::{EventOptions, Retain, parse_options},
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
    /// What its publisher asked for besides; `None` for most events.
    pub options: Option<Box<EventOptions>>,
    /// Position of the event name in the frame. The data follows, up to the end of the frame.
    kind: Range<usize>,
}

impl Event {
    /// Decodes a sequenced message of a live channel (ARCHITECTURE.md#live-messages); `None` if our
    /// library did not write it. `user` is the channel of the user whose live channel it is;
    /// without it, this is the live channel of all broadcasts, and the message names the topic.
    pub fn from_live(user: Option<Channel>, message: &[u8]) -> Option<Self> {
        let (head, rest) = std::str::from_utf8(message).ok()?.split_once('\n')?;
        let (id, head) = head.split_once(' ')?;
        let (predecessor, head) = head.split_once(' ')?;
        let (id, predecessor) = (EventId::parse(id)?, EventId::parse(predecessor)?);
        if predecessor >= id {
            return None;
        }
        Self::from_parts(Some(id), predecessor, user, head, rest)
    }

    /// Decodes an ephemeral event of a live channel, without its first word. `user` is as for
    /// [`Event::from_live`].
    pub fn from_ephemeral(user: Option<Channel>, message: &[u8]) -> Option<Self> {
        let (head, rest) = std::str::from_utf8(message).ok()?.split_once('\n')?;
        let mut event = Self::from_parts(None, EventId::ZERO, user, head, rest)?;
        event.options.get_or_insert_default().is_ephemeral = true;
        Some(event)
    }

    /// Decodes a retained value, `<position> <retry> <type>\n<payload>`, of a key: its position,
    /// and the event without an id.
    pub fn from_kept(channel: &Channel, key: &str, value: &[u8]) -> Option<(EventId, Self)> {
        let (head, rest) = std::str::from_utf8(value).ok()?.split_once('\n')?;
        let (id, head) = head.split_once(' ')?;
        let (word, kind) = head.split_once(' ')?;
        check_stored_type(channel, kind).ok()?;
        let (retry_ms, options, payload) = parse_options(word, rest)?;
        let mut event = Self::encode(None, EventId::ZERO, channel.clone(), retry_ms, kind, payload);
        event.options = options;
        event.options.get_or_insert_default().retain = Some(Retain::Keep(key.into()));
        Some((EventId::parse(id)?, event))
    }

    /// `head`: retry and options, the topic of a broadcast, the type.
    fn from_parts(
        id: Option<EventId>,
        predecessor: EventId,
        user: Option<Channel>,
        head: &str,
        rest: &str,
    ) -> Option<Self> {
        let (word, head) = head.split_once(' ')?;
        let (channel, kind) = match user {
            Some(channel) => (channel, head),
            None => {
                let (topic, kind) = head.split_once(' ').filter(|(topic, _)| is_name(topic))?;
                (Channel::Broadcast(topic.into()), kind)
            }
        };
        check_stored_type(&channel, kind).ok()?;
        let (retry_ms, options, payload) = parse_options(word, rest)?;
        let event = Self::encode(id, predecessor, channel, retry_ms, kind, payload);
        Some(Self { options, ..event })
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
        let event = Self::encode(None, EventId::ZERO, channel, retry_ms, kind, envelope.payload);
        Self { options: envelope.options.clone(), ..event }
    }

    /// The same event with options.
    pub fn with_options(self, options: Option<Box<EventOptions>>) -> Self {
        Self { options, ..self }
    }

    /// The same event for a stream that has come as far as its predecessor, whatever the stream
    /// got of its channel.
    pub fn without_predecessor(&self) -> Self {
        Self { predecessor: EventId::ZERO, ..self.clone() }
    }

    /// The same event without an id, as a retained value.
    pub fn without_id(&self) -> Self {
        let retry_ms = frame::retry_of(&self.frame);
        let event = Self::encode(
            None,
            EventId::ZERO,
            self.channel.clone(),
            retry_ms,
            self.kind(),
            &self.data(),
        );
        Self { options: self.options.clone(), ..event }
    }

    /// Whether it is delivered live only, and dropped first.
    pub fn is_ephemeral(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.is_ephemeral)
    }

    /// What it does to the retained values of its channel.
    pub fn retain(&self) -> Option<&Retain> {
        self.options.as_ref()?.retain.as_ref()
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
        Self { id, predecessor, channel, frame, chunk, options: None, kind: name }
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
