//! Sessions: a used ticket can reconnect while its session lives
//! (ARCHITECTURE.md#tickets-and-sessions).

use std::{rc::Rc, sync::Arc, time::Duration};

use redis::{Cmd, Value};
use tokio::sync::mpsc;

use super::{
    call_pipeline::CallPipeline,
    commands::{CommandError, Commands, log_foreign_key},
    named_reply::NamedReply,
    servers::Servers,
};
use crate::{
    core::{
        id::{EventId, StreamPosition},
        reasons::CloseReason,
    },
    error_chain::ErrorChain,
    state::{client::Session, connection::Connection, hub::Hub},
};

/// Maximum number of sessions renewed in one call.
const BATCH: usize = 100;

/// A request to open or resume the session of a ticket.
pub struct SessionRequest<'a> {
    /// Digest of the ticket.
    pub digest: &'a str,
    /// Id of the connection.
    pub connection: &'a str,
    /// The user.
    pub user: &'a Arc<str>,
    /// Whether a new session is shared: its connections do not take over from each other.
    pub is_shared: bool,
    /// Whether the ticket's `exp` has passed.
    pub expired: bool,
    /// Ms until the ticket can no longer open a session.
    pub left_ms: u64,
    /// When the session must end, ms since 1970.
    pub until_ms: u64,
    /// When the ticket was issued, ms since 1970 (the end of that second).
    pub issued_ms: u64,
    /// The client's cursor.
    pub cursor: Option<StreamPosition>,
    /// For a split stream: where a new session begins in the broadcasts. Otherwise both parts begin
    /// at the same position.
    pub first_broadcasts: Option<EventId>,
    /// Digest of the cookie in the request; empty if there is none.
    pub proof: &'a str,
    /// Digest of the cookie of a new session; empty if it has none.
    pub new_proof: &'a str,
}

/// Why a ticket opens no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The ticket has expired and has no session.
    #[error("the ticket has expired and has no session")]
    Expired,
    /// The ticket was used, and `tickets.reconnect_grace` is 0.
    #[error("the ticket was used")]
    Used,
    /// The session has reached its end.
    #[error("the session has ended")]
    Over,
    /// The user's sessions were revoked.
    #[error("the user's sessions were revoked")]
    Revoked,
    /// The session has a cookie, and the request does not have it.
    #[error("the request does not have the session's cookie")]
    CookieMissing,
    /// A command failed.
    #[error("a command failed")]
    Redis(#[source] Arc<CommandError>),
}

impl From<CommandError> for SessionError {
    fn from(error: CommandError) -> Self {
        Self::Redis(Arc::new(error))
    }
}

/// Lifetime of a session after its last renewal: the grace, plus the time until the next renewal.
fn ttl_ms(grace: Duration) -> u64 {
    (grace + interval(grace)).as_millis() as u64
}

/// Time between renewals.
fn interval(grace: Duration) -> Duration {
    // Without a grace no session is kept alive, but a renewal also reports a missed revocation.
    if grace.is_zero() {
        return Duration::from_secs(20);
    }
    (grace / 3).clamp(Duration::from_millis(200), Duration::from_secs(40))
}

fn call(function: &str, commands: &Commands, grace: Duration, request: &SessionRequest<'_>) -> Cmd {
    let mut call = commands.call(function, &[commands.keys.public_user(request.user)]);
    call.arg(request.digest)
        .arg(request.connection)
        .arg(u8::from(request.expired))
        .arg(u8::from(grace.is_zero()))
        .arg(ttl_ms(grace))
        .arg(request.until_ms)
        .arg(request.issued_ms)
        .arg(request.cursor.map(|position| position.user.to_string()).unwrap_or_default())
        .arg(request.left_ms)
        .arg(request.proof)
        .arg(request.new_proof)
        .arg(request.first_broadcasts.map(|id| id.to_string()).unwrap_or_default());
    call
}

