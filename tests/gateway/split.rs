//! Streams with two parts: a client that names a position for each of its sources. They are on one
//! server here, which serves the parts independently of each other, as on a cluster.

use crate::harness::{Gateway, Id, Redis, Sse, ticket, topic, user};

/// The user's part and the broadcasts' part of an id.
fn parts(id: &str) -> (Id, Id) {
    let (user, broadcasts) = id.split_once('~').unwrap_or((id, id));
    (Id::of(user), Id::of(broadcasts))
}

#[tokio::test]
async fn two_part_id_resumes_each_source_from_its_own_position() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("SERVER__HEARTBEAT", "300ms").start().await;
    let same = ticket("1");
    drop(gateway.connect_with(&same, "").await);
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    for n in 0..3 {
        own.push(redis.durable(&user("1"), "own", n.to_string()).await.unwrap());
        shared.push(redis.durable(&topic("t"), "shared", n.to_string()).await.unwrap());
    }
    for (user_part, broadcasts_part) in [(2, 0), (0, 2), (0, 1), (1, 0)] {
        let cursor = format!("{}~{}", own[user_part], shared[broadcasts_part]);
        let header = [("Last-Event-ID", cursor.as_str())];
        let mut sse = Sse::connect(&gateway.events_url(&same, ""), &header).await;
        let connected = sse.connected().await;
        // A part without missed events may be current already.
        let (first, named) = (parts(connected.id.as_deref().unwrap_or("")), parts(&cursor));
        assert!(first.0 >= named.0 && first.1 >= named.1, "{}", sse.dump());
        assert_eq!(connected.json()["resumed"], true);
        let (mut last, mut received) = (parts(&cursor), (Vec::new(), Vec::new()));
        for _ in 0..(2 - user_part) + (2 - broadcasts_part) {
            let event = sse.app_event().await;
            let now = parts(event.id.as_deref().expect("an id"));
            assert!(now.0 >= last.0 && now.1 >= last.1, "{}", sse.dump());
            last = now;
            match event.event.as_str() {
                "own" => received.0.push(now.0.to_string()),
                _ => received.1.push(now.1.to_string()),
            }
        }
        let missed = (own[user_part + 1..].to_vec(), shared[broadcasts_part + 1..].to_vec());
        assert_eq!(received, missed, "{}", sse.dump());
        // A heartbeat is current in both parts, which are then equal.
        let beat = sse.next_of("sse.heartbeat").await;
        let now = parts(beat.id.as_deref().expect("an id"));
        assert!(now.0 >= last.0 && now.0 == now.1, "{}", sse.dump());
        assert!(!sse.dump().contains("sse.gap"), "{}", sse.dump());
    }
}

#[tokio::test]
async fn live_events_of_both_parts_follow_the_resume() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let same = ticket("1");
    drop(gateway.connect_with(&same, "").await);
    let own = redis.durable(&user("1"), "own", "0").await.unwrap();
    let shared = redis.durable(&topic("t"), "shared", "0").await.unwrap();
    let cursor = format!("{own}~{shared}");
    let header = [("Last-Event-ID", cursor.as_str())];
    let mut sse = Sse::connect(&gateway.events_url(&same, ""), &header).await;
    sse.connected().await;
    for n in 0..20 {
        let own = Id::of(&redis.durable(&user("1"), "own", n.to_string()).await.unwrap());
        let event = sse.app_event().await;
        let (user_part, before) = parts(event.id.as_deref().expect("an id"));
        assert_eq!((event.event.as_str(), user_part), ("own", own));
        let shared = Id::of(&redis.durable(&topic("t"), "shared", "").await.unwrap());
        let event = sse.app_event().await;
        let (user_part, broadcasts_part) = parts(event.id.as_deref().expect("an id"));
        assert_eq!((event.event.as_str(), broadcasts_part), ("shared", shared));
        assert!(user_part >= own && before < shared, "{}", sse.dump());
    }
    let last = sse.last_id().to_string();
    drop(sse);
    let missed = redis.durable(&topic("t"), "missed", "").await.unwrap();
    let header = [("Last-Event-ID", last.as_str())];
    let mut sse = Sse::connect(&gateway.events_url(&same, ""), &header).await;
    sse.connected().await;
    let event = sse.app_event().await;
    assert_eq!(parts(event.id.as_deref().expect("an id")).1, Id::of(&missed));
}

#[tokio::test]
async fn malformed_part_of_an_id_restarts_the_stream() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let same = ticket("1");
    let sse = gateway.connect_with(&same, "").await;
    let first = sse.last_id().to_string();
    drop(sse);
    let own = redis.durable(&user("1"), "own", "0").await.unwrap();
    let future = "99999999999999-0.zzzzzzz";
    for cursor in [
        format!("{own}~"),
        format!("{own}~{own}"),
        format!("{own}~{first}~{first}"),
        format!("{first}~{future}"),
    ] {
        let header = [("Last-Event-ID", cursor.as_str())];
        let mut sse = Sse::connect(&gateway.events_url(&same, ""), &header).await;
        assert_eq!(sse.connected().await.json()["resumed"], false, "{cursor}");
        let gap = sse.next_of("sse.gap").await;
        assert_eq!(gap.json()["reason"], "unknown-id", "{cursor}");
        assert_eq!(gap.json()["from"], cursor.as_str());
        let (user_part, broadcasts_part) = parts(gap.id.as_deref().expect("an id"));
        assert!(user_part >= Id::of(&own) && broadcasts_part >= Id::of(&own));
    }
}
