//! How an entry of a stream becomes an event. Pure.

use std::collections::BTreeSet;

use crate::{
    core::{
        envelope::{self, DEFAULT_TYPE, Envelope, Rejection},
        event_options::{EventOptions, Retain, Tags},
        template::Template,
        trace_context::TraceParent,
    },
    redis::publish::Publish,
    settings::sources::{EntryMapping, EntryTemplates},
    sources::source::Unusable,
};

/// The fields of an entry, in order.
pub type Fields = [(Vec<u8>, Vec<u8>)];

/// Why an entry cannot become an event: a code, and problem and fix.
type Fault = (Rejection, String);

/// The event that an entry becomes. Its members are not checked: the function library does that.
///
/// # Errors
/// A field is missing, or is not UTF-8, or an envelope is malformed.
pub fn event(mapping: &EntryMapping, fields: &Fields) -> Result<Publish, Unusable> {
    let mapped = texts(fields).and_then(|texts| match mapping {
        EntryMapping::Members => of_members(&texts),
        EntryMapping::Envelope { field, channel } => of_envelope(&texts, field, channel.as_ref()),
        EntryMapping::Templates(templates) => of_templates(&texts, templates),
    });
    mapped.map_err(|(reason, text)| Unusable {
        reason,
        text,
        channel: channel(mapping, fields).unwrap_or_default(),
        message: object(
            fields.iter().map(|(name, value)| {
                (String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            }),
        ),
    })
}

/// The channel, as far as it is known.
fn channel(mapping: &EntryMapping, fields: &Fields) -> Option<String> {
    let texts = texts(fields).ok()?;
    let template = match mapping {
        EntryMapping::Members | EntryMapping::Envelope { channel: None, .. } => {
            return texts.get("channel").map(str::to_owned);
        }
        EntryMapping::Envelope { channel: Some(template), .. } => template,
        EntryMapping::Templates(templates) => &templates.channel,
    };
    template.render(|name| texts.get(name)).ok()
}

/// Fields and values as texts.
struct Texts<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Texts<'a> {
    /// The value of a field. If a field occurs twice, the last one applies.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(field, _)| *field == name).map(|(_, value)| *value)
    }

    fn required(&self, name: &str) -> Result<&'a str, Fault> {
        self.get(name).ok_or_else(|| missing(name))
    }

    fn render(&self, template: &Template) -> Result<String, Fault> {
        template.render(|name| self.get(name)).map_err(missing)
    }
}

fn texts(fields: &Fields) -> Result<Texts<'_>, Fault> {
    let text = |bytes: &'_ [u8]| std::str::from_utf8(bytes).ok().map(|_| ());
    if fields.iter().any(|(name, value)| text(name).and(text(value)).is_none()) {
        let problem = "a field or its value is not UTF-8; write texts only";
        return Err((Rejection::NotUtf8, problem.to_owned()));
    }
    let texts = fields.iter().filter_map(|(name, value)| {
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    });
    Ok(Texts(texts.collect()))
}

fn missing(field: &str) -> Fault {
    let text =
        format!("the entry has no field {field:?}; write it, or change sources.redis_streams");
    (Rejection::BadEntry, text)
}

