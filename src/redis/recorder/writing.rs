//! Writes messages on a single server, in the order of their numbers.

use std::time::Duration;

use super::{BATCH, Recorder, Role, lease::Written};
use crate::{core::envelope::Rejection, error_chain::ErrorChain, redis::commands::CommandError};

impl Recorder {
    /// Writes the next messages. Returns the delay before the next attempt.
    pub(super) async fn write_or_back_off(&mut self) -> Duration {
        if self.write().await {
            self.backoff.reset();
            return Duration::ZERO;
        }
        self.backoff.delay()
    }

    /// Writes the next messages; `false` if the caller must retry after a pause.
    async fn write(&mut self) -> bool {
        let (Role::Writer { token } | Role::Retiring { token }) = &self.role else { return true };
        let rules = &self.context.settings.channels;
        let written = match self.lease.write(token, self.numbering.unwritten(BATCH), rules).await {
            Ok(written) => written,
            Err(fault) => {
                self.log_waiting(&fault);
                return false;
            }
        };
        for outcome in written {
            match outcome {
                Written::Recorded => self.context.metrics.recorded.inc(),
                Written::Rejected { reason, text } => {
                    let channel = self.numbering.first_channel().unwrap_or_default();
                    self.count_rejected(&reason, &text, channel);
                }
                Written::Duplicate | Written::Done => {}
                Written::Fenced => {
                    self.fenced().await;
                    return true;
                }
                Written::Hole => {
                    self.resign().await;
                    return true;
                }
                // The messages are kept: they are written under a new lease.
                Written::Unknown => {
                    self.renew().await;
                    return false;
                }
                Written::Failed(error) => {
                    self.log_waiting(&error);
                    return false;
                }
            }
            self.numbering.written();
        }
        true
    }

    /// Counts a rejected message. Logs a channel whose key has the wrong type once.
    pub(super) fn count_rejected(&self, reason: &str, text: &str, channel: &[u8]) {
        self.context.metrics.rejected.with_label_values(&[reason]).inc();
        if reason == Rejection::WrongType.code() {
            self.log_wrong_type(channel, text);
        }
    }

    pub(super) fn log_waiting(&self, error: &CommandError) {
        if let Some(suppressed) = self.waiting_log.allow(self.context.clock.now_ms()) {
            let address = self.lease.address();
            tracing::warn!(
                %address,
                error = %ErrorChain(error),
                suppressed,
                "could not record plain publishes, retrying"
            );
        }
    }

    /// Logs that the messages of a channel cannot be recorded, once for each channel.
    fn log_wrong_type(&self, channel: &[u8], fault: &str) {
        if self.wrong_type_log.allow(channel, self.context.clock.now_ms()) {
            let channel = String::from_utf8_lossy(channel);
            tracing::error!(
                %channel,
                fault,
                "plain publishes to this channel are rejected (wrong-type)"
            );
        }
    }
}
