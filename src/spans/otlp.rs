//! Spans as OTLP: the protobuf of one request.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

pub fn text(name: &'static str, value: String) -> KeyValue {
    attribute(name, Value::StringValue(value))
}

pub fn number(name: &'static str, value: i64) -> KeyValue {
    attribute(name, Value::IntValue(value))
}

fn attribute(name: &'static str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: name.to_owned(), value, ..KeyValue::default() }
}

/// What describes this instance in every request.
pub fn resource(service: &str, instance: &str) -> Resource {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        text("service.name", service.to_owned()),
        text("service.version", version.to_owned()),
        text("service.instance.id", instance.to_owned()),
    ];
    Resource { attributes, ..Resource::default() }
}

/// The body of a request.
pub fn encode(resource: &Resource, spans: &[Span]) -> Bytes {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans =
        ScopeSpans { scope: Some(scope), spans: spans.to_vec(), ..ScopeSpans::default() };
    let resource_spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
}

/// The number of spans that the collector has rejected, by the body of its response.
pub fn rejected(body: &[u8]) -> u64 {
    let response = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    response.partial_success.map_or(0, |partial| partial.rejected_spans.max(0) as u64)
}
