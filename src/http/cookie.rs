//! The cookie that contains the secret of a session (`tickets.session_cookie`). Each session has
//! its own cookie name, because a browser may have several streams.

use std::time::Duration;

use actix_web::{HttpRequest, http::header};
use secrecy::ExposeSecret;

use crate::admission::session::NewSecret;

/// Digits of the ticket's digest in the cookie's name.
const NAME_DIGITS: usize = 16;

/// `Set-Cookie` (RFC 6265 section 4.1): valid for pages of other sites too, over TLS only, not
/// readable by scripts.
pub fn set_cookie(new: &NewSecret, max_age: Duration) -> String {
    let (name, seconds) = (name(&new.ticket_digest), max_age.as_secs());
    let secret = new.secret.expose_secret();
    format!("{name}={secret}; Path=/events; Max-Age={seconds}; HttpOnly; Secure; SameSite=None")
}

/// The secret in a request for the session of a ticket.
pub fn presented(request: &HttpRequest, ticket_digest: &str) -> Option<String> {
    let name = name(ticket_digest);
    let lines = request.headers().get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(of, _)| *of == name).map(|(_, secret)| secret.to_owned())
}

fn name(ticket_digest: &str) -> String {
    format!("sse_session_{}", &ticket_digest[..NAME_DIGITS])
}
