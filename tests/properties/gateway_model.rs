//! A gateway with one stream: the steps of `redis::link`, `redis::inbound`, `state::hub` and
//! `redis::catch_up`, one at a time.

use std::{collections::VecDeque, sync::Arc};

use sse_gateway::core::{
    catch_up::{self, ClockSnapshot, Merge, Start},
    channel::Channel,
    event::Event,
    id::EventId,
    queue::Item,
    reasons::GapReason,
    stream_state::{Outcome, StreamState},
};

use crate::redis_model::{Push, Redis};

/// Long enough that nothing expires.
const RETENTION_MS: u64 = 1 << 40;

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
    generation: u64,
    cursor: EventId,
    /// `None`: the clock snapshot comes next.
    reading: Option<Reading>,
}

struct Reading {
    clock: ClockSnapshot,
    merge: Merge<Channel>,
    reset: bool,
    first: bool,
}

/// The model.
pub struct Gateway {
    channels: Vec<Channel>,
    page: usize,
    /// The highest id and the epoch that the link brought (`LinkState`).
    seen: EventId,
    epoch: u64,
    is_linked: bool,
    mailbox: VecDeque<Message>,
    hub_link_up: bool,
    watermark: EventId,
    pub stream: StreamState,
    /// The hub has ordered a catch-up.
    is_requested: bool,
    catch_up: Option<CatchUp>,
}

impl Gateway {
    /// A gateway that has not connected yet, with a stream at `cursor`.
    pub fn new(channels: &[Channel], page: usize, stream: StreamState) -> Self {
        Self {
            channels: channels.to_vec(),
            page,
            seen: EventId::ZERO,
            epoch: 0,
            is_linked: false,
            mailbox: VecDeque::new(),
            hub_link_up: false,
            watermark: EventId::ZERO,
            stream,
            is_requested: true,
            catch_up: None,
        }
    }

    /// Opens another stream after the link was closed; on a new instance, or on this one.
    pub fn reopen(&mut self, stream: StreamState, is_new: bool) {
        let mut next = Self::new(&self.channels, self.page, stream);
        if !is_new {
            (next.seen, next.epoch) = (self.seen, self.epoch);
        }
        *self = next;
    }

    /// The highest id that the link brought.
    pub fn seen(&self) -> EventId {
        self.seen
    }

    /// The next message arrives from Redis.
    pub fn receive(&mut self, redis: &mut Redis) {
        match redis.receive() {
            Some(Push::Event(event)) => {
                let id = event.id.unwrap_or(EventId::ZERO);
                self.enter_epoch(id);
                self.seen = self.seen.max(id);
                self.mailbox.push_back(Message::Event(Arc::new(event)));
            }
            Some(Push::Epoch(position)) => self.enter_epoch(position),
            None => {}
        }
    }

    fn enter_epoch(&mut self, position: EventId) {
        let is_new = self.epoch != 0 && position.epoch > self.epoch;
        self.epoch = self.epoch.max(position.epoch);
        if is_new {
            self.mailbox.push_back(Message::NewEpoch);
        }
    }

    /// Takes a watermark on the link.
    pub fn take_watermark(&mut self, redis: &mut Redis) -> Option<ClockSnapshot> {
        let clock = redis.watermark(self.seen).filter(|_| self.is_linked)?;
        while redis.has_messages() {
            self.receive(redis);
        }
        self.enter_epoch(clock.h);
        self.seen = self.seen.max(clock.h);
        self.mailbox.push_back(Message::Watermark(clock.h));
        Some(clock)
    }

    /// Closes the link.
    pub fn break_link(&mut self, redis: &mut Redis) {
        redis.set_link(false);
        if std::mem::take(&mut self.is_linked) {
            self.mailbox.push_back(Message::LinkDown);
        }
    }

    /// Notices that the link has ended, and sets up the next one.
    pub fn restore_link(&mut self, redis: &mut Redis) {
        if redis.is_linked() && self.is_linked {
            return;
        }
        self.break_link(redis);
        redis.set_link(true);
        self.is_linked = true;
        if self.take_watermark(redis).is_some() {
            self.mailbox.push_back(Message::LinkUp);
        }
    }

