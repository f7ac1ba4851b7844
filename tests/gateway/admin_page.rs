//! The admin page, and its API: what each key may do, what is returned, and that everything is
//! limited in size.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Redis, encode, eventually, log_key, ticket, topic, user};
use crate::http::error;

const READER: &str = "reads";
const OPERATOR: &str = "operates";
const PUBLISHER: &str = "publishes";

fn builder(redis: &Redis) -> Builder {
    let keys = [
        (READER, "admin"),
        (OPERATOR, "admin operate"),
        (PUBLISHER, "admin publish"),
        ("backend", "publish operate"),
    ];
    Gateway::durable_only(redis).env("API_KEYS", &api_keys(&keys))
}

async fn send(gateway: &Gateway, method: Method, path: &str, key: &str, body: &str) -> Response {
    let request = gateway.admin_http().request(method, gateway.admin_url(path));
    let request = if key.is_empty() { request } else { request.bearer_auth(key) };
    request.body(body.to_owned()).send().await.expect("a response")
}

/// The data that a key with the scope `admin` reads.
async fn read(gateway: &Gateway, path: &str) -> Value {
    let answer = send(gateway, Method::GET, path, READER, "").await;
    let status = answer.status();
    assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
    let text = answer.text().await.expect("a body");
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

const READS: [&str; 9] = [
    "/api/v1/key",
    "/api/v1/overview",
    "/api/v1/users",
    "/api/v1/connections?user=1",
    "/api/v1/presence?user=1",
    "/api/v1/channel?channel=broadcast:a",
    "/api/v1/log?channel=broadcast:a",
    "/api/v1/retained?channel=broadcast:a",
    "/api/v1/trace?id=1-1.a",
];

#[tokio::test]
async fn page_is_served_without_data_and_embeds_nothing() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).start().await;
    let page = send(&gateway, Method::GET, "/", "", "").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.headers()[name], value);
    }
    let text = page.text().await.unwrap();
    let instance = read(&gateway, "/api/v1/key").await["instance"].as_str().unwrap().to_owned();
    assert!(!text.contains(&instance), "the page contains data");
    // All that it loads is served here, as what it is.
    let files = text.split('"').filter(|part| part.starts_with("/admin/"));
    let mut files: Vec<String> = files.map(str::to_owned).collect();
    for module in files.clone().into_iter().filter(|file| file.ends_with(".js")) {
        let (_, text) = gateway.admin_get(&module).await;
        let imported = text.split("from './").skip(1).filter_map(|rest| rest.split('\'').next());
        files.extend(imported.map(|name| format!("/admin/{name}")));
    }
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let answer = send(&gateway, Method::GET, &file, "", "").await;
        assert_eq!(answer.status(), 200, "{file}");
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with(if file.ends_with(".css") { "text/css" } else { "text/java" }));
    }
}

#[tokio::test]
async fn key_without_the_scope_reads_and_changes_nothing() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).start().await;
    let event = json!({ "channel": topic("a"), "type": "t", "payload": 1 }).to_string();
    let changes = [
        (Method::DELETE, "/api/v1/connections?user=1", ""),
        (Method::POST, "/api/v1/events", &event),
    ];
    let reads = READS.map(|path| (Method::GET, path, ""));
    for (method, path, body) in reads.into_iter().chain(changes.clone()) {
        for (key, expected) in [
            ("", (401, "api-key-missing")),
            ("unknown", (401, "api-key-unknown")),
            ("backend", (403, "scope-missing")),
        ] {
            let answer = send(&gateway, method.clone(), path, key, body).await;
            assert_eq!(error(answer).await, (expected.0, expected.1.to_owned()), "{path}");
        }
    }
    for (method, path, body) in changes {
        let answer = send(&gateway, method, path, READER, body).await;
        assert_eq!(error(answer).await, (403, "scope-missing".to_owned()), "{path}");
    }
    let answer = send(&gateway, Method::DELETE, "/api/v1/connections?user=1", PUBLISHER, "").await;
    assert_eq!(error(answer).await, (403, "scope-missing".to_owned()));
    assert!(redis.log_ids(&topic("a")).await.is_empty(), "something was published");
    let revoked: Vec<String> = redis.command(&["KEYS", "sse:revoked:*"]).await;
    assert!(revoked.is_empty(), "sessions were ended");
    assert_eq!(read(&gateway, "/api/v1/key").await["scopes"], json!(["admin"]));
}

