//! The state of the link to Redis, shared by the link thread and the workers
//! (ARCHITECTURE.md#the-link).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::pool::LinkServer;
use crate::{
    core::{channel::Channel, id::EventId},
    state::clock::Clock,
};

/// A link without a watermark for this long counts as dead, even if TCP reports no error.
pub const WATERMARK_TIMEOUT: Duration = Duration::from_secs(3);

/// During this time after its start, an instance lets clients wait for the link: clients of the
/// previous instance reconnect at once and must not be refused because the link needs a few ms.
pub const START_PERIOD: Duration = Duration::from_secs(3);

/// Whether the link is up, when it last received something, and the highest id and epoch that it
/// brought.
pub struct LinkState {
    /// The server process that the link reaches.
    pub server: Arc<LinkServer>,
    clock: Arc<Clock>,
    is_up: AtomicBool,
    was_up: AtomicBool,
    came_up: Notify,
    last_watermark: Mutex<Option<Instant>>,
    last_message_ms: AtomicU64,
    highest_id: Mutex<EventId>,
    last_event: Mutex<Option<(EventId, Channel)>>,
    epoch: AtomicU64,
    epoch_changes: AtomicU64,
    subscriptions: AtomicUsize,
    recovered_at: Mutex<Option<Instant>>,
}

impl LinkState {
    /// The state of a link that has not been up yet.
    pub fn new(clock: Arc<Clock>) -> Self {
        Self {
            server: Arc::default(),
            clock,
            is_up: AtomicBool::new(false),
            was_up: AtomicBool::new(false),
            came_up: Notify::new(),
            last_watermark: Mutex::default(),
            last_message_ms: AtomicU64::new(0),
            highest_id: Mutex::default(),
            last_event: Mutex::default(),
            epoch: AtomicU64::new(0),
            epoch_changes: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            recovered_at: Mutex::default(),
        }
    }

