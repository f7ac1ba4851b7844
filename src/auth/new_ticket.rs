//! What a new ticket says.

use serde_json::Value;

/// What a ticket that is to be signed says.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewTicket<'a> {
    /// `sub`
    pub user: &'a str,
    /// `topics`; `None`: those of `tickets.default_topics`.
    pub topics: Option<&'a [String]>,
    /// `presence`
    pub presence: bool,
    /// `filter`; must be valid.
    pub filter: Option<&'a Value>,
}
