//! A client receives every event after its cursor, in order, exactly once, or a gap, for any order
//! of publishes, deliveries, writes, link failures, overflows, trimming, wipes, restarts and
//! fail-overs, and with any of two gateways. If the user's channel and the broadcasts are on two
//! servers, that is so for each of them. The retained values that it knows in the end are the
//! current ones, and none of them ever goes back to an earlier one.

mod action;
mod since;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use proptest::{collection::vec, prelude::*};
use sse_gateway::core::{
    channel::Channel,
    event::Event,
    event_options::Retain,
    id::{Cursor, EventId, StreamPosition},
    part::Part,
    queue::Content,
    reasons::GapReason,
    stream_state::StreamState,
};

use self::{
    action::{Action, Change, action, ordinary},
    since::Time,
};
use crate::{
    gateway_model::Gateway,
    redis_model::{Key, Published, Redis, number_of},
};

const CHANNELS: [&str; 3] = ["user:1:events", "broadcast:a", "broadcast:b"];

#[derive(Debug)]
struct Gap {
    /// The server whose catch-up noticed it.
    server: usize,
    reason: GapReason,
    /// The position in what that server has.
    from: EventId,
    /// When the gateway noticed it.
    at: u64,
}

/// What the client received, in order.
#[derive(Debug)]
enum Received {
    /// An event of a server.
    Event(usize, EventId),
    Position(StreamPosition),
    Gap(Gap),
    /// A retained value: its key, and the number of its event.
    Value(Key, usize),
}

/// A server, and what the simulation knows of it.
struct Server {
    redis: Redis,
    /// The highest position that a gateway knew, and the events that were accepted in an epoch
    /// before it, by a server that did not know of it.
    highest: EventId,
    overtaken: BTreeSet<EventId>,
}

struct Simulation {
    servers: Vec<Server>,
    channels: Vec<Channel>,
    queue_bytes: usize,
    gateway: Gateway,
    other_gateway: Gateway,
    received: Vec<Received>,
    /// The id that the client would send.
    last_id: Cursor,
    /// The retained values that the client knows.
    values: BTreeMap<Key, usize>,
    /// The newest change that it got of each key, and those that went back.
    newest: BTreeMap<Key, usize>,
    regressions: Vec<String>,
    next_number: usize,
    was_trimmed: bool,
    has_foreign: bool,
    time: Option<Time>,
}

/// What a position is in the order of a server. If there is only one, both parts are equal.
fn of(server: usize, position: StreamPosition) -> EventId {
    if server == 0 { position.user } else { position.broadcasts }
}

/// The server with a number.
fn server(servers: &mut [Server], n: usize) -> (usize, &mut Redis) {
    let n = n.min(servers.len() - 1);
    (n, &mut servers[n].redis)
}

impl Simulation {
    fn new(servers: usize, queue_bytes: usize, page: usize) -> Self {
        let channels: Vec<_> = CHANNELS.iter().filter_map(|name| Channel::parse(name)).collect();
        let server = |_| {
            let mut redis = Redis::new();
            redis.set_link(true);
            let highest = redis.watermark(EventId::ZERO).map_or(EventId::ZERO, |clock| clock.h);
            Server { redis, highest, overtaken: BTreeSet::new() }
        };
        let servers: Vec<_> = (0..servers).map(server).collect();
        let broadcasts = servers[servers.len() - 1].highest;
        let cursor = StreamPosition { user: servers[0].highest, broadcasts };
        let gateway =
            || Gateway::new(&channels, page, stream(cursor.into(), queue_bytes, servers.len() > 1));
        let mut simulation = Self {
            gateway: gateway(),
            other_gateway: gateway(),
            servers,
            channels: channels.clone(),
            queue_bytes,
            received: Vec::new(),
            last_id: cursor.into(),
            values: BTreeMap::new(),
            newest: BTreeMap::new(),
            regressions: Vec::new(),
            next_number: 0,
            was_trimmed: false,
            has_foreign: false,
            time: None,
        };
        (0..2).for_each(|server| simulation.act(&Action::RestoreLink(server)));
        simulation
    }

