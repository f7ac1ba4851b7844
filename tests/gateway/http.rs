//! HTTP from the outside: protocols, CORS, errors, metrics, the access log.

use crate::harness::keys::{Dir, api_keys};
use crate::harness::parser::Parser;
use crate::harness::{Event, GUARD, Gateway, Redis, Sse, eventually, ticket, topic, user};
use crate::openapi::assert_described;
use reqwest::{Certificate, Client, Method, Response, Version, header};
use serde_json::Value;

/// Status and code of an error response. Its form is checked, and that openapi.json has the error.
pub async fn error(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let kind = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("none")
        .to_string();
    // First, because a stream does not end.
    assert_eq!(kind, "application/json", "{status}");
    let path = answer.url().path().to_owned();
    let text = answer.text().await.expect("a body");
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(json["message"].as_str().is_some_and(|m| !m.is_empty()), "{text}");
    let code = json["error"].as_str().expect("a code");
    assert_described(&path, status, code);
    (status, code.to_owned())
}

/// The next event of a stream read by reqwest.
pub async fn next(answer: &mut Response, parser: &mut Parser) -> Event {
    loop {
        let chunk = tokio::time::timeout(GUARD, answer.chunk()).await.expect("an event in time");
        let chunk = chunk.expect("the stream is open").expect("the stream continues");
        if let Some(event) = parser.feed(&chunk).pop() {
            return event;
        }
    }
}

/// Opens a stream with this client, and checks the protocol and the delivery of an event.
async fn assert_streams(redis: &Redis, client: &Client, url: &str, version: Version) {
    let mut answer = client.get(url).send().await.unwrap_or_else(|e| panic!("{version:?}: {e:?}"));
    assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut parser = Parser::default();
    assert_eq!(next(&mut answer, &mut parser).await.event, "sse.connected");
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(next(&mut answer, &mut parser).await.id, Some(id));
}

#[tokio::test]
async fn http2_without_tls_multiplexes_many_streams() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    assert_streams(&redis, &client, &gateway.events_url(&ticket("1"), ""), Version::HTTP_2).await;
    let mut open = Vec::new();
    for n in 0..20 {
        let mut answer =
            client.get(gateway.events_url(&ticket(&n.to_string()), "")).send().await.unwrap();
        let mut parser = Parser::default();
        next(&mut answer, &mut parser).await;
        open.push((answer, parser));
    }
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    for (answer, parser) in &mut open {
        assert_eq!(next(answer, parser).await.id.as_ref(), Some(&id));
    }
    // HTTP/1.1 on the same port.
    assert_streams(&redis, &Client::new(), &gateway.events_url(&ticket("1"), ""), Version::HTTP_11)
        .await;
}

