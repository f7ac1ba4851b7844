//! Plain publishes on a cluster are recorded once and in order, whatever server their channel is
//! on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::harness::{
    Gateway, Redis, cluster::Cluster, eventually, eventually_within, gateway::Builder, log_key,
    redis::Rejected, ticket, topic, user,
};

const GUARD: Duration = Duration::from_secs(60);
const RECORDER: &str = "sse:recorder:{broadcast}";

fn builder(cluster: &Cluster) -> Builder {
    let url = format!("redis+cluster://{}", cluster.addresses().join(","));
    Gateway::at(&url).env("HISTORY__MAX_LEN", "100000")
}

async fn start(cluster: &Cluster) -> Gateway {
    builder(cluster).start().await
}

/// A field of the recorder's state.
async fn state(cluster: &Cluster, field: &str) -> Option<String> {
    cluster.command_at(RECORDER, &["HGET", RECORDER, field]).await
}

/// Waits until every running node has a link of the cluster bus from and to every other one.
async fn linked(cluster: &Cluster) {
    eventually_within(GUARD, "links of the bus", || async {
        for node in cluster.nodes() {
            let links: Vec<redis::Value> = node.command(&["CLUSTER", "LINKS"]).await;
            (links.len() == 2 * (cluster.nodes().len() - 1)).then_some(())?;
        }
        Some(())
    })
    .await;
    cluster.is_ok().await;
}

/// A writer, and a standby that numbers like it.
async fn pair(cluster: &Cluster) -> (Gateway, Gateway) {
    pair_of(cluster, builder(cluster)).await
}

async fn pair_of(cluster: &Cluster, builder: Builder) -> (Gateway, Gateway) {
    linked(cluster).await;
    let writer = builder.start().await;
    writer.wait_for_recorder().await;
    let standby = builder.start().await;
    could_continue(&standby).await;
    (writer, standby)
}

async fn could_continue(standby: &Gateway) {
    standby.metric_reaches("sse_recorder_role", &[("role", "standby")], 1.0).await;
}

/// The channel of a user on each master, and two topics.
async fn channels(cluster: &Cluster) -> Vec<String> {
    let mut users = BTreeMap::new();
    for n in 0.. {
        let channel = user(&format!("u{n}"));
        users.entry(cluster.owner_of(&channel).await).or_insert(channel);
        if users.len() == 3 {
            break;
        }
    }
    users.into_values().chain([topic("a"), topic("b")]).collect()
}

/// Publishes `0`, `1`, … to each channel in turn until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    channels: Vec<String>,
}

