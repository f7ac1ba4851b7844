//! A model of the parts of a Redis server on which a stream depends: the logs, the clock and the
//! epoch of the function library (`src/redis/library/clock.lua`), and one subscriber connection on
//! which messages and watermarks are ordered. The server can be wiped, replaced and restored.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use sse_gateway::core::{
    catch_up::ClockSnapshot,
    channel::Channel,
    event::Event,
    event_options::{EventOptions, Retain},
    id::EventId,
    page::{Entry, Page, ReadFrom},
    retained::RetainedValue,
};

/// The id of an entry.
type EntryId = (u64, u64);

/// The epoch is the time of its start times this, plus the number of the process.
const EPOCHS_PER_MS: u64 = 128;
const START_MS: u64 = 1000;

/// The memory of a server process, and its system clock.
#[derive(Clone, Default)]
struct Process {
    number: u64,
    ahead_ms: u64,
    epoch: Option<u64>,
    clock: EntryId,
    adopted_replid: Option<u64>,
    /// Whether a watermark was taken within the last 2 s: then publishing checks nothing.
    is_watched: bool,
}

/// The node key.
#[derive(Clone, Default)]
struct Node {
    process: Option<u64>,
    replid: Option<u64>,
    epoch: Option<u64>,
    start: EntryId,
    previous: u64,
    clock: EntryId,
    /// The epochs that a gateway may prove to be continued, and those that are.
    follows: Vec<u64>,
    continues: Vec<u64>,
}

#[derive(Default)]
struct Log {
    /// The entries; without an event if another client wrote it.
    entries: VecDeque<(EntryId, Option<Event>)>,
    /// The last id that the log ever had, which trimming does not change.
    last: EntryId,
    /// The last id that was trimmed.
    trimmed: EntryId,
    /// All changes of retained values, in order.
    changes: Vec<Event>,
}

/// A message on its way to the gateway.
pub enum Push {
    Event(Event),
    Epoch(EventId),
}

/// An event that was accepted.
pub struct Published {
    pub id: EventId,
    /// Its number, which is its payload, and the key that it changes.
    pub number: usize,
    pub key: Option<Key>,
    /// When it was accepted, and when it was removed from its log.
    pub at: u64,
    pub lost_at: Option<u64>,
}

/// A channel, and the key of a retained value.
pub type Key = (Channel, String);

/// The number that is the payload of an event.
pub fn number_of(event: &Event) -> usize {
    event.data().trim_end_matches('x').parse().expect("a number")
}

/// A replacement of the server.
#[derive(Clone, Debug)]
pub struct Failover {
    /// The number of newest entries that the new server's logs lack.
    pub lost: [usize; 3],
    /// Whether the node key of the previous epoch comes back.
    pub loses_node: bool,
    /// How far ahead the new server's system clock is.
    pub ahead_ms: u64,
    /// Whether the process before this one is the primary again, with this one's data.
    pub is_failback: bool,
}

/// The model.
pub struct Redis {
    /// The true time, which is also the number of actions.
    pub time_ms: u64,
    process: Process,
    former_process: Option<Process>,
    processes: u64,
    replid: u64,
    /// Whether this process has everything that the one before had, as a gateway can prove it.
    has_all: bool,
    node: Node,
    former_node: Node,
    logs: BTreeMap<Channel, Log>,
    /// Messages in flight to the gateway; `None` while the connection is down.
    wire: Option<VecDeque<Push>>,
    /// Every event that was ever accepted, in order.
    pub published: Vec<Published>,
}

fn next(id: EntryId) -> EntryId {
    (id.0, id.1 + 1)
}

fn with_epoch((ms, seq): EntryId, epoch: u64) -> EventId {
    EventId { epoch, ms, seq }
}

fn entry_id(id: EventId) -> EntryId {
    (id.ms, id.seq)
}

impl Redis {
    /// An empty server that no gateway has adopted.
    pub fn new() -> Self {
        Self {
            time_ms: START_MS,
            process: Process { ahead_ms: 100, ..Process::default() },
            former_process: None,
            processes: 1,
            replid: 0,
            has_all: false,
            node: Node::default(),
            former_node: Node::default(),
            logs: BTreeMap::new(),
            wire: None,
            published: Vec::new(),
        }
    }

