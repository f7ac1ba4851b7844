//! Admits clients without a ticket (`tickets.anonymous_topics`). They have no user and no session,
//! and limits by address in place of those of users.

use std::net::{IpAddr, Ipv4Addr};

use tracing::Instrument;

use super::{
    Accepted, Admission, AdmissionError, AdmissionRequest, Admitted, Denied, RequestClient,
    admission_span, requested_topics,
};
use crate::{
    core::{address::site, catch_up, id::StreamPosition, reasons::BusyReason},
    state::{
        client::random_id, limits::connections::ConnectionPermit, stream_context::StreamContext,
    },
};

impl Admission {
    pub(super) async fn admit_anonymous(
        &self,
        request: &AdmissionRequest<'_>,
    ) -> Result<Admitted, Denied> {
        let topics = requested_topics(request.topics, &self.context.settings.anonymous_topics)?;
        let permit = self.anonymous_permit(request)?;
        if self.routes.broadcasts_when_up().await.is_none() {
            return Err(AdmissionError::Busy(BusyReason::RedisAway).into());
        }
        let id = random_id();
        let span = admission_span(&id, None, &request.request_id);
        let accepted = Accepted {
            id,
            session: None,
            topics,
            filter: None,
            cursor: self.anonymous_cursor(request),
            permit,
            new_secret: None,
        };
        let is_resume = request.cursor.is_some();
        self.connect(self.add(request, accepted), is_resume).instrument(span).await
    }

    /// The id from which the stream continues. Without a session nothing limits it; the logs show
    /// whether events are missing. The stream reads only the broadcasts, even if the id is that of
    /// a stream that also had a user.
    fn anonymous_cursor(&self, request: &AdmissionRequest<'_>) -> Option<StreamPosition> {
        let named = request.named().map(|named| named.position.broadcasts.into());
        let named = request.begins_at().or(named);
        catch_up::resumable(named, StreamPosition::ZERO, self.context.clock.server_ms())
    }

    /// Checks the limits of the instance and of the client's address.
    fn anonymous_permit(
        &self,
        request: &AdmissionRequest<'_>,
    ) -> Result<ConnectionPermit, AdmissionError> {
        let site = self.check_anonymous(request.address, request.client)?;
        self.context.limits.connections.enter_anonymous(site).map_err(AdmissionError::Busy)
    }

    /// Checks the phase of the instance, and `limits.anonymous_connects_per_address_per_minute`.
    /// Returns the address by which the client is limited.
    pub(super) fn check_anonymous(
        &self,
        address: Option<IpAddr>,
        client: &dyn RequestClient,
    ) -> Result<IpAddr, AdmissionError> {
        self.check_lifecycle(client)?;
        let StreamContext { clock, limits, .. } = &*self.context;
        // Those that have gone already are one client.
        let site = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), site);
        if !limits.anonymous_connects_by_address.take(site, clock.now_ms()) {
            return Err(AdmissionError::Busy(BusyReason::TooOften));
        }
        Ok(site)
    }
}