    /// Records that the link was set up (`true`) or lost.
    pub fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
        if is_up {
            self.watermark_received();
            if self.was_up.swap(true, Ordering::Relaxed) {
                self.set_recovered();
            }
            self.came_up.notify_waiters();
        }
    }

    /// Whether the link is set up.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Whether the link is set up and watermarks arrive.
    pub fn is_alive(&self) -> bool {
        self.is_up() && self.watermark_age().is_some_and(|age| age < WATERMARK_TIMEOUT)
    }

    /// Whether the link is not alive, although the instance has had time to set it up.
    pub fn is_lost(&self) -> bool {
        !self.is_alive() && self.clock.now_ms() >= START_PERIOD.as_millis() as u64
    }

    /// Returns whether the link is set up. While the instance starts, waits for that first.
    pub async fn wait_until_up(&self) -> bool {
        let came_up = self.came_up.notified();
        let instance_age = Duration::from_millis(self.clock.now_ms());
        if !self.is_up() && instance_age < START_PERIOD {
            let _ = tokio::time::timeout(START_PERIOD - instance_age, came_up).await;
        }
        self.is_up()
    }

    /// Records the arrival of a watermark.
    pub fn watermark_received(&self) {
        *self.last_watermark.lock() = Some(Instant::now());
    }

    /// Time since the last watermark; `None` before the first.
    pub fn watermark_age(&self) -> Option<Duration> {
        self.last_watermark.lock().map(|at| at.elapsed())
    }

    /// Records the arrival of a message on a live channel.
    pub fn message_received(&self) {
        self.last_message_ms.store(self.clock.now_ms(), Ordering::Relaxed);
    }

    /// Time since the last message on a live channel.
    pub fn message_age(&self) -> Duration {
        let last_ms = self.last_message_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.clock.now_ms().saturating_sub(last_ms))
    }

    /// Raises the highest known id to `id`, which must be plausible ([`EventId::is_plausible`]).
    pub fn raise_highest_id(&self, id: EventId) {
        let mut highest = self.highest_id.lock();
        *highest = id.max(*highest);
    }

    /// Records an event that the link brought.
    pub fn event_received(&self, id: EventId, channel: Channel) {
        self.raise_highest_id(id);
        *self.last_event.lock() = Some((id, channel));
    }

    /// The last event that a link brought.
    pub fn last_event(&self) -> Option<(EventId, Channel)> {
        self.last_event.lock().clone()
    }

    /// The highest id that this instance has received.
    pub fn highest_id(&self) -> EventId {
        *self.highest_id.lock()
    }

    /// The epoch of the server; `None` if it is not known yet.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.epoch.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)
    }

    /// Records an epoch that a message names. Returns whether it replaces an earlier one; the first
    /// known epoch does not.
    pub fn enter_epoch(&self, epoch: u64) -> bool {
        let previous = self.epoch.fetch_max(epoch, Ordering::Relaxed);
        self.report_change(previous, epoch.max(previous))
    }

    /// Records the epoch of a watermark, which is right even if a message has named a later one.
    /// Returns the same as [`Self::enter_epoch`].
    pub fn confirm_epoch(&self, epoch: u64) -> bool {
        self.report_change(self.epoch.swap(epoch, Ordering::Relaxed), epoch)
    }

    fn report_change(&self, previous: u64, epoch: u64) -> bool {
        let is_new = previous != 0 && epoch != previous;
        if is_new {
            self.epoch_changes.fetch_add(1, Ordering::Relaxed);
            self.set_recovered();
        }
        is_new
    }

    /// The number of epochs that replaced an earlier one.
    pub fn epoch_changes(&self) -> u64 {
        self.epoch_changes.load(Ordering::Relaxed)
    }

    /// Records the number of users' channels that the link is subscribed to.
    pub fn set_subscriptions(&self, count: usize) {
        self.subscriptions.store(count, Ordering::Relaxed);
    }

    /// The number of users' channels that the link is subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Discards the highest id and the epoch if the library cannot have assigned them by
    /// `server_ms`: the time of Redis was set back by days.
    pub fn discard_implausible(&self, server_ms: u64) {
        let mut highest = self.highest_id.lock();
        if !highest.is_plausible(server_ms) {
            *highest = EventId::ZERO;
        }
        let epoch = self.epoch.load(Ordering::Relaxed);
        if !(EventId { epoch, ..EventId::ZERO }).is_plausible(server_ms) {
            self.epoch.store(0, Ordering::Relaxed);
        }
    }

    fn set_recovered(&self) {
        *self.recovered_at.lock() = Some(Instant::now());
    }

    /// Whether the link came back, or a new epoch began, within the last `period`. Sessions may be
    /// missing in Redis until their instances have written them again.
    pub fn recovered_within(&self, period: Duration) -> bool {
        self.recovered_at.lock().is_some_and(|at| at.elapsed() < period)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn state() -> LinkState {
        LinkState::new(Arc::new(Clock::new()))
    }

    fn id(ms: u64) -> EventId {
        EventId { ms, ..EventId::ZERO }
    }

    #[tokio::test]
    async fn clients_wait_for_the_first_link() {
        let state = state();
        let mut waiting = Box::pin(state.wait_until_up());
        assert!((&mut waiting).now_or_never().is_none());
        state.set_up(true);
        assert_eq!(waiting.now_or_never(), Some(true));
    }

    #[test]
    fn only_a_second_link_or_a_later_epoch_is_a_recovery() {
        let (reconnected, replaced) = (state(), state());
        reconnected.set_up(true);
        assert!(reconnected.is_alive() && !reconnected.recovered_within(HOUR));
        reconnected.set_up(false);
        reconnected.set_up(true);
        assert!(reconnected.recovered_within(HOUR));
        assert!(!replaced.enter_epoch(5) && !replaced.enter_epoch(5));
        assert!(!replaced.recovered_within(HOUR));
        assert!(replaced.enter_epoch(6) && replaced.recovered_within(HOUR));
        assert_eq!((replaced.epoch_changes(), reconnected.epoch_changes()), (1, 0));
    }

    #[test]
    fn watermark_corrects_an_epoch_that_a_message_forged() {
        let state = state();
        assert!(!state.confirm_epoch(5) && state.enter_epoch(9) && !state.enter_epoch(7));
        assert!(state.confirm_epoch(5) && !state.confirm_epoch(5));
        assert!(
            state.confirm_epoch(6),
            "a new epoch is noticed although it is below the forged one"
        );
    }

    #[test]
    fn implausible_id_and_epoch_are_discarded() {
        let state = state();
        state.raise_highest_id(id(9));
        state.raise_highest_id(id(7));
        state.enter_epoch(9);
        state.discard_implausible(9);
        let epoch = || state.epoch.load(Ordering::Relaxed);
        assert_eq!((state.highest_id(), epoch()), (id(9), 9));
        let far_ms = 30 * 24 * 3_600_000;
        state.raise_highest_id(id(far_ms));
        state.enter_epoch(far_ms * 1296);
        state.discard_implausible(9);
        assert_eq!((state.highest_id(), epoch()), (EventId::ZERO, 0));
    }
}