    /// The hub handles the next message of its mailbox.
    pub fn handle(&mut self) {
        match self.mailbox.pop_front() {
            Some(Message::Event(event)) => {
                let id = event.id.unwrap_or(EventId::ZERO);
                if let Outcome::CatchUp(_) = self.stream.offer(&Item::Event(event)) {
                    self.is_requested |= self.hub_link_up;
                }
                self.watermark = self.watermark.max(id);
            }
            Some(Message::NewEpoch) => {
                self.stream.detach(self.watermark);
                self.watermark = EventId::ZERO;
                self.is_requested |= self.hub_link_up;
            }
            Some(Message::Watermark(h)) => self.watermark = self.watermark.max(h),
            Some(Message::LinkDown) => {
                self.hub_link_up = false;
                self.stream.detach(self.watermark);
                self.watermark = EventId::ZERO;
            }
            Some(Message::LinkUp) => {
                self.hub_link_up = true;
                self.is_requested |= !self.stream.is_live();
            }
            None => {}
        }
    }

    /// Queues a heartbeat.
    pub fn heartbeat(&mut self) {
        self.stream
            .heartbeat(self.watermark, |id| sse_gateway::core::control_events::heartbeat(id, 0));
    }

    /// The catch-up advances by one step, if one is needed.
    pub fn catch_up(&mut self, redis: &mut Redis) {
        if std::mem::take(&mut self.is_requested) {
            let (generation, cursor) = self.stream.begin_catch_up();
            self.catch_up = Some(CatchUp { generation, cursor, reading: None });
            return;
        }
        let current = self.catch_up.take().filter(|c| self.stream.is_catching_up(c.generation));
        let Some(mut c) = current else { return };
        match &mut c.reading {
            None => match self.take_watermark(redis) {
                Some(clock) => self.start(c, clock, redis.time_ms),
                None => self.catch_up = Some(c),
            },
            Some(reading) => {
                if let Some(event) = reading.merge.pop() {
                    self.stream.replay(&event);
                    self.catch_up = Some(c);
                } else {
                    self.read(c, redis);
                }
            }
        }
    }

    fn start(&mut self, mut c: CatchUp, clock: ClockSnapshot, time_ms: u64) {
        match catch_up::start(Some(c.cursor), &clock, RETENTION_MS) {
            Start::Restart(reason) => {
                assert!(c.cursor.epoch > clock.h.epoch, "{} is past {}", c.cursor, clock.h);
                self.stream.restart(reason, Some(&time_ms.to_string()), clock.h);
                self.finish(clock.h);
            }
            Start::Read { .. } if c.cursor >= clock.h => self.finish(clock.h),
            Start::Read { reset, .. } => {
                let merge = Merge::new(c.cursor, &clock, self.channels.clone());
                c.reading = Some(Reading { clock, merge, reset, first: true });
                self.catch_up = Some(c);
            }
        }
    }

    fn read(&mut self, mut c: CatchUp, redis: &Redis) {
        let Some(Reading { clock, merge, reset, first }) = &mut c.reading else { return };
        let wanted: Vec<_> = merge.wants().map(|(n, log, from)| (n, log.clone(), from)).collect();
        if wanted.is_empty() {
            return self.finish(clock.h);
        }
        let read = |(n, log, from)| (n, redis.read(&log, from, self.page));
        let pages: Vec<_> = wanted.into_iter().map(read).collect();
        if *first {
            let mut gaps =
                pages.iter().filter_map(|(_, page)| catch_up::gap(c.cursor, false, page));
            let reset = reset.then_some(GapReason::Reset);
            if let Some(reason) = reset.or_else(|| gaps.next()) {
                self.stream.queue_gap(reason, vec![redis.time_ms.to_string()]);
            }
        }
        for (n, page) in pages {
            if merge.feed(n, page, *first).is_err() {
                self.is_requested = true;
                return;
            }
        }
        *first = false;
        self.catch_up = Some(c);
    }

    fn finish(&mut self, h: EventId) {
        if let Outcome::CatchUp(_) = self.stream.finish_catch_up(h) {
            self.is_requested = true;
        }
    }
}
