//! Clients that reconnect, to any instance, get every event they missed once and in order.

use crate::harness::load::publish_batch;
use crate::harness::{Gateway, Id, Redis, Sse, assert_received, encode, ticket, topic, user};

#[tokio::test]
async fn cursor_in_header_or_query_replays_missed_events() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let same = ticket("1");
    let mut sse = gateway.connect_with(&same, "").await;
    redis.durable(&user("1"), "a", "seen").await.unwrap();
    let cursor = sse.app_event().await.id.unwrap();
    drop(sse);
    let durable = redis.durable(&user("1"), "b", "durable").await.unwrap();
    redis.plain(user("1"), "plain").await;
    redis.durable(&user("2"), "no", "another's").await.unwrap();
    let broadcast = redis.durable(&topic("t"), "c", "all").await.unwrap();
    let header = [("Last-Event-ID", cursor.as_str())];
    let query = |name: &str| format!("&{name}={}", encode(&cursor));
    let urls = [
        (gateway.events_url(&same, ""), &header[..]),
        (gateway.events_url(&ticket("1"), &query("lastEventId")), &[]),
        (gateway.events_url(&ticket("1"), &query("last_event_id")), &[]),
        (
            gateway.events_url(&ticket("1"), &format!("&lastEventId={}", query("last_event_id"))),
            &[],
        ),
        // EventSource keeps the URL and adds the header, so the header takes precedence.
        (gateway.events_url(&ticket("1"), "&lastEventId=1-1"), &header[..]),
        (gateway.events_url(&ticket("1"), ""), &header[..]),
    ];
    for (turn, (url, headers)) in urls.into_iter().enumerate() {
        let mut sse = Sse::connect(&url, headers).await;
        let first = sse.connected().await;
        assert_eq!(first.id.as_deref(), Some(cursor.as_str()));
        assert_eq!(first.json()["resumed"], true);
        let mut received = Vec::new();
        for _ in 0..3 {
            received.push(sse.app_event().await);
        }
        assert!(received.is_sorted_by(|a, b| a.own_id() < b.own_id()));
        let mut data: Vec<&str> = received.iter().map(|e| e.data.as_str()).collect();
        assert_eq!(data[0], "durable");
        data.sort_unstable();
        assert_eq!(data, ["all", "durable", "plain"], "{}", sse.dump());
        let ids: Vec<_> = received.iter().filter_map(|e| e.id.clone()).collect();
        assert!(ids.contains(&durable) && ids.contains(&broadcast));
        // Live events follow (and are part of the next iterations' replay).
        let id = redis.durable(&user("1"), "live", "").await.unwrap();
        for _ in 0..turn {
            assert_eq!(sse.app_event().await.event, "live");
        }
        assert_eq!(sse.app_event().await.id, Some(id));
    }
}

#[tokio::test]
async fn resume_on_another_instance_replays_missed_events() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let same = ticket("1");
    let sse = one.connect_with(&same, "").await;
    let cursor = sse.last_id().to_string();
    drop(sse);
    let first = redis.durable(&user("1"), "a", "1").await.unwrap();
    let second = redis.durable(&topic("t"), "a", "2").await.unwrap();
    // The same URL on the other instance, as behind a load balancer.
    let header = [("Last-Event-ID", cursor.as_str())];
    let mut sse = Sse::connect(&two.events_url(&same, ""), &header).await;
    assert_eq!(sse.connected().await.id, Some(cursor));
    assert_eq!(sse.app_event().await.id, Some(first));
    assert_eq!(sse.app_event().await.id, Some(second.clone()));
    drop(sse);
    // Reconnecting after catching up repeats nothing.
    let mut sse = one.resume("1", &second).await;
    let third = redis.durable(&user("1"), "a", "3").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(third));
}

#[tokio::test]
async fn connect_without_id_replays_nothing() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    for n in 0..20 {
        let old = redis.durable(&user("1"), "old", n.to_string()).await;
        let old = old.unwrap();
        let mut sse = gateway.connect("1").await;
        assert!(Id::of(sse.last_id()) >= Id::of(&old), "the first id is fresh");
        let id = redis.durable(&user("1"), "new", "").await.unwrap();
        assert_eq!(sse.app_event().await.id, Some(id));
    }
}

#[tokio::test]
async fn heartbeat_cursor_outlives_the_retention() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis)
        .env("SERVER__HEARTBEAT", "200ms")
        .env("HISTORY__RETENTION", "10s")
        .start()
        .await;
    let mut sse = gateway.connect("1").await;
    let start = Id::of(sse.last_id());
    let mut last = start;
    // Longer than the retention by the ids' own clock.
    while last.ms < start.ms + 11_000 {
        let beat = sse.event().await;
        assert_eq!(beat.event, "sse.heartbeat");
        assert!(beat.json()["timestamp"].as_u64().unwrap() >= start.ms - 60_000);
        assert!(beat.own_id() >= last, "a watermark never goes back");
        last = beat.own_id();
    }
    drop(sse);
    let a = redis.durable(&user("1"), "a", "1").await.unwrap();
    let b = redis.durable(&topic("t"), "b", "2").await.unwrap();
    let mut sse = gateway.resume("1", &last.to_string()).await;
    let received = sse.until(|event| event.id.as_ref() == Some(&b)).await;
    let received: Vec<_> = received.iter().filter(|e| e.event != "sse.heartbeat").collect();
    assert_eq!(received.len(), 2, "{}", sse.dump());
    assert_eq!(received[0].id, Some(a));
}

