//! The numbering of plain messages. Pure.
//!
//! Invariant: `queue` contains, in order, every message and marker that was not written and is not
//! known to be recorded, each with its position. On a single server they are written in this order.
//! On a cluster, where each server has its own order, any of them may be written first.

use std::collections::BTreeMap;

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
    /// The link broke: no message follows the one at this position, if it has one.
    Cut(Option<RecordPosition>),
}

/// The messages that are not recorded yet, with their positions.
#[derive(Debug, Default)]
pub struct Numbering {
    counting: Counting,
    /// By their numbers in the order of arrival.
    queue: BTreeMap<u64, (RecordPosition, Work)>,
    /// The number of the next one.
    next: u64,
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
            Counting::Waiting | Counting::Cut(_) => return true,
        };
        self.add(position, Work::Message { channel, message });
        self.is_within_limit()
    }

    /// Whether the kept bytes are within the limit.
    pub fn is_within_limit(&self) -> bool {
        self.bytes <= LIMIT_BYTES
    }

    fn add(&mut self, position: RecordPosition, work: Work) {
        self.bytes += cost(&work);
        self.queue.insert(self.next, (position, work));
        self.next += 1;
    }

    /// Numbers messages after `position`, including those that are kept already.
    pub fn start(&mut self, position: RecordPosition) {
        let mut at = position;
        for (kept, _) in self.queue.values_mut() {
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
        self.is_within_limit()
    }

    /// Restarts the numbering at the standby's own marker. Messages kept under an earlier marker
    /// have no position in this numbering, and are dropped.
    pub fn restart(&mut self, marker: String) {
        *self = Self { counting: Counting::At(RecordPosition { marker, n: 0 }), ..Self::default() };
    }

    /// Ends the numbering because the link broke.
    pub fn cut(&mut self) {
        let last = match std::mem::take(&mut self.counting) {
            Counting::At(position) => Some(position),
            Counting::Cut(position) => position,
            Counting::Ahead | Counting::Waiting => None,
        };
        self.counting = Counting::Cut(last);
    }

    /// Drops the messages up to a recorded position.
    pub fn recorded(&mut self, upto: &RecordPosition) {
        while self.queue.first_key_value().is_some_and(|(_, (position, _))| {
            position.marker == upto.marker && position.n <= upto.n
        }) {
            self.written();
        }
    }

    /// Whether this numbering contains the position.
    pub fn has_reached(&self, position: &RecordPosition) -> bool {
        matches!(
            &self.counting,
            Counting::At(at) if at.marker == position.marker && at.n >= position.n
        )
    }

    /// Whether messages are counted from this marker.
    pub fn starts_at(&self, marker: &str) -> bool {
        matches!(&self.counting, Counting::At(at) if at.marker == marker)
    }

    /// Continues after the recorded position; `false` if it is not in this numbering.
    pub fn resume_after(&mut self, position: &RecordPosition) -> bool {
        let known = self.has_reached(position);
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
        self.queue.values().take(limit)
    }

    /// The channel of the first entry, if that is a message.
    pub fn first_channel(&self) -> Option<&[u8]> {
        match self.queue.first_key_value() {
            Some((_, (_, Work::Message { channel, .. }))) => Some(channel),
            _ => None,
        }
    }

    /// Removes the first entry, which was written.
    pub fn written(&mut self) {
        if let Some((_, (_, work))) = self.queue.pop_first() {
            self.bytes -= cost(&work);
        }
    }

    /// The entries from this number on, with their numbers in the order of arrival.
    pub fn entries_from(
        &self,
        number: u64,
    ) -> impl Iterator<Item = (u64, &(RecordPosition, Work))> {
        self.queue.range(number..).map(|(number, entry)| (*number, entry))
    }

    /// The entry with this number, if it must still be written.
    pub fn entry(&self, number: u64) -> Option<&(RecordPosition, Work)> {
        self.queue.get(&number)
    }

    /// Removes an entry that was written, in any order.
    pub fn finish(&mut self, number: u64) {
        if let Some((_, work)) = self.queue.remove(&number) {
            self.bytes -= cost(&work);
        }
    }

    /// Removes the markers before the first message: on a cluster they need no write of their own.
    pub fn finish_markers(&mut self) {
        while let Some((_, (_, Work::Marker { .. }))) = self.queue.first_key_value() {
            self.written();
        }
    }

    /// The position up to which everything was written. `None`: there is no numbering.
    pub fn written_upto(&self) -> Option<RecordPosition> {
        if let Some((_, (first, _))) = self.queue.first_key_value() {
            // A marker is the first of its numbering.
            let n = first.n.checked_sub(1)?;
            return Some(RecordPosition { marker: first.marker.clone(), n });
        }
        match &self.counting {
            Counting::At(position) | Counting::Cut(Some(position)) => Some(position.clone()),
            Counting::Ahead | Counting::Waiting | Counting::Cut(None) => None,
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
    fn progress_stops_before_the_first_unwritten_message() {
        let mut n = Numbering::default();
        assert_eq!(n.written_upto(), None);
        n.start(position("T", 0));
        assert_eq!(n.written_upto(), Some(position("T", 0)));
        ["a", "b", "c"].iter().for_each(|t| push(&mut n, t));
        n.mark("S".into());
        push(&mut n, "d");
        n.finish(1);
        n.finish(2);
        assert_eq!(n.written_upto(), Some(position("T", 0)), "a is not written");
        assert!(n.entry(1).is_none() && n.entry(0).is_some());
        n.finish(0);
        n.finish_markers();
        assert_eq!(n.written_upto(), Some(position("S", 0)), "a marker needs no write");
        n.finish(4);
        assert_eq!(n.written_upto(), Some(position("S", 1)));
        assert_eq!((n.bytes, n.len()), (0, 0));
        n.cut();
        assert_eq!(n.written_upto(), Some(position("S", 1)), "the last one before the break");
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
