//! Payloads in responses: only if they are asked for, and limited in size.

use serde_json::{Value, json};

use crate::http::params::{BadRequest, Params};

/// Maximum size of a payload in a response.
const PAYLOAD_BYTES: usize = 16 << 10;
/// Size of all payloads in a response after which the others are left out.
const ALL_PAYLOADS_BYTES: usize = 2 << 20;

/// Whether a request asks for payloads.
///
/// # Errors
/// `payloads` is neither `true` nor `false`.
pub fn are_wanted(params: &Params) -> Result<bool, BadRequest> {
    match params.get("payloads") {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(_) => Err(BadRequest {
            code: "bad-request",
            message: "payloads must be true or false".to_owned(),
        }),
    }
}

/// The payloads of a response: none unless the request asks for them, and limited in size.
pub struct Payloads {
    are_wanted: bool,
    left: usize,
}

impl Payloads {
    /// The payloads that a request asks for.
    pub fn new(are_wanted: bool) -> Self {
        Self { are_wanted, left: ALL_PAYLOADS_BYTES }
    }

    /// Adds the size of a payload to an object, and if wanted the payload, or its beginning.
    pub fn add(&mut self, to: &mut Value, payload: &str) {
        to["bytes"] = json!(payload.len());
        if self.are_wanted {
            let shown = beginning(payload, PAYLOAD_BYTES.min(self.left));
            self.left -= shown.len();
            to["data"] = json!(shown);
            to["truncated"] = json!(shown.len() < payload.len());
        }
    }
}

/// The beginning of a text, of at most `max` bytes.
fn beginning(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payloads_are_shortened_and_marked() {
        let mut payloads = Payloads::new(true);
        let shown = |payloads: &mut Payloads, text: &str| {
            let mut item = json!({});
            payloads.add(&mut item, text);
            (item["data"].as_str().unwrap().len(), item["truncated"] == true)
        };
        assert_eq!(shown(&mut payloads, "short"), (5, false));
        let long = "ä".repeat(PAYLOAD_BYTES);
        assert_eq!(shown(&mut payloads, &format!("a{long}")), (PAYLOAD_BYTES - 1, true));
        for _ in 0..200 {
            shown(&mut payloads, &long);
        }
        assert_eq!(shown(&mut payloads, "x"), (0, true), "the response is large enough");
        let mut item = json!({});
        Payloads::new(false).add(&mut item, "secret");
        assert_eq!(item, json!({ "bytes": 6 }));
    }
}
