//! Handles the messages of the link: decodes each once, encodes it once, and passes it on. This
//! code runs in the reading task of the link and never awaits.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};
use tracing::Span;

use super::{
    key_names::KeyNames,
    link_context::LinkContext,
    recorder::inbox::{InboxSender, RecorderInput},
    rejected::Rejected,
};
use crate::log_limit::LogLimit;
use crate::{
    core::{
        channel::Channel,
        envelope::{self, Rejection},
        event::Event,
        id::EventId,
        system::GapReason,
    },
    settings::PlainPublish,
    state::mailbox::{Command, Message},
};

/// Minimum time between log lines of one kind, ms.
const LOG_INTERVAL_MS: u64 = 10_000;
/// Maximum length of a marker: a UUID, a hyphen and a 64-bit number have 57 bytes; a fencing token
/// is shorter.
const MAX_MARKER_BYTES: usize = 64;
/// Maximum length of a control message: a user or a digest, and two numbers.
const MAX_CONTROL_BYTES: usize = 1024;

/// Decodes what arrives on the link and passes it on.
pub struct Inbound {
    context: LinkContext,
    keys: Arc<KeyNames>,
    /// Prefix of the live channels, built once rather than for each message.
    live_prefix: String,
    inbox: InboxSender,
    rejected: mpsc::Sender<Rejected>,
    /// Notifies the supervisor that the link has ended.
    pub disconnected: Notify,
    malformed_log: LogLimit,
    reset_log: LogLimit,
    unrecorded_log: LogLimit,
    /// Number of the current link; pushes of an older one are ignored.
    generation: AtomicU64,
    /// The span of the current link. The reading task never enters it, because that would cost
    /// time for each message; it is the parent of the few lines that the task logs.
    span: ArcSwap<Span>,
}

impl Inbound {
    /// Creates the inbound side, which passes messages to the workers, the replay cache and the
    /// recorder.
    pub fn new(
        context: LinkContext,
        keys: Arc<KeyNames>,
        inbox: InboxSender,
        rejected: mpsc::Sender<Rejected>,
    ) -> Self {
        let live_prefix = keys.live("");
        Self {
            context,
            keys,
            live_prefix,
            inbox,
            rejected,
            disconnected: Notify::new(),
            malformed_log: LogLimit::new(LOG_INTERVAL_MS),
            reset_log: LogLimit::new(LOG_INTERVAL_MS),
            unrecorded_log: LogLimit::new(LOG_INTERVAL_MS),
            generation: AtomicU64::new(0),
            span: ArcSwap::from_pointee(Span::none()),
        }
    }

    /// Invalidates the previous link, and returns the number of the next one.
    pub fn next_link(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sets the span of log lines about the current link.
    pub fn set_span(&self, span: Span) {
        self.span.store(span.into());
    }

    /// Notifies the recorder that the link is up or down.
    pub fn link_changed(&self, up: bool) {
        self.inbox.send(RecorderInput::Link(up));
    }

    /// Handles one push of the link with this number.
    pub fn push(&self, generation: u64, info: PushInfo) {
        if generation != self.generation.load(Ordering::Relaxed) {
            return;
        }
        let mut data = info.data.into_iter();
        if info.kind == PushKind::PMessage {
            data.next();
        }
        match info.kind {
            PushKind::Message | PushKind::PMessage => {
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) =
                    (data.next(), data.next())
                {
                    self.message(&channel, message);
                }
            }
            PushKind::Disconnection => self.disconnected.notify_one(),
            _ => {}
        }
    }

    fn message(&self, channel: &[u8], message: Vec<u8>) {
        // The names of live channels are ASCII; a name with other bytes can only belong to a plain
        // publish, which is rejected.
        let name = String::from_utf8_lossy(channel);
        let own = name.strip_prefix(self.live_prefix.as_str());
        if own.is_some() {
            self.context.state.message_received();
        }
        let well_formed = match own {
            Some("tick") => self.tick(&message),
            Some("seam") => self.seam(&message),
            Some("control") => self.control(&message),
            Some("marker") => self.marker(&message),
            Some(live) => self.event(live, &message),
            None => {
                let plain =
                    channel.strip_prefix(self.keys.channel_prefix().as_bytes()).unwrap_or(channel);
                self.plain(plain.to_vec(), message);
                Some(())
            }
        };
        if well_formed.is_none() {
            self.ignored(&name);
        }
    }

    /// Counts a message that the library did not write, and logs it at a limited rate.
    fn ignored(&self, channel: &str) {
        self.context.metrics.live_malformed.inc();
        if let Some(suppressed) = self.malformed_log.allow(self.context.clock.now_ms()) {
            tracing::warn!(
                parent: &**self.span.load(),
                channel,
                suppressed,
                "ignored a malformed message on a live channel: is another client publishing to it?"
            );
        }
    }

    /// Parses an id; `None` if the library cannot have assigned it.
    fn id(&self, text: &str) -> Option<EventId> {
        EventId::parse(text).filter(|id| self.is_plausible(*id))
    }

