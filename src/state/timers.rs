//! Heartbeats, maximum ages, ends of sessions and stalled clients. Each connection is checked from
//! time to time (`interval`), in groups: a connection's memory is read into the cache once, and
//! the heartbeats of a group share their frames.

use std::{rc::Rc, time::Duration};

use super::{
    clock::unix_ms, connection::Connection, heartbeats::Heartbeats, hub::Hub,
    stream_context::StreamSettings,
};
use crate::core::reasons::CloseReason;

/// The connections are checked in this many groups, one group per turn.
const GROUPS: u32 = 4;
/// Shortest and longest time between two checks of a connection.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two checks of a connection: an eighth of the shorter one of `server.heartbeat` and
/// `limits.stall`, from 500 ms to 2 s. A heartbeat or end may be late by as much.
fn interval(settings: &StreamSettings) -> Duration {
    let shortest = settings.server.heartbeat.min(settings.limits.stall);
    (shortest / 8).clamp(MIN_INTERVAL, MAX_INTERVAL)
}

impl Hub {
    /// Sets the times of a new connection's heartbeat and end, with jitter.
    pub(super) fn schedule(&self, c: &Connection) {
        let server = &self.context.settings.server;
        let heartbeat_ms = server.heartbeat.as_millis() as u64;
        c.beat_ms.set(c.opened_ms + heartbeat_ms / 2 + fastrand::u64(0..=heartbeat_ms / 2));
        let age_ms = server.max_connection_age.as_millis() as u64;
        let age = match age_ms {
            0 => (u64::MAX, CloseReason::MaxAge),
            ms => (c.opened_ms + ms - ms / 5 + fastrand::u64(0..=ms / 5 * 2), CloseReason::MaxAge),
        };
        let until_ms = c.client.session.as_ref().map_or(u64::MAX, |session| session.until_ms);
        let session_left_ms = until_ms.saturating_sub(unix_ms());
        let session = (c.opened_ms.saturating_add(session_left_ms), CloseReason::SessionOver);
        c.ends_ms.set(if session.0 <= age.0 { session } else { age });
    }

    /// Checks the connections as long as the worker lives.
    pub async fn run_timers(self: Rc<Self>) {
        let mut timer = tokio::time::interval(interval(&self.context.settings) / GROUPS);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in (0..GROUPS).cycle() {
            timer.tick().await;
            let now = self.context.clock.now_ms();
            let mut heartbeats = Heartbeats::default();
            for connection in self.group(turn) {
                self.check(&connection, now, &mut heartbeats);
            }
        }
    }

    fn group(&self, turn: u32) -> Vec<Rc<Connection>> {
        self.select(|key| key as u32 % GROUPS == turn)
    }

    fn check(&self, c: &Rc<Connection>, now: u64, heartbeats: &mut Heartbeats) {
        if c.has_stalled(now) {
            c.evict(CloseReason::Stalled);
            return self.remove(c);
        }
        if c.is_ending() {
            return;
        }
        let (ends_ms, reason) = c.ends_ms.get();
        if now >= ends_ms {
            return self.close(c, reason, self.retry_ms());
        }
        if now >= c.beat_ms.get() {
            let period_ms = self.context.settings.server.heartbeat.as_millis() as u64;
            if now.saturating_sub(c.queued_ms.get()) >= period_ms / 2 && c.is_idle() {
                c.heartbeat(|server| self.servers.watermark(server), heartbeats);
            }
            c.beat_ms.set(c.beat_ms.get().max(now.saturating_sub(period_ms)) + period_ms);
        }
    }
}
