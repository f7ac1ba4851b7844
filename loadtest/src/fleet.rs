//! All streams of a run: opens, disconnects and stalls them, and sums up what they received.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::stream::{self, Env, StreamState};
use crate::table::list;

/// Number of permanent refusals for the same reason after which the run gives up.
const MIN_REFUSALS: u32 = 10;

/// All streams of a run. Must live in a `LocalSet`.
pub struct Fleet {
    /// Data shared by the streams.
    pub env: Rc<Env>,
    streams: Vec<Rc<RefCell<StreamState>>>,
    tasks: Vec<Option<JoinHandle<()>>>,
}

impl Fleet {
    /// Creates `streams` streams, none of them open.
    pub fn new(env: Env, streams: u32) -> Self {
        let states = (0..streams).map(|index| Rc::new(RefCell::new(StreamState::new(index))));
        Self {
            env: Rc::new(env),
            streams: states.collect(),
            tasks: (0..streams).map(|_| None).collect(),
        }
    }

    /// Returns the number of streams.
    pub fn len(&self) -> u32 {
        u32::try_from(self.streams.len()).unwrap_or(u32::MAX)
    }

    /// Returns whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Starts a range of streams, at most `per_second`, and waits until they are open. Returns how
    /// long that took.
    ///
    /// Fails if some were not open within `timeout` or all were refused permanently.
    pub async fn open(
        &mut self,
        range: Range<u32>,
        per_second: Option<f64>,
        timeout: Duration,
    ) -> Result<Duration, String> {
        let started = Instant::now();
        let env = self.env.clone();
        let stats = &env.stats;
        let wanted = stats.held.get() + range.len() as u32;
        let minimum = MIN_REFUSALS.min(range.len() as u32);
        for (count, index) in range.enumerate() {
            if let Some(rate) = per_second {
                let due = started + Duration::from_secs_f64(count as f64 / rate);
                let all_permanently_refused =
                    stats.until(|stats| stats.all_permanently_refused(minimum));
                if tokio::time::timeout_at(due.into(), all_permanently_refused).await.is_ok() {
                    break;
                }
            }
            self.start(index);
        }
        let open = stats
            .until(|stats| stats.held.get() >= wanted || stats.all_permanently_refused(minimum));
        let in_time = tokio::time::timeout(timeout, open).await.is_ok();
        let first = stats.first_refusal.borrow();
        let first =
            first.as_deref().map(|first| format!("; first refusal: {first}")).unwrap_or_default();
        if stats.all_permanently_refused(minimum) {
            return Err(format!(
                "the first {} connection attempts were all refused permanently{first}",
                stats.permanently_refused.get()
            ));
        }
        if in_time {
            return Ok(started.elapsed());
        }
        Err(format!(
            "only {} of {wanted} streams were open after {} s (--connect-timeout); \
             refused: {}, failed: {}, ended: {}{first}",
            stats.held.get(),
            started.elapsed().as_secs(),
            list(&stats.refused.borrow()),
            list(&stats.failed.borrow()),
            list(&stats.ended.borrow()),
        ))
    }

    /// Starts a stream, which reconnects until it is cut.
    pub fn start(&mut self, index: u32) {
        let task = tokio::task::spawn_local(stream::run(
            self.env.clone(),
            self.streams[index as usize].clone(),
        ));
        self.tasks[index as usize] = Some(task);
    }

    /// Returns whether a stream is open.
    pub fn is_open(&self, index: u32) -> bool {
        self.streams[index as usize].borrow().is_open()
    }

    /// Disconnects streams abruptly, like a network failure. They stay disconnected until they are
    /// started again.
    pub async fn cut(&mut self, range: Range<u32>) {
        let all = range.len() == self.streams.len();
        for index in range {
            if let Some(task) = self.tasks[index as usize].take() {
                task.abort();
                let _ = task.await;
            }
            self.streams[index as usize].borrow_mut().cut();
        }
        if all {
            self.env.connections.cut();
        }
    }

    /// Makes streams stop reading, or read again.
    pub fn stall(&self, range: Range<u32>, stalled: bool) {
        for index in range {
            self.streams[index as usize].borrow_mut().stall(stalled);
        }
        self.env.wake.notify_waiters();
    }

    /// Returns the number of (expected, lost) events of a range of streams so far.
    pub fn expected_and_lost(&self, range: Range<u32>) -> (u64, u64) {
        let each =
            range.map(|index| self.streams[index as usize].borrow().expected_and_lost(&self.env));
        each.fold((0, 0), |sum, (expected, lost)| (sum.0 + expected, sum.1 + lost))
    }

    /// Waits until a range of streams has received all expected events, at most `timeout`.
    pub async fn drained(&self, range: Range<u32>, timeout: Duration) {
        /// Each check visits every stream, so it must not run too often.
        const CHECK_INTERVAL: Duration = Duration::from_millis(50);
        let started = Instant::now();
        while self.expected_and_lost(range.clone()).1 > 0 && started.elapsed() < timeout {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}