#[tokio::test]
async fn tls_negotiates_http2_or_http1_by_alpn() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    dir.certificate();
    let gateway = Gateway::builder(&redis)
        .env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"))
        .env("SERVER__TLS__KEY", &dir.text("server.key"))
        .start()
        .await;
    let authority = Certificate::from_pem(dir.read("ca.pem").as_bytes()).unwrap();
    let client = || Client::builder().tls_certs_only([authority.clone()]);
    let url = || gateway.events_url(&ticket("1"), "").replace("http://", "https://");
    assert_streams(&redis, &client().build().unwrap(), &url(), Version::HTTP_2).await;
    assert_streams(&redis, &client().http1_only().build().unwrap(), &url(), Version::HTTP_11).await;
    // Requests without TLS fail on this port.
    assert!(Client::new().get(gateway.events_url(&ticket("1"), "")).send().await.is_err());
    // Vanished clients are noticed over TLS, too.
    eventually("no connection", || async {
        (gateway.metric("sse_connections", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn cors_allows_only_configured_origins() {
    let redis = Redis::start().await;
    let builder = Gateway::builder(&redis);
    let named = builder.clone().env("CORS__ALLOWED_ORIGINS", "https://app.example");
    let any = builder.clone().env("CORS__ALLOWED_ORIGINS", "*");
    let (none, named, any) = tokio::join!(builder.start(), named.start(), any.start());
    let mine = "https://app.example";
    for (gateway, origin, expected) in [
        (&none, mine, None),
        (&named, mine, Some(mine)),
        (&named, "https://evil.example", None),
        (&named, "https://app.example.evil.example", None),
        (&named, "null", None),
        (&any, mine, Some("*")),
        (&any, "https://evil.example", Some("*")),
    ] {
        let allowed = |answer: &Response| {
            let value = answer.headers().get("access-control-allow-origin");
            value.map(|v| v.to_str().unwrap().to_string())
        };
        let get = gateway.http().get(gateway.events_url(&ticket("1"), "")).header("origin", origin);
        let answer = get.send().await.unwrap();
        assert_eq!(answer.status(), 200, "the browser blocks, not the gateway");
        assert_eq!(allowed(&answer).as_deref(), expected, "{origin}");
        assert_eq!(answer.headers()["cache-control"], "no-cache, no-transform");
        // Pages must be able to read the error code of a rejection.
        let answer = gateway
            .http()
            .get(gateway.url("/events"))
            .header("origin", origin)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), allowed(&answer).as_deref()),
            (401, expected),
            "{origin}"
        );
        // The preflight of a fetch with custom headers.
        let preflight = gateway
            .http()
            .request(Method::OPTIONS, gateway.url("/events"))
            .header("origin", origin);
        let preflight = preflight
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization,last-event-id");
        let answer = preflight.send().await.unwrap();
        assert_eq!(allowed(&answer).as_deref(), expected, "preflight of {origin}");
        if expected.is_some() {
            assert!(answer.status().is_success(), "{}", answer.status());
            let headers =
                answer.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
            assert!(
                headers.contains("authorization") && headers.contains("last-event-id"),
                "{headers}"
            );
            let methods = answer.headers()["access-control-allow-methods"].to_str().unwrap();
            assert!(methods.contains("GET"), "{methods}");
        } else {
            assert_eq!(error(answer).await, (403, "origin-not-allowed".to_string()), "{origin}");
        }
        let delete = gateway
            .http()
            .request(Method::OPTIONS, gateway.url("/events"))
            .header("origin", origin);
        let delete = delete.header("access-control-request-method", "DELETE").send().await.unwrap();
        let expected =
            if expected.is_some() { (400, "bad-request") } else { (403, "origin-not-allowed") };
        assert_eq!(error(delete).await, (expected.0, expected.1.to_string()), "{origin}");
    }
}

#[tokio::test]
async fn errors_are_json_with_a_code() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let get =
        async |path: &str| error(gateway.http().get(gateway.url(path)).send().await.unwrap()).await;
    for path in ["/", "/nothing", "/events/", "/events/x", "/metrics", "/readyz", "/connections"] {
        assert_eq!(get(path).await, (404, "not-found".to_string()), "{path}");
    }
    let jwt = ticket("1").jwt();
    for topics in
        ["a*b", "**", "a%20b", "x".repeat(257).as_str(), &vec!["t"; 257].join(","), "a,%0a"]
    {
        for path in ["/events", "/events/poll"] {
            let path = format!("{path}?ticket={jwt}&topics={topics}");
            assert_eq!(get(&path).await, (400, "bad-topics".to_string()), "{path}");
        }
    }
    assert_eq!(
        get(&format!("/events/poll?ticket={jwt}&wait=1h")).await,
        (400, "bad-wait".to_string())
    );
    assert_eq!(get(&format!("/events?ticket={jwt}&topics=%ff")).await.0, 400);
    let admin = async |path: &str| {
        error(gateway.admin_http().get(gateway.admin_url(path)).send().await.unwrap()).await
    };
    for path in ["/events", "/nothing", "/api/v1/nothing"] {
        assert_eq!(admin(path).await, (404, "not-found".to_string()), "{path}");
    }
}

#[tokio::test]
async fn wrong_method_gets_405_with_allowed_methods() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("API_KEYS", &api_keys(&[("key", "publish")])).start().await;
    for (method, path, allowed) in [
        (Method::POST, "/events", "GET"),
        (Method::DELETE, "/events/poll", "GET"),
        (Method::GET, "/publish", "POST"),
        (Method::PUT, "/tickets", "POST"),
    ] {
        let answer =
            gateway.http().request(method.clone(), gateway.url(path)).send().await.unwrap();
        let allow = answer.headers().get("allow").map(|v| v.to_str().unwrap().to_string());
        let (status, code) = error(answer).await;
        assert_eq!((status, code.as_str()), (405, "method-not-allowed"), "{method} {path}");
        assert!(allow.is_some_and(|allow| allow.contains(allowed)), "{method} {path}");
    }
}

/// All documented metrics.
const METRICS: &str = "sse_connections gauge
sse_connections_limit gauge
process_resident_memory_bytes gauge
process_cpu_seconds_total counter
sse_connections_opened_total counter
sse_connections_closed_total counter
sse_events_relayed_total counter
sse_deliveries_total counter
sse_bytes_sent_total counter
sse_publish_to_write_seconds histogram
sse_catch_ups_total counter
sse_replayed_events_total counter
sse_gaps_total counter
sse_spans_total counter
sse_retained_values_sent_total counter
sse_ephemeral_dropped_total counter
sse_undelivered_total counter
sse_presence_users gauge
sse_presence_reports_total counter
sse_queue_overflows_total counter
sse_queued_bytes gauge
sse_queued_bytes_limit gauge
sse_tickets_refused_total counter
sse_busy_total counter
sse_jwks_fetches_total counter
sse_jwks_keys gauge
sse_jwks_age_seconds gauge
sse_reloads_total counter
sse_redis_link_up gauge
sse_redis_reconnects_total counter
sse_watermark_age_seconds gauge
sse_epoch_changes_total counter
sse_redis_rivals_total counter
sse_redis_server_link_up gauge
sse_redis_server_watermark_age_seconds gauge
sse_redis_server_epoch_changes_total counter
sse_redis_slots_moved_total counter
sse_moved_users_total counter
sse_subscriptions gauge
sse_recorder_role gauge
sse_plain_recorded_total counter
sse_plain_relayed_total counter
sse_rejected_total counter
sse_published_total counter
sse_sockets gauge
sse_sockets_limit gauge
sse_sockets_accepted_total counter
sse_sockets_dropped_total counter
sse_accept_errors_total counter
sse_requests_total counter
sse_requests_malformed_total counter
sse_live_malformed_total counter";

