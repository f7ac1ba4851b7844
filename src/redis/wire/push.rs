//! Reads pushes, which are lists of strings. Nothing is copied: on the way of each live message.

use super::frame::{length, line};

/// What comes without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push<'a> {
    /// A message of a shard channel (`SPUBLISH`).
    Live {
        /// Name of the channel.
        channel: &'a [u8],
        /// Message as published.
        message: &'a [u8],
    },
    /// A message of another channel (`PUBLISH`).
    Plain {
        /// Name of the channel.
        channel: &'a [u8],
        /// Message as published.
        message: &'a [u8],
    },
    /// The server has ended the subscription of a shard channel: its slot has moved to another
    /// server.
    Ended {
        /// Name of the channel.
        channel: &'a [u8],
    },
}

/// Commands that subscribe or unsubscribe, and their confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscribing {
    Subscribe,
    Unsubscribe,
    PSubscribe,
    PUnsubscribe,
    SSubscribe,
    SUnsubscribe,
}

impl Subscribing {
    const ALL: [Self; 6] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::PSubscribe,
        Self::PUnsubscribe,
        Self::SSubscribe,
        Self::SUnsubscribe,
    ];

    /// Name of the command and of the push that confirms it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::PSubscribe => "psubscribe",
            Self::PUnsubscribe => "punsubscribe",
            Self::SSubscribe => "ssubscribe",
            Self::SUnsubscribe => "sunsubscribe",
        }
    }
}

/// What a push is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PushFrame<'a> {
    Message(Push<'a>),
    /// A subscription, or its end, with the channel.
    Confirmation(Subscribing, &'a [u8]),
    /// Something that was not asked for, for example of a later version.
    Unknown,
}

/// The strings of a push. It ends at the first value of another type.
struct Strings<'a>(&'a [u8]);

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(b"$")?;
        let header = line(rest).ok().flatten()?;
        let begin = header.len() + 2;
        let end = begin + length(header)?;
        let string = rest.get(begin..end)?;
        self.0 = rest.get(end + 2..)?;
        Some(string)
    }
}

/// Reads a complete frame that begins with `>`.
pub(super) fn read(frame: &[u8]) -> PushFrame<'_> {
    fn channel_and_message<'a>(strings: &mut Strings<'a>) -> Option<(&'a [u8], &'a [u8])> {
        Some((strings.next()?, strings.next()?))
    }
    let header = line(frame).ok().flatten().map_or(frame.len(), |header| header.len() + 2);
    let mut strings = Strings(&frame[header..]);
    let kind = strings.next().unwrap_or_default();
    let push = match kind {
        b"smessage" => channel_and_message(&mut strings)
            .map(|(channel, message)| Push::Live { channel, message }),
        b"message" => channel_and_message(&mut strings)
            .map(|(channel, message)| Push::Plain { channel, message }),
        b"pmessage" => strings
            .next()
            .and_then(|_pattern| channel_and_message(&mut strings))
            .map(|(channel, message)| Push::Plain { channel, message }),
        _ => {
            let kind = Subscribing::ALL.into_iter().find(|known| known.name().as_bytes() == kind);
            return match (kind, strings.next()) {
                (Some(kind), Some(channel)) => PushFrame::Confirmation(kind, channel),
                _ => PushFrame::Unknown,
            };
        }
    };
    push.map_or(PushFrame::Unknown, PushFrame::Message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_by_kind() {
        let live = b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$3\r\na\r\n\r\n";
        let expected = Push::Live { channel: b"c", message: b"a\r\n" };
        assert_eq!(read(live), PushFrame::Message(expected));
        let expected = PushFrame::Message(Push::Plain { channel: b"c", message: b"" });
        assert_eq!(read(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n"), expected);
        assert_eq!(read(b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$0\r\n\r\n"), expected);
    }

    #[test]
    fn confirmations_name_their_channel() {
        for kind in Subscribing::ALL {
            let name = kind.name();
            let frame = format!(">3\r\n${}\r\n{name}\r\n$1\r\nc\r\n:7\r\n", name.len());
            assert_eq!(read(frame.as_bytes()), PushFrame::Confirmation(kind, b"c"));
        }
    }

    #[test]
    fn other_pushes_are_unknown() {
        for frame in [
            ">0\r\n",
            ">1\r\n$8\r\nsmessage\r\n",
            ">2\r\n$8\r\nsmessage\r\n$1\r\nc\r\n",
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            ">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n",
            ">1\r\n*1\r\n:1\r\n",
        ] {
            assert_eq!(read(frame.as_bytes()), PushFrame::Unknown, "{frame:?}");
        }
    }
}
