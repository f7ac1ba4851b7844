//! A Redis Cluster for one test.

use super::{eventually, process};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running node of a cluster, stopped when dropped.
pub struct Node {
    port: u16,
    bus_port: u16,
    dir: PathBuf,
    child: Child,
}

impl Node {
    fn start() -> Node {
        let (port, bus_port) = (process::free_port(), process::free_port());
        let dir = std::env::temp_dir().join(format!("sse-node-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--cluster-enabled", "yes", "--cluster-port", &bus_port.to_string()])
            .args(["--cluster-node-timeout", "5000", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        process::die_with_parent(&mut command);
        let child = command.spawn().expect("redis-server is installed");
        Node { port, bus_port, dir, child }
    }

    /// The value for the setting `redis.url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn conn(&self) -> redis::RedisResult<MultiplexedConnection> {
        redis::Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Runs a command on this node.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut conn = self.conn().await.expect("a running node");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut conn).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    async fn id(&self) -> String {
        self.command(&["CLUSTER", "MYID"]).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Two masters; the first one has all slots.
pub struct Cluster {
    pub first: Node,
    pub second: Node,
}

impl Cluster {
    /// A running, empty cluster.
    pub async fn start() -> Cluster {
        let (first, second) = (Node::start(), Node::start());
        for node in [&first, &second] {
            eventually("a node", || async { node.conn().await.ok() }).await;
        }
        first.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
        let (port, bus_port) = (second.port.to_string(), second.bus_port.to_string());
        first.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).await;
        for node in [&first, &second] {
            eventually("a complete cluster", || async {
                let info: String = node.command(&["CLUSTER", "INFO"]).await;
                let complete = ["cluster_state:ok", "cluster_known_nodes:2"];
                complete.iter().all(|line| info.contains(line)).then_some(())
            })
            .await;
        }
        Cluster { first, second }
    }

    /// Moves the slot of a key, which must be empty, from the first master to the second.
    pub async fn move_slot_of(&self, key: &str) {
        let slot: u16 = self.first.command(&["CLUSTER", "KEYSLOT", key]).await;
        let slot = slot.to_string();
        let (from, to) = (self.first.id().await, self.second.id().await);
        let set = ["CLUSTER", "SETSLOT", &slot];
        self.second.command::<()>(&[&set[..], &["IMPORTING", &from]].concat()).await;
        self.first.command::<()>(&[&set[..], &["MIGRATING", &to]].concat()).await;
        for node in [&self.second, &self.first] {
            node.command::<()>(&[&set[..], &["NODE", &to]].concat()).await;
        }
    }
}
