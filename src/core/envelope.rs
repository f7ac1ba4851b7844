//! The message of a plain PUBLISH (ARCHITECTURE.md#envelope): an envelope, or any other text, which
//! is delivered unchanged.

use std::{
    borrow::{Borrow, Cow},
    collections::HashMap,
    fmt,
};

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::{
    event_options::{EventOptions, Retain, Tags, is_kept_key, is_unseen, join_tags},
    trace_context::TraceParent,
};

/// Maximum length of an event type, in bytes.
pub const MAX_TYPE_BYTES: usize = 128;
/// Maximum length of an idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Maximum `retry` in ms: one day.
pub const MAX_RETRY_MS: u64 = 86_400_000;
/// The type of an event without `type`.
pub const DEFAULT_TYPE: &str = "message";

/// A valid message, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// SSE event name.
    pub kind: String,
    /// The payload, byte for byte.
    pub payload: &'a str,
    /// The idempotency key.
    pub key: Option<String>,
    /// The event's `retry:` in ms.
    pub retry_ms: Option<u64>,
    /// Retained value, tags, and whether it is ephemeral.
    pub options: Option<Box<EventOptions>>,
    /// Within which time a stream must be handed the event, such as `30s`.
    pub unseen: Option<String>,
    /// The trace to which it belongs, if that is recorded.
    pub trace: Option<TraceParent>,
}

macro_rules! rejections {
    ($($(#[$doc:meta])* $variant:ident = $code:literal),* $(,)?) => {
        /// Why a message or a publish is rejected; the function library uses the same codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rejection { $($(#[$doc])* $variant),* }

        impl Rejection {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name in responses, logs, metrics and `sse:rejected`.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }
        }
    };
}

rejections! {
    /// The channel has neither form of a channel name.
    BadChannel = "bad-channel",
    /// The type is not a string of 1 to 128 bytes without control characters.
    BadType = "bad-type",
    /// The type begins with `sse.`.
    ReservedType = "reserved-type",
    /// The idempotency key is not a string of 1 to 256 bytes.
    BadKey = "bad-key",
    /// `retry` is not an integer of ms up to one day.
    BadRetry = "bad-retry",
    /// The payload is larger than `max_event_bytes` of `history` or of the channel's rule.
    TooLarge = "too-large",
    /// The message is not UTF-8.
    NotUtf8 = "not-utf8",
    /// `keep` or `forget` is not a string of 1 to 256 bytes without control characters, or there
    /// are both.
    BadKeep = "bad-keep",
    /// The tags are not up to 8 names and values of the permitted form.
    BadTags = "bad-tags",
    /// `unseen` is not a duration from 1 second to 7 days, or the channel is a broadcast.
    BadUnseen = "bad-unseen",
    /// `traceparent` has not the form of W3C trace context.
    BadTraceParent = "bad-traceparent",
    /// An ephemeral event has an option that needs storage.
    BadEphemeral = "bad-ephemeral",
    /// The rule of the channel requires KEEP or FORGET.
    NeedsKeep = "needs-keep",
    /// The channel has `history.max_kept` retained values already.
    TooManyKept = "too-many-kept",
    /// The user has too many events that nobody has seen.
    TooManyUnseen = "too-many-unseen",
    /// Plain messages are not stored (`publishers.plain = "relay"`), but the option needs it.
    NotStored = "not-stored",
    /// A key of the channel in Redis contains a value that the gateway never writes.
    WrongType = "wrong-type",
    /// The channel's rule allows fewer events per second.
    TooOften = "too-often",
    /// An entry of an external source lacks what the settings make an event of.
    BadEntry = "bad-entry",
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Checks an event type.
pub fn check_type(kind: &str) -> Result<(), Rejection> {
    if !(1..=MAX_TYPE_BYTES).contains(&kind.len()) || kind.chars().any(char::is_control) {
        Err(Rejection::BadType)
    } else if kind.starts_with("sse.") {
        Err(Rejection::ReservedType)
    } else {
        Ok(())
    }
}

/// Decodes a plain message.
///
/// ```
/// use sse_gateway::core::envelope::{Rejection, decode};
///
/// let envelope = decode(br#"{"type":"order-completed","payload":{"orderId":7}}"#, 65536)?;
/// assert_eq!((envelope.kind.as_str(), envelope.payload), ("order-completed", r#"{"orderId":7}"#));
/// let text = decode(b"hello", 65536)?;
/// assert_eq!((text.kind.as_str(), text.payload), ("message", "hello"));
/// assert_eq!(decode(br#"{"type":"sse.gap","payload":1}"#, 65536), Err(Rejection::ReservedType));
/// # Ok::<(), Rejection>(())
/// ```
///
/// # Errors
/// Why the message is rejected.
pub fn decode(message: &[u8], max_event_bytes: usize) -> Result<Envelope<'_>, Rejection> {
    let text = std::str::from_utf8(message).map_err(|_| Rejection::NotUtf8)?;
    let envelope = match members(text) {
        Some(members) => from_members(&members)?,
        None => Envelope {
            kind: DEFAULT_TYPE.to_owned(),
            payload: text,
            key: None,
            retry_ms: None,
            options: None,
            unseen: None,
            trace: None,
        },
    };
    if envelope.payload.len() > max_event_bytes {
        return Err(Rejection::TooLarge);
    }
    Ok(envelope)
}

/// A member's name, in bytes: JSON names can contain invalid Unicode (`"\ud800"`), and such a
/// member is ignored like other unknown ones.
#[derive(PartialEq, Eq, Hash)]
struct Name(Vec<u8>);

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(bytes.to_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

type Members<'a> = HashMap<Name, &'a RawValue>;

/// The members of an object that has `payload`; if a member occurs twice, the last one applies.
fn members(text: &str) -> Option<Members<'_>> {
    // Fast path for plain text: only an object can be an envelope.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return None;
    }
    serde_json::from_str::<Members<'_>>(text).ok().filter(|m| m.contains_key(&b"payload"[..]))
}

