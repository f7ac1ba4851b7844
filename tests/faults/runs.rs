//! The runs: a short selection for `cargo test`, and everything for `make faults`.

use crate::deployment::Kind;
use crate::inject::Fault;
use crate::page;
use crate::random;
use crate::results::Results;
use crate::round::{self, Outcome};
use crate::world::World;
use std::time::{Duration, Instant};

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
    let crashes = [Fault::KillRecorder, Fault::RedisKilled, Fault::PostgresKilled, Fault::LinkCut];
    short(Kind::Everysec, true, &crashes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_server_survives_a_wipe_and_lost_connections() {
    let faults = [Fault::RedisKilled, Fault::KillReader, Fault::FlushAllUnseen, Fault::LinksDown];
    short(Kind::Always, false, &faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_server_survives_a_second_one_at_its_address() {
    short(Kind::Everysec, false, &[Fault::TwoServersUsed]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_clients_get_all_values_although_connections_are_cut() {
    short(Kind::Always, false, &[Fault::SnapshotsCut]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_behind_sentinels_survive_a_killed_primary() {
    short(Kind::Sentinel, false, &[Fault::PrimaryKilled]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_survives_a_killed_master() {
    short(Kind::Cluster, false, &[Fault::UserMasterKilled]).await;
}

/// Whether a variable chooses this name: it lists parts of names, separated by commas.
fn is_chosen(variable: &str, name: &str) -> bool {
    let parts = std::env::var(variable);
    parts.map_or(true, |parts| parts.split(',').any(|part| name.contains(part)))
}

/// Each fault alone, then random sequences until `FAULTS_MINUTES` have passed. `FAULTS_ONLY`,
/// `FAULTS_KIND` and `FAULTS_PUBLISHERS` choose faults, deployments and publishers, `FAULTS_PAGE`
/// names the page to write, and `FAULTS_EARLIER` the pages of earlier runs that it includes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes 20 minutes: make faults"]
async fn every_fault_on_every_deployment() {
    let started = Instant::now();
    let minutes = std::env::var("FAULTS_MINUTES").ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(60 * minutes.unwrap_or(0_u64));
    let (seed, mut rng) = random::seeded();
    let kinds = Kind::ALL.into_iter().filter(|kind| is_chosen("FAULTS_KIND", &kind.to_string()));
    let kinds: Vec<Kind> = kinds.collect();
    let publishers = [(true, "plain"), (false, "durable")];
    let publishers = publishers.iter().filter(|(_, name)| is_chosen("FAULTS_PUBLISHERS", name));
    let publishers: Vec<bool> = publishers.map(|(plain, _)| *plain).collect();
    let mut results = Results::new(seed);
    for (kind, plain) in kinds.iter().flat_map(|kind| publishers.iter().map(|p| (*kind, *p))) {
        let mut world = None;
        for fault in chosen_faults(kind) {
            results.round(&mut world, kind, plain, &mut rng, &[fault]).await;
        }
    }
    while started.elapsed() < limit {
        let kind = kinds[rng.usize(..kinds.len())];
        let plain = publishers[rng.usize(..publishers.len())];
        let faults = chosen_faults(kind);
        let mut world = None;
        for _ in 0..3 {
            let sequence: Vec<Fault> =
                (0..rng.usize(2..=4)).map(|_| faults[rng.usize(..faults.len())]).collect();
            results.round(&mut world, kind, plain, &mut rng, &sequence).await;
        }
    }
    results.write();
    println!("{}", results.page());
    assert_good(&results.outcomes);
}

fn chosen_faults(kind: Kind) -> Vec<Fault> {
    let faults = Fault::ALL.iter().copied().filter(|fault| fault.applies(kind));
    faults.filter(|fault| is_chosen("FAULTS_ONLY", fault.name())).collect()
}
