//! Handles the messages of the link: decodes each once, encodes it once, and passes it on. This
//! code runs in the reading task of the link and never awaits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::Span;

use super::{
    ended_subscriptions::EndedSubscriptions,
    key_names::KeyNames,
    link_context::LinkContext,
    recorder::inbox::{InboxSender, RecorderInput},
    rejected::Rejected,
    wire::Push,
};
use crate::log_limit::LogLimit;
use crate::{
    core::{
        channel::{Channel, is_name},
        envelope::{self, Rejection},
        event::Event,
        id::EventId,
        trace_context::TraceParent,
    },
    settings::PlainPublish,
    state::presence::Question,
};

/// Minimum time between log lines of one kind, ms.
const LOG_INTERVAL_MS: u64 = 10_000;
/// Maximum length of a marker: a UUID, a hyphen, a 64-bit number and the run id of a server have 98
/// bytes; a fencing token is shorter.
const MAX_MARKER_BYTES: usize = 128;
/// The first word of an ephemeral event.
const EPHEMERAL: &[u8] = b"ephemeral ";
/// Maximum length of a control message: a user or a digest, and two numbers.
const MAX_CONTROL_BYTES: usize = 1024;

/// Decodes what arrives on the link and passes it on.
pub struct Inbound {
    context: LinkContext,
    keys: Arc<KeyNames>,
    /// The live channel of all broadcasts, built once rather than for each message.
    live_broadcast: String,
    inbox: InboxSender,
    /// Whether the link brings the broadcasts, and so what the recorder needs.
    has_broadcasts: AtomicBool,
    /// What it brings no longer.
    pub ended: EndedSubscriptions,
    rejected: mpsc::Sender<Rejected>,
    malformed_log: LogLimit,
    reset_log: LogLimit,
    unrecorded_log: LogLimit,
    /// Number of the current link; pushes of an older one are ignored.
    link_number: AtomicU64,
    /// The span of the current link. The reading task never enters it, because that would cost
    /// time for each message; it is the parent of the few lines that the task logs.
    span: ArcSwap<Span>,
    has_announced: AtomicBool,
    announced: Mutex<Option<Announced>>,
}

/// The trace of the event in the next message.
struct Announced {
    /// The user whose live channel it is; without one, it is that of all broadcasts.
    user: Option<Channel>,
    /// The event; `None`: it is ephemeral.
    id: Option<EventId>,
    trace: TraceParent,
}

