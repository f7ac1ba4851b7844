//! Clients without a ticket receive the topics that are public, and cannot affect users.

use crate::harness::cluster_load::{publish, user_at};
use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::{Cluster, Gateway, Redis, Sse, encode, eventually, ticket, topic, user};
use crate::http::error;
use crate::revocations::{connections, revoke};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpSocket};

/// A gateway whose topics `news` and `public-…` need no ticket.
fn with_public_topics(redis: &Redis) -> Builder {
    Gateway::durable_only(redis)
        .env("TICKETS__ANONYMOUS_TOPICS", "news,public-*")
        .env("SERVER__HEARTBEAT", "300ms")
}

/// A stream without a ticket, after `sse.connected`.
async fn stream(gateway: &Gateway, query: &str) -> Sse {
    let mut sse = Sse::connect(&gateway.url(&format!("/events{query}")), &[]).await;
    assert_eq!(sse.connected().await.json()["user"], Value::Null);
    sse
}

/// The first event of a stream without a ticket from this address, with the reason of `sse.busy`.
async fn first_event(gateway: &Gateway, address: &str) -> (Sse, String) {
    let headers = [("X-Forwarded-For", address)];
    let mut sse = Sse::connect(&gateway.url("/events"), &headers).await;
    let event = sse.first().await;
    let text = match event.event.as_str() {
        "sse.busy" => format!("busy {}", event.json()["reason"].as_str().unwrap()),
        name => name.to_owned(),
    };
    (sse, text)
}

#[tokio::test]
async fn anonymous_client_receives_only_public_topics() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("an admin's key", "admin")]);
    let gateway = with_public_topics(&redis).env("API_KEYS", &keys).start().await;
    let mut all = Sse::connect(&gateway.url("/events"), &[]).await;
    let connected = all.connected().await.json();
    assert_eq!(connected["user"], Value::Null);
    assert_eq!(connected["topics"], json!(["news", "public-*"]));
    let mut narrowed = stream(&gateway, "?topics=public-a,secret").await;
    for channel in [user("1"), topic("secret"), topic("news")] {
        redis.durable(&channel, "a", "1").await.unwrap();
    }
    let last = redis.durable(&topic("public-a"), "b", "2").await.unwrap();
    assert_eq!(all.app_event().await.event, "a", "{}", all.dump());
    for sse in [&mut all, &mut narrowed] {
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&last), "{}", sse.dump());
    }
    // Nothing in Redis belongs to these clients.
    assert_eq!(redis.command::<Vec<String>>(&["KEYS", "sse:session:*"]).await, [""; 0]);
    let channels: Vec<String> = redis.command(&["PUBSUB", "SHARDCHANNELS"]).await;
    assert_eq!(channels, ["sse:live:{broadcast}"]);
    // Operators see them, and cannot end them by naming a user.
    let listed = connections(&gateway, "").await;
    assert_eq!(listed.iter().map(|c| &c["user"]).collect::<Vec<_>>(), [&Value::Null; 2]);
    for name in ["null", "1"] {
        assert_eq!(connections(&gateway, &format!("?user={name}")).await, Vec::<Value>::new());
        assert_eq!(revoke(&gateway, name, "an admin's key").await, 200);
    }
    let url = gateway.url(&format!("/events/poll?lastEventId={}", encode(&last)));
    let after = redis.durable(&topic("news"), "c", "3").await.unwrap();
    let answer = gateway.http().get(url).send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["events"], json!([{ "id": after, "type": "c", "data": "3" }]));
    assert_eq!(all.app_event().await.id, Some(after));
    let url = gateway.url("/events?topics=a%20b");
    let bad = gateway.http().get(url).send().await.unwrap();
    assert_eq!(error(bad).await, (400, "bad-topics".to_owned()));
}

