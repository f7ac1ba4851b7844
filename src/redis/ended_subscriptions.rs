//! The subscriptions of a link that its server has ended, because their slots moved to another
//! server. The reading task adds to them, in the order of the messages and replies.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The channels that the link brings no longer, until the supervisor has followed them.
#[derive(Debug, Default)]
pub struct EndedSubscriptions {
    users: Mutex<HashSet<Arc<str>>>,
    broadcasts: AtomicBool,
    /// Notified after each addition.
    pub added: Notify,
}

impl EndedSubscriptions {
    /// Adds the channels of users.
    pub fn add_users(&self, users: impl IntoIterator<Item = Arc<str>>) {
        self.users.lock().extend(users);
        self.added.notify_one();
    }

    /// Adds the channel of the broadcasts.
    pub fn add_broadcasts(&self) {
        self.broadcasts.store(true, Ordering::Relaxed);
        self.added.notify_one();
    }

    /// Whether the channel of a user is one of them.
    pub fn includes(&self, user: &str) -> bool {
        self.users.lock().contains(user)
    }

    /// Takes the users, and whether the broadcasts are among them.
    pub fn take(&self) -> (HashSet<Arc<str>>, bool) {
        (std::mem::take(&mut *self.users.lock()), self.broadcasts.swap(false, Ordering::Relaxed))
    }
}
