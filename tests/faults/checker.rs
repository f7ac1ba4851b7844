//! Compares what a client received with what was acknowledged.
//!
//! An event is **due** to a client if its first attempt began after the client's first
//! `sse.connected`. A due event that was acknowledged and not received is **lost**. The loss is
//! **notified** if the client got an `sse.gap` for its channel after the first attempt, and before
//! any later event of the same order. A gap is **necessary** if it notifies of a loss, or if the
//! round's faults may lose events so that nothing can prove the opposite ([`Rules::allowed`]).

use crate::client::{Client, Log, Received};
use crate::harness::{Event, Id};
use crate::journal::{Kind, Publish};
use crate::kept::{self, Values};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

/// What the faults of a round permit.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Gap reasons that are necessary although nothing may turn out to be lost.
    pub allowed: HashSet<&'static str>,
    /// Only these users may get `reset`; `None`: all may. A recorder cannot know which plain
    /// messages the bus of a cluster has lost, so `unrecorded` is for all.
    pub affected: Option<HashSet<String>>,
    /// Gap reasons that are reported and make no round fail: whether a recorder kept its lease is a
    /// question of timing on a machine that is too busy.
    pub tolerated: HashSet<&'static str>,
    /// Gateways end streams.
    pub ends_streams: bool,
    /// Redis may discard what it acknowledged, with the idempotency keys. A publisher that repeats
    /// an event because it got no reply then publishes it a second time, with another id.
    pub discards: bool,
    /// Events with `UNSEEN` wait for the clock of Redis, which was set back.
    pub delays_unseen: bool,
}

impl Rules {
    /// The rules of several faults in one round.
    pub fn add(&mut self, other: Rules) {
        self.allowed.extend(other.allowed);
        self.tolerated.extend(other.tolerated);
        self.ends_streams |= other.ends_streams;
        self.discards |= other.discards;
        self.delays_unseen |= other.delays_unseen;
    }
}

/// How events are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One order of all events.
    Total,
    /// One order of the user's events, and one of all broadcasts.
    PerSource,
}

/// The result of one or several clients. Each text names the client and the event.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Number of deliveries that were due.
    pub due: usize,
    /// Lost, and the client was notified.
    pub notified: usize,
    /// Durable or of the outbox, lost and notified, although no fault of the round discards it.
    pub kept: Vec<String>,
    /// Lost without notification.
    pub silent: Vec<String>,
    pub duplicated: Vec<String>,
    pub disordered: Vec<String>,
    pub unnecessary: Vec<String>,
    /// Unnecessary, and tolerated.
    pub tolerated: usize,
    pub broken: Vec<String>,
    /// Retained values of a client that differ from those in Redis.
    pub outdated: Vec<String>,
    /// Users whose presence the events or the gateways got wrong.
    pub presence: Vec<String>,
    /// Undelivered events that are missing or stored twice.
    pub undelivered: Vec<String>,
    /// Number of gaps by reason.
    pub gaps: HashMap<String, usize>,
    /// The time to the first delivery after the recovery began.
    pub recovery: Vec<Duration>,
    /// The time from the end of a user's only stream to `sse.offline`.
    pub offline: Vec<Duration>,
}

impl Findings {
    /// Whether nothing is wrong. Notified losses are not wrong.
    pub fn is_good(&self) -> bool {
        let all = [&self.kept, &self.silent, &self.duplicated, &self.disordered];
        all.iter().all(|list| list.is_empty())
            && self.unnecessary.is_empty()
            && self.broken.is_empty()
            && self.outdated.is_empty()
            && self.presence.is_empty()
            && self.undelivered.is_empty()
    }

    /// Adds those of another client.
    pub fn add(&mut self, other: Findings) {
        self.due += other.due;
        self.notified += other.notified;
        self.tolerated += other.tolerated;
        self.kept.extend(other.kept);
        self.silent.extend(other.silent);
        self.duplicated.extend(other.duplicated);
        self.disordered.extend(other.disordered);
        self.unnecessary.extend(other.unnecessary);
        self.broken.extend(other.broken);
        self.outdated.extend(other.outdated);
        self.presence.extend(other.presence);
        self.undelivered.extend(other.undelivered);
        self.recovery.extend(other.recovery);
        self.offline.extend(other.offline);
        for (reason, count) in other.gaps {
            *self.gaps.entry(reason).or_default() += count;
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} due, {} lost and notified, gaps {:?}", self.due, self.notified, self.gaps)?;
        let lists = [
            ("lost although kept", &self.kept),
            ("lost without notification", &self.silent),
            ("duplicated", &self.duplicated),
            ("out of order", &self.disordered),
            ("unnecessary gaps", &self.unnecessary),
            ("broken streams", &self.broken),
            ("outdated values", &self.outdated),
            ("presence wrong", &self.presence),
            ("undelivered events missing or repeated", &self.undelivered),
        ];
        for (name, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            write!(f, "\n{}: {name}:", list.len())?;
            list.iter().take(8).try_for_each(|text| write!(f, "\n    {text}"))?;
        }
        Ok(())
    }
}