#[tokio::test]
async fn invalid_ticket_is_never_treated_as_none() {
    let redis = Redis::start().await;
    let gateway = with_public_topics(&redis).env("TICKETS__COOKIE", "sse").start().await;
    let expired = ticket("1").claim("iat", json!(1000)).claim("exp", json!(1030)).jwt();
    let forged = ticket("1").secret("another secret of more than 32 bytes").jwt();
    for (token, code) in [
        ("nonsense", "ticket-malformed"),
        (&expired, "ticket-expired"),
        (&forged, "ticket-bad-signature"),
        ("", "ticket-missing"),
    ] {
        for path in ["/events", "/events/poll"] {
            let get = |path: &str| gateway.http().get(gateway.url(path));
            let in_query = get(&format!("{path}?ticket={token}"));
            let in_header = get(path).header("authorization", format!("Bearer {token}"));
            for request in [in_query, in_header] {
                let answer = request.send().await.unwrap();
                assert_eq!(error(answer).await, (401, code.to_owned()), "{path} {token}");
            }
            if !token.is_empty() {
                let in_cookie = get(path).header("cookie", format!("sse={token}"));
                let answer = in_cookie.send().await.unwrap();
                assert_eq!(error(answer).await, (401, code.to_owned()), "{path} {token}");
            }
        }
    }
    // A browser without the cookie.
    let mut sse = Sse::connect(&gateway.url("/events"), &[("Cookie", "sse=; a=b")]).await;
    assert_eq!(sse.connected().await.json()["user"], Value::Null);
}

#[tokio::test]
async fn strangers_are_limited_and_leave_room_for_users() {
    let redis = Redis::start().await;
    let limited = with_public_topics(&redis)
        .env("SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
        .env("LIMITS__MAX_CONNECTIONS", "6")
        .env("LIMITS__ANONYMOUS_CONNECTIONS_PER_ADDRESS", "2");
    let rated = with_public_topics(&redis)
        .env("SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
        .env("LIMITS__ANONYMOUS_CONNECTS_PER_ADDRESS_PER_MINUTE", "2");
    let (limited, rated) = tokio::join!(limited.start(), rated.start());
    let (a, b, c) = ("2001:db8:0:1::a", "2001:db8:0:1::b", "198.51.100.1");
    let mut open = Vec::new();
    for (address, expected) in [
        (a, "sse.connected"),
        (b, "sse.connected"),
        (a, "busy address-full"),
        (c, "sse.connected"),
        // Half of limits.max_connections.
        (c, "busy anonymous-full"),
    ] {
        let (sse, event) = first_event(&limited, address).await;
        assert_eq!(event, expected, "{address}");
        open.push(sse);
    }
    let poll = limited.http().get(limited.url("/events/poll")).header("x-forwarded-for", c);
    assert_eq!(error(poll.send().await.unwrap()).await, (503, "anonymous-full".to_owned()));
    for name in ["1", "2", "3"] {
        limited.connect(name).await;
    }
    assert_eq!(limited.metric("sse_busy_total", &[("reason", "address-full")]).await, 1.0);
    drop(open);
    eventually("room for another stranger", async || {
        (first_event(&limited, a).await.1 == "sse.connected").then_some(())
    })
    .await;

    for expected in ["sse.connected", "sse.connected", "busy too-often"] {
        assert_eq!(first_event(&rated, a).await.1, expected);
    }
    assert_eq!(first_event(&rated, c).await.1, "sse.connected", "another address");
    for name in ["1", "2", "3"] {
        rated.connect(name).await;
    }
}

#[tokio::test]
async fn anonymous_stream_resumes_over_restarts_of_gateway_and_redis() {
    let redis = Redis::start_persistent("always").await;
    let first = with_public_topics(&redis).start().await;
    let mut sse = stream(&first, "").await;
    let seen = redis.durable(&topic("news"), "a", "1").await.unwrap();
    assert_eq!(sse.app_event().await.id.as_ref(), Some(&seen));
    first.term();
    assert_eq!(sse.next_of("sse.closing").await.json()["reason"], "draining");
    first.wait_exit().await;
    let missed = redis.durable(&topic("public-a"), "a", "2").await.unwrap();

    let second = with_public_topics(&redis).start().await;
    let header = [("Last-Event-ID", sse.last_id())];
    let mut sse = Sse::connect(&second.url("/events"), &header).await;
    assert_eq!(sse.connected().await.json()["resumed"], true);
    assert_eq!(sse.app_event().await.id, Some(missed));
    // The stream stays open while Redis is unavailable, and gets what is published afterwards.
    redis.stop();
    second.not_ready().await;
    redis.start_again().await;
    let after = eventually("an accepted event", async || {
        redis.durable(&topic("news"), "a", "3").await.ok()
    })
    .await;
    sse.until(|event| event.id.as_ref() == Some(&after)).await;
    // An id from nowhere gets a gap, as that of a user does.
    let header = [("Last-Event-ID", "99999999999999-0.zzzzzzz")];
    let mut lost = Sse::connect(&second.url("/events"), &header).await;
    assert_eq!(lost.connected().await.json()["resumed"], false);
    assert_eq!(lost.next_of("sse.gap").await.json()["reason"], "unknown-id");
}

#[tokio::test]
async fn anonymous_stream_reads_one_server_of_a_cluster() {
    let cluster = Cluster::start(3).await;
    let builder = crate::harness::cluster_load::gateway(&cluster);
    let gateway = builder.env("TICKETS__ANONYMOUS_TOPICS", "t").start().await;
    let elsewhere = (cluster.owner_of("{broadcast}").await + 1) % 3;
    let name = user_at(&cluster, elsewhere, 0).await;
    let mut of_user = gateway.connect(&name).await;
    let mut sse = stream(&gateway, "").await;
    publish(&cluster, &topic("t"), "news", 0, 1).await;
    publish(&cluster, &user(&name), "own", 0, 1).await;
    let event = sse.app_event().await;
    let position = event.id.expect("an id");
    assert!(!position.contains('~'), "{position}");
    of_user.next_of("own").await;
    if !of_user.dump().contains("news") {
        of_user.next_of("news").await;
    }
    publish(&cluster, &topic("t"), "news", 1, 1).await;
    assert_eq!(sse.app_event().await.data, "1");
    // Both ids name the same position in the broadcasts.
    for id in [position.as_str(), of_user.last_id()] {
        let header = [("Last-Event-ID", id)];
        let mut resumed = Sse::connect(&gateway.url("/events"), &header).await;
        assert_eq!(resumed.connected().await.json()["resumed"], true, "{id}");
        let event = resumed.app_event().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), ("news", "1"), "{id}");
        assert!(!event.id.expect("an id").contains('~'));
    }
}

