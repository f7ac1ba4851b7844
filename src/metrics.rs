//! Every metric of the gateway, with its help text. Label values come from closed sets, or are the
//! Redis servers that the gateway uses now, so their number is bounded.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, process_collector::ProcessCollector,
};

use crate::core::{
    envelope::Rejection,
    reasons::{BusyReason, CatchUpCause, CloseReason, GapReason, TicketRejection},
    transport::Transport,
};

macro_rules! metrics {
    ($($field:ident: $type:ident = $name:literal, $help:literal $(, [$label:literal])?;)*) => {
        /// The metrics of one instance.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// Names, help texts and labels, for the reference page.
            pub const ALL: &'static [(&'static str, &'static str, Option<&'static str>)] =
                &[$(($name, $help, metrics!(@label $($label)?))),*];

            fn build() -> prometheus::Result<Self> {
                let registry = Registry::new();
                // process_*: CPU, memory and open files, with their usual names.
                registry.register(Box::new(ProcessCollector::for_self()))?;
                $(
                    let $field = metrics!(@new $type, $name, $help $(, $label)?)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field),* })
            }
        }
    };
    (@label $label:literal) => { Some($label) };
    (@label) => { None };
    (@new Histogram, $name:literal, $help:literal) => {
        Histogram::with_opts(
            HistogramOpts::new($name, $help).buckets(LATENCY_BUCKETS_SECONDS.to_vec()),
        )
    };
    (@new IntCounterVec, $name:literal, $help:literal, $label:literal) => {
        IntCounterVec::new(Opts::new($name, $help), &[$label])
    };
    (@new IntGaugeVec, $name:literal, $help:literal, $label:literal) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$label])
    };
    (@new GaugeVec, $name:literal, $help:literal, $label:literal) => {
        GaugeVec::new(Opts::new($name, $help), &[$label])
    };
    (@new $type:ident, $name:literal, $help:literal) => { $type::new($name, $help) };
}

const LISTENERS: [&str; 2] = ["public", "admin"];

const LATENCY_BUCKETS_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

