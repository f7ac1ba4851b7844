//! The current retained values of broadcasts, shared by all connections of the instance, so that
//! ten thousand streams that begin at once do not read Redis ten thousand times.
//!
//! Invariant: while it is open, what it contains is at least as recent as everything that the link
//! has delivered.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::core::{channel::Channel, event::Event, event_options::Retain, id::EventId};

/// A topic's values, and the list of topics, are read again after this long, in ms: another client
/// may have deleted them, or they have expired.
const FRESH_MS: u64 = 60_000;

/// A retained value.
#[derive(Clone, Debug)]
pub struct RetainedValue {
    /// The position of its event.
    pub position: EventId,
    /// Its key.
    pub key: Arc<str>,
    /// The event, without an id.
    pub event: Arc<Event>,
}

/// The values of a channel in the order of their positions.
pub type Values = Arc<[RetainedValue]>;

/// What happened to values while they were read.
type Updates = Vec<Arc<Event>>;

#[derive(Default)]
struct Topic {
    by_key: HashMap<Arc<str>, RetainedValue>,
    /// The same in order, if it was asked for since the last change.
    sorted: Option<Values>,
    /// Updates while the values are being read.
    loading: Option<Updates>,
    read_ms: u64,
    bytes: usize,
}

/// Which topics have values.
#[derive(Default)]
struct TopicList {
    topics: Arc<BTreeSet<Arc<str>>>,
    read_ms: u64,
}

#[derive(Default)]
struct Inner {
    is_open: bool,
    /// Counts up when the cache is emptied.
    generation: u64,
    topics: HashMap<Arc<str>, Topic>,
    list: Option<TopicList>,
    /// Topics that were listed while the list was being read.
    loading_list: Option<Vec<Arc<str>>>,
    bytes: usize,
}

/// A bounded cache of retained values.
pub struct RetainedCache {
    inner: Mutex<Inner>,
    limit_bytes: usize,
    /// Locked by the stream that reads missing values from Redis; the others wait for it.
    pub filling: tokio::sync::Mutex<()>,
}

fn cost(value: &RetainedValue) -> usize {
    value.event.frame.len() + value.event.chunk.len() + value.key.len() + 256
}

impl RetainedCache {
    /// An empty, closed cache of at most this many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        Self { inner: Mutex::default(), limit_bytes, filling: tokio::sync::Mutex::default() }
    }

    /// Opens it: from now on the link brings every change.
    pub fn open(&self) {
        self.inner.lock().is_open = true;
    }

    /// Empties and closes it.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        *inner = Inner { generation: inner.generation + 1, ..Inner::default() };
    }

    /// Takes a live event that changes a value.
    pub fn update(&self, event: &Arc<Event>) {
        let (Channel::Broadcast(topic), Some(retain)) = (&event.channel, event.retain()) else {
            return;
        };
        let mut inner = self.inner.lock();
        if let Some(added) = &mut inner.loading_list {
            added.push(topic.clone());
        }
        if let (Some(list), Retain::Keep(_)) = (&mut inner.list, retain)
            && !list.topics.contains(topic)
        {
            Arc::make_mut(&mut list.topics).insert(topic.clone());
        }
        let Some(entry) = inner.topics.get_mut(topic) else { return };
        if let Some(updates) = &mut entry.loading {
            updates.push(event.clone());
        }
        let before = entry.bytes;
        entry.apply(event);
        let after = entry.bytes;
        inner.bytes = inner.bytes + after - before;
        if inner.bytes > self.limit_bytes {
            inner.forget(topic);
        }
    }

    /// The topics that have values; `None`: they must be read.
    pub fn topics(&self, now_ms: u64) -> Option<Arc<BTreeSet<Arc<str>>>> {
        let inner = self.inner.lock();
        let list = inner.list.as_ref().filter(|list| now_ms < list.read_ms + FRESH_MS)?;
        Some(list.topics.clone())
    }

    /// Before the list of topics is read; the result is for [`RetainedCache::set_topics`].
    pub fn begin_topics(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.loading_list = Some(Vec::new());
        inner.generation
    }

    /// Takes the list that was read.
    pub fn set_topics(&self, generation: u64, mut topics: BTreeSet<Arc<str>>, now_ms: u64) {
        let mut inner = self.inner.lock();
        let added = inner.loading_list.take();
        if inner.generation == generation && inner.is_open {
            topics.extend(added.into_iter().flatten());
            inner.list = Some(TopicList { topics: topics.into(), read_ms: now_ms });
        }
    }

    /// The values of a topic; `None`: they must be read.
    pub fn values(&self, topic: &str, now_ms: u64) -> Option<Values> {
        let mut inner = self.inner.lock();
        let is_fresh =
            |topic: &&mut Topic| topic.loading.is_none() && now_ms < topic.read_ms + FRESH_MS;
        inner.topics.get_mut(topic).filter(is_fresh).map(Topic::sorted)
    }

    /// Before the values of topics are read; the result is for [`RetainedCache::set_values`].
    pub fn begin_values<'a>(&self, topics: impl Iterator<Item = &'a Arc<str>>) -> u64 {
        let mut inner = self.inner.lock();
        for topic in topics {
            inner.topics.entry(topic.clone()).or_default().loading = Some(Vec::new());
        }
        inner.generation
    }

    /// Takes the values of a topic that were read, and returns them with what has changed
    /// meanwhile.
    pub fn set_values(
        &self,
        generation: u64,
        topic: &Arc<str>,
        values: Vec<RetainedValue>,
        now_ms: u64,
    ) -> Values {
        let mut inner = self.inner.lock();
        let is_current = inner.generation == generation && inner.is_open;
        let before = inner.topics.remove(topic).unwrap_or_default();
        inner.bytes -= before.bytes;
        let mut entry = Topic { read_ms: now_ms, ..Topic::default() };
        values.into_iter().for_each(|value| entry.insert(value));
        if is_current {
            before.loading.iter().flatten().for_each(|event| entry.apply(event));
        }
        let sorted = entry.sorted();
        if is_current && inner.bytes + entry.bytes <= self.limit_bytes {
            inner.bytes += entry.bytes;
            inner.topics.insert(topic.clone(), entry);
        }
        sorted
    }
}