/// The number of events in the response to a poll.
async fn events_of(response: reqwest::Response) -> usize {
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    body["events"].as_array().expect("events").len()
}

/// A quarter of the limit is 2 MiB, and each response has 3.6 MB.
#[tokio::test]
async fn unread_responses_of_strangers_use_a_part_of_the_queues() {
    let redis = Redis::start().await;
    let gateway = with_public_topics(&redis)
        .env("LIMITS__QUEUE_BYTES_TOTAL", "8MiB")
        .env("LIMITS__STALL", "60s")
        .start()
        .await;
    let payload = serde_json::to_string(&"v".repeat(60_000)).unwrap();
    for key in 0..60 {
        let key = format!("key {key}");
        let words =
            ["FCALL", "sse_publish", "1", "broadcast:news", "value", &payload, "KEEP", &key];
        redis.command::<String>(&words).await;
    }
    let mut unread = Vec::new();
    for _ in 0..10 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(gateway.public).await.unwrap();
        socket.write_all(b"GET /events/poll HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        unread.push(socket);
        eventually("an unread response", async || {
            (gateway.metric("sse_queued_bytes", &[]).await > 3_000_000.0).then_some(())
        })
        .await;
    }
    let poll = async || reqwest::get(gateway.url("/events/poll")).await.unwrap();
    assert_eq!(error(poll().await).await, (503, "full".to_owned()));
    let history = reqwest::get(gateway.url("/events/history?channel=broadcast:news")).await;
    assert_eq!(error(history.unwrap()).await, (503, "full".to_owned()));
    assert!(gateway.metric("sse_queued_bytes", &[]).await < 4_000_000.0);
    // Users have a part of their own.
    let user = gateway.url(&format!("/events/poll?ticket={}", ticket("1").jwt()));
    let response = events_of(reqwest::get(user).await.unwrap()).await;
    assert_eq!(response, 60);
    drop(unread);
    eventually("a poll with all values", async || {
        let response = poll().await;
        (response.status() == 200 && events_of(response).await == 60).then_some(())
    })
    .await;
    eventually("no bytes are counted", async || {
        (gateway.metric("sse_queued_bytes", &[]).await == 0.0).then_some(())
    })
    .await;
}
