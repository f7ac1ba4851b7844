//! Invalid messages are rejected, counted and kept for the operator, and cannot inject anything.

use crate::harness::{Gateway, Publisher, Redis, Sse, eventually, log_key, user};

async fn setup() -> (Redis, Gateway, Sse, Publisher) {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let sse = gateway.connect("1").await;
    let publisher = redis.publisher().await;
    (redis, gateway, sse, publisher)
}

/// Publishes invalid plain messages to user 1's channel, given with their reasons. Checks the
/// counters, `sse:rejected:{broadcast}`, and that the next valid message is the next event.
async fn assert_all_rejected(cases: &[(&str, &[u8])]) {
    let (redis, gateway, mut sse, mut publisher) = setup().await;
    for (_, message) in cases {
        publisher.plain(user("1"), message).await;
    }
    publisher.plain(user("1"), "good").await;
    let event = sse.app_event().await;
    let received = (event.event.as_str(), event.data.as_str());
    assert_eq!(received, ("message", "good"), "{}", sse.dump());
    assert_eq!(redis.log_ids(&user("1")).await.len(), 1);
    let total = cases.len() as f64;
    gateway.metric_reaches("sse_rejected_total", &[], total).await;
    let metrics = gateway.metrics().await;
    for (reason, _) in cases {
        let expected = cases.iter().filter(|(other, _)| other == reason).count();
        let counted = metrics.get("sse_rejected_total", &[("reason", reason)]);
        assert_eq!(counted, expected as f64, "{reason}");
    }
    let kept = eventually("all refusals kept", || async {
        let kept = redis.rejected().await;
        (kept.len() >= cases.len()).then_some(kept)
    })
    .await;
    assert_eq!(kept.len(), cases.len());
    for (entry, (reason, message)) in kept.iter().zip(cases) {
        assert_eq!(entry.reason, *reason, "{entry:?}");
        assert_eq!(entry.channel, user("1").as_bytes());
        // Long messages may be truncated.
        let same = entry.message.len().min(200).min(message.len());
        assert!(!entry.message.is_empty(), "{entry:?}");
        assert_eq!(entry.message[..same], message[..same]);
    }
}

