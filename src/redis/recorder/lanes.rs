//! The order in which entries are written on a cluster. Pure.
//!
//! All broadcasts are a **lane**, and so is each user's channel. The entries of a lane are written
//! in order. Lanes wait for their servers, independently of each other.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::{Duration, Instant};

use super::numbering::{Numbering, Work};
use crate::core::{channel::Channel, part::ServerIndex};

/// The delay after a failure that concerns a lane, and not its whole server: its slot is moving.
const LANE_RETRY: Duration = Duration::from_millis(100);

/// What is written in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// All broadcasts, and messages on channels with an invalid name.
    Broadcasts,
    /// The channel of a user, without the prefix.
    User(Arc<[u8]>),
}

impl Lane {
    fn of(channel: &[u8]) -> Self {
        match Channel::from_bytes(channel) {
            Some(Channel::User(_)) => Self::User(channel.into()),
            _ => Self::Broadcasts,
        }
    }
}

/// Entries to write next, of several lanes of one server.
pub type Batch = Vec<(Lane, Vec<u64>)>;

/// What became of a lane of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Each entry is written, or can be written now.
    Open,
    /// An entry failed; those of other lanes of the server did not.
    LaneFailed,
    /// The server failed.
    ServerFailed,
}

/// The lanes with unwritten entries. A lane is waiting, delayed, or part of a batch.
#[derive(Debug, Default)]
pub struct Lanes {
    /// The number of the first entry that is in no lane yet.
    next: u64,
    entries: HashMap<Lane, VecDeque<u64>>,
    waiting: HashMap<Option<ServerIndex>, VecDeque<Lane>>,
    /// In the order of time.
    delayed: VecDeque<(Instant, Lane)>,
}

impl Lanes {
    /// Adds the entries that are new since the last call.
    pub fn add(&mut self, numbering: &Numbering, owner: &impl Fn(&Lane) -> Option<ServerIndex>) {
        for (number, (_, work)) in numbering.entries_from(self.next) {
            self.next = number + 1;
            let Work::Message { channel, .. } = work else { continue };
            let lane = Lane::of(channel);
            let entries = self.entries.entry(lane.clone()).or_insert_with(|| {
                self.waiting.entry(owner(&lane)).or_default().push_back(lane);
                VecDeque::new()
            });
            entries.push_back(number);
        }
    }

    /// The servers that lanes wait for; `None`: no server is known for some.
    pub fn awaited(&self) -> Vec<Option<ServerIndex>> {
        self.waiting.keys().copied().collect()
    }

    /// Looks for the owner of the lanes again that wait for this server.
    pub fn resolve(
        &mut self,
        server: Option<ServerIndex>,
        owner: &impl Fn(&Lane) -> Option<ServerIndex>,
    ) {
        for lane in self.waiting.remove(&server).unwrap_or_default() {
            self.waiting.entry(owner(&lane)).or_default().push_back(lane);
        }
    }