#[tokio::test]
async fn unknown_keys_are_refused_after_a_while() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).start().await;
    let denied = eventually("too many unknown keys", || async {
        let answer = send(&gateway, Method::GET, "/api/v1/key", "guess", "").await;
        (answer.status() == 429).then_some(answer)
    });
    let denied = denied.await;
    assert!(denied.headers().contains_key("retry-after"));
    assert_eq!(error(denied).await, (429, "too-often".to_owned()));
    // The right key does not tell that it is right. Probes need no key.
    for path in ["/api/v1/overview", "/connections", "/presence?user=1"] {
        // The allowance of one key a second may be there again.
        let refused = eventually("a refusal", || async {
            send(&gateway, Method::GET, path, "guess", "").await;
            let answer = send(&gateway, Method::GET, path, READER, "").await;
            (answer.status() == 429).then_some(answer)
        });
        assert_eq!(error(refused.await).await.0, 429, "{path}");
    }
    assert_eq!(gateway.admin_get("/readyz").await.0, 200);
    assert_eq!(gateway.admin_get("/metrics").await.0, 200);
}

#[tokio::test]
async fn overview_reports_streams_topics_servers_and_gaps() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).env("SERVER__WORKERS", "2").start().await;
    let mut streams = Vec::new();
    for n in 0..4 {
        let topics = if n == 0 { json!(["a", "c.*"]) } else { json!(["a", "b"]) };
        let mut holder = ticket(&n.to_string()).claim("topics", topics);
        if n == 3 {
            holder = holder.claim("filter", json!({ "team": ["x"] }));
        }
        streams.push(gateway.connect_with(&holder, "").await);
    }
    redis.durable(&topic("a"), "t", "1").await.unwrap();
    for stream in &mut streams[..3] {
        stream.app_event().await;
    }
    let query = format!("&lastEventId={}", encode("99999999999999-0.zzzzzzz"));
    let mut resumed = gateway.connect_with(&ticket("gap"), &query).await;
    resumed.next_of("sse.gap").await;
    // An event is counted after a stream got it, and a busy worker may answer too late.
    let state = eventually("all deliveries, and the answers of all workers", || async {
        let state = read(&gateway, "/api/v1/overview").await;
        let is_counted = state["counters"]["deliveries"].as_u64() >= Some(3);
        (is_counted && state["connections"]["complete"] == true).then_some(state)
    })
    .await;
    assert_eq!(state["ready"], true);
    assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&state["connections"]["streams"], &state["connections"]["polls"]),
        (&json!(5), &json!(0))
    );
    let expected = json!([
        { "topic": "a", "connections": 4 },
        { "topic": "b", "connections": 3 },
        { "topic": "*", "connections": 1 },
        { "topic": "c.*", "connections": 1 },
    ]);
    assert_eq!(state["topics"], expected);
    let server = &state["servers"][0];
    assert_eq!((&server["address"], &server["up"]), (&json!(redis.address()), &json!(true)));
    assert!(server["watermarkAgeMs"].is_u64(), "{server}");
    assert_eq!(state["gaps"]["unknown-id"], 1);
    assert_eq!(state["counters"]["broadcasts"], 1);
    assert_eq!(state["recorderRole"], Value::Null);
    assert!(!state.to_string().contains("eyJ"), "a ticket");
}

