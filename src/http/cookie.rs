//! The cookie that binds a session to the browser which opened it (`tickets.session_cookie`): a
//! stolen URL alone resumes nothing. Redis has its digest. Each session has a cookie of its own
//! name, since a browser may have several streams.

use std::time::Duration;

use actix_web::{HttpRequest, http::header};
use aws_lc_rs::digest;

/// Digits of the ticket's digest in the cookie's name.
const NAME_DIGITS: usize = 16;

/// A cookie of a session.
pub struct Cookie {
    name: String,
    value: String,
}

impl Cookie {
    /// A new one for the session of that ticket.
    pub fn new(ticket_digest: &str) -> Self {
        Self {
            name: name(ticket_digest),
            value: format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()),
        }
    }

    /// What Redis keeps of it.
    pub fn proof(&self) -> String {
        proof(&self.value)
    }

    /// `Set-Cookie` (RFC 6265 section 4.1): for pages of other sites too, over TLS only, out of
    /// reach of scripts.
    pub fn header(&self, longest: Duration) -> String {
        let (name, value, seconds) = (&self.name, &self.value, longest.as_secs());
        format!("{name}={value}; Path=/events; Max-Age={seconds}; HttpOnly; Secure; SameSite=None")
    }
}

/// The proof that a request brings for the session of that ticket, empty: none.
pub fn shown(request: &HttpRequest, ticket_digest: &str) -> String {
    let name = name(ticket_digest);
    let lines = request.headers().get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(of, _)| *of == name).map(|(_, value)| proof(value)).unwrap_or_default()
}

fn name(ticket_digest: &str) -> String {
    format!("sse_session_{}", &ticket_digest[..NAME_DIGITS])
}

fn proof(value: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, value.as_bytes()).as_ref())
}