#[tokio::test]
async fn plain_messages_with_invalid_type_are_rejected() {
    let long = format!(r#"{{"type":"{}","payload":1}}"#, "x".repeat(129));
    assert_all_rejected(&[
        ("bad-type", br#"{"type":"a\nevent: evil","payload":1}"#),
        ("bad-type", br#"{"type":"a\r","payload":1}"#),
        ("bad-type", br#"{"type":"a\u0000b","payload":1}"#),
        ("bad-type", br#"{"type":"\u007f","payload":1}"#),
        ("bad-type", br#"{"type":"","payload":1}"#),
        ("bad-type", br#"{"type":1,"payload":1}"#),
        ("bad-type", br#"{"type":["a"],"payload":1}"#),
        ("bad-type", br#"{"type":{"a":1},"payload":1}"#),
        ("bad-type", br#"{"type":true,"payload":1}"#),
        ("bad-type", long.as_bytes()),
        ("reserved-type", br#"{"type":"sse.gap","payload":{"reason":"reset"}}"#),
        ("reserved-type", br#"{"type":"sse.","payload":1}"#),
        ("reserved-type", br#"{"type":"\u0073se.connected","payload":1}"#),
    ])
    .await;
}

#[tokio::test]
async fn plain_messages_with_other_invalid_fields_are_rejected() {
    let long_key = format!(r#"{{"type":"a","payload":1,"id":"{}"}}"#, "k".repeat(257));
    let large = "x".repeat(70_000);
    let large_envelope = format!(r#"{{"type":"a","payload":"{large}"}}"#);
    assert_all_rejected(&[
        ("bad-key", long_key.as_bytes()),
        ("bad-key", br#"{"type":"a","payload":1,"id":{"a":1}}"#),
        ("bad-retry", br#"{"type":"a","payload":1,"retry":"soon"}"#),
        ("bad-retry", br#"{"type":"a","payload":1,"retry":-1}"#),
        ("bad-retry", br#"{"type":"a","payload":1,"retry":1.5}"#),
        ("too-large", large.as_bytes()),
        ("too-large", large_envelope.as_bytes()),
        ("not-utf8", b"\xff"),
        ("not-utf8", b"caf\xe9"),
        ("not-utf8", b"\xed\xa0\x80 half a pair"),
        ("not-utf8", b"\xc0\xafoverlong"),
        ("not-utf8", b"{\"type\":\"a\",\"payload\":\"\xe2\x82\"}"),
        ("not-utf8", b"\xf4\x90\x80\x80"),
    ])
    .await;
}

#[tokio::test]
async fn invalid_durable_publishes_are_rejected_with_a_code() {
    let (redis, _gateway, mut sse, mut publisher) = setup().await;
    let long = "x".repeat(129);
    let me = user("1");
    let types: [(&str, &[u8]); 8] = [
        ("bad-type", b""),
        ("bad-type", b"a\nb"),
        ("bad-type", b"a\r"),
        ("bad-type", b"a\0b"),
        ("bad-type", b"\x7f"),
        ("bad-type", long.as_bytes()),
        ("reserved-type", b"sse.gap"),
        ("reserved-type", b"sse."),
    ];
    for (code, kind) in types {
        let done = publisher.durable_bytes(me.as_bytes(), kind, "1", &[]).await;
        let refusal = done.expect_err(&String::from_utf8_lossy(kind));
        assert!(refusal.starts_with(code), "{kind:?}: {refusal}");
    }
    let not_utf8 = publisher.durable_bytes(me.as_bytes(), b"a\xff", "1", &[]).await;
    not_utf8.expect_err("a type that is no text");
    let payloads: [&[u8]; 9] = [
        b"\xff",
        b"a\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"cut \xe2\x82",
    ];
    for payload in payloads {
        let done = publisher.durable(&me, "t", payload, &[]).await;
        let refusal = done.expect_err(&format!("{payload:?}"));
        assert!(refusal.starts_with("not-utf8"), "{payload:?}: {refusal}");
    }
    let long_key = "k".repeat(257);
    for (code, options) in [
        ("bad-key", ["KEY", &long_key]),
        ("bad-retry", ["RETRY", "soon"]),
        ("bad-retry", ["RETRY", "-1"]),
        ("bad-retry", ["RETRY", "1.5"]),
        ("bad-retry", ["RETRY", "1\ndata: x"]),
    ] {
        let done = publisher.durable(&me, "t", "1", &options).await;
        let refusal = done.expect_err(code);
        assert!(refusal.starts_with(code), "{options:?}: {refusal}");
    }
    assert_eq!(redis.log_ids(&me).await.len(), 0);
    publisher.durable(&me, "good", "1", &[]).await.unwrap();
    assert_eq!(sse.app_event().await.event, "good");
}

/// Invalid channel names, most of which match the patterns of the subscriber.
fn bad_channels() -> Vec<Vec<u8>> {
    let long = "x".repeat(257);
    let names = [
        "user::events".to_string(),
        "user:a b:events".into(),
        "user:a,b:events".into(),
        "user:*:events".into(),
        "user:[a]:events".into(),
        "user:ž:events".into(),
        "user:a\nb:events".into(),
        format!("user:{long}:events"),
        "broadcast:".into(),
        "broadcast:*".into(),
        "broadcast:a?".into(),
        "broadcast:a\\b".into(),
        "broadcast:a b".into(),
        format!("broadcast:{long}"),
    ];
    let mut names: Vec<Vec<u8>> = names.map(String::into_bytes).into();
    names.push(b"user:\xff:events".to_vec());
    names
}

#[tokio::test]
async fn invalid_channels_are_rejected() {
    let (redis, gateway, mut sse, mut publisher) = setup().await;
    let strangers = ["other:1", "user:42", "", "sse:live:{user:1:events}", "user:1:events "];
    let strangers = strangers.map(|name| name.as_bytes().to_vec());
    for name in bad_channels().into_iter().chain(strangers) {
        let done = publisher.durable_bytes(&name, b"t", "1", &[]).await;
        let refusal = done.expect_err(&String::from_utf8_lossy(&name));
        assert!(refusal.starts_with("bad-channel"), "{name:?}: {refusal}");
    }
    for name in bad_channels() {
        publisher.plain(&name, "x").await;
    }
    publisher.plain(user("1"), "good").await;
    assert_eq!(sse.app_event().await.data, "good");
    let expected = bad_channels().len();
    let labels = [("reason", "bad-channel")];
    gateway.metric_reaches("sse_rejected_total", &labels, expected as f64).await;
    let kept = redis.rejected().await;
    assert!(kept.iter().all(|entry| entry.reason == "bad-channel"));
    let text = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
    let channels: Vec<_> = kept.iter().map(|entry| text(&entry.channel)).collect();
    assert_eq!(channels, bad_channels().iter().map(text).collect::<Vec<_>>());
    let keys: Vec<String> = redis.command(&["KEYS", "sse:log:*"]).await;
    assert_eq!(keys, [log_key(&user("1"))]);
}

#[tokio::test]
async fn names_of_maximum_length_are_accepted() {
    let (_redis, _gateway, mut sse, mut publisher) = setup().await;
    let topic = format!("broadcast:{}", "t".repeat(256));
    let kind = "é".repeat(64);
    let key = "k".repeat(256);
    let done = publisher.durable(&topic, &kind, "1", &["KEY", &key]).await;
    done.unwrap();
    assert_eq!(sse.app_event().await.event, kind);
    let key = "q".repeat(256);
    let message = format!(r#"{{"type":"{kind}","payload":2,"id":"{key}"}}"#);
    publisher.plain(&topic, message).await;
    assert_eq!(sse.app_event().await.event, kind);
}

#[tokio::test]
async fn event_id_is_never_chosen_by_the_publisher() {
    let (_redis, _gateway, mut sse, mut publisher) = setup().await;
    let forged = ["99999999999999-0", "0-1", "*", "$"];
    for id in forged {
        let message = format!(r#"{{"type":"t","payload":1,"id":"{id}"}}"#);
        publisher.plain(user("1"), message).await;
        let event = sse.app_event().await;
        assert_ne!(event.id.as_deref(), Some(id));
        let key = format!("{id}x");
        let done = publisher.durable(&user("1"), "u", "2", &["KEY", &key]).await;
        let id = done.unwrap();
        let next = sse.app_event().await;
        assert_eq!(next.id, Some(id));
        assert!(next.own_id() > event.own_id());
    }
}

#[tokio::test]
async fn malformed_live_messages_are_ignored() {
    let (redis, gateway, mut sse, mut publisher) = setup().await;
    let live = format!("sse:live:{{{}}}", user("1"));
    let garbage: [&[u8]; 9] = [
        b"",
        b"\n",
        b"no header",
        b"x y z t\npayload",
        b"1-1.1\npayload",
        b"1-1.1 0-0.0 x t\npayload",
        b"\xff\xfe 0-0.0 0 t\n\xff",
        b"99999999999999999999999-0.1 0-0.0 0 t\nx",
        b"1-1.1 0-0.0 0 \nx",
    ];
    for message in garbage {
        redis.command::<i64>(&["SPUBLISH".as_bytes(), live.as_bytes(), message]).await;
    }
    let topic = "1-1.1 0-0.0 0 a,b t\nx";
    redis.command::<i64>(&["SPUBLISH".as_bytes(), b"sse:live:{broadcast}", topic.as_bytes()]).await;
    let done = publisher.durable(&user("1"), "good", "1", &[]).await;
    let id = done.unwrap();
    let event = sse.app_event().await;
    assert_eq!(event.event, "good", "{}", sse.dump());
    assert_eq!(event.id, Some(id));
    assert_eq!(gateway.admin_get("/readyz").await.0, 200);
}
