//! OpenTelemetry spans of sampled events: what an instance did for an event, and when
//! (docs/operations/tracing.md). Without `tracing.endpoint` there is no [`Tracer`], and nothing in
//! here runs.

pub mod exporter;
mod otlp;
pub mod relay;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::trace::v1::{
    Span, Status, span::SpanKind, status::StatusCode::Error,
};
use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use crate::core::{id::EventId, trace_context::TraceParent};

/// Flags of a span: sampled, and the parent may be remote.
const FLAGS: u32 = 0x101;

/// Chooses the events that get spans, and passes finished spans to the exporter.
#[derive(Debug)]
pub struct Tracer {
    queue: mpsc::Sender<Span>,
    /// A trace is recorded if the last 64 bits of its id are below this.
    threshold: u64,
    spans: IntCounterVec,
}

impl Tracer {
    fn new(queue: mpsc::Sender<Span>, ratio: f64, spans: IntCounterVec) -> Self {
        // A float above the largest integer becomes that.
        Self { queue, threshold: (ratio * 2f64.powi(64)) as u64, spans }
    }

    fn takes(&self, trace_id: u128) -> bool {
        (trace_id as u64) < self.threshold
    }

    /// The id of a new trace, if the sampler chooses it.
    pub fn new_trace(&self) -> Option<u128> {
        let trace_id = fastrand::u128(1..);
        self.takes(trace_id).then_some(trace_id)
    }

    /// The id of the trace of an event that has none, if the sampler chooses it. All instances
    /// decide alike, and use the same id.
    pub fn trace_of_event(&self, id: EventId) -> Option<u128> {
        let low = mix(id.ms ^ mix(id.seq ^ mix(id.epoch)));
        let trace_id = u128::from(mix(!low)) << 64 | u128::from(low);
        (self.takes(trace_id) && trace_id != 0).then_some(trace_id)
    }

    /// Begins a span in a trace.
    pub fn open(
        self: &Arc<Self>,
        name: &'static str,
        kind: SpanKind,
        trace_id: u128,
        parent: Option<u64>,
    ) -> OpenSpan {
        let span = span(name, kind, trace_id, parent, unix_ns());
        OpenSpan { tracer: self.clone(), span, trace_id }
    }

    /// Begins a span below another one.
    pub fn child(
        self: &Arc<Self>,
        name: &'static str,
        kind: SpanKind,
        parent: TraceParent,
    ) -> OpenSpan {
        self.open(name, kind, parent.trace_id, Some(parent.span_id))
    }

    /// Begins the span of a call of Redis for the event of a channel: below `parent`, or in a new
    /// trace if the sampler chooses it.
    pub fn call_for_event(
        self: &Arc<Self>,
        name: &'static str,
        parent: Option<TraceParent>,
        channel: &str,
    ) -> Option<OpenSpan> {
        let mut span = match parent {
            Some(parent) => self.child(name, SpanKind::Client, parent),
            None => self.open(name, SpanKind::Client, self.new_trace()?, None),
        };
        span.text("messaging.system", "redis");
        span.text("messaging.destination.name", channel);
        Some(span)
    }

    /// Passes a finished span to the exporter; if its queue is full, the span is counted only.
    fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.spans.with_label_values(&["queue-full"]).inc();
        }
    }
}

/// A span that has begun; without [`OpenSpan::end`] it is not recorded.
pub struct OpenSpan {
    tracer: Arc<Tracer>,
    span: Span,
    trace_id: u128,
}

impl OpenSpan {
    /// The parent of what follows.
    pub fn context(&self) -> TraceParent {
        let span_id = u64::from_be_bytes(self.span.span_id[..].try_into().unwrap_or_default());
        TraceParent { trace_id: self.trace_id, span_id, is_sampled: true }
    }

    /// Adds an attribute.
    pub fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.span.attributes.push(otlp::text(name, value.into()));
    }

    /// Adds an attribute.
    pub fn number(&mut self, name: &'static str, value: i64) {
        self.span.attributes.push(otlp::number(name, value));
    }

    /// Marks it as failed.
    pub fn fail(&mut self, code: &str) {
        self.span.status = Some(Status { message: code.to_owned(), code: Error.into() });
        self.span.attributes.push(otlp::text("error.type", code.to_owned()));
    }

    /// Ends and records it.
    pub fn end(mut self) {
        self.span.end_time_unix_nano = unix_ns();
        self.tracer.record(self.span);
    }
}

fn span(
    name: &'static str,
    kind: SpanKind,
    trace_id: u128,
    parent: Option<u64>,
    start_ns: u64,
) -> Span {
    Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: fastrand::u64(1..).to_be_bytes().to_vec(),
        parent_span_id: parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: FLAGS,
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: start_ns,
        end_time_unix_nano: start_ns,
        ..Span::default()
    }
}

/// Nanoseconds since 1970.
fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).as_nanos() as u64
}

/// A bijection that spreads numbers evenly (SplitMix64).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn tracer(ratio: f64, capacity: usize) -> (Arc<Tracer>, mpsc::Receiver<Span>, Metrics) {
        let (queue, receiver) = mpsc::channel(capacity);
        let metrics = Metrics::new();
        (Arc::new(Tracer::new(queue, ratio, metrics.spans.clone())), receiver, metrics)
    }

    fn ids() -> impl Iterator<Item = EventId> {
        (0..10_000).map(|n| EventId { epoch: 7, ms: 1_763_719_000_000 + n / 3, seq: n % 3 })
    }

    #[test]
    fn instances_choose_the_same_events() {
        let (one, other) = (tracer(0.1, 1).0, tracer(0.1, 1).0);
        let chosen: Vec<u128> = ids().filter_map(|id| one.trace_of_event(id)).collect();
        assert!((900..1100).contains(&chosen.len()), "{}", chosen.len());
        assert_eq!(chosen, ids().filter_map(|id| other.trace_of_event(id)).collect::<Vec<_>>());
        let distinct: std::collections::HashSet<_> = chosen.iter().collect();
        assert_eq!(distinct.len(), chosen.len());
    }

    #[test]
    fn ratios_of_0_and_1_choose_nothing_and_everything() {
        let (none, all) = (tracer(0.0, 1).0, tracer(1.0, 1).0);
        assert!(ids().all(|id| none.trace_of_event(id).is_none() && none.new_trace().is_none()));
        assert!(ids().all(|id| all.trace_of_event(id).is_some() && all.new_trace().is_some()));
    }

    #[test]
    fn full_queue_drops_and_counts_spans() {
        let (tracer, mut receiver, metrics) = tracer(1.0, 1);
        let parent = TraceParent { trace_id: 1, span_id: 2, is_sampled: true };
        let mut open = tracer.child("a", SpanKind::Client, parent);
        open.fail("some-code");
        let context = open.context();
        open.end();
        tracer.child("b", SpanKind::Client, parent).end();
        let span = receiver.try_recv().unwrap();
        assert_eq!((span.name.as_str(), &span.parent_span_id[..]), ("a", &2u64.to_be_bytes()[..]));
        assert_eq!(span.span_id, context.span_id.to_be_bytes());
        assert_eq!((context.trace_id, span.status.unwrap().message.as_str()), (1, "some-code"));
        assert_eq!(metrics.spans.with_label_values(&["queue-full"]).get(), 1);
    }
}
