//! The users' channels to which this instance is subscribed: counted by connections, and kept for a
//! while after the last one.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    subscribed: bool,
    /// The channel is on another server; its connections will release it when they have moved.
    is_gone: bool,
    idle_since: Option<Instant>,
}

/// The users of this instance.
#[derive(Debug, Default)]
pub struct Subscriptions {
    users: HashMap<Arc<str>, Entry>,
    /// Number of subscribed channels.
    subscribed: usize,
    /// Number of entries without a connection.
    idle: usize,
}

impl Subscriptions {
    /// Counts a new connection of a user; `true` if the user's channel must be subscribed.
    pub fn attach(&mut self, user: &Arc<str>) -> bool {
        let entry = self.users.entry(user.clone()).or_default();
        entry.connections += 1;
        if entry.idle_since.take().is_some() {
            self.idle -= 1;
        }
        !entry.subscribed
    }

    /// Records that the subscription is confirmed.
    pub fn confirmed(&mut self, user: &Arc<str>) {
        if let Some(entry) = self.users.get_mut(user) {
            self.subscribed += usize::from(!entry.subscribed);
            entry.subscribed = true;
            entry.is_gone = false;
        }
    }

    /// Whether the user's channel is subscribed.
    pub fn is_subscribed(&self, user: &str) -> bool {
        self.users.get(user).is_some_and(|entry| entry.subscribed)
    }

    /// Counts the end of a user's connection.
    pub fn release(&mut self, user: &Arc<str>, now: Instant) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.connections == 0 && entry.idle_since.replace(now).is_none() {
                self.idle += 1;
            }
        }
    }

    /// Removes and returns up to `limit` users without a connection for `linger`.
    pub fn take_idle(&mut self, now: Instant, linger: Duration, limit: usize) -> Vec<Arc<str>> {
        if self.idle == 0 {
            return Vec::new();
        }
        let idle =
            |e: &Entry| e.idle_since.is_some_and(|since| now.duration_since(since) >= linger);
        let users: Vec<_> = self
            .users
            .iter()
            .filter(|(_, e)| idle(e))
            .take(limit)
            .map(|(u, _)| u.clone())
            .collect();
        for user in &users {
            let removed = self.users.remove(user);
            self.subscribed -= usize::from(removed.is_some_and(|entry| entry.subscribed));
        }
        self.idle -= users.len();
        users
    }

    /// Ends the subscriptions of the users for which this holds, and returns those that have a
    /// connection. These stay counted, because the channel may come back before a connection has
    /// released it.
    pub fn remove(&mut self, applies: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.users.retain(|user, entry| entry.connections > 0 || !applies(user));
        self.count_idle();
        let is_new = |user: &str, entry: &Entry| !entry.is_gone && applies(user);
        let mut gone = Vec::new();
        for (user, entry) in self.users.iter_mut().filter(|(user, entry)| is_new(user, entry)) {
            (entry.is_gone, entry.subscribed) = (true, false);
            gone.push(user.clone());
        }
        self.subscribed = self.users.values().filter(|entry| entry.subscribed).count();
        gone
    }

    /// The removed users with a connection for which this holds: their channels have come back.
    pub fn returned(&self, applies: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let is_back =
            |user: &str, entry: &Entry| entry.is_gone && entry.connections > 0 && applies(user);
        self.users
            .iter()
            .filter(|(user, e)| is_back(user, e))
            .map(|(user, _)| user.clone())
            .collect()
    }

    /// Handles a break of the link: removes users without a connection, and returns the others,
    /// whose channels must be subscribed again.
    pub fn lost(&mut self) -> Vec<Arc<str>> {
        self.users.retain(|_, e| e.connections > 0);
        self.count_idle();
        self.users.values_mut().for_each(|e| e.subscribed = false);
        self.subscribed = 0;
        self.users.keys().cloned().collect()
    }

    fn count_idle(&mut self) {
        self.idle = self.users.values().filter(|entry| entry.idle_since.is_some()).count();
    }

    /// Number of subscribed channels.
    pub fn count(&self) -> usize {
        self.subscribed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_is_unsubscribed_once_after_the_linger() {
        let (mut s, user, now) = (Subscriptions::default(), Arc::from("a"), Instant::now());
        let linger = Duration::from_secs(10);
        assert!(s.attach(&user));
        assert!(s.attach(&user), "not confirmed yet");
        s.confirmed(&user);
        assert!(!s.attach(&user));
        (0..3).for_each(|_| s.release(&user, now));
        assert!(s.take_idle(now + linger / 2, linger, 9).is_empty());
        assert!(!s.attach(&user), "the user reconnected in time");
        s.release(&user, now);
        assert_eq!(s.take_idle(now + linger, linger, 9), [Arc::clone(&user)]);
        assert_eq!((s.count(), s.attach(&user)), (0, true));
    }

    #[test]
    fn users_that_moved_away_are_removed() {
        let mut s = Subscriptions::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        s.attach(&a);
        s.confirmed(&a);
        s.attach(&b);
        s.release(&b, Instant::now());
        assert_eq!(s.remove(|user| user != "c"), [Arc::clone(&a)]);
        assert_eq!(s.remove(|user| user != "c").len(), 0, "only once");
        // The channel comes back before its connection has released it.
        assert_eq!(s.returned(|_| true), [Arc::clone(&a)]);
        s.confirmed(&a);
        assert_eq!((s.returned(|_| true).len(), s.count()), (0, 1));
        assert_eq!(s.remove(|user| user != "c"), [Arc::clone(&a)]);
        s.release(&a, Instant::now());
        assert_eq!((s.count(), s.attach(&a)), (0, true), "as if it had never been here");
    }

    #[test]
    fn link_break_removes_idle_users_and_returns_others() {
        let mut s = Subscriptions::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for user in [&a, &b] {
            s.attach(user);
            s.confirmed(user);
        }
        s.release(&b, Instant::now());
        assert_eq!(s.lost(), [Arc::clone(&a)]);
        assert_eq!(s.count(), 0);
    }
}
