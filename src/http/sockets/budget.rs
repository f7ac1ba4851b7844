//! The descriptor budget of one listener: each socket has a slot, and there are only as many slots
//! as descriptors reserved for the listener. Clients therefore cannot use up the descriptors of the
//! process, of Redis or of the other listener.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::idle::{IdleLimits, IdleSocket, IdleSockets};
use crate::metrics::Metrics;

/// Maximum time for an evicted socket to close before another one is evicted.
const EVICTION: Duration = Duration::from_millis(100);

/// The sockets of one listener. Clones share the budget.
#[derive(Clone)]
pub struct SocketBudget {
    slots: Arc<Semaphore>,
    max: usize,
    /// Sockets without an event stream.
    pub idle: IdleSockets,
    pub(super) counters: Counters,
}

#[derive(Clone)]
pub(super) struct Counters {
    open: IntGauge,
    pub accepted: IntCounter,
    pub refused: IntCounter,
    pub errors: IntCounterVec,
}

/// The slots of one worker of a listener.
pub struct WorkerSlots {
    budget: SocketBudget,
    load: WorkerLoad,
}

impl WorkerSlots {
    /// The slots of the worker with this load.
    pub fn new(budget: SocketBudget, load: WorkerLoad) -> Rc<Self> {
        Rc::new(Self { budget, load })
    }

    /// Creates the slot of a socket that was accepted with this permit.
    pub(super) fn slot(self: &Rc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        // Returned when the slot is dropped.
        permit.forget();
        self.budget.counters.open.inc();
        self.load.count().fetch_add(1, Ordering::Relaxed);
        Slot(self.clone())
    }
}

/// Represents one open socket. Drop it after the descriptor was closed; this frees the slot.
pub struct Slot(Rc<WorkerSlots>);

impl Slot {
    /// Adds the socket to the idle ones, because it has no event stream.
    pub fn enter_idle(&self, has_request: bool) -> IdleSocket {
        let budget = &self.0.budget;
        let open = usize::try_from(budget.counters.open.get()).unwrap_or_default();
        budget.idle.enter(open, has_request)
    }
}

/// The result of a request for a slot.
pub(super) enum Granted {
    /// A slot is free.
    Slot(OwnedSemaphorePermit),
    /// An idle socket is being closed; try again.
    Later,
    /// All sockets are busy.
    None,
}

impl SocketBudget {
    /// Creates a budget of `max` open sockets. `listener` is the label of its metrics: `public` or
    /// `admin`.
    pub fn new(listener: &str, max: usize, idle: IdleLimits, metrics: &Metrics) -> Self {
        metrics.sockets_limit.with_label_values(&[listener]).set(max as i64);
        let counters = Counters {
            open: metrics.sockets.with_label_values(&[listener]),
            accepted: metrics.sockets_accepted.with_label_values(&[listener]),
            refused: metrics.sockets_dropped.with_label_values(&["no-descriptor"]),
            errors: metrics.accept_errors.clone(),
        };
        let evicted = metrics.sockets_dropped.with_label_values(&["idle"]);
        let idle = IdleSockets::new(idle, evicted);
        Self { slots: Arc::new(Semaphore::new(max)), max, idle, counters }
    }

    /// Number of open sockets.
    pub fn open(&self) -> usize {
        self.max - self.slots.available_permits()
    }

    /// Requests a permit for one more socket. If all are in use, the socket that has been idle
    /// longest is closed.
    pub(super) async fn grant(&self) -> Granted {
        if let Ok(permit) = self.slots.clone().try_acquire_owned() {
            return Granted::Slot(permit);
        }
        if !self.idle.evict_oldest() {
            return Granted::None;
        }
        match tokio::time::timeout(EVICTION, self.slots.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Granted::Slot(permit),
            _ => Granted::Later,
        }
    }

    /// Returns a slot if one is free.
    #[cfg(test)]
    pub fn try_slot(&self, load: &WorkerLoad) -> Option<Slot> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        Some(WorkerSlots::new(self.clone(), load.clone()).slot(permit))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let WorkerSlots { budget, load } = &*self.0;
        budget.counters.open.dec();
        load.count().fetch_sub(1, Ordering::Relaxed);
        budget.slots.add_permits(1);
    }
}

/// The numbers of open sockets of all workers of a listener, for one of the workers.
#[derive(Clone)]
pub struct WorkerLoad {
    workers: Arc<[AtomicUsize]>,
    own: usize,
}

/// A worker is ahead if it has this many sockets, plus 1/32, more than the worker with the fewest.
const LEAD: usize = 4;

impl WorkerLoad {
    /// Creates the values of all workers.
    pub fn of_workers(count: usize) -> Vec<Self> {
        let workers: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        (0..count).map(|own| Self { workers: workers.clone(), own }).collect()
    }

    /// Whether other workers should accept the next socket.
    pub(super) fn is_ahead(&self) -> bool {
        let least = self.workers.iter().map(|count| count.load(Ordering::Relaxed)).min();
        let least = least.unwrap_or_default();
        self.count().load(Ordering::Relaxed) > least + least / 32 + LEAD
    }

    fn count(&self) -> &AtomicUsize {
        &self.workers[self.own]
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn budget(max: usize, metrics: &Metrics) -> SocketBudget {
        SocketBudget::new("public", max, IdleLimits { crowded: max, max }, metrics)
    }

    async fn slot(budget: &SocketBudget) -> Option<Slot> {
        match budget.grant().await {
            Granted::Slot(permit) => {
                let load = WorkerLoad::of_workers(1).remove(0);
                Some(WorkerSlots::new(budget.clone(), load).slot(permit))
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn slots_never_exceed_the_budget() {
        let metrics = Metrics::new();
        let budget = budget(2, &metrics);
        let (first, second) = (slot(&budget).await, slot(&budget).await);
        assert!(first.is_some() && second.is_some() && slot(&budget).await.is_none());
        assert_eq!((budget.open(), budget.counters.open.get()), (2, 2));
        drop(first);
        assert!(slot(&budget).await.is_some());
        assert_eq!(budget.open(), 1);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn idle_socket_gives_its_slot_to_a_new_one() {
        let metrics = Metrics::new();
        let budget = budget(1, &metrics);
        let taken = slot(&budget).await.unwrap();
        let idle = taken.enter_idle(false);
        let closing = async {
            poll_fn(|cx| idle.poll_evicted(cx)).await;
            drop(taken);
        };
        let (next, ()) = tokio::join!(slot(&budget), closing);
        assert!(next.is_some());
        // The remaining socket is busy.
        assert!(matches!(budget.grant().await, Granted::None));
    }

    #[test]
    fn worker_with_more_sockets_is_ahead() {
        let loads = WorkerLoad::of_workers(2);
        let set = |worker: usize, count| loads[worker].count().store(count, Ordering::Relaxed);
        set(0, LEAD);
        assert!(!loads[0].is_ahead() && !loads[1].is_ahead());
        set(0, LEAD + 1);
        assert!(loads[0].is_ahead() && !loads[1].is_ahead());
        set(0, 1035);
        set(1, 1000);
        assert!(!loads[0].is_ahead());
        set(0, 1036);
        assert!(loads[0].is_ahead());
    }
}
