//! Rolling upgrades: old and new gateways side by side, a library replaced by a newer one,
//! instances replaced in turn. Durable and plain publishes continue; clients lose nothing, get
//! nothing twice and get no gap. docs/operations/upgrading.md describes the procedure.

use crate::harness::gateway::Builder;
use crate::harness::sse::Request;
use crate::harness::{
    Event, Gateway, Id, Load, Redis, Sse, assert_received, encode, eventually, log_key, ticket,
    topic, user,
};
use redis::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The topic of the plain publishes.
const PLAIN: &str = "plain";
const HISTORY: (&str, &str) = ("HISTORY__MAX_LEN", "100000");

/// Numbered plain publishes at a steady rate.
struct PlainLoad {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<usize>,
}

impl PlainLoad {
    async fn start(redis: &Redis) -> PlainLoad {
        let mut publisher = redis.publisher().await;
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let task = tokio::spawn(async move {
            let mut timer = tokio::time::interval(Duration::from_millis(10));
            while !stopped.load(Ordering::Relaxed) {
                timer.tick().await;
                let n = counted.load(Ordering::Relaxed);
                publisher
                    .plain(topic(PLAIN), format!("{{\"type\":\"plain\",\"payload\":{n}}}"))
                    .await;
                counted.store(n + 1, Ordering::Relaxed);
            }
            counted.load(Ordering::Relaxed)
        });
        PlainLoad { stop, count, task }
    }

    /// Waits for this many more publishes.
    async fn more(&self, events: usize) {
        let goal = self.count.load(Ordering::Relaxed) + events;
        let reached =
            || std::future::ready((self.count.load(Ordering::Relaxed) >= goal).then_some(()));
        eventually("more plain publishes", reached).await;
    }

    /// Stops, waits until all publishes are recorded, and returns their number.
    async fn stop(self, redis: &Redis) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.task.await.expect("the publisher");
        let key = log_key(&topic(PLAIN));
        eventually("all plain publishes to be recorded", || async {
            (redis.command::<usize>(&["XLEN", &key]).await >= count).then_some(())
        })
        .await;
        count
    }
}

/// The instances behind a load balancer.
#[derive(Clone, Default)]
struct Balancer(Arc<Mutex<Vec<SocketAddr>>>);

impl Balancer {
    fn add(&self, gateway: &Gateway) {
        self.0.lock().unwrap().push(gateway.public);
    }

    fn remove(&self, gateway: &Gateway) {
        self.0.lock().unwrap().retain(|address| *address != gateway.public);
    }

    fn pick(&self, n: usize) -> SocketAddr {
        let all = self.0.lock().unwrap();
        all[n % all.len()]
    }
}

/// The events a client has received, its first cursor, and its number of streams.
struct Received {
    start: Id,
    received: Vec<Event>,
    streams: usize,
}

