//! What the link tells the recorder, in the order of the link. Bounded in bytes: the link never waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

/// Bytes that may wait for the recorder.
const LIMIT_BYTES: usize = 64 << 20;
/// A note without its text, rounded up.
const NOTE_BYTES: usize = 128;

/// A message of a publisher's channel.
#[derive(Debug)]
pub struct BareMessage {
    /// Which of the recorder's subscriptions brought it; what an older one brought counts for nothing.
    pub subscription: u64,
    /// Its channel, without the prefix.
    pub channel: Vec<u8>,
    /// Its bytes.
    pub message: Vec<u8>,
}

/// One piece of news.
#[derive(Debug)]
pub enum Note {
    /// A bare message.
    Bare(BareMessage),
    /// A standby's marker.
    Marker(String),
    /// What is recorded, as of a tick.
    Recorded {
        /// The numbering.
        marker: String,
        /// The last number.
        n: u64,
    },
    /// A lease was given back.
    Vacant,
    /// The link is up or down, or too much was waiting.
    Link(bool),
    /// A new epoch.
    Reset,
}

/// What a note counts for, in bytes. All but the state of the link can come from whoever may publish
/// on our channels, as often as they like.
fn cost(note: &Note) -> usize {
    match note {
        Note::Bare(bare) => bare.channel.len() + bare.message.len() + NOTE_BYTES,
        Note::Marker(marker) | Note::Recorded { marker, .. } => marker.len() + NOTE_BYTES,
        Note::Vacant | Note::Reset => NOTE_BYTES,
        Note::Link(_) => 0,
    }
}

/// The link's end.
pub struct Notes {
    sender: mpsc::UnboundedSender<Note>,
    waiting_bytes: Arc<AtomicUsize>,
    subscription: Arc<AtomicU64>,
    overrun: AtomicBool,
}

/// The recorder's end.
pub struct NoteReceiver {
    receiver: mpsc::UnboundedReceiver<Note>,
    waiting_bytes: Arc<AtomicUsize>,
    subscription: Arc<AtomicU64>,
}

/// Both ends.
pub fn notes() -> (Notes, NoteReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let subscription = Arc::new(AtomicU64::new(0));
    let notes = Notes {
        sender,
        waiting_bytes: waiting_bytes.clone(),
        subscription: subscription.clone(),
        overrun: AtomicBool::new(false),
    };
    (notes, NoteReceiver { receiver, waiting_bytes, subscription })
}

impl Notes {
    /// Sends a message of a publisher's channel.
    pub fn bare(&self, channel: Vec<u8>, message: Vec<u8>) {
        let subscription = self.subscription.load(Ordering::Relaxed);
        self.send(Note::Bare(BareMessage { subscription, channel, message }));
    }

    /// Sends a note. Where too much waits, notes are dropped and the recorder is told as if the link had broken.
    pub fn send(&self, note: Note) {
        let bytes = cost(&note);
        if bytes > 0 && self.waiting_bytes.load(Ordering::Relaxed) + bytes > LIMIT_BYTES {
            if !self.overrun.swap(true, Ordering::Relaxed) {
                let _ = self.sender.send(Note::Link(false));
                let _ = self.sender.send(Note::Link(true));
            }
            return;
        }
        if bytes > 0 {
            self.overrun.store(false, Ordering::Relaxed);
        }
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        // The recorder ends with the process.
        let _ = self.sender.send(note);
    }
}

impl NoteReceiver {
    /// The number of the current subscription.
    pub fn subscription(&self) -> u64 {
        self.subscription.load(Ordering::Relaxed)
    }

    /// A new subscription begins.
    pub fn next_subscription(&self) {
        self.subscription.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for notes; ends never while the link lives.
    pub async fn receive(&mut self, into: &mut Vec<Note>) -> usize {
        let n = self.receiver.recv_many(into, 1024).await;
        self.count(into);
        n
    }

    /// Takes what is there.
    pub fn receive_ready(&mut self, into: &mut Vec<Note>) {
        while let Ok(note) = self.receiver.try_recv() {
            into.push(note);
        }
        self.count(into);
    }

    fn count(&self, taken: &[Note]) {
        self.waiting_bytes.fetch_sub(taken.iter().map(cost).sum(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_every_kind_are_bounded() {
        let kinds: [fn() -> Note; 4] = [
            || Note::Marker("m".repeat(50)),
            || Note::Recorded { marker: "m".repeat(50), n: 1 },
            || Note::Vacant,
            || Note::Reset,
        ];
        for (kind, make) in kinds.into_iter().enumerate() {
            let (sender, mut receiver) = notes();
            let count = LIMIT_BYTES / NOTE_BYTES + 10;
            (0..count).for_each(|_| sender.send(make()));
            let mut taken = Vec::new();
            receiver.receive_ready(&mut taken);
            assert!(taken.len() < count, "{kind}");
            assert!(matches!(taken[taken.len() - 2..], [Note::Link(false), Note::Link(true)]), "{kind}");
            assert_eq!(receiver.waiting_bytes.load(Ordering::Relaxed), 0, "{kind}");
        }
    }
}
