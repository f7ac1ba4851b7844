use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::{Error, Settings, names};

const MAX_TICKET_BYTES: usize = 8192;
const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// What a ticket permits.
#[derive(Clone, Debug)]
pub struct Ticket {
    user: String,
    topics: Option<Vec<String>>,
    filter: BTreeMap<String, Vec<String>>,
    presence: bool,
    ttl: Duration,
    session_expires: Option<SystemTime>,
}

impl Ticket {
    /// A ticket for a user, whose channel is `user:<user>:events`.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            topics: None,
            filter: BTreeMap::new(),
            presence: false,
            ttl: DEFAULT_TTL,
            session_expires: None,
        }
    }

    /// Topics of broadcasts: names, `prefix*` or `*`. Default: `tickets.default_topics`.
    pub fn topics(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.topics = Some(topics.into_iter().map(Into::into).collect());
        self
    }

    /// Only events whose tag `name` has one of these values; events without the tag pass.
    pub fn filter(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.filter.insert(name.into(), values.into_iter().map(Into::into).collect());
        self
    }

    /// The ticket also gets the events of presence.
    pub fn presence(mut self) -> Self {
        self.presence = true;
        self
    }

    /// The time within which the first connection must be made. Default: 30 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// When the stream ends, at the latest.
    pub fn session_expires(mut self, end: SystemTime) -> Self {
        self.session_expires = Some(end);
        self
    }

    pub(crate) fn sign(&self, settings: &Settings) -> Result<String, Error> {
        let Some(secret) = &settings.secret else {
            return Err(Error::new("bad-secret", "the setting secret is missing"));
        };
        let header = json!({ "alg": "HS256", "typ": "JWT", "kid": settings.key_id });
        let signed = format!("{}.{}", encode(header), encode(self.claims(settings)?));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
        mac.update(signed.as_bytes());
        let ticket = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        if ticket.len() > MAX_TICKET_BYTES {
            let rule =
                "the ticket is longer than 8 KiB; use fewer topics, or patterns such as team-*";
            return Err(Error::new("ticket-too-long", rule));
        }
        Ok(ticket)
    }

    fn claims(&self, settings: &Settings) -> Result<Value, Error> {
        names::check_user(&self.user)?;
        names::check_topics(self.topics.as_deref().unwrap_or_default())?;
        names::check_filter(&self.filter)?;
        if self.ttl < Duration::from_secs(1) || self.ttl > settings.max_ttl {
            let rule =
                format!("ttl must be from 1s to {:?} (got {:?})", settings.max_ttl, self.ttl);
            return Err(Error::new("bad-ttl", rule));
        }
        let now = SystemTime::now();
        if self.session_expires.is_some_and(|end| end <= now) {
            return Err(Error::new("bad-session-expires", "session_expires must be in the future"));
        }
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Ok(json!({
            "sub": self.user,
            "aud": settings.audience,
            "iss": settings.issuer,
            "iat": seconds(now),
            "exp": seconds(now) + self.ttl.as_secs(),
            "jti": Uuid::new_v4().to_string(),
            "topics": self.topics,
            "filter": (!self.filter.is_empty()).then_some(&self.filter),
            "presence": self.presence.then_some(true),
            "session_exp": self.session_expires.map(seconds),
        }))
    }
}

/// Leaves out members that are null.
fn encode(part: Value) -> String {
    let Value::Object(members) = part else { unreachable!("a part of a JWT is an object") };
    let present: Map<_, _> = members.into_iter().filter(|(_, value)| !value.is_null()).collect();
    URL_SAFE_NO_PAD.encode(Value::Object(present).to_string())
}
