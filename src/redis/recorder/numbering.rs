//! The numbering of plain messages. Pure.
//!
//! Invariant: `queue` contains, in order, every message and marker after the last one that was
//! written or is known to be recorded, each with its position.

use std::collections::VecDeque;

/// Maximum number of bytes that a standby or a writer keeps.
const LIMIT_BYTES: usize = 64 << 20;

/// The position of a message: the n-th after a marker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPosition {
    /// The marker from which the messages are counted.
    pub marker: String,
    /// The number of the message after the marker.
    pub n: u64,
}

/// An entry that must be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// A message.
    Message {
        /// Channel of the message.
        channel: Vec<u8>,
        /// Message as received.
        message: Vec<u8>,
    },
    /// The start of the numbering at a standby's marker.
    Marker {
        /// The position of the previous message.
        after: RecordPosition,
    },
}

#[derive(Debug, Default)]
enum Counting {
    /// Messages are kept, and get their positions when the numbering starts.
    #[default]
    Ahead,
    /// Messages are ignored until a marker arrives.
    Waiting,
    /// The position of the last message.
    At(RecordPosition),
    /// The link broke: no message follows.
    Cut,
}

/// The messages that are not recorded yet, with their positions.
#[derive(Debug, Default)]
pub struct Numbering {
    counting: Counting,
    queue: VecDeque<(RecordPosition, Work)>,
    bytes: usize,
}

fn cost(work: &Work) -> usize {
    match work {
        Work::Message { channel, message } => channel.len() + message.len() + 128,
        Work::Marker { after } => 128 + 2 * after.marker.len(),
    }
}

impl Numbering {
    /// Adds a message; `false` if the limit is exceeded.
    pub fn push(&mut self, channel: Vec<u8>, message: Vec<u8>) -> bool {
        let position = match &mut self.counting {
            Counting::At(position) => {
                position.n += 1;
                position.clone()
            }
            Counting::Ahead => RecordPosition::default(),
            Counting::Waiting | Counting::Cut => return true,
        };
        self.add(position, Work::Message { channel, message });
        self.bytes <= LIMIT_BYTES
    }

    fn add(&mut self, position: RecordPosition, work: Work) {
        self.bytes += cost(&work);
        self.queue.push_back((position, work));
    }

    /// Numbers messages after `position`, including those that are kept already.
    pub fn start(&mut self, position: RecordPosition) {
        let mut at = position;
        for (kept, _) in &mut self.queue {
            at.n += 1;
            *kept = at.clone();
        }
        self.counting = Counting::At(at);
    }

    /// Ignores messages until this standby's own marker arrives.
    pub fn wait(&mut self) {
        *self = Self { counting: Counting::Waiting, ..Self::default() };
    }

    /// Continues the numbering from a standby's marker; `false` if the limit is exceeded.
    pub fn mark(&mut self, marker: String) -> bool {
        if let Counting::At(position) = &mut self.counting {
            let after = std::mem::replace(position, RecordPosition { marker, n: 0 });
            let position = position.clone();
            self.add(position, Work::Marker { after });
        }
        self.bytes <= LIMIT_BYTES
    }

    /// Restarts the numbering at the standby's own marker. Messages kept under an earlier marker
    /// have no position in this numbering, and are dropped.
    pub fn restart(&mut self, marker: String) {
        *self = Self { counting: Counting::At(RecordPosition { marker, n: 0 }), ..Self::default() };
    }

    /// Ends the numbering because the link broke.
    pub fn cut(&mut self) {
        self.counting = Counting::Cut;
    }

    /// Drops the messages up to a recorded position.
    pub fn recorded(&mut self, upto: &RecordPosition) {
        while self
            .queue
            .front()
            .is_some_and(|(position, _)| position.marker == upto.marker && position.n <= upto.n)
        {
            self.written();
        }
    }

    /// Continues after the recorded position; `false` if it is not in this numbering.
    pub fn resume_after(&mut self, position: &RecordPosition) -> bool {
        let known = matches!(
            &self.counting,
            Counting::At(at) if at.marker == position.marker && at.n >= position.n
        );
        if known {
            self.recorded(position);
        }
        known
    }