fn from_members<'a>(members: &Members<'a>) -> Result<Envelope<'a>, Rejection> {
    let member = |name: &str| members.get(name.as_bytes()).copied();
    Envelope::of(&EnvelopeMembers {
        payload: members[&b"payload"[..]],
        kind: member("type"),
        key: member("id"),
        retry: member("retry"),
        keep: member("keep"),
        forget: member("forget"),
        ephemeral: member("ephemeral"),
        tags: member("tags"),
        unseen: member("unseen"),
        trace: member("traceparent"),
    })
}

/// The members of an envelope, not yet checked; `null` counts as absent.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeMembers<'a, 'b> {
    /// `payload`
    pub payload: &'a RawValue,
    /// `type`
    pub kind: Option<&'b RawValue>,
    /// `id`
    pub key: Option<&'b RawValue>,
    /// `retry`
    pub retry: Option<&'b RawValue>,
    /// `keep`
    pub keep: Option<&'b RawValue>,
    /// `forget`
    pub forget: Option<&'b RawValue>,
    /// `ephemeral`
    pub ephemeral: Option<&'b RawValue>,
    /// `tags`
    pub tags: Option<&'b RawValue>,
    /// `unseen`
    pub unseen: Option<&'b RawValue>,
    /// `traceparent`
    pub trace: Option<&'b RawValue>,
}

impl EnvelopeMembers<'_, '_> {
    /// The options of the event, and `unseen`.
    fn options(&self) -> Result<(EventOptions, Option<String>), Rejection> {
        let key = |member| match string(member, Rejection::BadKeep)? {
            Some(key) if !is_kept_key(&key) => Err(Rejection::BadKeep),
            key => Ok(key.map(String::into_boxed_str)),
        };
        let retain = match (key(self.keep)?, key(self.forget)?) {
            (Some(_), Some(_)) => return Err(Rejection::BadKeep),
            (Some(key), None) => Some(Retain::Keep(key)),
            (None, key) => key.map(Retain::Forget),
        };
        let is_ephemeral = match present(self.ephemeral) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Rejection::BadEphemeral),
        };
        let tags = match present(self.tags) {
            None => Tags::default(),
            Some(raw) => tags(raw).ok_or(Rejection::BadTags)?,
        };
        let unseen = string(self.unseen, Rejection::BadUnseen)?;
        if unseen.as_ref().is_some_and(|unseen| !is_unseen(unseen)) {
            return Err(Rejection::BadUnseen);
        }
        Ok((EventOptions { retain, tags, is_ephemeral, unseen_ms: None }, unseen))
    }
}

