//! The span of an event on its way from the link to the sockets: one for each instance, whatever
//! the number of streams.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{Tracer, otlp, span, unix_ns};
use crate::core::{event::Event, trace_context::TraceParent};

/// A sampled event that is being delivered. The link and the workers share it; when the last one
/// is done, the spans `relay` and `write` are recorded.
#[derive(Debug)]
pub struct RelaySpan {
    tracer: Arc<Tracer>,
    trace_id: u128,
    parent: Option<u64>,
    channel: String,
    id: Option<String>,
    start_ns: u64,
    /// When the first worker began to write, and when the last one had written.
    first_ns: AtomicU64,
    last_ns: AtomicU64,
    streams: AtomicU64,
}

impl Tracer {
    /// Begins the delivery of an event, if it gets spans: because its publisher has passed the
    /// trace, or because the sampler chooses it.
    pub fn relay(
        self: &Arc<Self>,
        event: &Event,
        parent: Option<TraceParent>,
    ) -> Option<Arc<RelaySpan>> {
        let (trace_id, parent) = match (parent, event.id) {
            (Some(parent), _) => (parent.trace_id, Some(parent.span_id)),
            (None, Some(id)) => (self.trace_of_event(id)?, None),
            (None, None) => (self.new_trace()?, None),
        };
        Some(Arc::new(RelaySpan {
            tracer: self.clone(),
            trace_id,
            parent,
            channel: event.channel.to_string(),
            id: event.id.map(|id| id.to_string()),
            start_ns: unix_ns(),
            first_ns: AtomicU64::new(u64::MAX),
            last_ns: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }))
    }
}

impl RelaySpan {
    /// A worker has taken the event.
    pub fn begin_write(&self) {
        self.first_ns.fetch_min(unix_ns(), Ordering::Relaxed);
    }

    /// A worker has written the event to as many of its streams as could take it at once, or queued
    /// it for them.
    pub fn end_write(&self, streams: usize) {
        self.streams.fetch_add(streams as u64, Ordering::Relaxed);
        self.last_ns.fetch_max(unix_ns(), Ordering::Relaxed);
    }
}

impl Drop for RelaySpan {
    fn drop(&mut self) {
        let [first_ns, last_ns] = [*self.first_ns.get_mut(), *self.last_ns.get_mut()];
        let streams = otlp::number("sse.streams", *self.streams.get_mut() as i64);
        let consumer = SpanKind::Consumer;
        let mut relay = span("relay", consumer, self.trace_id, self.parent, self.start_ns);
        relay.end_time_unix_nano = if last_ns == 0 { unix_ns() } else { last_ns };
        relay.attributes = vec![
            otlp::text("messaging.system", "redis".to_owned()),
            otlp::text("messaging.destination.name", std::mem::take(&mut self.channel)),
            streams.clone(),
        ];
        let id = self.id.take().map(|id| otlp::text("messaging.message.id", id));
        relay.attributes.extend(id);
        if last_ns > 0 {
            let mut write = span("write", SpanKind::Internal, self.trace_id, None, first_ns);
            write.parent_span_id.clone_from(&relay.span_id);
            write.end_time_unix_nano = last_ns;
            write.attributes = vec![streams];
            self.tracer.record(write);
        }
        self.tracer.record(relay);
    }
}