    /// The time of its system clock, ms.
    pub fn now(&self) -> u64 {
        self.time_ms + self.process.ahead_ms
    }

    fn advance(&mut self, id: EntryId) {
        self.process.clock = self.process.clock.max(id);
    }

    /// `adopt` in clock.lua.
    fn adopt(&mut self, seen: EventId) {
        let (now, node) = (self.now(), self.node.clone());
        if self.process.epoch.is_none() || self.process.epoch != node.epoch {
            self.advance((now + 1, 0));
        }
        self.advance(node.clock);
        let is_proved = self.has_all && seen.epoch > 0;
        let is_lossless =
            is_proved && node.epoch == Some(seen.epoch) && entry_id(seen) <= self.process.clock;
        self.advance(entry_id(seen));
        let (number, own) = (self.process.number, self.process.epoch);
        let continues = |epoch: &u64| {
            node.process == Some(number)
                && node.replid == Some(self.replid)
                && own.is_none_or(|own| own == *epoch)
                && seen.epoch <= *epoch
        };
        match node.epoch.filter(continues) {
            Some(epoch) => {
                self.process.epoch = Some(epoch);
                let is_next = node.follows.first() == Some(&seen.epoch);
                if is_proved && is_next && entry_id(seen) <= node.start {
                    self.node.continues = node.follows;
                }
            }
            None => {
                let previous = own.max(node.epoch).unwrap_or(0).max(seen.epoch);
                let epoch = (now * EPOCHS_PER_MS).max(previous + 1) + number;
                self.process.epoch = Some(epoch);
                self.advance((now, 0));
                self.advance((self.process.clock.0 + 1, 0));
                let start = self.process.clock;
                let mut follows = vec![];
                if node.process.is_some() && node.epoch == Some(previous) {
                    follows = [vec![previous], node.continues].concat();
                    follows.truncate(8);
                }
                self.former_node = std::mem::replace(
                    &mut self.node,
                    Node {
                        process: Some(number),
                        replid: Some(self.replid),
                        epoch: Some(epoch),
                        start,
                        previous,
                        clock: start,
                        continues: if is_lossless { follows.clone() } else { vec![] },
                        follows,
                    },
                );
                if previous > 0 {
                    self.push(Push::Epoch(with_epoch(start, epoch)));
                }
            }
        }
        self.process.adopted_replid = Some(self.replid);
    }

    fn push(&mut self, message: Push) {
        if let Some(wire) = &mut self.wire {
            wire.push_back(message);
        }
    }

    /// `append` in events.lua. Returns the id.
    pub fn publish(
        &mut self,
        channel: &Channel,
        number: usize,
        payload_bytes: usize,
        retain: Option<Retain>,
    ) -> EventId {
        let process = &self.process;
        let is_outdated = !process.is_watched && process.adopted_replid != Some(self.replid);
        if process.epoch.is_none() || is_outdated {
            self.adopt(EventId::ZERO);
        }
        let epoch = self.process.epoch.unwrap_or_default();
        let now = (self.now(), 0);
        let free = if now > self.process.clock { now } else { next(self.process.clock) };
        let log = self.logs.entry(channel.clone()).or_default();
        let id = free.max(next(log.last));
        // The epoch of an entry that is not an event is not known.
        let last_epoch = match log.entries.back() {
            Some((_, event)) => event.as_ref().and_then(|e| e.id).map(|id| id.epoch),
            None => (log.last == (0, 0)).then_some(0),
        };
        let predecessor = with_epoch(log.last, last_epoch.unwrap_or(epoch));
        let payload = format!("{number}{}", "x".repeat(payload_bytes));
        let position = with_epoch(id, epoch);
        let key = retain.as_ref().map(|retain| (channel.clone(), retain.key().to_owned()));
        let options = key.is_some().then(|| EventOptions { retain, ..EventOptions::default() });
        let event = Event::new(position, predecessor, channel.clone(), None, "t", &payload)
            .with_options(options.map(Box::new));
        log.changes.extend(key.is_some().then(|| event.clone()));
        log.entries.push_back((id, Some(event.clone())));
        log.last = id;
        self.process.clock = id;
        self.push(Push::Event(event));
        let at = self.time_ms;
        self.published.push(Published { id: position, number, key, at, lost_at: None });
        position
    }

