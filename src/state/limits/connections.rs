//! Limits the number of connections on this instance, of one user, and of clients without a user.

use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::core::reasons::BusyReason;

#[derive(Default)]
struct Counts {
    all: usize,
    anonymous: usize,
    by_user: HashMap<Arc<str>, usize>,
    by_session: HashMap<u64, usize>,
    by_address: HashMap<IpAddr, usize>,
}

impl Counts {
    /// Whether one more connection is allowed. A session with one connection may always open a
    /// second one, which replaces the first.
    fn admit(&self, holder: &Holder, maxima: &ConnectionMaxima) -> Result<(), BusyReason> {
        let is_below = |count: Option<&usize>, max| count.is_none_or(|count| *count < max);
        if let Holder::User(_, session) = holder
            && self.by_session.get(session) == Some(&1)
        {
            return Ok(());
        }
        if self.all >= maxima.all {
            return Err(BusyReason::Full);
        }
        match holder {
            Holder::User(user, _) => match is_below(self.by_user.get(user), maxima.per_user) {
                true => Ok(()),
                false => Err(BusyReason::UserFull),
            },
            Holder::Address(_) if self.anonymous >= maxima.anonymous => {
                Err(BusyReason::AnonymousFull)
            }
            Holder::Address(address) => {
                match is_below(self.by_address.get(address), maxima.anonymous_per_address) {
                    true => Ok(()),
                    false => Err(BusyReason::AddressFull),
                }
            }
        }
    }

    fn add(&mut self, holder: &Holder) {
        self.all += 1;
        match holder {
            Holder::User(user, session) => {
                *self.by_user.entry(user.clone()).or_default() += 1;
                if *session != SHARED {
                    *self.by_session.entry(*session).or_default() += 1;
                }
            }
            Holder::Address(address) => {
                self.anonymous += 1;
                *self.by_address.entry(**address).or_default() += 1;
            }
        }
    }

    fn remove(&mut self, holder: &Holder) {
        self.all -= 1;
        match holder {
            Holder::User(user, session) => {
                leave(&mut self.by_user, user);
                leave(&mut self.by_session, session);
            }
            Holder::Address(address) => {
                self.anonymous -= 1;
                leave(&mut self.by_address, address);
            }
        }
    }
}

/// In place of a session whose connections do not replace each other.
const SHARED: u64 = 0;

/// Which limits apply to a connection.
enum Holder {
    /// The user, and the start of the session's digest.
    User(Arc<str>, u64),
    /// The address of a client without a user; boxed, so that permits of users are not larger.
    Address(Box<IpAddr>),
}

/// Maximum numbers of connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionMaxima {
    /// In all.
    pub all: usize,
    /// Of one user.
    pub per_user: usize,
    /// Of all clients without a user.
    pub anonymous: usize,
    /// Of clients without a user from one address.
    pub anonymous_per_address: usize,
}

/// Counts connections.
pub struct ConnectionLimit {
    counts: Mutex<Counts>,
    maxima: ConnectionMaxima,
}

/// Counts a connection until it is dropped.
pub struct ConnectionPermit {
    connection_limit: Arc<ConnectionLimit>,
    holder: Holder,
}

impl ConnectionLimit {
    /// A limit with nothing counted yet.
    pub fn new(maxima: ConnectionMaxima) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), maxima })
    }

    /// Counts a connection of a user; `digest` is that of its session, `None` if the session is
    /// shared.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn enter(
        self: &Arc<Self>,
        user: &Arc<str>,
        digest: Option<&str>,
    ) -> Result<ConnectionPermit, BusyReason> {
        let digits = digest.and_then(|digest| digest.get(..16));
        let session = digits.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(SHARED);
        self.count_in(Holder::User(user.clone(), session))
    }

    /// Counts a connection of a client without a user, by [`crate::core::address::site`].
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn enter_anonymous(self: &Arc<Self>, site: IpAddr) -> Result<ConnectionPermit, BusyReason> {
        self.count_in(Holder::Address(Box::new(site)))
    }

    fn count_in(self: &Arc<Self>, holder: Holder) -> Result<ConnectionPermit, BusyReason> {
        let mut counts = self.lock();
        counts.admit(&holder, &self.maxima)?;
        counts.add(&holder);
        Ok(ConnectionPermit { connection_limit: self.clone(), holder })
    }

    /// Whether the limit of connections in all is reached.
    pub fn is_full(&self) -> bool {
        self.lock().all >= self.maxima.all
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
        self.connection_limit.lock().remove(&self.holder);
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
    use std::net::Ipv4Addr;

    use super::*;

    const MAXIMA: ConnectionMaxima =
        ConnectionMaxima { all: 3, per_user: 2, anonymous: 2, anonymous_per_address: 1 };

    #[test]
    fn connections_are_limited_in_all_and_by_user() {
        let limit = ConnectionLimit::new(MAXIMA);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let names: Vec<String> =
            (1..9).map(|n| format!("{n:064x}").chars().rev().collect()).collect();
        let enter = |user, n: usize| limit.enter(user, Some(&names[n]));
        let first = enter(&a, 0).ok().unwrap();
        let _second = enter(&a, 1).ok().unwrap();
        assert_eq!(enter(&a, 2).err(), Some(BusyReason::UserFull));
        let _third = enter(&b, 3).ok().unwrap();
        assert_eq!(enter(&b, 4).err(), Some(BusyReason::Full));
        // A session may replace its own connection, once.
        let again = enter(&a, 0).ok().unwrap();
        assert_eq!(enter(&a, 0).err(), Some(BusyReason::Full));
        drop(first);
        assert_eq!(enter(&b, 4).err(), Some(BusyReason::Full));
        drop(again);
        assert!(!limit.is_full() && enter(&a, 5).is_ok());
    }

    #[test]
    fn connections_of_a_shared_session_replace_nothing() {
        let limit = ConnectionLimit::new(MAXIMA);
        let a: Arc<str> = "a".into();
        let _two = [limit.enter(&a, None).ok().unwrap(), limit.enter(&a, None).ok().unwrap()];
        assert_eq!(limit.enter(&a, None).err(), Some(BusyReason::UserFull));
    }

    #[test]
    fn anonymous_connections_are_limited_by_share_and_address() {
        let limit = ConnectionLimit::new(MAXIMA);
        let enter = |n| limit.enter_anonymous(Ipv4Addr::from_bits(n).into());
        let first = enter(1).ok().unwrap();
        assert_eq!(enter(1).err(), Some(BusyReason::AddressFull));
        let _second = enter(2).ok().unwrap();
        assert_eq!(enter(3).err(), Some(BusyReason::AnonymousFull));
        let user = limit.enter(&"a".into(), None).ok().unwrap();
        assert_eq!(enter(3).err(), Some(BusyReason::Full));
        drop((first, user));
        assert!(enter(1).is_ok(), "its connection has ended");
        assert_eq!(limit.lock().by_address.len(), 1);
    }

    #[test]
    fn permit_is_as_small_as_one_of_users_alone() {
        assert_eq!(size_of::<ConnectionPermit>(), 32);
    }
}
