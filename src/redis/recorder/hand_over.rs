//! The hand-over at shutdown.

use tokio::time::Instant;

use super::{LEASE, RENEWAL, Recorder, Role, inbox::RecorderInput};

impl Recorder {
    /// Hands over at shutdown: writes the received messages and releases the lease, so that the
    /// standby continues at once.
    pub(super) async fn hand_over(&mut self) {
        let mut batch = Vec::new();
        self.inbox.receive_ready(&mut batch);
        for input in batch.drain(..) {
            if let RecorderInput::Plain(_) | RecorderInput::Marker(_) = input {
                self.handle(input).await;
            }
        }
        let deadline = Instant::now() + LEASE * 2;
        while matches!(self.role, Role::Writer { .. } | Role::Retiring { .. })
            && !self.has_settled()
            && Instant::now() < deadline
        {
            if self.is_writing_across() {
                self.write_across().await;
                continue;
            }
            let delay = self.write_or_back_off().await;
            tokio::time::sleep(delay).await;
        }
        if self.numbering.has_unwritten() && !matches!(self.role, Role::Standby { .. }) {
            tracing::error!(
                messages = self.numbering.len(),
                "plain publishes could not be recorded before shutdown"
            );
        }
        self.lease.release().await;
        self.set_role(Role::None);
    }

    /// Writes on a cluster for a while.
    async fn write_across(&mut self) {
        self.renew().await;
        let until = Instant::now() + RENEWAL;
        while self.is_writing_across() && !self.has_settled() && Instant::now() < until {
            self.dispatch();
            if let Ok(Some(completion)) = tokio::time::timeout_at(until, self.across.next()).await {
                self.completed(completion).await;
            }
        }
    }
}
