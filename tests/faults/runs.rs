//! The runs: a short selection for `cargo test`, and everything for `make faults`.

use crate::deployment::Kind;
use crate::inject::Fault;
use crate::page;
use crate::random;
use crate::round::{self, Outcome};
use crate::world::World;

/// Panics if any round failed.
fn assert_good(outcomes: &[Outcome]) {
    let bad: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.findings.is_good())
        .map(|outcome| format!("{}: {}: {}", outcome.deployment, outcome.faults, outcome.findings))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

async fn short(kind: Kind, plain: bool, faults: &[Fault]) {
    let (_, rng) = random::seeded();
    let mut world = World::start(kind, plain, rng).await;
    let mut outcomes = Vec::new();
    for fault in faults {
        outcomes.push(round::run(&mut world, &[*fault]).await);
    }
    outcomes.iter().for_each(|outcome| println!("{}", page::row(outcome)));
    assert_good(&outcomes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_server_survives_crashes_with_plain_publishers() {
    short(Kind::Everysec, true, &[Fault::KillRecorder, Fault::RedisKilled, Fault::LinkCut]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_server_survives_a_wipe_and_lost_connections() {
    short(Kind::Always, false, &[Fault::FlushAll, Fault::TwoServers]).await;
}

/// `FAULTS_ONLY=<part of a name>` chooses faults, `FAULTS_KIND=<part of a name>` deployments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes 20 minutes: make faults"]
async fn every_fault_on_every_deployment() {
    let is_chosen = |variable: &str, name: &str| {
        std::env::var(variable).map_or(true, |part| name.contains(&part))
    };
    let (_, mut rng) = random::seeded();
    let mut outcomes = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| is_chosen("FAULTS_KIND", &kind.to_string())) {
        for plain in [true, false] {
            let mut world = World::start(kind, plain, rng.fork()).await;
            for fault in Fault::ALL.iter().filter(|fault| fault.applies(kind)) {
                if is_chosen("FAULTS_ONLY", fault.name()) {
                    outcomes.push(round::run(&mut world, &[*fault]).await);
                }
            }
        }
    }
    outcomes.iter().for_each(|outcome| println!("{}", page::row(outcome)));
    assert_good(&outcomes);
}