/// What `sse_open` and `sse_resume` return of a session.
struct Opened {
    outcome: String,
    first: StreamPosition,
    opened_ms: Option<u64>,
    until_ms: Option<u64>,
    generation: Option<u64>,
    proof: String,
}

impl Opened {
    /// The reply of `sse_open` with `TEXT`: values in a fixed order.
    fn of_text(text: &str) -> Self {
        let mut values = text.split(' ');
        let mut next = || values.next().unwrap_or_default();
        let (outcome, first) = (next().to_owned(), next());
        let [opened_ms, until_ms, generation] = [next(), next(), next()].map(|ms| ms.parse().ok());
        let (proof, broadcast) = (next().to_owned(), next());
        let first = first_position(first, broadcast);
        Self { outcome, first, opened_ms, until_ms, generation, proof }
    }

    fn of_named(reply: &NamedReply) -> Self {
        Self {
            outcome: reply.text("outcome").to_owned(),
            first: first_position(reply.text("first"), reply.text("first_broadcast")),
            opened_ms: reply.number("opened_ms"),
            until_ms: reply.number("until_ms"),
            generation: reply.number("generation"),
            proof: reply.text("proof").to_owned(),
        }
    }
}

/// Opens or resumes the session of a ticket, on the server of `commands`.
///
/// # Errors
/// The reason why there is no session.
pub async fn open(
    pipeline: &CallPipeline,
    commands: &Commands,
    grace: Duration,
    request: &SessionRequest<'_>,
) -> Result<Session, SessionError> {
    let mut call = call("open", commands, grace, request);
    call.arg("TEXT");
    if request.is_shared {
        call.arg("SHARED");
    }
    let opened = match pipeline.run(call).await {
        Ok(reply) => Opened::of_text(&text_of(reply)?),
        Err(error) if error.is_without_replicas() => {
            let resumed = Box::pin(resume(commands, grace, request)).await?;
            resumed.ok_or(SessionError::Redis(error))?
        }
        Err(error) => return Err(SessionError::Redis(error)),
    };
    match opened.outcome.as_str() {
        "opened" | "resumed" => Ok(Session {
            user: request.user.clone(),
            digest: request.digest.to_owned(),
            first: opened.first,
            opened_ms: opened.opened_ms.unwrap_or(0),
            until_ms: opened.until_ms.unwrap_or(request.until_ms),
            generation: opened.generation.unwrap_or(1),
            proof: opened.proof,
        }),
        other => Err(refusal(other)),
    }
}

/// The outcomes of `sse_open` and `sse_resume` without a session.
fn refusal(outcome: &str) -> SessionError {
    match outcome {
        "expired" => SessionError::Expired,
        "used" => SessionError::Used,
        "over" => SessionError::Over,
        "revoked" => SessionError::Revoked,
        "stranger" => SessionError::CookieMissing,
        other => CommandError::UnexpectedReply(other.to_owned()).into(),
    }
}

/// Checks that a ticket could open its session or resume it, and does neither.
///
/// # Errors
/// The reason why it could not.
pub async fn check(
    commands: &Commands,
    grace: Duration,
    request: &SessionRequest<'_>,
) -> Result<(), SessionError> {
    // It writes nothing, and the notice in its reply is not published.
    let mut pipeline = redis::pipe();
    pipeline.add_command(call("resume", commands, grace, request));
    pipeline.cmd("GET").arg(commands.keys.revoked(request.user));
    let (session, revoked): (NamedReply, Option<String>) = commands.run_all(&pipeline).await?;
    match session.text("outcome") {
        "resumed" => Ok(()),
        "missing" => {
            let revoked_ms = revoked.and_then(|ms| ms.parse().ok()).unwrap_or(0);
            if request.issued_ms < revoked_ms { Err(SessionError::Revoked) } else { Ok(()) }
        }
        outcome => Err(refusal(outcome)),
    }
}

