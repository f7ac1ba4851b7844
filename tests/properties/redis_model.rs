//! A model of the parts of a Redis server on which a stream depends: one total order of ids, one
//! log per channel, and one subscriber connection on which messages and watermarks are ordered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use sse_gateway::core::{
    catch_up::{ClockSnapshot, Page},
    channel::Channel,
    event::Event,
    id::EventId,
};

/// The model.
#[derive(Default)]
pub struct Redis {
    last: EventId,
    logs: BTreeMap<Channel, VecDeque<Arc<Event>>>,
    /// The last id of each log, which trimming does not change.
    last_of_log: BTreeMap<Channel, EventId>,
    /// Messages in flight to the gateway; `None` while the connection is down.
    link: Option<VecDeque<Arc<Event>>>,
    /// Every event that was ever published, in order.
    pub published: Vec<Arc<Event>>,
}

impl Redis {
    /// Appends to the log and publishes in one step, as `sse_publish` does.
    pub fn publish(&mut self, channel: &Channel, payload_bytes: usize) {
        self.last = EventId { ms: self.last.ms + 1, ..self.last };
        let predecessor = self.last_of_log.insert(channel.clone(), self.last).unwrap_or_default();
        let payload = "x".repeat(payload_bytes);
        let event = Event::new(self.last, predecessor, channel.clone(), None, "t", &payload);
        let event = Arc::new(event);
        self.logs.entry(channel.clone()).or_default().push_back(event.clone());
        if let Some(link) = &mut self.link {
            link.push_back(event.clone());
        }
        self.published.push(event);
    }

    /// Removes the oldest entry of a log.
    pub fn trim(&mut self, channel: &Channel) {
        if let Some(log) = self.logs.get_mut(channel) {
            log.pop_front();
        }
    }

    /// Establishes or breaks the subscriber connection. Messages in flight are lost.
    pub fn set_link(&mut self, up: bool) {
        self.link = up.then(VecDeque::new);
    }

    /// The next message that arrives at the gateway.
    pub fn receive(&mut self) -> Option<Arc<Event>> {
        self.link.as_mut()?.pop_front()
    }

    /// Loses the newest message in flight, and returns its channel.
    pub fn lose_newest(&mut self) -> Option<Channel> {
        self.link.as_mut()?.pop_back().map(|event| event.channel.clone())
    }

    /// The clock, read on the subscriber connection: every message before it has to be received
    /// first, so this also returns those.
    pub fn watermark(&mut self) -> Option<(Vec<Arc<Event>>, ClockSnapshot)> {
        let received = self.link.as_mut()?.drain(..).collect();
        let now_ms = self.last.ms;
        Some((received, ClockSnapshot { h: self.last, now_ms, ..ClockSnapshot::default() }))
    }

    /// A page of a log after a position.
    pub fn read(&self, channel: &Channel, after: EventId, count: usize) -> Page {
        let log = self.logs.get(channel).into_iter().flatten();
        let events: Vec<_> =
            log.filter(|e| e.id.is_some_and(|id| id > after)).take(count).cloned().collect();
        let last_ever = match events.is_empty() {
            true => self.last_of_log.get(channel).copied().unwrap_or_default(),
            false => EventId::ZERO,
        };
        Page { more: events.len() == count, upto: EventId::ZERO, events, last_ever }
    }
}
