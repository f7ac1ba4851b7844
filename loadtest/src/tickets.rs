//! TicketSource for the streams. One that is signed here is made again when a stream comes back, byte for byte the same: storing
//! thousands would cost more memory than all else that a stream needs.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// Where tickets come from.
pub enum TicketSource {
    /// The server wants none.
    None,
    /// Signed here with the gateway's secret (HS256).
    Signed {
        /// The key.
        key: Box<EncodingKey>,
        /// With the key's `kid`, if it has one.
        header: Box<Header>,
        /// `aud`.
        audience: String,
        /// `iss`, if the gateway wants one.
        issuer: Option<String>,
        /// `exp - iat`.
        ttl: Duration,
    },
    /// Requested of the gateway's `POST /tickets`.
    Requested {
        /// The client, which keeps its connections.
        client: reqwest::Client,
        /// The endpoint.
        url: String,
        /// An API key of scope `tickets`.
        api_key: String,
        /// How long each is good for its first connection.
        ttl: Duration,
    },
}

/// Why there is no ticket.
pub enum TicketError {
    /// It was asked for and refused.
    Refused(Refusal),
    /// It could not be asked for, or not be made.
    Failed(String),
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    iat: u64,
    exp: u64,
    jti: String,
    topics: [&'a str; 1],
}

#[derive(Deserialize)]
struct Answer {
    ticket: String,
}

impl TicketSource {
    /// The ticket of stream `index`, its `generation`th, issued at `iat` (s). None: the server wants none.
    pub async fn ticket(
        &self,
        user: &str,
        topic: &str,
        index: u32,
        generation: u32,
        iat: u64,
    ) -> Result<Option<String>, TicketError> {
        let failed =
            |error: &dyn std::fmt::Display| TicketError::Failed(format!("POST /tickets: {error}"));
        match self {
            Self::None => Ok(None),
            Self::Signed { key, header, audience, issuer, ttl } => {
                let jti = format!("{}-{index}-{generation}", std::process::id());
                let (iss, exp) = (issuer.as_deref(), iat + ttl.as_secs());
                let claims =
                    Claims { sub: user, aud: audience, iss, iat, exp, jti, topics: [topic] };
                jsonwebtoken::encode(header, &claims, key).map(Some).map_err(|error| {
                    TicketError::Failed(format!("cannot sign the ticket: {error}"))
                })
            }
            Self::Requested { client, url, api_key, ttl } => {
                let body =
                    serde_json::json!({ "user": user, "topics": [topic], "ttl": ttl.as_secs() })
                        .to_string();
                let answer = client.post(url).bearer_auth(api_key).body(body).send().await;
                let answer = answer.map_err(|error| failed(&error))?;
                let status = answer.status();
                let text = answer.bytes().await.map_err(|error| failed(&error))?;
                if !status.is_success() {
                    let refusal = Refusal::new(status.as_u16(), &text);
                    return Err(TicketError::Refused(Refusal {
                        code: format!("POST /tickets: {}", refusal.code),
                        ..refusal
                    }));
                }
                let answer: Answer =
                    serde_json::from_slice(&text).map_err(|error| failed(&error))?;
                Ok(Some(answer.ticket))
            }
        }
    }

    /// Whether a ticket can be made again from its numbers.
    pub fn reproducible(&self) -> bool {
        !matches!(self, Self::Requested { .. })
    }
}
