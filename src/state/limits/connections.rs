//! Limits the number of connections on this instance, and of one user.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::core::reasons::BusyReason;

#[derive(Default)]
struct Counts {
    all: usize,
    by_user: HashMap<Arc<str>, usize>,
    by_session: HashMap<u64, usize>,
}

impl Counts {
    /// Whether one more connection is allowed. A session with one connection may always open a
    /// second one, which replaces the first.
    fn admit(
        &self,
        user: &Arc<str>,
        session: u64,
        limit: &ConnectionLimit,
    ) -> Result<(), BusyReason> {
        if self.by_session.get(&session) == Some(&1) {
            return Ok(());
        }
        if self.all >= limit.max {
            return Err(BusyReason::Full);
        }
        match self.by_user.get(user) {
            Some(count) if *count >= limit.max_per_user => Err(BusyReason::UserFull),
            _ => Ok(()),
        }
    }
}

/// Counts connections.
pub struct ConnectionLimit {
    counts: Mutex<Counts>,
    max: usize,
    max_per_user: usize,
}

/// Counts a connection until it is dropped.
pub struct ConnectionPermit {
    connection_limit: Arc<ConnectionLimit>,
    user: Arc<str>,
    session: u64,
}

impl ConnectionLimit {
    /// A limit of connections in all, and of connections of one user.
    pub fn new(max: usize, max_per_user: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max, max_per_user })
    }

    /// Counts a connection of a user; `digest` is that of its session.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn enter(
        self: &Arc<Self>,
        user: &Arc<str>,
        digest: &str,
    ) -> Result<ConnectionPermit, BusyReason> {
        let session =
            digest.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
        let mut counts = self.lock();
        counts.admit(user, session, self)?;
        counts.all += 1;
        *counts.by_user.entry(user.clone()).or_default() += 1;
        *counts.by_session.entry(session).or_default() += 1;
        Ok(ConnectionPermit { connection_limit: self.clone(), user: user.clone(), session })
    }

    /// Whether the limit of connections in all is reached.
    pub fn is_full(&self) -> bool {
        self.lock().all >= self.max
    }

    /// The number of connections.
    pub fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.connection_limit.lock();
        counts.all -= 1;
        leave(&mut counts.by_user, &self.user);
        leave(&mut counts.by_session, &self.session);
    }
}

fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_all_and_by_user() {
        let limit = ConnectionLimit::new(3, 2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let names: Vec<String> =
            (1..9).map(|n| format!("{n:064x}").chars().rev().collect()).collect();
        let first = limit.enter(&a, &names[0]).ok().unwrap();
        let _second = limit.enter(&a, &names[1]).ok().unwrap();
        assert_eq!(limit.enter(&a, &names[2]).err(), Some(BusyReason::UserFull));
        let _third = limit.enter(&b, &names[3]).ok().unwrap();
        assert_eq!(limit.enter(&b, &names[4]).err(), Some(BusyReason::Full));
        // A session may replace its own connection, once.
        let again = limit.enter(&a, &names[0]).ok().unwrap();
        assert_eq!(limit.enter(&a, &names[0]).err(), Some(BusyReason::Full));
        drop(first);
        assert_eq!(limit.enter(&b, &names[4]).err(), Some(BusyReason::Full));
        drop(again);
        assert!(!limit.is_full() && limit.enter(&a, &names[5]).is_ok());
    }
}
