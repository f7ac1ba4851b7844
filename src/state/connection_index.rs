//! The connections of a worker, by user and by topic.

mod filtered;

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    rc::Rc,
    sync::Arc,
};

use slab::Slab;

use self::filtered::Filtered;
use super::connection::Connection;
use crate::core::{channel::Channel, event::Event, topics::has_prefix};

/// The keys of the connections of a channel. Most users have one, which needs no allocation.
#[expect(clippy::box_collection, reason = "most users have one")]
enum Keys {
    One(usize),
    Many(Box<Vec<usize>>),
}

impl Keys {
    fn as_slice(&self) -> &[usize] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }

    fn push(&mut self, key: usize) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, key])),
            Self::Many(keys) => keys.push(key),
        }
    }

    /// Removes a key; returns whether it was the last one.
    fn remove(&mut self, key: usize) -> bool {
        match self {
            Self::One(only) => *only == key,
            Self::Many(keys) => {
                if let Some(at) = keys.iter().position(|k| *k == key) {
                    keys.swap_remove(at);
                }
                keys.is_empty()
            }
        }
    }
}

/// Connections by the channels that they receive.
#[derive(Default)]
pub struct ConnectionIndex {
    all: Slab<Rc<Connection>>,
    users: HashMap<Arc<str>, Keys>,
    topics: HashMap<String, Keys>,
    prefixes: HashMap<String, Keys>,
    filtered: Filtered,
}

impl ConnectionIndex {
    /// Adds a connection and returns its key.
    pub fn insert(&mut self, connection: &Rc<Connection>) -> usize {
        let key = self.all.insert(connection.clone());
        let client = &connection.client;
        if let Some(user) = client.user() {
            link(&mut self.users, user.clone(), key);
        }
        if let Some(filter) = &client.filter {
            self.filtered.insert(connection, filter, key);
            return key;
        }
        for topic in client.topics.exact() {
            link(&mut self.topics, topic.to_owned(), key);
        }
        for prefix in client.topics.prefixes() {
            link(&mut self.prefixes, prefix.to_owned(), key);
        }
        key
    }

    /// Removes a connection.
    pub fn remove(&mut self, connection: &Connection, key: usize) {
        self.all.try_remove(key);
        let client = &connection.client;
        if let Some(user) = client.user() {
            unlink(&mut self.users, user, key);
        }
        if let Some(filter) = &client.filter {
            return self.filtered.remove(connection, filter, key);
        }
        for topic in client.topics.exact() {
            unlink(&mut self.topics, &topic.to_owned(), key);
        }
        for prefix in client.topics.prefixes() {
            unlink(&mut self.prefixes, &prefix.to_owned(), key);
        }
    }

    /// Whether a user has a connection.
    pub fn has_user(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// The connections of a user.
    pub fn of_user(&self, user: &str) -> Vec<Rc<Connection>> {
        self.of(self.users.get(user)).cloned().collect()
    }

    /// The connection with this key.
    pub fn get(&self, key: usize) -> Option<&Rc<Connection>> {
        self.all.get(key)
    }

    /// All connections with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Rc<Connection>)> {
        self.all.iter()
    }

    /// Each user with the number of their connections.
    pub fn user_counts(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.users.iter().map(|(user, keys)| (user, keys.as_slice().len()))
    }

    /// Each topic and each prefix (then `true`) with the number of connections that name it.
    pub fn topic_counts(&self) -> impl Iterator<Item = ((&str, bool), usize)> {
        let topics = self.topics.iter().map(|(topic, keys)| ((&**topic, false), keys));
        let prefixes = self.prefixes.iter().map(|(prefix, keys)| ((&**prefix, true), keys));
        let all = topics.chain(prefixes).map(|(pattern, keys)| (pattern, keys.as_slice().len()));
        let mut counts: HashMap<(&str, bool), usize> = all.collect();
        for (pattern, count) in self.filtered.topic_counts() {
            *counts.entry(pattern).or_default() += count;
        }
        counts.into_iter()
    }

    /// Offers an event to the connections of its channel that have no filter. One with several
    /// matching patterns may get an event with an id more than once, and ignores it from the second
    /// time on.
    pub fn offer(&self, event: &Event, mut offer: impl FnMut(&Rc<Connection>)) {
        match &event.channel {
            Channel::User(user) => {
                let keys = self.of(self.users.get(user));
                keys.filter(|c| c.client.filter.is_none()).for_each(offer);
            }
            Channel::Broadcast(topic) => {
                self.of(self.topics.get(&**topic)).for_each(&mut offer);
                for (prefix, keys) in &self.prefixes {
                    if !has_prefix(topic, prefix) {
                        continue;
                    }
                    // Events without an id have no position, so the patterns are compared.
                    let once = |c: &&Rc<Connection>| {
                        event.id.is_some() || is_first_match(c, topic, prefix)
                    };
                    self.of(Some(keys)).filter(once).for_each(&mut offer);
                }
            }
        }
    }

    /// Whether no entry is left.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let maps = [&self.topics, &self.prefixes];
        self.all.is_empty() && self.users.is_empty() && maps.iter().all(|map| map.is_empty())
    }

    fn of<'a>(&'a self, keys: Option<&'a Keys>) -> impl Iterator<Item = &'a Rc<Connection>> {
        keys.map_or(&[][..], Keys::as_slice).iter().filter_map(|key| self.all.get(*key))
    }
}

/// Whether a prefix is the first pattern of a client that matches a topic.
fn is_first_match(connection: &Connection, topic: &str, prefix: &str) -> bool {
    let topics = &connection.client.topics;
    topics.exact().all(|t| t != topic)
        && topics.prefixes().find(|p| topic.starts_with(*p)) == Some(prefix)
}

fn link<K: Hash + Eq>(map: &mut HashMap<K, Keys>, name: K, key: usize) {
    match map.entry(name) {
        Entry::Occupied(mut entry) => entry.get_mut().push(key),
        Entry::Vacant(entry) => {
            entry.insert(Keys::One(key));
        }
    }
}

fn unlink<K: Hash + Eq>(map: &mut HashMap<K, Keys>, name: &K, key: usize) {
    if map.get_mut(name).is_some_and(|keys| keys.remove(key)) {
        map.remove(name);
    }
}
