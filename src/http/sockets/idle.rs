//! Sockets without an event stream: new ones, those between two requests, and those whose request
//! or response is in progress. Anyone can open them, so if sockets become scarce, the one that has
//! been inactive longest is closed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use prometheus::IntCounter;

/// The idle sockets of one listener, of all its workers.
#[derive(Clone)]
pub struct IdleSockets(Arc<Shared>);

/// When idle sockets are closed although free slots remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleLimits {
    /// Number of open sockets up to which none is evicted; each still has its own deadline.
    pub crowded: usize,
    /// Maximum number of idle sockets if the listener has more open sockets than that.
    pub max: usize,
}

struct Shared {
    limits: IdleLimits,
    evicted: IntCounter,
    /// Numbers all activity of all sockets.
    next: AtomicU64,
    queue: Mutex<Queue>,
}

/// What the owner of a socket and the queue know of it.
struct Entry {
    sockets: IdleSockets,
    /// The number of its last activity.
    active: AtomicU64,
    /// Its place in the queue: an earlier activity, or the last one. Changes under the lock only.
    place: AtomicU64,
    has_request: AtomicBool,
    is_evicted: AtomicBool,
    waker: AtomicWaker,
}

/// Sockets by their places. Activity only changes the entry: the search for the oldest socket moves
/// those in front of it that were active meanwhile.
#[derive(Default)]
struct Queue(BTreeMap<u64, Arc<Entry>>);

impl Queue {
    fn push(&mut self, place: u64, entry: Arc<Entry>) {
        entry.place.store(place, Ordering::Relaxed);
        self.0.insert(place, entry);
    }

    /// Takes the socket that has been inactive longest. `next` is the number of the next activity:
    /// no socket is moved twice, however active it is meanwhile.
    fn pop_oldest(&mut self, next: u64) -> Option<Arc<Entry>> {
        loop {
            let (place, entry) = self.0.pop_first()?;
            let active = entry.active.load(Ordering::Relaxed);
            if active == place || place >= next {
                return Some(entry);
            }
            self.push(active, entry);
        }
    }
}

/// A socket's entry among the idle ones; dropping it removes the entry.
pub struct IdleSocket(Arc<Entry>);

impl IdleSockets {
    /// Creates an empty set; `evicted` counts sockets that are closed for others.
    pub fn new(limits: IdleLimits, evicted: IntCounter) -> Self {
        let (next, queue) = (AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Shared { limits, evicted, next, queue }))
    }

    /// Adds a socket of a listener that has `open` sockets.
    pub fn enter(&self, open: usize, has_request: bool) -> IdleSocket {
        let number = self.next_number();
        let entry = Arc::new(Entry {
            sockets: self.clone(),
            active: AtomicU64::new(number),
            place: AtomicU64::new(number),
            has_request: AtomicBool::new(has_request),
            is_evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let IdleLimits { crowded, max } = self.0.limits;
        let mut queue = self.queue();
        let is_full = open > crowded && queue.0.len() >= max;
        let oldest = if is_full { queue.pop_oldest(number) } else { None };
        queue.push(number, entry.clone());
        drop(queue);
        self.evict(oldest);
        IdleSocket(entry)
    }

    /// Evicts the socket that has been inactive longest; returns whether there was one. Its
    /// descriptor becomes free when its task has run.
    pub fn evict_oldest(&self) -> bool {
        let next = self.0.next.load(Ordering::Relaxed);
        let oldest = self.queue().pop_oldest(next);
        self.evict(oldest)
    }

    /// Closes all sockets without a request in progress, because the listener is closing. They are
    /// not counted as evicted.
    pub fn close_all(&self) {
        let is_closed =
            |_: &u64, entry: &mut Arc<Entry>| !entry.has_request.load(Ordering::Relaxed);
        let closed: Vec<_> = self.queue().0.extract_if(.., is_closed).collect();
        closed.iter().for_each(|(_, entry)| entry.evict());
    }

    /// The lock must not be held, because this wakes the socket's task.
    fn evict(&self, entry: Option<Arc<Entry>>) -> bool {
        self.0.evicted.inc_by(u64::from(entry.is_some()));
        entry.inspect(|entry| entry.evict()).is_some()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock()
    }

    fn next_number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Entry {
    fn evict(&self) {
        self.is_evicted.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl IdleSocket {
    /// Ready when the socket must be closed, and from then on. Only one task may poll it.
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        match self.0.is_evicted.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Records activity: other sockets are evicted first.
    pub fn touch(&self, has_request: bool) {
        self.0.active.store(self.0.sockets.next_number(), Ordering::Relaxed);
        self.0.has_request.store(has_request, Ordering::Relaxed);
    }
}

impl Drop for IdleSocket {
    fn drop(&mut self) {
        let mut queue = self.0.sockets.queue();
        queue.0.remove(&self.0.place.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, iter};

    use futures_util::FutureExt;

    use super::*;

    const LIMITS: IdleLimits = IdleLimits { crowded: 20, max: 8 };

    fn is_evicted(socket: &mut IdleSocket) -> bool {
        poll_fn(|cx| socket.poll_evicted(cx)).now_or_never().is_some()
    }

    fn sockets() -> (IdleSockets, IntCounter) {
        let counter = IntCounter::new("evicted", "evicted").unwrap();
        (IdleSockets::new(LIMITS, counter.clone()), counter)
    }

    fn enter_many(sockets: &IdleSockets, open: usize, count: usize) -> Vec<IdleSocket> {
        iter::repeat_with(|| sockets.enter(open, false)).take(count).collect()
    }

    #[test]
    fn crowded_listener_evicts_socket_idle_longest() {
        let (sockets, counter) = sockets();
        let mut all = enter_many(&sockets, 21, LIMITS.max);
        drop(all.remove(1));
        all.push(sockets.enter(21, false));
        assert!(!is_evicted(&mut all[0]), "one socket was removed before");
        all.push(sockets.enter(21, false));
        assert!(is_evicted(&mut all[0]) && !is_evicted(&mut all[1]));
        assert_eq!((sockets.queue().0.len(), counter.get()), (LIMITS.max, 1));
        assert!(sockets.evict_oldest() && is_evicted(&mut all[1]) && !is_evicted(&mut all[2]));
        sockets.close_all();
        assert!(all.iter_mut().all(is_evicted) && !sockets.evict_oldest());
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn listener_with_free_slots_evicts_no_socket() {
        let (sockets, counter) = sockets();
        let mut all = enter_many(&sockets, LIMITS.crowded, 3 * LIMITS.max);
        assert!(!all.iter_mut().any(is_evicted) && counter.get() == 0);
        all.push(sockets.enter(LIMITS.crowded + 1, false));
        assert!(is_evicted(&mut all[0]) && !is_evicted(&mut all[1]));
    }

    #[test]
    fn active_sockets_are_evicted_last() {
        let (sockets, _) = sockets();
        let mut all = enter_many(&sockets, 1, 3);
        all[0].touch(true);
        assert!(sockets.evict_oldest() && is_evicted(&mut all[1]));
        all[1].touch(true);
        assert!(is_evicted(&mut all[1]), "an evicted socket remains evicted");
        assert!(sockets.evict_oldest() && is_evicted(&mut all[2]) && !is_evicted(&mut all[0]));
        // A closing listener lets the request finish.
        sockets.close_all();
        assert!(!is_evicted(&mut all[0]));
        all[0].touch(false);
        sockets.close_all();
        assert!(is_evicted(&mut all[0]));
    }
}
