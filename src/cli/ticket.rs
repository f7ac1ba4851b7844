//! `ticket`

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::args::{EX_CONFIG, TicketArgs};
use crate::{
    auth::{MintError, NewTicket, Verifier},
    core::{
        channel::is_name,
        filter::Filter,
        topics::{Topics, TopicsError},
    },
    error_chain::ErrorChain,
    settings::Tickets,
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
        Err(failure) => {
            eprintln!("{}", ErrorChain(&failure));
            EX_CONFIG.into()
        }
    }
}

/// Why there is no ticket to print.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "--user: must be 1 to 256 printable ASCII characters without space, comma and \
         * ? [ ] {{ }} \\"
    )]
    User,
    #[error("--topic: the topics are invalid")]
    Topics(#[source] TopicsError),
    #[error(
        "--filter: must be up to 8 different tags, each with 1 to 64 values, such as \
         region=eu,us"
    )]
    Filter,
    #[error(
        "--ttl: must be from 1s to {max_s}s (tickets.max_ttl, for a cookie \
         tickets.cookie_max_ttl)"
    )]
    Ttl { max_s: u64 },
    #[error("tickets.keys: a key cannot be used")]
    Key(#[source] jsonwebtoken::errors::Error),
    #[error(
        "tickets.secret: no HS256 key to sign with; set it, or sign tickets in the backend that \
         has the private key"
    )]
    NoSigningKey,
    #[error(transparent)]
    Sign(MintError),
}

/// The claim `filter`; `None`: it would be invalid.
fn filter(tags: &[String]) -> Option<Option<Value>> {
    if tags.is_empty() {
        return Some(None);
    }
    let mut claim = Map::new();
    for tag in tags {
        let (name, values) = tag.split_once('=')?;
        let values = values.split(',').map(Value::from).collect::<Vec<_>>();
        if claim.insert(name.to_owned(), values.into()).is_some() {
            return None;
        }
    }
    let claim = Value::Object(claim);
    Filter::of_claim(&claim).is_some().then_some(Some(claim))
}

fn mint(args: &TicketArgs, settings: Tickets) -> Result<String, Failure> {
    if !is_name(&args.user) {
        return Err(Failure::User);
    }
    Topics::parse(args.topics.iter().map(String::as_str)).map_err(Failure::Topics)?;
    let verifier = Verifier::new(settings).map_err(Failure::Key)?;
    let max_s = verifier.max_ttl_s();
    let ttl_s = args.ttl.map_or(verifier.default_ttl_s(), |ttl| ttl.as_secs());
    if !(1..=max_s).contains(&ttl_s) {
        return Err(Failure::Ttl { max_s });
    }
    let topics = (!args.topics.is_empty()).then_some(args.topics.as_slice());
    let filter = filter(&args.filters).ok_or(Failure::Filter)?;
    let (presence, filter) = (args.presence, filter.as_ref());
    let new = NewTicket { user: &args.user, topics, presence, filter };
    verifier.mint(&new, ttl_s, unix_ms() / 1000).map_err(|error| match error {
        MintError::NoSigningKey => Failure::NoSigningKey,
        error => Failure::Sign(error),
    })
}
