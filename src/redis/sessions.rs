//! Sessions: a redeemed ticket is good for reconnects while its session lives
//! (ARCHITECTURE.md#tickets-and-sessions).

use std::{rc::Rc, sync::Arc, time::Duration};

use redis::Value;
use tokio::sync::mpsc;

use super::{
    commands::{CommandError, Commands, log_foreign_key},
    link_state::LinkState,
};
use crate::{
    core::{id::EventId, system::CloseReason},
    state::{client::Session, connection::Connection, hub::Hub},
};

/// Sessions renewed in one call.
const BATCH: usize = 100;

/// A ticket that is being redeemed.
pub struct SessionRequest<'a> {
    /// Digest of the ticket.
    pub digest: &'a str,
    /// The connection.
    pub connection: &'a str,
    /// The user.
    pub user: &'a str,
    /// Whether the ticket's `exp` has passed.
    pub expired: bool,
    /// Ms until the ticket can no longer open a session.
    pub left_ms: u64,
    /// When the session must end, ms since 1970.
    pub until_ms: u64,
    /// When the ticket was issued, ms since 1970 (the end of that second).
    pub issued_ms: u64,
    /// The client's cursor.
    pub cursor: Option<EventId>,
    /// Digest of the cookie that came with the request, empty: none.
    pub proof: &'a str,
    /// Digest of the cookie that a new session shall have, empty: none.
    pub new_proof: &'a str,
}

/// Why a ticket opens no session.
#[derive(Debug)]
pub enum SessionError {
    /// It has expired, and there is no session.
    Expired,
    /// It was used, and `tickets.reconnect_grace` is 0.
    Used,
    /// The session's time is over.
    Over,
    /// The user's sessions were revoked.
    Revoked,
    /// The session has a cookie, and the request has not.
    CookieMissing,
    /// Redis does not answer.
    Away(CommandError),
}

/// How long a session outlives its last renewal: the grace, and the time until the next renewal.
fn ttl_ms(grace: Duration) -> u64 {
    (grace + interval(grace)).as_millis() as u64
}

/// Time between renewals.
fn interval(grace: Duration) -> Duration {
    // Without a grace nothing is kept alive, but an operator's word that was missed is heard.
    if grace.is_zero() {
        return Duration::from_secs(20);
    }
    (grace / 3).clamp(Duration::from_millis(200), Duration::from_secs(40))
}

/// Opens or resumes the session of a ticket.
///
/// # Errors
/// Why there is none.
pub async fn open(
    commands: &Commands,
    grace: Duration,
    redeem: &SessionRequest<'_>,
) -> Result<Session, SessionError> {
    let mut call = commands.call("open", &[redeem.digest]);
    call.arg(redeem.connection)
        .arg(redeem.user)
        .arg(u8::from(redeem.expired))
        .arg(u8::from(grace.is_zero()))
        .arg(ttl_ms(grace))
        .arg(redeem.until_ms)
        .arg(redeem.issued_ms)
        .arg(redeem.cursor.map(|id| id.to_string()).unwrap_or_default())
        .arg(redeem.left_ms)
        .arg(redeem.proof)
        .arg(redeem.new_proof);
    let answer: Vec<Value> = commands.run(&call).await.map_err(SessionError::Away)?;
    let text = |n: usize| {
        answer
            .get(n)
            .and_then(|v| redis::from_redis_value::<String>(v.clone()).ok())
            .unwrap_or_default()
    };
    match text(0).as_str() {
        "opened" | "resumed" => Ok(Session {
            digest: redeem.digest.to_owned(),
            first: EventId::parse(&text(1)).unwrap_or_default(),
            opened_ms: text(2).parse().unwrap_or(0),
            until_ms: text(3).parse().unwrap_or(redeem.until_ms),
            generation: text(5).parse().unwrap_or(1),
            proof: text(6),
        }),
        "expired" => Err(SessionError::Expired),
        "used" => Err(SessionError::Used),
        "over" => Err(SessionError::Over),
        "revoked" => Err(SessionError::Revoked),
        "stranger" => Err(SessionError::CookieMissing),
        other => Err(SessionError::Away(CommandError::Unavailable(format!(
            "the library answered {other:?}"
        )))),
    }
}