#[tokio::test]
async fn heartbeat_ids_never_pass_undelivered_events() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("SERVER__HEARTBEAT", "100ms").start().await;
    let mut sse = gateway.connect("1").await;
    let mut publisher = redis.publisher().await;
    let mut last = Id::of(sse.last_id());
    for n in 0..100 {
        let done = publisher.durable(&user("1"), "a", n.to_string(), &[]).await;
        let id = Id::of(&done.unwrap());
        loop {
            let event = sse.event().await;
            assert!(event.own_id() >= last);
            last = event.own_id();
            if event.event == "a" {
                assert_eq!(last, id);
                break;
            }
            assert!(last < id, "an id past an event that has not come");
        }
        tokio::time::sleep(std::time::Duration::from_millis(n % 40)).await;
    }
}

#[tokio::test]
async fn replay_of_five_thousand_events_spans_pages() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "10000").start().await;
    let sse = gateway.connect("1").await;
    let cursor = sse.last_id().to_string();
    drop(sse);
    // Half of them are on the user's channel, so that one log has many pages.
    let channels = [user("1"), topic("a"), user("1"), topic("b"), user("1"), user("2")];
    let mut publisher = redis.publisher().await;
    let mut published = Vec::new();
    for _ in 0..60 {
        publish_batch(&mut publisher, &channels, 100, &mut published).await;
    }
    let last = published.iter().rfind(|p| p.channel != user("2")).unwrap();
    let upto = last.id;
    let mine = |channel: &str| channel != user("2");
    let all = |event: &crate::harness::Event| event.id == Some(upto.to_string());
    let mut sse = gateway.resume("1", &cursor).await;
    let received = sse.until(all).await;
    assert_eq!(received.iter().filter(|e| !e.is_system()).count(), 5000);
    assert_received(&published, &received, mine, Id::of(&cursor), upto);
    // From the middle, with restricted topics.
    let middle = published[3000].id;
    let query = format!("&topics=b&lastEventId={middle}");
    let mut sse = gateway.connect_with(&ticket("1"), &query).await;
    let narrowed = |channel: &str| channel == user("1") || channel == topic("b");
    let last = published.iter().rfind(|p| narrowed(&p.channel)).unwrap();
    let received = sse.until(|e| e.id == Some(last.id.to_string())).await;
    assert_received(&published, &received, narrowed, middle, last.id);
    // Concurrent resumes from different cursors share what is read.
    let mut tasks = Vec::new();
    for n in 0..20 {
        let from = published[n * 250].id;
        let mut sse = gateway.resume("1", &from.to_string()).await;
        let goal = upto.to_string();
        tasks.push(tokio::spawn(async move {
            (from, sse.until(|e| e.id.as_ref() == Some(&goal)).await)
        }));
    }
    for task in tasks {
        let (from, received) = task.await.unwrap();
        assert_received(&published, &received, mine, from, upto);
    }
}

#[tokio::test]
async fn large_events_are_replayed_with_back_pressure() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let sse = gateway.connect("1").await;
    let cursor = sse.last_id().to_string();
    drop(sse);
    let mut publisher = redis.publisher().await;
    // 12.8 MB, many times the queue of a connection.
    let mut ids = Vec::new();
    for n in 0..200 {
        let data = format!("{n}:{}", "x".repeat(64_000));
        let done = publisher.durable(&user("1"), "a", data, &[]).await;
        ids.push(done.unwrap());
    }
    let mut sse = gateway.resume("1", &cursor).await;
    for (n, id) in ids.iter().enumerate() {
        let event = sse.app_event().await;
        assert_eq!(event.id.as_ref(), Some(id), "{n}");
        assert!(event.data.starts_with(&format!("{n}:x")));
    }
}

#[tokio::test]
async fn replay_is_limited_to_the_tickets_topics() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let sse = gateway.connect("1").await;
    let cursor = encode(sse.last_id());
    drop(sse);
    for name in ["a", "ab", "b", "c"] {
        redis.durable(&topic(name), "t", name).await.unwrap();
    }
    redis.durable(&user("2"), "t", "another's").await.unwrap();
    redis.durable(&user("1"), "end", "").await.unwrap();
    let cases: [(&[&str], &str, &str); 5] = [
        (&["*"], "", "a ab b c"),
        (&["a*"], "", "a ab"),
        (&["a", "c"], "", "a c"),
        (&[], "", ""),
        (&["a*"], "&topics=a,c", "a"),
    ];
    for (topics, query, expected) in cases {
        let query = format!("{query}&lastEventId={cursor}");
        let ticket = ticket("1").topics(topics);
        let mut sse = gateway.connect_with(&ticket, &query).await;
        let mut received = sse.until(|event| event.event == "end").await;
        received.pop();
        let received: Vec<&str> = received.iter().map(|e| e.data.as_str()).collect();
        assert_eq!(received.join(" "), expected);
    }
}
