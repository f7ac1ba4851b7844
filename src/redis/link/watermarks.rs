//! The watermarks of a link, and the adoption of its server.

use std::{sync::Arc, time::Duration};

use redis::RedisResult;

use super::{LinkError, Supervisor};
use crate::{
    core::catch_up::ClockSnapshot,
    redis::{
        adoption::{NotAdopted, PROBE_INTERVAL},
        link_state::WATERMARK_TIMEOUT,
        pool,
        watermark::WatermarkError,
        wire::Connection,
    },
};

/// The longest wait for a periodic watermark.
const WATERMARK_WAIT: Duration = Duration::from_millis(500);
/// If the system clock of Redis jumps by this much, ms, earlier and later ids may not be
/// comparable.
const CLOCK_JUMP_MS: u64 = 86_400_000;
/// A link without a watermark for this long is closed, even if it carries events.
const WATERMARK_OVERDUE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Takes the first watermark of a link. As long as the server may not be adopted, requests are
    /// refused and new connections look for another server.
    pub(super) async fn first_snapshot(
        &mut self,
        connection: &mut Connection,
    ) -> Result<ClockSnapshot, LinkError> {
        loop {
            match self.clock_snapshot(connection).await {
                Err(LinkError::Watermark(WatermarkError::NotAdopted(NotAdopted::Behind))) => {}
                taken => return taken,
            }
            // Irregularly: a balancer must not lead this gateway to one server, and another gateway
            // that waits as well to another one.
            self.refuse_for(PROBE_INTERVAL.mul_f64(0.5 + fastrand::f64())).await;
            if self.requests.is_closed() {
                return Err(LinkError::InstanceEnded);
            }
            let reached = self.probe().await;
            if !self.adoption.probed(reached.as_deref().unwrap_or_default()) {
                return Err(reached.map_or_else(LinkError::Probe, |_| LinkError::OtherServer));
            }
        }
    }

    /// Takes a watermark: everything up to its H has arrived.
    pub(super) async fn clock_snapshot(
        &mut self,
        connection: &mut Connection,
    ) -> Result<ClockSnapshot, LinkError> {
        let server = self.server.as_ref();
        let (commands, state) = (&self.commands, &self.context.state);
        match self.adoption.watermark(connection, commands, server, state).await {
            // Another client has deleted it, for example with FUNCTION FLUSH.
            Err(WatermarkError::NoLibrary) => drop(self.ensure_library().await?),
            Err(error) if self.follow_node_key(&error).await => {}
            taken => return Ok(taken?),
        }
        let (commands, state) = (&self.commands, &self.context.state);
        Ok(self.adoption.watermark(connection, commands, server, state).await?)
    }

    /// Takes the periodic watermark. A link that does not reply in time is closed later, also if
    /// the cluster is down for too long.
    pub(super) async fn renew_watermark(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(), LinkError> {
        let snapshot = self.clock_snapshot(connection);
        let Ok(taken) = tokio::time::timeout(WATERMARK_WAIT, snapshot).await else {
            return Ok(());
        };
        let clock = match taken {
            Err(error) if error.is_cluster_down() => return Ok(()),
            taken => taken?,
        };
        self.inbound.watermark(clock.h);
        match self.context.clock.set_server_ms(clock.now_ms) {
            jump_ms if jump_ms >= CLOCK_JUMP_MS => Err(LinkError::ClockJumped(jump_ms)),
            _ => Ok(()),
        }
    }

    /// Whether the link is dead, even if TCP still considers it open. A link that carries messages
    /// is not: a watermark may be queued behind them.
    pub(super) fn is_silent(&self) -> bool {
        let state = &self.context.state;
        let overdue = state.watermark_age().is_none_or(|age| age >= WATERMARK_OVERDUE);
        !state.is_alive() && (overdue || state.message_age() >= WATERMARK_TIMEOUT)
    }

    /// The server process that a new connection reaches.
    pub(super) async fn probe(&self) -> RedisResult<Arc<str>> {
        let timeout = self.context.settings.redis.command_timeout;
        pool::reach(&self.context.locator, &pool::timeouts(timeout)).await
    }
}
