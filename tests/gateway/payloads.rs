//! Payloads are delivered byte for byte, as far as SSE can represent them.

use crate::harness::{Gateway, Publisher, Redis, Sse, user};

/// A Redis, a recorder, a stream of user 1, and a publisher.
async fn setup() -> (Redis, Gateway, Sse, Publisher) {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let sse = gateway.connect("1").await;
    let publisher = redis.publisher().await;
    (redis, gateway, sse, publisher)
}

#[tokio::test]
async fn envelope_payload_is_relayed_byte_for_byte() {
    let (_redis, _gateway, mut sse, mut publisher) = setup().await;
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let payloads = [
        r#"{ "b" :  1.50, "a":2,"a":3 , "u":"\u00e9\/\ud83d\udc0e" , "n":1e400 }"#,
        "123456789012345678901234567890.000",
        "-0",
        r#""text""#,
        "\"\"",
        "null",
        "false",
        "[]",
        "{}",
        r#"{"payload":1,"type":"inner"}"#,
        r#""\ud800""#,
        "\"\u{2028}\u{feff}\"",
        &deep,
    ];
    for payload in payloads {
        for message in [
            format!("{{\"type\":\"t\",\"payload\":{payload}}}"),
            format!(
                " {{ \"payload\" : {payload} , \"more\":[{{\"payload\":0}}], \"type\":\"t\" }}\n"
            ),
        ] {
            publisher.plain(user("1"), message).await;
            let event = sse.app_event().await;
            assert_eq!((event.event.as_str(), event.data.as_str()), ("t", payload));
        }
    }
    // Without `type`, or with null, the event is a `message`. Other members are ignored, also if
    // their name is invalid Unicode.
    for message in [
        r#"{"payload":1}"#,
        r#"{"type":null,"payload":1,"id":null,"retry":null}"#,
        r#"{"\ud800":0,"payload":1}"#,
    ] {
        publisher.plain(user("1"), message).await;
        let event = sse.app_event().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), ("message", "1"), "{message}");
    }
    // Escapes in names are decoded.
    let escaped = r#"{"\u0074ype":"\u017elu\u0165 \"x\"","payload":2}"#;
    publisher.plain(user("1"), escaped).await;
    assert_eq!(sse.app_event().await.event, "žluť \"x\"");
}

#[tokio::test]
async fn text_without_envelope_is_relayed_as_message() {
    let (_redis, _gateway, mut sse, mut publisher) = setup().await;
    let messages = [
        "hello",
        "",
        " ",
        " leading and trailing ",
        ":colon",
        "data: x",
        r#"{"type":"x"}"#,
        r#"{"type":"sse.gap","data":1}"#,
        r#"{"payload":"#,
        r#"{"type":"x","payload":1} and more"#,
        r#"[{"payload":1}]"#,
        r#""payload""#,
        "42",
        "null",
        "žluťoučký kůň 🐎 \u{2028}\u{85}\u{10ffff}",
        "\u{feff}with a mark",
        "nul \0 and \u{1b} escape \u{7f}",
    ];
    for message in messages {
        publisher.plain(user("1"), message).await;
        let event = sse.app_event().await;
        let received = (event.event.as_str(), event.data.as_str());
        assert_eq!(received, ("message", message));
    }
}

#[tokio::test]
async fn durable_payload_may_be_any_text() {
    let (redis, gateway, mut sse, mut publisher) = setup().await;
    let since = sse.last_id().to_string();
    let payloads = [
        "",
        " two  spaces",
        "no json {",
        "žluťoučký kůň 🐎 \u{2028}",
        "nul \0 in it",
        "\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}",
        r#"{"type":"x","payload":1}"#,
    ];
    for payload in payloads {
        let done = publisher.durable(&user("1"), "t", payload, &[]).await;
        done.unwrap();
        let event = sse.app_event().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), ("t", payload));
    }
    // The log contains the same payloads.
    let mut again = gateway.resume("1", &since).await;
    for payload in payloads {
        assert_eq!(again.app_event().await.data, payload);
    }
    drop(redis);
}

