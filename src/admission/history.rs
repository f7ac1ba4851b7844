//! Who may read which stored events: the same credentials and rates as for streams, but no session
//! is opened, and the ticket is not used up.

use std::{net::IpAddr, time::Duration};

use super::{
    Admission, AdmissionError, RequestClient,
    session::{admission_error, check_session_exp, proof},
};
use crate::{
    auth::{Credential, Ticket, TicketError},
    core::{
        catch_up::{self, ClockSnapshot, Start},
        channel::Channel,
        event::Event,
        id::{EventId, StreamPosition},
        part::Part,
        reasons::{BusyReason, TicketRejection},
    },
    error_chain::ErrorChain,
    redis::{
        history::{self, HistoryPage, HistoryRange},
        link::LinkDown,
        routes::Route,
        sessions::{self, SessionRequest},
    },
    state::{clock::unix_ms, limits::queued_bytes::ResponseBytes},
};

/// Maximum time until a history is read, and of the reading itself.
const MAX_WAIT: Duration = Duration::from_secs(2);
const MAX_READ: Duration = Duration::from_secs(10);
/// Approximate maximum size of the events in one response; the next request gets the rest.
const MAX_BYTES: usize = 1 << 20;

/// A request for stored events of a channel.
pub struct HistoryRequest<'a> {
    /// The address of the client; `None` if it has gone already.
    pub address: Option<IpAddr>,
    /// The ticket as the client sent it; `None`: the client has none.
    pub credential: Option<Credential<'a>>,
    /// The channel.
    pub channel: Channel,
    /// The events after this position or time.
    pub after: StreamPosition,
    /// The events up to this position, from which the stream will begin; `None`: all.
    pub until: Option<StreamPosition>,
    /// Maximum number of events.
    pub limit: usize,
    /// The client.
    pub client: &'a dyn RequestClient,
}

/// The response to a [`HistoryRequest`].
pub struct History {
    /// The events, and where the next ones are.
    pub page: HistoryPage,
    /// The position from which a stream continues this channel, if nothing follows: after all of
    /// its events that are stored now.
    pub position: Option<StreamPosition>,
    /// Counts the bytes of the response.
    pub counted: ResponseBytes,
}

/// Why a client gets no stored events.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The client is not admitted.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The ticket does not allow the channel.
    #[error("the ticket does not allow this channel")]
    NotAllowed,
    /// `after` was not assigned by these servers, or is in the future.
    #[error("the position after which events are wanted is not known")]
    UnknownAfter,
    /// The same of `until`.
    #[error("the position up to which events are wanted is not known")]
    UnknownUntil,
}

impl From<TicketError> for HistoryError {
    fn from(error: TicketError) -> Self {
        Self::Admission(error.into())
    }
}

impl From<LinkDown> for HistoryError {
    fn from(_: LinkDown) -> Self {
        busy(BusyReason::RedisAway)
    }
}

fn busy(reason: BusyReason) -> HistoryError {
    HistoryError::Admission(AdmissionError::Busy(reason))
}