metrics! {
    sockets: IntGaugeVec = "sse_sockets", "Open client sockets, by listener.", ["listener"];
    sockets_limit: IntGaugeVec = "sse_sockets_limit",
        "Maximum number of open client sockets, by listener; derived from the limit of open \
         files.", ["listener"];
    sockets_accepted: IntCounterVec = "sse_sockets_accepted_total",
        "Client sockets accepted, by listener.", ["listener"];
    sockets_dropped: IntCounterVec = "sse_sockets_dropped_total",
        "Client sockets closed to save file descriptors: `idle` = the socket idle longest, to \
         make room for a new one; `no-descriptor` = a new socket, because all others are \
         busy.", ["reason"];
    accept_errors: IntCounterVec = "sse_accept_errors_total",
        "Connections that could not be accepted: `descriptors`, `memory`, `aborted` (by the \
         client), `other`.", ["reason"];
    requests: IntCounter = "sse_requests_total", "Requests on the public listener.";
    connections: IntGauge = "sse_connections", "Open streams and polls.";
    max_connections: IntGauge = "sse_connections_limit", "limits.max_connections.";
    opened: IntCounterVec = "sse_connections_opened_total",
        "Streams and polls that were admitted.", ["transport"];
    closed: IntCounterVec = "sse_connections_closed_total",
        "Streams and polls that ended, by reason.", ["reason"];
    relayed: IntCounterVec = "sse_events_relayed_total",
        "Events received from Redis, by kind of channel.", ["kind"];
    deliveries: IntCounter = "sse_deliveries_total", "Live events handed to sockets.";
    bytes_sent: IntCounter = "sse_bytes_sent_total", "Bytes of frames handed to sockets.";
    publish_to_write: Histogram = "sse_publish_to_write_seconds",
        "Time from an event's id (clock of Redis) to its hand-over to a socket (clock of this \
         host); live events, one in 16.";
    catch_ups: IntCounterVec = "sse_catch_ups_total",
        "Catch-ups: reads of the events that a stream missed, by cause.", ["cause"];
    replayed: IntCounter = "sse_replayed_events_total", "Events delivered by catch-ups.";
    gaps: IntCounterVec = "sse_gaps_total",
        "`sse.gap` events sent to clients, by reason.", ["reason"];
    values_sent: IntCounter = "sse_retained_values_sent_total",
        "Retained values delivered to streams that began or had a gap.";
    ephemeral_dropped: IntCounter = "sse_ephemeral_dropped_total",
        "Ephemeral events that were dropped for slow clients and during catch-ups.";
    undelivered: IntCounter = "sse_undelivered_total",
        "Events with UNSEEN that no stream was handed in time, and that this instance stored in \
         `sse:undelivered`.";
    overflows: IntCounter = "sse_queue_overflows_total",
        "Queues that were dropped because they were too long; their streams catch up from the log.";
    queued_bytes: IntGauge = "sse_queued_bytes",
        "Bytes queued for all connections, and in responses to polls and histories until they are \
         sent.";
    max_queued_bytes: IntGauge = "sse_queued_bytes_limit", "limits.queue_bytes_total.";
    tickets_rejected: IntCounterVec = "sse_tickets_refused_total",
        "Requests denied because of their ticket, by code.", ["code"];
    busy: IntCounterVec = "sse_busy_total",
        "`sse.busy` events sent to clients, by reason.", ["reason"];
    jwks_fetches: IntCounterVec = "sse_jwks_fetches_total",
        "Fetches of the issuer's key set, by outcome.", ["outcome"];
    jwks_keys: IntGauge = "sse_jwks_keys",
        "Usable keys in the issuer's key set; 0 = it was not fetched yet.";
    jwks_age: Gauge = "sse_jwks_age_seconds", "Age of the issuer's key set in use.";
    reloads: IntCounterVec = "sse_reloads_total",
        "Reloads of keys and certificate without a restart, by outcome.", ["outcome"];
    link_up: IntGauge = "sse_redis_link_up",
        "1 while the subscriber connections to all known Redis servers are up and watermarks \
         arrive.";
    reconnects: IntCounter = "sse_redis_reconnects_total",
        "Reconnects of the subscriber connections to Redis, of all servers.";
    watermark_age: Gauge = "sse_watermark_age_seconds",
        "Time since the last watermark from Redis; with several servers, the longest.";
    epoch_changes: IntCounter = "sse_epoch_changes_total",
        "New epochs: Redis was restarted, replaced or wiped; sum of all servers.";
    rivals: IntCounter = "sse_redis_rivals_total",
        "Connections that reached another primary than the one in use, at the address of \
         redis.url; not with Sentinel or a cluster.";
    server_link_up: IntGaugeVec = "sse_redis_server_link_up",
        "1 while the subscriber connection to this Redis server is up and watermarks arrive.",
        ["server"];
    server_watermark_age: GaugeVec = "sse_redis_server_watermark_age_seconds",
        "Time since the last watermark from this Redis server; absent before the first.",
        ["server"];
    server_epoch_changes: IntCounterVec = "sse_redis_server_epoch_changes_total",
        "New epochs of this Redis server that this instance has noticed.", ["server"];
    server_slots: IntGaugeVec = "sse_redis_server_slots",
        "Slots that this master of a cluster owns; absent without a cluster.", ["server"];
    server_slots_migrating: IntGaugeVec = "sse_redis_server_slots_migrating",
        "Slots whose migration from this master to another one has begun and not ended; absent \
         without a cluster.", ["server"];
    slots_moved: IntCounter = "sse_redis_slots_moved_total",
        "Slots of a cluster that moved from a master to another one, by migration or failover.";
    live_malformed: IntCounter = "sse_live_malformed_total",
        "Messages on the gateway's own channels that its function library did not write; they are \
         ignored.";
    moved_users: IntCounter = "sse_moved_users_total",
        "Users whose slot moved to another server of the cluster; their streams continue there.";
    presence_users: IntGauge = "sse_presence_users",
        "Users with a stream on this instance; 0 unless presence.enabled. A user may have streams \
         on several instances.";
    presence_reports: IntCounterVec = "sse_presence_reports_total",
        "Reports of this instance about its users to Redis, by outcome: `ok`, `failed` (Redis did \
         not accept it, and it is repeated), `lost` (all users are reported again).", ["outcome"];
    subscriptions: IntGauge = "sse_subscriptions",
        "User channels that this instance is subscribed to, on all servers.";
    recorder_role: IntGaugeVec = "sse_recorder_role",
        "1 for this instance's current role in recording plain publishes (`standby`: it could take \
         over without a gap); absent unless publishers.plain = record.", ["role"];
    recorded: IntCounter = "sse_plain_recorded_total",
        "Plain publishes that this instance stored in a log, without duplicates and rejected \
         messages.";
    plain_relayed: IntCounter = "sse_plain_relayed_total",
        "Plain publishes that were relayed live only (publishers.plain = relay).";
    rejected: IntCounterVec = "sse_rejected_total",
        "Messages and events that were rejected, by reason.", ["reason"];
    source_reader: IntGaugeVec = "sse_source_reader",
        "1 if this instance reads this external source now; absent without external sources.",
        ["source"];
    source_published: IntCounterVec = "sse_source_published_total",
        "Entries of this external source that this instance published.", ["source"];
    source_duplicates: IntCounterVec = "sse_source_duplicates_total",
        "Entries of this external source that were published before, and therefore dropped; for \
         example after another instance took over.", ["source"];
    source_rejected: IntCounterVec = "sse_source_rejected_total",
        "Entries of this external source that were rejected; sse_rejected_total counts them by \
         reason.", ["source"];
    source_lost: IntCounterVec = "sse_source_lost_total",
        "Entries of this external source that were deleted or dropped before they were published.",
        ["source"];
    source_breaks: IntCounterVec = "sse_source_breaks_total",
        "Interruptions during which entries of this external source may have been lost: only \
         notifications of Postgres have no replay. Clients get sse.gap (unrecorded).", ["source"];
    source_errors: IntCounterVec = "sse_source_errors_total",
        "Failed attempts to read this external source, or to publish its entries.", ["source"];
    source_lag: GaugeVec = "sse_source_lag_seconds",
        "Age of the oldest entry of this external source that was read and is not yet published. 0 \
         without such an entry, and on instances that do not read the source.", ["source"];
    published: IntCounter = "sse_published_total", "Events published through POST /publish.";
    spans: IntCounterVec = "sse_spans_total",
        "Spans of traces by outcome: `exported`, `rejected` (by the collector), `failed` (it is \
         unreachable), `queue-full`; 0 without tracing.endpoint.", ["outcome"];
    malformed: IntCounterVec = "sse_requests_malformed_total",
        "HTTP/1.1 requests rejected as malformed, by reason.", ["reason"];
}

