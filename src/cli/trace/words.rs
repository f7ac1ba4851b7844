//! The report in words, a line for each thing.

use std::time::Duration;

use super::Report;
use crate::{core::trace::Place, redis::trace::Sighting};

/// Prints a report.
pub(super) fn print(report: &Report, dedupe_window: Duration) {
    let line = |name: &str, text: &str| println!("{name:<12} {}", harmless(text));
    line("event", &report.id);
    let span = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    if let Some(time) = &report.time {
        line(
            "given",
            &report.age_ms.map_or(time.clone(), |age| format!("{time}, {} ago", span(age))),
        );
    }
    if let Some(search) = &report.search {
        let end = if search.complete { "all there are" } else { "there are more" };
        line("searched", &format!("{} logs, {end}", search.logs));
    }
    if let Some(note) = &report.note {
        line("not found", note);
    }
    if let Some(search) = report.search.as_ref().filter(|_| report.channels.is_empty()) {
        search.maybe_channels.iter().for_each(|channel| line("perhaps", &channel.to_string()));
    }
    for seen in &report.channels {
        line("channel", &seen.channel);
        sighting(seen, &line, dedupe_window, &span);
    }
    if report.clock.is_some() && report.restart != Some("unknown-id") {
        report
            .seams
            .iter()
            .for_each(|seam| line("seam since", &format!("{} {}", seam.id, seam.reason)));
        match (report.seams.is_empty(), report.more_seams) {
            (true, _) => line("seam since", "none"),
            (false, more) if more => line("seam since", "and more"),
            _ => {}
        }
    }
    if let Some(reason) = report.restart.filter(|_| report.channels.is_empty()) {
        line("resume", &format!("sse.gap with {reason}, then live from now"));
    }
}

/// Keys and payloads are publishers' own: what a terminal would obey is shown and not sent.
fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

fn sighting(
    seen: &Sighting,
    line: &dyn Fn(&str, &str),
    dedupe_window: Duration,
    span: &dyn Fn(u64) -> String,
) {
    line(
        "state",
        match seen.place {
            Place::InLog => "in the log",
            Place::Trimmed => "trimmed: the log names it and holds it no more",
            Place::MaybeTrimmed => {
                "not in the log, which has lost events around it: perhaps trimmed"
            }
            Place::MaybeExpired => {
                "not in the log, which does not reach back so far: perhaps expired"
            }
            Place::Never => "not in the log, and it never was: it is no event of this channel",
        },
    );
    if let Some(event) = &seen.event {
        line(
            "type",
            event
                .kind
                .as_deref()
                .unwrap_or("none: the entry is not of the library's form; who writes there?"),
        );
        line("size", &format!("{} bytes", event.bytes));
        event.retry_ms.iter().for_each(|ms| line("retry", &format!("{ms} ms")));
        let window = humantime::format_duration(dedupe_window);
        let key = event.key.clone();
        line("key", &key.unwrap_or_else(|| format!("none that is remembered (for {window})")));
        event.payload.iter().for_each(|payload| line("payload", payload));
        line(
            "predecessor",
            &match &event.predecessor {
                Some(id) if event.predecessor_in_log => id.clone(),
                Some(id) => format!("{id}, no longer in the log"),
                None => "none: it is the first of its log".to_owned(),
            },
        );
    }
    line("successor", seen.successor.as_deref().unwrap_or("none"));
    line(
        "log",
        &seen.log_ttl_ms.map_or("none, or without an expiry".to_owned(), |ms| {
            format!("expires in {}", span(ms))
        }),
    );
    let count = |n| if n == 1 { "1 event".to_owned() } else { format!("{n} events") };
    line(
        "resume",
        &match (seen.resume.gap, seen.resume.replayed) {
            (None, 0) => "nothing is missing, and nothing to replay".to_owned(),
            (None, n) => format!("replay of {} of this channel, no sse.gap", count(n)),
            (Some(reason @ ("reset" | "unknown-id")), _) => {
                format!("sse.gap with {reason}, then live from now")
            }
            (Some(reason), n) => {
                format!("sse.gap with {reason}, then {} of this channel that are left", count(n))
            }
        },
    );
}
