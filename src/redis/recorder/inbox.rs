//! The recorder's inbox: messages and notices from the link, in the order of the link. It is
//! bounded in bytes, and the link never waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use crate::core::part::ServerIndex;

/// Maximum number of bytes in the inbox.
const LIMIT_BYTES: usize = 64 << 20;
/// Memory of an input in addition to its text.
const INPUT_BYTES: usize = 128;

/// A message of a publisher's channel.
#[derive(Debug)]
pub struct PlainMessage {
    /// The server of the link that received it.
    pub server: ServerIndex,
    /// Number of the subscription that received it; messages of an older one are ignored.
    pub subscription: u64,
    /// Channel of the message, without the prefix.
    pub channel: Vec<u8>,
    /// Message as received.
    pub message: Vec<u8>,
}

/// A message or notice for the recorder.
#[derive(Debug)]
pub enum RecorderInput {
    /// A plain message.
    Plain(PlainMessage),
    /// A standby's marker.
    Marker(String),
    /// A lease was released.
    Vacant,
    /// The link to the server of the broadcasts is up or down. A full inbox also reports a break of
    /// the link.
    Link(ServerIndex, bool),
    /// A new epoch.
    Reset,
}

/// Estimated memory of an input in the inbox.
fn cost(input: &RecorderInput) -> usize {
    INPUT_BYTES
        + match input {
            RecorderInput::Plain(plain) => plain.channel.len() + plain.message.len(),
            RecorderInput::Marker(marker) => marker.len(),
            RecorderInput::Vacant | RecorderInput::Link(..) | RecorderInput::Reset => 0,
        }
}

/// The sending side, for the link to one server.
#[derive(Clone)]
pub struct InboxSender {
    server: ServerIndex,
    sender: mpsc::UnboundedSender<RecorderInput>,
    waiting_bytes: Arc<AtomicUsize>,
    subscription: Arc<AtomicU64>,
    overrun: Arc<AtomicBool>,
}

/// The receiving side, for the recorder.
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<RecorderInput>,
    waiting_bytes: Arc<AtomicUsize>,
    subscription: Arc<AtomicU64>,
}

/// Creates both sides.
pub fn channel() -> (InboxSender, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let subscription = Arc::new(AtomicU64::new(0));
    let inbox = InboxSender {
        server: ServerIndex::default(),
        sender,
        waiting_bytes: waiting_bytes.clone(),
        subscription: subscription.clone(),
        overrun: Arc::default(),
    };
    (inbox, Inbox { receiver, waiting_bytes, subscription })
}

impl InboxSender {
    /// The same inbox, for the link to another server.
    pub fn for_server(&self, server: ServerIndex) -> Self {
        Self { server, ..self.clone() }
    }

    /// Reports that the link is up or down.
    pub fn link_changed(&self, up: bool) {
        self.send(RecorderInput::Link(self.server, up));
    }

    /// Sends a message of a publisher's channel.
    pub fn plain(&self, channel: Vec<u8>, message: Vec<u8>) {
        let subscription = self.subscription.load(Ordering::Relaxed);
        self.send(RecorderInput::Plain(PlainMessage {
            server: self.server,
            subscription,
            channel,
            message,
        }));
    }

    /// Sends an input. If the inbox is full, the input is dropped, and the recorder is notified
    /// once of a break of the link, so that it no longer assumes that it has received everything.
    pub fn send(&self, input: RecorderInput) {
        let is_full = self.waiting_bytes.load(Ordering::Relaxed) + cost(&input) > LIMIT_BYTES;
        match input {
            // The link's own state is never dropped. Its back-off limits how often it changes.
            RecorderInput::Link(..) => self.enqueue(input),
            // Only a hint: the recorder also checks the lease regularly.
            RecorderInput::Vacant if is_full => {}
            _ if is_full => {
                if !self.overrun.swap(true, Ordering::Relaxed) {
                    self.enqueue(RecorderInput::Link(self.server, false));
                    self.enqueue(RecorderInput::Link(self.server, true));
                }
            }
            _ => {
                self.overrun.store(false, Ordering::Relaxed);
                self.enqueue(input);
            }
        }
    }

    fn enqueue(&self, input: RecorderInput) {
        self.waiting_bytes.fetch_add(cost(&input), Ordering::Relaxed);
        // The receiver lives as long as the process, except in modes without a recorder.
        if let Err(unsent) = self.sender.send(input) {
            self.waiting_bytes.fetch_sub(cost(&unsent.0), Ordering::Relaxed);
        }
    }
}

impl Inbox {
    /// Number of the current subscription.
    pub fn subscription(&self) -> u64 {
        self.subscription.load(Ordering::Relaxed)
    }

    /// Starts a new subscription.
    pub fn next_subscription(&self) {
        self.subscription.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for inputs; returns 0 only after the sender was dropped.
    pub async fn receive(&mut self, into: &mut Vec<RecorderInput>) -> usize {
        let n = self.receiver.recv_many(into, 1024).await;
        self.count(into);
        n
    }

    /// Takes the inputs that are available now.
    pub fn receive_ready(&mut self, into: &mut Vec<RecorderInput>) {
        while let Ok(input) = self.receiver.try_recv() {
            into.push(input);
        }
        self.count(into);
    }

    fn count(&self, taken: &[RecorderInput]) {
        self.waiting_bytes.fetch_sub(taken.iter().map(cost).sum(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends inputs until the inbox is full, and returns the number of accepted ones.
    fn fill(input: impl Fn() -> RecorderInput) -> usize {
        let (sender, mut inbox) = channel();
        for _ in 0..LIMIT_BYTES / INPUT_BYTES + 1000 {
            sender.send(input());
        }
        let mut all = Vec::new();
        inbox.receive_ready(&mut all);
        assert_eq!(inbox.waiting_bytes.load(Ordering::Relaxed), 0, "everything was counted");
        all.len()
    }

    #[test]
    fn inputs_of_every_kind_are_bounded() {
        let limit = LIMIT_BYTES / INPUT_BYTES;
        assert!(fill(|| RecorderInput::Vacant) <= limit);
        // Two more inputs report the overrun.
        assert!(fill(|| RecorderInput::Reset) <= limit + 2);
        assert!(fill(|| RecorderInput::Marker("m".repeat(64))) <= LIMIT_BYTES / 192 + 2);
    }

    #[test]
    fn full_inbox_reports_one_break_of_the_link() {
        let (sender, mut inbox) = channel();
        for _ in 0..100 {
            sender.plain(b"broadcast:a".to_vec(), vec![0; 1 << 20]);
        }
        let mut all = Vec::new();
        inbox.receive_ready(&mut all);
        let links: Vec<_> = all.iter().filter(|i| matches!(i, RecorderInput::Link(..))).collect();
        assert!(matches!(links[..], [RecorderInput::Link(_, false), RecorderInput::Link(_, true)]));
    }
}
