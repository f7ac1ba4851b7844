//! The mailboxes between the link and the workers: one for each worker, bounded in bytes. The link
//! never waits.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};

use super::summary::{WorkerSummary, WorkerUsers};
use crate::{
    core::{
        channel::Channel,
        event::Event,
        id::{EventId, StreamPosition},
        part::ServerIndex,
        transport::Transport,
    },
    spans::relay::RelaySpan,
};

/// Maximum number of bytes that wait for one worker.
const LIMIT_BYTES: usize = 64 << 20;

/// A message to a worker.
#[derive(Debug)]
pub enum Message {
    /// An event for the connections of its channel, with the span of a sampled one.
    Event(ServerIndex, Arc<Event>, Option<Arc<RelaySpan>>),
    /// Plain messages before this position of a server may be missing.
    Unrecorded(ServerIndex, EventId),
    /// A new epoch began on a server: what is read from it must catch up.
    NewEpoch(ServerIndex),
    /// Everything up to this id of a server has arrived.
    Watermark(ServerIndex, EventId),
    /// The link to a server was lost: what is read from it must catch up again.
    LinkDown(ServerIndex),
    /// The link to a server is up: the connections may catch up.
    LinkUp(ServerIndex),
    /// The channels of these users moved to another server: their connections must catch up there.
    UsersMoved(Arc<[Arc<str>]>),
    /// The broadcasts moved to another server: all connections must catch up there.
    BroadcastsMoved,
    /// A linked server has got slots: what is detached may be read from it now.
    SlotsArrived,
    /// The mailbox overflowed, and events are being dropped: all connections must catch up again.
    EventsDropped,
    /// No more events are being dropped: the connections may catch up.
    EventsResumed,
    /// A command.
    Command(Command),
}

/// A command for a worker.
#[derive(Debug)]
pub enum Command {
    /// End the streams of a session that have a lower generation.
    TakenOver {
        /// The user of the session.
        user: Arc<str>,
        /// Digest of the ticket.
        digest: Arc<str>,
        /// The generation of the connection that took over.
        generation: u64,
        /// How often the session was taken over.
        times: u64,
    },
    /// End the streams of a user's sessions that were opened up to a time.
    Revoke {
        /// The user.
        user: Arc<str>,
        /// The time, ms since 1970 by the clock of Redis.
        revoked_ms: u64,
    },
    /// List connections, of one user or all.
    List(Option<String>, oneshot::Sender<Vec<ConnectionInfo>>),
    /// List the users who receive a topic.
    UsersOfTopic(Arc<str>, oneshot::Sender<HashSet<Arc<str>>>),
    /// Count the connections, by transport and topic.
    Summarise(oneshot::Sender<WorkerSummary>),
    /// List the users whose ids begin with `prefix`, at most `limit` of them.
    ListUsers {
        /// The start of the ids.
        prefix: Arc<str>,
        /// Maximum number of users in the answer.
        limit: usize,
        /// Where the answer goes.
        reply: oneshot::Sender<WorkerUsers>,
    },
    /// End all streams, evenly over a window.
    Drain {
        /// The window in ms.
        window_ms: u64,
    },
    /// Drop the largest queue, because all queues together are too large.
    Shed,
}

/// One connection of a worker, for operators.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: String,
    /// Its user; `None`: an anonymous client.
    pub user: Option<Arc<str>>,
    /// Its topics.
    pub topics: Vec<String>,
    /// How events are delivered.
    pub transport: Transport,
    /// Time since it was opened.
    pub age_ms: u64,
    /// Bytes queued for it.
    pub queued_bytes: usize,
    /// The last id handed to its socket.
    pub cursor: StreamPosition,
}

/// The users that have connections on a worker. The worker updates the set and the link reads it,
/// so that an event for one user wakes only the workers that can deliver it. A user is added before
/// the clock snapshot of the first catch-up is taken, so no event after it is missed.
#[derive(Clone, Default)]
pub struct LocalUsers(Arc<Mutex<HashSet<Arc<str>>>>);

impl LocalUsers {
    /// Adds a user with its first connection.
    pub fn add(&self, user: Arc<str>) {
        self.lock().insert(user);
    }

    /// Removes a user with its last connection.
    pub fn remove(&self, user: &str) {
        self.lock().remove(user);
    }

    fn includes(&self, channel: &Channel) -> bool {
        match channel {
            Channel::User(user) => self.has(user),
            Channel::Broadcast(_) => true,
        }
    }

    fn has(&self, user: &str) -> bool {
        self.lock().contains(user)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.0.lock()
    }
}

/// The sending end of a worker's mailbox.
pub struct Mailbox {
    sender: mpsc::UnboundedSender<Message>,
    waiting_bytes: Arc<AtomicUsize>,
    has_overflowed: AtomicBool,
    /// Size of the largest queue in that worker, for shedding.
    largest_bytes: Arc<AtomicUsize>,
    local_users: LocalUsers,
}

/// The receiving end.
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<Message>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Where the worker stores the size of its largest queue.
    pub largest_bytes: Arc<AtomicUsize>,
    /// The users of this worker.
    pub local_users: LocalUsers,
}

