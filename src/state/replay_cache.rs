//! The tail: recent broadcasts in id order, shared by all connections of the instance, so that a
//! thousand resumes do not read the same log a thousand times.
//!
//! Invariant: while `start` is known, the tail holds every broadcast over (start, watermark of the
//! link].

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::core::{channel::Channel, event::Event, id::EventId, topics::Topics};

#[derive(Default)]
struct Inner {
    start: Option<EventId>,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

/// See the file's head.
pub struct ReplayCache {
    inner: Mutex<Inner>,
    limit_bytes: usize,
    /// Held by the one catch-up that reads from Redis what the tail lacks; the others wait and find
    /// it there.
    pub filling: tokio::sync::Mutex<()>,
}

fn cost(event: &Event) -> usize {
    event.frame.len() + 128
}

fn id_of(event: &Event) -> EventId {
    event.id.unwrap_or(EventId::ZERO)
}

impl ReplayCache {
    /// An empty tail that holds at most this many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        Self { inner: Mutex::default(), limit_bytes, filling: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The maximum size of the cached events.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// The link broke: what comes next need not follow what is here.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// The link is up, and everything after `h` comes by it.
    pub fn begin(&self, h: EventId) {
        let mut inner = self.lock();
        while inner.events.front().is_some_and(|e| id_of(e) <= h) {
            inner.drop_front();
        }
        inner.start = Some(inner.start.map_or(h, |start| start.max(h)));
    }

    /// An event came by the link.
    pub fn push(&self, event: &Arc<Event>) {
        if event.id.is_none() || !matches!(event.channel, Channel::Broadcast(_)) {
            return;
        }
        let mut inner = self.lock();
        inner.bytes += cost(event);
        inner.events.push_back(event.clone());
        while inner.bytes > self.limit_bytes {
            inner.drop_front();
        }
    }

    /// Where the tail starts.
    pub fn start(&self) -> Option<EventId> {
        self.lock().start
    }

    /// Puts what was read over (from, start] before the tail. Refused (`false`) if the tail moved
    /// on or has no room.
    pub fn prepend(&self, from: EventId, start: EventId, events: &[Arc<Event>]) -> bool {
        let mut inner = self.lock();
        let bytes: usize = events.iter().map(|e| cost(e)).sum();
        if inner.start != Some(start) || inner.bytes + bytes > self.limit_bytes {
            return false;
        }
        for event in events.iter().rev() {
            inner.events.push_front(event.clone());
        }
        inner.bytes += bytes;
        inner.start = Some(from);
        true
    }

    /// Up to `count` events over (from, to] of the topics; the flag says that there may be more.
    /// `None`: the tail does not reach back to `from`.
    pub fn read(
        &self,
        from: EventId,
        to: EventId,
        topics: &Topics,
        count: usize,
    ) -> Option<(Vec<Arc<Event>>, bool)> {
        let inner = self.lock();
        if inner.start.is_none_or(|start| from < start) {
            return None;
        }
        let first = inner.events.partition_point(|e| id_of(e) <= from);
        let allowed = |e: &&Arc<Event>| match &e.channel {
            Channel::Broadcast(topic) => topics.allows(topic),
            Channel::User(_) => false,
        };
        let mut found: Vec<_> = inner
            .events
            .range(first..)
            .take_while(|e| id_of(e) <= to)
            .filter(allowed)
            .take(count + 1)
            .cloned()
            .collect();
        let more = found.len() > count;
        found.truncate(count);
        Some((found, more))
    }
}

impl Inner {
    fn drop_front(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= cost(&event);
            self.start = self.start.map(|start| start.max(id_of(&event)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn event(ms: u64, topic: &str) -> Arc<Event> {
        let channel = Channel::parse(&format!("broadcast:{topic}")).unwrap();
        Arc::new(Event::new(id(ms), EventId::ZERO, channel, None, "t", &"x".repeat(100)))
    }

    fn read(tail: &ReplayCache, from: u64, to: u64, count: usize) -> Option<(Vec<u64>, bool)> {
        let all = Topics::parse(["a"].into_iter()).unwrap();
        tail.read(id(from), id(to), &all, count)
            .map(|(e, more)| (e.iter().map(|e| id_of(e).ms).collect(), more))
    }

    #[test]
    fn it_answers_only_for_what_it_has_seen() {
        let tail = ReplayCache::new(10_000);
        tail.push(&event(4, "a"));
        tail.push(&event(6, "a"));
        assert_eq!(read(&tail, 5, 9, 10), None, "not begun");
        tail.begin(id(5));
        tail.push(&event(7, "b"));
        tail.push(&event(8, "a"));
        assert_eq!(read(&tail, 5, 9, 10), Some((vec![6, 8], false)));
        assert_eq!(read(&tail, 5, 9, 1), Some((vec![6], true)));
        assert_eq!(read(&tail, 5, 7, 10), Some((vec![6], false)));
        assert_eq!(read(&tail, 4, 9, 10), None);
        assert!(tail.prepend(id(2), id(5), &[event(3, "a")]));
        assert!(!tail.prepend(id(1), id(5), &[]), "no longer its start");
        assert_eq!(read(&tail, 2, 9, 10), Some((vec![3, 6, 8], false)));
        tail.clear();
        assert_eq!(read(&tail, 7, 9, 10), None);
    }

    #[test]
    fn it_is_bounded_and_its_start_moves() {
        let tail = ReplayCache::new(1000);
        tail.begin(id(1));
        (2..50).for_each(|ms| tail.push(&event(ms, "a")));
        assert_eq!(read(&tail, 1, 99, 10), None);
        assert_eq!(read(&tail, 48, 99, 10), Some((vec![49], false)));
        let start = tail.start().unwrap();
        assert!(!tail.prepend(id(1), start, &(2..50).map(|ms| event(ms, "a")).collect::<Vec<_>>()));
    }
}
