//! Gateway processes behind a balancer, each with a proxy between it and Redis.

use crate::balancer::Balancer;
use crate::deployment::Deployment;
use crate::harness::gateway::Builder;
use crate::harness::metrics::Metrics;
use crate::harness::{Gateway, Proxy, eventually_within};
use crate::outbox::SOURCE;
use std::path::Path;
use std::time::{Duration, Instant};

/// Maximum time to wait for a state of the gateways, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The variable that names another build of the gateway.
const PROGRAM: &str = "SSE_GATEWAY_BIN";
/// The variable that sets `log.level` of the gateways.
const LOG_LEVEL: &str = "FAULTS_LOG_LEVEL";

/// What an instance does with plain publishes, and with the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Writer,
    Standby,
    /// Neither.
    Other,
    /// It reads the outbox, whatever it does with plain publishes.
    Reader,
}

/// One gateway, its proxy and its settings.
pub struct Member {
    pub gateway: Option<Gateway>,
    pub link: Proxy,
    builder: Builder,
}

/// All gateways.
pub struct Fleet {
    pub members: Vec<Member>,
    pub balancer: Balancer,
    http: reqwest::Client,
}

impl Fleet {
    /// Writes the logs of the running gateways to files of this directory.
    pub fn save_logs(&self, directory: &Path) {
        for (n, member) in self.members.iter().enumerate() {
            let Some(gateway) = &member.gateway else { continue };
            let path = directory.join(format!("gateway-{n}.log"));
            std::fs::write(path, gateway.log_text()).expect("a file");
        }
    }

    /// Starts `count` gateways with the settings that `change` makes.
    pub async fn start(
        deployment: &Deployment,
        count: usize,
        change: impl Fn(Builder) -> Builder,
    ) -> Fleet {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0);
        let http = http.timeout(Duration::from_secs(2)).build().expect("a client");
        let mut fleet = Fleet { members: Vec::new(), balancer: Balancer::start().await, http };
        for n in 0..count {
            let link = Proxy::start(&deployment.entrance.address().to_string()).await;
            let builder = Gateway::at(&deployment.url(&link))
                .env("SERVER__RETRY", "100ms")
                .env("SERVER__WORKERS", "2")
                .env("SERVER__HEARTBEAT", "2s");
            let builder = match std::env::var(LOG_LEVEL) {
                Ok(level) => builder.env("LOG__LEVEL", &level),
                Err(_) => builder,
            };
            let builder = match std::env::var(PROGRAM) {
                Ok(path) => change(builder).program(&path),
                Err(_) => change(builder),
            };
            fleet.members.push(Member { gateway: None, link, builder });
            fleet.launch(n).await;
        }
        fleet
    }

    /// Starts gateway `n` and waits until it is ready.
    pub async fn launch(&mut self, n: usize) {
        let gateway = self.members[n].builder.start_unready().await;
        let address = gateway.public;
        self.members[n].gateway = Some(gateway);
        self.ready(n).await;
        self.balancer.set(n, Some(address));
    }

    /// Changes a setting of gateway `n` for the next start.
    pub fn change(&mut self, n: usize, key: &str, value: &str) {
        let builder = self.members[n].builder.clone();
        self.members[n].builder = builder.env(key, value);
    }

    /// A running gateway.
    pub fn gateway(&self, n: usize) -> &Gateway {
        self.members[n].gateway.as_ref().expect("a running gateway")
    }

    /// The metrics of gateway `n`, unless it does not respond.
    pub async fn metrics(&self, n: usize) -> Option<Metrics> {
        let url = self.members[n].gateway.as_ref()?.admin_url("/metrics");
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        Some(Metrics::parse(&text))
    }

    /// What gateway `n` says about a user, unless it does not respond.
    pub async fn presence(&self, n: usize, user: &str, key: &str) -> Option<bool> {
        let gateway = self.members[n].gateway.as_ref()?;
        let request = self.http.get(gateway.admin_url(&format!("/presence?user={user}")));
        let text = request.bearer_auth(key).send().await.ok()?.text().await.ok()?;
        let body: serde_json::Value = serde_json::from_str(&text).ok()?;
        body["online"].as_bool()
    }

    /// Waits until `/readyz` of gateway `n` returns 200.
    pub async fn ready(&self, n: usize) {
        let url = self.gateway(n).admin_url("/readyz");
        eventually_within(LIMIT, "a ready gateway", || async {
            let answer = self.http.get(&url).send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// Waits until all running gateways are ready.
    pub async fn all_ready(&self) {
        for n in 0..self.members.len() {
            if self.members[n].gateway.is_some() {
                self.ready(n).await;
            }
        }
    }

    /// Waits until all gateways have a link to Redis.
    pub async fn all_linked(&self) {
        for n in 0..self.members.len() {
            eventually_within(LIMIT, "a link to Redis", || async {
                let metrics = self.metrics(n).await?;
                (metrics.get("sse_redis_link_up", &[]) == 1.0).then_some(())
            })
            .await;
        }
    }

    /// Whether gateway `n` has a role, unless it does not respond.
    async fn has_role(&self, n: usize, role: Role) -> Option<bool> {
        let metrics = self.metrics(n).await?;
        let is = |role: &str| metrics.get("sse_recorder_role", &[("role", role)]) == 1.0;
        Some(match role {
            Role::Writer => is("writer"),
            Role::Standby => is("standby"),
            Role::Other => !is("writer") && !is("standby"),
            Role::Reader => metrics.get("sse_source_reader", &[SOURCE]) == 1.0,
        })
    }

    /// Waits until exactly one gateway has this role. Returns its number.
    pub async fn with_role(&self, role: Role) -> usize {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut all = Vec::new();
            for n in 0..self.members.len() {
                all.push(self.has_role(n, role).await);
            }
            let mut found = (0..all.len()).filter(|n| all[*n] == Some(true));
            if let (Some(n), None) = (found.next(), found.next()) {
                return n;
            }
            assert!(Instant::now() < deadline, "no single {role:?}, but {all:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills gateway `n` as in a crash.
    pub async fn kill(&mut self, n: usize) {
        self.gateway(n).kill9();
        self.remove(n).await;
    }

    /// Takes gateway `n` out of the balancer, as its readiness does, and ends it with SIGTERM.
    pub async fn terminate(&mut self, n: usize) {
        self.gateway(n).term();
        self.remove(n).await;
    }

    async fn remove(&mut self, n: usize) {
        self.balancer.set(n, None);
        if let Some(gateway) = self.members[n].gateway.take() {
            gateway.wait_exit().await;
        }
    }
}
