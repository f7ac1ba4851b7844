//! Sockets without a request under way: new ones, and those between two requests. Their number is
//! bounded; above the bound the one that has been idle longest is closed.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use prometheus::IntCounter;
use tokio::sync::oneshot;

/// The idle sockets of one listener, of all its workers.
#[derive(Clone)]
pub struct IdleSockets(Arc<Shared>);

struct Shared {
    max: usize,
    evicted: IntCounter,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    /// In the order in which they became idle.
    sockets: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One idle socket; dropped when the socket has a request, or closes.
pub struct IdleSocket {
    sockets: IdleSockets,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl IdleSockets {
    /// At most `max` sockets at once; `evicted` counts those that were closed for others.
    pub fn new(max: usize, evicted: IntCounter) -> Self {
        Self(Arc::new(Shared { max, evicted, queue: Mutex::default() }))
    }

    /// The calling socket is idle from now on.
    pub fn enter(&self) -> IdleSocket {
        let (sender, evicted) = oneshot::channel();
        let mut queue = self.queue();
        let oldest =
            if queue.sockets.len() >= self.0.max { queue.sockets.pop_first() } else { None };
        let number = queue.next;
        queue.next += 1;
        queue.sockets.insert(number, sender);
        drop(queue);
        self.evict(oldest.into_iter().map(|(_, sender)| sender));
        IdleSocket { sockets: self.clone(), number, evicted }
    }

    /// Closes the socket that has been idle longest; returns whether there was one. The descriptor
    /// becomes free when its task has run.
    pub fn evict_oldest(&self) -> bool {
        let oldest = self.queue().sockets.pop_first();
        self.evict(oldest.into_iter().map(|(_, sender)| sender)) > 0
    }

    /// Closes all of them, without counting: the listener is closing.
    pub fn close_all(&self) {
        let all = std::mem::take(&mut self.queue().sockets);
        drop(all);
    }

    /// Dropping a sender wakes the socket's task; that is done without the lock.
    fn evict(&self, senders: impl Iterator<Item = oneshot::Sender<()>>) -> usize {
        let count = senders.count();
        self.0.evicted.inc_by(count as u64);
        count
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleSocket {
    /// Ready when the socket has to be closed, and from then on.
    pub fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.evicted.is_terminated() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.evicted).poll(cx).map(|_| ())
    }

    /// Waits until the socket has to be closed.
    pub async fn evicted(&mut self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }
}

impl Drop for IdleSocket {
    fn drop(&mut self) {
        self.sockets.queue().sockets.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MAX: usize = 8;

    fn is_evicted(socket: &mut IdleSocket) -> bool {
        socket.evicted().now_or_never().is_some()
    }

    #[test]
    fn above_the_bound_the_longest_idle_is_evicted() {
        let counter = IntCounter::new("evicted", "evicted").unwrap();
        let sockets = IdleSockets::new(MAX, counter.clone());
        let mut all: Vec<IdleSocket> = (0..MAX).map(|_| sockets.enter()).collect();
        drop(all.remove(1));
        all.push(sockets.enter());
        assert!(!is_evicted(&mut all[0]), "one had left");
        all.push(sockets.enter());
        assert!(is_evicted(&mut all[0]) && !is_evicted(&mut all[1]));
        assert_eq!((sockets.queue().sockets.len(), counter.get()), (MAX, 1));
        assert!(sockets.evict_oldest() && is_evicted(&mut all[1]) && !is_evicted(&mut all[2]));
        sockets.close_all();
        assert!(all.iter_mut().all(is_evicted) && !sockets.evict_oldest());
        assert_eq!(counter.get(), 2);
    }
}