    /// The server that has a channel.
    fn server_of(&self, channel: &Channel) -> usize {
        if let Channel::User(_) = channel { 0 } else { self.servers.len() - 1 }
    }

    fn act(&mut self, action: &Action) {
        self.servers.iter_mut().for_each(|server| server.redis.time_ms += 1);
        let gateway = &mut self.gateway;
        let servers = &mut self.servers;
        match action {
            Action::Publish { channel, payload_bytes, change } => {
                self.publish(&self.channels[*channel].clone(), *payload_bytes, *change);
            }
            Action::Trim { channel } => {
                let channel = &self.channels[*channel];
                let server = self.server_of(channel);
                self.was_trimmed |= self.servers[server].redis.trim(channel);
            }
            Action::AppendForeign { channel } => {
                self.has_foreign = true;
                let channel = &self.channels[*channel];
                let server = self.server_of(channel);
                self.servers[server].redis.append_foreign(channel);
            }
            Action::Receive(n) => {
                let (n, redis) = server(servers, *n);
                gateway.receive(n, redis);
            }
            Action::Handle => {
                if let Some(event) = gateway.handle() {
                    self.receive(&event);
                }
            }
            Action::Lose(n) => {
                if let Some(channel) = server(servers, *n).1.lose_newest() {
                    self.publish(&channel, 1, None);
                }
            }
            Action::Write => self.write(),
            Action::Heartbeat => gateway.heartbeat(),
            Action::Watermark(n) => {
                let (n, redis) = server(servers, *n);
                let _ = gateway.take_watermark(n, redis);
            }
            Action::BreakLink(n) => {
                let (n, redis) = server(servers, *n);
                gateway.break_link(n, redis);
            }
            Action::RestoreLink(n) => {
                let (n, redis) = server(servers, *n);
                gateway.restore_link(n, redis);
            }
            Action::CatchUp(n) => {
                let (n, redis) = server(servers, *n);
                gateway.catch_up(n, redis);
            }
            Action::Wipe(n) => server(servers, *n).1.wipe(),
            Action::Reload(n) => server(servers, *n).1.reload(),
            Action::FailOver(n, failover) => server(servers, *n).1.fail_over(failover),
            Action::Restart { server: n, ahead_ms } => {
                server(servers, *n).1.restart(*ahead_ms);
            }
            Action::Reconnect { is_new, has_values } => self.reconnect(*is_new, *has_values),
            Action::Shed => gateway.shed(),
        }
        for (n, server) in self.servers.iter_mut().enumerate() {
            server.highest = server.highest.max(self.gateway.seen(n));
        }
        self.follow_time();
    }

    fn publish(&mut self, channel: &Channel, payload_bytes: usize, change: Option<Change>) {
        let server = self.server_of(channel);
        let server = &mut self.servers[server];
        self.next_number += 1;
        let retain = change.map(|Change { key, is_kept }| {
            let key = format!("k{key}").into();
            if is_kept { Retain::Keep(key) } else { Retain::Forget(key) }
        });
        let id = server.redis.publish(channel, self.next_number, payload_bytes, retain);
        if id.epoch < server.highest.epoch {
            server.overtaken.insert(id);
        }
    }

    fn receive(&mut self, event: &Event) {
        self.change_value(event);
        let server = self.server_of(&event.channel);
        let Some(id) = event.id else {
            let key = event.retain().expect("a retained value").key().to_owned();
            let value = Received::Value((event.channel.clone(), key), number_of(event));
            return self.received.push(value);
        };
        self.last_id = self.gateway.stream.named_cursor();
        assert_eq!(of(server, self.last_id.position), id, "the cursor is the event");
        self.received.push(Received::Event(server, id));
    }

