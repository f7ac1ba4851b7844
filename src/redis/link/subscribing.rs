//! The subscriptions of a link.

use std::{sync::Arc, time::Instant};

use redis::RedisResult;

use super::Supervisor;
use crate::{
    core::part::Part,
    redis::{
        commands::is_moved,
        wire::{Connection, Sent},
    },
    settings::PlainPublish,
};

/// Users in one batch of subscriptions.
const BATCH: usize = 1000;

/// Subscriptions to the channels of users that were sent and are not confirmed yet.
pub(super) struct SentSubscriptions {
    users: Vec<Arc<str>>,
    sent: Sent<Vec<RedisResult<()>>>,
}

impl Supervisor {
    pub(super) async fn subscribe_broadcasts(
        &self,
        connection: &mut Connection,
    ) -> RedisResult<()> {
        let keys = &self.commands.keys;
        all(connection.ssubscribe(&[keys.live_broadcast()]).await)?;
        if self.context.settings.publishers.plain == PlainPublish::Relay {
            all(connection.psubscribe(&keys.public_patterns()[1..]).await)?;
        }
        Ok(())
    }

    /// The live channels of users.
    pub(super) fn live(&self, users: &[Arc<str>]) -> Vec<String> {
        users.iter().map(|user| self.commands.keys.live_user(user)).collect()
    }

    /// The users' public channels that are subscribed, too: none except in `relay` mode.
    pub(super) fn public(&self, users: &[Arc<str>]) -> Vec<String> {
        let relay = self.context.settings.publishers.plain == PlainPublish::Relay;
        let users = if relay { users } else { &[] };
        users.iter().map(|user| self.commands.keys.public_user(user)).collect()
    }

    /// Subscribes to the channels of users. Those whose slot another server owns count as ended.
    pub(super) async fn subscribe(
        &mut self,
        connection: &mut Connection,
        users: &[Arc<str>],
    ) -> RedisResult<()> {
        for batch in users.chunks(BATCH) {
            let sent = self.begin_subscribing(connection, batch)?;
            self.confirm(connection, sent).await?;
        }
        Ok(())
    }

    /// Sends the subscriptions to the channels of users. The watermark of a command that is sent
    /// later covers them.
    pub(super) fn begin_subscribing(
        &self,
        connection: &Connection,
        users: &[Arc<str>],
    ) -> RedisResult<Option<SentSubscriptions>> {
        if users.is_empty() {
            return Ok(None);
        }
        let sent = connection.begin_ssubscribe(self.live(users))?;
        Ok(Some(SentSubscriptions { users: users.to_owned(), sent }))
    }

    /// Waits until subscriptions are confirmed. Those whose slot another server owns count as
    /// ended.
    pub(super) async fn confirm(
        &mut self,
        connection: &Connection,
        sent: Option<SentSubscriptions>,
    ) -> RedisResult<()> {
        let mut elsewhere = Vec::new();
        if let Some(SentSubscriptions { users, sent }) = sent {
            let results = sent.result().await?;
            all(connection.subscribe(&self.public(&users)).await)?;
            for (user, result) in users.iter().zip(results) {
                match result {
                    Ok(()) => self.subscriptions.confirmed(user),
                    Err(error) if is_moved(&error) => {
                        elsewhere.push(user.clone());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if !elsewhere.is_empty() {
            self.inbound.ended.add_users(elsewhere);
        }
        Ok(())
    }

    /// Unsubscribes from the channels of users that have had no stream for a while.
    pub(super) async fn unsubscribe_idle(
        &mut self,
        connection: &mut Connection,
    ) -> RedisResult<()> {
        let linger = self.context.settings.redis.unsubscribe_linger;
        let idle = self.subscriptions.take_idle(Instant::now(), linger, BATCH);
        if idle.is_empty() {
            return Ok(());
        }
        connection.sunsubscribe(&self.live(&idle)).await?;
        all(connection.unsubscribe(&self.public(&idle)).await)
    }

    /// Whether the link brings everything of a part of a user's stream.
    pub(super) fn brings(&self, user: Option<&Arc<str>>, part: Part) -> bool {
        let is_subscribed = |user: &Arc<str>| {
            self.subscriptions.is_subscribed(user) && !self.inbound.ended.includes(user)
        };
        (part == Part::User || self.inbound.has_broadcasts()) && user.is_none_or(is_subscribed)
    }
}

/// The result of a batch of subscriptions, of which none may fail.
pub(super) fn all(results: RedisResult<Vec<RedisResult<()>>>) -> RedisResult<()> {
    results?.into_iter().collect()
}
