//! Sockets that may be closed for others. Idle ones are without a request under way: new ones, and
//! those between two requests. Their number is bounded; above the bound the one that has been idle
//! longest is closed. Blocked ones have nothing left but a response that their client does not take:
//! anybody can bring a socket into that state and keep it there, so they give way, too, but only
//! where a socket is needed.

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
    idle: BTreeMap<u64, oneshot::Sender<()>>,
    /// In the order in which they became blocked; numbered together with the idle ones.
    blocked: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Queue {
    fn insert(&mut self, is_blocked: bool, sender: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        let sockets = if is_blocked { &mut self.blocked } else { &mut self.idle };
        sockets.insert(number, sender);
        number
    }

    /// The one that has been idle or blocked for longest.
    fn pop_oldest(&mut self) -> Option<oneshot::Sender<()>> {
        let first = |sockets: &BTreeMap<u64, _>| sockets.first_key_value().map(|(number, _)| *number);
        let is_blocked = match (first(&self.idle), first(&self.blocked)) {
            (Some(idle), Some(blocked)) => blocked < idle,
            (idle, _) => idle.is_none(),
        };
        let sockets = if is_blocked { &mut self.blocked } else { &mut self.idle };
        sockets.pop_first().map(|(_, sender)| sender)
    }
}

/// One idle or blocked socket; dropped when the socket has a request, or closes.
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
        let is_full = queue.idle.len() >= self.0.max;
        let oldest = if is_full { queue.idle.pop_first() } else { None };
        let number = queue.insert(false, sender);
        drop(queue);
        self.evict(oldest.map(|(_, sender)| sender));
        IdleSocket { sockets: self.clone(), number, evicted }
    }

    /// The calling socket waits from now on until its client takes a response.
    pub fn enter_blocked(&self) -> IdleSocket {
        let (sender, evicted) = oneshot::channel();
        let number = self.queue().insert(true, sender);
        IdleSocket { sockets: self.clone(), number, evicted }
    }

    /// Closes the socket that has been idle or blocked for longest; returns whether there was one.
    /// The descriptor becomes free when its task has run.
    pub fn evict_oldest(&self) -> bool {
        let oldest = self.queue().pop_oldest();
        self.evict(oldest)
    }

    /// Closes all of them, without counting: the listener is closing.
    pub fn close_all(&self) {
        let mut queue = self.queue();
        let all = (std::mem::take(&mut queue.idle), std::mem::take(&mut queue.blocked));
        drop(queue);
        drop(all);
    }

    /// Dropping a sender wakes the socket's task; that is done without the lock.
    fn evict(&self, sender: Option<oneshot::Sender<()>>) -> bool {
        self.0.evicted.inc_by(u64::from(sender.is_some()));
        sender.is_some()
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
        let mut queue = self.sockets.queue();
        let sender = queue.idle.remove(&self.number).or_else(|| queue.blocked.remove(&self.number));
        drop(queue);
        drop(sender);
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
        assert_eq!((sockets.queue().idle.len(), counter.get()), (MAX, 1));
        assert!(sockets.evict_oldest() && is_evicted(&mut all[1]) && !is_evicted(&mut all[2]));
        sockets.close_all();
        assert!(all.iter_mut().all(is_evicted) && !sockets.evict_oldest());
        assert_eq!(counter.get(), 2);
    }
    #[test]
    fn blocked_sockets_give_way_in_turn_but_have_no_bound() {
        let counter = IntCounter::new("evicted", "evicted").unwrap();
        let sockets = IdleSockets::new(1, counter.clone());
        let mut first = sockets.enter_blocked();
        let mut idle = sockets.enter();
        let mut second = sockets.enter_blocked();
        assert_eq!(counter.get(), 0, "the bound is that of idle sockets");
        assert!(sockets.evict_oldest() && is_evicted(&mut first));
        assert!(!is_evicted(&mut idle) && !is_evicted(&mut second));
        assert!(sockets.evict_oldest() && is_evicted(&mut idle));
        drop(second);
        assert!(!sockets.evict_oldest(), "a response that was taken gives no way");
        assert_eq!(counter.get(), 2);
    }
}
