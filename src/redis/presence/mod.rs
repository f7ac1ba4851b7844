//! Reports which users have a stream on this instance (ARCHITECTURE.md#presence). The library
//! appends the events `sse.online` and `sse.offline`.

mod questions;

use std::{sync::Arc, time::Duration};

use redis::Cmd;
use tokio::{sync::oneshot, time::Instant};

pub use self::questions::{TopicUsers, UserPresence, answer, of_topic, of_user};
use super::{
    commands::{CommandError, Commands},
    link_context::LinkContext,
    named_reply::NamedReply,
    servers::Servers,
};
use crate::{error_chain::ErrorChain, metrics::Metrics, state::presence::Presence};

/// Maximum number of users in a report, which blocks other commands of Redis.
const BATCH: usize = 200;
/// The lease is renewed this often, or three times in its duration. The same call removes what
/// other instances have left behind.
const RENEWAL: Duration = Duration::from_secs(1);
/// After a first change, more are collected for this long.
const COLLECTION: Duration = Duration::from_millis(100);
/// Time between two calls while Redis has more to remove.
const PAUSE: Duration = Duration::from_millis(10);
/// Before the first report, the link is looked for this often.
const LINK_POLL: Duration = Duration::from_millis(50);
/// Maximum number of calls in a row that only remove.
const REMOVALS: usize = 100;

/// Requests that the instance leave; the sender in it is used when that is done.
pub type LeaveRequest = oneshot::Receiver<oneshot::Sender<()>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Begin,
    Keep,
    End,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Begin => "BEGIN",
            Self::Keep => "KEEP",
            Self::End => "END",
        }
    }
}

/// The reply to a report.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Done {
        epoch: String,
        more: bool,
    },
    /// The lease was lost.
    Unknown,
}

/// Why a round of reports has ended early.
enum Interrupted {
    Failed(CommandError),
    /// Everything must be reported under a new name.
    Lost,
}

/// Reports the users of one instance.
pub struct Reporter {
    presence: Arc<Presence>,
    servers: Arc<Servers>,
    commands: Commands,
    metrics: Arc<Metrics>,
    lease: Duration,
    linger: Duration,
    /// The current name. A name that has lost its lease is never used again.
    name: Arc<str>,
    mode: Mode,
    /// The epoch in which the name began to report; reports of an earlier one may be lost.
    epoch: String,
    /// Number of the last report.
    report: u64,
    /// Earlier names with a lease, which end when everything is reported under the current one.
    former: Vec<Arc<str>>,
    is_failing: bool,
}

fn new_name() -> Arc<str> {
    uuid::Uuid::new_v4().simple().to_string().into()
}

impl Reporter {
    /// The reporter of an instance; `None` without `presence.enabled`.
    pub fn new(context: &LinkContext, commands: Commands) -> Option<Self> {
        let settings = &context.settings.presence;
        let presence = context.presence.clone()?;
        let name = new_name();
        presence.set_name(name.clone());
        Some(Self {
            presence,
            servers: context.servers.clone(),
            commands,
            metrics: context.metrics.clone(),
            lease: settings.lease,
            linger: settings.linger,
            name,
            mode: Mode::Begin,
            epoch: String::new(),
            report: 0,
            former: Vec::new(),
            is_failing: false,
        })
    }

