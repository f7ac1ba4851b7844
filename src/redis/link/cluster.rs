//! The link to a node of a cluster follows the slots that move away or arrive.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::RedisError;

use super::{LinkError, Supervisor};
use crate::redis::{
    cluster::slots::SlotRanges, commands::is_moved, watermark::WatermarkError, wire::Connection,
};

/// Maximum time to wait for the nodes' answers after a slot has moved.
const MAX_REFRESH: Duration = Duration::from_secs(1);

/// What a link knows of the slots of its server.
#[derive(Default)]
pub(super) struct FollowedSlots {
    /// The slots at the last look.
    known: Arc<SlotRanges>,
}

impl Supervisor {
    /// The server has ended subscriptions, because their slots moved to another server. Their
    /// streams continue there as soon as that server is known ([`Supervisor::follow_slots`]).
    /// Only nodes of a cluster do that.
    pub(super) fn subscriptions_ended(&self) -> Result<(), LinkError> {
        if self.context.server.node.is_none() {
            return Err(LinkError::IsCluster);
        }
        self.context.cluster.stale.notify_one();
        Ok(())
    }

    /// Hands over the users whose slots have moved away, and takes or gives up the broadcasts.
    pub(super) async fn follow_slots(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(), LinkError> {
        let Some(node) = &self.context.server.node else { return Ok(()) };
        let slots = node.slots();
        let has_changed = !Arc::ptr_eq(&slots, &self.slots.known);
        let (ended, broadcasts_ended) = self.inbound.ended.take();
        if !has_changed && ended.is_empty() && !broadcasts_ended {
            return Ok(());
        }
        self.slots.known = slots;
        if has_changed {
            // The former server of some may be gone, and cannot say that they moved.
            self.context.delivery.slots_arrived();
        }
        let (keys, server) = (&self.commands.keys, &self.context.server);
        let gone = self.subscriptions.remove(|user| !server.owns(&keys.live_user(user)));
        // Their slots have come back, or never left.
        let owns = |user: &str| server.owns(&keys.live_user(user));
        let mut back: HashSet<_> = ended.into_iter().filter(|user| owns(user)).collect();
        back.extend(self.subscriptions.returned(owns));
        let back: Vec<_> = back.into_iter().collect();
        connection.unsubscribe(&self.public(&gone)).await?;
        self.subscribe(connection, &back).await?;
        let moved: Vec<_> = gone.into_iter().chain(back).collect();
        if !moved.is_empty() {
            self.context.metrics.moved_users.inc_by(moved.len() as u64);
            self.context.delivery.users_moved(&moved.into());
        }
        self.follow_broadcasts(connection, broadcasts_ended).await
    }

    /// Handles an error of the watermark of a node: its key may have to be in another slot.
    pub(super) async fn follow_node_key(&self, error: &WatermarkError) -> bool {
        let (Some(node), WatermarkError::Command(error)) = (&self.context.server.node, error)
        else {
            return false;
        };
        let code = error.reply().and_then(RedisError::code);
        match (code, node.tag(&self.commands.keys.broadcast_tag())) {
            (Some("ASK"), Some(tag)) => node.leave(&tag),
            (Some("MOVED"), _) => {
                let _ = tokio::time::timeout(MAX_REFRESH, self.context.cluster.refreshed()).await;
            }
            _ => return false,
        }
        true
    }

    async fn follow_broadcasts(
        &mut self,
        connection: &mut Connection,
        has_ended: bool,
    ) -> Result<(), LinkError> {
        let owns = self.context.server.owns(&self.commands.keys.live_broadcast());
        if owns && (has_ended || !self.inbound.has_broadcasts()) {
            self.context.delivery.set_broadcast_server(self.context.server.index);
            match self.subscribe_broadcasts(connection).await {
                // They have left, and the other server is not known yet.
                Err(error) if is_moved(&error) => {
                    self.inbound.ended.add_broadcasts();
                    return Ok(());
                }
                subscribed => subscribed?,
            }
            let clock = self.clock_snapshot(connection).await?;
            self.inbound.watermark(clock.h);
            self.context.delivery.broadcasts_moved(self.context.server.index, clock.h);
            self.inbound.set_broadcasts(true);
        } else if !owns && (has_ended || self.inbound.has_broadcasts()) {
            self.inbound.set_broadcasts(false);
            // The link to the other server may begin with them, and does not notify the streams.
            self.context.delivery.broadcasts_left(self.context.server.index);
            // The recorder's messages come from the other server now.
            connection.punsubscribe(&self.commands.keys.public_patterns()).await?;
        }
        Ok(())
    }
}