/// A `traceparent`, if it names a trace that is recorded.
fn trace(member: Option<&RawValue>) -> Result<Option<TraceParent>, Rejection> {
    let Some(text) = string(member, Rejection::BadTraceParent)? else { return Ok(None) };
    let parent = TraceParent::parse(&text).map_err(|_| Rejection::BadTraceParent)?;
    Ok(parent.filter(|parent| parent.is_sampled))
}

/// Tags as an object of names and values.
fn tags(raw: &str) -> Option<Tags> {
    let tags: std::collections::BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        serde_json::from_str(raw).ok()?;
    Tags::parse(&join_tags(tags.into_iter()))
}

impl<'a> Envelope<'a> {
    /// Creates an envelope from its members.
    ///
    /// # Errors
    /// The first invalid member.
    pub fn of(members: &EnvelopeMembers<'a, '_>) -> Result<Self, Rejection> {
        let kind =
            string(members.kind, Rejection::BadType)?.unwrap_or_else(|| DEFAULT_TYPE.to_owned());
        check_type(&kind)?;
        let key = string(members.key, Rejection::BadKey)?;
        if key.as_ref().is_some_and(|k| !(1..=MAX_KEY_BYTES).contains(&k.len())) {
            return Err(Rejection::BadKey);
        }
        let retry_ms = match present(members.retry) {
            None => None,
            Some(raw) => {
                Some(raw.parse().ok().filter(|ms| *ms <= MAX_RETRY_MS).ok_or(Rejection::BadRetry)?)
            }
        };
        let (options, unseen) = members.options()?;
        let needs_storage = options.retain.is_some() || unseen.is_some() || key.is_some();
        if options.is_ephemeral && needs_storage {
            return Err(Rejection::BadEphemeral);
        }
        let options = (options != EventOptions::default()).then(|| Box::new(options));
        let trace = trace(members.trace)?;
        Ok(Self { kind, payload: members.payload.get(), key, retry_ms, options, unseen, trace })
    }

    /// Whether it can only be delivered as asked if it is stored.
    pub fn needs_storage(&self) -> bool {
        self.unseen.is_some() || self.options.as_ref().is_some_and(|o| o.retain.is_some())
    }
}

fn present(member: Option<&RawValue>) -> Option<&str> {
    member.map(RawValue::get).filter(|raw| *raw != "null")
}

