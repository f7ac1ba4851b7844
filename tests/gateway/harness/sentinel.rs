//! A primary with replicas, and sentinels that monitor it.

use super::keys::Dir;
use super::{Redis, eventually, process};
use redis::{Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisResult};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// The name of the primary.
pub const NAME: &str = "mymaster";

/// A primary, two replicas and three sentinels (quorum 2) on 127.0.0.1, stopped when dropped.
pub struct Sentinels {
    /// The servers; the first one is the primary at the start.
    pub servers: Vec<Redis>,
    /// The ports of the sentinels.
    pub ports: Vec<u16>,
    children: Mutex<Vec<Child>>,
    password: Option<&'static str>,
    /// With the configuration of the sentinels, which they rewrite.
    dir: Dir,
}

impl Sentinels {
    /// Sentinels that know each other and the replicas. They begin a failover if the primary does
    /// not reply for `down_after_ms`, and require `password` of their clients.
    pub async fn start(down_after_ms: u32, password: Option<&'static str>) -> Sentinels {
        let primary = Redis::start().await;
        let address = primary.address();
        let replicas = [Redis::replica_of(&address).await, Redis::replica_of(&address).await];
        let servers = [primary].into_iter().chain(replicas).collect();
        let ports = std::iter::repeat_with(process::free_port).take(3).collect();
        let (children, dir) = (Mutex::default(), Dir::new());
        let sentinels = Sentinels { servers, ports, children, password, dir };
        for port in &sentinels.ports {
            sentinels.start_one(*port, down_after_ms);
        }
        for port in &sentinels.ports {
            sentinels.has_met_all(*port).await;
        }
        sentinels
    }

    fn start_one(&self, port: u16, down_after_ms: u32) {
        let primary = self.servers[0].address();
        let (host, redis_port) = primary.split_once(':').expect("host:port");
        let password = self.password.map_or_else(String::new, |password| {
            format!("requirepass {password}\nsentinel sentinel-pass {password}\n")
        });
        let config = format!(
            "port {port}\nbind 127.0.0.1\n{password}\
             sentinel monitor {NAME} {host} {redis_port} 2\n\
             sentinel down-after-milliseconds {NAME} {down_after_ms}\n\
             sentinel failover-timeout {NAME} 10000\n"
        );
        let name = format!("sentinel-{port}.conf");
        self.dir.write(&name, &config);
        let mut command = Command::new("redis-server");
        command.arg(self.dir.path(&name)).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::die_with_parent(&mut command);
        self.children.lock().unwrap().push(command.spawn().expect("redis-server is installed"));
    }

    async fn has_met_all(&self, port: u16) {
        eventually("sentinels that know everything", || async {
            let words = ["SENTINEL", "MASTER", NAME];
            let master: std::collections::HashMap<String, String> =
                self.ask(port, &words).await.ok()?;
            let is = |name: &str, value: &str| master.get(name).is_some_and(|v| v == value);
            let met = is("num-slaves", "2") && is("num-other-sentinels", "2");
            // `SENTINEL CKQUORUM` also checks that they can be reached.
            let ready = met && self.ask::<()>(port, &["SENTINEL", "CKQUORUM", NAME]).await.is_ok();
            ready.then_some(())
        })
        .await;
    }

    fn info(&self, port: u16) -> ConnectionInfo {
        let info = format!("redis://127.0.0.1:{port}").into_connection_info().expect("a URL");
        match self.password {
            Some(password) => {
                let login = info.redis_settings().clone().set_password(password);
                info.set_redis_settings(login)
            }
            None => info,
        }
    }

    /// Runs one command on a sentinel.
    pub async fn ask<T: FromRedisValue>(&self, port: u16, words: &[&str]) -> RedisResult<T> {
        let client = Client::open(self.info(port))?;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut client.get_multiplexed_async_connection().await?).await
    }

    /// The URL with these sentinels, and credentials of Redis (`user:password@`) or none.
    pub fn url(&self, ports: &[u16], login: &str) -> String {
        let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{login}{}/{NAME}", hosts.join(","))
    }

    /// Kills a sentinel.
    pub fn stop_sentinel(&self, index: usize) {
        let child = &mut self.children.lock().unwrap()[index];
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits until the sentinels name another primary than this one, and returns it.
    pub async fn new_primary(&self, previous: &Redis) -> &Redis {
        eventually("a failover", || async {
            for port in &self.ports {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
                let named: RedisResult<(String, u16)> = self.ask(*port, &words).await;
                let address = named.map(|(host, port)| format!("{host}:{port}")).ok();
                let found = self.servers.iter().find(|s| Some(s.address()) == address);
                if let Some(found) = found.filter(|found| found.address() != previous.address()) {
                    return Some(found);
                }
            }
            None
        })
        .await
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        (0..self.ports.len()).for_each(|index| self.stop_sentinel(index));
    }
}

/// One sentinel with TLS only that monitors a primary with TLS; stopped when dropped.
pub struct TlsSentinel {
    /// Its port.
    pub port: u16,
    child: Child,
}

impl TlsSentinel {
    /// A sentinel with the certificates of [`Dir::identities`].
    pub fn start(dir: &Dir, primary_port: u16) -> TlsSentinel {
        let port = process::free_port();
        let (certificate, key, ca) = (dir.text("server.pem"), dir.text("server.key"), "ca.pem");
        let config = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-replication yes\n\
             tls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {}\n\
             tls-auth-clients yes\nsentinel monitor {NAME} 127.0.0.1 {primary_port} 1\n",
            dir.text(ca)
        );
        dir.write("sentinel.conf", &config);
        let mut command = Command::new("redis-server");
        command.arg(dir.path("sentinel.conf")).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::die_with_parent(&mut command);
        TlsSentinel { port, child: command.spawn().expect("redis-server is installed") }
    }
}

impl Drop for TlsSentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
