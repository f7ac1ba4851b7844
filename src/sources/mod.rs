//! External sources (`[sources]`): the gateway reads entries that others write, and publishes each
//! as an event, exactly once and in order (ARCHITECTURE.md#external-sources). A new kind of source
//! implements [`source::Source`] and is added to [`Sources`].

mod lease;
pub mod metrics;
mod postgres;
mod publishing;
pub mod redis_stream;
mod runner;
pub mod source;

use std::{pin::Pin, sync::Arc};

use futures_util::future::join_all;
use tokio::sync::watch;

use self::{
    metrics::SourceMetrics,
    postgres::PostgresSources,
    redis_stream::RedisStream,
    runner::Runner,
    source::{Source, SourceError},
};
use crate::{
    metrics::Metrics,
    postgres::TlsError as PostgresTlsError,
    redis::{commands::Commands, link_context::LinkContext, locate::watcher, tls::TlsError},
    settings::{self, Settings},
};

/// Why the sources cannot be created: files of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// Those in `[redis.tls]`.
    #[error(transparent)]
    Redis(#[from] TlsError),
    /// `sources.postgres.ca_file`.
    #[error(transparent)]
    Postgres(#[from] PostgresTlsError),
}

/// The sources of the settings, which do not run yet. Each kind of source has a member.
pub struct Sources {
    redis_streams: Vec<(RedisStream, SourceMetrics)>,
    postgres: PostgresSources,
    /// The tasks that follow the primaries of the sources' own sentinels.
    watchers: Vec<watcher::Watcher>,
}

impl Sources {
    /// Creates the sources. `commands` returns connections to the gateway's Redis: each source has
    /// its own, because it waits on one of them.
    ///
    /// # Errors
    /// See [`SourcesError`].
    pub fn new(
        settings: &Settings,
        metrics: &Metrics,
        commands: impl Fn() -> Commands,
    ) -> Result<Self, SourcesError> {
        let settings::Sources { redis_streams, postgres: _ } = &settings.sources;
        let postgres = PostgresSources::new(settings, metrics, &commands)?;
        let mut sources = Self { redis_streams: Vec::new(), postgres, watchers: Vec::new() };
        for stream in redis_streams {
            let gateway = commands();
            let own = redis_stream::own_commands(stream, &settings.redis)?;
            let of_stream = match own {
                Some((commands, locator)) => {
                    sources.watchers.extend(locator.watcher());
                    commands
                }
                None => gateway.clone(),
            };
            let metrics = SourceMetrics::new(metrics, &stream.name);
            let timeout = settings.redis.command_timeout;
            let source =
                RedisStream::new(stream.clone(), of_stream, gateway, timeout, metrics.clone());
            sources.redis_streams.push((source, metrics));
        }
        Ok(sources)
    }

    /// Runs all sources on this thread until `stop` is true and they have released their leases.
    /// `holder` is the name of this instance.
    pub async fn run(self, context: &LinkContext, holder: Arc<str>, stop: watch::Receiver<bool>) {
        let Self { redis_streams, postgres, watchers } = self;
        watchers.into_iter().for_each(|watcher| {
            tokio::spawn(watcher.run());
        });
        let mut runs: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        for (source, metrics) in redis_streams {
            let runner = Runner::new(context, source, metrics, holder.clone());
            runs.push(Box::pin(runner.run(stop.clone())));
        }
        if let Some((source, metrics)) = postgres.outbox {
            let runner = Runner::new(context, source, metrics, holder.clone());
            runs.push(Box::pin(runner.run(stop.clone())));
        }
        if let Some((source, metrics)) = postgres.notify {
            let runner = Runner::new(context, source, metrics, holder);
            runs.push(Box::pin(runner.run(stop)));
        }
        join_all(runs).await;
    }

    /// Checks for `check-config --connect` that each source can be used: its name, and what was
    /// found or why it cannot be used.
    pub async fn check(self) -> Vec<(String, Result<String, SourceError>)> {
        let mut all = Vec::new();
        for (mut source, _) in self.redis_streams {
            let checked = source.check().await;
            all.push((source.name().to_owned(), checked));
        }
        if let Some((mut source, _)) = self.postgres.outbox {
            all.push((source.name().to_owned(), source.check().await));
        }
        if let Some((mut source, _)) = self.postgres.notify {
            all.push((source.name().to_owned(), source.check().await));
        }
        all
    }
}
