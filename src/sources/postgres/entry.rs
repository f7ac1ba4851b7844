//! A row as an entry of a source.

use serde_json::value::{RawValue, to_raw_value};

use crate::{
    core::envelope::{Envelope, EnvelopeMembers, Rejection},
    postgres::outbox::Row,
    redis::publish::Publish,
    sources::source::{Entry, Unusable},
};

/// The entry of a row. Its time is by the clock of this host, so that the clock of Postgres may
/// differ.
pub fn entry(row: Row, now_ms: u64, max_event_bytes: usize) -> Entry {
    let age_ms = (row.age_seconds.max(0.0) * 1000.0) as u64;
    Entry {
        id: row.id.to_string(),
        written_ms: Some(now_ms.saturating_sub(age_ms)),
        event: event(row, max_event_bytes),
    }
}

fn event(mut row: Row, max_event_bytes: usize) -> Result<Publish, Unusable> {
    let Some(payload) = row.payload.take() else {
        let text = format!("the payload has more than {max_event_bytes} bytes, max_event_bytes");
        return Err(unusable(row, Rejection::TooLarge, text, String::new()));
    };
    if row.key.is_none() {
        let text = "the column key is NULL; set its default to gen_random_uuid()".to_owned();
        return Err(unusable(row, Rejection::BadKey, text, payload));
    }
    match checked(&row) {
        Ok(Envelope { kind, key, retry_ms, options, unseen, trace, .. }) => {
            let channel = row.channel;
            Ok(Publish { channel, kind, payload, key, retry_ms, options, unseen, trace })
        }
        Err(reason) => {
            let text = "the row has an invalid value; see the reference page Errors".to_owned();
            Err(unusable(row, reason, text, payload))
        }
    }
}

fn unusable(row: Row, reason: Rejection, text: String, message: String) -> Unusable {
    Unusable { reason, text, channel: row.channel, message }
}

/// The options of a row, by the same rules as those of an envelope.
fn checked(row: &Row) -> Result<Envelope<'static>, Rejection> {
    let json = |text: &Option<String>| text.as_ref().and_then(|text| to_raw_value(text).ok());
    let kind = to_raw_value(&row.kind).ok();
    let (key, keep, forget) = (json(&row.key), json(&row.keep), json(&row.forget));
    let (unseen, trace) = (json(&row.unseen), json(&row.traceparent));
    let retry = row.retry_ms.and_then(|ms| to_raw_value(&ms).ok());
    let tags = row.tags.clone().map(RawValue::from_string).transpose();
    let tags = tags.map_err(|_| Rejection::BadTags)?;
    Envelope::of(&EnvelopeMembers {
        // The row's own payload may be any text.
        payload: RawValue::NULL,
        kind: kind.as_deref(),
        key: key.as_deref(),
        retry: retry.as_deref(),
        keep: keep.as_deref(),
        forget: forget.as_deref(),
        ephemeral: None,
        tags: tags.as_deref(),
        unseen: unseen.as_deref(),
        trace: trace.as_deref(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event_options::Retain;

    fn row() -> Row {
        Row {
            id: 7,
            channel: "user:42:events".into(),
            kind: "order-shipped".into(),
            payload: Some("{ \"orderId\" : 7 }".into()),
            key: Some("k".into()),
            keep: None,
            forget: None,
            tags: None,
            retry_ms: None,
            unseen: None,
            traceparent: None,
            age_seconds: 1.5,
        }
    }

    #[test]
    fn row_becomes_an_event_byte_for_byte() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let row = Row {
            keep: Some("order-7".into()),
            tags: Some(r#"{"region":"eu"}"#.into()),
            retry_ms: Some(5000),
            unseen: Some("30s".into()),
            traceparent: Some(trace.into()),
            ..row()
        };
        let entry = entry(row, 10_000, 100);
        assert_eq!((entry.id.as_str(), entry.written_ms), ("7", Some(8500)));
        let event = entry.event.unwrap();
        assert_eq!(event.payload, "{ \"orderId\" : 7 }");
        assert_eq!((event.key.as_deref(), event.retry_ms), (Some("k"), Some(5000)));
        assert_eq!(event.trace.map(|parent| parent.to_string()).as_deref(), Some(trace));
        let options = event.options.unwrap();
        assert_eq!(options.retain, Some(Retain::Keep("order-7".into())));
        assert_eq!((options.tags.as_str(), event.unseen.as_deref()), ("region=eu", Some("30s")));
    }

    #[test]
    fn invalid_rows_are_rejected_by_code() {
        let text = |text: &str| Some(text.to_owned());
        for (row, reason) in [
            (Row { payload: None, ..row() }, Rejection::TooLarge),
            (Row { key: None, ..row() }, Rejection::BadKey),
            (Row { key: Some("x".repeat(257)), ..row() }, Rejection::BadKey),
            (Row { kind: String::new(), ..row() }, Rejection::BadType),
            (Row { kind: "sse.gap".into(), ..row() }, Rejection::ReservedType),
            (Row { tags: text("[1]"), ..row() }, Rejection::BadTags),
            (Row { tags: text("{"), ..row() }, Rejection::BadTags),
            (Row { retry_ms: Some(-1), ..row() }, Rejection::BadRetry),
            (Row { unseen: text("soon"), ..row() }, Rejection::BadUnseen),
            (Row { traceparent: text("00-1-2-01"), ..row() }, Rejection::BadTraceParent),
            (Row { keep: text("a"), forget: text("b"), ..row() }, Rejection::BadKeep),
        ] {
            let found = entry(row.clone(), 0, 100).event.map(|_| ()).map_err(|error| error.reason);
            assert_eq!(found, Err(reason), "{row:?}");
        }
    }
}