    /// Another client appends to a log. (Not to one that was trimmed: a foreign entry hides that.)
    pub fn append_foreign(&mut self, channel: &Channel) {
        let now = (self.now(), 0);
        let log = self.logs.entry(channel.clone()).or_default();
        if log.trimmed == (0, 0) {
            log.last = now.max(next(log.last));
            log.entries.push_back((log.last, None));
        }
    }

    /// Removes the oldest entry of a log. Returns whether there was one.
    pub fn trim(&mut self, channel: &Channel) -> bool {
        let log = self.logs.entry(channel.clone()).or_default();
        if log.entries.iter().any(|(_, event)| event.is_none()) {
            return false;
        }
        let Some((id, _)) = log.entries.pop_front() else { return false };
        log.trimmed = id;
        self.mark_lost();
        true
    }

    fn mark_lost(&mut self) {
        let entries = self.logs.values().flat_map(|log| &log.entries);
        let ids: BTreeSet<_> = entries.filter_map(|(_, event)| event.as_ref()?.id).collect();
        for event in self.published.iter_mut().filter(|e| !ids.contains(&e.id)) {
            event.lost_at.get_or_insert(self.time_ms);
        }
    }

    /// `FLUSHALL`: the process and its connections remain.
    pub fn wipe(&mut self) {
        self.logs.clear();
        self.node = Node::default();
        self.former_node = Node::default();
        self.mark_lost();
    }

    /// `FUNCTION LOAD REPLACE` after `sse_save`.
    pub fn reload(&mut self) {
        if self.process.epoch.is_some() {
            self.node.clock = self.process.clock;
            self.node.epoch = self.node.epoch.max(self.process.epoch);
        }
        let Process { number, ahead_ms, .. } = self.process;
        self.process = Process { number, ahead_ms, ..Process::default() };
    }

    /// Another process becomes the primary (after a restart, too): the connection breaks.
    pub fn fail_over(&mut self, failover: &Failover) {
        let new = Process { ahead_ms: failover.ahead_ms, ..Process::default() };
        let next = match self.former_process.take().filter(|_| failover.is_failback) {
            Some(former) => Process { is_watched: false, ..former },
            None => Process { number: self.processes, ..new },
        };
        // A process that was not adopted since it became the primary may have lost something.
        let was_adopted = self.process.adopted_replid == Some(self.replid);
        self.processes += 1;
        self.replid += 1;
        self.has_all = !failover.loses_node && (was_adopted || self.has_all);
        self.former_process = Some(std::mem::replace(&mut self.process, next));
        if failover.loses_node {
            self.node = self.former_node.clone();
        }
        // The node key is written before the first event of its epoch.
        let last_epoch = self.node.epoch.unwrap_or(0);
        for (log, lost) in self.logs.values_mut().zip(failover.lost) {
            let is_later = |event: &Event| event.id.is_some_and(|id| id.epoch > last_epoch);
            let kept = log.entries.iter().take_while(|(_, e)| !e.as_ref().is_some_and(is_later));
            log.changes.retain(|event| !is_later(event));
            let left = kept.count().min(log.entries.len().saturating_sub(lost));
            if left < log.entries.len() {
                self.has_all = false;
                log.entries.truncate(left);
                log.last = log.entries.back().map_or(log.trimmed, |(id, _)| *id);
                let last = log.last;
                log.changes.retain(|event| event.id.is_some_and(|id| entry_id(id) <= last));
            }
        }
        self.mark_lost();
        self.wire = None;
    }

