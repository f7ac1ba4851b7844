//! The trace of a `POST /publish`: its span, and the ones of what it appends.

use std::sync::Arc;

use actix_web::http::StatusCode;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::{
    core::trace_context::TraceParent,
    redis::publish::{Publish, PublishError},
    spans::{OpenSpan, Tracer},
};

/// The spans of a request: nothing unless it, or one of its events, is sampled.
#[derive(Default)]
pub struct PublishSpans {
    tracer: Option<Arc<Tracer>>,
    request: Option<OpenSpan>,
    /// The call for the events without a trace of their own.
    append: Option<OpenSpan>,
    /// The calls for events with one, by number of the event.
    own: Vec<(usize, OpenSpan)>,
    /// The trace of events without one of their own.
    default: Option<TraceParent>,
}

impl PublishSpans {
    /// Begins the span of a request that has this trace, or none.
    pub fn begin(tracer: Option<&Arc<Tracer>>, trace: Option<TraceParent>) -> Self {
        let default = trace.filter(|trace| trace.is_sampled);
        let Some(tracer) = tracer.cloned() else { return Self { default, ..Self::default() } };
        let (name, kind) = ("POST /publish", SpanKind::Server);
        let request = match trace {
            Some(_) => default.map(|parent| tracer.child(name, kind, parent)),
            None => tracer.new_trace().map(|trace_id| tracer.open(name, kind, trace_id, None)),
        };
        let Some(mut request) = request else {
            return Self { tracer: Some(tracer), ..Self::default() };
        };
        request.text("http.request.method", "POST");
        request.text("http.route", "/publish");
        let append = append(&tracer, request.context());
        let default = Some(append.context());
        let (request, append) = (Some(request), Some(append));
        Self { tracer: Some(tracer), request, append, own: Vec::new(), default }
    }

    /// The trace of events without one of their own.
    pub fn default_trace(&self) -> Option<TraceParent> {
        self.default
    }

    /// Begins the calls for the events with a trace of their own.
    pub fn begin_own(&mut self, events: &mut [Publish]) {
        let Some(tracer) = &self.tracer else { return };
        for (number, event) in events.iter_mut().enumerate() {
            if let Some(parent) = event.trace.filter(|trace| Some(*trace) != self.default) {
                let span = tracer.call_for_event("append", Some(parent), &event.channel);
                event.trace = span.as_ref().map(OpenSpan::context);
                self.own.extend(span.map(|span| (number, span)));
            }
        }
    }

    /// Ends the calls, whose events have these results.
    pub fn published(&mut self, results: &[Result<String, PublishError>]) {
        let mut others: Vec<_> = results.iter().map(Some).collect();
        for (number, mut span) in self.own.drain(..) {
            if let Some(result) = others.get_mut(number).and_then(Option::take) {
                note(&mut span, result);
                span.end();
            }
        }
        let others: Vec<_> = others.into_iter().flatten().collect();
        if let Some(mut span) = self.append.take().filter(|_| !others.is_empty()) {
            span.number("messaging.batch.message_count", others.len() as i64);
            let failed = others.iter().find(|result| result.is_err());
            note(&mut span, failed.or(others.first()).copied().unwrap_or(&Ok(String::new())));
            span.end();
        }
    }

    /// Ends the span of the request.
    pub fn answered(self, status: StatusCode) {
        let Some(mut span) = self.request else { return };
        span.number("http.response.status_code", status.as_u16().into());
        if status.is_server_error() {
            span.fail(status.as_str());
        }
        span.end();
    }
}

fn append(tracer: &Arc<Tracer>, parent: TraceParent) -> OpenSpan {
    let mut span = tracer.child("append", SpanKind::Client, parent);
    span.text("messaging.system", "redis");
    span
}

fn note(span: &mut OpenSpan, result: &Result<String, PublishError>) {
    match result {
        Ok(id) if id.is_empty() => {}
        Ok(id) => span.text("messaging.message.id", id.as_str()),
        Err(PublishError::Rejected(rejection, _)) => span.fail(rejection.code()),
        Err(PublishError::Unavailable(_) | PublishError::NoReply(_)) => span.fail("redis-away"),
    }
}
