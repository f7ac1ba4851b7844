//! Questions to the workers of this instance.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::state::{
    delivery::Delivery,
    mailbox::{Command, Message},
};

/// Maximum time to wait for the workers.
const WAIT: Duration = Duration::from_secs(2);

/// Asks each worker, and returns their answers, and whether all have answered in time.
pub async fn ask<T>(
    delivery: &Delivery,
    question: impl Fn(oneshot::Sender<T>) -> Command,
) -> (Vec<T>, bool) {
    let mut replies = Vec::new();
    delivery.mailboxes.send(|| {
        let (reply, receiver) = oneshot::channel();
        replies.push(receiver);
        Message::Command(question(reply))
    });
    let until = Instant::now() + WAIT;
    let (mut answers, mut is_complete) = (Vec::new(), true);
    for reply in replies {
        match timeout_at(until, reply).await {
            Ok(Ok(answer)) => answers.push(answer),
            // A busy worker.
            _ => is_complete = false,
        }
    }
    (answers, is_complete)
}
