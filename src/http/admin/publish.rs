//! `POST /api/v1/events`: publishes one event, to test a channel.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};

use super::{Admin, access};
use crate::{
    http::{
        publish::{self as publishing, Publisher},
        request_body, responses,
        traceparent::trace_of,
    },
    settings::Scope,
};

/// Publishes one event. A key with the scope `publish` may do that through `POST /publish`, too.
pub async fn publish(
    request: HttpRequest,
    payload: web::Payload,
    admin: web::Data<Admin>,
) -> HttpResponse {
    let key = match access::operator(&request, &admin, &[Scope::Operate, Scope::Publish]) {
        Ok(key) => key,
        Err(response) => return *response,
    };
    if let Err(denial) = request_body::take(&admin.limits, key.sha256, admin.clock.now_ms()) {
        return denial.response();
    }
    let limit = admin.settings.limits.publish_body_bytes;
    let body = match request_body::read(payload, limit).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    if !publishing::is_one_event(&body) {
        return responses::error(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "the body must be one event; send {\"channel\",\"type\",\"payload\",..}",
        );
    }
    let publisher = Publisher {
        commands: &admin.commands,
        metrics: &admin.metrics,
        tracer: None,
        trace: trace_of(request.headers()),
    };
    publishing::publish_body(&body, publisher).await
}