/// The first cursor of a session. `broadcasts` is empty unless it began with a split stream.
fn first_position(user: &str, broadcasts: &str) -> StreamPosition {
    let user = EventId::parse(user).unwrap_or_default();
    StreamPosition { user, broadcasts: EventId::parse(broadcasts).unwrap_or(user) }
}

/// Resumes a session that exists without a write, for a server that refuses writes; `None`: there
/// is no session.
async fn resume(
    commands: &Commands,
    grace: Duration,
    request: &SessionRequest<'_>,
) -> Result<Option<Opened>, CommandError> {
    let reply: NamedReply = commands.run(&call("resume", commands, grace, request)).await?;
    let notice = reply.text("notice");
    if !notice.is_empty() {
        let mut publish = redis::cmd("SPUBLISH");
        publish.arg(commands.keys.live_user(request.user)).arg(notice);
        commands.run::<i64>(&publish).await?;
    }
    Ok((reply.text("outcome") != "missing").then(|| Opened::of_named(&reply)))
}

/// The text of a reply.
fn text_of(reply: Value) -> Result<String, CommandError> {
    let unexpected = |reply: &Value| CommandError::UnexpectedReply(format!("{reply:?}"));
    match reply {
        Value::BulkString(bytes) => String::from_utf8(bytes)
            .map_err(|error| unexpected(&Value::BulkString(error.into_bytes()))),
        other => Err(unexpected(&other)),
    }
}

/// Ends all sessions of a user that exist now, on all instances. For `lasting`, tickets from before
/// open none.
///
/// # Errors
/// Redis does not respond.
pub async fn revoke(
    commands: &Commands,
    user: &str,
    lasting: Duration,
) -> Result<(), CommandError> {
    let mut call = commands.call("revoke", &[commands.keys.public_user(user)]);
    call.arg(lasting.as_millis() as u64);
    commands.run::<i64>(&call).await.map(drop)
}

/// Renews the sessions of one worker's connections, and releases those whose connection has ended.
pub async fn keep(
    hub: Rc<Hub>,
    servers: Arc<Servers>,
    commands: Commands,
    mut ended: mpsc::UnboundedReceiver<Rc<Connection>>,
) {
    let settings = &hub.context.settings;
    let (grace, most) = (settings.sessions.reconnect_grace, settings.limits.max_connections);
    let mut timer = tokio::time::interval(interval(grace));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut closed = Vec::new();
    loop {
        let due = tokio::select! {
            n = ended.recv_many(&mut closed, BATCH) => {
                if n == 0 {
                    return;
                }
                false
            }
            _ = timer.tick() => true,
            // Redis may have lost the sessions: a client that reconnects now must find its own.
            () = hub.sessions_due.notified() => true,
        };
        // First those of closed connections, whose clients may be reconnecting.
        if servers.is_any_up() {
            release_all(&commands, &mut closed, grace).await;
        }
        closed.drain(..closed.len().saturating_sub(most));
        if due {
            renew_all(&hub, &commands, grace).await;
        }
    }
}

/// Releases the sessions of closed connections, which then expire after their grace. Those that
/// cannot be released now stay in `closed`.
async fn release_all(commands: &Commands, closed: &mut Vec<Rc<Connection>>, grace: Duration) {
    let mut kept = Vec::new();
    let mut rest = closed.as_slice();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(rest.len().min(BATCH));
        let states = renew(commands, batch, grace, true).await;
        let unreleased = batch.iter().zip(&states).filter(|(_, state)| state.is_none());
        kept.extend(unreleased.map(|(connection, _)| connection.clone()));
        rest = after;
        // Without any server, each batch would wait for the timeout.
        if states.iter().all(Option::is_none) {
            kept.extend_from_slice(rest);
            break;
        }
    }
    *closed = kept;
}

