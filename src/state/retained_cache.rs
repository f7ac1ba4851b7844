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

use crate::core::{
    channel::Channel,
    event::Event,
    event_options::Retain,
    id::EventId,
    retained::{RetainedValue, Values},
};

/// A topic's values, and the list of topics, are read again after this long, in ms: another client
/// may have deleted them, or they have expired.
const FRESH_MS: u64 = 60_000;

/// Maximum number of topics that are added to the list until it is read again.
const MAX_ADDED: usize = 10_000;

#[derive(Default)]
struct Topic {
    by_key: HashMap<Arc<str>, RetainedValue>,
    /// The same in order, if it was asked for since the last change.
    sorted: Option<Values>,
    /// All its events up to here have arrived.
    last: EventId,
    read_ms: u64,
    bytes: usize,
}

/// What happened to the values of a topic while they were read.
#[derive(Default)]
struct Updates {
    events: Vec<Arc<Event>>,
    /// All events of the topic from then on up to here have arrived.
    last: EventId,
    bytes: usize,
}

/// Which topics have values.
#[derive(Default)]
struct TopicList {
    topics: Arc<BTreeSet<Arc<str>>>,
    added: usize,
    read_ms: u64,
}

/// What the cache knows of the values of a topic.
#[derive(Clone, Debug)]
pub enum CachedValues {
    /// All of them.
    Values(Values),
    /// They do not fit into the cache, and no stream gets them.
    TooLarge,
}

impl CachedValues {
    /// The values, unless they do not fit.
    pub fn values(self) -> Option<Values> {
        match self {
            Self::Values(values) => Some(values),
            Self::TooLarge => None,
        }
    }
}

#[derive(Default)]
struct Inner {
    is_open: bool,
    /// Counts up when the cache is emptied.
    generation: u64,
    /// The last position that has arrived.
    last: EventId,
    topics: HashMap<Arc<str>, Topic>,
    /// Topics whose values did not fit, and when they were read.
    too_large: HashMap<Arc<str>, u64>,
    /// Topics whose values are being read. One that is missing although it is being read had too
    /// many updates, or some did not arrive.
    loading: HashMap<Arc<str>, Updates>,
    list: Option<TopicList>,
    /// Topics that got values while the list was being read.
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

fn cost(event: &Event, key: &str) -> usize {
    event.frame.len() + event.chunk.len() + key.len() + 256
}

impl RetainedCache {
    /// An empty, closed cache of at most this many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        Self { inner: Mutex::default(), limit_bytes, filling: tokio::sync::Mutex::default() }
    }

    /// Opens it: the link brings every change after `h`.
    pub fn open(&self, h: EventId) {
        let mut inner = self.inner.lock();
        inner.is_open = true;
        inner.last = inner.last.max(h);
    }

    /// Empties and closes it.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        *inner = Inner { generation: inner.generation + 1, ..Inner::default() };
    }

    /// Takes a live event, which may change a value. If one before it is missing, the values are
    /// read again.
    pub fn update(&self, event: &Arc<Event>) {
        let (Channel::Broadcast(topic), Some(id)) = (&event.channel, event.id) else { return };
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.last = inner.last.max(id);
        if let Some(last) = inner.last_of(topic)
            && event.predecessor > std::mem::replace(last, id)
        {
            inner.forget(topic);
        }
        let Some(retain) = event.retain() else { return };
        if let Retain::Keep(_) = retain {
            inner.list_topic(topic);
        }
        let (before, after) = if let Some(updates) = inner.loading.get_mut(topic) {
            let before = updates.bytes;
            updates.bytes += cost(event, retain.key());
            updates.events.push(event.clone());
            (before, updates.bytes)
        } else if let Some(entry) = inner.topics.get_mut(topic) {
            let before = entry.bytes;
            entry.apply(event);
            (before, entry.bytes)
        } else {
            return;
        };
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

    /// The values of a topic; `None`: they must be read.
    pub fn values(&self, topic: &str, now_ms: u64) -> Option<CachedValues> {
        let mut inner = self.inner.lock();
        if inner.too_large.get(topic).is_some_and(|read_ms| now_ms < read_ms + FRESH_MS) {
            return Some(CachedValues::TooLarge);
        }
        let is_fresh = |topic: &&mut Topic| now_ms < topic.read_ms + FRESH_MS;
        let entry = inner.topics.get_mut(topic).filter(is_fresh)?;
        Some(CachedValues::Values(entry.sorted()))
    }

    /// Before the list of topics is read.
    pub fn begin_topics(&self) -> LoadingTopics<'_> {
        let mut inner = self.inner.lock();
        inner.loading_list = inner.is_open.then(Vec::new);
        LoadingTopics { cache: self, generation: inner.generation }
    }

    /// Before the values of topics are read.
    pub fn begin_values(&self, topics: Vec<Arc<str>>) -> LoadingValues<'_> {
        let mut inner = self.inner.lock();
        // If it opens only later, changes before that are missing.
        let is_open = inner.is_open;
        for topic in topics.iter().filter(|_| is_open) {
            inner.forget(topic);
            let updates = Updates { last: inner.last, ..Updates::default() };
            inner.loading.insert(topic.clone(), updates);
        }
        LoadingValues { cache: self, generation: inner.generation, topics }
    }
}