#[tokio::test]
async fn users_are_found_and_their_sessions_ended() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).env("SERVER__WORKERS", "2").start().await;
    let mut streams = Vec::new();
    for id in ["anna", "anna", "anton", "johanna", ".."] {
        streams.push(gateway.connect(id).await);
    }
    let found = read(&gateway, "/api/v1/users?prefix=an").await;
    let expected = json!([
        { "user": "anna", "connections": 2 }, { "user": "anton", "connections": 1 },
    ]);
    assert_eq!((&found["users"], &found["total"]), (&expected, &json!(2)));
    let limited = read(&gateway, "/api/v1/users?limit=1").await;
    assert_eq!(limited["users"], json!([{ "user": "..", "connections": 1 }]));
    assert_eq!(limited["users"].as_array().map(Vec::len), Some(1));
    assert!(limited["total"].as_u64() >= Some(2), "{limited}");
    let one = read(&gateway, "/api/v1/connections?user=anna").await;
    assert_eq!((&one["total"], &one["presence"]), (&json!(2), &Value::Null));
    assert_eq!(one["connections"][0]["user"], "anna");
    for (path, key) in [("/api/v1/users?limit=0", READER), ("/api/v1/users?limit=1001", READER)] {
        let answer = send(&gateway, Method::GET, path, key, "").await;
        assert_eq!(error(answer).await, (400, "bad-limit".to_owned()));
    }
    for id in ["anna", ".."] {
        let path = format!("/api/v1/connections?user={id}");
        let ended = send(&gateway, Method::DELETE, &path, OPERATOR, "").await;
        assert_eq!(ended.status(), 200, "{id}");
    }
    for (n, id) in [(0, "anna"), (1, "anna"), (4, "..")] {
        let closing = streams[n].next_of("sse.closing").await;
        assert_eq!(closing.json()["reason"], "revoked", "{id}");
    }
    eventually("the end of the streams", || async {
        let left = read(&gateway, "/api/v1/users").await;
        let names = left["users"].as_array().unwrap().iter().map(|u| u["user"].clone());
        (names.collect::<Vec<_>>() == [json!("anton"), json!("johanna")]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn log_and_values_show_payloads_on_request_only() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).env("HISTORY__MAX_EVENT_BYTES", "100000").start().await;
    let channel = topic("a");
    let mut publisher = redis.publisher().await;
    let first = publisher.durable(&channel, "t", "secret-1", &[]).await.unwrap();
    let long = "ä".repeat(20_000);
    let kept = publisher.durable(&channel, "v", &long, &["KEEP", "k"]).await.unwrap();
    let foreign = format!("{}-7", kept.split('-').next().unwrap().parse::<u64>().unwrap() + 1);
    redis.command::<String>(&["XADD", &log_key(&channel), &foreign, "x", "secret-2"]).await;
    let path = format!("/api/v1/log?channel={channel}");
    let log = read(&gateway, &path).await;
    assert_eq!(
        log["events"],
        json!([
            { "id": foreign, "type": null, "bytes": null },
            { "id": kept, "type": "v", "bytes": 40_000, "keep": "k" },
            { "id": first, "type": "t", "bytes": 8 },
        ])
    );
    assert_eq!(log["next"], Value::Null);
    let page = read(&gateway, &format!("{path}&limit=2")).await;
    assert_eq!(page["next"], kept);
    let rest = read(&gateway, &format!("{path}&limit=2&before={kept}&payloads=true")).await;
    assert_eq!(rest["events"][0]["data"], "secret-1");
    assert_eq!((&rest["events"][1], &rest["next"]), (&Value::Null, &Value::Null));
    let values = format!("/api/v1/retained?channel={channel}");
    let without = read(&gateway, &values).await;
    assert_eq!(without["values"][0]["key"], "k");
    assert_eq!(without["values"][0].get("data"), None);
    let with = read(&gateway, &format!("{values}&payloads=true")).await;
    let value = &with["values"][0];
    assert_eq!((&value["truncated"], &value["bytes"]), (&json!(true), &json!(40_000)));
    assert!(value["data"].as_str().unwrap().len() <= 16 << 10);
    let state = read(&gateway, &format!("/api/v1/channel?channel={channel}")).await;
    assert_eq!((&state["length"], &state["firstId"]), (&json!(3), &json!(first)));
    assert_eq!(state["lastId"], foreign);
    let empty = read(&gateway, "/api/v1/channel?channel=broadcast:none").await;
    assert_eq!((&empty["length"], &empty["lastId"]), (&json!(0), &Value::Null));
    let bad = send(&gateway, Method::GET, "/api/v1/log?channel=x", READER, "").await;
    assert_eq!(error(bad).await, (400, "bad-channel".to_owned()));
    redis.command::<String>(&["SET", &log_key(&topic("b")), "x"]).await;
    for path in ["channel", "log"] {
        let path = format!("/api/v1/{path}?channel=broadcast:b");
        let refused = send(&gateway, Method::GET, &path, READER, "").await;
        assert_eq!(error(refused).await, (409, "redis-refused".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn log_is_read_completely_in_pages() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).start().await;
    let channel = user("1");
    let mut published = Vec::new();
    for n in 0..123 {
        published.push(redis.durable(&channel, "t", n.to_string()).await.unwrap());
    }
    for limit in [1000, 122, 61, 50] {
        let (mut seen, mut before) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/log?channel={channel}&limit={limit}&before={before}");
            let page = read(&gateway, &path).await;
            let events = page["events"].as_array().unwrap();
            assert!(events.len() <= limit);
            seen.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => before = next.to_owned(),
                None => break,
            }
        }
        assert!(seen.iter().eq(published.iter().rev()), "limit {limit}");
    }
}

#[tokio::test]
async fn trace_finds_an_event_with_a_gateways_permissions() {
    let redis = Redis::start().await;
    let rights = "+@all -pttl";
    let mut words = vec!["ACL", "SETUSER", "default"];
    words.extend(rights.split(' '));
    redis.command::<String>(&words).await;
    let gateway = builder(&redis).start().await;
    let id = redis.durable(&user("1"), "t", "secret").await.unwrap();
    let found = read(&gateway, &format!("/api/v1/trace?id={id}")).await;
    assert_eq!((&found["found"], &found["search"]["complete"]), (&json!(true), &json!(true)));
    assert_eq!(found["channels"][0]["channel"], user("1"));
    assert_eq!(found["channels"][0]["event"].get("payload"), None);
    let path = format!("/api/v1/trace?id={id}&channel={}&payloads=true", user("1"));
    let named = read(&gateway, &path).await;
    let event = &named["channels"][0]["event"];
    assert_eq!((&event["payload"], &event["truncated"]), (&json!("secret"), &json!(false)));
    let bad = send(&gateway, Method::GET, "/api/v1/trace?id=x", READER, "").await;
    assert_eq!(error(bad).await, (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn test_event_is_published_like_any_other() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).start().await;
    let mut stream = gateway.connect("1").await;
    let event = json!({ "channel": user("1"), "type": "t", "payload": "x" }).to_string();
    for key in [OPERATOR, PUBLISHER] {
        let answer = send(&gateway, Method::POST, "/api/v1/events", key, &event).await;
        assert_eq!(answer.status(), 200);
        let id: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let seen = stream.app_event().await;
        assert_eq!((seen.id.as_deref(), seen.event.as_str()), (id["id"].as_str(), "t"));
    }
    let list = format!("[{event}]");
    let large = format!("{{\"channel\":\"{}\"}}", "x".repeat(1 << 20));
    for (body, expected) in [(&list, (400, "bad-request")), (&large, (413, "too-large"))] {
        let answer = send(&gateway, Method::POST, "/api/v1/events", OPERATOR, body).await;
        assert_eq!(error(answer).await, (expected.0, expected.1.to_owned()));
    }
    let bad = event.replace("user:1:events", "nothing");
    let answer = send(&gateway, Method::POST, "/api/v1/events", OPERATOR, &bad).await;
    assert_eq!(error(answer).await, (400, "bad-channel".to_owned()));
}

#[tokio::test]
async fn reads_report_an_outage_of_redis() {
    let redis = Redis::start().await;
    let gateway = builder(&redis).env("PRESENCE__ENABLED", "true").start().await;
    redis.stop();
    for path in &READS[5..] {
        let answer = send(&gateway, Method::GET, path, READER, "").await;
        assert!(answer.headers().contains_key("retry-after"), "{path}");
        assert_eq!(error(answer).await, (503, "redis-away".to_owned()), "{path}");
    }
    let state = eventually("the loss of the link", || async {
        let state = read(&gateway, "/api/v1/overview").await;
        (state["ready"] == false).then_some(state)
    })
    .await;
    assert_eq!(state["unreadyReason"], "redis-away");
    assert_eq!(state["servers"][0]["up"], false);
    let one = read(&gateway, "/api/v1/connections?user=1").await;
    assert_eq!(one["presence"], Value::Null);
}
