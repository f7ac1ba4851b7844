//! An OpenTelemetry collector: decodes what gateways send by OTLP over HTTP.

use super::eventually;
use super::process::free_port;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A span as the collector received it.
#[derive(Clone, Debug)]
pub struct Received {
    pub span: Span,
    /// `service.instance.id`
    pub instance: String,
    pub service: String,
}

impl Received {
    /// An attribute as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.span.attributes, name)
    }

    /// The trace id in hexadecimal digits.
    pub fn trace(&self) -> String {
        hex::encode(&self.span.trace_id)
    }

    /// Whether the other span is its parent.
    pub fn is_below(&self, other: &Received) -> bool {
        self.span.trace_id == other.span.trace_id && self.span.parent_span_id == other.span.span_id
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.clone()?.value? {
        any_value::Value::StringValue(text) => Some(text),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// A collector on one port. It can be down, refuse requests, or keep them waiting.
pub struct Collector {
    port: u16,
    shared: Arc<Shared>,
}

/// Header fields and body of a request.
type Request = (HashMap<String, String>, Vec<u8>);

struct Shared {
    status: AtomicU16,
    connections: AtomicUsize,
    is_paused: watch::Sender<bool>,
    requests: Mutex<Vec<Request>>,
}

impl Collector {
    /// A collector that is down: nothing listens on its port.
    pub fn down() -> Collector {
        let shared = Shared {
            status: AtomicU16::new(200),
            connections: AtomicUsize::new(0),
            is_paused: watch::Sender::new(false),
            requests: Mutex::default(),
        };
        Collector { port: free_port(), shared: Arc::new(shared) }
    }

    /// A collector that takes all spans.
    pub async fn start() -> Collector {
        let collector = Collector::down();
        collector.up().await;
        collector
    }

    /// Starts to listen.
    pub async fn up(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free");
        let shared = self.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
    }

    /// The value for the setting `tracing.endpoint`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Responds to all further requests with this status; spans of others than 200 are not kept.
    pub fn respond(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// Takes further requests, but does not respond.
    pub fn pause(&self) {
        self.shared.is_paused.send_replace(true);
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The header fields and bodies of all requests.
    pub fn requests(&self) -> Vec<(HashMap<String, String>, Vec<u8>)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// All spans, in the order of their arrival.
    pub fn spans(&self) -> Vec<Received> {
        let mut all = Vec::new();
        for (_, body) in self.requests() {
            let request = ExportTraceServiceRequest::decode(&body[..]).expect("a request of OTLP");
            for spans in request.resource_spans {
                let resource = spans.resource.expect("a resource").attributes;
                let of = |name| attribute(&resource, name).expect("an attribute of the resource");
                let (instance, service) = (of("service.instance.id"), of("service.name"));
                let received =
                    |span| Received { span, instance: instance.clone(), service: service.clone() };
                all.extend(spans.scope_spans.into_iter().flat_map(|s| s.spans).map(received));
            }
        }
        all
    }

    /// Waits for this many spans with a name in a trace, and returns them.
    pub async fn wait_for(&self, trace: &str, name: &str, count: usize) -> Vec<Received> {
        eventually(&format!("{count} spans {name} of {trace}"), || {
            let mut all = self.spans();
            all.retain(|received| received.trace() == trace && received.span.name == name);
            std::future::ready((all.len() >= count).then_some(all))
        })
        .await
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(n) if n > 0 => {}
                _ => return,
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        assert_eq!(head[0], "POST /v1/traces HTTP/1.1");
        let fields = head[1..].iter().filter_map(|line| line.split_once(": "));
        let fields: HashMap<String, String> =
            fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let mut body = vec![0; fields["content-length"].parse().expect("a length")];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let _ = shared.is_paused.subscribe().wait_for(|paused| !paused).await;
        let status = shared.status.load(Ordering::SeqCst);
        if status == 200 {
            shared.requests.lock().unwrap().push((fields, body));
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}
