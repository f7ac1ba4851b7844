//! Slots that move between the masters of a cluster while streams are open and events are
//! published: nothing is lost, and no stream gets a gap.

use std::collections::HashMap;
use std::time::Duration;

use crate::harness::cluster_load::{Reader, Writer, gateway, publish, two_gateways, user_at};
use crate::harness::{Cluster, Gateway, log_key, topic, user};

/// Time between two events of a channel.
const PAUSE: Duration = Duration::from_millis(5);

/// Users with their streams and publishers, at two gateways.
struct Scene {
    cluster: Cluster,
    gateways: [Gateway; 2],
    users: Vec<String>,
    writers: Vec<Writer>,
    news: Writer,
    readers: Vec<Reader>,
}

impl Scene {
    /// Two users on each of `masters` masters, in the order of the masters, with a stream at each
    /// of the gateways.
    async fn start(masters: usize) -> Scene {
        Self::on(Cluster::start(masters).await, masters).await
    }

    async fn on(cluster: Cluster, masters: usize) -> Scene {
        let gateways = two_gateways(&cluster).await;
        let (mut users, mut writers, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..masters * 2 {
            let name = user_at(&cluster, n / 2, n % 2).await;
            for gateway in &gateways {
                readers.push(Reader::connect(gateway, &name).await);
            }
            users.push(name);
        }
        for name in &users {
            writers.push(Writer::start(&cluster, &user(name), "own", PAUSE));
        }
        let news = Writer::start(&cluster, &topic("t"), "news", PAUSE);
        let scene = Scene { cluster, gateways, users, writers, news, readers };
        scene.more(20).await;
        scene
    }

    /// Waits until each publisher has published this many more events.
    async fn more(&self, events: usize) {
        for writer in self.writers.iter().chain([&self.news]) {
            writer.more(events).await;
        }
    }

    async fn slot(&self, n: usize) -> u16 {
        self.cluster.slot_of(&user(&self.users[n])).await
    }

    /// Makes every second client reconnect at the other gateway, without having read everything.
    async fn reconnect(&mut self) {
        self.reconnect_from(0).await;
    }

    /// The same, beginning with this stream.
    async fn reconnect_from(&mut self, first: usize) {
        for (n, reader) in self.readers.iter_mut().enumerate().skip(first) {
            if n % 2 == 1 {
                for _ in 0..20 {
                    reader.read().await;
                }
                reader.reconnect(&self.gateways[(n / 2) % 2]).await;
            }
        }
    }

    /// Stops the publishers, and checks that all clients get everything without a gap.
    async fn complete(mut self) {
        let news = self.news.stop().await;
        for (n, writer) in self.writers.into_iter().enumerate() {
            let count = writer.stop().await;
            for reader in &mut self.readers[n * 2..n * 2 + 2] {
                reader.read_all("own", count).await;
                reader.read_all("news", news).await;
                reader.assert_range("own", 0, count);
                reader.assert_range("news", 0, news);
                reader.assert_no_gap();
            }
        }
        // What they have now resumes at either gateway.
        for reader in &mut self.readers {
            for gateway in &self.gateways {
                reader.reconnect(gateway).await;
                for _ in 0..3 {
                    reader.read().await;
                }
                reader.assert_no_gap();
            }
        }
    }
}

#[tokio::test]
async fn moved_slot_leaves_no_gap() {
    let mut scene = Scene::start(3).await;
    let slot = scene.slot(0).await;
    scene.cluster.migrate(slot, 1).await;
    scene.more(20).await;
    scene.reconnect().await;
    scene.more(20).await;
    scene.complete().await;
}

#[tokio::test]
async fn client_that_missed_the_move_gets_no_gap() {
    let cluster = Cluster::start(2).await;
    let gateways = two_gateways(&cluster).await;
    let name = user_at(&cluster, 0, 0).await;
    let slot = cluster.slot_of(&user(&name)).await;
    let mut readers = Vec::new();
    for gateway in &gateways {
        readers.push(Reader::connect(gateway, &name).await);
    }
    publish(&cluster, &user(&name), "own", 0, 10).await;
    for reader in &mut readers {
        reader.has_all("own", 10).await;
    }
    cluster.migrate(slot, 1).await;
    publish(&cluster, &user(&name), "own", 10, 10).await;
    for (n, reader) in readers.iter_mut().enumerate() {
        // With the id from before the move, at the other gateway.
        reader.reconnect(&gateways[1 - n]).await;
        reader.has_all("own", 20).await;
        reader.assert_no_gap();
    }
}

#[tokio::test]
async fn moved_broadcasts_leave_no_gap() {
    let mut scene = Scene::start(3).await;
    let slot = scene.cluster.slot_of("{broadcast}").await;
    let owner = scene.cluster.owner_of_slot(slot).await;
    scene.cluster.migrate(slot, (owner + 1) % 3).await;
    scene.more(20).await;
    scene.reconnect().await;
    scene.more(20).await;
    scene.complete().await;
}

#[tokio::test]
async fn slot_that_moves_there_and_back_leaves_no_gap() {
    let mut scene = Scene::start(3).await;
    let slot = scene.slot(0).await;
    scene.cluster.migrate(slot, 1).await;
    scene.more(20).await;
    scene.cluster.migrate(slot, 0).await;
    scene.more(20).await;
    scene.reconnect().await;
    scene.more(20).await;
    // At once, so that the gateways may not notice that it was away.
    scene.cluster.migrate(slot, 1).await;
    scene.cluster.migrate(slot, 0).await;
    scene.more(20).await;
    scene.complete().await;
}

/// A slot was away for so short a time that its master has not noticed. The other master has
/// appended an event in its later epoch.
#[tokio::test]
async fn event_of_another_master_is_not_passed_over() {
    let cluster = Cluster::start(3).await;
    let gateway = gateway(&cluster).start().await;
    let (mut reader, channel) = before_an_event_of_another_master(&cluster, &gateway).await;
    publish(&cluster, &channel, "own", 3, 1).await;
    reader.has_all("own", 4).await;
    reader.assert_no_gap();
}

/// The same, but the clock of the other master is behind: the stream has come past that event.
#[tokio::test]
async fn event_of_another_master_with_a_slow_clock_is_not_passed_over() {
    let cluster = Cluster::start(3).await;
    let gateway = gateway(&cluster).start().await;
    let (mut reader, channel) = before_an_event_of_another_master(&cluster, &gateway).await;
    let last = reader.last_id().to_owned();
    assign_later_ids(&cluster).await;
    while reader.last_id().split('~').next() == last.split('~').next() {
        reader.read().await;
    }
    publish(&cluster, &channel, "own", 3, 1).await;
    reader.has_all("own", 4).await;
    reader.assert_no_gap();
}

/// The same, but the master has come past that event before the client resumes.
#[tokio::test]
async fn resume_skips_no_event_of_another_master() {
    let cluster = Cluster::start(3).await;
    let [gateway, other] = two_gateways(&cluster).await;
    let (mut reader, channel) = before_an_event_of_another_master(&cluster, &gateway).await;
    assign_later_ids(&cluster).await;
    reader.reconnect(&other).await;
    // Nothing else makes the master notice.
    reader.has_all("own", 3).await;
    publish(&cluster, &channel, "own", 3, 1).await;
    reader.has_all("own", 4).await;
    reader.assert_no_gap();
}

/// The same for a broadcast, which a gateway loads into its replay cache.
#[tokio::test]
async fn replay_cache_skips_no_event_of_another_master() {
    let cluster = Cluster::start(3).await;
    let one = gateway(&cluster).start().await;
    let mut reader = Reader::connect(&one, "u0").await;
    publish(&cluster, &topic("t"), "news", 0, 2).await;
    reader.has_all("news", 2).await;
    append_in_a_later_epoch(&cluster, &topic("t"), "news").await;
    publish(&cluster, &topic("other"), "other", 0, 3).await;
    // Its cache begins after that.
    let other = gateway(&cluster).start().await;
    reader.reconnect(&other).await;
    reader.has_all("news", 3).await;
    publish(&cluster, &topic("t"), "news", 3, 1).await;
    reader.has_all("news", 4).await;
    reader.assert_no_gap();
}

/// A user of the first master who has received two events, and the user's channel. Another master
/// has appended the third one.
async fn before_an_event_of_another_master(
    cluster: &Cluster,
    gateway: &Gateway,
) -> (Reader, String) {
    let name = user_at(cluster, 0, 0).await;
    let (mut reader, channel) = (Reader::connect(gateway, &name).await, user(&name));
    publish(cluster, &channel, "own", 0, 2).await;
    reader.has_all("own", 2).await;
    append_in_a_later_epoch(cluster, &channel, "own").await;
    (reader, channel)
}

/// Makes the first master assign ids to events of another user.
pub async fn assign_later_ids(cluster: &Cluster) {
    let neighbour = user_at(cluster, 0, 1).await;
    publish(cluster, &user(&neighbour), "theirs", 0, 3).await;
}

/// Appends the event `2` to a log as another master would, of which the log's own one has not
/// noticed anything.
pub async fn append_in_a_later_epoch(cluster: &Cluster, channel: &str, kind: &str) {
    let log = log_key(channel);
    let last: Vec<(String, HashMap<String, String>)> =
        cluster.command_at(&log, &["XREVRANGE", &log, "+", "-", "COUNT", "1"]).await;
    let (id, epoch) = (&last[0].0, &last[0].1["e"]);
    let (predecessor, later) = (format!("{id}.{epoch}"), following(epoch));
    let (ms, seq) = id.split_once('-').unwrap();
    let added = format!("{ms}-{}", seq.parse::<u64>().unwrap() + 1);
    let fields = ["p", &predecessor, "e", &later, "r", "-", "t", kind, "d", "2"];
    let _: String =
        cluster.command_at(&log, &[&["XADD", &log, &added], &fields[..]].concat()).await;
}

/// The epoch after this one.
fn following(epoch: &str) -> String {
    let (mut number, mut digits) = (u64::from_str_radix(epoch, 36).unwrap() + 1, Vec::new());
    while number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap());
        number /= 36;
    }
    digits.iter().rev().collect()
}