    /// Whether an entry must be written.
    pub fn has_unwritten(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Number of entries that must be written.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The next entries to write.
    pub fn unwritten(&self, limit: usize) -> impl Iterator<Item = &(RecordPosition, Work)> {
        self.queue.iter().take(limit)
    }

    /// The channel of the first entry, if that is a message.
    pub fn first_channel(&self) -> Option<&[u8]> {
        match self.queue.front() {
            Some((_, Work::Message { channel, .. })) => Some(channel),
            _ => None,
        }
    }

    /// Removes the first entry, which was written.
    pub fn written(&mut self) {
        if let Some((_, work)) = self.queue.pop_front() {
            self.bytes -= cost(&work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(marker: &str, n: u64) -> RecordPosition {
        RecordPosition { marker: marker.into(), n }
    }

    fn push(numbering: &mut Numbering, text: &str) {
        assert!(numbering.push(b"broadcast:a".to_vec(), text.into()));
    }

    fn shown(numbering: &Numbering) -> Vec<String> {
        let text = |work: &Work| match work {
            Work::Message { message, .. } => String::from_utf8(message.clone()).unwrap(),
            Work::Marker { after } => format!("marker after {}{}", after.marker, after.n),
        };
        numbering.unwritten(99).map(|(p, w)| format!("{}{} {}", p.marker, p.n, text(w))).collect()
    }

    #[test]
    fn new_writer_counts_from_its_subscription() {
        let mut n = Numbering::default();
        push(&mut n, "a");
        n.start(position("T", 0));
        push(&mut n, "b");
        assert_eq!(shown(&n), ["T1 a", "T2 b"]);
    }

    #[test]
    fn writer_and_standby_number_alike_after_the_marker() {
        let (mut writer, mut standby) = (Numbering::default(), Numbering::default());
        writer.start(position("T", 0));
        standby.wait();
        for text in ["a", "b"] {
            push(&mut writer, text);
            push(&mut standby, text);
        }
        writer.mark("S".into());
        standby.start(position("S", 0));
        for text in ["c", "d"] {
            push(&mut writer, text);
            push(&mut standby, text);
        }
        assert_eq!(shown(&writer), ["T1 a", "T2 b", "S0 marker after T2", "S1 c", "S2 d"]);
        assert_eq!(shown(&standby), ["S1 c", "S2 d"]);
    }

    #[test]
    fn standby_resumes_only_after_a_known_position() {
        let synced = || {
            let mut n = Numbering::default();
            n.wait();
            n.start(position("S", 0));
            ["a", "b", "c"].iter().for_each(|t| push(&mut n, t));
            n
        };
        let mut n = synced();
        n.recorded(&position("S", 1));
        assert!(n.resume_after(&position("S", 2)));
        assert_eq!(shown(&n), ["S3 c"]);
        assert!(!synced().resume_after(&position("T", 2)), "the writer never reached the marker");
        assert!(
            !synced().resume_after(&position("S", 4)),
            "the writer recorded more than arrived here"
        );
        let mut waiting = Numbering::default();
        waiting.wait();
        assert!(!waiting.resume_after(&position("S", 0)));
    }

    #[test]
    fn link_break_ends_the_numbering() {
        let mut n = Numbering::default();
        n.start(position("T", 0));
        push(&mut n, "a");
        n.cut();
        push(&mut n, "b");
        assert_eq!(shown(&n), ["T1 a"]);
    }

    #[test]
    fn kept_messages_are_bounded() {
        let mut n = Numbering::default();
        n.start(position("T", 0));
        let big = vec![0; 1 << 20];
        assert!((0..100).any(|_| !n.push(b"broadcast:a".to_vec(), big.clone())));
    }

    #[test]
    fn markers_alone_are_bounded() {
        let mut n = Numbering::default();
        n.start(position("T", 0));
        assert!((0..LIMIT_BYTES / 128 + 2).any(|_| !n.mark("m".into())));
    }

    #[test]
    fn second_marker_drops_what_the_first_numbered() {
        let mut n = Numbering::default();
        n.restart("S".into());
        push(&mut n, "a");
        n.restart("U".into());
        push(&mut n, "b");
        assert_eq!(shown(&n), ["U1 b"]);
        assert!(!n.resume_after(&position("S", 1)));
        assert!(n.resume_after(&position("U", 0)));
    }
}