/// The number in an event's payload; `None` for events of the gateway.
pub fn number(event: &Event) -> Option<u64> {
    let rest = event.data.strip_prefix("{\"n\":")?;
    rest[..rest.find([',', '}'])?].parse().ok()
}

/// A gap that a client received.
struct Gap {
    /// Its index in the client's log.
    index: usize,
    at: Instant,
    reason: String,
    channels: Vec<String>,
    /// Whether it notifies of a loss.
    is_needed: bool,
}

impl Gap {
    fn of(index: usize, received: &Received) -> Option<Gap> {
        if received.event.event != "sse.gap" {
            return None;
        }
        let data = received.event.json();
        let channels = data["channels"].as_array().cloned().unwrap_or_default();
        let channels = channels.iter().filter_map(|name| name.as_str().map(str::to_owned));
        let reason = data["reason"].as_str().unwrap_or_default().to_owned();
        let channels = channels.collect();
        Some(Gap { index, at: received.at, reason, channels, is_needed: false })
    }

    fn covers(&self, channel: &str) -> bool {
        self.channels.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => channel.starts_with(prefix),
            None => name == channel,
        })
    }
}

/// What a client received of the round's events: its index in the log, the event, the publish.
struct Delivery<'a> {
    index: usize,
    event: &'a Event,
    publish: &'a Publish,
}

impl Delivery<'_> {
    fn position(&self) -> Option<Id> {
        let own = self.event.id.as_deref().and_then(|id| id.parse().ok());
        own.or(self.publish.position)
    }
}

/// Checks one client. `events` are those of the round, with consecutive numbers; `recovered` is the
/// moment from which the recovery counts.
pub fn check(
    client: &Client,
    log: &Log,
    events: &[Publish],
    rules: &Rules,
    order: Order,
    recovered: Instant,
) -> Findings {
    let mut findings = Findings::default();
    let first = events.first().map_or(0, |event| event.number);
    let publish = |number: u64| events.get(number.checked_sub(first)? as usize);
    let deliveries: Vec<Delivery> = log
        .received
        .iter()
        .enumerate()
        .filter(|(_, received)| !kept::is_value(&received.event))
        .filter_map(|(index, received)| {
            let publish = publish(number(&received.event)?)?;
            Some(Delivery { index, event: &received.event, publish })
        })
        .collect();
    let all = log.received.iter().enumerate();
    let mut gaps: Vec<Gap> = all.filter_map(|(index, received)| Gap::of(index, received)).collect();
    let name = &client.user;
    find_losses(client, log, events, &deliveries, &mut gaps, &mut findings, rules, order);
    find_duplicates(name, &deliveries, rules, order, &mut findings);
    find_disorder(name, &deliveries, order, &mut findings);
    for gap in &gaps {
        *findings.gaps.entry(gap.reason.clone()).or_default() += 1;
        let is_affected = gap.reason == "unrecorded"
            || rules.affected.as_ref().is_none_or(|users| users.contains(name));
        if gap.is_needed || (is_affected && rules.allowed.contains(gap.reason.as_str())) {
            continue;
        }
        if rules.tolerated.contains(gap.reason.as_str()) {
            findings.tolerated += 1;
        } else {
            let text = format!("{name}: {}", log.received[gap.index].event);
            findings.unnecessary.push(text);
        }
    }
    findings.broken.extend(log.broken.iter().map(|status| format!("{name}: {status}")));
    if !rules.ends_streams && !log.ended.is_empty() {
        findings.broken.push(format!("{name}: ended {} times", log.ended.len()));
    }
    let after = deliveries.iter().map(|delivery| log.received[delivery.index].at);
    let after = after.filter(|at| *at >= recovered).min();
    findings.recovery.extend(after.map(|at| at - recovered));
    findings
}

