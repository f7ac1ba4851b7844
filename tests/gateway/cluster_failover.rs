//! Masters of a cluster that fail, restart or are cut off.

use std::time::Duration;

use crate::harness::cluster_load::{Reader, Writer, publish, two_gateways, user_at};
use crate::harness::{Cluster, Gateway, eventually_within, topic, user};

const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of which master 0 has a replica, and not the broadcasts.
struct Scene {
    cluster: Cluster,
    gateways: [Gateway; 2],
    /// The failing master, one of the others, and the one of the broadcasts.
    nodes: [usize; 3],
    replica: usize,
    users: [String; 3],
    readers: Vec<Reader>,
}

impl Scene {
    async fn start(
        settings: &[(&'static str, &'static str)],
        fsync: Option<&'static str>,
    ) -> Scene {
        let mut cluster = Cluster::start_with(3, fsync, settings).await;
        let broadcasts = cluster.owner_of("{broadcast}").await;
        let nodes = [(broadcasts + 1) % 3, (broadcasts + 2) % 3, broadcasts];
        let replica = cluster.add_replica(nodes[0]).await;
        let gateways = two_gateways(&cluster).await;
        let users = [
            user_at(&cluster, nodes[0], 0).await,
            user_at(&cluster, nodes[1], 0).await,
            user_at(&cluster, nodes[2], 0).await,
        ];
        let mut readers = Vec::new();
        for name in &users {
            for gateway in &gateways {
                readers.push(Reader::connect(gateway, name).await);
            }
        }
        Scene { cluster, gateways, nodes, replica, users, readers }
    }

    fn writer(&self, n: usize) -> Writer {
        Writer::start(&self.cluster, &user(&self.users[n]), "own", PAUSE)
    }

    fn news(&self) -> Writer {
        Writer::start(&self.cluster, &topic("t"), "news", PAUSE)
    }

    /// Waits until the replica has everything.
    async fn is_replicated(&self) {
        let master = self.cluster.node(self.nodes[0]);
        self.cluster.node(self.replica).receives_all_of(master).await;
    }
}

async fn failover(coverage: &'static str) {
    let mut scene = Scene::start(&[("cluster-require-full-coverage", coverage)], None).await;
    publish(&scene.cluster, &user(&scene.users[0]), "own", 0, 10).await;
    scene.is_replicated().await;
    let [others, third] = [scene.writer(1), scene.writer(2)];
    let news = scene.news();
    for writer in [&others, &third, &news] {
        writer.more(20).await;
    }
    scene.cluster.node(scene.nodes[0]).stop();
    if coverage == "no" {
        // Nobody waits for the failed master.
        for writer in [&others, &third, &news] {
            writer.more(50).await;
        }
    }
    scene.cluster.is_promoted(scene.replica).await;
    publish(&scene.cluster, &user(&scene.users[0]), "own", 10, 10).await;
    for writer in [&others, &third, &news] {
        writer.more(20).await;
    }
    let counts = [20, others.stop().await, third.stop().await];
    let news = news.stop().await;
    for (n, reader) in scene.readers.iter_mut().enumerate() {
        reader.has_all("own", counts[n / 2]).await;
        reader.has_all("news", news).await;
        match n / 2 {
            0 => {
                reader.read_gap().await;
                assert_eq!(reader.gaps, ["reset"], "{}", reader.sse.dump());
            }
            _ => reader.assert_no_gap(),
        }
    }
    // Their ids resume at the other gateway without a further gap.
    for (n, reader) in scene.readers.iter_mut().enumerate() {
        reader.gaps.clear();
        reader.reconnect(&scene.gateways[1 - n % 2]).await;
        publish(&scene.cluster, &topic("t"), "news", news + n, 1).await;
        reader.has_all("news", news + n + 1).await;
        reader.assert_no_gap();
    }
}

#[tokio::test]
async fn failed_master_concerns_only_its_users() {
    failover("no").await;
}

#[tokio::test]
async fn failover_of_a_cluster_that_requires_full_coverage() {
    failover("yes").await;
}

#[tokio::test]
async fn acknowledged_events_are_missing_only_behind_a_gap() {
    let mut scene = Scene::start(&[], None).await;
    let writer = scene.writer(0);
    writer.more(50).await;
    scene.cluster.node(scene.nodes[0]).stop();
    scene.cluster.is_promoted(scene.replica).await;
    writer.more(50).await;
    let count = writer.stop().await;
    for reader in &mut scene.readers[..2] {
        reader.read_all("own", count).await;
        let received = &reader.received["own"];
        let is_ordered = received.windows(2).all(|w| w[0] < w[1]);
        assert!(is_ordered, "{received:?}\n{}", reader.sse.dump());
        assert_eq!(reader.gaps, ["reset"], "{}", reader.sse.dump());
    }
}

