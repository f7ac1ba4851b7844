//! What the link tells the recorder, in the order of the link. Bounded in bytes: the link never waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

/// Bytes that may wait for the recorder.
const LIMIT_BYTES: usize = 64 << 20;

/// A message of a publisher's channel.
#[derive(Debug)]
pub struct PlainMessage {
    /// Which of the recorder's subscriptions brought it; what an older one brought counts for nothing.
    pub subscription: u64,
    /// Its channel, without the prefix.
    pub channel: Vec<u8>,
    /// Its bytes.
    pub message: Vec<u8>,
}

/// One piece of news.
#[derive(Debug)]
pub enum RecorderInput {
    /// A plain message.
    Plain(PlainMessage),
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

fn cost(note: &RecorderInput) -> usize {
    match note {
        RecorderInput::Plain(plain) => plain.channel.len() + plain.message.len() + 128,
        _ => 0,
    }
}

/// The link's end.
pub struct InboxSender {
    sender: mpsc::UnboundedSender<RecorderInput>,
    waiting_bytes: Arc<AtomicUsize>,
    subscription: Arc<AtomicU64>,
    overrun: AtomicBool,
}

/// The recorder's end.
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<RecorderInput>,
    waiting_bytes: Arc<AtomicUsize>,
    subscription: Arc<AtomicU64>,
}

/// Both ends.
pub fn channel() -> (InboxSender, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let subscription = Arc::new(AtomicU64::new(0));
    let inbox = InboxSender {
        sender,
        waiting_bytes: waiting_bytes.clone(),
        subscription: subscription.clone(),
        overrun: AtomicBool::new(false),
    };
    (inbox, Inbox { receiver, waiting_bytes, subscription })
}

impl InboxSender {
    /// Sends a message of a publisher's channel.
    pub fn plain(&self, channel: Vec<u8>, message: Vec<u8>) {
        let subscription = self.subscription.load(Ordering::Relaxed);
        self.send(RecorderInput::Plain(PlainMessage { subscription, channel, message }));
    }

    /// Sends a note. Where too much waits, messages are dropped and the recorder is told as if the link had broken.
    pub fn send(&self, note: RecorderInput) {
        let bytes = cost(&note);
        if bytes > 0 && self.waiting_bytes.load(Ordering::Relaxed) + bytes > LIMIT_BYTES {
            if !self.overrun.swap(true, Ordering::Relaxed) {
                let _ = self.sender.send(RecorderInput::Link(false));
                let _ = self.sender.send(RecorderInput::Link(true));
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

impl Inbox {
    /// The number of the current subscription.
    pub fn subscription(&self) -> u64 {
        self.subscription.load(Ordering::Relaxed)
    }

    /// A new subscription begins.
    pub fn next_subscription(&self) {
        self.subscription.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for inbox; ends never while the link lives.
    pub async fn receive(&mut self, into: &mut Vec<RecorderInput>) -> usize {
        let n = self.receiver.recv_many(into, 1024).await;
        self.count(into);
        n
    }

    /// Takes what is there.
    pub fn receive_ready(&mut self, into: &mut Vec<RecorderInput>) {
        while let Ok(note) = self.receiver.try_recv() {
            into.push(note);
        }
        self.count(into);
    }

    fn count(&self, taken: &[RecorderInput]) {
        self.waiting_bytes.fetch_sub(taken.iter().map(cost).sum(), Ordering::Relaxed);
    }
}
