//! A client receives every event after its cursor, in order, exactly once, or a gap, for any order
//! of publishes, deliveries, writes, link failures, overflows, trimming, wipes, restarts and
//! fail-overs, and with any of two gateways.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{collection::vec, prelude::*};
use sse_gateway::core::{
    channel::Channel, id::EventId, queue::Content, reasons::GapReason, stream_state::StreamState,
};

use crate::{
    gateway_model::Gateway,
    redis_model::{Failover, Redis},
};

const CHANNELS: [&str; 3] = ["user:1:events", "broadcast:a", "broadcast:b"];

#[derive(Clone, Debug)]
enum Action {
    Publish {
        channel: usize,
        payload_bytes: usize,
    },
    Trim {
        channel: usize,
    },
    AppendForeign {
        channel: usize,
    },
    /// A message arrives at the gateway.
    Receive,
    /// The hub handles a message.
    Handle,
    /// The newest live message is lost without a link failure, and another is published on its
    /// channel, whose predecessor reveals the loss.
    Lose,
    /// The writer takes a frame, and the client receives it.
    Write,
    Heartbeat,
    Watermark,
    BreakLink,
    /// The link is restored, if it is down.
    RestoreLink,
    /// The catch-up advances by one step, if one is needed.
    CatchUp,
    Wipe,
    Reload,
    FailOver(Failover),
    /// A failover or restart that loses nothing, which the gateway can prove.
    Restart {
        ahead_ms: u64,
    },
    /// The client reconnects to the other gateway, which may have been restarted.
    Reconnect {
        is_new: bool,
    },
}

fn failover() -> impl Strategy<Value = Action> {
    let ahead_ms = prop_oneof![Just(100), 0..200u64];
    let parts = ([0..4usize, 0..4, 0..4], any::<bool>(), ahead_ms, any::<bool>());
    parts.prop_map(|(lost, loses_node, ahead_ms, is_failback)| {
        Action::FailOver(Failover { lost, loses_node, ahead_ms, is_failback })
    })
}

/// An action that changes neither logs nor epochs, except by publishing and trimming.
fn ordinary() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..3usize, 1..200usize)
            .prop_map(|(channel, payload_bytes)| Action::Publish { channel, payload_bytes }),
        1 => (0..3usize).prop_map(|channel| Action::Trim { channel }),
        1 => (0..3usize).prop_map(|channel| Action::AppendForeign { channel }),
        6 => Just(Action::Receive),
        6 => Just(Action::Handle),
        1 => Just(Action::Lose),
        4 => Just(Action::Write),
        1 => Just(Action::Heartbeat),
        2 => Just(Action::Watermark),
        1 => Just(Action::BreakLink),
        2 => Just(Action::RestoreLink),
        8 => Just(Action::CatchUp),
        1 => Just(Action::Reload),
        1 => any::<bool>().prop_map(|is_new| Action::Reconnect { is_new }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => ordinary(),
        1 => Just(Action::Wipe),
        2 => failover(),
        1 => (90..110u64).prop_map(|ahead_ms| Action::Restart { ahead_ms }),
    ]
}

#[derive(Debug)]
struct Gap {
    reason: GapReason,
    /// `None` if the stream was restarted.
    from: Option<EventId>,
    /// When the gateway noticed it.
    at: u64,
}

/// What the client received, in order.
#[derive(Debug)]
enum Received {
    Event(EventId),
    Position(EventId),
    Gap(Gap),
}

struct Simulation {
    redis: Redis,
    channels: Vec<Channel>,
    queue_bytes: usize,
    gateway: Gateway,
    other_gateway: Gateway,
    received: Vec<Received>,
    /// The id that the client would send.
    last_id: EventId,
    /// The highest position that a gateway knew, and the events that were accepted in an epoch
    /// before it, by a server that did not know of it.
    highest: EventId,
    overtaken: BTreeSet<EventId>,
    was_trimmed: bool,
    has_foreign: bool,
}