    /// Reports until the instance leaves.
    pub async fn run(mut self, mut leave: LeaveRequest) {
        while !self.is_linked() {
            match tokio::time::timeout(LINK_POLL, &mut leave).await {
                Ok(request) => return respond(request),
                Err(_elapsed) => {}
            }
        }
        let mut timer = tokio::time::interval(RENEWAL.min(self.lease / 3));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = self.presence.changed() => tokio::time::sleep(COLLECTION).await,
                request = &mut leave => {
                    self.leave().await;
                    return respond(request);
                }
            }
            self.report_changes().await;
            timer.reset();
        }
    }

    /// Whether the link to the broadcasts is up, and so the library is loaded.
    fn is_linked(&self) -> bool {
        self.servers.of_broadcasts().is_some_and(|server| server.info.state.is_up())
    }

    /// Reports what has changed. What cannot be reported now is reported later.
    async fn report_changes(&mut self) {
        self.metrics.presence_users.set(self.presence.user_count() as i64);
        match self.try_report_changes().await {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("presence is reported again");
                }
            }
            Err(Interrupted::Lost) => self.begin_again(),
            Err(Interrupted::Failed(error)) => {
                self.metrics.presence_reports.with_label_values(&["failed"]).inc();
                let (address, error) = (self.commands.address(), ErrorChain(&error));
                if std::mem::replace(&mut self.is_failing, true) {
                    tracing::debug!(%address, %error, "presence not reported");
                } else {
                    tracing::warn!(%address, %error, "presence not reported; retrying");
                }
            }
        }
    }

    async fn try_report_changes(&mut self) -> Result<(), Interrupted> {
        let changed = self.presence.take_changed();
        let mut rest = &changed[..];
        loop {
            let (batch, after) = rest.split_at(rest.len().min(BATCH));
            let more = self.report(batch).await.inspect_err(|_| self.presence.put_back(rest))?;
            rest = after;
            if rest.is_empty() {
                self.end_former().await.map_err(Interrupted::Failed)?;
                return if more { self.remove().await } else { Ok(()) };
            }
        }
    }

    /// Lets Redis remove what other instances have left behind.
    async fn remove(&mut self) -> Result<(), Interrupted> {
        for _ in 0..REMOVALS {
            tokio::time::sleep(PAUSE).await;
            if !self.report(&[]).await? {
                break;
            }
        }
        Ok(())
    }

    /// Reports the streams of these users, and renews the lease. Returns whether Redis has more to
    /// remove.
    async fn report(&mut self, users: &[Arc<str>]) -> Result<bool, Interrupted> {
        let reply = self.call(&self.name.clone(), self.mode, users).await;
        match reply.map_err(Interrupted::Failed)? {
            Reply::Unknown => {
                tracing::warn!("the lease of presence was lost; reporting all users again");
                Err(Interrupted::Lost)
            }
            Reply::Done { epoch, .. } if self.mode != Mode::Begin && epoch != self.epoch => {
                // The users of the former name stay online until all are reported.
                tracing::info!("presence may be lost with a new epoch; reporting all users again");
                self.former.push(self.name.clone());
                Err(Interrupted::Lost)
            }
            Reply::Done { epoch, more } => {
                (self.mode, self.epoch) = (Mode::Keep, epoch);
                self.metrics.presence_reports.with_label_values(&["ok"]).inc();
                Ok(more)
            }
        }
    }

    /// Reports everything under a new name.
    fn begin_again(&mut self) {
        self.metrics.presence_reports.with_label_values(&["lost"]).inc();
        self.name = new_name();
        self.mode = Mode::Begin;
        self.presence.set_name(self.name.clone());
        self.presence.change_all();
    }

    async fn end_former(&mut self) -> Result<(), CommandError> {
        while let Some(name) = self.former.last().cloned() {
            self.call(&name, Mode::End, &[]).await?;
            self.former.pop();
        }
        Ok(())
    }

    /// Leaves with all users, who are online elsewhere or have the linger to connect again.
    async fn leave(&mut self) {
        let started = Instant::now();
        self.former.push(self.name.clone());
        match self.end_former().await {
            Ok(()) => tracing::debug!(duration = ?started.elapsed(), "presence ended"),
            Err(error) => {
                let error = ErrorChain(&error);
                tracing::warn!(%error, "presence not ended; it ends with its lease");
            }
        }
    }

    async fn call(
        &mut self,
        name: &str,
        mode: Mode,
        users: &[Arc<str>],
    ) -> Result<Reply, CommandError> {
        self.report += 1;
        let mut call = self.commands.call("presence", &[self.commands.keys.presence()]);
        call.arg(name)
            .arg(self.report)
            .arg(self.lease.as_millis() as u64)
            .arg(self.linger.as_millis() as u64)
            .arg(mode.name());
        add_users(&mut call, users, &self.presence.streams(users));
        reply(&self.commands.run::<NamedReply>(&call).await?)
    }
}

fn respond(request: Result<oneshot::Sender<()>, oneshot::error::RecvError>) {
    if let Ok(done) = request {
        let _ = done.send(());
    }
}

fn add_users(call: &mut Cmd, users: &[Arc<str>], streams: &[u32]) {
    for (user, streams) in users.iter().zip(streams) {
        call.arg(&**user).arg(*streams);
    }
}

fn reply(values: &NamedReply) -> Result<Reply, CommandError> {
    match values.text("state") {
        "ok" => Ok(Reply::Done {
            epoch: values.text("epoch").to_owned(),
            more: values.text("more") == "1",
        }),
        "unknown" => Ok(Reply::Unknown),
        other => Err(CommandError::UnexpectedReply(other.to_owned())),
    }
}
