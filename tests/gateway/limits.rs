//! Connection limits: excess clients get `sse.busy`, which browsers retry, and are admitted as soon
//! as a connection has ended.

use crate::harness::sse::End;
use crate::harness::{Gateway, Redis, Sse, eventually, ticket, topic, user};
use serde_json::{Value, json};

/// Checks that a new client gets `sse.busy` with this reason. Returns its `retry`, ms.
async fn assert_busy(gateway: &Gateway, name: &str, reason: &str) -> u64 {
    let mut sse = Sse::connect(&gateway.events_url(&ticket(name), ""), &[]).await;
    assert_eq!(sse.status, 200);
    assert_eq!(sse.header("content-type"), Some("text/event-stream"));
    assert_eq!(sse.header("connection"), Some("close"));
    let received = sse.event().await;
    assert_eq!(received.event, "sse.busy", "{}", sse.dump());
    assert_eq!(received.json(), json!({"reason": reason}));
    assert_eq!((received.id.as_ref(), received.last_id.as_str()), (None, ""));
    let retry = received.retry.expect("a retry");
    assert!((10_000..=30_000).contains(&retry), "{retry}");
    assert_eq!(sse.next_event().await, None);
    assert_eq!(sse.end, Some(End::Clean));
    retry
}

/// The same for a poll: 503 with `Retry-After`.
async fn assert_poll_busy(gateway: &Gateway, name: &str, reason: &str) {
    let url = gateway.url(&format!("/events/poll?ticket={}", ticket(name).jwt()));
    let answer = gateway.http().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((10..=30).contains(&seconds), "{seconds}");
    let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(json["error"], reason);
}

#[tokio::test]
async fn full_instance_is_busy_until_a_connection_ends() {
    let redis = Redis::start().await;
    let builder =
        Gateway::builder(&redis).env("LIMITS__MAX_CONNECTIONS", "4").env("SERVER__HEARTBEAT", "1h");
    let gateway = builder.start().await;
    let mut streams = Vec::new();
    for n in 0..4 {
        assert_eq!(gateway.admin_get("/readyz").await.0, 200, "{n} of 4");
        streams.push(gateway.connect(&n.to_string()).await);
    }
    let (status, body) = gateway.admin_get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("full"), "{body}");
    assert_eq!(gateway.admin_get("/healthz").await.0, 200);
    let mut retries = std::collections::BTreeSet::new();
    for _ in 0..6 {
        retries.insert(assert_busy(&gateway, "new", "full").await);
    }
    assert!(retries.len() > 1, "no jitter: {retries:?}");
    assert_poll_busy(&gateway, "new", "full").await;
    assert_eq!(gateway.metric("sse_busy_total", &[("reason", "full")]).await, 7.0);
    assert_eq!(gateway.metric("sse_connections", &[]).await, 4.0);
    // Invalid tickets are still rejected.
    let bad = gateway.events_url(&ticket("new").without("jti"), "");
    assert_eq!(Sse::connect(&bad, &[]).await.status, 401);
    // Open streams are unaffected.
    let id = redis.durable(&topic("t"), "a", "1").await.unwrap();
    for sse in &mut streams {
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&id));
    }
    // Each connection that ends makes room for another one, repeatedly.
    for turn in 0..10 {
        streams.remove(0);
        gateway.ready().await;
        streams.push(gateway.connect(&format!("turn{turn}")).await);
        assert_busy(&gateway, "new", "full").await;
    }
    drop(streams);
    eventually("no connection", || async {
        (gateway.metric("sse_connections", &[]).await == 0.0).then_some(())
    })
    .await;
    gateway.ready().await;
    // `sse.busy` does not use up a ticket.
    let same = ticket("again");
    let four = [gateway.connect("1").await, gateway.connect("2").await, gateway.connect("3").await];
    let fourth = gateway.connect("4").await;
    let mut sse = Sse::connect(&gateway.events_url(&same, ""), &[]).await;
    assert_eq!(sse.event().await.event, "sse.busy");
    drop((four, fourth));
    gateway.ready().await;
    gateway.connect_with(&same, "").await;
}

#[tokio::test]
async fn one_user_cannot_use_up_all_connections() {
    let redis = Redis::start().await;
    let builder = Gateway::builder(&redis).env("LIMITS__MAX_CONNECTIONS_PER_USER", "2");
    let gateway = builder.start().await;
    let mut mine = vec![gateway.connect("1").await, gateway.connect("1").await];
    assert_busy(&gateway, "1", "user-full").await;
    assert_poll_busy(&gateway, "1", "user-full").await;
    assert_eq!(gateway.metric("sse_busy_total", &[("reason", "user-full")]).await, 2.0);
    // Other users have their own limit, also with a similar name, and the instance stays ready.
    let other = gateway.connect("11").await;
    assert_eq!(gateway.admin_get("/readyz").await.0, 200);
    mine.remove(0);
    let again = async || {
        let mut sse = Sse::connect(&gateway.events_url(&ticket("1"), ""), &[]).await;
        (sse.event().await.event == "sse.connected").then_some(sse)
    };
    mine.push(eventually("the place to be free", again).await);
    assert_busy(&gateway, "1", "user-full").await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    for sse in &mut mine {
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&id));
    }
    drop(other);
}

#[tokio::test]
async fn reconnect_at_the_limit_takes_over_its_stream() {
    let redis = Redis::start().await;
    for bound in ["LIMITS__MAX_CONNECTIONS", "LIMITS__MAX_CONNECTIONS_PER_USER"] {
        let gateway = Gateway::builder(&redis).env(bound, "1").start().await;
        let same = ticket("1");
        // After a network change the gateway does not yet know that the old stream is gone.
        let mut old = gateway.connect_with(&same, "").await;
        for _ in 0..3 {
            let new = gateway.connect_with(&same, "").await;
            let last = old.rest().await.pop().expect("a last frame");
            assert_eq!(
                (last.event.as_str(), &last.json()["reason"]),
                ("sse.closing", &json!("taken-over")),
                "{bound}"
            );
            old = new;
        }
        assert_busy(&gateway, "1", if bound.ends_with("USER") { "user-full" } else { "full" })
            .await;
    }
}

#[tokio::test]
async fn rejected_clients_use_no_connection() {
    let redis = Redis::start().await;
    let builder =
        Gateway::builder(&redis).env("LIMITS__MAX_CONNECTIONS", "1").env("TICKETS__LEEWAY", "0");
    let gateway = builder.env("TICKETS__RECONNECT_GRACE", "0").start().await;
    let used = ticket("1");
    drop(gateway.connect_with(&used, "").await);
    gateway.ready().await;
    for _ in 0..5 {
        // Rejected before the session, at the session, and because of the query.
        for url in [
            gateway.events_url(&ticket("1").without("jti"), ""),
            gateway.events_url(&used, ""),
            gateway.events_url(&ticket("1"), "&topics=a*b"),
        ] {
            let mut sse = Sse::connect(&url, &[]).await;
            assert!([400, 401].contains(&sse.status), "{}", sse.dump());
            sse.rest().await;
        }
    }
    gateway.connect("1").await;
}