/// The fields have the names of the members of an event, and the values that `sse_publish` takes.
fn of_members(texts: &Texts<'_>) -> Result<Publish, Fault> {
    let retain = match (texts.get("keep"), texts.get("forget")) {
        (Some(_), Some(_)) => {
            let problem = "keep and forget must not be in one entry; use one of them";
            return Err((Rejection::BadKeep, problem.to_owned()));
        }
        (Some(key), None) => Some(Retain::Keep(key.into())),
        (None, key) => key.map(|key| Retain::Forget(key.into())),
    };
    let tags = match texts.get("tags") {
        None => Tags::default(),
        Some(tags) => Tags::parse(tags).ok_or_else(|| {
            let problem = "tags must be 1 to 8 of the form name=value, separated by spaces";
            (Rejection::BadTags, problem.to_owned())
        })?,
    };
    let is_ephemeral = match texts.get("ephemeral") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return Err((Rejection::BadEphemeral, "ephemeral must be true or false".to_owned()));
        }
    };
    let retry_ms = match texts.get("retry").map(str::parse) {
        None => None,
        Some(Ok(ms)) => Some(ms),
        Some(Err(_)) => {
            let problem = "retry must be an integer from 0 to 86400000 (ms)";
            return Err((Rejection::BadRetry, problem.to_owned()));
        }
    };
    let trace = match texts.get("traceparent").map(TraceParent::parse) {
        None => None,
        Some(Ok(trace)) => trace.filter(|trace| trace.is_sampled),
        Some(Err(_)) => {
            let problem = "traceparent must be that of W3C trace context";
            return Err((Rejection::BadTraceParent, problem.to_owned()));
        }
    };
    let options = EventOptions { retain, tags, is_ephemeral, unseen_ms: None };
    Ok(Publish {
        channel: texts.required("channel")?.to_owned(),
        kind: texts.get("type").unwrap_or(DEFAULT_TYPE).to_owned(),
        payload: texts.required("payload")?.to_owned(),
        key: texts.get("id").map(str::to_owned),
        retry_ms,
        options: (options != EventOptions::default()).then(|| Box::new(options)),
        unseen: texts.get("unseen").map(str::to_owned),
        trace,
    })
}

/// A field contains an envelope, or other text as a plain publish does.
fn of_envelope(
    texts: &Texts<'_>,
    field: &str,
    channel: Option<&Template>,
) -> Result<Publish, Fault> {
    let channel = match channel {
        Some(template) => texts.render(template)?,
        None => texts.required("channel")?.to_owned(),
    };
    // The size is checked with the limit of the channel, like that of all events.
    let decoded = envelope::decode(texts.required(field)?.as_bytes(), usize::MAX);
    let envelope = decoded.map_err(|reason| {
        (reason, format!("the envelope in the field {field:?} is rejected: {reason}"))
    })?;
    let Envelope { kind, payload, key, retry_ms, options, unseen, trace } = envelope;
    let payload = payload.to_owned();
    Ok(Publish { channel, kind, payload, key, retry_ms, options, unseen, trace })
}

fn of_templates(texts: &Texts<'_>, templates: &EntryTemplates) -> Result<Publish, Fault> {
    let EntryTemplates { channel, kind, payload, key, keep } = templates;
    let render = |template: &Option<Template>| {
        template.as_ref().map(|template| texts.render(template)).transpose()
    };
    let retain = render(keep)?.map(|key| Retain::Keep(key.into()));
    let options = retain.map(|retain| EventOptions { retain: Some(retain), ..Default::default() });
    Ok(Publish {
        channel: texts.render(channel)?,
        kind: render(kind)?.unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
        payload: match payload {
            Some(field) => texts.required(field)?.to_owned(),
            None => object(texts.0.iter().copied()),
        },
        key: render(key)?,
        options: options.map(Box::new),
        ..Default::default()
    })
}

