//! Which users have a stream on this instance, over all workers (ARCHITECTURE.md#presence).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

/// Maximum number of questions that wait for an answer; further ones are dropped.
const MAX_QUESTIONS: usize = 16;

/// Somebody asks all instances for the users of a topic.
#[derive(Debug)]
pub struct Question {
    /// Identifies the question.
    pub id: String,
    /// The topic.
    pub topic: Arc<str>,
}

#[derive(Default)]
struct Users {
    /// The number of streams of each user who has one.
    streams: HashMap<Arc<str>, u32>,
    /// The users whose number was not reported yet.
    changed: HashSet<Arc<str>>,
}

impl Users {
    /// Notes a change. Returns whether it is the first one to report.
    fn change(&mut self, user: &Arc<str>) -> bool {
        self.changed.insert(user.clone()) && self.changed.len() == 1
    }
}

/// The users who have a stream on this instance, and what Redis does not know of them yet. Exists
/// only with `presence.enabled`.
pub struct Presence {
    users: Mutex<Users>,
    changed: Notify,
    questions: mpsc::Sender<Question>,
    waiting: Mutex<Option<mpsc::Receiver<Question>>>,
    name: Mutex<Arc<str>>,
}

impl Default for Presence {
    fn default() -> Self {
        let (questions, waiting) = mpsc::channel(MAX_QUESTIONS);
        Self {
            users: Mutex::default(),
            changed: Notify::new(),
            questions,
            waiting: Mutex::new(Some(waiting)),
            name: Mutex::new("".into()),
        }
    }
}

impl Presence {
    /// A user has one more stream.
    pub fn add(&self, user: &Arc<str>) {
        let mut users = self.users.lock();
        *users.streams.entry(user.clone()).or_default() += 1;
        if users.change(user) {
            self.changed.notify_one();
        }
    }

    /// A stream of a user has ended.
    pub fn remove(&self, user: &Arc<str>) {
        let mut users = self.users.lock();
        if let Some(streams) = users.streams.get_mut(user) {
            *streams -= 1;
            if *streams == 0 {
                users.streams.remove(user);
            }
            if users.change(user) {
                self.changed.notify_one();
            }
        }
    }

    /// Waits until there are changes to report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the users whose number of streams was not reported yet.
    pub fn take_changed(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.users.lock().changed).into_iter().collect()
    }

    /// Gives back users whose number of streams could not be reported.
    pub fn put_back(&self, users: &[Arc<str>]) {
        self.users.lock().changed.extend(users.iter().cloned());
    }

    /// Makes all users unreported.
    pub fn change_all(&self) {
        let mut users = self.users.lock();
        users.changed = users.streams.keys().cloned().collect();
        self.changed.notify_one();
    }

    /// The number of streams that each of these users has now.
    pub fn streams(&self, of: &[Arc<str>]) -> Vec<u32> {
        let users = self.users.lock();
        of.iter().map(|user| users.streams.get(user).copied().unwrap_or(0)).collect()
    }

    /// The number of users who have a stream.
    pub fn user_count(&self) -> usize {
        self.users.lock().streams.len()
    }

    /// The name under which the instance reports; empty before the first report.
    pub fn name(&self) -> Arc<str> {
        self.name.lock().clone()
    }

    /// Sets the name under which the instance reports.
    pub fn set_name(&self, name: Arc<str>) {
        *self.name.lock() = name;
    }

    /// Passes a question on. Never waits.
    pub fn ask(&self, question: Question) {
        let _ = self.questions.try_send(question);
    }

    /// The questions, for the one task that answers them.
    pub fn take_questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.waiting.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn changes_are_taken_once_with_the_current_number() {
        let (presence, user): (_, Arc<str>) = (Presence::default(), "42".into());
        presence.add(&user);
        presence.add(&user);
        presence.remove(&user);
        assert!(presence.changed().now_or_never().is_some());
        let changed = presence.take_changed();
        assert_eq!(
            (changed.len(), presence.streams(&changed), presence.user_count()),
            (1, vec![1], 1)
        );
        presence.remove(&user);
        assert_eq!(presence.streams(&changed), [0], "the number is that of now");
        assert_eq!((presence.take_changed().len(), presence.user_count()), (1, 0));
        presence.remove(&user);
        assert!(presence.take_changed().is_empty());
        presence.put_back(&changed);
        assert_eq!(presence.take_changed(), changed);
    }

    #[test]
    fn everything_is_reported_again_after_a_loss() {
        let (presence, users): (_, [Arc<str>; 2]) = (Presence::default(), ["1".into(), "2".into()]);
        users.iter().for_each(|user| presence.add(user));
        presence.take_changed();
        presence.remove(&users[0]);
        presence.change_all();
        assert_eq!(presence.take_changed(), [users[1].clone()]);
    }
}
