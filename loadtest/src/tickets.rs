//! Tickets for the streams. One that is signed here is made again when a stream comes back, byte for byte the same: storing
//! thousands would cost more memory than all else that a stream needs.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};

/// Where tickets come from.
pub enum Tickets {
    /// The server wants none.
    None,
    /// Signed here with the gateway's secret (HS256).
    Signed {
        /// The key.
        key: Box<EncodingKey>,
        /// `aud`.
        audience: String,
        /// `exp - iat`.
        ttl: Duration,
    },
    /// Asked of the gateway's `POST /tickets`.
    Asked {
        /// The client, which keeps its connections.
        client: reqwest::Client,
        /// The endpoint.
        url: String,
        /// An API key of scope `tickets`.
        api_key: String,
    },
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
    topics: [&'a str; 1],
}

#[derive(Deserialize)]
struct Answer {
    ticket: String,
}

impl Tickets {
    /// The ticket of stream `index`, its `generation`th, issued at `iat` (s). None: the server wants none.
    pub async fn ticket(
        &self,
        user: &str,
        topic: &str,
        index: u32,
        generation: u32,
        iat: u64,
    ) -> Result<Option<String>, String> {
        match self {
            Self::None => Ok(None),
            Self::Signed { key, audience, ttl } => {
                let jti = format!("{}-{index}-{generation}", std::process::id());
                let claims = Claims { sub: user, aud: audience, iat, exp: iat + ttl.as_secs(), jti, topics: [topic] };
                jsonwebtoken::encode(&Header::default(), &claims, key)
                    .map(Some)
                    .map_err(|error| format!("ticket: {error}"))
            }
            Self::Asked { client, url, api_key } => {
                let body = serde_json::json!({ "user": user, "topics": [topic], "ttl": 30 }).to_string();
                let answer = client.post(url).bearer_auth(api_key).body(body).send().await;
                let text = answer
                    .and_then(reqwest::Response::error_for_status)
                    .map_err(|error| format!("POST /tickets: {error}"))?
                    .text()
                    .await;
                let text = text.map_err(|error| format!("POST /tickets: {error}"))?;
                let answer: Answer = serde_json::from_str(&text).map_err(|error| format!("POST /tickets: {error}"))?;
                Ok(Some(answer.ticket))
            }
        }
    }

    /// Whether a ticket can be made again from its numbers.
    pub fn repeatable(&self) -> bool {
        !matches!(self, Self::Asked { .. })
    }
}