#[tokio::test]
async fn slow_migration_delays_only_its_slot() {
    let mut scene = Scene::start(3).await;
    let slot = scene.slot(0).await;
    scene.cluster.begin_migration(slot, 2).await;
    // The others continue. (A client of this slot cannot open a session now.)
    for writer in scene.writers[1..].iter().chain([&scene.news]) {
        writer.more(300).await;
    }
    scene.reconnect_from(4).await;
    scene.cluster.move_keys(slot, 0, 2).await;
    for writer in scene.writers[1..].iter().chain([&scene.news]) {
        writer.more(300).await;
    }
    scene.cluster.end_migration(slot, 0, 2).await;
    scene.more(20).await;
    scene.reconnect().await;
    scene.more(20).await;
    scene.complete().await;
}

#[tokio::test]
async fn slots_that_move_one_after_the_other_leave_no_gap() {
    let mut scene = Scene::start(3).await;
    for n in [0, 1, 2, 4] {
        let slot = scene.slot(n).await;
        scene.cluster.migrate(slot, (n / 2 + 1) % 3).await;
        scene.more(10).await;
        scene.reconnect().await;
    }
    let slot = scene.cluster.slot_of("{broadcast}").await;
    for n in 0..3 {
        scene.cluster.migrate(slot, n).await;
        scene.more(10).await;
    }
    scene.reconnect().await;
    scene.complete().await;
}