impl Simulation {
    fn new(queue_bytes: usize, page: usize) -> Self {
        let channels: Vec<_> = CHANNELS.iter().filter_map(|name| Channel::parse(name)).collect();
        let mut redis = Redis::new();
        redis.set_link(true);
        let cursor = redis.watermark(EventId::ZERO).map_or(EventId::ZERO, |clock| clock.h);
        let gateway = || Gateway::new(&channels, page, stream(cursor, queue_bytes));
        let mut simulation = Self {
            gateway: gateway(),
            other_gateway: gateway(),
            redis,
            channels: channels.clone(),
            queue_bytes,
            received: Vec::new(),
            last_id: cursor,
            highest: cursor,
            overtaken: BTreeSet::new(),
            was_trimmed: false,
            has_foreign: false,
        };
        simulation.act(&Action::RestoreLink);
        simulation
    }

    fn act(&mut self, action: &Action) {
        self.redis.time_ms += 1;
        let redis = &mut self.redis;
        match action {
            Action::Publish { channel, payload_bytes } => {
                self.publish(&self.channels[*channel].clone(), *payload_bytes);
            }
            Action::Trim { channel } => self.was_trimmed |= redis.trim(&self.channels[*channel]),
            Action::AppendForeign { channel } => {
                self.has_foreign = true;
                redis.append_foreign(&self.channels[*channel]);
            }
            Action::Receive => self.gateway.receive(redis),
            Action::Handle => self.gateway.handle(),
            Action::Lose => {
                if let Some(channel) = redis.lose_newest() {
                    self.publish(&channel, 1);
                }
            }
            Action::Write => self.write(),
            Action::Heartbeat => self.gateway.heartbeat(),
            Action::Watermark => drop(self.gateway.take_watermark(redis)),
            Action::BreakLink => self.gateway.break_link(redis),
            Action::RestoreLink => self.gateway.restore_link(redis),
            Action::CatchUp => self.gateway.catch_up(redis),
            Action::Wipe => redis.wipe(),
            Action::Reload => redis.reload(),
            Action::FailOver(failover) => redis.fail_over(failover),
            Action::Restart { ahead_ms } => redis.restart(*ahead_ms),
            Action::Reconnect { is_new } => self.reconnect(*is_new),
        }
        self.highest = self.highest.max(self.gateway.seen());
    }

    fn publish(&mut self, channel: &Channel, payload_bytes: usize) {
        let id = self.redis.publish(channel, payload_bytes);
        if id.epoch < self.highest.epoch {
            self.overtaken.insert(id);
        }
    }

    fn write(&mut self) {
        let Some((frame, _)) = self.gateway.stream.take() else { return };
        match frame.content {
            Content::Event(event) => {
                self.last_id = event.id.unwrap_or_default();
                self.received.push(Received::Event(self.last_id));
            }
            Content::Gap(gap) => {
                let gap = gap.0;
                let noticed_at =
                    gap.channels.first().filter(|_| gap.reason != GapReason::UnknownId);
                let at = noticed_at.unwrap_or(&gap.from).parse().unwrap_or(0);
                let from = EventId::parse(&gap.from);
                self.received.push(Received::Gap(Gap { reason: gap.reason, from, at }));
                self.last_id = frame.upto.unwrap_or(self.last_id);
            }
            Content::Control(_) => {
                self.last_id = frame.upto.unwrap_or(self.last_id);
                self.received.push(Received::Position(self.last_id));
            }
        }
    }

    fn reconnect(&mut self, is_new: bool) {
        self.gateway.break_link(&mut self.redis);
        std::mem::swap(&mut self.gateway, &mut self.other_gateway);
        self.gateway.reopen(stream(self.last_id, self.queue_bytes), is_new);
        self.gateway.restore_link(&mut self.redis);
    }

    /// Delivers everything that can be delivered.
    fn settle(&mut self) {
        for _ in 0..self.redis.published.len() * 6 + 64 {
            let steps = [Action::RestoreLink, Action::Watermark, Action::CatchUp, Action::CatchUp];
            steps.iter().for_each(|step| self.act(step));
            for step in [Action::Receive, Action::Handle, Action::Handle, Action::Handle] {
                self.act(&step);
            }
            self.act(&Action::Write);
            self.act(&Action::Write);
        }
    }

    fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.received
            .iter()
            .filter_map(|r| if let Received::Gap(gap) = r { Some(gap) } else { None })
    }

    /// Every event arrived once. Positions rise, except where the stream was restarted.
    fn check_order(&self) -> Result<(), TestCaseError> {
        let (mut last, mut ids) = (EventId::ZERO, BTreeSet::new());
        for received in &self.received {
            match received {
                Received::Event(id) => {
                    prop_assert!(*id > last, "{} after {}: {:?}", id, last, self.received);
                    prop_assert!(ids.insert(*id), "{} twice: {:?}", id, self.received);
                    last = *id;
                }
                Received::Position(id) => {
                    prop_assert!(*id >= last, "{} after {}: {:?}", id, last, self.received);
                    last = *id;
                }
                Received::Gap(gap) if gap.reason == GapReason::UnknownId => last = EventId::ZERO,
                Received::Gap(_) => {}
            }
        }
        Ok(())
    }

    /// Every event that is still in a log arrived, and the others are before a gap that the gateway
    /// noticed after they were lost.
    fn check_missing(&self) -> Result<(), TestCaseError> {
        let received = |wanted: EventId| {
            self.received.iter().any(|r| matches!(r, Received::Event(id) if *id == wanted))
        };
        for event in self.redis.published.iter().filter(|e| !received(e.id)) {
            // An overtaken event is lost from the beginning, even if its log has it for a while.
            let lost_at = event.lost_at.filter(|_| !self.overtaken.contains(&event.id));
            let since = lost_at.unwrap_or(event.at);
            let mut gaps = self.gaps().filter(|gap| gap.at >= since);
            let mut skipped = self.gaps().filter(|gap| gap.reason == GapReason::UnknownId);
            let may_be_missing = event.lost_at.is_some()
                || self.overtaken.contains(&event.id)
                || skipped.any(|gap| gap.at >= event.at);
            prop_assert!(may_be_missing, "{} is in a log: {:?}", event.id, self.received);
            let covers = |gap: &Gap| match gap.reason {
                GapReason::Trimmed => gap.from.is_some_and(|from| from < event.id),
                _ => true,
            };
            prop_assert!(
                gaps.any(covers),
                "{} was lost silently at {}: {:?}",
                event.id,
                since,
                self.received
            );
        }
        Ok(())
    }

    /// No gap without a cause.
    fn check_gaps(&self, epochs_change: bool) -> Result<(), TestCaseError> {
        for gap in self.gaps() {
            let is_possible = match gap.reason {
                // The epoch of a foreign entry is not known: a catch-up that began before the
                // fail-over may take an event behind it for the rest of a trimmed log.
                GapReason::Trimmed => self.was_trimmed || (self.has_foreign && epochs_change),
                GapReason::Reset | GapReason::UnknownId => epochs_change,
                _ => false,
            };
            prop_assert!(is_possible, "{:?}: {:?}", gap, self.received);
        }
        Ok(())
    }
}

fn stream(cursor: EventId, queue_bytes: usize) -> StreamState {
    let names: Arc<[String]> = CHANNELS.iter().map(|name| (*name).to_owned()).collect();
    StreamState::new(cursor, queue_bytes, names)
}

fn check(
    actions: &[Action],
    queue_bytes: usize,
    page: usize,
    epochs_change: bool,
) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new(queue_bytes, page);
    actions.iter().for_each(|action| simulation.act(action));
    simulation.settle();
    simulation.check_order()?;
    simulation.check_missing()?;
    simulation.check_gaps(epochs_change)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn events_arrive_once_in_order_or_a_gap(
        actions in vec(ordinary(), 1..150),
        queue_bytes in 300..4000usize,
        page in 1..6usize,
    ) {
        check(&actions, queue_bytes, page, false)?;
    }

    #[test]
    fn new_epochs_lose_no_event_that_is_left(
        actions in vec(action(), 1..150),
        queue_bytes in 300..4000usize,
        page in 1..6usize,
    ) {
        check(&actions, queue_bytes, page, true)?;
    }
}
