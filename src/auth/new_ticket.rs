//! What a new ticket says.

use serde_json::{Value, json};

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

impl NewTicket<'_> {
    /// Adds what only some tickets have to the claims of every ticket.
    pub(super) fn add_to(&self, claims: &mut Value) {
        if let Some(topics) = self.topics {
            claims["topics"] = json!(topics);
        }
        if self.presence {
            claims["presence"] = json!(true);
        }
        if let Some(filter) = self.filter {
            claims["filter"] = filter.clone();
        }
    }
}
