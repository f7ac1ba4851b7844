//! Which users' channels this instance is subscribed to: counted by connections, with a linger
//! before they are given up.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
struct Entry {
    connections: usize,
    subscribed: bool,
    idle_since: Option<Instant>,
}

/// The users of this instance.
#[derive(Debug, Default)]
pub struct Subscriptions {
    users: HashMap<Arc<str>, Entry>,
}

impl Subscriptions {
    /// A connection of a user comes; `true`: the user's channel must be subscribed.
    pub fn attach(&mut self, user: &Arc<str>) -> bool {
        let entry = self.users.entry(user.clone()).or_default();
        entry.connections += 1;
        entry.idle_since = None;
        !entry.subscribed
    }

    /// The subscription is confirmed.
    pub fn confirmed(&mut self, user: &Arc<str>) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.subscribed = true;
        }
    }

    /// A connection of a user goes.
    pub fn release(&mut self, user: &Arc<str>, now: Instant) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.connections == 0 {
                entry.idle_since = Some(now);
            }
        }
    }

    /// Up to `limit` users who have been without connection for `linger`; they are forgotten.
    pub fn take_idle(&mut self, now: Instant, linger: Duration, limit: usize) -> Vec<Arc<str>> {
        let idle =
            |e: &Entry| e.idle_since.is_some_and(|since| now.duration_since(since) >= linger);
        let users: Vec<_> = self
            .users
            .iter()
            .filter(|(_, e)| idle(e))
            .take(limit)
            .map(|(u, _)| u.clone())
            .collect();
        users.iter().for_each(|u| {
            self.users.remove(u);
        });
        users
    }

    /// The link broke: nothing is subscribed; users without connection are forgotten. Gives those
    /// to subscribe again.
    pub fn lost(&mut self) -> Vec<Arc<str>> {
        self.users.retain(|_, e| e.connections > 0);
        self.users.values_mut().for_each(|e| e.subscribed = false);
        self.users.keys().cloned().collect()
    }

    /// How many channels are subscribed.
    pub fn count(&self) -> usize {
        self.users.values().filter(|e| e.subscribed).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_lingers_and_is_given_up_once() {
        let (mut s, user, now) = (Subscriptions::default(), Arc::from("a"), Instant::now());
        let linger = Duration::from_secs(10);
        assert!(s.attach(&user));
        assert!(s.attach(&user), "not confirmed yet");
        s.confirmed(&user);
        assert!(!s.attach(&user));
        (0..3).for_each(|_| s.release(&user, now));
        assert!(s.take_idle(now + linger / 2, linger, 9).is_empty());
        assert!(!s.attach(&user), "it came back in time");
        s.release(&user, now);
        assert_eq!(s.take_idle(now + linger, linger, 9), [Arc::clone(&user)]);
        assert_eq!((s.count(), s.attach(&user)), (0, true));
    }

    #[test]
    fn a_break_forgets_the_idle_and_names_the_rest() {
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
