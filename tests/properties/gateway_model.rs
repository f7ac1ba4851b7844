//! A gateway with one stream, which reads from one server or from two: the steps of `redis::link`,
//! `redis::inbound`, `state::hub` and `redis::catch_up`, one at a time.

use std::{collections::VecDeque, sync::Arc};

use crate::redis_model::{Push, Redis};
use sse_gateway::core::{
    catch_up::{self, ClockSnapshot, Merge, Start},
    channel::Channel,
    control_events,
    event::Event,
    id::{EventId, StreamPosition},
    page::Page,
    part::Part,
    queue::Item,
    reasons::GapReason,
    retained::{Retained, RetainedValue, Values},
    stream_state::{Outcome, StreamState, follows},
};
use sse_gateway::state::retained_cache::{CachedValues, LoadingValues, RetainedCache};

/// Long enough that nothing expires.
const RETENTION_MS: u64 = 1 << 40;
/// A value in the cache is read again after 60 steps.
const STEP_MS: u64 = 1000;
const CACHE_BYTES: usize = 1 << 20;

/// What the link sends to the hub.
enum Message {
    Event(Arc<Event>),
    NewEpoch,
    Watermark(EventId),
    LinkDown,
    LinkUp,
}

/// A catch-up in progress.
struct CatchUp {
    number: u32,
    cursor: EventId,
    /// `None`: the clock snapshot comes next.
    reading: Option<Reading>,
}

struct Reading {
    clock: ClockSnapshot,
    /// The server of the snapshot.
    identity: (u64, u64),
    begin: Begin,
    /// The first pages, until the values were sent.
    first: Option<Vec<(usize, Page)>>,
    values: WantedValues,
}

/// How it begins.
enum Begin {
    Restart(GapReason),
    /// There is nothing to read but values.
    Nothing,
    Read {
        merge: Merge<Channel>,
        reset: bool,
        gap: Option<GapReason>,
    },
}

