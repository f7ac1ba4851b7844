//! Sockets without an event stream: new ones, those between two requests, and those whose request
//! or response is in progress. Anyone can open them, so if sockets become scarce, the one that has
//! been inactive longest is closed.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::{Mutex, MutexGuard};
use prometheus::IntCounter;
use tokio::sync::oneshot;

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
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// In the order of their last activity.
    sockets: BTreeMap<u64, Entry>,
}

struct Entry {
    /// Dropped to evict the socket.
    _evict: oneshot::Sender<()>,
    has_request: bool,
}

impl Queue {
    fn push(&mut self, entry: Entry) -> u64 {
        let number = self.next;
        self.next += 1;
        self.sockets.insert(number, entry);
        number
    }
}

/// A socket's entry among the idle ones; dropping it removes the entry.
pub struct IdleSocket {
    sockets: IdleSockets,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl IdleSockets {
    /// Creates an empty set; `evicted` counts sockets that are closed for others.
    pub fn new(limits: IdleLimits, evicted: IntCounter) -> Self {
        Self(Arc::new(Shared { limits, evicted, queue: Mutex::default() }))
    }

    /// Adds a socket of a listener that has `open` sockets.
    pub fn enter(&self, open: usize, has_request: bool) -> IdleSocket {
        let (evict, evicted) = oneshot::channel();
        let IdleLimits { crowded, max } = self.0.limits;
        let mut queue = self.queue();
        let is_full = open > crowded && queue.sockets.len() >= max;
        let oldest = if is_full { queue.sockets.pop_first() } else { None };
        let number = queue.push(Entry { _evict: evict, has_request });
        drop(queue);
        self.evict(oldest.map(|(_, entry)| entry));
        IdleSocket { sockets: self.clone(), number, evicted }
    }

    /// Evicts the socket that has been inactive longest; returns whether there was one. Its
    /// descriptor becomes free when its task has run.
    pub fn evict_oldest(&self) -> bool {
        let oldest = self.queue().sockets.pop_first();
        self.evict(oldest.map(|(_, entry)| entry))
    }

    /// Closes all sockets without a request in progress, because the listener is closing. They are
    /// not counted as evicted.
    pub fn close_all(&self) {
        let is_closed = |_: &u64, entry: &mut Entry| !entry.has_request;
        let closed: Vec<_> = self.queue().sockets.extract_if(.., is_closed).collect();
        drop(closed);
    }

    /// Drops an entry, which wakes the socket's task. The lock must not be held.
    fn evict(&self, entry: Option<Entry>) -> bool {
        self.0.evicted.inc_by(u64::from(entry.is_some()));
        entry.is_some()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock()
    }
}

impl IdleSocket {
    /// Ready when the socket must be closed, and from then on.
    pub fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.evicted.is_terminated() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.evicted).poll(cx).map(|_| ())
    }

    /// Records activity: other sockets are evicted first.
    pub fn touch(&mut self, has_request: bool) {
        let mut queue = self.sockets.queue();
        // An evicted socket remains evicted.
        if let Some(entry) = queue.sockets.remove(&self.number) {
            self.number = queue.push(Entry { has_request, ..entry });
        }
    }
}

impl Drop for IdleSocket {
    fn drop(&mut self) {
        let entry = self.sockets.queue().sockets.remove(&self.number);
        drop(entry);
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
        assert_eq!((sockets.queue().sockets.len(), counter.get()), (LIMITS.max, 1));
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
