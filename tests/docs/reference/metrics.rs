//! `docs/reference/metrics.md`

use std::collections::BTreeMap;

use sse_gateway::{core::reasons::CatchUpCause, http::malformed::Malformed, metrics::Metrics};

use super::{assemble, code, table};

const INTRODUCTION: &str = "\
`GET /metrics` on the admin listener returns these metrics in the Prometheus text format.
Every value of a label exists from the start, with the value 0, except for `role` (an instance
that does not record plain publishes has no `sse_recorder_role` at all) and `server`: there is a
series for each Redis server that the instance uses now, and it ends when that server is replaced.

`process_*` metrics (CPU, memory, open files) have their usual names and meanings.

Alerts on these metrics are in [deploy/prometheus/alerts.yaml](../../deploy/prometheus/alerts.yaml);
[Alerts](../operations/alerts.md) describes them, and the
[runbook](../operations/runbook.md) describes what to do.";

const LABELS: &str = "\
## Label values

`reason` and `code` are explained where the client sees them:
[events](events.md) for `sse_gaps_total`, `sse_busy_total` and `sse_connections_closed_total`,
[errors](errors.md) for `sse_tickets_refused_total` and `sse_rejected_total`.";

const MALFORMED: &str = "\
## Malformed requests

The statuses of the responses are in [HTTP/1.1](http.md#responses-to-malformed-requests).";

const OTHERS: &str = "\
## Other labels

| label | value | meaning |
|---|---|---|
| `server` | `host:port` | the Redis server: the primary, or a master of a cluster |
| `source` | name | the external source, as in the settings |
| `transport` | `stream` | `GET /events` |
| | `poll` | `GET /events/poll` |
| `kind` | `user`, `broadcast` | the kind of channel |
| `role` | `writer` | this instance records plain publishes |
| | `standby` | this instance takes over without a gap if the writer stops |
| | `none` | neither, or a standby that is not in step with the writer yet |
| `listener` | `public`, `admin` | the listener that accepted the socket |
| `reason` of a dropped socket | `idle` | the socket idle longest was closed for a new one |
| | `no-descriptor` | a new socket was closed, because all others are busy |
| `reason` of an accept error | `descriptors`, `memory` | the process or the host has too few |
| | `aborted` | the client closed the connection before it was accepted |
| | `other` | another error; the log has it |
| `outcome` of a key set fetch | `ok` | the key set is in use |
| | `unreachable` | no connection, or a timeout |
| | `status` | a response other than 200 |
| | `invalid` | not a key set, or without a usable key |
| `outcome` of a reload | `ok`, `failed` | the new values are active, or the previous ones stay active |";

/// Explains the cause of a catch-up.
fn cause(cause: CatchUpCause) -> &'static str {
    match cause {
        CatchUpCause::Resume => "the client connected with a last event id",
        CatchUpCause::Overflow => "the connection's queue was dropped",
        CatchUpCause::Link => "the link to Redis broke, or a worker could not keep up",
        CatchUpCause::Epoch => "Redis was restarted, replaced or wiped",
        CatchUpCause::Predecessor => "a live event arrived, but its predecessor had not",
        CatchUpCause::Moved => "a slot of the cluster moved to another server",
    }
}

/// Explains the reason of a malformed request.
fn malformed(reason: Malformed) -> &'static str {
    match reason {
        Malformed::RequestLine => "not `<method> <target> HTTP/1.x`",
        Malformed::Target => "the request target is invalid, or has the wrong form for its method",
        Malformed::Version => "neither HTTP/1.0 nor HTTP/1.1",
        Malformed::Header => "a header field has the wrong form, or a line does not end with CRLF",
        Malformed::Host => "`Host` is missing, repeated or invalid",
        Malformed::Length => "`Content-Length` is invalid, repeated, or beside `Transfer-Encoding`",
        Malformed::Coding => "a `Transfer-Encoding` other than `chunked`, or over HTTP/1.0",
        Malformed::Expectation => "an `Expect` other than `100-continue`",
        Malformed::Connect => "the method is CONNECT: the gateway is not a proxy",
        Malformed::HeadTooLong => "request line and headers exceed 16 KiB",
        Malformed::TooManyHeaders => "more than 96 header fields",
        Malformed::Chunk => "the chunks or trailers of the body are malformed",
    }
}

/// The label values that exist, by metric.
fn values() -> BTreeMap<String, Vec<String>> {
    let metrics = Metrics::new();
    Malformed::init_metric(&metrics);
    metrics.set_role("none");
    let text = String::from_utf8(metrics.encode()).expect("text");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        if Metrics::ALL.iter().any(|m| m.0 == name)
            && let Some(value) = rest.split('"').nth(1)
        {
            found.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    found
}

pub fn page() -> String {
    let row = |(name, help, label): &(&str, &str, Option<&str>)| {
        [code(name), label.map(code).unwrap_or_default(), (*help).to_owned()]
    };
    let all = table(["metric", "label", "meaning"], Metrics::ALL.iter().map(row));
    let label_of = |name: &str| {
        let found = Metrics::ALL.iter().find(|m| m.0 == name);
        found.and_then(|m| m.2).unwrap_or_default()
    };
    let list = |values: &[String]| values.iter().map(|v| code(v)).collect::<Vec<_>>().join(", ");
    let values = values();
    let rows = values.iter().map(|(name, v)| [code(name), code(label_of(name)), list(v)]);
    let labels = table(["metric", "label", "values"], rows);
    let causes = CatchUpCause::ALL.iter().map(|c| [code(c.name()), cause(*c).to_owned()]);
    let causes = format!(
        "## Causes of a catch-up\n\n{}",
        table(["`cause` of `sse_catch_ups_total`", "meaning"], causes)
    );
    let requests = Malformed::ALL.iter().map(|m| [code(m.name()), malformed(*m).to_owned()]);
    let requests = table(["`reason` of `sse_requests_malformed_total`", "problem"], requests);
    let requests = format!("{MALFORMED}\n\n{requests}");
    let sections =
        [INTRODUCTION, "## All metrics", &all, LABELS, &labels, &causes, &requests, OTHERS];
    assemble("Metrics", &sections)
}
