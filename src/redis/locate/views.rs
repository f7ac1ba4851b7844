//! Which server the answers of several sentinels make the primary. Pure.

use std::collections::HashSet;

use super::error::{LocateError, SentinelError};
use crate::settings::ServerAddress;

/// What is known about the role of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Most sentinels name it as the primary.
    Confirmed,
    /// The sentinels name another server.
    Denied,
    /// There are no sentinels to ask: `redis.url` names the server itself.
    Unknown,
}

/// What one sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its id. The same sentinel may have several addresses.
    pub id: String,
    /// The primary.
    pub primary: ServerAddress,
    /// Number of the failover that made it the primary.
    pub config_epoch: u64,
    /// Number of sentinels that monitor this primary, itself included.
    pub sentinels: usize,
    /// The addresses of the others.
    pub others: Vec<ServerAddress>,
}

/// The answers of one round.
#[derive(Debug, Default)]
pub struct Answers {
    views: Vec<View>,
    failed: Vec<(ServerAddress, SentinelError)>,
}

impl Answers {
    /// Adds what `sentinel` said. A second address of the same sentinel is not counted again.
    pub fn add(&mut self, sentinel: ServerAddress, result: Result<View, SentinelError>) {
        match result {
            Ok(view) if self.views.iter().all(|known| known.id != view.id) => self.views.push(view),
            Ok(_) => {}
            Err(error) => self.failed.push((sentinel, error)),
        }
    }

    /// Whether most of the sentinels have answered.
    pub fn has_majority(&self) -> bool {
        self.views.len() * 2 > self.known()
    }

    /// The addresses of other sentinels.
    pub fn others(&self) -> HashSet<&ServerAddress> {
        self.views.iter().flat_map(|view| &view.others).collect()
    }

    /// The sentinels that have not answered.
    pub fn failed(&self) -> &[(ServerAddress, SentinelError)] {
        &self.failed
    }

    /// The primary: that of the latest failover, which sentinels learn one after the other; of
    /// several, the one that most sentinels name.
    ///
    /// # Errors
    /// No sentinel has answered.
    pub fn primary(self) -> Result<ServerAddress, LocateError> {
        match self.best() {
            Some(view) => Ok(view.primary.clone()),
            None => Err(LocateError::NoPrimary(self.failed.into())),
        }
    }

    /// Whether `server` is the primary, and most sentinels say so.
    ///
    /// # Errors
    /// No sentinel has answered, or too few name this server.
    pub fn confirms(self, server: &ServerAddress) -> Result<Confirmation, LocateError> {
        match self.best() {
            None => Err(LocateError::NoPrimary(self.failed.into())),
            Some(view) if view.primary != *server => Ok(Confirmation::Denied),
            Some(_) => match (self.votes(server), self.known()) {
                (agree, known) if agree * 2 > known => Ok(Confirmation::Confirmed),
                (agree, known) => Err(LocateError::NoMajority { agree, known }),
            },
        }
    }

    fn best(&self) -> Option<&View> {
        // Of equal views the first one.
        self.views.iter().rev().max_by_key(|view| (view.config_epoch, self.votes(&view.primary)))
    }

    fn votes(&self, server: &ServerAddress) -> usize {
        self.views.iter().filter(|view| view.primary == *server).count()
    }

    /// Number of sentinels.
    fn known(&self) -> usize {
        self.views.iter().map(|view| view.sentinels).max().unwrap_or(usize::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> ServerAddress {
        ServerAddress { host: "10.0.0.1".into(), port }
    }

    /// Answers of sentinels that know of `sentinels`: (id, port of the primary, epoch).
    fn answers(sentinels: usize, views: &[(&str, u16, u64)]) -> Answers {
        let mut all = Answers::default();
        for &(id, primary, config_epoch) in views {
            let (id, primary) = (id.to_owned(), server(primary));
            let view = View { id, primary, config_epoch, sentinels, others: Vec::new() };
            all.add(server(26379), Ok(view));
        }
        all.add(server(1), Err(SentinelError::Timeout));
        all
    }

    #[test]
    fn latest_failover_wins_over_the_majority() {
        let primary = |views: &[_]| answers(3, views).primary().map(|server| server.port).ok();
        assert_eq!(primary(&[("a", 1, 4), ("b", 1, 4), ("c", 2, 5)]), Some(2));
        assert_eq!(primary(&[("a", 1, 4), ("b", 2, 4), ("c", 2, 4)]), Some(2));
        assert_eq!(primary(&[("a", 1, 4), ("b", 2, 4)]), Some(1));
        assert_eq!(primary(&[]), None);
    }

    #[test]
    fn only_a_majority_confirms() {
        let confirms = |views: &[_]| answers(3, views).confirms(&server(1)).ok();
        assert_eq!(confirms(&[("a", 1, 4), ("b", 1, 4)]), Some(Confirmation::Confirmed));
        assert_eq!(confirms(&[("a", 1, 4), ("b", 1, 4), ("c", 2, 5)]), Some(Confirmation::Denied));
        assert_eq!(confirms(&[("c", 2, 5)]), Some(Confirmation::Denied));
        assert_eq!(confirms(&[("a", 1, 4)]), None);
        assert_eq!(confirms(&[("a", 1, 4), ("a", 1, 4)]), None, "the same sentinel twice");
        assert_eq!(confirms(&[]), None);
        assert!(answers(1, &[("a", 1, 0)]).has_majority());
        assert!(!answers(2, &[("a", 1, 0)]).has_majority());
    }
}
