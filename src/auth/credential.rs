//! A ticket as a client presents it.

/// A ticket that is not verified yet, and where it came from. It has no `Debug`, because the text
/// is secret.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// The text; empty: the client has sent an empty one.
    pub token: &'a str,
    /// Where it came from.
    pub source: CredentialSource,
}

impl Credential<'_> {
    /// Whether other connections with the same ticket continue: all tabs of a browser have the same
    /// cookie.
    pub fn is_shared(&self) -> bool {
        self.source == CredentialSource::Cookie
    }
}

/// Where a client presents its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `Authorization: Bearer`.
    Bearer,
    /// The query parameter `ticket`.
    Query,
    /// The cookie that `tickets.cookie` names. A browser sends it by itself, from all of its tabs.
    Cookie,
}