#[tokio::test]
async fn broadcasts_that_move_to_a_new_master_leave_no_gap() {
    let mut scene = Scene::start(2).await;
    let added = scene.cluster.add_master().await;
    // Its first slot: the links to it begin with the broadcasts.
    let slot = scene.cluster.slot_of("{broadcast}").await;
    scene.cluster.migrate(slot, added).await;
    scene.more(50).await;
    scene.reconnect().await;
    scene.complete().await;
}

#[tokio::test]
async fn added_and_removed_masters_leave_no_gap() {
    let mut scene = Scene::start(2).await;
    let added = scene.cluster.add_master().await;
    for n in [0, 1, 2] {
        let slot = scene.slot(n).await;
        scene.cluster.migrate(slot, added).await;
    }
    let slot = scene.cluster.slot_of("{broadcast}").await;
    scene.cluster.migrate(slot, added).await;
    scene.more(50).await;
    scene.reconnect().await;
    // It gives everything back, is empty, and becomes a replica of the last owner: the delay before
    // that gets the data (by default 5 s; longer for a busy machine) leaves the gateways the time
    // to ask it.
    for owner in [0, 1] {
        let delay = ["CONFIG", "SET", "repl-diskless-sync-delay", "20"];
        scene.cluster.node(owner).command::<String>(&delay).await;
    }
    for n in [0, 1, 2] {
        let slot = scene.slot(n).await;
        scene.cluster.migrate(slot, 1).await;
    }
    scene.cluster.migrate(slot, 0).await;
    scene.more(50).await;
    scene.reconnect().await;
    // A server without slots may go.
    scene.cluster.node(added).stop();
    scene.more(50).await;
    scene.complete().await;
}
