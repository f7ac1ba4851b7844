//! Published events arrive once, in order, with name and id, at authorized clients only.

use crate::harness::{Gateway, Id, Redis, Sse, eventually, ticket, topic, user};
use serde_json::json;

#[tokio::test]
async fn first_frame_and_headers_match_the_contract() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let url = gateway.events_url(&ticket("42"), "");
    let mut sse = Sse::connect(&url, &[("Origin", "https://app.example")]).await;
    assert_eq!(sse.status, 200);
    let expected = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("referrer-policy", "no-referrer"),
    ];
    for (name, value) in expected {
        assert_eq!(sse.header(name), Some(value), "{name}");
    }
    assert_eq!(sse.header("access-control-allow-origin"), None);
    let first = sse.connected().await;
    let frame = String::from_utf8(sse.transcript.clone()).unwrap();
    let fields: Vec<&str> = frame.lines().take(4).collect();
    let names: Vec<&str> = fields.iter().filter_map(|l| l.split(": ").next()).collect();
    assert_eq!(names, ["retry", "id", "event", "data"], "{frame}");
    assert!((2000..=4000).contains(&first.retry.unwrap()), "{frame}");
    assert!(first.own_id() > Id::default());
    let data = first.json();
    assert_eq!(data["user"], "42");
    assert_eq!(data["topics"], json!(["*"]));
    assert_eq!(data["resumed"], false);
    let id = data["connectionId"].as_str().unwrap();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "a UUID: {id}");
    assert_eq!(sse.parser.comments, Vec::<String>::new());
}

#[tokio::test]
async fn retry_is_jittered_between_connections() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("SERVER__RETRY", "10s").start().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let url = gateway.events_url(&ticket("1"), "");
        let retry = Sse::connect(&url, &[]).await.connected().await.retry;
        let retry = retry.unwrap();
        assert!((10_000..=20_000).contains(&retry));
        seen.insert(retry);
    }
    assert!(seen.len() > 1, "no jitter: {seen:?}");
}

#[tokio::test]
async fn durable_publish_arrives_with_its_returned_id() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut sse = gateway.connect("42").await;
    let payload = r#"{"orderId":7}"#;
    let id = redis.durable(&user("42"), "order-completed", payload).await;
    let id = id.unwrap();
    let event = sse.app_event().await;
    assert_eq!(event.event, "order-completed");
    assert_eq!(event.data, payload);
    assert_eq!(event.id, Some(id.clone()));
    assert_eq!(event.retry, None);
    let frame = format!("id: {id}\nevent: order-completed\ndata: {payload}\n\n");
    let transcript = String::from_utf8(sse.transcript.clone()).unwrap();
    assert!(transcript.ends_with(&frame), "{transcript}");
}

#[tokio::test]
async fn plain_publish_arrives_with_name_and_id() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("42").await;
    let before = Id::of(sse.last_id());
    let message = r#"{"type":"order-completed","timestamp":"x","payload":{"orderId":7}}"#;
    redis.plain(user("42"), message).await;
    let event = sse.app_event().await;
    assert_eq!(event.event, "order-completed");
    assert_eq!(event.data, r#"{"orderId":7}"#);
    assert!(event.own_id() > before);
    assert_eq!(redis.log_ids(&user("42")).await, [event.id.unwrap()]);
}

#[tokio::test]
async fn plain_and_durable_publishes_reach_every_instance() {
    let redis = Redis::start().await;
    let (one, two) = tokio::join!(Gateway::start(&redis), Gateway::start(&redis));
    eventually("a recorder", || async {
        (one.is_recorder().await || two.is_recorder().await).then_some(())
    })
    .await;
    let mut first = one.connect("42").await;
    let mut second = two.connect("42").await;
    for n in 0..20 {
        let body = format!("{{\"n\":{n}}}");
        redis.durable(&user("42"), "d", &body).await.unwrap();
        let event = first.app_event().await;
        assert_eq!((event.event.as_str(), &event.data), ("d", &body));
        assert_eq!(second.app_event().await, event);
        let message = format!("{{\"type\":\"b\",\"payload\":{body}}}");
        redis.plain(topic("all"), message).await;
        let event = first.app_event().await;
        assert_eq!((event.event.as_str(), &event.data), ("b", &body));
        assert_eq!(second.app_event().await, event);
    }
}

