//! What a worker reports to operators about its connections: how many there are, and the topics
//! and users with the most of them. All answers are bounded.

use std::{collections::BTreeSet, sync::Arc};

use super::hub::Hub;
use crate::core::transport::Transport;

/// Maximum number of topics in the answer of a worker.
const MAX_TOPICS: usize = 100;

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct WorkerSummary {
    /// Number of streams.
    pub streams: usize,
    /// Number of waiting polls.
    pub polls: usize,
    /// Number of both without a user.
    pub anonymous: usize,
    /// The topics, and prefixes with `*`, that most connections receive, with their number.
    pub topics: Vec<(String, usize)>,
}

/// The users of one worker whose ids begin with a text.
#[derive(Debug, Default)]
pub struct WorkerUsers {
    /// The first of them in order, with the number of their connections.
    pub users: Vec<(Arc<str>, usize)>,
    /// Number of all of them.
    pub total: usize,
}

impl Hub {
    pub(super) fn summary(&self) -> WorkerSummary {
        let index = self.index.borrow();
        let mut summary = WorkerSummary::default();
        for (_, connection) in index.iter() {
            let client = &connection.client;
            match client.transport {
                Transport::Stream => summary.streams += 1,
                Transport::Poll => summary.polls += 1,
            }
            summary.anonymous += usize::from(client.user().is_none());
        }
        let name = |(name, is_prefix): (&str, bool)| match is_prefix {
            true => format!("{name}*"),
            false => name.to_owned(),
        };
        let top = most_frequent(index.topic_counts(), MAX_TOPICS).into_iter();
        summary.topics = top.map(|(pattern, count)| (name(pattern), count)).collect();
        summary
    }

    pub(super) fn users_with_prefix(&self, prefix: &str, limit: usize) -> WorkerUsers {
        let index = self.index.borrow();
        let (mut first, mut total) = (BTreeSet::new(), 0);
        for (user, count) in index.user_counts().filter(|(user, _)| user.starts_with(prefix)) {
            total += 1;
            first.insert((user.clone(), count));
            if first.len() > limit {
                first.pop_last();
            }
        }
        WorkerUsers { users: first.into_iter().collect(), total }
    }
}

/// The entries with the highest numbers, in the order of their names if these are equal.
pub fn most_frequent<K: Ord>(
    counts: impl Iterator<Item = (K, usize)>,
    limit: usize,
) -> Vec<(K, usize)> {
    let mut top = BTreeSet::new();
    for (name, count) in counts {
        top.insert((std::cmp::Reverse(count), name));
        if top.len() > limit {
            top.pop_last();
        }
    }
    top.into_iter().map(|(count, name)| (name, count.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_frequent_names_come_first() {
        let counts = [("b", 2), ("a", 2), ("c", 9), ("d", 1)];
        let top = most_frequent(counts.into_iter(), 3);
        assert_eq!(top, [("c", 9), ("a", 2), ("b", 2)]);
    }
}