/// A JSON object of fields and values, which are strings. If a field occurs twice, the last one
/// applies.
fn object(fields: impl DoubleEndedIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> String {
    let mut names = BTreeSet::new();
    let mut members: Vec<String> = fields
        .rev()
        .filter(|(name, _)| names.insert(name.as_ref().to_owned()))
        .map(|(name, value)| format!("{}:{}", quoted(name.as_ref()), quoted(value.as_ref())))
        .collect();
    members.reverse();
    format!("{{{}}}", members.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn templates(channel: &str) -> EntryTemplates {
        let channel = Template::parse(channel).unwrap();
        EntryTemplates { channel, kind: None, payload: None, key: None, keep: None }
    }

    #[test]
    fn fields_can_have_the_names_of_members() {
        let entry = fields(&[
            ("channel", "user:42:events"),
            ("type", "order-paid"),
            ("payload", "{ \"orderId\" : 7 }"),
            ("id", "k"),
            ("retry", "3000"),
            ("keep", "order-7"),
            ("tags", "region=eu desk=b"),
            ("unseen", "30s"),
        ]);
        let event = event(&EntryMapping::Members, &entry).unwrap();
        assert_eq!((&*event.channel, &*event.kind), ("user:42:events", "order-paid"));
        assert_eq!(event.payload, "{ \"orderId\" : 7 }");
        assert_eq!((event.key.as_deref(), event.retry_ms), (Some("k"), Some(3000)));
        assert_eq!(event.unseen.as_deref(), Some("30s"));
        let options = event.options.unwrap();
        assert_eq!(options.retain, Some(Retain::Keep("order-7".into())));
        assert_eq!(options.tags.get("desk"), Some("b"));
    }

    #[test]
    fn templates_make_an_event_of_any_fields() {
        let entry = fields(&[("orderId", "7"), ("status", "pa\"id"), ("orderId", "8")]);
        let mut of = templates("broadcast:orders");
        let plain = event(&EntryMapping::Templates(Box::new(of.clone())), &entry).unwrap();
        assert_eq!((&*plain.channel, &*plain.kind), ("broadcast:orders", "message"));
        assert_eq!(plain.payload, r#"{"status":"pa\"id","orderId":"8"}"#);
        of.channel = Template::parse("user:{orderId}:events").unwrap();
        of.kind = Some(Template::parse("order-{status}").unwrap());
        of.payload = Some("status".to_owned());
        of.keep = Some(Template::parse("o{orderId}").unwrap());
        let event = event(&EntryMapping::Templates(Box::new(of)), &entry).unwrap();
        assert_eq!((&*event.channel, &*event.kind), ("user:8:events", "order-pa\"id"));
        assert_eq!(event.payload, "pa\"id");
        assert_eq!(event.options.unwrap().retain, Some(Retain::Keep("o8".into())));
    }

    #[test]
    fn a_field_can_contain_an_envelope() {
        let entry = fields(&[
            ("channel", "broadcast:a"),
            ("data", r#"{"type":"t","payload":[1, 2],"id":"k"}"#),
        ]);
        let mapping = EntryMapping::Envelope { field: "data".into(), channel: None };
        let of_field = event(&mapping, &entry).unwrap();
        assert_eq!((&*of_field.channel, &*of_field.kind), ("broadcast:a", "t"));
        assert_eq!((&*of_field.payload, of_field.key.as_deref()), ("[1, 2]", Some("k")));
        let channel = Some(Template::parse("broadcast:b").unwrap());
        let mapping = EntryMapping::Envelope { field: "data".into(), channel };
        assert_eq!(event(&mapping, &entry).unwrap().channel, "broadcast:b");
    }

    #[test]
    fn unusable_entries_name_the_field_and_keep_the_content() {
        let of = EntryMapping::Templates(Box::new(templates("user:{userId}:events")));
        let no_user = event(&of, &fields(&[("status", "paid")])).unwrap_err();
        assert_eq!(no_user.reason, Rejection::BadEntry);
        assert!(no_user.text.contains("no field \"userId\""), "{}", no_user.text);
        assert_eq!(no_user.message, r#"{"status":"paid"}"#);
        let binary = event(&EntryMapping::Members, &[(b"payload".into(), vec![0xff])]).unwrap_err();
        assert_eq!((binary.reason, &*binary.channel), (Rejection::NotUtf8, ""));
        for (extra, reason) in [
            (("keep", "a"), Rejection::BadKeep),
            (("tags", "a"), Rejection::BadTags),
            (("ephemeral", "1"), Rejection::BadEphemeral),
            (("retry", "soon"), Rejection::BadRetry),
        ] {
            let entry =
                fields(&[("channel", "broadcast:a"), ("payload", "x"), ("forget", "b"), extra]);
            let unusable = event(&EntryMapping::Members, &entry).unwrap_err();
            assert_eq!((unusable.reason, &*unusable.channel), (reason, "broadcast:a"));
        }
    }
}