fn string(member: Option<&RawValue>, refusal: Rejection) -> Result<Option<String>, Rejection> {
    present(member).map(serde_json::from_str).transpose().map_err(|_| refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Envelope<'_> {
        decode(text.as_bytes(), 1000).unwrap()
    }

    fn refused(text: &str) -> Rejection {
        decode(text.as_bytes(), 1000).unwrap_err()
    }

    #[test]
    fn an_envelope_is_an_object_with_payload() {
        let e =
            ok(r#" {"type":"order-paid","payload":{ "orderId" : 7 },"id":"k","retry":5000,"x":1}"#);
        assert_eq!((e.kind.as_str(), e.payload), ("order-paid", r#"{ "orderId" : 7 }"#));
        assert_eq!((e.key.as_deref(), e.retry_ms), (Some("k"), Some(5000)));
        assert_eq!(
            ok(r#"{"payload":null}"#),
            Envelope {
                kind: "message".into(),
                payload: "null",
                key: None,
                retry_ms: None,
                options: None,
                unseen: None,
                trace: None,
            }
        );
        assert_eq!(ok(r#"{"payload":1,"payload":2}"#).payload, "2");
        assert_eq!(
            ok(r#"{"type":null,"payload":1,"id":null,"retry":null}"#),
            ok(r#"{"payload":1}"#)
        );
        assert_eq!(ok(r#"{"\ud800":0,"type":"t","payload":1}"#).kind, "t");
    }

    #[test]
    fn options_of_an_envelope_are_decoded() {
        let e = ok(r#"{"payload":1,"keep":"btc","tags":{"b":"2","a":"x"},"unseen":"30s"}"#);
        let options = e.options.unwrap();
        assert_eq!(options.retain, Some(Retain::Keep("btc".into())));
        assert_eq!((options.tags.as_str(), e.unseen.as_deref()), ("a=x b=2", Some("30s")));
        let e = ok(r#"{"payload":1,"ephemeral":true,"keep":null,"tags":null}"#);
        assert!(e.options.is_some_and(|options| options.is_ephemeral));
        assert_eq!(ok(r#"{"payload":1,"ephemeral":false}"#).options, None);
    }

    #[test]
    fn traceparent_of_an_unrecorded_trace_is_ignored() {
        let of = |value: &str| ok(&format!(r#"{{"payload":1,"traceparent":{value}}}"#)).trace;
        let parent = |ids: &str, flags: &str| format!("00-{ids}-{flags}");
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let recorded = parent(ids, "01");
        let text = r#"{"payload":1,"traceparent":"#;
        let envelope = format!("{text}\"{recorded}\"}}");
        assert_eq!(ok(&envelope).trace.unwrap().to_string(), recorded);
        assert_eq!(of("null"), None);
        for ignored in [parent(ids, "00"), parent(&ids.replace(|c| c != '-', "0"), "01")] {
            assert_eq!(ok(&format!("{text}\"{ignored}\"}}")).trace, None, "{ignored}");
        }
    }

    #[test]
    fn other_text_is_delivered_unchanged() {
        for text in [
            "",
            "hello",
            r#"{"type":"x"}"#,
            "[1]",
            r#"{"payload":"#,
            r#""payload""#,
            r#"{"payload":1}x"#,
        ] {
            let e = ok(text);
            assert_eq!((e.kind.as_str(), e.payload), ("message", text));
        }
    }

    #[test]
    fn deeply_nested_payloads_are_delivered() {
        let deep = format!(r#"{{"type":"t","payload":{}{}}}"#, "[".repeat(400), "]".repeat(400));
        assert_eq!(ok(&deep).kind, "t");
    }

    #[test]
    fn invalid_members_are_rejected_by_code() {
        for (text, refusal) in [
            (r#"{"type":7,"payload":1}"#, Rejection::BadType),
            (r#"{"type":"","payload":1}"#, Rejection::BadType),
            (r#"{"type":"a\nb","payload":1}"#, Rejection::BadType),
            (r#"{"type":"a\u0085b","payload":1}"#, Rejection::BadType),
            (r#"{"type":"sse.gap","payload":1}"#, Rejection::ReservedType),
            (r#"{"payload":1,"id":7}"#, Rejection::BadKey),
            (r#"{"payload":1,"id":""}"#, Rejection::BadKey),
            (r#"{"payload":1,"retry":-1}"#, Rejection::BadRetry),
            (r#"{"payload":1,"keep":""}"#, Rejection::BadKeep),
            (r#"{"payload":1,"keep":"a\nb"}"#, Rejection::BadKeep),
            (r#"{"payload":1,"keep":"a","forget":"b"}"#, Rejection::BadKeep),
            (r#"{"payload":1,"ephemeral":"yes"}"#, Rejection::BadEphemeral),
            (r#"{"payload":1,"ephemeral":true,"keep":"a"}"#, Rejection::BadEphemeral),
            (r#"{"payload":1,"tags":{"a b":"c"}}"#, Rejection::BadTags),
            (r#"{"payload":1,"tags":["a=b"]}"#, Rejection::BadTags),
            (r#"{"payload":1,"unseen":30}"#, Rejection::BadUnseen),
            (r#"{"payload":1,"unseen":"9d"}"#, Rejection::BadUnseen),
            (r#"{"payload":1,"traceparent":"00-1-2-01"}"#, Rejection::BadTraceParent),
            (r#"{"payload":1,"traceparent":7}"#, Rejection::BadTraceParent),
            (r#"{"payload":1,"retry":1.5}"#, Rejection::BadRetry),
            (r#"{"payload":1,"retry":"5"}"#, Rejection::BadRetry),
        ] {
            assert_eq!(refused(text), refusal, "{text}");
        }
        let long = format!(r#"{{"type":"{}","payload":1}}"#, "x".repeat(129));
        assert_eq!(refused(&long), Rejection::BadType);
        assert_eq!(decode(b"\xff", 1000), Err(Rejection::NotUtf8));
    }

    #[test]
    fn size_limit_applies_to_the_payload() {
        let text =
            |n: usize| format!(r#"{{"type":"some-type","payload":"{}"}}"#, "x".repeat(n - 2));
        assert!(decode(text(1000).as_bytes(), 1000).is_ok());
        assert_eq!(decode(text(1001).as_bytes(), 1000), Err(Rejection::TooLarge));
        assert_eq!(decode("x".repeat(1001).as_bytes(), 1000), Err(Rejection::TooLarge));
    }
}
