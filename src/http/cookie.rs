//! Cookies in requests, and the cookie that contains the secret of a session
//! (`tickets.session_cookie`). Each session has its own cookie name, because a browser may have
//! several streams.

use std::time::Duration;

use actix_web::{HttpRequest, http::header};
use secrecy::ExposeSecret;

use crate::{admission::session::NewSecret, settings::parse::SESSION_COOKIE_PREFIX};

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
    let has_cookies = request.headers().contains_key(header::COOKIE);
    let value = has_cookies.then(|| value(request, &name(ticket_digest)));
    value.flatten().map(str::to_owned)
}

/// The value of a cookie in a request. If the browser has several of that name, it sends the one
/// with the most specific path first, which applies.
pub fn value<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let lines = request.headers().get_all(header::COOKIE);
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs
        .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    // Other cookies may contain any bytes.
    std::str::from_utf8(values.next()?).ok()
}

fn name(ticket_digest: &str) -> String {
    format!("{SESSION_COOKIE_PREFIX}{}", &ticket_digest[..NAME_DIGITS])
}
