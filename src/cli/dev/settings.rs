//! The settings of the two gateways, as environment variables.

use std::iter;

use aws_lc_rs::digest;
use serde_json::json;

use super::{super::args::EX_CONFIG, USER};
use crate::{
    auth::{MintError, NewTicket, Verifier},
    error_chain::ErrorChain,
    settings::{self, Scope, Settings},
    state::clock::unix_ms,
};

/// Lifetime of the printed ticket: one day.
const TTL_S: u64 = 86_400;
/// What the environment of this process may override.
const DEFAULTS: [(&str, &str); 6] = [
    ("DRAIN__DELAY", "0"),
    ("DRAIN__WINDOW", "0"),
    ("LOG__LEVEL", "warn"),
    ("PRESENCE__ENABLED", "true"),
    ("PRESENCE__LINGER", "2s"),
    ("SERVER__RETRY", "500ms"),
];

/// What the gateways, the page and the printed commands need.
pub struct DevSettings {
    /// Variables to add to the environment of both gateways.
    pub environment: Vec<(String, String)>,
    /// An API key with all scopes.
    pub api_key: String,
    /// The ticket to print.
    pub ticket: String,
}

/// Why there is no ticket to print.
#[derive(Debug, thiserror::Error)]
enum TicketError {
    #[error("tickets.keys: a key cannot be used")]
    Key(#[source] jsonwebtoken::errors::Error),
    #[error("tickets.secret: the demo ticket cannot be signed")]
    Sign(#[source] MintError),
}

impl DevSettings {
    /// New keys, and settings for a Redis, which are checked together with the environment of this
    /// process. Prints the errors.
    ///
    /// # Errors
    /// Returns the exit status.
    pub fn new(redis: &str) -> Result<Self, u8> {
        let api_key = secret();
        let environment = environment(redis, &api_key);
        let ticket = ticket(&load(environment.clone())?).map_err(|error| {
            eprintln!("{}", ErrorChain(&error));
            EX_CONFIG
        })?;
        Ok(Self { environment, api_key, ticket })
    }
}

/// 64 random hex digits.
fn secret() -> String {
    iter::repeat_with(|| uuid::Uuid::new_v4().simple().to_string()).take(2).collect()
}

fn environment(redis: &str, api_key: &str) -> Vec<(String, String)> {
    let digest = hex::encode(digest::digest(&digest::SHA256, api_key.as_bytes()).as_ref());
    let keys = json!([{ "sha256": digest, "scopes": Scope::ALL.map(Scope::name) }]).to_string();
    let fixed = [
        ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("REDIS__URL", redis.to_owned()),
        ("TICKETS__SECRET", secret()),
        ("TICKETS__MAX_TTL", format!("{TTL_S}s")),
        ("API_KEYS", keys),
    ];
    let is_free = |(name, _): &(&str, &str)| std::env::var_os(variable(name)).is_none();
    let defaults = DEFAULTS.into_iter().filter(is_free);
    let defaults = defaults.map(|(name, value)| (name, value.to_owned()));
    defaults.chain(fixed).map(|(name, value)| (variable(name), value)).collect()
}

/// The environment variable of a setting.
pub fn variable(name: &str) -> String {
    format!("{}{name}", settings::load::ENV_PREFIX)
}

/// Loads the settings from the environment of this process and these variables, of which the last
/// of a name wins. Prints the errors.
///
/// # Errors
/// Returns the exit status.
pub fn load(more: Vec<(String, String)>) -> Result<Settings, u8> {
    let own = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    settings::load(None, own.chain(more)).map_err(|faults| {
        faults.iter().for_each(|fault| eprintln!("{}", ErrorChain(fault)));
        EX_CONFIG
    })
}

fn ticket(settings: &Settings) -> Result<String, TicketError> {
    let verifier = Verifier::new(settings.tickets.clone()).map_err(TicketError::Key)?;
    verifier
        .mint(&NewTicket { user: USER, ..NewTicket::default() }, TTL_S, unix_ms() / 1000)
        .map_err(TicketError::Sign)
}
