//! The connections of a worker, by user and by topic.

use std::{collections::HashMap, hash::Hash, rc::Rc, sync::Arc};

use slab::Slab;

use super::connection::Connection;
use crate::core::{channel::Channel, event::Event};

/// Connections by the channels that they receive.
#[derive(Default)]
pub struct ConnectionIndex {
    all: Slab<Rc<Connection>>,
    users: HashMap<Arc<str>, Vec<usize>>,
    topics: HashMap<String, Vec<usize>>,
    prefixes: HashMap<String, Vec<usize>>,
}

impl ConnectionIndex {
    /// Adds a connection and returns its key.
    pub fn insert(&mut self, connection: &Rc<Connection>) -> usize {
        let key = self.all.insert(connection.clone());
        let client = &connection.client;
        self.users.entry(client.user.clone()).or_default().push(key);
        for topic in client.topics.exact() {
            self.topics.entry(topic.to_owned()).or_default().push(key);
        }
        for prefix in client.topics.prefixes() {
            self.prefixes.entry(prefix.to_owned()).or_default().push(key);
        }
        key
    }

    /// Removes a connection.
    pub fn remove(&mut self, connection: &Connection, key: usize) {
        self.all.try_remove(key);
        let client = &connection.client;
        unlink(&mut self.users, &client.user, key);
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

    /// Offers an event to the connections of its channel. One with several matching patterns may
    /// get an event with an id more than once, and ignores it from the second time on.
    pub fn offer(&self, event: &Event, mut offer: impl FnMut(&Rc<Connection>)) {
        match &event.channel {
            Channel::User(user) => self.of(self.users.get(user)).for_each(offer),
            Channel::Broadcast(topic) => {
                self.of(self.topics.get(&**topic)).for_each(&mut offer);
                for (prefix, keys) in &self.prefixes {
                    if !topic.starts_with(prefix.as_str()) {
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

    fn of<'a>(&'a self, keys: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a Rc<Connection>> {
        keys.into_iter().flatten().filter_map(|key| self.all.get(*key))
    }
}

/// Whether a prefix is the first pattern of a client that matches a topic.
fn is_first_match(connection: &Connection, topic: &str, prefix: &str) -> bool {
    let topics = &connection.client.topics;
    topics.exact().all(|t| t != topic)
        && topics.prefixes().find(|p| topic.starts_with(*p)) == Some(prefix)
}

fn unlink<K: Hash + Eq>(map: &mut HashMap<K, Vec<usize>>, name: &K, key: usize) {
    if let Some(keys) = map.get_mut(name) {
        if let Some(at) = keys.iter().position(|k| *k == key) {
            keys.swap_remove(at);
        }
        if keys.is_empty() {
            map.remove(name);
        }
    }
}
