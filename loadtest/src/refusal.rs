//! Responses of a server that refuses a stream or a ticket.

use std::time::Duration;

use serde::Deserialize;

/// Maximum bytes of the response body to read.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// Maximum time to read the response body: an endless body must not prevent the next attempt.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum characters of a body that is not a JSON error of the gateway.
const SHOWN_CHARS: usize = 200;

/// Refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code for counting: `401 ticket-expired`, `404`, `busy: full`.
    pub code: String,
    /// Message for people; may be empty.
    pub message: String,
    /// Whether the same request would always be refused.
    pub permanent: bool,
}

/// Body of the gateway's JSON errors.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// Creates a refusal from the status and body of a response.
    pub fn new(status: u16, body: &[u8]) -> Self {
        let (error, message) = match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => (format!(" {}", body.error), body.message),
            Err(_) if status == 200 => (" not an event stream".to_owned(), first_line(body)),
            Err(_) => (String::new(), first_line(body)),
        };
        // 408, 425 and 429 invite the client to retry.
        let permanent = (400..500).contains(&status) && ![408, 425, 429].contains(&status);
        Self { code: format!("{status}{error}"), message, permanent }
    }

    /// Creates a refusal from the reason of `sse.busy`: the gateway is at capacity or temporarily
    /// unavailable.
    pub fn busy(ending: &str) -> Self {
        Self { code: ending.to_owned(), message: String::new(), permanent: false }
    }

    /// Returns the code and the message.
    pub fn text(&self) -> String {
        if self.message.is_empty() {
            self.code.clone()
        } else {
            format!("{}: {}", self.code, self.message)
        }
    }
}

fn first_line(body: &[u8]) -> String {
    String::from_utf8_lossy(body)
        .trim()
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(SHOWN_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_errors_keep_code_and_message() {
        let refusal = Refusal::new(
            401,
            br#"{"error":"ticket-missing-claim","message":"the claim iss is missing"}"#,
        );
        assert_eq!(refusal.code, "401 ticket-missing-claim");
        assert_eq!(refusal.text(), "401 ticket-missing-claim: the claim iss is missing");
        assert!(refusal.permanent);
    }

    #[test]
    fn other_errors_are_counted_by_status() {
        let page = Refusal::new(404, b"\r\n<html>\r\n<body>");
        assert_eq!(
            (page.code.as_str(), page.message.as_str(), page.permanent),
            ("404", "<html>", true)
        );
        assert_eq!(Refusal::new(403, b"").text(), "403");
        assert_eq!(Refusal::new(200, b"hello").text(), "200 not an event stream: hello");
        assert_eq!(
            Refusal::new(500, "ü".repeat(500).as_bytes()).message.chars().count(),
            SHOWN_CHARS
        );
        for status in [200, 408, 425, 429, 500, 503] {
            assert!(!Refusal::new(status, b"").permanent, "{status}");
        }
    }
}
