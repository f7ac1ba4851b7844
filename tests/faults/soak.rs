//! Hours of connections, publishes and faults must leave nothing behind: memory, descriptors,
//! subscriptions, keys and connections of Redis return to their values after a warm-up.

use crate::deployment::Kind;
use crate::harness::process;
use crate::inject::Fault;
use crate::random;
use crate::round;
use crate::world::World;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Faults that no gateway process survives would hide its leaks.
const FAULTS: [Fault; 12] = [
    Fault::Churn,
    Fault::RedisKilled,
    Fault::RedisFrozen,
    Fault::RedisSlow,
    Fault::LinkCut,
    Fault::LinksCut,
    Fault::LinkHalfOpen,
    Fault::PubsubKilled,
    Fault::OutputBuffer,
    Fault::FlushAll,
    Fault::FunctionFlush,
    Fault::FreezeRecorder,
];
/// Time for what expires: idempotency keys, sessions, subscriptions, idle connections.
const EXPIRY: Duration = Duration::from_secs(180);

/// Anonymous memory may exceed the baseline by this much: allocators keep freed pages, and the
/// replay cache (1 MiB here) fills.
const MEMORY_FACTOR: f64 = 1.25;
const MEMORY_BYTES: u64 = 6 << 20;
/// Two workers of each gateway may have 8 pooled connections each.
const POOLED: usize = 16;

/// The state of one gateway.
#[derive(Clone, Copy, Debug)]
struct Usage {
    memory: u64,
    descriptors: usize,
    subscriptions: f64,
    connections: f64,
}

/// The state of Redis.
#[derive(Clone, Debug)]
struct Stock {
    keys: BTreeSet<String>,
    clients: usize,
    channels: usize,
}

async fn usage(world: &World, n: usize) -> Option<Usage> {
    let pid = world.fleet.gateway(n).pid();
    let metrics = world.fleet.metrics(n).await?;
    Some(Usage {
        memory: process::anonymous(pid),
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        subscriptions: metrics.get("sse_subscriptions", &[]),
        connections: metrics.get("sse_connections", &[]),
    })
}

async fn stock(world: &World) -> Option<Stock> {
    let server = &world.deployment.servers[0];
    let keys: Vec<String> = server.try_command(&["KEYS", "*"]).await.ok()?;
    let clients: String = server.try_command(&["CLIENT", "LIST"]).await.ok()?;
    let channels: Vec<String> =
        server.try_command(&["PUBSUB", "SHARDCHANNELS", "sse:live:*"]).await.ok()?;
    let keys = keys.into_iter().collect();
    Some(Stock { keys, clients: clients.lines().count(), channels: channels.len() })
}

/// The state of all gateways and Redis.
async fn state(world: &World) -> Option<(Vec<Usage>, Stock)> {
    let mut all = Vec::new();
    for n in 0..world.fleet.members.len() {
        all.push(usage(world, n).await?);
    }
    Some((all, stock(world).await?))
}

/// Waits until what expires has expired, and returns the state. `keys`: the baseline.
async fn quiet(world: &World, keys: Option<&BTreeSet<String>>) -> (Vec<Usage>, Stock) {
    let clients = world.clients.len();
    let deadline = Instant::now() + EXPIRY;
    loop {
        let state = state(world).await;
        if let Some((all, stock)) = &state {
            let count = |prefix| stock.keys.iter().filter(|key| key.starts_with(prefix)).count();
            // Others are counted, or come and go.
            let stays =
                |key: &&String| !key.starts_with("sse:session:") && !key.starts_with("sse:lease:");
            let mut staying = stock.keys.iter().filter(stays);
            let is_back = keys.is_none_or(|keys| staying.all(|key| keys.contains(key)));
            let connections: f64 = all.iter().map(|usage| usage.connections).sum();
            let is_quiet = count("sse:dedupe:") == 0
                && count("sse:session:") == clients
                && connections == clients as f64;
            if is_quiet && is_back {
                return state.expect("a state");
            }
        }
        assert!(Instant::now() < deadline, "not back to {clients} clients and {keys:?}: {state:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Runs for `SOAK_MINUTES` (60).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour: make soak"]
async fn gateways_return_to_their_baseline() {
    let minutes = std::env::var("SOAK_MINUTES").map_or(60, |text| text.parse().expect("minutes"));
    let (_, mut rng) = random::seeded();
    let change = |builder: crate::harness::gateway::Builder| {
        builder
            .env("HISTORY__DEDUPE_WINDOW", "60s")
            .env("HISTORY__MAX_LEN", "100")
            .env("HISTORY__REPLAY_CACHE_BYTES", "1MiB")
            .env("TICKETS__RECONNECT_GRACE", "20s")
            .env("REDIS__UNSUBSCRIBE_LINGER", "2s")
    };
    let mut world = World::start_with(Kind::Everysec, true, rng.fork(), change).await;
    for fault in [Fault::Churn, Fault::LinksCut, Fault::FlushAll, Fault::Churn] {
        assert!(round::run(&mut world, &[fault]).await.findings.is_good());
    }
    let (before, stock_before) = quiet(&world, None).await;
    println!("baseline: {before:?}, {} keys", stock_before.keys.len());
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(60 * minutes) {
        let faults: Vec<Fault> =
            (0..rng.usize(1..=3)).map(|_| FAULTS[rng.usize(..FAULTS.len())]).collect();
        let outcome = round::run(&mut world, &faults).await;
        assert!(outcome.findings.is_good(), "{}: {}", outcome.faults, outcome.findings);
        rounds += 1;
    }
    // The same activity as before the baseline.
    assert!(round::run(&mut world, &[Fault::Churn]).await.findings.is_good());
    let (after, stock_after) = quiet(&world, Some(&stock_before.keys)).await;
    println!("after {rounds} rounds: {after:?}, {} keys", stock_after.keys.len());
    println!("Redis: {} clients before, {} after", stock_before.clients, stock_after.clients);
    for (n, (before, after)) in before.iter().zip(&after).enumerate() {
        let allowed = (before.memory as f64 * MEMORY_FACTOR) as u64 + MEMORY_BYTES;
        assert!(after.memory <= allowed, "memory of gateway {n}: {before:?} {after:?}");
        assert!(
            after.descriptors <= before.descriptors + POOLED,
            "descriptors of gateway {n}: {before:?} {after:?}"
        );
    }
    let subscriptions: f64 = after.iter().map(|usage| usage.subscriptions).sum();
    let users: BTreeSet<&str> = world.clients.iter().map(|c| c.user.as_str()).collect();
    let users = (users.len() * after.len()) as f64;
    assert!(subscriptions <= users, "{subscriptions} subscriptions, at most {users} are needed");
    let pooled = POOLED * after.len();
    assert!(
        stock_after.clients <= stock_before.clients + pooled,
        "connections of Redis: {} before, {} after",
        stock_before.clients,
        stock_after.clients
    );
    assert!(stock_after.channels <= 10, "{} live channels", stock_after.channels);
}
