//! Undelivered events: which events the publishers watch with `UNSEEN`, and what the gateways
//! append to the stream of undelivered events.

use crate::checker::Rules;
use crate::journal::{Kind, Publish};
use crate::publisher::Publisher;
use std::collections::HashMap;

/// A user without a client.
pub const AWAY: &str = "away";

/// Whether an event is published with `UNSEEN`: all of the user who is away, some of the others.
fn is_watched(channel: &str, number: u64) -> bool {
    channel.starts_with("user:") && (is_away(channel) || number % 12 == 2)
}

fn is_away(channel: &str) -> bool {
    channel.strip_prefix("user:").and_then(|rest| rest.strip_suffix(":events")) == Some(AWAY)
}

/// The options of a durable event.
pub fn options(channel: &str, number: u64) -> &'static [&'static str] {
    if is_watched(channel, number) { &["UNSEEN", "1s"] } else { &[] }
}

/// What is wrong with the stream of undelivered events. Those of the user who is away must be in it
/// once, those of the others at most once: a fault may delay one beyond its time.
pub async fn check(reader: &mut Publisher, events: &[Publish], rules: &Rules) -> Vec<String> {
    let Some(numbers) = reader.undelivered().await else {
        return vec!["Redis does not return the undelivered events".to_owned()];
    };
    let mut counts: HashMap<u64, usize> = HashMap::new();
    numbers.into_iter().for_each(|number| *counts.entry(number).or_default() += 1);
    let wrong = events.iter().filter(|event| {
        let count = counts.get(&event.number).copied().unwrap_or(0);
        let is_due =
            event.kind == Kind::Durable && is_away(&event.channel) && event.acknowledged.is_some();
        !rules.discards && (count > 1 || (is_due && count == 0))
    });
    let text = |event: &Publish| {
        let count = counts.get(&event.number).copied().unwrap_or(0);
        format!("{} {}: {count} times, attempts {}", event.number, event.channel, event.attempts)
    };
    wrong.map(text).collect()
}
