//! `POST /publish` and `POST /tickets`, for backends without access to Redis or a JWT library.

use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Redis, Sse, eventually, topic, user};
use crate::http::error;
use reqwest::Response;
use serde_json::{Value, json};

pub async fn post(
    gateway: &Gateway,
    path: &str,
    key: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Response {
    let request = gateway.http().post(gateway.url(path)).body(body);
    let request = key.into_iter().fold(request, |r, key| r.bearer_auth(key));
    request.send().await.expect("a response")
}

pub async fn json_of(answer: Response) -> Value {
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[tokio::test]
async fn publish_accepts_one_event_or_a_list() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("API_KEYS", &api_keys(&[("key", "publish")])).start().await;
    let mut sse = gateway.connect("1").await;
    // The payload must be delivered byte for byte.
    let payload = "{ \"b\" :\t1.50e+3, \"a\":\"\\u00e9\\/\", \"a\": 12345678901234567890123 }";
    let body = format!(
        "{{\"channel\":\"user:1:events\",\"type\":\"t\",\"payload\":{payload},\
         \"id\":\"k\",\"retry\":7000}}"
    );
    let answer = json_of(post(&gateway, "/publish", Some("key"), body.clone()).await).await;
    let event = sse.app_event().await;
    assert_eq!(answer, json!({"id": event.id}));
    assert_eq!(
        (event.event.as_str(), event.data.as_str(), event.retry),
        ("t", payload, Some(7000))
    );
    // A repeated idempotency key returns the first event's id and publishes nothing.
    let again = json_of(post(&gateway, "/publish", Some("key"), body).await).await;
    assert_eq!(again, answer);
    let list = json!([
        {"channel": topic("t"), "payload": "text"},
        {"channel": "nowhere", "type": "t", "payload": 1},
        {"channel": user("1"), "type": "sse.busy", "payload": 1},
        {"channel": user("1"), "type": "t", "payload": "x".repeat(70_000)},
        {"channel": user("1"), "type": "t\nid: 1", "payload": null},
        {"channel": user("1"), "type": "t", "payload": null},
    ]);
    let answer = json_of(post(&gateway, "/publish", Some("key"), list.to_string()).await).await;
    let codes: Vec<&str> =
        answer.as_array().unwrap().iter().map(|r| r["error"].as_str().unwrap_or("")).collect();
    assert_eq!(codes, ["", "bad-channel", "reserved-type", "too-large", "bad-type", ""]);
    assert!(answer[1]["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
    let (first, second) = (sse.app_event().await, sse.app_event().await);
    assert_eq!((first.event.as_str(), first.data.as_str()), ("message", "\"text\""));
    assert_eq!(
        (answer[0]["id"].as_str(), answer[5]["id"].as_str()),
        (first.id.as_deref(), second.id.as_deref())
    );
    assert_eq!((second.event.as_str(), second.data.as_str()), ("t", "null"));
    assert_eq!(json_of(post(&gateway, "/publish", Some("key"), "[]").await).await, json!([]));
    // Published events are in the log and can be replayed.
    let mut back = gateway.resume("1", first.id.as_deref().unwrap()).await;
    assert_eq!(back.app_event().await.id, second.id);
    assert!(gateway.metric("sse_published_total", &[]).await >= 3.0);
}

#[tokio::test]
async fn publish_rejects_invalid_requests_with_a_code() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key", "publish"), ("other", "tickets")]);
    let builder = Gateway::builder(&redis);
    let with = builder.clone().env("API_KEYS", &keys).env("LIMITS__PUBLISH_BODY_BYTES", "100KiB");
    let (gateway, without) = tokio::join!(with.start(), builder.start());
    let good = r#"{"channel":"user:1:events","type":"t","payload":1}"#;
    for path in ["/publish", "/tickets"] {
        for key in [None, Some("key")] {
            assert_eq!(
                error(post(&without, path, key, good).await).await,
                (404, "not-found".to_string()),
                "{path}"
            );
        }
        for (key, status, code) in [
            (None, 401, "api-key-missing"),
            (Some(""), 401, "api-key-unknown"),
            (Some("nobody's"), 401, "api-key-unknown"),
            (Some("KEY"), 401, "api-key-unknown"),
            (Some(if path == "/publish" { "other" } else { "key" }), 403, "scope-missing"),
        ] {
            let received = error(post(&gateway, path, key, good).await).await;
            // `Bearer ` without a value may count as a missing header.
            let same = received.0 == status && (received.1 == code || key == Some(""));
            assert!(same, "{path} {key:?}: {received:?}");
        }
    }
    for body in [
        "",
        "nonsense",
        "1",
        "null",
        "{",
        "[1]",
        "{}",
        r#"{"channel":"user:1:events","type":"t"}"#,
        r#"{"type":"t","payload":1}"#,
        r#"{"channel":"user:1:events","type":"t","payload":1,"unknown":2}"#,
        r#"{"channel":"user:1:events","type":"t","payload":1} x"#,
        r#"{"channel":"user:1:events","type":"t","payload":01}"#,
    ] {
        let received = error(post(&gateway, "/publish", Some("key"), body).await).await;
        assert_eq!(received, (400, "bad-request".to_string()), "{body}");
    }
    let (status, code) =
        error(post(&gateway, "/publish", Some("key"), &b"{\"channel\":\"\xff\"}"[..]).await).await;
    assert_eq!((status, code.as_str()), (400, "bad-request"));
    let single = |channel: &str, kind: &str| {
        json!({"channel": channel, "type": kind, "payload": 1}).to_string()
    };
    for (body, code) in [
        (single("user:1", "t"), "bad-channel"),
        (single("user:a b:events", "t"), "bad-channel"),
        (single("user:1:events", "sse.gap"), "reserved-type"),
        (single("user:1:events", "a\rb"), "bad-type"),
        (single("user:1:events", ""), "bad-type"),
        (format!("{},\"id\":\"{}\"}}", &good[..good.len() - 1], "k".repeat(257)), "bad-key"),
    ] {
        assert_eq!(
            error(post(&gateway, "/publish", Some("key"), body.clone()).await).await,
            (400, code.to_string())
        );
    }
    let large =
        json!({"channel": user("1"), "type": "t", "payload": "x".repeat(66_000)}).to_string();
    assert_eq!(
        error(post(&gateway, "/publish", Some("key"), large).await).await,
        (413, "too-large".to_string())
    );
    assert_eq!(
        redis.log_ids(&user("1")).await,
        Vec::<String>::new(),
        "no event of the batch was published"
    );
}

#[tokio::test]
async fn body_over_the_limit_gets_413() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key", "publish"), ("minter", "tickets")]);
    let gateway = Gateway::builder(&redis)
        .env("API_KEYS", &keys)
        .env("LIMITS__PUBLISH_BODY_BYTES", "64KiB")
        .start()
        .await;
    let body = " ".repeat(65 << 10);
    assert_eq!(error(post(&gateway, "/publish", Some("key"), body.clone()).await).await.0, 413);
    assert_eq!(error(post(&gateway, "/tickets", Some("minter"), body.clone()).await).await.0, 413);
    // Clients without a valid key learn nothing about limits.
    assert_eq!(error(post(&gateway, "/publish", Some("nobody's"), body).await).await.0, 401);
}

#[tokio::test]
async fn tickets_endpoint_mints_valid_tickets() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key", "tickets"), ("other", "publish")]);
    let gateway = Gateway::builder(&redis)
        .env("API_KEYS", &keys)
        .env("TICKETS__ISSUER", "the-gateway")
        .start()
        .await;
    let mint = async |body: Value| post(&gateway, "/tickets", Some("key"), body.to_string()).await;
    for (body, ttl, topics) in [
        (json!({"user": "7"}), 60, json!(["*"])),
        (json!({"user": "7", "ttl": 1}), 1, json!(["*"])),
        (json!({"user": "7", "ttl": 60, "topics": ["a", "b*"]}), 60, json!(["a", "b*"])),
        (json!({"user": "7", "topics": []}), 60, json!([])),
    ] {
        let answer = mint(body.clone()).await;
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let answer = json_of(answer).await;
        assert_eq!(answer["expiresIn"], json!(ttl), "{body}");
        let jwt = answer["ticket"].as_str().expect("a ticket");
        let mut sse = Sse::connect(&gateway.url(&format!("/events?ticket={jwt}")), &[]).await;
        let first = sse.connected().await.json();
        assert_eq!((&first["user"], &first["topics"]), (&json!("7"), &topics), "{body}");
    }
    for body in [
        json!({"user": ""}),
        json!({"user": "a b"}),
        json!({"user": "a*"}),
        json!({"user": "x".repeat(257)}),
        json!({"user": 7}),
        json!({}),
        json!({"user": "7", "ttl": 0}),
        json!({"user": "7", "ttl": 61}),
        json!({"user": "7", "ttl": -1}),
        json!({"user": "7", "ttl": "30s"}),
        json!({"user": "7", "topics": ["a b"]}),
        json!({"user": "7", "topics": "a"}),
        json!({"user": "7", "unknown": 1}),
    ] {
        assert_eq!(
            error(mint(body.clone()).await).await,
            (400, "bad-request".to_string()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn redis_timeout_reports_whether_events_may_be_published() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("API_KEYS", &api_keys(&[("key", "publish")]));
    let gateway = builder.env("REDIS__COMMAND_TIMEOUT", "300ms").start().await;
    let one = json!({"channel": user("1"), "type": "t", "payload": 1});
    let received = async |body: Value| {
        let answer = post(&gateway, "/publish", Some("key"), body.to_string()).await;
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()),
            (503, "1")
        );
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(answer["error"], "redis-away");
        answer["message"].as_str().unwrap().to_owned()
    };
    // On a busy machine the timeout may pass before a command can be sent, or a lost connection may
    // not be noticed yet.
    let becomes = async |body: Value, text: &str| {
        eventually(text, || async { received(body.clone()).await.contains(text).then_some(()) })
            .await;
    };
    // Redis receives the command, but replies after the timeout.
    redis.command::<()>(&["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    for body in [one.clone(), json!([one, one])] {
        becomes(body, "may have been published").await;
    }
    redis.command::<()>(&["CLIENT", "UNPAUSE"]).await;
    // If no command could be sent, nothing was published.
    redis.stop();
    for body in [one.clone(), json!([one, one])] {
        becomes(body, "nothing was published").await;
    }
}

#[tokio::test]
async fn malformed_member_rejects_its_event_and_no_other() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis)
        .env("API_KEYS", &api_keys(&[("key", "publish")]))
        .start()
        .await;
    let mut sse = gateway.connect("1").await;
    for (member, value, code) in [
        ("channel", json!(5), "bad-channel"),
        ("type", json!(7), "bad-type"),
        ("type", json!(["t"]), "bad-type"),
        ("id", json!(7), "bad-key"),
        ("id", json!(""), "bad-key"),
        ("retry", json!(1.5), "bad-retry"),
        ("retry", json!(-1), "bad-retry"),
        ("retry", json!("5"), "bad-retry"),
        ("retry", json!(86_400_001), "bad-retry"),
    ] {
        let good = json!({"channel": user("1"), "type": "t", "payload": value});
        let mut bad = good.clone();
        bad[member] = value;
        let received = error(post(&gateway, "/publish", Some("key"), bad.to_string()).await).await;
        assert_eq!(received, (400, code.to_string()), "{bad}");
        let list = json!([good, bad, good]);
        let answer = json_of(post(&gateway, "/publish", Some("key"), list.to_string()).await).await;
        assert_eq!(answer[1]["error"], code, "{bad}");
        assert!(answer[1]["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
        for n in [0, 2] {
            assert_eq!(sse.app_event().await.id.as_deref(), answer[n]["id"].as_str(), "{answer}");
        }
    }
    // `null` counts as absent.
    let nulls =
        json!({"channel": user("1"), "type": null, "payload": null, "id": null, "retry": null});
    let answer = json_of(post(&gateway, "/publish", Some("key"), nulls.to_string()).await).await;
    let event = sse.app_event().await;
    assert_eq!((event.id.as_deref(), event.event.as_str()), (answer["id"].as_str(), "message"));
}