/// The retained values, if the client needs them: read step by step.
enum WantedValues {
    Unknown,
    Loading(LoadingValues<'static>, Vec<(Channel, Values)>),
    Read(LoadingValues<'static>, Vec<(Channel, Values)>, Vec<(Channel, Vec<RetainedValue>)>),
    Ready(Retained),
    /// Those that were sent, or none are needed.
    Sent(Retained),
}

/// A part of the stream, and the server that has it.
struct Source {
    part: Part,
    channels: Vec<Channel>,
    /// The highest id and the epoch that the link brought (`LinkState`).
    seen: EventId,
    epoch: u64,
    is_linked: bool,
    hub_link_up: bool,
    watermark: EventId,
    /// The hub has ordered a catch-up.
    is_requested: bool,
    catch_up: Option<CatchUp>,
    /// Whether the client has named a time, which the first snapshot places.
    has_time: bool,
}

impl Source {
    fn new(part: Part, channels: Vec<Channel>) -> Self {
        Self {
            part,
            channels,
            seen: EventId::ZERO,
            epoch: 0,
            is_linked: false,
            hub_link_up: false,
            watermark: EventId::ZERO,
            is_requested: true,
            catch_up: None,
            has_time: false,
        }
    }
}

/// The model. Its servers are numbered; a split stream has the user's channel on the first one, and
/// the broadcasts on the second one.
pub struct Gateway {
    channels: Vec<Channel>,
    page: usize,
    mailbox: VecDeque<(usize, Message)>,
    sources: Vec<Source>,
    /// Of the broadcasts. Each simulation leaks a few.
    cache: &'static RetainedCache,
    pub stream: StreamState,
}

impl Gateway {
    /// A gateway that has not connected yet, with a stream.
    pub fn new(channels: &[Channel], page: usize, stream: StreamState) -> Self {
        let of = |part: Part| {
            let is_included = |channel: &&Channel| part.includes(Part::of(channel));
            Source::new(part, channels.iter().filter(is_included).cloned().collect())
        };
        Self {
            channels: channels.to_vec(),
            page,
            mailbox: VecDeque::new(),
            sources: stream.parts(Part::Whole).map(of).collect(),
            cache: Box::leak(Box::new(RetainedCache::new(CACHE_BYTES))),
            stream,
        }
    }

    /// Opens another stream after the links were closed; on a new instance, or on this one.
    pub fn reopen(&mut self, stream: StreamState, is_new: bool) {
        let mut next = Self::new(&self.channels, self.page, stream);
        if !is_new {
            for (next, source) in next.sources.iter_mut().zip(&self.sources) {
                (next.seen, next.epoch) = (source.seen, source.epoch);
            }
            next.cache = self.cache;
        }
        *self = next;
    }

    /// The stream begins at a time, which is its cursor.
    pub fn begin_at_time(&mut self) {
        self.sources.iter_mut().for_each(|source| source.has_time = true);
    }

    /// The highest id that the link to a server brought.
    pub fn seen(&self, server: usize) -> EventId {
        self.sources[server].seen
    }

    /// The next message arrives from a server.
    pub fn receive(&mut self, server: usize, redis: &mut Redis) {
        match redis.receive() {
            Some(Push::Event(event)) => {
                let id = event.id.unwrap_or(EventId::ZERO);
                self.enter_epoch(server, id);
                self.raise_seen(server, id);
                let event = Arc::new(event);
                self.cache.update(&event);
                self.send(server, Message::Event(event));
            }
            Some(Push::Epoch(position)) => self.enter_epoch(server, position),
            None => {}
        }
    }

    fn has_broadcasts(&self, server: usize) -> bool {
        server == self.sources.len() - 1
    }

    fn send(&mut self, server: usize, message: Message) {
        self.mailbox.push_back((server, message));
    }

    fn raise_seen(&mut self, server: usize, id: EventId) {
        let source = &mut self.sources[server];
        source.seen = source.seen.max(id);
    }

    fn enter_epoch(&mut self, server: usize, position: EventId) {
        let source = &mut self.sources[server];
        let is_new = source.epoch != 0 && position.epoch > source.epoch;
        let epoch = position.epoch;
        source.epoch = source.epoch.max(position.epoch);
        if is_new {
            if self.has_broadcasts(server) {
                self.cache.close();
                self.cache.open(self.sources[server].seen.max(EventId { epoch, ..EventId::ZERO }));
            }
            self.send(server, Message::NewEpoch);
        }
    }

    /// Takes a watermark on the link.
    pub fn take_watermark(&mut self, server: usize, redis: &mut Redis) -> Option<ClockSnapshot> {
        let source = &self.sources[server];
        let clock = redis.watermark(source.seen).filter(|_| source.is_linked)?;
        while redis.has_messages() {
            self.receive(server, redis);
        }
        self.enter_epoch(server, clock.h);
        self.raise_seen(server, clock.h);
        self.send(server, Message::Watermark(clock.h));
        Some(clock)
    }

    /// Closes a link.
    pub fn break_link(&mut self, server: usize, redis: &mut Redis) {
        redis.set_link(false);
        if std::mem::take(&mut self.sources[server].is_linked) {
            self.send(server, Message::LinkDown);
            if self.has_broadcasts(server) {
                self.cache.close();
            }
        }
    }

    /// Notices that a link has ended, and sets up the next one.
    pub fn restore_link(&mut self, server: usize, redis: &mut Redis) {
        if redis.is_linked() && self.sources[server].is_linked {
            return;
        }
        self.break_link(server, redis);
        redis.set_link(true);
        self.sources[server].is_linked = true;
        if let Some(clock) = self.take_watermark(server, redis) {
            if self.has_broadcasts(server) {
                self.cache.open(clock.h);
            }
            self.send(server, Message::LinkUp);
        }
    }

    /// The hub handles the next message of its mailbox. Returns an event that it has written
    /// without the queue, as it does if the socket takes it; here about every other time.
    pub fn handle(&mut self) -> Option<Arc<Event>> {
        let (server, message) = self.mailbox.pop_front()?;
        let source = &mut self.sources[server];
        match message {
            Message::Event(event) => {
                source.watermark = source.watermark.max(event.id.unwrap_or(EventId::ZERO));
                if let Some(id) = event.id.filter(|id| (id.ms + id.seq).is_multiple_of(2))
                    && self.stream.open_position().is_some_and(|at| follows(&event, at))
                {
                    self.stream.pass(id);
                    return Some(event);
                }
                let outcome = self.stream.offer(&Item::Event(event));
                self.request_again(outcome);
            }
            Message::NewEpoch => {
                self.stream.detach(source.part, source.watermark);
                source.watermark = EventId::ZERO;
                source.is_requested |= source.hub_link_up;
            }
            Message::Watermark(h) => source.watermark = source.watermark.max(h),
            Message::LinkDown => {
                source.hub_link_up = false;
                self.stream.detach(source.part, source.watermark);
                source.watermark = EventId::ZERO;
            }
            Message::LinkUp => {
                source.hub_link_up = true;
                source.is_requested |= !self.stream.is_live(source.part);
            }
        }
        None
    }

    /// Requests the catch-ups that an item or the end of a catch-up has caused.
    fn request_again(&mut self, outcome: Outcome) {
        let Outcome::CatchUp(part, _) = outcome else { return };
        for source in &mut self.sources {
            source.is_requested |= part.includes(source.part) && source.hub_link_up;
        }
    }

    /// Queues a heartbeat if nothing is queued.
    pub fn heartbeat(&mut self) {
        if self.stream.is_empty() || !self.stream.is_split() {
            let last = self.sources.len() - 1;
            let watermark = |n: usize| self.sources[n].watermark;
            let watermark = StreamPosition { user: watermark(0), broadcasts: watermark(last) };
            self.stream.heartbeat(watermark, |id| control_events::heartbeat(id, 0).frame);
        }
    }

    /// The catch-up from a server advances by one step, if one is needed.
    pub fn catch_up(&mut self, server: usize, redis: &mut Redis) {
        let source = &mut self.sources[server];
        let part = source.part;
        if std::mem::take(&mut source.is_requested) {
            let (number, cursor) = self.stream.begin_catch_up(part);
            source.catch_up = Some(CatchUp { number, cursor, reading: None });
            return;
        }
        let current = source.catch_up.take();
        let is_current = |c: &CatchUp| self.stream.is_catching_up(part, c.number);
        let Some(mut c) = current.filter(is_current) else { return };
        match &mut c.reading {
            None => match self.take_watermark(server, redis) {
                Some(clock) => self.start(server, c, clock, redis),
                None => self.sources[server].catch_up = Some(c),
            },
            Some(_) => self.advance(server, c, redis),
        }
    }

    fn start(&mut self, server: usize, mut c: CatchUp, clock: ClockSnapshot, redis: &Redis) {
        let source = &mut self.sources[server];
        if std::mem::take(&mut source.has_time) {
            c.cursor = clock.in_epoch(c.cursor);
            self.stream.start_part_at(source.part, c.cursor);
        }
        let begin = match catch_up::start(Some(c.cursor), &clock, RETENTION_MS) {
            Start::Restart(reason) => {
                assert!(c.cursor.epoch > clock.h.epoch, "{} is past {}", c.cursor, clock.h);
                self.stream.require_snapshot(source.part);
                Begin::Restart(reason)
            }
            Start::Read { .. } if c.cursor >= clock.h => Begin::Nothing,
            Start::Read { reset, .. } => {
                let merge = Merge::new(c.cursor, &clock, source.channels.clone());
                Begin::Read { merge, reset, gap: None }
            }
        };
        let (identity, values) = (redis.identity(), WantedValues::Unknown);
        c.reading = Some(Reading { clock, identity, begin, first: None, values });
        source.catch_up = Some(c);
    }

    /// One step of what follows the snapshot.
    fn advance(&mut self, server: usize, mut c: CatchUp, redis: &Redis) {
        let Some(r) = &mut c.reading else { return };
        let part = self.sources[server].part;
        let is_same_server = r.identity == redis.identity();
        // Pooled connections reach the server of the link only; a whole stream does not need that,
        // to read logs.
        if self.stream.is_split() && !is_same_server {
            self.sources[server].is_requested = true;
            return;
        }
        if let (Begin::Read { merge, reset, gap }, None, WantedValues::Unknown) =
            (&mut r.begin, &r.first, &r.values)
        {
            let pages = pages(merge, redis, self.page);
            let gap_of = |(_, page): &(usize, _)| catch_up::gap(c.cursor, false, page);
            *gap = reset.then_some(GapReason::Reset).or_else(|| pages.iter().find_map(gap_of));
            if gap.is_some() {
                self.stream.require_snapshot(part);
            }
            r.first = Some(pages);
        } else if let WantedValues::Sent(sent) = &r.values {
            let (h, superseded) = (r.clock.h, sent.superseded());
            let Begin::Read { merge, .. } = &mut r.begin else { return self.finish(server, h) };
            if let Some(pages) = r.first.take() {
                for (n, page) in pages {
                    if merge.feed(n, page, true).is_err() {
                        self.sources[server].is_requested = true;
                        return;
                    }
                }
            } else if let Some(event) = merge.pop() {
                if !superseded.contains(&event) {
                    self.stream.replay(part, &event);
                }
            } else {
                let pages = pages(merge, redis, self.page);
                if pages.is_empty() {
                    return self.finish(server, h);
                }
                for (n, page) in pages {
                    if merge.feed(n, page, false).is_err() {
                        self.sources[server].is_requested = true;
                        return;
                    }
                }
            }
        } else if !is_same_server && self.stream.needs_snapshot(part) {
            self.sources[server].is_requested = true;
            return;
        } else {
            self.advance_values(server, &mut c, redis);
        }
        self.sources[server].catch_up = Some(c);
    }

    /// One step of reading and sending retained values.
    fn advance_values(&mut self, server: usize, c: &mut CatchUp, redis: &Redis) {
        let Some(r) = &mut c.reading else { return };
        let source = &self.sources[server];
        let (part, now_ms) = (source.part, redis.time_ms * STEP_MS);
        let sent = WantedValues::Sent(Retained::default());
        r.values = match std::mem::replace(&mut r.values, sent) {
            WantedValues::Unknown if !self.stream.needs_snapshot(part) => {
                self.send_values(server, r, redis, None);
                return;
            }
            WantedValues::Unknown => {
                let (mut missing, mut cached) = (Vec::new(), Vec::new());
                for channel in &source.channels {
                    let Channel::Broadcast(topic) = channel else { continue };
                    match self.cache.values(topic, now_ms).and_then(CachedValues::values) {
                        Some(values) => cached.push((channel.clone(), values)),
                        None => missing.push(topic.clone()),
                    }
                }
                WantedValues::Loading(self.cache.begin_values(missing), cached)
            }
            WantedValues::Loading(loading, cached) => {
                let is_missing = |c: &&Channel| cached.iter().all(|(cached, _)| cached != *c);
                let missing = source.channels.iter().filter(is_missing);
                let read = missing.map(|channel| (channel.clone(), redis.values(channel)));
                let read = read.collect();
                WantedValues::Read(loading, cached, read)
            }
            WantedValues::Read(loading, mut found, read) => {
                for (channel, mut values) in read {
                    let values = match &channel {
                        Channel::Broadcast(topic) => {
                            loading.set(topic, values, now_ms).values().expect("room")
                        }
                        Channel::User(_) => {
                            values.sort_by_key(|value| value.position);
                            values.into()
                        }
                    };
                    found.push((channel, values));
                }
                WantedValues::Ready(Retained::new(found, true, false).upto(r.clock.h))
            }
            WantedValues::Ready(values) => {
                self.send_values(server, r, redis, Some(&values));
                WantedValues::Sent(values)
            }
            sent @ WantedValues::Sent(_) => sent,
        };
    }

    fn send_values(
        &mut self,
        server: usize,
        r: &Reading,
        redis: &Redis,
        values: Option<&Retained>,
    ) {
        let source = &self.sources[server];
        let noticed = vec![redis.time_ms.to_string(), server.to_string()];
        match &r.begin {
            Begin::Restart(reason) => {
                let h = r.clock.h.into();
                self.stream.restart(source.part, *reason, noticed, None, h);
            }
            Begin::Read { gap: Some(reason), .. } => {
                self.stream.queue_gap(source.part, *reason, noticed);
            }
            _ => {}
        }
        let Some(values) = values else { return };
        let covers = source.channels.iter().map(ToString::to_string).collect();
        self.stream.queue_snapshot(source.part, values.keys(covers, |_| true));
        for value in values.in_order(|_| true) {
            self.stream.replay(source.part, &value.event);
        }
    }

    /// The queues of all streams are too long.
    pub fn shed(&mut self) {
        self.stream.drop_queue();
        for source in &mut self.sources {
            source.is_requested |= source.hub_link_up;
        }
    }

    fn finish(&mut self, server: usize, h: EventId) {
        let part = self.sources[server].part;
        if self.stream.needs_snapshot(part) {
            self.stream.end_snapshot(part, h, |id| control_events::heartbeat(id, 0).frame);
        }
        let outcome = self.stream.finish_catch_up(part, h);
        self.request_again(outcome);
        // A catch-up takes its own watermarks, also while the hub does not know of the link yet.
        self.sources[server].is_requested |= self.stream.is_detached(part);
    }
}

fn pages(merge: &Merge<Channel>, redis: &Redis, count: usize) -> Vec<(usize, Page)> {
    merge.wants().map(|(n, log, from)| (n, redis.read(log, from, count))).collect()
}
