//! The parameter `channel`, and errors of reads from Redis.

use actix_web::{HttpResponse, http::StatusCode};

use super::Admin;
use crate::{
    core::channel::Channel,
    error_chain::ErrorChain,
    http::{
        params::{BadRequest, Params},
        responses,
    },
    redis::commands::{CommandError, Commands},
};

/// The channel that a request names, and the commands for the server that has it.
///
/// # Errors
/// The response to send.
pub fn channel(params: &Params, admin: &Admin) -> Result<(Channel, Commands), Box<HttpResponse>> {
    let channel = params.get("channel").and_then(Channel::parse).ok_or_else(|| {
        let message = "channel must be user:<id>:events or broadcast:<topic>, for example \
                       channel=broadcast:news";
        Box::new(BadRequest { code: "bad-channel", message: message.to_owned() }.response())
    })?;
    let commands = admin.commands.of_key(&admin.commands.keys.log(&channel));
    commands
        .map(|commands| (channel, commands))
        .map_err(|error| Box::new(unavailable(admin, &error)))
}

/// The response if Redis did not reply, or refused a command.
pub fn unavailable(admin: &Admin, error: &CommandError) -> HttpResponse {
    let (address, chain) = (admin.commands.address(), ErrorChain(error));
    tracing::debug!(%address, error = %chain, "not read for an operator");
    match error {
        CommandError::Rejected(_) | CommandError::UnexpectedReply(_) => {
            responses::error(StatusCode::CONFLICT, "redis-refused", &chain.to_string())
        }
        _ => responses::retry_later(
            StatusCode::SERVICE_UNAVAILABLE,
            "redis-away",
            "Redis is unavailable; try again",
        ),
    }
}