/// A client that behaves like a browser: it reconnects to the same URL with its last id, on any
/// instance, until `end` arrives.
async fn client(balancer: Balancer, name: String, n: usize, open: Arc<AtomicUsize>) -> Received {
    let jwt = ticket(&name).jwt();
    let (mut start, mut cursor, mut received, mut streams) = (None, String::new(), Vec::new(), 0);
    for attempt in n.. {
        let url = format!(
            "http://{}/events?ticket={jwt}&lastEventId={}",
            balancer.pick(attempt),
            encode(&cursor)
        );
        let Ok(mut sse) = Sse::try_connect(&url, &Request::default()).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        assert_eq!(sse.status, 200);
        let first = sse.event().await;
        if first.event == "sse.busy" {
            assert_eq!(first.json()["reason"], "draining", "{}", sse.dump());
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        assert_eq!(first.event, "sse.connected", "{}", sse.dump());
        if start.is_none() {
            start = Some(Id::of(sse.last_id()));
            open.fetch_add(1, Ordering::Relaxed);
        }
        streams += 1;
        while let Some(event) = sse.next_event().await {
            match event.event.as_str() {
                "end" => return Received { start: start.unwrap(), received, streams },
                "sse.heartbeat" => {}
                "sse.closing" => assert_eq!(event.json()["reason"], "draining", "{}", sse.dump()),
                "load" | "plain" => received.push(event),
                _ => panic!("{event}; {}", sse.dump()),
            }
        }
        cursor = sse.last_id().to_string();
    }
    unreachable!("attempts do not end")
}

/// Publishers, and clients of the instances behind a balancer.
struct Traffic {
    load: Load,
    plain_load: PlainLoad,
    clients: Vec<JoinHandle<Received>>,
}

impl Traffic {
    async fn start(redis: &Redis, balancer: &Balancer) -> Traffic {
        let open = Arc::new(AtomicUsize::new(0));
        let client =
            |n| tokio::spawn(client(balancer.clone(), format!("u{}", n % 2), n, open.clone()));
        let clients: Vec<_> = (0..6).map(client).collect();
        eventually("all streams", || {
            std::future::ready((open.load(Ordering::Relaxed) == 6).then_some(()))
        })
        .await;
        let load = Load::start(redis, &[user("u0"), user("u1"), topic("t")], 200).await;
        Traffic { load, plain_load: PlainLoad::start(redis).await, clients }
    }

    /// Waits for more publishes of both kinds.
    async fn more(&self) {
        self.load.more(60).await;
        self.plain_load.more(30).await;
    }

    /// Stops, and checks that each client received each event of its channels once, in order, and
    /// nothing else. Returns the number of reconnects.
    async fn check(self, redis: &Redis) -> usize {
        let published = self.load.stop().await;
        let plain = self.plain_load.stop(redis).await;
        let end = redis.durable(&topic("end"), "end", "").await.unwrap();
        let mut streams = 0;
        for (n, client) in self.clients.into_iter().enumerate() {
            let Received { start, received, streams: own } =
                client.await.expect("a client without a gap");
            streams += own - 1;
            let ids: Vec<Id> = received.iter().map(Event::own_id).collect();
            assert!(ids.is_sorted_by(|a, b| a < b), "out of order, or twice");
            let (durable, recorded): (Vec<_>, Vec<_>) =
                received.into_iter().partition(|e| e.event == "load");
            let mine = user(&format!("u{}", n % 2));
            let due = |channel: &str| channel == mine || channel == topic("t");
            assert_received(&published, &durable, due, start, Id::of(&end));
            let numbers: Vec<usize> = recorded.iter().map(|e| e.data.parse().unwrap()).collect();
            assert_eq!(numbers, (0..plain).collect::<Vec<_>>(), "plain publishes");
        }
        assert!(published.len() > 100 && plain > 50, "{} and {plain}: no load", published.len());
        streams
    }
}

/// Name and code of the loaded library.
async fn library(redis: &Redis) -> (String, String) {
    let list = ["FUNCTION", "LIST", "LIBRARYNAME", "sse_gateway_*", "WITHCODE"];
    let all: Vec<HashMap<String, Value>> = redis.command(&list).await;
    assert_eq!(all.len(), 1, "one library");
    let text = |member: &str| redis::from_redis_value::<String>(all[0][member].clone()).unwrap();
    (text("library_name"), text("library_code"))
}

/// This library with the next version number.
fn next_version(name: &str, code: &str) -> (String, String) {
    let (version, prefix) = name.strip_prefix("sse_gateway_v").unwrap().split_once('_').unwrap();
    let next = format!("sse_gateway_v{}_{prefix}", version.parse::<u32>().unwrap() + 1);
    let text = code.replace(&format!("name={name}\n"), &format!("name={next}\n"));
    assert_ne!(text, code);
    (next, text)
}

/// Replaces the library in one step, as a newer gateway does when it connects (`redis/library.rs`).
async fn replace_library(redis: &Redis, old: &str, code: &str) {
    let mut step = redis::pipe();
    step.atomic()
        .cmd("FUNCTION")
        .arg("DELETE")
        .arg(old)
        .ignore()
        .cmd("FUNCTION")
        .arg("LOAD")
        .arg(code)
        .ignore();
    step.query_async::<()>(&mut redis.conn().await).await.unwrap();
}

fn builder(redis: &Redis) -> Builder {
    // Time to see that an instance is not ready, before its admin listener closes.
    Gateway::builder(redis).env(HISTORY.0, HISTORY.1).env("DRAIN__DELAY", "3s")
}

/// Two gateways: the recorder and the standby.
async fn recorder_and_standby(builder: &Builder) -> (Gateway, Gateway) {
    let one = builder.start().await;
    one.wait_for_recorder().await;
    let two = builder.start().await;
    wait_for_standby(&two).await;
    (one, two)
}

/// Waits for the metric that docs/operations/upgrading.md names.
async fn wait_for_standby(gateway: &Gateway) {
    gateway.metric_reaches("sse_recorder_role", &[("role", "standby")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_library_under_load_loses_nothing_and_stays() {
    let redis = Redis::start().await;
    let (one, two) = recorder_and_standby(&builder(&redis)).await;
    let (name, code) = library(&redis).await;
    let (next, text) = next_version(&name, &code);
    let balancer = Balancer::default();
    [&one, &two].iter().for_each(|gateway| balancer.add(gateway));
    let traffic = Traffic::start(&redis, &balancer).await;
    traffic.more().await;
    replace_library(&redis, &name, &text).await;
    traffic.more().await;
    // An older gateway that starts or reconnects keeps the newer library.
    let three = builder(&redis).start().await;
    assert_eq!(library(&redis).await, (next.clone(), text.clone()));
    balancer.add(&three);
    redis.command::<i64>(&["CLIENT", "KILL", "ID", &last_link(&redis).await]).await;
    three.metric_reaches("sse_redis_reconnects_total", &[], 1.0).await;
    three.ready().await;
    assert_eq!(library(&redis).await, (next.clone(), text));
    // It works with the newer library: sessions, publishes, watermarks, leases.
    three.connect("u9").await;
    traffic.more().await;
    traffic.check(&redis).await;
    for gateway in [&one, &two, &three] {
        assert_eq!(gateway.metric("sse_gaps_total", &[]).await, 0.0);
    }
    // A gateway replaces an older library.
    let rest = name.splitn(4, '_').nth(3).expect("generation and prefix");
    let older = format!("sse_gateway_v0_{rest}");
    let text = code.replace(&format!("name={name}\n"), &format!("name={older}\n"));
    replace_library(&redis, &next, &text).await;
    let _four = builder(&redis).start().await;
    assert_eq!(library(&redis).await, (name, code));
}

/// The client id of the newest subscriber connection.
async fn last_link(redis: &Redis) -> String {
    let text: String = redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    let ids = text
        .lines()
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse::<u64>().ok());
    ids.max().expect("a link").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_to_the_saved_library_loses_nothing() {
    let redis = Redis::start().await;
    let (one, two) = recorder_and_standby(&builder(&redis)).await;
    let (name, code) = library(&redis).await;
    let saved: Vec<u8> = redis.command(&["FUNCTION", "DUMP"]).await;
    let (_, text) = next_version(&name, &code);
    let balancer = Balancer::default();
    [&one, &two].iter().for_each(|gateway| balancer.add(gateway));
    let traffic = Traffic::start(&redis, &balancer).await;
    replace_library(&redis, &name, &text).await;
    traffic.more().await;
    let mut restore = redis::cmd("FUNCTION");
    restore.arg("RESTORE").arg(saved).arg("FLUSH");
    restore.query_async::<()>(&mut redis.conn().await).await.unwrap();
    assert_eq!(library(&redis).await, (name.clone(), code.clone()));
    traffic.more().await;
    traffic.check(&redis).await;
    // If the library is deleted, the gateways load theirs again.
    redis.command::<()>(&["FUNCTION", "DELETE", &name]).await;
    eventually("the library to be there again", || async {
        redis.durable(&user("1"), "a", "1").await.ok()
    })
    .await;
    assert_eq!(library(&redis).await, (name, code));
}

/// Replaces each gateway in turn by one that `builder` starts.
async fn replace_all(
    balancer: &Balancer,
    traffic: &Traffic,
    old: Vec<Gateway>,
    builder: &Builder,
) -> Vec<Gateway> {
    let mut new = Vec::new();
    for old in old {
        traffic.more().await;
        old.term();
        old.not_ready().await;
        balancer.remove(&old);
        let next = builder.start().await;
        balancer.add(&next);
        assert_eq!(old.wait_exit().await.code(), Some(0));
        wait_for_standby(&next).await;
        new.push(next);
    }
    traffic.more().await;
    new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_replacement_of_two_gateways_loses_nothing() {
    let redis = Redis::start().await;
    let (one, two) = recorder_and_standby(&builder(&redis)).await;
    let first_epoch = epoch(&redis).await;
    let balancer = Balancer::default();
    [&one, &two].iter().for_each(|gateway| balancer.add(gateway));
    let traffic = Traffic::start(&redis, &balancer).await;
    let builder = builder(&redis);
    let new = replace_all(&balancer, &traffic, vec![one, two], &builder).await;
    let returns = traffic.check(&redis).await;
    assert!(returns >= 6, "only {returns} streams moved");
    assert!(new[0].is_recorder().await);
    assert_unbroken(&redis, &first_epoch).await;
}

/// Gateways of an earlier version, with its library, are replaced by this version and restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the earlier version's binary: make test-upgrade"]
async fn upgrade_and_rollback_across_versions_lose_nothing() {
    let old = std::env::var("SSE_GATEWAY_OLD_BIN")
        .expect("SSE_GATEWAY_OLD_BIN; make test-upgrade sets it");
    let redis = Redis::start().await;
    let now = builder(&redis);
    let before = now.clone().program(&old);
    let (one, two) = recorder_and_standby(&before).await;
    let first_epoch = epoch(&redis).await;
    let (first, _) = library(&redis).await;
    let balancer = Balancer::default();
    [&one, &two].iter().for_each(|gateway| balancer.add(gateway));
    let traffic = Traffic::start(&redis, &balancer).await;
    let new = replace_all(&balancer, &traffic, vec![one, two], &now).await;
    let (second, _) = library(&redis).await;
    let back = replace_all(&balancer, &traffic, new, &before).await;
    assert_eq!(library(&redis).await.0, second, "the newer library stays");
    assert!(revision(&first) <= revision(&second), "{first} {second}");
    let last = replace_all(&balancer, &traffic, back, &now).await;
    let returns = traffic.check(&redis).await;
    assert!(returns >= 18, "only {returns} streams moved");
    assert!(last[0].is_recorder().await);
    assert_unbroken(&redis, &first_epoch).await;
}

/// Version and generation in the name of a library.
fn revision(library: &str) -> (u32, u32) {
    let mut words = library.split('_').skip(2);
    let mut number = |prefix| words.next().and_then(|w| w.strip_prefix(prefix)?.parse().ok());
    (number('v').expect("a version"), number('g').expect("a generation"))
}

/// The epoch of the server.
async fn epoch(redis: &Redis) -> String {
    redis.command(&["HGET", "sse:node:{broadcast}", "epoch"]).await
}

/// Checks that the history has had no break since that epoch began.
async fn assert_unbroken(redis: &Redis, since: &str) {
    assert_eq!(epoch(redis).await, since);
    let recorder = "sse:recorder:{broadcast}";
    assert_eq!(redis.command::<i64>(&["HEXISTS", recorder, "unrecorded"]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_takes_over_among_several_instances() {
    let redis = Redis::start().await;
    let (one, two) = recorder_and_standby(&builder(&redis)).await;
    let first_epoch = epoch(&redis).await;
    let builder = Gateway::builder(&redis);
    // A rollout that starts new instances before it stops the old ones.
    let others = tokio::join!(builder.start(), builder.start(), builder.start());
    // Each of them has checked whether a standby is needed.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    one.kill9();
    one.wait_exit().await;
    two.wait_for_recorder().await;
    let others = [others.0, others.1, others.2];
    let standby = eventually("another standby", || async {
        for gateway in &others {
            if gateway.metric("sse_recorder_role", &[("role", "standby")]).await == 1.0 {
                return Some(gateway);
            }
        }
        None
    })
    .await;
    two.term();
    two.wait_exit().await;
    standby.wait_for_recorder().await;
    assert_unbroken(&redis, &first_epoch).await;
}