#[tokio::test]
async fn documented_metrics_have_help_and_correct_values() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    Sse::connect(&gateway.url("/events"), &[]).await.body().await;
    let mut sse = gateway.connect("1").await;
    redis.durable(&user("1"), "a", "1").await.unwrap();
    redis.plain(topic("t"), "2").await;
    redis.plain(topic("t"), r#"{"type":"sse.x","payload":1}"#).await;
    sse.app_event().await;
    sse.app_event().await;
    gateway.metric_reaches("sse_rejected_total", &[("reason", "reserved-type")], 1.0).await;
    // An event is counted after the stream got it.
    gateway.metric_reaches("sse_deliveries_total", &[], 2.0).await;
    let (_, text) = gateway.admin_get("/metrics").await;
    for line in METRICS.lines() {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{line}");
        let help = text.lines().find_map(|l| l.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 10), "no help: {name}");
    }
    let promised = |name: &str| METRICS.lines().any(|line| line.split(' ').next() == Some(name));
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(promised(name) || !name.starts_with("sse_"), "not documented: {name}");
    }
    let metrics = gateway.metrics().await;
    for (name, labels, value) in [
        ("sse_connections", &[][..], 1.0),
        ("sse_connections_opened_total", &[("transport", "stream")], 1.0),
        ("sse_events_relayed_total", &[("kind", "user")], 1.0),
        ("sse_events_relayed_total", &[("kind", "broadcast")], 1.0),
        ("sse_deliveries_total", &[], 2.0),
        ("sse_redis_link_up", &[], 1.0),
        ("sse_recorder_role", &[("role", "writer")], 1.0),
        ("sse_recorder_role", &[], 1.0),
        ("sse_plain_recorded_total", &[], 1.0),
        ("sse_tickets_refused_total", &[("code", "ticket-missing")], 1.0),
        ("sse_queued_bytes", &[], 0.0),
        ("sse_queued_bytes_limit", &[], 256.0 * 1024.0 * 1024.0),
    ] {
        assert_eq!(metrics.get(name, labels), value, "{name} {labels:?}");
    }
    assert!(metrics.get("sse_bytes_sent_total", &[]) > 100.0);
    assert!(metrics.get("sse_subscriptions", &[]) >= 1.0);
    assert!(metrics.get("sse_watermark_age_seconds", &[]) < 20.0);
    assert!(metrics.get("sse_publish_to_write_seconds_count", &[]) >= 1.0);
    // No label contains a user, channel or id.
    drop(sse);
    gateway.connect("a-very-telling-name").await;
    assert!(!gateway.admin_get("/metrics").await.1.contains("a-very-telling-name"));
}

#[tokio::test]
async fn process_stays_healthy_without_redis() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    redis.freeze();
    gateway.not_ready().await;
    assert_eq!(gateway.admin_get("/healthz").await.0, 200);
    assert_eq!(gateway.admin_get("/metrics").await.0, 200);
    redis.thaw();
    gateway.ready().await;
    redis.stop();
    gateway.not_ready().await;
    assert_eq!(gateway.admin_get("/healthz").await.0, 200);
    let (status, body) = gateway.admin_get("/readyz").await;
    assert_eq!((status, body.contains("redis-away")), (503, true), "{body}");
}

#[tokio::test]
async fn access_log_contains_no_query() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut sse =
        gateway.connect_with(&ticket("1"), "&topics=a-telling-topic&lastEventId=1-1").await;
    let url = gateway.url("/events/poll?wait=0&topics=a-telling-topic&more=a-telling-member");
    gateway.http().get(&url).header("referer", &url).send().await.unwrap();
    gateway.http().get(gateway.url("/nothing?a-telling-topic")).send().await.unwrap();
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(sse.next_of("a").await.id, Some(id));
    drop(sse);
    let access =
        || gateway.log_text().lines().filter(|l| l.contains("sse_gateway::access")).count();
    eventually("three lines of the access log", || {
        std::future::ready((access() >= 3).then_some(()))
    })
    .await;
    for path in ["\"/events\"", "\"/events/poll\""] {
        assert!(gateway.log_contains(path), "{path}");
    }
    assert!(!gateway.log_contains("a-telling"), "{}", gateway.log_text());
}

#[tokio::test]
async fn head_probes_get_the_response_without_a_body() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = gateway.admin_http().head(gateway.admin_url(path)).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(answer.status(), 200, "{path}");
        let get = gateway.admin_http().get(gateway.admin_url(path)).send().await.unwrap();
        assert_eq!(get.headers()["content-type"], kind.as_str(), "{path}");
        assert_eq!(answer.text().await.unwrap(), "", "{path}");
    }
    redis.stop();
    gateway.not_ready().await;
    assert_eq!(
        gateway.admin_http().head(gateway.admin_url("/readyz")).send().await.unwrap().status(),
        503
    );
}
