//! The report as text, one fact per line.

use std::time::Duration;

use super::Report;
use crate::{
    core::trace::EventStatus,
    redis::trace::{ChannelTrace, RetainedKey, Unseen, report::time_of_ms},
};

/// Prints a report.
pub(super) fn print(report: &Report, dedupe_window: Duration) {
    let line = |name: &str, text: &str| println!("{name:<12} {}", escape_controls(text));
    line("event", &report.id);
    let span = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    if let Some(time) = &report.time {
        line(
            "time",
            &report.age_ms.map_or(time.clone(), |age| format!("{time}, {} ago", span(age))),
        );
    }
    for part in &report.parts {
        let time = part.time.as_deref().unwrap_or("a time after the year 9999");
        line(part.part, &format!("{}, {time}", part.id));
    }
    for address in &report.unavailable {
        line("unavailable", &format!("{address}: its logs were not searched"));
    }
    if let Some(search) = &report.search {
        let part = if search.complete { "all" } else { "not all" };
        line("searched", &format!("{} logs ({part} logs of this key prefix)", search.logs));
    }
    if let Some(note) = &report.note {
        line("not found", note);
    }
    if let Some(search) = report.search.as_ref().filter(|_| report.channels.is_empty()) {
        search
            .candidate_channels
            .iter()
            .for_each(|channel| line("candidate", &channel.to_string()));
    }
    for seen in &report.channels {
        line("channel", &seen.channel);
        channel(seen, &line, dedupe_window, &span);
    }
    if report.clock.is_some() && report.restart != Some("unknown-id") {
        for since in &report.breaks {
            line("break since", &format!("{} {}", since.id, since.reason));
        }
        if report.breaks.is_empty() {
            line("break since", "none");
        }
    }
    if let Some(reason) = report.restart.filter(|_| report.channels.is_empty()) {
        line("resume", &format!("sse.gap with {reason}, then live from now"));
    }
}

/// Escapes control characters: publishers choose keys and payloads, which must not control the
/// operator's terminal.
fn escape_controls(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

fn value_state(RetainedKey { key, is_forget, value, is_current }: &RetainedKey) -> String {
    match (is_forget, is_current, value) {
        (false, true, _) => format!("{key}, the current value"),
        (false, false, Some(id)) => format!("{key}, replaced: the current value is {id}"),
        (false, false, None) => format!("{key}, deleted: the key has no value"),
        (true, _, None) => format!("{key}, the key has no value"),
        (true, _, Some(id)) => format!("{key}, set again: the current value is {id}"),
    }
}

fn unseen_state(Unseen { until_ms, is_waiting }: &Unseen) -> String {
    let until = time_of_ms(*until_ms).unwrap_or_else(|| format!("{until_ms} ms"));
    match is_waiting {
        true => format!("until {until}, no stream was handed it yet"),
        false => format!("until {until}, was handed to a stream or stored as undelivered"),
    }
}

fn channel(
    seen: &ChannelTrace,
    line: &dyn Fn(&str, &str),
    dedupe_window: Duration,
    span: &dyn Fn(u64) -> String,
) {
    line(
        "state",
        match seen.status {
            EventStatus::InLog => "in the log",
            EventStatus::Trimmed => {
                "trimmed: the log names this id but no longer contains the event"
            }
            EventStatus::MaybeTrimmed => {
                "not in the log; it may be one of the trimmed events around this id"
            }
            EventStatus::MaybeExpired => {
                "not in the log, which starts after it; the event may have expired"
            }
            EventStatus::Never => {
                "never in the log: the id does not belong to an event of this channel"
            }
        },
    );
    if let Some(event) = &seen.event {
        line(
            "type",
            event
                .kind
                .as_deref()
                .unwrap_or("unknown: a foreign entry; is another client writing to this log?"),
        );
        line("size", &format!("{} bytes", event.bytes));
        event.retry_ms.iter().for_each(|ms| line("retry", &format!("{ms} ms")));
        let window = humantime::format_duration(dedupe_window);
        let key = event.key.clone();
        line("key", &key.unwrap_or_else(|| format!("none, or older than {window}")));
        if let Some(retained) = &event.retained {
            line(if retained.is_forget { "forget" } else { "keep" }, &value_state(retained));
        }
        event.tags.iter().for_each(|tags| line("tags", tags));
        event.unseen.iter().for_each(|unseen| line("unseen", &unseen_state(unseen)));
        event.payload.iter().for_each(|payload| line("payload", payload));
        line(
            "predecessor",
            &match &event.predecessor {
                Some(id) if event.predecessor_in_log => id.clone(),
                Some(id) => format!("{id}, no longer in the log"),
                None => "none: this is the first event of the log".to_owned(),
            },
        );
    }
    line("successor", seen.successor.as_deref().unwrap_or("none"));
    line(
        "log",
        &seen.log_ttl_ms.map_or("does not exist, or does not expire".to_owned(), |ms| {
            format!("expires in {}", span(ms))
        }),
    );
    let count = |n| if n == 1 { "1 event".to_owned() } else { format!("{n} events") };
    line(
        "resume",
        &match (seen.resume.gap, seen.resume.replayed) {
            (None, 0) => "no events to replay, no sse.gap".to_owned(),
            (None, n) => format!("replay of {} of this channel, no sse.gap", count(n)),
            (Some(reason @ "unknown-id"), _) => {
                format!("sse.gap with {reason}, then live from now")
            }
            (Some(reason), n) => {
                format!("sse.gap with {reason}, then the remaining {} of this channel", count(n))
            }
        },
    );
}
