//! Rejected plain messages: truncated, and written to `sse:rejected` in `relay` mode.
//! (In `record` mode, the function `sse_record` writes them.)

use tokio::sync::mpsc;

use super::commands::{CommandError, Commands};
use crate::error_chain::ErrorChain;
use crate::log_limit::LogLimit;
use crate::{core::envelope::Rejection, state::clock::unix_ms};

/// Maximum number of bytes that `sse:rejected` keeps of a channel name.
const MAX_CHANNEL_BYTES: usize = 512;
/// Maximum number of bytes that `sse:rejected` keeps of a message.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Approximate maximum length of the stream `sse:rejected`.
const MAX_ENTRIES: usize = 1000;
/// Maximum number of queued messages; together they use less than 5 MiB.
const CAPACITY: usize = 1024;
/// Minimum time between log lines, ms.
const LOG_INTERVAL_MS: u64 = 10_000;

/// The part of a channel name that is stored.
pub fn channel_prefix(channel: &[u8]) -> &[u8] {
    &channel[..channel.len().min(MAX_CHANNEL_BYTES)]
}

/// The part of a message that is stored.
pub fn message_prefix(message: &[u8]) -> &[u8] {
    &message[..message.len().min(MAX_MESSAGE_BYTES)]
}

/// A rejected message that is to be written to `sse:rejected`.
pub struct Rejected {
    pub(super) channel: Box<[u8]>,
    pub(super) reason: Rejection,
    message: Box<[u8]>,
}

impl Rejected {
    /// Copies the stored part of a message, so that the message itself can be freed.
    pub fn new(channel: &[u8], reason: Rejection, message: &[u8]) -> Self {
        Self {
            channel: channel_prefix(channel).into(),
            reason,
            message: message_prefix(message).into(),
        }
    }
}

/// Creates the queue of rejected messages. When it is full, further messages are only counted.
pub fn channel() -> (mpsc::Sender<Rejected>, mpsc::Receiver<Rejected>) {
    mpsc::channel(CAPACITY)
}

/// Writes one rejected message to `sse:rejected`.
///
/// # Errors
/// See [`CommandError`].
pub async fn write(commands: &Commands, rejected: &Rejected) -> Result<(), CommandError> {
    let Rejected { channel, reason, message } = rejected;
    let mut command = redis::cmd("XADD");
    command.arg(commands.keys.rejected()).arg("MAXLEN").arg("~").arg(MAX_ENTRIES).arg("*");
    command.arg("channel").arg(&channel[..]).arg("reason").arg(reason.code());
    command.arg("message").arg(&message[..]);
    commands.run::<String>(&command).await.map(drop)
}

/// Writes rejected messages to `sse:rejected` until the sender is dropped.
pub async fn write_all(commands: Commands, mut rejected: mpsc::Receiver<Rejected>) {
    let log = LogLimit::new(LOG_INTERVAL_MS);
    while let Some(rejected) = rejected.recv().await {
        if let Err(error) = write(&commands, &rejected).await
            && let Some(suppressed) = log.allow(unix_ms())
        {
            tracing::warn!(
                address = %commands.address(),
                error = %ErrorChain(&error),
                suppressed,
                "could not write a rejected message to Redis"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queue_of_huge_messages_takes_five_mebibytes() {
        let huge = vec![b'x'; 1 << 20];
        let (sender, mut receiver) = channel();
        while sender.try_send(Rejected::new(&huge, Rejection::BadChannel, &huge)).is_ok() {}
        let mut bytes = 0;
        while let Ok(rejected) = receiver.try_recv() {
            bytes += rejected.channel.len() + rejected.message.len();
        }
        assert!((1 << 20..5 << 20).contains(&bytes), "{bytes} bytes");
    }
}