/// Compares the retained values of a client with those in Redis.
pub fn check_values(client: &Client, current: &Values) -> Findings {
    let known = client.read(|log| log.values.clone());
    let all: HashSet<_> = known.keys().chain(current.keys()).collect();
    let differs =
        all.into_iter().filter(|key| client.wants(&key.0) && known.get(*key) != current.get(*key));
    let text = |key: &(String, String)| {
        format!("{}: {key:?} is {:?}, not {:?}", client.user, current.get(key), known.get(key))
    };
    Findings { outdated: differs.map(text).collect(), ..Findings::default() }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one comparison")]
fn find_losses(
    client: &Client,
    log: &Log,
    events: &[Publish],
    deliveries: &[Delivery],
    gaps: &mut [Gap],
    findings: &mut Findings,
    rules: &Rules,
    order: Order,
) {
    let received: HashSet<u64> = deliveries.iter().map(|d| d.publish.number).collect();
    let is_due = |event: &&Publish| {
        let is_later = log.connected.is_some_and(|connected| event.started > connected);
        is_later && event.acknowledged.is_some() && client.wants(&event.channel)
    };
    for event in events.iter().filter(is_due) {
        findings.due += 1;
        if received.contains(&event.number) || is_superseded(log, event) {
            continue;
        }
        // Behind a later event, a gap for this one would be too late.
        let later = deliveries.iter().find(|other| {
            // An event that was confirmed before this one was sent is not later, whatever the ids.
            let is_earlier = other.publish.acknowledged.is_some_and(|at| at < event.started);
            !is_earlier && is_after(other, event, order)
        });
        let limit = later.map_or(usize::MAX, |later| later.index);
        let mut is_notified = false;
        for gap in gaps.iter_mut() {
            let notifies = gap.at > event.started && gap.index < limit;
            if notifies && gap.covers(&event.channel) {
                gap.is_needed = true;
                is_notified = true;
            }
        }
        if is_notified {
            findings.notified += 1;
            if event.kind.is_durable() && !rules.discards {
                findings.kept.push(format!("{}: {} {}", client.user, event.number, event.channel));
            }
        } else {
            let near = later.map_or("nothing later received".to_owned(), |later| {
                format!("received {} of {:?}", later.publish.number, later.position())
            });
            let Publish { number, channel, kind, position, attempts, .. } = event;
            findings.silent.push(format!(
                "{}: {number} {channel} {kind:?} {position:?} attempts {attempts}; {near}",
                client.user
            ));
        }
    }
}

/// Whether the client got the retained value of the event's key later. It is checked by itself.
fn is_superseded(log: &Log, event: &Publish) -> bool {
    let key = kept::key(&event.channel, event.number);
    let Some(key) = key.filter(|_| event.kind == Kind::Durable) else { return false };
    let later = log.received.iter().filter(|r| r.at > event.started);
    later
        .into_iter()
        .any(|r| kept::is_value(&r.event) && kept::key_of(&r.event).as_ref() == Some(&key))
}

/// Whether a delivery proves that the stream has passed the place of `event`.
fn is_after(delivery: &Delivery, event: &Publish, order: Order) -> bool {
    match (event.kind, delivery.publish.kind) {
        (Kind::Durable, Kind::Durable) if order == Order::Total => {
            event.position.is_some() && delivery.position() > event.position
        }
        (Kind::Durable, Kind::Durable) => {
            is_broadcast(&event.channel) == is_broadcast(&delivery.publish.channel)
                && event.acknowledged.is_some_and(|at| delivery.publish.started > at)
        }
        // Without a position: the events of one publisher on one channel are ordered.
        (lost, other) => {
            let is_same = event.channel == delivery.publish.channel && lost == other;
            is_same && delivery.publish.number > event.number
        }
    }
}

fn is_broadcast(channel: &str) -> bool {
    channel.starts_with("broadcast:")
}

fn find_duplicates(
    name: &str,
    deliveries: &[Delivery],
    rules: &Rules,
    order: Order,
    findings: &mut Findings,
) {
    let mut seen: HashMap<u64, Option<Id>> = HashMap::new();
    for delivery in deliveries {
        let id = delivery.position();
        let Some(before) = seen.insert(delivery.publish.number, id) else { continue };
        let epoch = |id: Option<Id>| id.map(|id| id.epoch);
        // On a cluster, the id of a delivery does not tell the epoch of its event.
        let is_other = order == Order::PerSource || epoch(before) != epoch(id);
        let is_repeated = delivery.publish.is_repeated() && is_other;
        if !(rules.discards && is_repeated) {
            findings.duplicated.push(format!(
                "{name}: {} {before:?} {id:?} attempts {}",
                delivery.publish.number, delivery.publish.attempts
            ));
        }
    }
}

fn find_disorder(name: &str, deliveries: &[Delivery], order: Order, findings: &mut Findings) {
    let mut last = Id::default();
    let mut later: HashMap<bool, Instant> = HashMap::new();
    let mut last_of: HashMap<(&str, Kind), u64> = HashMap::new();
    let mut seen = HashSet::new();
    for delivery in deliveries {
        let publish = delivery.publish;
        // One that comes again is a matter of `find_duplicates`.
        if publish.kind != Kind::Durable && seen.insert(publish.number) {
            let source = (publish.channel.as_str(), publish.kind);
            let before = last_of.insert(source, publish.number).unwrap_or_default();
            if before > publish.number {
                findings.disordered.push(format!("{name}: {before} before {}", publish.number));
            }
        }
        if order == Order::PerSource {
            // Positions of several servers cannot be compared: an event that was acknowledged
            // before another one was sent comes first.
            let started = later.entry(is_broadcast(&publish.channel)).or_insert(publish.started);
            let is_durable = publish.kind == Kind::Durable;
            if is_durable && publish.acknowledged.is_some_and(|at| at < *started) {
                findings.disordered.push(format!("{name}: {} is late", publish.number));
            }
            if is_durable {
                *started = publish.started.max(*started);
            }
            continue;
        }
        let Some(id) = delivery.position() else { continue };
        if last > id {
            findings.disordered.push(format!("{name}: {last} before {id}"));
        }
        last = id;
    }
}