fn cost(message: &Message) -> usize {
    match message {
        Message::Event(_, event, _) => event.frame.len() + 64,
        _ => 64,
    }
}

impl Inbox {
    /// Waits for messages and takes up to `limit` of them; 0: the instance has ended.
    pub async fn receive(&mut self, into: &mut Vec<Message>, limit: usize) -> usize {
        let n = self.receiver.recv_many(into, limit).await;
        let bytes = into.iter().map(cost).sum();
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        n
    }
}

/// The mailboxes of all workers.
#[derive(Default)]
pub struct Mailboxes {
    all: Mutex<Vec<Mailbox>>,
}

impl Mailboxes {
    /// A new worker's mailbox.
    pub fn open(&self) -> Inbox {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let largest_bytes = Arc::new(AtomicUsize::new(0));
        let local_users = LocalUsers::default();
        let mailbox = Mailbox {
            sender,
            waiting_bytes: waiting_bytes.clone(),
            has_overflowed: AtomicBool::new(false),
            largest_bytes: largest_bytes.clone(),
            local_users: local_users.clone(),
        };
        self.lock().push(mailbox);
        Inbox { receiver, waiting_bytes, largest_bytes, local_users }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mailbox>> {
        self.all.lock()
    }

    /// Sends to all workers. If a mailbox overflows, events are dropped; the worker receives one
    /// [`Message::EventsDropped`] in their place, and its connections catch up again.
    pub fn send(&self, mut make: impl FnMut() -> Message) {
        self.lock().retain(|mailbox| mailbox.send(make()));
    }

    /// Sends an event of a server to the workers that may have a stream for it.
    pub fn send_event(
        &self,
        server: ServerIndex,
        event: &Arc<Event>,
        span: Option<Arc<RelaySpan>>,
    ) {
        self.lock().retain(|mailbox| {
            !mailbox.local_users.includes(&event.channel)
                || mailbox.send(Message::Event(server, event.clone(), span.clone()))
        });
    }

    /// Sends a command to the workers that have a connection of a user.
    pub fn send_to_user(&self, user: &str, mut make: impl FnMut() -> Command) {
        self.lock().retain(|mailbox| {
            !mailbox.local_users.has(user) || mailbox.send(Message::Command(make()))
        });
    }

    /// Makes the worker with the largest queue drop it.
    pub fn shed(&self) {
        let all = self.lock();
        if let Some(mailbox) = all.iter().max_by_key(|m| m.largest_bytes.load(Ordering::Relaxed)) {
            mailbox.largest_bytes.store(0, Ordering::Relaxed);
            mailbox.send(Message::Command(Command::Shed));
        }
    }
}

impl Mailbox {
    /// `false`: the worker has ended.
    fn send(&self, message: Message) -> bool {
        let bytes = cost(&message);
        let droppable = matches!(message, Message::Event(..));
        if droppable && self.waiting_bytes.load(Ordering::Relaxed) + bytes > LIMIT_BYTES {
            if !self.has_overflowed.swap(true, Ordering::Relaxed) {
                self.post(Message::EventsDropped, 64);
            }
            return true;
        }
        if self.has_overflowed.swap(false, Ordering::Relaxed) {
            self.post(Message::EventsResumed, 64);
        }
        self.post(message, bytes)
    }

    fn post(&self, message: Message, bytes: usize) -> bool {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sender.send(message).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerIndex = ServerIndex(0);

    #[tokio::test]
    async fn overflowing_mailbox_makes_connections_catch_up() {
        let boxes = Mailboxes::default();
        let mut inbox = boxes.open();
        let channel = Channel::parse("broadcast:a").unwrap();
        let payload = "x".repeat(1 << 20);
        let event =
            Arc::new(Event::new(EventId::ZERO, EventId::ZERO, channel, None, "t", &payload));
        (0..100).for_each(|_| boxes.send_event(SERVER, &event, None));
        let mut got = Vec::new();
        inbox.receive(&mut got, 1000).await;
        assert!(got.len() < 66 && matches!(got.last(), Some(Message::EventsDropped)));
        boxes.send(|| Message::Watermark(SERVER, EventId::ZERO));
        got.clear();
        inbox.receive(&mut got, 1000).await;
        assert!(matches!(got[..], [Message::EventsResumed, Message::Watermark(..)]));
    }

    #[tokio::test]
    async fn event_for_a_user_goes_to_workers_with_that_user() {
        let boxes = Mailboxes::default();
        let mut workers = [boxes.open(), boxes.open()];
        workers[1].local_users.add("42".into());
        let event = |channel| {
            let channel = Channel::parse(channel).unwrap();
            Arc::new(Event::new(EventId::ZERO, EventId::ZERO, channel, None, "t", "x"))
        };
        for channel in ["user:42:events", "user:7:events", "broadcast:a"] {
            boxes.send_event(SERVER, &event(channel), None);
        }
        workers[1].local_users.remove("42");
        boxes.send_event(SERVER, &event("user:42:events"), None);
        boxes.send(|| Message::LinkUp(SERVER));
        let mut counts = Vec::new();
        for worker in &mut workers {
            let mut got = Vec::new();
            counts.push(worker.receive(&mut got, 9).await);
        }
        assert_eq!(counts, [2, 3]);
    }
}