/// The list of topics is being read. Dropped if it could not be read.
pub struct LoadingTopics<'a> {
    cache: &'a RetainedCache,
    generation: u64,
}

impl LoadingTopics<'_> {
    /// Takes the list that was read, and returns it with the topics that were added meanwhile.
    pub fn set(self, mut topics: BTreeSet<Arc<str>>, now_ms: u64) -> Arc<BTreeSet<Arc<str>>> {
        let mut inner = self.cache.inner.lock();
        let is_current = inner.generation == self.generation && inner.is_open;
        let added = inner.loading_list.take().filter(|_| is_current);
        let is_complete = added.is_some();
        topics.extend(added.into_iter().flatten());
        let topics = Arc::new(topics);
        if is_complete {
            inner.keep_listed(&topics);
            inner.list = Some(TopicList { topics: topics.clone(), added: 0, read_ms: now_ms });
        }
        topics
    }
}

impl Drop for LoadingTopics<'_> {
    fn drop(&mut self) {
        let mut inner = self.cache.inner.lock();
        if inner.generation == self.generation {
            inner.loading_list = None;
        }
    }
}

/// The values of some topics are being read. Dropped if they could not be read.
pub struct LoadingValues<'a> {
    cache: &'a RetainedCache,
    generation: u64,
    topics: Vec<Arc<str>>,
}

impl LoadingValues<'_> {
    /// Takes the values of a topic that were read, and returns them with what has changed
    /// meanwhile.
    pub fn set(&self, topic: &Arc<str>, values: Vec<RetainedValue>, now_ms: u64) -> CachedValues {
        let mut inner = self.cache.inner.lock();
        let is_current = inner.generation == self.generation && inner.is_open;
        let updates = if is_current { inner.end_loading(topic) } else { None };
        let mut entry = Topic::new(topic, now_ms);
        values.into_iter().for_each(|value| entry.insert(value));
        // Without the updates, the values may be outdated from now on.
        let is_complete = updates.is_some();
        entry.last = updates.as_ref().map_or(EventId::ZERO, |updates| updates.last);
        updates.iter().flat_map(|updates| &updates.events).for_each(|event| entry.apply(event));
        let sorted = entry.sorted();
        // Every stream would hold its own copy, for as long as its client reads slowly.
        inner.too_large.remove(topic);
        if inner.bytes + entry.bytes > self.cache.limit_bytes {
            if is_current {
                inner.too_large.insert(topic.clone(), now_ms);
            }
            return CachedValues::TooLarge;
        }
        if is_complete {
            inner.bytes += entry.bytes;
            inner.topics.insert(topic.clone(), entry);
        }
        CachedValues::Values(sorted)
    }
}

impl Drop for LoadingValues<'_> {
    fn drop(&mut self) {
        let mut inner = self.cache.inner.lock();
        if inner.generation == self.generation {
            self.topics.iter().for_each(|topic| drop(inner.end_loading(topic)));
        }
    }
}

impl Inner {
    fn forget(&mut self, topic: &str) {
        if let Some(entry) = self.topics.remove(topic) {
            self.bytes -= entry.bytes;
        }
        self.end_loading(topic);
    }

    /// Up to where all events of a topic have arrived, if it is followed.
    fn last_of(&mut self, topic: &str) -> Option<&mut EventId> {
        if self.topics.is_empty() && self.loading.is_empty() {
            return None;
        }
        match self.loading.get_mut(topic) {
            Some(updates) => Some(&mut updates.last),
            None => self.topics.get_mut(topic).map(|topic| &mut topic.last),
        }
    }

    fn end_loading(&mut self, topic: &str) -> Option<Updates> {
        let updates = self.loading.remove(topic)?;
        self.bytes -= updates.bytes;
        Some(updates)
    }

    /// A topic has a value.
    fn list_topic(&mut self, topic: &Arc<str>) {
        if let Some(added) = &mut self.loading_list {
            added.push(topic.clone());
            if added.len() > MAX_ADDED {
                self.loading_list = None;
            }
        }
        let Some(list) = self.list.as_mut().filter(|list| !list.topics.contains(topic)) else {
            return;
        };
        Arc::make_mut(&mut list.topics).insert(topic.clone());
        list.added += 1;
        if list.added > MAX_ADDED {
            self.list = None;
        }
    }

    /// Forgets the topics that have no values any more.
    fn keep_listed(&mut self, listed: &BTreeSet<Arc<str>>) {
        let bytes = &mut self.bytes;
        self.too_large.retain(|topic, _| listed.contains(topic));
        self.topics.retain(|topic, entry| {
            let is_listed = listed.contains(topic);
            *bytes -= if is_listed { 0 } else { entry.bytes };
            is_listed
        });
    }
}

impl Topic {
    fn new(topic: &str, read_ms: u64) -> Self {
        Self { read_ms, bytes: topic.len() + 256, ..Self::default() }
    }

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
        self.bytes += cost(&value.event, &value.key);
        self.by_key.insert(value.key.clone(), value);
    }

    fn remove(&mut self, key: &str) {
        self.sorted = None;
        if let Some(value) = self.by_key.remove(key) {
            self.bytes -= cost(&value.event, &value.key);
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
mod tests;
