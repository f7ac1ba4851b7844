//! Asks sentinels for the primary. Every step has a timeout, and no sentinel delays another one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use redis::{
    Client, ConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisResult,
    aio::MultiplexedConnection,
};
use secrecy::ExposeSecret;
use tokio::sync::Notify;

use super::{
    super::pool::timeouts,
    connect_to,
    error::SentinelError,
    views::{Answers, View},
};
use crate::settings::{self, ServerAddress};

/// Maximum number of sentinels that are asked and that `redis.url` does not name.
const MAX_LEARNED: usize = 16;
/// How long to wait for further answers once most sentinels have answered.
const GRACE: Duration = Duration::from_millis(100);
/// What a sentinel publishes when it begins to name another primary: the one that leads the
/// failover, and the others.
const EVENTS: [&str; 3] = ["+promoted-slave", "+switch-master", "+config-update-from"];

/// The sentinels of a primary.
pub struct Sentinels {
    configured: Vec<ServerAddress>,
    /// Named by other sentinels.
    learned: Mutex<Vec<ServerAddress>>,
    master: String,
    /// Credentials and TLS parameters.
    template: ConnectionInfo,
    timeout: Duration,
}

/// Open connections, for the next round.
pub type Connections = HashMap<ServerAddress, MultiplexedConnection>;

impl Sentinels {
    /// Sentinels at these addresses; `plain` has the TLS parameters and no credentials.
    pub fn new(
        configured: Vec<ServerAddress>,
        master: String,
        settings: &settings::Redis,
        plain: &ConnectionInfo,
    ) -> Self {
        // RESP3, so that one connection carries replies and events.
        let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if !settings.sentinel_username.is_empty() {
            login = login.set_username(&settings.sentinel_username);
        }
        if !settings.sentinel_password.expose_secret().is_empty() {
            login = login.set_password(settings.sentinel_password.expose_secret());
        }
        Self {
            configured,
            learned: Mutex::default(),
            master,
            template: plain.clone().set_redis_settings(login),
            timeout: settings.command_timeout,
        }
    }

    /// Whether `redis.url` names this sentinel.
    pub fn is_configured(&self, sentinel: &ServerAddress) -> bool {
        self.configured.contains(sentinel)
    }

    /// Asks all sentinels, on connections for this purpose, and then those of which it has just
    /// learned.
    pub async fn ask(&self) -> Answers {
        let (mut connections, known) = (Connections::new(), self.all());
        let answers = self.ask_on(&mut connections, None).await;
        match self.all().iter().all(|sentinel| known.contains(sentinel)) {
            true => answers,
            false => self.ask_on(&mut connections, None).await,
        }
    }

    /// Asks all sentinels, on `open` connections where there are any, and keeps the connections of
    /// those that answer. With `events`, they notify when a sentinel may name another primary.
    pub async fn ask_on(&self, open: &mut Connections, events: Option<&Arc<Notify>>) -> Answers {
        let mut asked: FuturesUnordered<_> = self
            .all()
            .into_iter()
            .map(|sentinel| {
                let connection = open.remove(&sentinel);
                async move { (self.ask_one(&sentinel, connection, events).await, sentinel) }
            })
            .collect();
        // Those of sentinels that are no longer asked.
        open.clear();
        let mut answers = Answers::default();
        loop {
            let next = match answers.has_majority() {
                true => tokio::time::timeout(GRACE, asked.next()).await.ok().flatten(),
                false => asked.next().await,
            };
            let Some((result, sentinel)) = next else { break };
            let result = result.map(|(view, connection)| {
                open.insert(sentinel.clone(), connection);
                view
            });
            answers.add(sentinel, result);
        }
        self.learn(answers.others());
        answers
    }

    fn all(&self) -> Vec<ServerAddress> {
        let mut all = self.configured.clone();
        all.extend(self.learned.lock().iter().cloned());
        all
    }

    /// Remembers sentinels that others name. If none answers, the previous ones are kept.
    fn learn(&self, others: HashSet<&ServerAddress>) {
        if !others.is_empty() {
            let mut new: Vec<_> =
                others.into_iter().filter(|other| !self.is_configured(other)).cloned().collect();
            new.sort();
            new.truncate(MAX_LEARNED);
            *self.learned.lock() = new;
        }
    }

    /// Asks one sentinel, on a new connection if the open one fails.
    async fn ask_one(
        &self,
        sentinel: &ServerAddress,
        open: Option<MultiplexedConnection>,
        events: Option<&Arc<Notify>>,
    ) -> Result<(View, MultiplexedConnection), SentinelError> {
        let asked = async {
            if let Some(mut connection) = open
                && let Ok(view) = self.view(&mut connection).await
            {
                return Ok((view, connection));
            }
            let mut connection = self.connect(sentinel, events).await?;
            Ok((self.view(&mut connection).await?, connection))
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(SentinelError::Timeout))
    }

    async fn connect(
        &self,
        sentinel: &ServerAddress,
        events: Option<&Arc<Notify>>,
    ) -> RedisResult<MultiplexedConnection> {
        let mut config = timeouts(self.timeout);
        if let Some(notify) = events.cloned() {
            // Also if the connection ends.
            config = config.set_push_sender(move |push: redis::PushInfo| {
                if push.kind != redis::PushKind::Subscribe {
                    notify.notify_one();
                }
                Ok::<(), redis::aio::SendError>(())
            });
        }
        let client = Client::open(connect_to(&self.template, sentinel))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        if events.is_some() {
            connection.subscribe(&EVENTS[..]).await?;
        }
        Ok(connection)
    }

    async fn view(&self, connection: &mut MultiplexedConnection) -> Result<View, SentinelError> {
        type Instance = HashMap<String, String>;
        let name = self.master.as_str();
        // First and alone: its errors tell what is wrong, and an address that is newer than its
        // epoch does not count for more than it should.
        let master: Instance =
            redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async(connection).await?;
        let mut questions = redis::pipe();
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        questions.cmd("SENTINEL").arg("SENTINELS").arg(name);
        questions.cmd("SENTINEL").arg("MYID");
        let (address, others, id): (Option<(String, u16)>, Vec<Instance>, String) =
            questions.query_async(connection).await?;
        let number = |name: &str| master.get(name).and_then(|text| text.parse::<u64>().ok());
        let (host, port) = address.ok_or(SentinelError::UnknownMaster)?;
        let other = |instance: &Instance| {
            let (host, port) = (instance.get("ip")?.clone(), instance.get("port")?.parse().ok()?);
            (!host.is_empty() && port > 0).then_some(ServerAddress { host, port })
        };
        Ok(View {
            id,
            primary: ServerAddress { host, port },
            config_epoch: number("config-epoch").unwrap_or(0),
            sentinels: 1 + number("num-other-sentinels").unwrap_or(0) as usize,
            others: others.iter().filter_map(other).take(MAX_LEARNED).collect(),
        })
    }
}