impl Announced {
    fn is_for(&self, event: &Event) -> bool {
        let is_same_channel = match &self.user {
            Some(user) => *user == event.channel,
            None => matches!(event.channel, Channel::Broadcast(_)),
        };
        self.id == event.id && is_same_channel
    }
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
        let live_broadcast = keys.live_broadcast();
        Self {
            context,
            keys,
            live_broadcast,
            inbox,
            has_broadcasts: AtomicBool::new(false),
            ended: EndedSubscriptions::default(),
            rejected,
            malformed_log: LogLimit::new(LOG_INTERVAL_MS),
            reset_log: LogLimit::new(LOG_INTERVAL_MS),
            unrecorded_log: LogLimit::new(LOG_INTERVAL_MS),
            link_number: AtomicU64::new(0),
            span: ArcSwap::from_pointee(Span::none()),
            has_announced: AtomicBool::new(false),
            announced: Mutex::new(None),
        }
    }

    /// Invalidates the previous link, and returns the number of the next one.
    pub fn next_link(&self) -> u64 {
        self.link_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sets the span of log lines about the current link.
    pub fn set_span(&self, span: Span) {
        self.span.store(span.into());
    }

    /// Notifies the recorder that the link brings the broadcasts (`true`), or does so no longer.
    pub fn set_broadcasts(&self, up: bool) {
        if self.has_broadcasts.swap(up, Ordering::Relaxed) || up {
            self.inbox.link_changed(up);
        }
    }

    /// Whether the link brings the broadcasts.
    pub fn has_broadcasts(&self) -> bool {
        self.has_broadcasts.load(Ordering::Relaxed)
    }

    /// Handles one message of the link with this number.
    pub fn push(&self, link_number: u64, push: Push<'_>) {
        if link_number != self.link_number.load(Ordering::Relaxed) {
            return;
        }
        match push {
            Push::Live { channel, message } => self.live(channel, message),
            Push::Plain { channel, message } => {
                let prefix = self.keys.channel_prefix().as_bytes();
                self.plain(channel.strip_prefix(prefix).unwrap_or(channel), message);
            }
            Push::Ended { channel } => self.ended(&String::from_utf8_lossy(channel)),
        }
    }

    /// The server has ended a subscription. Watermarks that arrive later say nothing about this
    /// channel, so its streams must not take them.
    fn ended(&self, channel: &str) {
        match self.keys.channel_of_live(channel) {
            Some(Channel::User(user)) => {
                self.ended.add_users([user.clone()]);
                self.context.delivery.users_moved(&[user].into());
            }
            _ => {
                self.set_broadcasts(false);
                self.ended.add_broadcasts();
                self.context.delivery.broadcasts_left(self.context.server.index);
            }
        }
    }

    /// Takes a message of a live channel. Events begin with their id, other messages with a word.
    fn live(&self, channel: &[u8], message: &[u8]) {
        self.context.state.message_received();
        let name = String::from_utf8_lossy(channel);
        let user = match name == self.live_broadcast.as_str() {
            true => None,
            false => match self.keys.channel_of_live(&name) {
                Some(user) => Some(user),
                None => return self.ignored(&name),
            },
        };
        let well_formed = if message.first().is_some_and(u8::is_ascii_digit) {
            self.event(user, message)
        } else if let Some(event) = message.strip_prefix(EPHEMERAL) {
            Event::from_ephemeral(user, event).map(|event| self.relay(event, None))
        } else {
            match user {
                None => self.broadcast_control(message),
                Some(user) => self.control(user, message),
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

    fn event(&self, user: Option<Channel>, message: &[u8]) -> Option<()> {
        let event = Event::from_live(user, message)?;
        let id = event.id.filter(|id| self.is_plausible(*id))?;
        // Before the event: the streams must not take it for one of the epoch before.
        self.enter_epoch(id);
        self.context.state.event_received(id, event.channel.clone());
        self.relay(event, None);
        Some(())
    }

    /// `trace`: that of a plain message; the one of other events was announced.
    fn relay(&self, event: Event, trace: Option<TraceParent>) {
        self.context.metrics.relayed.with_label_values(&[event.channel.kind()]).inc();
        let span = self.context.tracer.as_ref().and_then(|tracer| {
            let trace = trace.or_else(|| self.take_announced(&event));
            tracer.relay(&event, trace)
        });
        self.context.delivery.event(self.context.server.index, event, span);
    }

    /// The trace that was announced for an event.
    fn take_announced(&self, event: &Event) -> Option<TraceParent> {
        // Only this task writes it.
        if !self.has_announced.load(Ordering::Relaxed) {
            return None;
        }
        self.has_announced.store(false, Ordering::Relaxed);
        let announced = self.announced.lock().take()?;
        announced.is_for(event).then_some(announced.trace)
    }

    /// `trace`: the next message on this channel is an event of a trace.
    fn announce(&self, user: Option<Channel>, rest: &str) -> Option<()> {
        let (id, trace) = rest.split_once(' ')?;
        let id = match id {
            "-" => None,
            id => Some(self.id(id)?),
        };
        let trace = TraceParent::sampled(trace)?;
        if self.context.tracer.is_some() {
            *self.announced.lock() = Some(Announced { user, id, trace });
            self.has_announced.store(true, Ordering::Relaxed);
        }
        Some(())
    }

    /// Everything up to `h`, a position of the link's server, has arrived.
    pub fn watermark(&self, h: EventId) {
        if self.context.state.confirm_epoch(h.epoch) {
            self.report_epoch(h);
        }
        self.context.state.raise_highest_id(h);
        self.context.state.watermark_received();
        self.context.delivery.watermark(self.context.server.index, h);
    }

    /// Notifies all connections of a new epoch, once. `position` is in it.
    fn enter_epoch(&self, position: EventId) {
        if self.context.state.enter_epoch(position.epoch) {
            self.report_epoch(position);
        }
    }

    fn report_epoch(&self, position: EventId) {
        if let Some(suppressed) = self.reset_log.allow(self.context.clock.now_ms()) {
            tracing::warn!(
                parent: &**self.span.load(),
                %position,
                suppressed,
                "new epoch: Redis was wiped, restored, restarted or replaced; clients get sse.gap \
                 (reset) unless nothing was lost"
            );
        }
        self.context.metrics.epoch_changes.inc();
        // If a late watermark of the epoch before comes between, the link has brought events of
        // this one already, which the cache no longer has.
        let start = EventId { epoch: position.epoch, ..EventId::ZERO };
        let start = start.max(self.context.state.highest_id());
        self.context.delivery.new_epoch(self.context.server.index, start);
        if self.has_broadcasts() {
            self.inbox.send(RecorderInput::Reset);
        }
    }

    /// A message that a later version may send.
    fn unknown(&self, word: &str) {
        tracing::debug!(parent: &**self.span.load(), word, "ignored an unknown live message");
    }

    /// A message about the server or the recorder.
    fn broadcast_control(&self, message: &[u8]) -> Option<()> {
        let (word, rest) = control_words(message)?;
        match word {
            "epoch" => self.enter_epoch(self.id(rest)?),
            "unrecorded" => {
                let id = self.id(rest)?;
                self.enter_epoch(id);
                self.context.state.raise_highest_id(id);
                if let Some(suppressed) = self.unrecorded_log.allow(self.context.clock.now_ms()) {
                    tracing::warn!(
                        parent: &**self.span.load(),
                        %id,
                        suppressed,
                        "plain publishes may be missing; clients get sse.gap (unrecorded)"
                    );
                }
                self.context.delivery.unrecorded(self.context.server.index, id);
            }
            "marker" if rest.len() <= MAX_MARKER_BYTES => {
                self.inbox.send(RecorderInput::Marker(rest.to_owned()));
            }
            "marker" => return None,
            "vacant" => self.inbox.send(RecorderInput::Vacant),
            "presence" => self.presence_question(rest)?,
            "trace" => self.announce(None, rest)?,
            _ => self.unknown(word),
        }
        Some(())
    }

    /// Another instance asks for the users of a topic.
    fn presence_question(&self, rest: &str) -> Option<()> {
        let (id, topic) = rest.split_once(' ')?;
        let is_id = (1..=MAX_MARKER_BYTES).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_id || !is_name(topic) {
            return None;
        }
        if let Some(presence) = &self.context.presence {
            presence.ask(Question { id: id.to_owned(), topic: topic.into() });
        }
        Some(())
    }

    /// A message about the sessions of a user.
    fn control(&self, user: Channel, message: &[u8]) -> Option<()> {
        let (word, rest) = control_words(message)?;
        if word == "trace" {
            return self.announce(Some(user), rest);
        }
        let Channel::User(user) = user else { return None };
        // A time in the far future would lock a user out until then.
        let time = |ms: &str| {
            let ms = ms.parse().ok()?;
            self.is_plausible(EventId { ms, ..EventId::ZERO }).then_some(ms)
        };
        let words: Vec<&str> = rest.split(' ').collect();
        match (word, &words[..]) {
            ("taken-over", [digest, generation, times]) => {
                let (generation, times) = (time(generation)?, times.parse().ok()?);
                self.context.delivery.taken_over(&user, digest, generation, times);
            }
            ("revoke", [ms]) => self.context.delivery.revoked(&user, time(ms)?),
            ("taken-over" | "revoke", _) => return None,
            _ => self.unknown(word),
        }
        Some(())
    }

    fn plain(&self, channel: &[u8], message: &[u8]) {
        match self.context.settings.publishers.plain {
            PlainPublish::Off => {}
            PlainPublish::Record => self.inbox.plain(channel.to_owned(), message.to_owned()),
            PlainPublish::Relay => self.relay_plain(channel, message),
        }
    }

    fn relay_plain(&self, channel: &[u8], message: &[u8]) {
        let rules = &self.context.settings.channels;
        let decoded =
            Channel::from_bytes(channel).ok_or(Rejection::BadChannel).and_then(|channel| {
                let envelope = envelope::decode(message, rules.of(&channel).max_event_bytes)?;
                match envelope.needs_storage() {
                    true => Err(Rejection::NotStored),
                    false => Ok((Event::relayed(channel, &envelope), envelope.trace)),
                }
            });
        match decoded {
            Ok((event, trace)) => {
                self.context.metrics.plain_relayed.inc();
                self.relay(event, trace);
            }
            Err(rejection) => {
                self.context.metrics.rejected.with_label_values(&[rejection.code()]).inc();
                // If the queue is full, the message is only counted.
                let _ = self.rejected.try_send(Rejected::new(channel, rejection, message));
            }
        }
    }
}

/// The first word of a message that is no event, and the rest.
fn control_words(message: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(message).ok().filter(|text| text.len() <= MAX_CONTROL_BYTES)?;
    Some(text.split_once(' ').unwrap_or((text, "")))
}

#[cfg(test)]
mod tests;