impl Load {
    async fn start(node: &Redis, channels: &[String]) -> Load {
        let mut publisher = node.publisher().await;
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted, all) = (stop.clone(), count.clone(), channels.to_vec());
        let task = tokio::spawn(async move {
            let mut n: usize = 0;
            while !stopped.load(Ordering::Relaxed) {
                for channel in &all {
                    publisher.plain(channel, n.to_string()).await;
                }
                n += 1;
                counted.store(n, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Load { stop, count, task, channels: channels.to_vec() }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    async fn more(&self, messages: usize) {
        let goal = self.count() + messages;
        eventually("more messages", || async { (self.count() >= goal).then_some(()) }).await;
    }

    /// Stops, and checks that the log of each channel has each message once and in order.
    async fn assert_recorded(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the publisher");
        let count = self.count.load(Ordering::Relaxed);
        for channel in &self.channels {
            assert_recorded(cluster, channel, count).await;
        }
    }
}

async fn recorded(cluster: &Cluster, channel: &str) -> Vec<String> {
    recorded_at(cluster.node(cluster.owner_of(channel_key(channel)).await), channel).await
}

/// The messages in the log of a channel of this node.
async fn recorded_at(node: &Redis, channel: &str) -> Vec<String> {
    type Fields = Vec<(String, String)>;
    let rows: Vec<(String, Fields)> = node.command(&["XRANGE", &log_key(channel), "-", "+"]).await;
    let data = |fields: Fields| fields.into_iter().find(|(name, _)| name == "d");
    rows.into_iter().filter_map(|(_, fields)| Some(data(fields)?.1)).collect()
}

/// A key in the slot of a channel.
fn channel_key(channel: &str) -> &str {
    if channel.starts_with("broadcast:") { "{broadcast}" } else { channel }
}

/// Waits until a channel's log has `count` messages, and checks that they are the right ones.
async fn assert_recorded(cluster: &Cluster, channel: &str, count: usize) {
    let last = (count - 1).to_string();
    let found = eventually_within(GUARD, &format!("{last} on {channel}"), || async {
        let found = recorded(cluster, channel).await;
        (found.last() == Some(&last)).then_some(found)
    })
    .await;
    let due: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let first = found.iter().zip(&due).position(|(found, due)| found != due);
    assert_eq!((first, found.len()), (None, due.len()), "{channel}: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_all_masters_are_recorded_once_and_in_order() {
    let cluster = Cluster::start(3).await;
    let (writer, _standby) = pair(&cluster).await;
    let channels = channels(&cluster).await;
    // Each channel has publishers on one node only: the order of several is not defined.
    let mut loads = Vec::new();
    for (n, channel) in channels.iter().enumerate() {
        let own = std::slice::from_ref(channel);
        loads.push(Load::start(cluster.node((n + 1) % 3), own).await);
    }
    loads[0].more(200).await;
    for load in loads {
        load.assert_recorded(&cluster).await;
    }
    eventually("progress", || async {
        let n: usize = state(&cluster, "n").await?.parse().ok()?;
        (n >= 1000).then_some(())
    })
    .await;
    assert_eq!(state(&cluster, "unrecorded").await, None);

    // Rejected messages of every channel are kept, and do not hold up the next ones.
    let broadcasts = cluster.node(cluster.owner_of("{broadcast}").await);
    let mut publisher = broadcasts.publisher().await;
    let mut rejected = Vec::new();
    for channel in &channels {
        let before = recorded(&cluster, channel).await.len();
        publisher.plain(channel, [0xff]).await;
        publisher.plain(channel, r#"{"v":1,"type":"sse.x","payload":1}"#).await;
        publisher.plain(channel, "after").await;
        eventually("the message after", || async {
            (recorded(&cluster, channel).await.len() > before).then_some(())
        })
        .await;
        rejected.push(channel.clone());
    }
    let found = eventually("rejected messages", || async {
        let found = broadcasts.rejected().await;
        let mut channels: Vec<String> =
            found.iter().map(|r| String::from_utf8_lossy(&r.channel).into_owned()).collect();
        channels.sort();
        channels.dedup();
        (channels.len() == rejected.len()).then_some(channels)
    })
    .await;
    // So is one that only the server of its user can reject.
    let mut n = 0;
    let wrong = loop {
        let channel = user(&format!("w{n}"));
        if cluster.owner_of(&channel).await != cluster.owner_of("{broadcast}").await {
            break channel;
        }
        n += 1;
    };
    cluster.command_at::<()>(&wrong, &["SET", &log_key(&wrong), "x"]).await;
    publisher.plain(&wrong, "kept").await;
    eventually("the rejected message", || async {
        let found = broadcasts.rejected().await;
        let is_wrong = |r: &Rejected| r.channel == wrong.as_bytes() && r.reason == "wrong-type";
        found.iter().any(|r| is_wrong(r) && r.message == b"kept").then_some(())
    })
    .await;
    rejected.sort();
    assert_eq!(found, rejected);
    assert!(writer.is_recorder().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_continues_on_all_masters_when_the_writer_dies() {
    let cluster = Cluster::start(3).await;
    let (writer, standby) = pair(&cluster).await;
    let channels = channels(&cluster).await;
    let broadcasts = cluster.node(cluster.owner_of("{broadcast}").await);
    let load = Load::start(broadcasts, &channels).await;
    load.more(100).await;
    writer.kill9();
    standby.wait_for_recorder().await;
    load.more(100).await;
    let third = start(&cluster).await;
    could_continue(&third).await;
    load.more(20).await;
    // A clean shutdown hands over, too.
    standby.term();
    third.wait_for_recorder().await;
    load.more(20).await;
    load.assert_recorded(&cluster).await;
    assert_eq!(state(&cluster, "unrecorded").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_that_was_frozen_leaves_no_gap() {
    let cluster = Cluster::start(3).await;
    let builder = builder(&cluster).env("DRAIN__DELAY", "0s").env("DRAIN__WINDOW", "0s");
    let (writer, standby) = pair_of(&cluster, builder).await;
    let channels = channels(&cluster).await;
    let owner = cluster.owner_of("{broadcast}").await;
    let load = Load::start(cluster.node(owner), &channels).await;
    load.more(50).await;
    // The standby has not read what the writer records meanwhile.
    standby.freeze();
    load.more(20).await;
    writer.term();
    writer.wait_exit().await;
    standby.thaw();
    standby.wait_for_recorder().await;
    load.more(20).await;
    load.assert_recorded(&cluster).await;
    assert_eq!(state(&cluster, "unrecorded").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_that_was_frozen_doubles_nothing() {
    let cluster = Cluster::start(3).await;
    let (writer, standby) = pair(&cluster).await;
    let channels = channels(&cluster).await;
    let owner = cluster.owner_of("{broadcast}").await;
    let load = Load::start(cluster.node(owner), &channels).await;
    load.more(50).await;
    writer.freeze();
    standby.wait_for_recorder().await;
    load.more(50).await;
    writer.thaw();
    writer.wait_for_log("another instance has the recorder's lease").await;
    load.more(50).await;
    load.assert_recorded(&cluster).await;
    assert_eq!(state(&cluster, "unrecorded").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_master_does_not_hold_up_the_others() {
    let cluster = Cluster::start(3).await;
    // A batch for the frozen master ends long after this test has given up.
    let builder = builder(&cluster).env("REDIS__COMMAND_TIMEOUT", "60s");
    let (writer, standby) = pair_of(&cluster, builder).await;
    let channels = channels(&cluster).await;
    let owner = cluster.owner_of("{broadcast}").await;
    let frozen = (owner + 1) % 3;
    let load = Load::start(cluster.node(owner), &channels).await;
    load.more(50).await;
    let mut others = Vec::new();
    for channel in &channels {
        let at = cluster.owner_of(channel_key(channel)).await;
        others.extend((at != frozen).then_some((at, channel)));
    }
    assert!(others.len() < channels.len());
    cluster.node(frozen).freeze();
    for goal in [100, 500] {
        load.more(goal).await;
        let count = load.count();
        for (at, channel) in &others {
            eventually("messages of the others", || async {
                let found = recorded_at(cluster.node(*at), channel).await;
                (found.len() >= count).then_some(())
            })
            .await;
        }
    }
    // The standby still numbers like the writer.
    writer.kill9();
    standby.wait_for_recorder().await;
    load.more(20).await;
    cluster.node(frozen).thaw();
    cluster.is_ok().await;
    load.more(20).await;
    load.assert_recorded(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_link_of_the_bus_is_reported_and_the_numbering_continues() {
    let cluster = Cluster::start(3).await;
    let (writer, standby) = pair(&cluster).await;
    let owner = cluster.owner_of("{broadcast}").await;
    let other = (owner + 1) % 3;
    let channels = [topic("a")];
    let restart = || async {
        cluster.node(other).stop();
        cluster.node(other).start_again().await;
        linked(&cluster).await;
    };
    // Without plain messages, none can be missing.
    restart().await;
    writer.wait_for_log("a link of the cluster bus was replaced").await;
    assert_eq!(state(&cluster, "unrecorded").await, None);
    let mut user = 0;
    while cluster.owner_of(&crate::harness::user(&user.to_string())).await != owner {
        user += 1;
    }
    let mut sse = writer.connect_with(&ticket(&user.to_string()).topics(&["a"]), "").await;
    let load = Load::start(cluster.node(owner), &channels).await;
    load.more(20).await;
    restart().await;
    eventually_within(GUARD, "a warning", || state(&cluster, "unrecorded")).await;
    let gap = sse.next_of("sse.gap").await;
    assert_eq!(gap.json()["reason"], "unrecorded");
    // The standby still numbers like the writer.
    writer.kill9();
    standby.wait_for_recorder().await;
    standby.wait_for_log("the standby takes over from the writer").await;
    load.more(20).await;
    load.assert_recorded(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moved_slot_loses_and_doubles_nothing() {
    let cluster = Cluster::start(3).await;
    let (_writer, _standby) = pair(&cluster).await;
    let channels = channels(&cluster).await;
    let owner = cluster.owner_of("{broadcast}").await;
    let load = Load::start(cluster.node(owner), &channels).await;
    load.more(50).await;
    for channel in &channels[..3] {
        let slot = cluster.slot_of(channel).await;
        let from = cluster.owner_of_slot(slot).await;
        cluster.migrate(slot, (from + 1) % 3).await;
        load.more(20).await;
    }
    load.assert_recorded(&cluster).await;
    assert_eq!(state(&cluster, "unrecorded").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_continues_after_a_failover_of_the_broadcasts() {
    let mut cluster = Cluster::start(3).await;
    let owner = cluster.owner_of("{broadcast}").await;
    let replica = cluster.add_replica(owner).await;
    let (writer, _standby) = pair(&cluster).await;
    let channels = channels(&cluster).await;
    let mut sse = writer.connect_with(&ticket("u0").topics(&["a"]), "").await;
    let mut publisher = cluster.node(owner).publisher().await;
    publisher.plain(topic("a"), "before").await;
    assert_eq!(sse.app_event().await.data, "before");
    cluster.node(replica).receives_all_of(cluster.node(owner)).await;
    cluster.node(owner).stop();
    cluster.is_promoted(replica).await;
    let mut publisher = cluster.node(replica).publisher().await;
    for channel in &channels {
        eventually_within(GUARD, "recorded messages", || async {
            let mut publisher = cluster.node(replica).publisher().await;
            publisher.plain(channel, "again").await;
            let found = recorded(&cluster, channel).await;
            found.iter().any(|data| data == "again").then_some(())
        })
        .await;
    }
    let mut reasons = Vec::new();
    publisher.plain(topic("a"), "last").await;
    sse.until(|event| {
        if event.event == "sse.gap" {
            reasons.push(event.json()["reason"].as_str().unwrap_or_default().to_owned());
        }
        event.data == "last"
    })
    .await;
    // One gap for a catch-up: the new epoch comes first.
    assert!(reasons.iter().any(|r| r == "unrecorded" || r == "reset"), "{reasons:?}");
    assert!(state(&cluster, "unrecorded").await.is_some());
}