    fn write(&mut self) {
        let Some((frame, _)) = self.gateway.stream.take() else { return };
        let cursor = self.gateway.stream.named_cursor();
        match frame.content {
            Content::Event(event) => self.receive(&event),
            Content::Gap(gap) => {
                let number = |n: usize| gap.gap.channels[n].parse().expect("a number");
                let (at, server) = (number(0), number(1) as usize);
                let from = StreamPosition::parse(&gap.gap.from).expect("a position");
                let from = of(server, from);
                self.received.push(Received::Gap(Gap { server, reason: gap.gap.reason, from, at }));
                if gap.restart.is_some() {
                    self.last_id = cursor;
                }
            }
            Content::Snapshot(snapshot) => {
                let keys = snapshot.keys;
                let remains = |(channel, key): &Key, _: &mut usize| {
                    let channel = channel.to_string();
                    let listed = keys.channels.get(&channel);
                    !keys.covers.contains(&channel)
                        || listed.is_some_and(|keys| keys.iter().any(|k| **k == **key))
                };
                self.values.retain(remains);
                // The events of a key that was forgotten follow.
                self.newest.retain(remains);
            }
            Content::Control(_) => {
                self.last_id = cursor;
                self.received.push(Received::Position(self.last_id.position));
            }
        }
    }

    fn reconnect(&mut self, is_new: bool, has_values: bool) {
        if !has_values {
            self.values.clear();
            self.last_id.is_incomplete = true;
        }
        for (n, server) in self.servers.iter_mut().enumerate() {
            self.gateway.break_link(n, &mut server.redis);
        }
        std::mem::swap(&mut self.gateway, &mut self.other_gateway);
        let stream = stream(self.last_id, self.queue_bytes, self.servers.len() > 1);
        self.gateway.reopen(stream, is_new);
        for (n, server) in self.servers.iter_mut().enumerate() {
            self.gateway.restore_link(n, &mut server.redis);
        }
    }