    fn is_plausible(&self, id: EventId) -> bool {
        id.is_plausible(self.context.clock.server_ms())
    }

    fn marker(&self, message: &[u8]) -> Option<()> {
        let marker = std::str::from_utf8(message).ok().filter(|m| m.len() <= MAX_MARKER_BYTES)?;
        self.inbox.send(RecorderInput::Marker(marker.to_owned()));
        Some(())
    }

    fn event(&self, channel: &str, message: &[u8]) -> Option<()> {
        let event = Channel::parse(channel).and_then(|c| Event::from_live(c, message))?;
        if !event.id.is_none_or(|id| self.is_plausible(id)) {
            return None;
        }
        self.relay(event);
        Some(())
    }

    fn relay(&self, event: Event) {
        if let Some(id) = event.id {
            self.context.state.raise_highest_id(id);
        }
        self.context.metrics.relayed.with_label_values(&[event.channel.kind()]).inc();
        self.context.delivery.event(event);
    }

    fn tick(&self, message: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(message).ok()?;
        let mut words = text.split(' ');
        let mut id = || words.next().and_then(|word| self.id(word));
        let (id, epoch, unrecorded) = (id()?, id()?, id()?);
        if epoch > id || unrecorded > id {
            return None;
        }
        self.context.state.raise_highest_id(id);
        self.context.state.tick_received();
        self.enter_epoch(epoch);
        self.context.delivery.tick(id);
        Some(())
    }

    /// Notifies all connections of a new epoch, once.
    pub fn enter_epoch(&self, epoch: EventId) {
        if self.context.state.enter_epoch(epoch) {
            if let Some(suppressed) = self.reset_log.allow(self.context.clock.now_ms()) {
                tracing::warn!(
                    parent: &**self.span.load(),
                    %epoch,
                    suppressed,
                    "new epoch: Redis was wiped, restored or replaced; clients get sse.gap (reset)"
                );
            }
            self.context.delivery.new_epoch(epoch);
        }
    }

    fn seam(&self, message: &[u8]) -> Option<()> {
        let (id, reason) = std::str::from_utf8(message).ok()?.split_once(' ')?;
        let id = self.id(id)?;
        self.context.state.raise_highest_id(id);
        match reason {
            "reset" => {
                // The first epoch of a Redis server does not concern any stream.
                self.enter_epoch(id);
                self.inbox.send(RecorderInput::Reset);
            }
            _ => {
                if let Some(suppressed) = self.unrecorded_log.allow(self.context.clock.now_ms()) {
                    tracing::warn!(
                        parent: &**self.span.load(),
                        %id,
                        suppressed,
                        "plain publishes may be missing; clients get sse.gap (unrecorded)"
                    );
                }
                self.context.delivery.history_break(id, GapReason::Unrecorded);
            }
        }
        Some(())
    }

    fn control(&self, message: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(message).ok()?;
        if text.len() > MAX_CONTROL_BYTES {
            return None;
        }
        let words: Vec<&str> = text.splitn(6, ' ').collect();
        // A time in the far future would lock the user out until then.
        let time =
            |ms: &str| ms.parse().ok().filter(|ms| self.is_plausible(EventId { ms: *ms, seq: 0 }));
        let send = |command: &dyn Fn() -> Command| {
            self.context.delivery.mailboxes.send(|| Message::Command(command()))
        };
        match words[..] {
            ["taken-over", digest, generation, times] => {
                let (generation, times) = (time(generation)?, times.parse().ok()?);
                send(&|| Command::TakenOver { digest: digest.to_owned(), generation, times });
            }
            ["revoke", user, ms] => {
                let revoked_ms = time(ms)?;
                send(&|| Command::Revoke { user: user.to_owned(), revoked_ms });
            }
            ["vacant", _] => self.inbox.send(RecorderInput::Vacant),
            ["taken-over" | "revoke" | "vacant", ..] => return None,
            // A later version may send other messages.
            _ => tracing::debug!(parent: &**self.span.load(), "ignored an unknown control message"),
        }
        Some(())
    }

    fn plain(&self, channel: Vec<u8>, message: Vec<u8>) {
        match self.context.settings.publishers.plain {
            PlainPublish::Off => {}
            PlainPublish::Record => self.inbox.plain(channel, message),
            PlainPublish::Relay => self.relay_plain(channel, message),
        }
    }

    fn relay_plain(&self, channel: Vec<u8>, message: Vec<u8>) {
        let max = self.context.settings.history.max_event_bytes;
        let decoded = Channel::from_bytes(&channel)
            .ok_or(Rejection::BadChannel)
            .and_then(|channel| Ok(Event::relayed(channel, &envelope::decode(&message, max)?)));
        match decoded {
            Ok(event) => {
                self.context.metrics.plain_relayed.inc();
                self.relay(event);
            }
            Err(refusal) => {
                self.context.metrics.rejected.with_label_values(&[refusal.code()]).inc();
                // If the queue is full, the message is only counted.
                let _ = self.rejected.try_send(Rejected::new(&channel, refusal, &message));
            }
        }
    }
}

#[cfg(test)]
mod tests;
