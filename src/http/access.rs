//! The access log. It contains the route, but never a query (which contains the ticket), an unknown
//! path, a referrer or an unknown method, because a client could put a ticket into any of them. A
//! stream is logged when it begins.

use std::sync::Arc;

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
    web,
};

use super::{
    client_address::client_address, request_id::RequestId, traceparent::trace_of, worker::Worker,
};

const TARGET: &str = "sse_gateway::access";
const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::HEAD,
    Method::OPTIONS,
];

/// The connection of a request for a stream or poll, for its line in the access log.
pub struct OpenedConnection {
    /// Id of the connection, as in its `sse.connected`.
    pub id: String,
    /// The user; `None`: an anonymous client.
    pub user: Option<Arc<str>>,
}

/// Logs method, route, status, peer, client (the peer, or the address that a trusted proxy names)
/// and id of a request, the connection and user of a stream or poll, and the id of the trace that
/// the request names.
///
/// # Errors
/// Those of the handlers.
pub async fn log(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if let Some(worker) = request.app_data::<web::Data<Worker>>() {
        worker.context.metrics.requests.inc();
    }
    let response = next.call(request).await?;
    if tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        write(response.request(), response.status().as_u16());
    }
    Ok(response)
}

fn write(request: &HttpRequest, status: u16) {
    let peer = request.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    let worker = request.app_data::<web::Data<Worker>>();
    let client = worker.and_then(|worker| client_address(request, &worker.context.settings.server));
    let client = client.map(|address| address.to_string()).unwrap_or_default();
    let route = request.match_pattern().unwrap_or_else(|| "-".to_owned());
    let method = METHODS.into_iter().find(|method| method == request.method());
    let method = method.as_ref().map_or("-", Method::as_str);
    let id = RequestId::of_request(request);
    let request_id = id.as_ref().map_or("-", RequestId::as_str);
    let extensions = request.extensions();
    let opened = extensions.get::<OpenedConnection>();
    let (connection, user) =
        (opened.map(|o| o.id.as_str()), opened.and_then(|o| o.user.as_deref()));
    let trace_id = trace_of(request.headers()).map(|trace| trace.trace_id_text());
    // Without the request's span in the text, which has the same id.
    tracing::info!(
        target: TARGET, parent: None,
        method, route, status, peer, client, request_id, connection, user, trace_id
    );
}