impl Admission {
    /// Reads stored events. A denial is counted in the metrics.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn history(&self, request: HistoryRequest<'_>) -> Result<History, HistoryError> {
        let history = self.try_history(&request).await;
        if let Err(HistoryError::Admission(error)) = &history {
            self.count(error);
        }
        history
    }

    async fn try_history(&self, request: &HistoryRequest<'_>) -> Result<History, HistoryError> {
        // First, because everything after it costs more.
        self.check_rate(request.address)?;
        let ticket = self.authenticate(request.credential).await?;
        if !self.is_allowed(ticket.as_ref(), &request.channel) {
            return Err(HistoryError::NotAllowed);
        }
        match &ticket {
            Some(ticket) => {
                check_times(ticket)?;
                self.check_user(ticket, request.client)?;
            }
            None => drop(self.check_anonymous(request.address, request.client)?),
        }
        let counted = ResponseBytes::new(self.context.limits.clone(), ticket.is_none());
        if !counted.has_room() {
            return Err(busy(BusyReason::Full));
        }
        let reads = self.context.limits.history_reads.acquire();
        let reading = tokio::time::timeout(MAX_WAIT, reads).await;
        let _reading = reading.ok().and_then(Result::ok).ok_or(busy(BusyReason::Full))?;
        let read =
            tokio::time::timeout(MAX_READ, self.read_history(request, ticket.as_ref())).await;
        let (page, position) = read.unwrap_or_else(|_| Err(busy(BusyReason::RedisAway)))?;
        Ok(History { page, position, counted })
    }

    /// Whether a ticket, or the lack of one, allows a channel.
    fn is_allowed(&self, ticket: Option<&Ticket>, channel: &Channel) -> bool {
        match (channel, ticket) {
            (Channel::User(user), Some(ticket)) => *user == ticket.user,
            (Channel::User(_), None) => false,
            (Channel::Broadcast(topic), Some(ticket)) => ticket.topics.allows(topic),
            (Channel::Broadcast(topic), None) => {
                self.context.settings.anonymous_topics.allows(topic)
            }
        }
    }

    async fn read_history(
        &self,
        request: &HistoryRequest<'_>,
        ticket: Option<&Ticket>,
    ) -> Result<(HistoryPage, Option<StreamPosition>), HistoryError> {
        if let Some(ticket) = ticket {
            self.check_session(request, ticket).await?;
        }
        let user = ticket.map(|ticket| &*ticket.user);
        let part = Part::of(&request.channel);
        let route = match part {
            Part::Broadcasts => self.routes.broadcasts(),
            Part::Whole | Part::User => user.and_then(|user| self.routes.user(user)),
        };
        let route = route.ok_or(LinkDown)?;
        // Before the logs are read: then they contain everything up to H.
        let clock = route.link().log_snapshot().await?;
        let range = range(request, part, &clock)?;
        let is_visible = |event: &Event| is_visible(ticket, event);
        match history::read(&route.commands, &range, &clock, is_visible).await {
            // It may be of another master, see `CatchUpDriver::check_epochs`.
            Ok(HistoryPage { ahead: Some(id), .. })
                if self.routes.is_cluster() && id.is_plausible(clock.now_ms) =>
            {
                route.state().raise_highest_id(id);
                Err(busy(BusyReason::RedisAway))
            }
            Ok(page) => {
                let is_last = page.next.is_none();
                let now = || self.position(user, part, clock.h);
                let position = is_last.then(|| request.until.unwrap_or_else(now));
                Ok((page, position))
            }
            Err(error) => {
                let (address, error) = (route.commands.address(), ErrorChain(&error));
                tracing::debug!(%address, %error, "could not read a history");
                Err(busy(BusyReason::RedisAway))
            }
        }
    }

    /// Checks that the ticket could open its session, or resume it.
    async fn check_session(
        &self,
        request: &HistoryRequest<'_>,
        ticket: &Ticket,
    ) -> Result<(), HistoryError> {
        let Some(route) = self.routes.user_when_up(&ticket.user).await else {
            return Err(busy(BusyReason::RedisAway));
        };
        let presented = request.client.session_secret(&ticket.digest);
        let session = SessionRequest {
            digest: &ticket.digest,
            connection: "",
            user: &ticket.user,
            is_shared: request.credential.is_some_and(|c| c.is_shared()),
            expired: false,
            left_ms: 0,
            until_ms: u64::MAX,
            issued_ms: ticket.issued_ms,
            cursor: None,
            first_broadcasts: None,
            proof: &presented.as_deref().map(proof).unwrap_or_default(),
            new_proof: "",
        };
        let grace = self.context.settings.sessions.reconnect_grace;
        let checked = sessions::check(&route.commands, grace, &session).await;
        let recovered = || route.state().recovered_within(super::SESSIONS_REWRITTEN);
        let error = |error| admission_error(error, &route.commands.address(), recovered);
        checked.map_err(|e| error(e).into())
    }

    /// The position of a stream that has received everything of a part up to `h`, and begins now in
    /// the other one.
    fn position(&self, user: Option<&str>, part: Part, h: EventId) -> StreamPosition {
        let Some(user) = user else { return h.into() };
        let (user, broadcasts) = (self.routes.user(user), self.routes.broadcasts());
        let is_same = |user: &Route| broadcasts.as_ref().is_some_and(|b| b.index() == user.index());
        if user.as_ref().is_some_and(is_same) {
            return h.into();
        }
        // What its link has brought last. If there was nothing yet, only the time is known.
        let now = |route: Option<&Route>| {
            let highest = route.map(|route| route.state().highest_id());
            let highest = highest.filter(|id| *id > EventId::ZERO);
            highest.unwrap_or_else(|| EventId::before_time(self.context.clock.server_ms()))
        };
        match part {
            Part::Broadcasts => StreamPosition { user: now(user.as_ref()), broadcasts: h },
            Part::Whole | Part::User => {
                StreamPosition { user: h, broadcasts: now(broadcasts.as_ref()) }
            }
        }
    }
}

/// Whether a stream of this ticket would get a stored event of a channel that it allows.
fn is_visible(ticket: Option<&Ticket>, event: &Event) -> bool {
    let filter = ticket.and_then(|ticket| ticket.filter.as_ref());
    filter.is_none_or(|filter| filter.allows(event.options.as_deref()))
}

/// Checks that the ticket itself is valid now: its session, if it has one, does not extend that.
fn check_times(ticket: &Ticket) -> Result<(), TicketError> {
    if ticket.expired {
        let message = "the ticket has expired; get a new ticket";
        return Err(TicketError::new(TicketRejection::Expired, message));
    }
    check_session_exp(ticket, unix_ms())
}

fn range(
    request: &HistoryRequest<'_>,
    part: Part,
    clock: &ClockSnapshot,
) -> Result<HistoryRange, HistoryError> {
    let of_part = |position: StreamPosition| match part {
        Part::Broadcasts => position.broadcasts,
        Part::Whole | Part::User => position.user,
    };
    let is_known = |id| matches!(catch_up::start(Some(id), clock, 0), Start::Read { .. });
    let (after, until) = (of_part(request.after), request.until.map(of_part));
    if !is_known(after) {
        return Err(HistoryError::UnknownAfter);
    }
    // The stream that begins there would skip what follows H.
    if !until.is_none_or(is_known) {
        return Err(HistoryError::UnknownUntil);
    }
    let (channel, limit) = (request.channel.clone(), request.limit);
    Ok(HistoryRange { channel, after, until, limit, limit_bytes: MAX_BYTES })
}
