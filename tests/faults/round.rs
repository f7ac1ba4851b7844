//! One round: publishers run, faults happen, everything heals, and every client is checked.

use crate::checker::{self, Findings, Order, Rules};
use crate::client::Client;
use crate::deployment::Kind;
use crate::inject::{self, Fault};
use crate::journal::Publish;
use crate::kept::Values;
use crate::leases::Leases;
use crate::outbox;
use crate::presence;
use crate::publisher::{Publisher, Publishers};
use crate::undelivered;
use crate::world::World;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Events that must be acknowledged before and after the faults.
const EVENTS: usize = 40;

/// The result of a round.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub deployment: String,
    pub faults: String,
    pub has_plain: bool,
    /// Number of acknowledged events: durable ones with those of the outbox, and plain ones.
    pub durable: usize,
    pub plain: usize,
    /// Number of leases that instances lost to a busy machine.
    pub leases: usize,
    pub findings: Findings,
}

impl Outcome {
    /// The outcome of a round that did not end.
    pub fn failed(kind: Kind, has_plain: bool, faults: &[Fault], why: String) -> Outcome {
        println!("{kind}: {faults:?}: {why}");
        Outcome {
            deployment: kind.to_string(),
            faults: names(faults),
            has_plain,
            durable: 0,
            plain: 0,
            leases: 0,
            findings: Findings { broken: vec![why], ..Findings::default() },
        }
    }
}

fn names(faults: &[Fault]) -> String {
    let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
    names.join(", ")
}

/// Runs a round and prints the result.
pub async fn run(world: &mut World, faults: &[Fault]) -> Outcome {
    let started = Instant::now();
    world.steady().await;
    world.fill().await;
    world.journal.clear();
    world.touched.clear();
    let leases = Leases::of(&world.fleet);
    world.clients.iter().for_each(Client::clear);
    world.invite().await;
    let (route, plain) = (world.deployment.route.clone(), world.plain);
    let publishers =
        Publishers::start(&route, &world.postgres, &world.channels, &world.journal, plain);
    world.publishers = Some(publishers);
    world.acknowledged(EVENTS).await;
    let mut rules = Rules::default();
    let failovers = world.deployment.failovers().await;
    let mut recovered = Instant::now();
    let (mut affected, mut affects_all) = (HashSet::new(), false);
    for fault in faults {
        let permitted = fault.rules(world.deployment.kind, plain);
        let resets = permitted.allowed.contains("reset");
        rules.add(permitted);
        recovered = fault.inject(world).await;
        match world.affected.take() {
            Some(users) => affected.extend(users),
            None => affects_all |= resets,
        }
    }
    world.acknowledged(EVENTS).await;
    if world.deployment.failovers().await > failovers {
        // Also one that nobody asked for, on a machine that is too busy for the sentinels.
        rules.add(inject::failover_rules(plain));
    }
    world.guests.iter().for_each(Client::leave);
    rules.affected = (!affects_all && !affected.is_empty()).then_some(affected);
    world.publishers.take().expect("running publishers").stop().await;
    world.fleet.all_ready().await;
    outbox::emptied(&world.postgres).await;
    let last = publish_last(world).await;
    let findings = settle(world, &last, &mut rules, recovered, &leases).await;
    let events = world.journal.events();
    let count = |durable: bool| {
        let of_kind = |event: &&Publish| event.kind.is_durable() == durable;
        events.iter().filter(of_kind).filter(|event| event.acknowledged.is_some()).count()
    };
    if !findings.is_good() {
        world.keep_logs();
    }
    let outcome = Outcome {
        deployment: world.deployment.kind.to_string(),
        faults: names(faults),
        has_plain: plain,
        durable: count(true),
        plain: count(false),
        leases: leases.lost(world),
        findings,
    };
    println!(
        "{}: {} ({} plain): {} durable, {} plain acknowledged, {} leases lost; {} [{:.1} s]",
        outcome.deployment,
        outcome.faults,
        if plain { "with" } else { "without" },
        outcome.durable,
        outcome.plain,
        outcome.leases,
        outcome.findings,
        started.elapsed().as_secs_f64()
    );
    outcome
}

/// Publishes a last event on each channel.
async fn publish_last(world: &World) -> Vec<(u64, String)> {
    let mut publisher = Publisher::new(world.deployment.route.clone(), world.journal.clone());
    let mut last = Vec::new();
    for channel in &world.channels {
        last.push((publisher.last(channel).await, channel.clone()));
    }
    last
}

/// Maximum time until every client has everything: one that got `sse.busy` waits 10 to 30 s, and
/// may get it again.
const SETTLED: Duration = Duration::from_secs(150);

/// Time in which a gateway notices that it has lost a lease.
const LEASES_KNOWN: Duration = Duration::from_secs(5);

/// Waits until every client has everything or was notified, at most [`SETTLED`], and checks.
async fn settle(
    world: &World,
    last: &[(u64, String)],
    rules: &mut Rules,
    recovered: Instant,
    leases: &Leases,
) -> Findings {
    let deadline = Instant::now() + SETTLED;
    let mut complete_since = None;
    let mut reader = Publisher::new(world.deployment.route.clone(), world.journal.clone());
    loop {
        if leases.lost(world) > 0 {
            rules.tolerated.insert("unrecorded");
        }
        let is_over = Instant::now() > deadline;
        let mut findings = check_all(world, rules, recovered);
        check_values(world, &mut reader, &mut findings).await;
        let is_complete = world.clients.iter().all(|client| {
            client.read(|log| {
                let has = |number: u64| {
                    let numbers = log.received.iter().rev();
                    numbers.filter_map(|r| checker::number(&r.event)).any(|n| n == number)
                };
                let due = last.iter().filter(|(_, channel)| client.wants(channel));
                log.broken.is_some() || due.into_iter().all(|(number, _)| has(*number))
            })
        });
        let is_complete = is_complete && findings.silent.is_empty() && findings.outdated.is_empty();
        if is_complete || is_over {
            findings.add(presence::check(world, rules).await);
            let events = world.journal.events();
            findings.undelivered = undelivered::check(&mut reader, &events, rules).await;
        }
        if is_complete && findings.presence.is_empty() && findings.undelivered.is_empty() {
            let since: Instant = *complete_since.get_or_insert_with(Instant::now);
            // The gateway that lost a lease may say so later than its successor warns the clients.
            if findings.unnecessary.is_empty() || since.elapsed() > LEASES_KNOWN {
                return findings;
            }
        }
        if is_over {
            return findings;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Compares the retained values of all clients with those in Redis.
async fn check_values(world: &World, reader: &mut Publisher, findings: &mut Findings) {
    let mut current = Values::default();
    for channel in &world.channels {
        match reader.kept(channel).await {
            Some(values) => current.extend(values),
            None => return findings.outdated.push(format!("{channel}: Redis does not respond")),
        }
    }
    for client in &world.clients {
        findings.add(checker::check_values(client, &current));
    }
}

fn check_all(world: &World, rules: &Rules, recovered: Instant) -> Findings {
    let events = world.journal.events();
    let order = if world.deployment.kind.is_total() { Order::Total } else { Order::PerSource };
    let mut findings = Findings::default();
    for client in &world.clients {
        let log = client.log();
        findings.add(checker::check(client, &log, &events, rules, order, recovered));
    }
    findings
}
