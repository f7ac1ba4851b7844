//! The streams with a filter, by topic and by the values of the first tag of their filter: an event
//! with that tag concerns only some of them.
//!
//! Such a stream does not get every event of its channels, so the predecessor of an event says
//! nothing to it. This index follows the events of the channels instead: it knows whether one is
//! missing.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use super::{Keys, link, unlink};
use crate::{
    core::{
        channel::Channel, event::Event, event_options::Tags, filter::Filter, id::EventId,
        queue::Item, topics::has_prefix,
    },
    state::connection::Connection,
};

/// Maximum number of channels that are followed. Beyond it the index begins again, and the next
/// event of each channel makes its filtered streams catch up.
const MAX_FOLLOWED: usize = 16 << 10;

static NO_TAGS: std::sync::LazyLock<Tags> = std::sync::LazyLock::new(Tags::default);

/// The streams of one topic or prefix.
#[derive(Default)]
struct ByTag(HashMap<Box<str>, TagIndex>);

/// The streams whose filter begins with one tag.
#[derive(Default)]
struct TagIndex {
    all: HashSet<usize>,
    by_value: HashMap<Box<str>, Keys>,
}

impl ByTag {
    fn insert(&mut self, filter: &Filter, key: usize) {
        let Some((name, values)) = filter.first() else { return };
        let index = self.0.entry(name.into()).or_default();
        index.all.insert(key);
        for value in values {
            link(&mut index.by_value, value.clone(), key);
        }
    }

    fn remove(&mut self, filter: &Filter, key: usize) {
        let Some((name, values)) = filter.first() else { return };
        let Some(index) = self.0.get_mut(name) else { return };
        index.all.remove(&key);
        for value in values {
            unlink(&mut index.by_value, value, key);
        }
        if index.all.is_empty() {
            self.0.remove(name);
        }
    }

    /// Number of streams.
    fn count(&self) -> usize {
        self.0.values().map(|index| index.all.len()).sum()
    }

    /// The streams that may get an event with these tags; the rest of their filter decides.
    fn candidates(&self, tags: &Tags, mut each: impl FnMut(usize)) {
        for (name, index) in &self.0 {
            match tags.get(name) {
                None => index.all.iter().copied().for_each(&mut each),
                Some(value) => {
                    let keys = index.by_value.get(value).map_or(&[][..], Keys::as_slice);
                    keys.iter().copied().for_each(&mut each);
                }
            }
        }
    }
}

/// The streams with a filter.
#[derive(Default)]
pub(super) struct Filtered {
    count: usize,
    topics: HashMap<String, ByTag>,
    prefixes: HashMap<String, ByTag>,
    users: HashMap<Arc<str>, Keys>,
    /// The last event of each channel since it is followed: none before it is missing.
    seen: RefCell<HashMap<Channel, EventId>>,
}

impl Filtered {
    /// Whether there is no such stream.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each topic and each prefix (then `true`) with the number of streams that name it.
    pub fn topic_counts(&self) -> impl Iterator<Item = ((&str, bool), usize)> {
        let count = |is_prefix| move |(p, streams): (_, &ByTag)| ((p, is_prefix), streams.count());
        let topics = self.topics.iter().map(|(topic, streams)| (&**topic, streams));
        let prefixes = self.prefixes.iter().map(|(prefix, streams)| (&**prefix, streams));
        topics.map(count(false)).chain(prefixes.map(count(true)))
    }

    pub fn insert(&mut self, connection: &Connection, filter: &Filter, key: usize) {
        let client = &connection.client;
        self.count += 1;
        client.user().into_iter().for_each(|user| link(&mut self.users, user.clone(), key));
        for topic in client.topics.exact() {
            self.topics.entry(topic.to_owned()).or_default().insert(filter, key);
        }
        for prefix in client.topics.prefixes() {
            self.prefixes.entry(prefix.to_owned()).or_default().insert(filter, key);
        }
    }

    pub fn remove(&mut self, connection: &Connection, filter: &Filter, key: usize) {
        let client = &connection.client;
        self.count -= 1;
        client.user().into_iter().for_each(|user| unlink(&mut self.users, user, key));
        for topic in client.topics.exact() {
            remove_from(&mut self.topics, topic, filter, key);
        }
        for prefix in client.topics.prefixes() {
            remove_from(&mut self.prefixes, prefix, filter, key);
        }
        if self.count == 0 {
            self.seen.take();
        }
    }