#[tokio::test]
async fn events_of_other_users_never_arrive() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let users = ["1", "11", "a:b", "A:b", "1:events", "x/y@z"];
    let mut streams = Vec::new();
    for name in users {
        streams.push(gateway.connect(name).await);
    }
    for name in users {
        redis.durable(&user(name), "mine", name).await.unwrap();
        redis.plain(user(name), name).await;
    }
    redis.durable(&topic("end"), "end", "").await.unwrap();
    for (name, sse) in users.iter().zip(&mut streams) {
        let mut received: Vec<(String, String)> = Vec::new();
        // Plain publishes pass through the recorder and may arrive after the end mark.
        while received.len() < 3 {
            let event = sse.app_event().await;
            received.push((event.event, event.data));
        }
        received.sort();
        let mine = |kind: &str, data: &str| (kind.to_string(), data.to_string());
        let expected = [mine("end", ""), mine("message", name), mine("mine", name)];
        assert_eq!(received, expected);
    }
    redis.durable(&topic("end"), "end", "").await.unwrap();
    for sse in &mut streams {
        assert_eq!(sse.app_event().await.event, "end");
    }
}

#[tokio::test]
async fn events_arrive_in_id_order_across_channels() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    let channels = [user("1"), topic("a"), topic("b")];
    let mut publisher = redis.publisher().await;
    for n in 0..600 {
        let channel = &channels[n % 3];
        let data = n.to_string();
        if n % 2 == 0 {
            let done = publisher.durable(channel, "d", &data, &[]).await;
            done.unwrap();
        } else {
            publisher.plain(channel, &data).await;
        }
    }
    let (mut last, mut durable, mut plain) = (Id::of(sse.last_id()), Vec::new(), Vec::new());
    while durable.len() + plain.len() < 600 {
        let event = sse.app_event().await;
        let id = event.own_id();
        assert!(id > last, "{id} after {last}");
        last = id;
        let list = if event.event == "d" { &mut durable } else { &mut plain };
        list.push(event.data.parse::<usize>().unwrap());
    }
    let every_second = |start| (start..600).step_by(2).collect::<Vec<usize>>();
    assert_eq!(durable, every_second(0));
    assert_eq!(plain, every_second(1));
}

#[tokio::test]
async fn retry_of_the_publisher_reaches_the_client() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    let mut publisher = redis.publisher().await;
    let options = ["RETRY", "5000"];
    let done = publisher.durable(&user("1"), "r", "1", &options).await;
    done.unwrap();
    assert_eq!(sse.app_event().await.retry, Some(5000));
    let message = r#"{"type":"r","payload":2,"retry":6000}"#;
    publisher.plain(user("1"), message).await;
    assert_eq!(sse.app_event().await.retry, Some(6000));
    publisher.plain(user("1"), "plain").await;
    assert_eq!(sse.app_event().await.retry, None);
}

#[tokio::test]
async fn second_event_with_the_same_key_is_dropped() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("HISTORY__DEDUPE_WINDOW", "5s").start().await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    let mut publisher = redis.publisher().await;
    let key = ["KEY", "my key, with: anything {in} it ž"];
    let me = user("1");
    publisher.durable(&me, "a", "1", &key).await.unwrap();
    let again = publisher.durable(&me, "a", "2", &key).await;
    again.expect("a repeated publish is no error");
    // Keys are per channel. The envelope's `id` is equivalent to KEY.
    publisher.durable(&topic("t"), "a", "3", &key).await.unwrap();
    let envelope = |n: u32, id: &str| json!({"type": "a", "payload": n, "id": id}).to_string();
    publisher.plain(&me, envelope(4, key[1])).await;
    publisher.plain(&me, envelope(5, "another")).await;
    publisher.plain(&me, envelope(6, "another")).await;
    publisher.plain(&me, envelope(7, "a third")).await;
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(sse.app_event().await.data);
    }
    assert_eq!(received, ["1", "3", "5", "7"]);
    // After the window, the key can be used again.
    let name = format!("sse:dedupe:{{{me}}} {}", key[1]);
    eventually("the end of the window", || async {
        (redis.command::<i64>(&["EXISTS", &name]).await == 0).then_some(())
    })
    .await;
    publisher.durable(&me, "a", "8", &key).await.unwrap();
    assert_eq!(sse.app_event().await.data, "8");
}