    /// Delivers everything that can be delivered.
    fn settle(&mut self) {
        let published: usize = self.servers.iter().map(|s| s.redis.published.len()).sum();
        for _ in 0..published * 6 + 64 {
            for server in 0..self.servers.len() {
                let steps = [
                    Action::RestoreLink(server),
                    Action::Watermark(server),
                    Action::CatchUp(server),
                    Action::CatchUp(server),
                    Action::Receive(server),
                ];
                steps.iter().for_each(|step| self.act(step));
                (0..3).for_each(|_| self.act(&Action::Handle));
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

    /// Every event of a server arrived once. Positions rise, except where the stream, or its part,
    /// was restarted. A part of a split stream may go back to a lower epoch, with `reset`.
    fn check_order(&self, server: usize) -> Result<(), TestCaseError> {
        let (mut last, mut ids) = (BTreeMap::new(), BTreeSet::new());
        let order = |id: EventId| if self.servers.len() > 1 { id.epoch } else { 0 };
        for received in &self.received {
            let id = match received {
                Received::Event(n, id) if *n == server => {
                    prop_assert!(ids.insert(*id), "{} twice: {:?}", id, self.received);
                    let is_later = last.get(&order(*id)).is_none_or(|last| id > last);
                    prop_assert!(is_later, "{} is late: {:?}", id, self.received);
                    *id
                }
                Received::Position(position) => of(server, *position),
                Received::Gap(gap) if gap.server == server => {
                    if gap.reason == GapReason::UnknownId {
                        last.clear();
                    }
                    continue;
                }
                Received::Event(..) | Received::Gap(_) | Received::Value(..) => continue,
            };
            let is_later = last.insert(order(id), id).is_none_or(|last| id >= last);
            prop_assert!(is_later, "{} is late: {:?}", id, self.received);
        }
        Ok(())
    }

    /// Every event that is still in a log arrived, and the others are before a gap that the gateway
    /// noticed after they were lost.
    fn check_missing(&self, n: usize, epochs_change: bool) -> Result<(), TestCaseError> {
        let server = &self.servers[n];
        let received = |wanted: EventId| {
            self.received
                .iter()
                .any(|r| matches!(r, Received::Event(from, id) if *from == n && *id == wanted))
        };
        // The client has a later value of its key.
        let mut values = BTreeMap::<&Key, usize>::new();
        for received in &self.received {
            if let Received::Value(key, number) = received {
                let newest = values.entry(key).or_default();
                *newest = (*newest).max(*number);
            }
        }
        let is_superseded = |e: &Published| {
            let value = e.key.as_ref().and_then(|key| values.get(key));
            value.is_some_and(|value| *value >= e.number)
        };
        let is_due = |e: &Published| !epochs_change || !self.is_lost_unknown(n, e.lost_at);
        let missing = |e: &&Published| {
            self.is_wanted(n, e.id) && is_due(e) && !received(e.id) && !is_superseded(e)
        };
        for event in server.redis.published.iter().filter(missing) {
            let is_overtaken = server.overtaken.contains(&event.id);
            // An overtaken event is lost from the beginning, even if its log has it for a while.
            let since = event.lost_at.filter(|_| !is_overtaken).unwrap_or(event.at);
            let own_gaps = || self.gaps().filter(|gap| gap.server == n);
            let mut skipped = own_gaps().filter(|gap| gap.reason == GapReason::UnknownId);
            let may_be_missing =
                event.lost_at.is_some() || is_overtaken || skipped.any(|gap| gap.at >= event.at);
            prop_assert!(may_be_missing, "{} is in a log: {:?}", event.id, self.received);
            let covers = |gap: &Gap| match gap.reason {
                GapReason::Trimmed => gap.at >= since && gap.from < event.id,
                // A part of a split stream skips it, if its server went back to a lower epoch.
                GapReason::Reset if self.servers.len() > 1 && is_overtaken => gap.at >= event.at,
                _ => gap.at >= since,
            };
            let mut gaps = own_gaps();
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
                GapReason::Reset => epochs_change && !gap.from.is_time(),
                GapReason::UnknownId => epochs_change,
                _ => false,
            };
            prop_assert!(is_possible, "{:?}: {:?}", gap, self.received);
        }
        Ok(())
    }
}

fn stream(cursor: Cursor, queue_bytes: usize, is_split: bool) -> StreamState {
    let names: Vec<_> = CHANNELS.iter().map(|name| (*name).to_owned()).collect();
    let mut stream = StreamState::new(cursor.position.user, queue_bytes, Rc::new(names));
    if is_split {
        stream.split();
        stream.start_at(cursor.position);
    }
    if cursor.is_incomplete {
        stream.require_snapshot(Part::Whole);
    }
    stream
}

fn check(
    actions: &[Action],
    servers: usize,
    queue_bytes: usize,
    page: usize,
    epochs_change: bool,
) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new(servers, queue_bytes, page);
    actions.iter().for_each(|action| simulation.act(action));
    simulation.settle();
    check_stream(&simulation, epochs_change)
}

fn check_stream(simulation: &Simulation, epochs_change: bool) -> Result<(), TestCaseError> {
    for server in 0..simulation.servers.len() {
        simulation.check_order(server)?;
        simulation.check_missing(server, epochs_change)?;
    }
    // A stream that begins at a time gets no values.
    if simulation.time.is_none() {
        simulation.check_values(epochs_change)?;
    }
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
        check(&actions, 1, queue_bytes, page, false)?;
    }

    #[test]
    fn new_epochs_lose_no_event_that_is_left(
        actions in vec(action(), 1..150),
        queue_bytes in 300..4000usize,
        page in 1..6usize,
    ) {
        check(&actions, 1, queue_bytes, page, true)?;
    }

    #[test]
    fn events_of_two_servers_arrive_once_each_in_order_or_a_gap(
        actions in vec(ordinary(), 1..150),
        queue_bytes in 300..4000usize,
        page in 1..6usize,
    ) {
        check(&actions, 2, queue_bytes, page, false)?;
    }

    #[test]
    fn new_epochs_of_two_servers_are_independent(
        actions in vec(action(), 1..150),
        queue_bytes in 300..4000usize,
        page in 1..6usize,
    ) {
        check(&actions, 2, queue_bytes, page, true)?;
    }
}