impl Metrics {
    /// Creates all metrics. Every label value exists from the start, with the value zero, except
    /// for the role: an instance that never records has no role, not even `none`, so that an alert
    /// on a missing recorder does not fire.
    ///
    /// # Panics
    /// Never: the names are constants, and a test builds them.
    pub fn new() -> Self {
        let metrics = Self::build().expect("metric names are valid and distinct");
        metrics.closed.init(CloseReason::ALL.iter().map(|r| r.name()));
        metrics.gaps.init(GapReason::ALL.iter().map(|r| r.name()));
        metrics.busy.init(BusyReason::ALL.iter().map(|r| r.name()));
        metrics.tickets_rejected.init(TicketRejection::ALL.iter().map(|f| f.name()));
        metrics.catch_ups.init(CatchUpCause::ALL.iter().map(|r| r.name()));
        metrics.rejected.init(Rejection::ALL.iter().map(|r| r.code()));
        metrics.relayed.init(["user", "broadcast"].into_iter());
        metrics.opened.init(Transport::ALL.iter().map(|t| t.name()));
        metrics.jwks_fetches.init(["ok", "unreachable", "status", "invalid"].into_iter());
        for sockets in [&metrics.sockets, &metrics.sockets_limit] {
            LISTENERS.iter().for_each(|listener| sockets.with_label_values(&[listener]).set(0));
        }
        metrics.sockets_accepted.init(LISTENERS.into_iter());
        metrics.sockets_dropped.init(["idle", "no-descriptor"].into_iter());
        metrics.accept_errors.init(["descriptors", "memory", "aborted", "other"].into_iter());
        metrics.spans.init(["exported", "rejected", "failed", "queue-full"].into_iter());
        metrics.presence_reports.init(["ok", "failed", "lost"].into_iter());
        metrics.reloads.init(["ok", "failed"].into_iter());
        metrics
    }

    /// Sets this instance's role in recording.
    pub fn set_role(&self, role: &str) {
        for r in ["writer", "standby", "none"] {
            self.recorder_role.with_label_values(&[r]).set(i64::from(r == role));
        }
    }

    /// All metrics in the Prometheus text format.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing into a Vec cannot fail, and the families are consistent by construction.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

trait Init {
    fn init<'a>(&self, values: impl Iterator<Item = &'a str>);
}

impl Init for IntCounterVec {
    fn init<'a>(&self, values: impl Iterator<Item = &'a str>) {
        for value in values {
            self.with_label_values(&[value]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_exist_from_the_start() {
        let text = String::from_utf8(Metrics::new().encode()).unwrap();
        // Only instances that record plain publishes have a role, the labels of malformed requests
        // belong to the HTTP layer, and no server or external source is known yet.
        let later = ["sse_recorder_role", "sse_requests_malformed_total"];
        let prefixes = ["sse_redis_server_", "sse_source_"];
        let is_later = |name: &str| {
            later.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
        };
        for (name, help, _) in Metrics::ALL.iter().filter(|m| !is_later(m.0)) {
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name}");
        }
    }
}
