//! An instance becomes the writer.

use tokio::time::Instant;

use super::{RENEWAL, Recorder, Role, lease::Grant, numbering::RecordPosition};

impl Recorder {
    /// Becomes the writer without a known previous numbering.
    pub(super) async fn start_writing(&mut self, grant: Grant) {
        if !self.subscribe().await {
            return self.lease.release().await;
        }
        self.begin_numbering(grant, self.roles > 0).await;
    }

    /// Starts to number messages. `unproved` means that this numbering cannot be proved to follow
    /// the previous one.
    pub(super) async fn begin_numbering(&mut self, grant: Grant, unproved: bool) {
        self.numbering.start(RecordPosition { marker: grant.token.clone(), n: 0 });
        let unproved = unproved && self.has_seen_messages;
        match self.lease.begin(&grant.token, unproved).await {
            Ok(true) => {
                self.set_role(Role::Writer { token: grant.token });
                self.presence.confirm();
            }
            _ => {
                self.set_role(Role::Writer { token: grant.token });
                self.resign().await;
            }
        }
    }

    /// Takes over from the writer: the standby continues from the recorded position, if that is in
    /// its numbering.
    pub(super) async fn promote(&mut self, grant: Grant) {
        let Role::Standby { numbering, .. } = &self.role else { return };
        let is_same = *numbering == grant.recorded.numbering;
        let position = &grant.recorded.position;
        if is_same {
            self.receive_up_to(position, grant.until - RENEWAL).await;
        }
        if !matches!(self.role, Role::Standby { .. }) {
            return;
        }
        if is_same && self.numbering.resume_after(position) {
            tracing::info!(
                unrecorded = self.numbering.len(),
                "the standby takes over from the writer"
            );
            self.set_role(Role::Writer { token: grant.token });
            self.take_over_warnings();
        } else {
            // Kept messages may be recorded already, and earlier ones may be missing.
            self.roles += 1;
            self.start_writing(grant).await;
        }
        // Only the writer takes note of the next standby's marker.
        self.lease.release_standby().await;
    }

    /// Handles what was received, until this standby's numbering has reached the recorded position:
    /// the server had sent all of that before it granted the lease, but this instance may not have
    /// read it yet. Gives up at the deadline.
    async fn receive_up_to(&mut self, position: &RecordPosition, deadline: Instant) {
        let mut batch = Vec::new();
        while matches!(&self.role, Role::Standby { marker, .. } if *marker == position.marker)
            && !self.numbering.has_reached(position)
        {
            if tokio::time::timeout_at(deadline, self.inbox.receive(&mut batch)).await.is_err() {
                return;
            }
            for input in batch.drain(..) {
                Box::pin(self.handle(input)).await;
            }
        }
    }
}