    /// The same with all data: a planned failover, or a restart from a file that is written before
    /// each reply.
    pub fn restart(&mut self, ahead_ms: u64) {
        let failover = Failover { lost: [0; 3], loses_node: false, ahead_ms, is_failback: false };
        self.fail_over(&failover);
    }

    /// Establishes the subscriber connection, or closes it. Messages in flight are lost.
    pub fn set_link(&mut self, up: bool) {
        self.wire = up.then(VecDeque::new);
    }

    /// Whether the subscriber connection is open.
    pub fn is_linked(&self) -> bool {
        self.wire.is_some()
    }

    /// Whether messages are in flight.
    pub fn has_messages(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| !wire.is_empty())
    }

    /// The next message that arrives at the gateway.
    pub fn receive(&mut self) -> Option<Push> {
        self.wire.as_mut()?.pop_front()
    }

    /// Loses the newest message in flight if it is an event, and returns the channel.
    pub fn lose_newest(&mut self) -> Option<Channel> {
        let wire = self.wire.as_mut()?;
        match wire.pop_back()? {
            Push::Event(event) => Some(event.channel),
            other => {
                wire.push_back(other);
                None
            }
        }
    }

    /// `sse_watermark` and `sse_adopt` on the subscriber connection: the messages in flight arrive
    /// before the reply.
    pub fn watermark(&mut self, seen: EventId) -> Option<ClockSnapshot> {
        self.wire.as_ref()?;
        let (process, node) = (&self.process, &self.node);
        let is_known = process.epoch.is_some_and(|epoch| {
            node.epoch == Some(epoch)
                && node.process == Some(process.number)
                && node.replid == Some(self.replid)
                && process.adopted_replid == Some(self.replid)
                && seen.epoch <= epoch
        });
        let has_next = node.follows.first() == Some(&seen.epoch) && node.continues.is_empty();
        if !is_known || (self.has_all && has_next) {
            self.adopt(seen);
        } else if process.epoch == Some(seen.epoch) {
            self.advance(entry_id(seen));
        }
        if is_known {
            self.advance((self.now(), 0));
        }
        self.process.is_watched = true;
        let epoch = self.process.epoch?;
        Some(ClockSnapshot {
            h: with_epoch(self.process.clock, epoch),
            start: with_epoch(self.node.start, epoch),
            previous_epoch: self.node.previous,
            continues: self.node.continues.iter().copied().collect(),
            now_ms: self.now(),
            ..ClockSnapshot::default()
        })
    }

    /// The process that is the primary, and since which replication.
    pub fn identity(&self) -> (u64, u64) {
        (self.process.number, self.replid)
    }

    /// The retained values of a channel, as `redis::retained` reads them.
    pub fn values(&self, channel: &Channel) -> Vec<RetainedValue> {
        let mut values = BTreeMap::new();
        for event in self.logs.get(channel).iter().flat_map(|log| &log.changes) {
            match event.retain() {
                Some(Retain::Keep(key)) => values.insert(&**key, event),
                Some(Retain::Forget(key)) => values.remove(&**key),
                None => None,
            };
        }
        let value = |(key, event): (&str, &Event)| RetainedValue {
            position: event.id.unwrap_or_default(),
            key: key.into(),
            event: Arc::new(event.without_id()),
        };
        values.into_iter().map(value).collect()
    }

    /// A page of a log, as `log::pages` reads it.
    pub fn read(&self, channel: &Channel, from: ReadFrom, count: usize) -> Page {
        let Some(log) = self.logs.get(channel) else { return Page::of(from, vec![], count).0 };
        let after = log.entries.iter().filter(|(id, _)| *id > entry_id(from.entry)).take(count);
        let entry = |(id, event): &(EntryId, Option<Event>)| match event {
            Some(event) => Entry::Event(event.clone()),
            None => Entry::Foreign(with_epoch(*id, 0)),
        };
        let (mut page, _) = Page::of(from, after.map(entry).collect(), count);
        if page.events.is_empty() && log.last > (0, 0) {
            page.last_ever = from.assume_epoch(with_epoch(log.last, 0));
        }
        page
    }
}