impl Inner {
    fn forget(&mut self, topic: &str) {
        if let Some(entry) = self.topics.remove(topic) {
            self.bytes -= entry.bytes;
        }
    }
}

impl Topic {
    /// Applies a change, unless it is older than the value.
    fn apply(&mut self, event: &Arc<Event>) {
        let (Some(retain), Some(position)) = (event.retain(), event.id) else { return };
        let key = retain.key();
        if self.by_key.get(key).is_some_and(|value| value.position >= position) {
            return;
        }
        self.remove(key);
        if let Retain::Keep(key) = retain {
            let event = Arc::new(event.without_id());
            self.insert(RetainedValue { position, key: (&**key).into(), event });
        }
    }

    fn insert(&mut self, value: RetainedValue) {
        self.sorted = None;
        self.bytes += cost(&value);
        self.by_key.insert(value.key.clone(), value);
    }

    fn remove(&mut self, key: &str) {
        self.sorted = None;
        if let Some(value) = self.by_key.remove(key) {
            self.bytes -= cost(&value);
        }
    }

    fn sorted(&mut self) -> Values {
        let sort = || {
            let mut values: Vec<_> = self.by_key.values().cloned().collect();
            values.sort_by_key(|value| value.position);
            values.into()
        };
        self.sorted.get_or_insert_with(sort).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::id;

    fn kept(ms: u64, options: &str) -> Arc<Event> {
        let message = format!("{ms}-0.0 0-0.0 -{options}\n");
        let message = message.replacen(" t\n", " a t\n", 1);
        Arc::new(Event::from_live(None, message.as_bytes()).unwrap())
    }

    fn keep(ms: u64, key: &str) -> Arc<Event> {
        kept(ms, &format!("k t\n{key}\n{ms}"))
    }

    fn forget(ms: u64, key: &str) -> Arc<Event> {
        kept(ms, &format!("f t\n{key}\n{ms}"))
    }

    fn value(ms: u64, key: &str) -> RetainedValue {
        let event = Arc::new(keep(ms, key).without_id());
        RetainedValue { position: id(ms), key: key.into(), event }
    }

    fn shown(values: &Values) -> Vec<String> {
        values.iter().map(|v| format!("{}@{}", v.key, v.position.ms)).collect()
    }

    #[test]
    fn changes_while_values_are_read_are_kept() {
        let cache = RetainedCache::new(100_000);
        let topic: Arc<str> = "a".into();
        cache.open();
        assert!(cache.values("a", 0).is_none());
        let generation = cache.begin_values([&topic].into_iter());
        cache.update(&keep(7, "x"));
        cache.update(&forget(8, "y"));
        cache.update(&keep(4, "z"));
        let read = vec![value(5, "x"), value(6, "y"), value(9, "z")];
        assert_eq!(shown(&cache.set_values(generation, &topic, read, 0)), ["x@7", "z@9"]);
        cache.update(&forget(10, "x"));
        assert_eq!(shown(&cache.values("a", 0).unwrap()), ["z@9"]);
        assert!(cache.values("a", FRESH_MS).is_none(), "read again after a minute");
    }

    #[test]
    fn what_was_read_before_the_link_broke_is_not_kept() {
        let cache = RetainedCache::new(100_000);
        let topic: Arc<str> = "a".into();
        cache.open();
        let (values, topics) = (cache.begin_values([&topic].into_iter()), cache.begin_topics());
        cache.close();
        cache.open();
        cache.set_values(values, &topic, vec![value(5, "x")], 0);
        cache.set_topics(topics, BTreeSet::new(), 0);
        assert!(cache.values("a", 0).is_none() && cache.topics(0).is_none());
    }

    #[test]
    fn cache_is_bounded() {
        let cache = RetainedCache::new(2000);
        let topic: Arc<str> = "a".into();
        cache.open();
        let generation = cache.begin_values([&topic].into_iter());
        cache.set_values(generation, &topic, vec![value(1, "x")], 0);
        (2..40).for_each(|ms| cache.update(&keep(ms, &ms.to_string())));
        assert!(cache.values("a", 0).is_none());
        assert_eq!(cache.inner.lock().bytes, 0);
    }
}