#[tokio::test]
async fn each_line_ending_starts_a_new_data_line() {
    let (redis, gateway, mut sse, mut publisher) = setup().await;
    let since = sse.last_id().to_string();
    let texts = [
        ("a\nb\r\nc\rd", "a\nb\nc\nd"),
        ("a\n", "a\n"),
        ("\n", "\n"),
        ("\r\n\r\n", "\n\n"),
        ("\n\r", "\n\n"),
        ("\r\r\n\n", "\n\n\n"),
        ("a\n\nid: 9-9\nevent: evil\ndata: x\n\n", "a\n\nid: 9-9\nevent: evil\ndata: x\n\n"),
    ];
    for (text, received) in texts {
        let done = publisher.durable(&user("1"), "t", text, &[]).await;
        let id = done.unwrap();
        let event = sse.app_event().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), ("t", received));
        assert_eq!(event.id, Some(id));
        publisher.plain(user("1"), text).await;
        let event = sse.app_event().await;
        let seen = (event.event.as_str(), event.data.as_str());
        assert_eq!(seen, ("message", received));
    }
    let pretty = "{\"type\":\"p\",\"payload\":{\r\n  \"a\": 1,\n  \"b\": 2\r}}";
    publisher.plain(user("1"), pretty).await;
    assert_eq!(sse.app_event().await.data, "{\n  \"a\": 1,\n  \"b\": 2\n}");
    assert!(!sse.transcript.contains(&b'\r'), "no CR on the wire");
    let mut again = gateway.resume("1", &since).await;
    for (_, received) in texts {
        assert_eq!(again.app_event().await.data, received);
        assert_eq!(again.app_event().await.data, received);
    }
    drop(redis);
}

#[tokio::test]
async fn payload_of_64_kib_passes_one_more_fails() {
    let (redis, gateway, mut sse, mut publisher) = setup().await;
    let since = sse.last_id().to_string();
    let most = "x".repeat(65536);
    let over = "x".repeat(65537);
    // The limit counts bytes, not characters: 65,536 bytes of two-byte characters.
    let wide = "é".repeat(32768);
    let lines = "\n".repeat(65536);
    for text in [&most, &wide, &lines] {
        let done = publisher.durable(&user("1"), "t", text, &[]).await;
        done.unwrap();
        let event = sse.app_event().await;
        assert!(event.data == *text, "durable, {} bytes", event.data.len());
        publisher.plain(user("1"), text).await;
        let event = sse.app_event().await;
        assert!(event.data == *text, "plain, {} bytes", event.data.len());
    }
    let refused = publisher.durable(&user("1"), "t", &over, &[]).await;
    let refused = refused.unwrap_err();
    assert!(refused.starts_with("too-large"), "{refused}");
    publisher.plain(user("1"), &over).await;
    let labels = [("reason", "too-large")];
    gateway.metric_reaches("sse_rejected_total", &labels, 1.0).await;
    let done = publisher.durable(&user("1"), "good", "1", &[]).await;
    done.unwrap();
    assert_eq!(sse.app_event().await.event, "good");
    let mut again = gateway.resume("1", &since).await;
    for text in [&most, &wide, &lines] {
        assert!(again.app_event().await.data == *text);
        assert!(again.app_event().await.data == *text);
    }
    drop(redis);
}

#[tokio::test]
async fn event_size_limit_is_configurable() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("HISTORY__MAX_EVENT_BYTES", "1000").start().await;
    let mut sse = gateway.connect("1").await;
    let over = "x".repeat(1001);
    let refused = redis.durable(&user("1"), "t", over).await.unwrap_err();
    assert!(refused.starts_with("too-large"), "{refused}");
    let most = "x".repeat(1000);
    redis.durable(&user("1"), "t", &most).await.unwrap();
    assert_eq!(sse.app_event().await.data, most);
}
