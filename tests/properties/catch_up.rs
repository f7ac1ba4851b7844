//! A stream receives every event after its cursor, in order, exactly once, or a gap that names the
//! affected channels, for any order of publishes, deliveries, writes, link failures, overflows and
//! trimming.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use sse_gateway::core::{
    catch_up::{self, ClockSnapshot, Merge, Start},
    channel::Channel,
    event::Event,
    id::EventId,
    queue::{Content, Item},
    stream_state::{Outcome, StreamState},
    system::GapReason,
};

use crate::redis_model::Redis;

/// Long enough that nothing expires.
const RETENTION_MS: u64 = 1 << 40;

#[derive(Clone, Debug)]
enum Action {
    Publish {
        channel: usize,
        payload_bytes: usize,
    },
    Trim {
        channel: usize,
    },
    /// A live message arrives at the gateway and is offered to the stream.
    Receive,
    /// The newest live message is lost without a link failure, and another is published on its
    /// channel, whose predecessor reveals the loss.
    Lose,
    /// The writer takes a frame, and the client receives it.
    Write,
    BreakLink,
    /// The link is restored, if it is down.
    RestoreLink,
    /// The catch-up advances by one step, if one is needed.
    CatchUp,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..3usize, 1..200usize)
            .prop_map(|(channel, payload_bytes)| Action::Publish { channel, payload_bytes }),
        1 => (0..3usize).prop_map(|channel| Action::Trim { channel }),
        6 => Just(Action::Receive),
        1 => Just(Action::Lose),
        4 => Just(Action::Write),
        1 => Just(Action::BreakLink),
        2 => Just(Action::RestoreLink),
        6 => Just(Action::CatchUp),
    ]
}

/// A catch-up in progress: the steps of `redis::catch_up`, one at a time.
struct CatchUp {
    generation: u64,
    cursor: EventId,
    clock: ClockSnapshot,
    merge: Merge<Channel>,
    first: bool,
}

struct Simulation {
    redis: Redis,
    channels: Vec<Channel>,
    stream: StreamState,
    catch_up: Option<CatchUp>,
    link_up: bool,
    page: usize,
    /// What the client received: ids of events, and gaps.
    received: Vec<EventId>,
    gaps: Vec<GapReason>,
    /// Whether a log was ever trimmed.
    trimmed: bool,
}

impl Simulation {
    fn new(queue_bytes: usize, page: usize) -> Self {
        let channels = ["user:1:events", "broadcast:a", "broadcast:b"];
        let names: Arc<[String]> = channels.iter().map(|name| (*name).to_owned()).collect();
        let channels = channels.iter().filter_map(|name| Channel::parse(name)).collect();
        let stream = StreamState::new(EventId::ZERO, queue_bytes, names);
        let mut redis = Redis::default();
        redis.set_link(true);
        let (received, gaps) = (Vec::new(), Vec::new());
        Self {
            redis,
            channels,
            stream,
            catch_up: None,
            link_up: true,
            page,
            received,
            gaps,
            trimmed: false,
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Publish { channel, payload_bytes } => {
                self.redis.publish(&self.channels[*channel], *payload_bytes);
            }
            Action::Trim { channel } => {
                self.trimmed = true;
                self.redis.trim(&self.channels[*channel]);
            }
            Action::Receive => {
                if let Some(event) = self.redis.receive() {
                    self.offer(event);
                }
            }
            Action::Lose => {
                if let Some(channel) = self.redis.lose_newest() {
                    self.redis.publish(&channel, 1);
                }
            }
            Action::Write => self.write(),
            Action::BreakLink => {
                self.redis.set_link(false);
                self.link_up = false;
                self.stream.detach(EventId::ZERO);
                self.catch_up = None;
            }
            Action::RestoreLink if !self.link_up => {
                self.redis.set_link(true);
                self.link_up = true;
            }
            Action::RestoreLink => {}
            Action::CatchUp => self.catch_up(),
        }
    }

    /// Offers an event. The hub would start a catch-up if the stream needs one; here the next
    /// `CatchUp` action does.
    fn offer(&mut self, event: Arc<Event>) {
        if let Outcome::CatchUp(_) = self.stream.offer(&Item::Event(event)) {
            self.catch_up = None;
        }
    }

    fn write(&mut self) {
        if let Some((frame, _)) = self.stream.take() {
            match frame.content {
                Content::Event(event) => self.received.extend(event.id),
                Content::Gap(gap) => self.gaps.push(gap.0.reason),
                Content::Control(_) => {}
            }
        }
    }

    fn catch_up(&mut self) {
        if !self.link_up || self.stream.is_live() {
            return;
        }
        let current = self.catch_up.take().filter(|c| self.stream.is_catching_up(c.generation));
        let Some(mut c) = current else { return self.begin() };
        let wanted: Vec<_> =
            c.merge.wants().map(|(n, channel, after)| (n, channel.clone(), after)).collect();
        for (n, channel, after) in &wanted {
            let page = self.redis.read(channel, *after, self.page);
            if c.first && catch_up::gap(c.cursor, false, &page) == Some(GapReason::Trimmed) {
                self.stream.tell_gap(GapReason::Trimmed, vec![channel.to_string()]);
            }
            if c.merge.feed(*n, page, c.first).is_err() {
                return;
            }
        }
        c.first = false;
        while let Some(event) = c.merge.pop() {
            self.stream.replay(&event);
        }
        if wanted.is_empty() {
            self.stream.finish_catch_up(c.clock.h);
        } else {
            self.catch_up = Some(c);
        }
    }

    fn begin(&mut self) {
        let (generation, cursor) = self.stream.begin_catch_up();
        let Some((received, clock)) = self.redis.watermark() else { return };
        received.into_iter().for_each(|event| self.offer(event));
        if !matches!(catch_up::start(Some(cursor), &clock, RETENTION_MS), Start::Read { .. }) {
            panic!("a cursor of this server is always readable");
        }
        let merge = Merge::new(cursor, clock.h, self.channels.clone());
        self.catch_up = Some(CatchUp { generation, cursor, clock, merge, first: true });
    }

    /// Delivers all messages in flight.
    fn settle(&mut self) {
        self.act(&Action::RestoreLink);
        let events = self.redis.published.len();
        for _ in 0..events * 4 + 32 {
            self.act(&Action::CatchUp);
            self.act(&Action::Receive);
            self.act(&Action::Write);
            self.act(&Action::Write);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn events_arrive_once_in_order_or_a_gap(
        actions in vec(action(), 1..120),
        queue_bytes in 300..4000usize,
        page in 1..6usize,
    ) {
        let mut s = Simulation::new(queue_bytes, page);
        for action in &actions {
            s.act(action);
        }
        s.settle();
        prop_assert!(s.received.is_sorted_by(|a, b| a < b), "order: {:?}", s.received);
        let missing = s.redis.published.iter().filter(|e| {
            e.id.is_some_and(|id| s.received.binary_search(&id).is_err())
        });
        let missing = missing.count();
        if !s.trimmed {
            prop_assert_eq!(missing, 0, "events are missing although no log was trimmed");
            prop_assert!(s.gaps.is_empty(), "unnecessary gaps: {:?}", s.gaps);
        }
        prop_assert!(missing == 0 || !s.gaps.is_empty(), "{} events lost silently", missing);
    }
}