    /// Follows the channel of an event. Returns whether it has no such stream, or else whether no
    /// event before this one is missing.
    pub fn follow(&self, event: &Event) -> Followed {
        let has_streams = match &event.channel {
            Channel::User(user) => self.users.contains_key(user),
            Channel::Broadcast(topic) => {
                self.topics.contains_key(&**topic)
                    || self.prefixes.keys().any(|prefix| has_prefix(topic, prefix))
            }
        };
        if !has_streams {
            return Followed::Nobody;
        }
        let Some(id) = event.id else { return Followed::Complete };
        let mut seen = self.seen.borrow_mut();
        if seen.len() >= MAX_FOLLOWED && !seen.contains_key(&event.channel) {
            seen.clear();
        }
        let before = seen.insert(event.channel.clone(), id);
        match before.is_some_and(|before| event.predecessor <= before) {
            true => Followed::Complete,
            false => Followed::Unknown,
        }
    }

    /// Calls `each` with the keys of the streams that may get an event; their filter decides. A
    /// stream may be named more than once.
    pub fn candidates(&self, event: &Event, each: impl FnMut(usize)) {
        let tags = event.options.as_ref().map_or(&*NO_TAGS, |options| &options.tags);
        self.with_tags(&event.channel, tags, each);
    }

    /// Calls `each` with the keys of all streams of a channel.
    pub fn all(&self, channel: &Channel, each: impl FnMut(usize)) {
        // A filter lets pass what has no tags.
        self.with_tags(channel, &NO_TAGS, each);
    }

    fn with_tags(&self, channel: &Channel, tags: &Tags, mut each: impl FnMut(usize)) {
        match channel {
            Channel::User(user) => {
                let keys = self.users.get(user).map_or(&[][..], Keys::as_slice);
                keys.iter().copied().for_each(each);
            }
            Channel::Broadcast(topic) => {
                if let Some(index) = self.topics.get(&**topic) {
                    index.candidates(tags, &mut each);
                }
                for (prefix, index) in &self.prefixes {
                    if has_prefix(topic, prefix) {
                        index.candidates(tags, &mut each);
                    }
                }
            }
        }
    }
}

/// What the index knows of the events before one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// No stream with a filter has the channel.
    Nobody,
    /// All since the channel is followed have come.
    Complete,
    /// Some may be missing: each stream decides by its position.
    Unknown,
}

fn remove_from(map: &mut HashMap<String, ByTag>, name: &str, filter: &Filter, key: usize) {
    if let Some(index) = map.get_mut(name) {
        index.remove(filter, key);
        if index.0.is_empty() {
            map.remove(name);
        }
    }
}

impl super::ConnectionIndex {
    /// Offers an event to the streams with a filter that lets it pass. They get it as it is, or as
    /// another item: without its predecessor, of which they need not know. If an event before it
    /// may be missing, all streams with a filter get it, because the missing one may concern those
    /// that this one does not.
    pub fn offer_filtered(
        &self,
        event: &Arc<Event>,
        mut offer: impl FnMut(&Rc<Connection>, Option<&Item>),
    ) {
        if self.filtered.is_empty() {
            return;
        }
        let free = match self.filtered.follow(event) {
            Followed::Nobody => return,
            Followed::Complete => Item::Event(Arc::new(event.without_predecessor())),
            Followed::Unknown => {
                let held = Item::Filtered(event.clone());
                return self.filtered.all(&event.channel, |key| {
                    if let Some(connection) = self.all.get(key) {
                        offer(connection, (!connection.sees(event)).then_some(&held));
                    }
                });
            }
        };
        // A stream with several values or patterns is named more than once. An event without an id
        // has no position by which it would notice.
        let mut named = HashSet::new();
        self.filtered.candidates(event, |key| {
            let Some(connection) = self.all.get(key) else { return };
            if connection.sees(event) && (event.id.is_some() || named.insert(key)) {
                offer(connection, Some(&free));
            }
        });
    }
}