/// Ends all sessions of a user that exist now, on all instances.
///
/// # Errors
/// Redis does not answer.
pub async fn revoke(
    commands: &Commands,
    user: &str,
    max_session: Duration,
) -> Result<(), CommandError> {
    let mut call = commands.call("revoke", &[user]);
    call.arg(max_session.as_millis() as u64);
    commands.run::<i64>(&call).await.map(drop)
}

/// Keeps the sessions of one worker's connections alive, and gives those back whose connection has
/// ended.
pub async fn keep(
    hub: Rc<Hub>,
    link_state: Arc<LinkState>,
    commands: Commands,
    mut ended: mpsc::UnboundedReceiver<Rc<Connection>>,
) {
    let settings = &hub.context.settings;
    let (grace, most) = (settings.tickets.reconnect_grace, settings.limits.max_connections);
    let mut timer = tokio::time::interval(interval(grace));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut gone = Vec::new();
    loop {
        let due = tokio::select! {
            n = ended.recv_many(&mut gone, BATCH) => {
                if n == 0 {
                    return;
                }
                false
            }
            _ = timer.tick() => true,
            // Redis may have lost them: a client that reconnects now must find its session.
            () = hub.sessions_due.notified() => true,
        };
        // Those first that have left: they come back.
        if link_state.is_up() {
            give_back(&commands, &mut gone, grace).await;
        }
        gone.drain(..gone.len().saturating_sub(most));
        if due {
            renew_all(&hub, &commands, grace).await;
        }
    }
}

/// Lets sessions end their grace after their connection; while Redis is away their time stands
/// still.
async fn give_back(commands: &Commands, gone: &mut Vec<Rc<Connection>>, grace: Duration) {
    while !gone.is_empty() {
        let batch = gone.len().min(BATCH);
        if renew(commands, &gone[..batch], grace, true).await.is_none() {
            return;
        }
        gone.drain(..batch);
    }
}

async fn renew_all(hub: &Rc<Hub>, commands: &Commands, grace: Duration) {
    for batch in hub.snapshot().chunks(BATCH) {
        let answers = renew(commands, batch, grace, false).await.unwrap_or_default();
        for (connection, answer) in batch.iter().zip(answers) {
            match answer.as_str() {
                "taken-over" => hub.end_session(connection, CloseReason::TakenOver),
                "revoked" => hub.end_session(connection, CloseReason::Revoked),
                other => {
                    if let Some(fault) = other.strip_prefix("wrong-type: ") {
                        log_foreign_key(fault);
                    }
                }
            }
        }
    }
}

/// The answers of the library, in order; None: Redis is away, the next turn tries again.
async fn renew(
    commands: &Commands,
    connections: &[Rc<Connection>],
    grace: Duration,
    closing: bool,
) -> Option<Vec<String>> {
    let digests: Vec<&str> = connections.iter().map(|c| c.client.session.digest.as_str()).collect();
    let mut call = commands.call("renew", &digests);
    for c in connections {
        let ttl_ms = if closing { (grace.as_millis() as u64).max(1) } else { ttl_ms(grace) };
        call.arg(&c.client.id)
            .arg(&*c.client.user)
            .arg(c.client.session.first.to_string())
            .arg(c.client.session.opened_ms)
            .arg(c.client.session.until_ms)
            .arg(ttl_ms)
            .arg(u8::from(closing))
            .arg(c.client.session.generation)
            .arg(&c.client.session.proof);
    }
    commands
        .run(&call)
        .await
        .inspect_err(|error| {
            tracing::debug!(address = %commands.address, %error, "sessions not renewed");
        })
        .ok()
}