async fn renew_all(hub: &Rc<Hub>, commands: &Commands, grace: Duration) {
    let mut connections = hub.snapshot();
    connections.retain(|connection| connection.client.session.is_some());
    for batch in connections.chunks(BATCH) {
        let states = renew(commands, batch, grace, false).await;
        for (connection, state) in batch.iter().zip(states) {
            match state.as_deref() {
                Some("taken-over") => hub.end_session(connection, CloseReason::TakenOver),
                Some("revoked") => hub.end_session(connection, CloseReason::Revoked),
                Some(other) => {
                    if let Some(fault) = other.strip_prefix("wrong-type: ") {
                        log_foreign_key(fault);
                    }
                }
                None => {}
            }
        }
    }
}

/// Renews or releases sessions, and returns the library's replies in order; `None` if the session's
/// server is unavailable and the caller must retry later.
async fn renew(
    commands: &Commands,
    connections: &[Rc<Connection>],
    grace: Duration,
    closing: bool,
) -> Vec<Option<String>> {
    // In a cluster, one call can only work on keys of one slot.
    let per_call = if commands.is_cluster() { 1 } else { connections.len().max(1) };
    let calls = connections.chunks(per_call).map(|batch| renewal(commands, batch, grace, closing));
    let replies = commands.run_each::<Vec<String>>(calls.collect()).await;
    let mut states = Vec::with_capacity(connections.len());
    for (batch, reply) in connections.chunks(per_call).zip(replies) {
        match reply {
            Ok(found) => states.extend(found.into_iter().map(Some)),
            Err(error) => {
                let error = ErrorChain(&*error);
                tracing::debug!(%error, "sessions not renewed");
                states.extend(batch.iter().map(|_| None));
            }
        }
    }
    states
}

/// Renews or releases the sessions of connections, all of which have one.
fn renewal(
    commands: &Commands,
    connections: &[Rc<Connection>],
    grace: Duration,
    closing: bool,
) -> Cmd {
    let sessions = || connections.iter().filter_map(|c| Some((c, c.client.session.as_ref()?)));
    let channels: Vec<String> =
        sessions().map(|(_, session)| commands.keys.public_user(&session.user)).collect();
    let mut call = commands.call("renew", &channels);
    for (c, session) in sessions() {
        let ttl_ms = if closing { (grace.as_millis() as u64).max(1) } else { ttl_ms(grace) };
        call.arg(&session.digest)
            .arg(&c.client.id)
            .arg(session.first.user.to_string())
            .arg(session.opened_ms)
            .arg(session.until_ms)
            .arg(ttl_ms)
            .arg(u8::from(closing))
            .arg(session.generation)
            .arg(&session.proof)
            .arg(first_broadcasts(session.first));
    }
    call
}

/// The broadcasts' part of a first cursor, as the library keeps it: empty if it is the user's part.
fn first_broadcasts(first: StreamPosition) -> String {
    if first.broadcasts == first.user { String::new() } else { first.broadcasts.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_session_is_read_in_order() {
        let opened = Opened::of_text("resumed 5-0.a 1 2 3 proof 7-1.b");
        assert_eq!((opened.outcome.as_str(), opened.proof.as_str()), ("resumed", "proof"));
        assert_eq!(opened.first, first_position("5-0.a", "7-1.b"));
        let numbers = (opened.opened_ms, opened.until_ms, opened.generation);
        assert_eq!(numbers, (Some(1), Some(2), Some(3)));
        let whole = Opened::of_text("opened 5-0.a 1 2 3  ");
        assert_eq!((whole.first, whole.proof.as_str()), (first_position("5-0.a", ""), ""));
        assert_eq!(Opened::of_text("expired").outcome, "expired");
    }

    #[test]
    fn first_cursor_is_kept_in_one_or_two_parts() {
        for (user, broadcasts) in [("5-0.a", ""), ("5-0.a", "7-1.b")] {
            let first = first_position(user, broadcasts);
            assert_eq!(
                (first.user.to_string(), first_broadcasts(first)),
                (user.into(), broadcasts.into())
            );
        }
        let whole = first_position("5-0.a", "");
        assert_eq!(whole.broadcasts, whole.user);
    }
}