#[tokio::test]
async fn topics_are_filtered_by_ticket_and_by_query() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let wildcard = ticket("2").topics(&["news.*", "orders"]);
    let mut streams = [
        (
            gateway.connect_with(&ticket("1"), "").await,
            "orders.eu orders news.cz news. news Orders",
        ),
        (gateway.connect_with(&ticket("2").topics(&["orders"]), "").await, "orders"),
        (gateway.connect_with(&wildcard, "").await, "orders news.cz news."),
        (gateway.connect_with(&ticket("2").topics(&[]), "").await, ""),
        (
            gateway.connect_with(&ticket("2").topics(&["*"]), "").await,
            "orders.eu orders news.cz news. news Orders",
        ),
        (gateway.connect_with(&ticket("2"), "&topics=news.cz,orders").await, "orders news.cz"),
        (
            gateway.connect_with(&ticket("2").topics(&["news.*"]), "&topics=news.cz").await,
            "news.cz",
        ),
    ];
    for name in ["orders.eu", "orders", "news.cz", "news.", "news", "Orders"] {
        redis.durable(&topic(name), "t", name).await.unwrap();
    }
    // Topics do not affect the user's own channel.
    redis.durable(&user("1"), "end", "").await.unwrap();
    redis.durable(&user("2"), "end", "").await.unwrap();
    for (sse, expected) in &mut streams {
        let mut received = sse.until(|event| event.event == "end").await;
        received.pop();
        let received: Vec<_> = received.into_iter().filter(|e| !e.is_system()).collect();
        let received: Vec<&str> = received.iter().map(|e| e.data.as_str()).collect();
        assert_eq!(received.join(" "), *expected);
    }
}

#[tokio::test]
async fn bearer_ticket_and_named_origin_are_accepted() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis)
        .env("CORS__ALLOWED_ORIGINS", "https://app.example,https://b.example")
        .start()
        .await;
    let bearer = format!("Bearer {}", ticket("1").jwt());
    let headers = [("Authorization", bearer.as_str()), ("Origin", "https://app.example")];
    let mut sse = Sse::connect(&gateway.url("/events"), &headers).await;
    sse.connected().await;
    let allowed = sse.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://app.example"));
    assert_eq!(sse.header("cache-control"), Some("no-cache, no-transform"));
    let strange = [("Origin", "https://evil.example")];
    let sse = Sse::connect(&gateway.events_url(&ticket("1"), ""), &strange).await;
    let allowed = sse.header("access-control-allow-origin");
    assert!(allowed.is_none(), "{allowed:?}");
}

#[tokio::test]
async fn gateways_with_different_prefixes_share_redis_without_interference() {
    let redis = Redis::start().await;
    let app = |name: &str| {
        Gateway::builder(&redis)
            .env("REDIS__KEY_PREFIX", &format!("{name}:"))
            .env("REDIS__CHANNEL_PREFIX", &format!("{name}/"))
    };
    let (one, two, plain) = (app("one"), app("two"), Gateway::builder(&redis));
    let (one, two, plain) = tokio::join!(one.start(), two.start(), plain.start());
    tokio::join!(one.wait_for_recorder(), two.wait_for_recorder(), plain.wait_for_recorder());
    let mut streams = [one.connect("1").await, two.connect("1").await, plain.connect("1").await];
    for turn in ["first", "second"] {
        for prefix in ["one/", "two/", ""] {
            let data = format!("{prefix}{turn}");
            redis.plain(format!("{prefix}{}", user("1")), &data).await;
            redis.plain(format!("{prefix}{}", topic("t")), &data).await;
        }
    }
    for (sse, prefix) in streams.iter_mut().zip(["one/", "two/", ""]) {
        for turn in ["first", "first", "second", "second"] {
            assert_eq!(sse.app_event().await.data, format!("{prefix}{turn}"));
        }
    }
    let keys: Vec<String> = redis.command(&["KEYS", "*"]).await;
    for key in &keys {
        let known = ["one:", "two:", "sse:"];
        assert!(known.iter().any(|p| key.starts_with(p)), "{key}");
    }
    assert!(keys.contains(&format!("one:log:{{one/{}}}", user("1"))), "{keys:?}");
}