#[tokio::test]
async fn failed_master_of_the_broadcasts_concerns_only_the_broadcasts() {
    let mut cluster = Cluster::start(3).await;
    let broadcasts = cluster.owner_of("{broadcast}").await;
    let replica = cluster.add_replica(broadcasts).await;
    let gateways = two_gateways(&cluster).await;
    let name = user_at(&cluster, (broadcasts + 1) % 3, 0).await;
    let mut readers = Vec::new();
    for gateway in &gateways {
        readers.push(Reader::connect(gateway, &name).await);
    }
    publish(&cluster, &topic("t"), "news", 0, 10).await;
    cluster.node(replica).receives_all_of(cluster.node(broadcasts)).await;
    cluster.node(broadcasts).stop();
    // Clients can connect meanwhile, and get what concerns them.
    publish(&cluster, &user(&name), "own", 0, 10).await;
    for reader in &mut readers {
        reader.has_all("own", 10).await;
    }
    readers[1].reconnect(&gateways[0]).await;
    cluster.is_promoted(replica).await;
    publish(&cluster, &topic("t"), "news", 10, 10).await;
    publish(&cluster, &user(&name), "own", 10, 10).await;
    for reader in &mut readers {
        reader.has_all("own", 20).await;
        reader.has_all("news", 20).await;
        assert_eq!(reader.gaps, ["reset"], "{}", reader.sse.dump());
    }
}

#[tokio::test]
async fn planned_failover_leaves_no_gap() {
    // A master that is paused on a busy machine must not fail before.
    let mut scene = Scene::start(&[("cluster-node-timeout", "20000")], None).await;
    let writers = [scene.writer(0), scene.writer(1), scene.writer(2)];
    let news = scene.news();
    for writer in &writers {
        writer.more(20).await;
    }
    let replica = scene.cluster.node(scene.replica);
    replica.command::<String>(&["CLUSTER", "FAILOVER"]).await;
    scene.cluster.is_promoted(scene.replica).await;
    for writer in &writers {
        writer.more(50).await;
    }
    // With an id from before or after.
    for (n, reader) in scene.readers.iter_mut().enumerate() {
        if n % 2 == 1 {
            reader.reconnect(&scene.gateways[0]).await;
        }
    }
    let news = news.stop().await;
    for (n, writer) in writers.into_iter().enumerate() {
        let count = writer.stop().await;
        for reader in &mut scene.readers[n * 2..n * 2 + 2] {
            reader.has_all("own", count).await;
            reader.has_all("news", news).await;
            reader.assert_no_gap();
        }
    }
}

#[tokio::test]
async fn master_that_restarts_before_a_failover_reports_the_loss() {
    let mut scene = Scene::start(&[("cluster-node-timeout", "20000")], None).await;
    publish(&scene.cluster, &user(&scene.users[1]), "own", 0, 10).await;
    let third = scene.writer(2);
    let news = scene.news();
    let master = scene.cluster.node(scene.nodes[1]);
    for reader in &mut scene.readers[2..4] {
        reader.has_all("own", 10).await;
    }
    // Without a replica: it returns empty.
    master.stop();
    master.start_again().await;
    publish(&scene.cluster, &user(&scene.users[1]), "own", 10, 10).await;
    third.more(20).await;
    let (third, news) = (third.stop().await, news.stop().await);
    for (n, reader) in scene.readers.iter_mut().enumerate() {
        reader.has_all("news", news).await;
        match n / 2 {
            0 => {}
            1 => {
                reader.has_all("own", 20).await;
                assert_eq!(reader.gaps, ["reset"], "{}", reader.sse.dump());
                continue;
            }
            _ => reader.has_all("own", third).await,
        }
        reader.assert_no_gap();
    }
}

#[tokio::test]
async fn master_that_restarts_with_its_data_loses_nothing() {
    let settings = [("cluster-node-timeout", "20000")];
    let mut scene = Scene::start(&settings, Some("always")).await;
    let writer = scene.writer(1);
    writer.more(50).await;
    let master = scene.cluster.node(scene.nodes[1]);
    master.stop();
    master.start_again().await;
    writer.more(50).await;
    let count = writer.stop().await;
    for reader in &mut scene.readers[2..4] {
        reader.has_all("own", count).await;
        assert!(reader.gaps.len() <= 1, "{:?}", reader.gaps);
    }
}

#[tokio::test]
async fn master_that_was_cut_off_loses_nothing_silently() {
    let mut scene = Scene::start(&[], None).await;
    publish(&scene.cluster, &user(&scene.users[0]), "own", 0, 10).await;
    scene.is_replicated().await;
    let old = scene.cluster.node(scene.nodes[0]);
    old.freeze();
    scene.cluster.is_promoted(scene.replica).await;
    publish(&scene.cluster, &user(&scene.users[0]), "own", 10, 10).await;
    // What reaches the old master before it learns of its successor must not be accepted.
    let mut waiting = Vec::new();
    for n in 0..20 {
        let channel = user(&scene.users[0]);
        let url = old.url();
        waiting.push(tokio::spawn(async move {
            let client = redis::Client::open(url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("FCALL")
                .arg(&["sse_publish", "1", &channel, "stray", &n.to_string()])
                .query_async::<String>(&mut connection)
                .await
        }));
    }
    tokio::task::yield_now().await;
    old.thaw();
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(answer.is_err(), "the old master has accepted {answer:?}");
    }
    eventually_within(PATIENCE, "a replica", || async {
        let info: String = old.command(&["INFO", "replication"]).await;
        info.contains("role:slave").then_some(())
    })
    .await;
    publish(&scene.cluster, &user(&scene.users[0]), "own", 20, 10).await;
    for reader in &mut scene.readers[..2] {
        reader.has_all("own", 30).await;
        // None, if the gateway adopts the new master so late that the old one follows it already,
        // and so can prove that nothing was lost.
        assert!(reader.gaps.is_empty() || reader.gaps == ["reset"], "{}", reader.sse.dump());
        assert!(!reader.received.contains_key("stray"));
    }
}
