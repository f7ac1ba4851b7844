//! Tickets of the streams. Signed tickets are not stored but signed again for a reconnect, with the
//! same content: storing thousands of them would take more memory than everything else in a stream.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// Source of tickets.
pub enum TicketSource {
    /// No tickets: the server does not require any.
    None,
    /// Signs tickets with the gateway's secret (HS256).
    Signed {
        /// Signing key.
        key: Box<EncodingKey>,
        /// Header, with the key's `kid` if it has one.
        header: Box<Header>,
        /// `aud` claim.
        audience: String,
        /// `iss` claim, if the gateway requires one.
        issuer: Option<String>,
        /// Lifetime: `exp - iat`.
        ttl: Duration,
    },
    /// Requests tickets from the gateway's `POST /tickets`.
    Requested {
        /// HTTP client, which reuses its connections.
        client: reqwest::Client,
        /// URL of the endpoint.
        url: String,
        /// API key with scope `tickets`.
        api_key: String,
        /// Lifetime until the first connection.
        ttl: Duration,
    },
}

/// Error while obtaining a ticket.
pub enum TicketError {
    /// The gateway refused the request.
    Refused(Refusal),
    /// The request failed or the ticket could not be signed.
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
struct TicketResponse {
    ticket: String,
}

impl TicketSource {
    /// Returns a ticket for stream `index`, or `None` if the server requires none. `generation`
    /// counts the tickets of the stream, `iat` is the time of issue in Unix seconds.
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
                let response = client.post(url).bearer_auth(api_key).body(body).send().await;
                let response = response.map_err(|error| failed(&error))?;
                let status = response.status();
                let text = response.bytes().await.map_err(|error| failed(&error))?;
                if !status.is_success() {
                    let refusal = Refusal::new(status.as_u16(), &text);
                    return Err(TicketError::Refused(Refusal {
                        code: format!("POST /tickets: {}", refusal.code),
                        ..refusal
                    }));
                }
                let response: TicketResponse =
                    serde_json::from_slice(&text).map_err(|error| failed(&error))?;
                Ok(Some(response.ticket))
            }
        }
    }

    /// Returns whether a ticket can be created again from the same arguments.
    pub fn reproducible(&self) -> bool {
        !matches!(self, Self::Requested { .. })
    }
}
