//! Retained values: what the publishers keep and forget, and the state that a client builds.

use crate::harness::parser::Event;
use std::collections::HashMap;

/// The number of the event that is the value of each channel and key.
pub type Values = HashMap<(String, String), u64>;

/// The names of events that keep or forget a key.
const KEPT: &str = "kept";
const FORGOTTEN: &str = "forgotten";

/// Type, payload and options of a durable event: about every third one keeps or forgets one of four
/// keys of its channel.
pub fn words(channel: &str, number: u64) -> Vec<String> {
    let (kind, option) = match number % 12 {
        1 | 4 | 7 => (KEPT, "KEEP"),
        10 => (FORGOTTEN, "FORGET"),
        _ => return vec!["durable".to_owned(), format!("{{\"n\":{number}}}")],
    };
    let key = name(number);
    let payload = format!("{{\"n\":{number},\"channel\":\"{channel}\",\"key\":\"{key}\"}}");
    vec![kind.to_owned(), payload, option.to_owned(), key]
}

fn name(number: u64) -> String {
    format!("k{}", number / 12 % 4)
}

/// The channel and key that a durable event with this number keeps or forgets.
pub fn key(channel: &str, number: u64) -> Option<(String, String)> {
    (number % 3 == 1).then(|| (channel.to_owned(), name(number)))
}

/// Whether this is a retained value: an event without an id that keeps a key.
pub fn is_value(event: &Event) -> bool {
    event.event == KEPT && event.id.is_none()
}

/// The channel and key that an event keeps or forgets.
pub fn key_of(event: &Event) -> Option<(String, String)> {
    if event.event != KEPT && event.event != FORGOTTEN {
        return None;
    }
    key_in(&event.json())
}

fn key_in(payload: &serde_json::Value) -> Option<(String, String)> {
    let text = |name: &str| payload[name].as_str().map(str::to_owned);
    Some((text("channel")?, text("key")?))
}

/// Applies an event to the state of a client.
pub fn apply(values: &mut Values, event: &Event) {
    if event.event == "sse.snapshot" {
        let data = event.json();
        let covers: Vec<&str> =
            data["covers"].as_array().expect("covers").iter().filter_map(|c| c.as_str()).collect();
        values.retain(|(channel, key), _| {
            let is_covered = covers.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => channel.starts_with(prefix),
                None => pattern == channel,
            });
            let keys = data["channels"][channel].as_array();
            !is_covered || keys.is_some_and(|keys| keys.iter().any(|k| k == key.as_str()))
        });
        return;
    }
    let (Some(key), Some(number)) = (key_of(event), crate::checker::number(event)) else { return };
    match &*event.event {
        FORGOTTEN => values.remove(&key),
        _ => values.insert(key, number),
    };
}

/// The values in the hash of a channel: `<position> <retry> <type>`, a line break, the payload.
pub fn of_hash(hash: HashMap<String, String>) -> Values {
    let values = hash.into_values().filter_map(|value| {
        let payload: serde_json::Value = serde_json::from_str(value.split_once('\n')?.1).ok()?;
        Some((key_in(&payload)?, payload["n"].as_u64()?))
    });
    values.collect()
}