    /// Ends the delay of lanes.
    pub fn end_delays(&mut self, now: Instant, owner: &impl Fn(&Lane) -> Option<ServerIndex>) {
        while self.delayed.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, lane)) = self.delayed.pop_front() {
                self.waiting.entry(owner(&lane)).or_default().push_back(lane);
            }
        }
    }

    /// When the next delay ends.
    pub fn next_delay(&self) -> Option<Instant> {
        self.delayed.front().map(|(until, _)| *until)
    }

    /// Takes up to `limit` entries for this server. The entries of a lane are of one numbering: a
    /// server remembers the last number only.
    pub fn take(
        &mut self,
        server: ServerIndex,
        limit: usize,
        numbering: &Numbering,
        owner: &impl Fn(&Lane) -> Option<ServerIndex>,
    ) -> Batch {
        let mut queue = self.waiting.remove(&Some(server)).unwrap_or_default();
        let (mut batch, mut count) = (Batch::new(), 0);
        while count < limit
            && let Some(lane) = queue.pop_front()
        {
            let current = owner(&lane);
            if current != Some(server) {
                self.waiting.entry(current).or_default().push_back(lane);
                continue;
            }
            let entries = self.entries.get(&lane).into_iter().flatten();
            let marker = |n: &u64| numbering.entry(*n).map(|(position, _)| &position.marker);
            let first = entries.clone().next().and_then(marker);
            let same = entries.take_while(|number| marker(number) == first);
            let taken: Vec<u64> = same.take(limit - count).copied().collect();
            count += taken.len();
            batch.push((lane, taken));
        }
        if !queue.is_empty() {
            self.waiting.insert(Some(server), queue);
        }
        batch
    }

    /// Removes an entry that was written.
    pub fn finish(&mut self, lane: &Lane, number: u64) {
        let Some(entries) = self.entries.get_mut(lane) else { return };
        if entries.front() == Some(&number) {
            entries.pop_front();
        } else if let Ok(index) = entries.binary_search(&number) {
            entries.remove(index);
        }
    }

    /// Puts a lane of a batch back, unless all its entries were written.
    pub fn put_back(
        &mut self,
        lane: Lane,
        outcome: Outcome,
        now: Instant,
        owner: &impl Fn(&Lane) -> Option<ServerIndex>,
    ) {
        if self.entries.get(&lane).is_none_or(VecDeque::is_empty) {
            self.entries.remove(&lane);
        } else if outcome == Outcome::LaneFailed {
            self.delayed.push_back((now + LANE_RETRY, lane));
        } else {
            self.waiting.entry(owner(&lane)).or_default().push_back(lane);
        }
    }

    /// Drops the entries of the lanes that wait for this server, and returns their numbers.
    pub fn drop_waiting(&mut self, server: Option<ServerIndex>) -> Vec<u64> {
        let lanes = self.waiting.remove(&server).unwrap_or_default();
        lanes.iter().filter_map(|lane| self.entries.remove(lane)).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::numbering::RecordPosition, *};

    const LIMIT: usize = 99;

    /// Users a… are on server 0, users b… on server 1, broadcasts on server 2.
    fn owner(lane: &Lane) -> Option<ServerIndex> {
        match lane {
            Lane::Broadcasts => Some(ServerIndex(2)),
            Lane::User(channel) if channel.starts_with(b"user:a") => Some(ServerIndex(0)),
            Lane::User(channel) if channel.starts_with(b"user:b") => Some(ServerIndex(1)),
            Lane::User(_) => None,
        }
    }

    fn user(id: &str) -> Lane {
        Lane::of(format!("user:{id}:events").as_bytes())
    }

    fn position(marker: &str) -> RecordPosition {
        RecordPosition { marker: marker.into(), n: 0 }
    }

    /// Numbers a message for each of these users; `*` is a broadcast.
    fn with(users: &[&str]) -> (Numbering, Lanes) {
        let mut numbering = Numbering::default();
        numbering.start(position("T"));
        push(&mut numbering, users);
        let mut lanes = Lanes::default();
        lanes.add(&numbering, &owner);
        (numbering, lanes)
    }

    fn push(numbering: &mut Numbering, users: &[&str]) {
        for id in users {
            let user = format!("user:{id}:events");
            let channel = if *id == "*" { "broadcast:t".to_owned() } else { user };
            assert!(numbering.push(channel.into_bytes(), b"x".to_vec()));
        }
    }

    fn take(lanes: &mut Lanes, numbering: &Numbering, server: u16, limit: usize) -> Batch {
        lanes.take(ServerIndex(server), limit, numbering, &owner)
    }

    fn finish_all(lanes: &mut Lanes, numbering: &mut Numbering, batch: Batch) {
        for (lane, numbers) in batch {
            for number in numbers {
                lanes.finish(&lane, number);
                numbering.finish(number);
            }
            lanes.put_back(lane, Outcome::Open, Instant::now(), &owner);
        }
    }

    #[test]
    fn blocked_server_does_not_block_the_others() {
        let (mut numbering, mut lanes) = with(&["b1", "a1", "b1", "a2", "*", "a1"]);
        let batch = take(&mut lanes, &numbering, 0, LIMIT);
        assert_eq!(batch, [(user("a1"), vec![1, 5]), (user("a2"), vec![3])]);
        finish_all(&mut lanes, &mut numbering, batch);
        let batch = take(&mut lanes, &numbering, 2, LIMIT);
        assert_eq!(batch, [(Lane::Broadcasts, vec![4])]);
        finish_all(&mut lanes, &mut numbering, batch);
        assert_eq!(numbering.written_upto().unwrap().n, 0, "the first one is not written");
        let batch = take(&mut lanes, &numbering, 1, LIMIT);
        assert_eq!(batch, [(user("b1"), vec![0, 2])]);
        finish_all(&mut lanes, &mut numbering, batch);
        assert_eq!(numbering.written_upto().unwrap().n, 6);
        assert!(lanes.awaited().is_empty() && lanes.entries.is_empty());
    }

    #[test]
    fn lane_in_a_batch_is_not_taken_again() {
        let (mut numbering, mut lanes) = with(&["a1"]);
        let batch = take(&mut lanes, &numbering, 0, LIMIT);
        push(&mut numbering, &["a1", "a2"]);
        lanes.add(&numbering, &owner);
        assert_eq!(take(&mut lanes, &numbering, 0, LIMIT), [(user("a2"), vec![2])]);
        finish_all(&mut lanes, &mut numbering, batch);
        assert_eq!(take(&mut lanes, &numbering, 0, LIMIT), [(user("a1"), vec![1])]);
    }

    #[test]
    fn entries_after_a_marker_wait_for_those_before_it() {
        let (mut numbering, mut lanes) = with(&["a1"]);
        numbering.mark("S".into());
        push(&mut numbering, &["a1", "a2"]);
        lanes.add(&numbering, &owner);
        let batch = take(&mut lanes, &numbering, 0, LIMIT);
        assert_eq!(batch, [(user("a1"), vec![0]), (user("a2"), vec![3])]);
        finish_all(&mut lanes, &mut numbering, batch);
        assert_eq!(take(&mut lanes, &numbering, 0, LIMIT), [(user("a1"), vec![2])]);
    }

    #[test]
    fn batches_are_bounded_and_fair() {
        let (mut numbering, mut lanes) = with(&["a1", "a1", "a1", "a2"]);
        let batch = take(&mut lanes, &numbering, 0, 2);
        assert_eq!(batch, [(user("a1"), vec![0, 1])]);
        finish_all(&mut lanes, &mut numbering, batch);
        let batch = take(&mut lanes, &numbering, 0, 2);
        assert_eq!(batch, [(user("a2"), vec![3]), (user("a1"), vec![2])]);
    }

    #[test]
    fn lane_that_moves_waits_for_its_new_server() {
        let (numbering, mut lanes) = with(&["a1", "c1"]);
        assert!(lanes.awaited().contains(&None));
        let moved = |_: &Lane| Some(ServerIndex(7));
        assert!(lanes.take(ServerIndex(0), LIMIT, &numbering, &moved).is_empty());
        lanes.resolve(None, &moved);
        assert_eq!(lanes.awaited(), [Some(ServerIndex(7))]);
        let batch = lanes.take(ServerIndex(7), LIMIT, &numbering, &moved);
        assert_eq!(batch, [(user("a1"), vec![0]), (user("c1"), vec![1])]);
        let now = Instant::now();
        for (lane, _) in batch {
            lanes.put_back(lane, Outcome::LaneFailed, now, &owner);
        }
        assert!(lanes.awaited().is_empty() && lanes.next_delay() == Some(now + LANE_RETRY));
        lanes.end_delays(now + LANE_RETRY, &owner);
        assert_eq!(take(&mut lanes, &numbering, 0, LIMIT), [(user("a1"), vec![0])]);
    }

    #[test]
    fn entries_of_one_server_are_dropped() {
        let (mut numbering, mut lanes) = with(&["a1", "b1", "a1"]);
        assert_eq!(lanes.drop_waiting(Some(ServerIndex(0))), [0, 2]);
        push(&mut numbering, &["a1"]);
        lanes.add(&numbering, &owner);
        assert_eq!(take(&mut lanes, &numbering, 0, LIMIT), [(user("a1"), vec![3])]);
        assert_eq!(take(&mut lanes, &numbering, 1, LIMIT), [(user("b1"), vec![1])]);
    }
}
