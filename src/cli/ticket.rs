//! `ticket`

use std::process::ExitCode;

use super::args::{EX_CONFIG, TicketArgs};
use crate::{
    auth::{MintError, Verifier},
    core::{channel::is_name, topics::Topics},
    state::clock::unix_ms,
};

/// Prints a ticket.
pub fn ticket(args: &TicketArgs) -> ExitCode {
    let settings = match args.config.load() {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    match mint(args, settings.tickets) {
        Ok(ticket) => {
            println!("{ticket}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("{fault}");
            EX_CONFIG.into()
        }
    }
}

fn mint(args: &TicketArgs, settings: crate::settings::Tickets) -> Result<String, String> {
    if !is_name(&args.user) {
        return Err(
            "--user: must be 1 to 256 printable ASCII characters without space, comma and \
                    * ? [ ] \\"
                .into(),
        );
    }
    let topic_error = |topic| format!("--topic: {topic:?} must be a name, `prefix*` or `*`");
    Topics::parse(args.topics.iter().map(String::as_str)).map_err(topic_error)?;
    let verifier = Verifier::new(settings).map_err(|e| e.to_string())?;
    let max_s = verifier.max_ttl_s();
    let ttl_s = args.ttl.map_or(max_s.min(60), |ttl| ttl.as_secs());
    if !(1..=max_s).contains(&ttl_s) {
        return Err(format!("--ttl: must be from 1s to {max_s}s (tickets.max_ttl)"));
    }
    let topics = (!args.topics.is_empty()).then_some(args.topics.as_slice());
    verifier.mint(&args.user, topics, ttl_s, unix_ms() / 1000).map_err(|error| match error {
        MintError::NoSigningKey => "tickets.secret: no HS256 key to sign with; set it, or sign \
                                    tickets in the backend that has the private key"
            .to_owned(),
        MintError::Library(error) => format!("the ticket cannot be signed ({error})"),
    })
}
