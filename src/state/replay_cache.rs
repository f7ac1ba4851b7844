//! Recent broadcasts in id order, shared by all connections of the instance, so that a thousand
//! resumes do not read the same log a thousand times.
//!
//! Invariant: while `start` is known, the cache contains every broadcast over (start, watermark of
//! the link].

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::core::{channel::Channel, event::Event, id::EventId, topics::Topics};

#[derive(Default)]
struct Inner {
    start: Option<EventId>,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

/// A bounded cache of recent broadcasts.
pub struct ReplayCache {
    inner: Mutex<Inner>,
    limit_bytes: usize,
    /// Locked by the catch-up that loads missing events from Redis; the others wait for it.
    pub filling: tokio::sync::Mutex<()>,
}

fn cost(event: &Event) -> usize {
    event.frame.len() + 128
}

fn id_of(event: &Event) -> EventId {
    event.id.unwrap_or(EventId::ZERO)
}

impl ReplayCache {
    /// An empty cache of at most this many bytes.
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

    /// Empties the cache when the link is lost: later events may not follow the cached ones.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// Starts the cache when the link is up, and brings everything after `h`.
    pub fn begin(&self, h: EventId) {
        let mut inner = self.lock();
        while inner.events.front().is_some_and(|e| id_of(e) <= h) {
            inner.drop_front();
        }
        inner.start = Some(inner.start.map_or(h, |start| start.max(h)));
    }

    /// Adds a live event, if it is a broadcast with an id.
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

    /// The id after which the cache is complete; `None` if it is not.
    pub fn start(&self) -> Option<EventId> {
        self.lock().start
    }

    /// Adds the events over (from, start] that were read from the logs. Returns `false` if `start`
    /// has changed meanwhile or there is no room.
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

    /// Up to `count` events of the topics over (from, to], and whether there may be more. `None` if
    /// the cache does not reach back to `from`.
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
        EventId { epoch: 0, ms, seq: 0 }
    }

    fn event(ms: u64, topic: &str) -> Arc<Event> {
        let channel = Channel::parse(&format!("broadcast:{topic}")).unwrap();
        Arc::new(Event::new(id(ms), EventId::ZERO, channel, None, "t", &"x".repeat(100)))
    }

    fn read(cache: &ReplayCache, from: u64, to: u64, count: usize) -> Option<(Vec<u64>, bool)> {
        let all = Topics::parse(["a"].into_iter()).unwrap();
        cache
            .read(id(from), id(to), &all, count)
            .map(|(e, more)| (e.iter().map(|e| id_of(e).ms).collect(), more))
    }

    #[test]
    fn cache_answers_only_for_what_it_has_received() {
        let cache = ReplayCache::new(10_000);
        cache.push(&event(4, "a"));
        cache.push(&event(6, "a"));
        assert_eq!(read(&cache, 5, 9, 10), None, "not started");
        cache.begin(id(5));
        cache.push(&event(7, "b"));
        cache.push(&event(8, "a"));
        assert_eq!(read(&cache, 5, 9, 10), Some((vec![6, 8], false)));
        assert_eq!(read(&cache, 5, 9, 1), Some((vec![6], true)));
        assert_eq!(read(&cache, 5, 7, 10), Some((vec![6], false)));
        assert_eq!(read(&cache, 4, 9, 10), None);
        assert!(cache.prepend(id(2), id(5), &[event(3, "a")]));
        assert!(!cache.prepend(id(1), id(5), &[]), "no longer its start");
        assert_eq!(read(&cache, 2, 9, 10), Some((vec![3, 6, 8], false)));
        cache.clear();
        assert_eq!(read(&cache, 7, 9, 10), None);
    }

    #[test]
    fn cache_is_bounded_and_its_start_moves() {
        let cache = ReplayCache::new(1000);
        cache.begin(id(1));
        (2..50).for_each(|ms| cache.push(&event(ms, "a")));
        assert_eq!(read(&cache, 1, 99, 10), None);
        assert_eq!(read(&cache, 48, 99, 10), Some((vec![49], false)));
        let start = cache.start().unwrap();
        assert!(!cache.prepend(
            id(1),
            start,
            &(2..50).map(|ms| event(ms, "a")).collect::<Vec<_>>()
        ));
    }
}
