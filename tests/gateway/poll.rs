//! `GET /events/poll`, for networks that block streaming: the same cursor, one response at a time.

use crate::harness::ticket::Ticket;
use crate::harness::{
    Event, Gateway, Id, Load, Redis, Sse, assert_received, encode, eventually, ticket, topic, user,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Upper bound for a response that does not wait, on a busy machine; below the wait of 30 s that
/// these tests ask for.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Polls once. Returns the JSON of the response. Repeats the request after an error `redis-away`:
/// on a busy machine the link to Redis may time out.
async fn poll(gateway: &Gateway, ticket: &Ticket, query: &str) -> Value {
    let url = gateway.url(&format!("/events/poll?ticket={}{query}", ticket.jwt()));
    let text = eventually("a poll while Redis is available", || async {
        let response = gateway.http().get(&url).send().await.expect("a response");
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/json");
        let cache_control = response.headers().get("cache-control").cloned();
        let text = response.text().await.expect("a body");
        let is_away = status == 503 && text.contains("redis-away");
        assert!(is_away || status == 200, "{status} {text}");
        assert!(is_away || cache_control.is_some_and(|value| value == "no-store"), "{text}");
        (!is_away).then_some(text)
    })
    .await;
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let mut members: Vec<&String> = json.as_object().expect("an object").keys().collect();
    members.sort();
    assert_eq!(members, ["events", "gap", "lastEventId"], "{text}");
    json
}

fn cursor(answer: &Value) -> String {
    let id = answer["lastEventId"].as_str().expect("a lastEventId");
    Id::of(id);
    id.to_string()
}

fn after(cursor: &str, wait: &str) -> String {
    format!("&lastEventId={}&wait={wait}", encode(cursor))
}

/// The events of a response, in the form of stream events.
fn events(answer: &Value) -> Vec<Event> {
    let list = answer["events"].as_array().expect("a list");
    list.iter()
        .map(|event| {
            let text = |name: &str| {
                event[name].as_str().unwrap_or_else(|| panic!("{name}: {event}")).to_string()
            };
            let id = text("id");
            Event {
                id: Some(id.clone()),
                last_id: id,
                event: text("type"),
                data: text("data"),
                retry: None,
            }
        })
        .collect()
}

#[tokio::test]
async fn poll_without_id_returns_the_current_id_immediately() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let before = redis.durable(&user("1"), "a", "1").await.unwrap();
    let started = Instant::now();
    let answer = poll(&gateway, &ticket("1"), "&wait=30").await;
    assert!(started.elapsed() < AT_ONCE, "waited {:?}", started.elapsed());
    assert_eq!((&answer["events"], &answer["gap"]), (&json!([]), &Value::Null));
    assert!(Id::of(&cursor(&answer)) >= Id::of(&before));
    let next = redis.durable(&user("1"), "a", "2").await.unwrap();
    assert!(Id::of(&next) > Id::of(&cursor(&answer)));
    let answer = poll(&gateway, &ticket("1"), &after(&cursor(&answer), "0")).await;
    assert_eq!(events(&answer).len(), 1);
    assert_eq!(answer["events"][0], json!({"id": next, "type": "a", "data": "2"}));
}

#[tokio::test]
async fn poll_with_id_returns_missed_events_immediately() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let start = cursor(&poll(&gateway, &ticket("1"), "").await);
    let payloads =
        ["{\"a\": 1}", "", "two\nlines", "a\r\nb\rc", "žluťoučký \u{1f40e} \u{0}", "\"quoted\""];
    let mut ids = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        let channel = if n % 2 == 0 { user("1") } else { topic("t") };
        ids.push(redis.durable(&channel, &format!("kind {n}"), payload).await.unwrap());
        redis.durable(&user("2"), "other", "not mine").await.unwrap();
    }
    redis.plain(user("1"), "plain").await;
    eventually("the plain one in the log", || async {
        (redis.log_ids(&user("1")).await.len() == 4).then_some(())
    })
    .await;
    let started = Instant::now();
    let answer = poll(&gateway, &ticket("1"), &after(&start, "30")).await;
    assert!(started.elapsed() < AT_ONCE, "waited {:?}", started.elapsed());
    let batch = events(&answer);
    let data: Vec<&str> = batch.iter().map(|e| e.data.as_str()).collect();
    assert_eq!(
        data,
        [
            "{\"a\": 1}",
            "",
            "two\nlines",
            "a\nb\nc",
            "žluťoučký \u{1f40e} \u{0}",
            "\"quoted\"",
            "plain"
        ]
    );
    let batch_ids: Vec<&String> = batch.iter().take(6).filter_map(|e| e.id.as_ref()).collect();
    assert_eq!(batch_ids, ids.iter().collect::<Vec<_>>());
    assert_eq!((batch[0].event.as_str(), batch[6].event.as_str()), ("kind 0", "message"));
    // The cursor may also be in the header or in `last_event_id`.
    for (name, query) in [("last-event-id", ""), ("x", &*format!("&last_event_id={}", ids[4]))] {
        let url = gateway.url(&format!("/events/poll?ticket={}{query}", ticket("1").jwt()));
        let answer = gateway.http().get(url).header(name, &ids[4]).send().await.unwrap();
        let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(events(&json).len(), 2, "{name}");
    }
    // `topics` restricts polls like streams.
    let answer = poll(&gateway, &ticket("1"), &format!("{}&topics=u", after(&start, "0"))).await;
    assert_eq!(events(&answer).len(), 4);
    eventually("no connection", || async {
        (gateway.metric("sse_connections", &[]).await == 0.0).then_some(())
    })
    .await;
    gateway.metric_reaches("sse_connections_closed_total", &[("reason", "poll-done")], 5.0).await;
    assert!(gateway.metric("sse_connections_opened_total", &[("transport", "poll")]).await >= 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poll_returns_at_the_next_event_or_timeout() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let start = cursor(&poll(&gateway, &ticket("1"), "").await);
    let started = Instant::now();
    let answer = poll(&gateway, &ticket("1"), &after(&start, "1")).await;
    assert!(started.elapsed() >= Duration::from_millis(950), "{:?}", started.elapsed());
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert_eq!(events(&answer), []);
    let quiet = cursor(&answer);
    assert!(Id::of(&quiet) >= Id::of(&start), "it never goes back");
    let waiting = async {
        let started = Instant::now();
        (poll(&gateway, &ticket("1"), &after(&quiet, "30")).await, started.elapsed())
    };
    let publishing = async {
        eventually("the poll to wait", || async {
            (gateway.metric("sse_connections", &[]).await == 1.0).then_some(())
        })
        .await;
        redis.durable(&user("1"), "a", "now").await.unwrap()
    };
    let ((answer, took), id) = tokio::join!(waiting, publishing);
    assert!(took < AT_ONCE, "it waited on: {took:?}");
    assert_eq!(answer["events"][0]["id"], json!(id));
    assert!(Id::of(&cursor(&answer)) >= Id::of(&id));
    for wait in ["31", "-1", "abc", "NaN", "inf", ""] {
        let url = gateway.url(&format!(
            "/events/poll?ticket={}{}",
            ticket("1").jwt(),
            after(&quiet, wait)
        ));
        let answer = gateway.http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 400, "wait={wait}");
        let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(json["error"], "bad-wait");
    }
}

#[tokio::test]
async fn gap_is_reported_in_the_gap_member() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("HISTORY__MAX_LEN", "10").start().await;
    let start = cursor(&poll(&gateway, &ticket("1"), "").await);
    let mut publisher = redis.publisher().await;
    for n in 0..400 {
        publisher.durable(&user("1"), "a", n.to_string(), &[]).await.unwrap();
    }
    let answer = poll(&gateway, &ticket("1"), &after(&start, "0")).await;
    assert_eq!(answer["gap"], json!({"reason": "trimmed", "channels": [user("1")], "from": start}));
    let left = events(&answer);
    assert!((10..400).contains(&left.len()), "{} left", left.len());
    assert_eq!(left.last().unwrap().data, "399");
    // A gap is reported once. With `wait=0`, an empty response comes immediately.
    let started = Instant::now();
    let answer = poll(&gateway, &ticket("1"), &after(&cursor(&answer), "0")).await;
    assert_eq!((&answer["gap"], &answer["events"]), (&Value::Null, &json!([])));
    assert!(started.elapsed() < AT_ONCE, "waited {:?}", started.elapsed());
    for id in ["garbage", "99999999999999-0"] {
        let answer = poll(&gateway, &ticket("1"), &after(id, "0")).await;
        assert_eq!(
            (&answer["gap"]["reason"], &answer["gap"]["from"]),
            (&json!("unknown-id"), &json!(id))
        );
        assert_eq!(answer["events"], json!([]));
        // Polling continues from the returned id.
        let id = redis.durable(&user("1"), "a", "next").await.unwrap();
        let answer = poll(&gateway, &ticket("1"), &after(&cursor(&answer), "5")).await;
        assert_eq!((&answer["gap"], &answer["events"][0]["id"]), (&Value::Null, &json!(id)));
    }
}

#[tokio::test]
async fn long_backlog_is_split_into_several_responses() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let same = ticket("1");
    let mut last = cursor(&poll(&gateway, &same, "").await);
    let mut publisher = redis.publisher().await;
    for n in 0..600 {
        publisher.durable(&user("1"), "big", format!("{n:.<5000}"), &[]).await.unwrap();
    }
    let (mut next, mut answers) = (0, 0);
    while next < 600 {
        let answer = poll(&gateway, &same, &after(&last, "0")).await;
        let batch = events(&answer);
        assert!(!batch.is_empty(), "only {next} of 600 came");
        assert!(batch.len() < 400, "{} events in one answer", batch.len());
        for event in batch {
            assert_eq!(event.data.trim_end_matches('.'), next.to_string(), "in answer {answers}");
            next += 1;
        }
        last = cursor(&answer);
        answers += 1;
    }
    assert!(answers > 1, "{answers} answers");
    assert_eq!(poll(&gateway, &same, &after(&last, "0")).await["events"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_under_load_lose_and_duplicate_nothing() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let gateways = Arc::new([one, two]);
    let polls: Arc<[AtomicUsize; 3]> = Arc::default();
    let load = Load::start(&redis, &[user("1"), topic("t"), topic("u"), user("2")], 1000).await;
    let tasks: Vec<_> = (0..3)
        .map(|client: usize| {
            let (gateways, polls) = (gateways.clone(), polls.clone());
            tokio::spawn(async move {
                // One ticket for all polls, as in a page.
                let same = ticket("1");
                let start = cursor(&poll(&gateways[client % 2], &same, "").await);
                let (mut last, mut received, mut answers) = (start.clone(), Vec::new(), 0);
                loop {
                    let wait = ["0", "0.2", "5"][answers % 3];
                    let gateway = &gateways[(client + answers / 4) % 2];
                    let answer = poll(gateway, &same, &after(&last, wait)).await;
                    assert_eq!(answer["gap"], Value::Null);
                    let batch = events(&answer);
                    let end = batch.iter().any(|e| e.event == "end");
                    if let Some(event) = batch.last() {
                        assert!(Id::of(&cursor(&answer)) >= event.own_id());
                    }
                    received.extend(batch);
                    last = cursor(&answer);
                    answers += 1;
                    polls[client].store(answers, Ordering::Relaxed);
                    if end {
                        return (Id::of(&start), received);
                    }
                }
            })
        })
        .collect();
    load.more(3000).await;
    eventually("more than ten polls by each client while events are published", || {
        let enough = polls.iter().all(|polls| polls.load(Ordering::Relaxed) > 10);
        std::future::ready(enough.then_some(()))
    })
    .await;
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    for task in tasks {
        let (start, mut received) = task.await.unwrap();
        assert_eq!(received.pop().unwrap().id.as_deref(), Some(end.as_str()));
        assert_received(&published, &received, |channel| channel != user("2"), start, Id::of(&end));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switching_between_stream_and_poll_loses_nothing() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let load = Load::start(&redis, &[user("1"), topic("t")], 500).await;
    let same = ticket("1");
    let mut sse = one.connect_with(&same, "").await;
    let start = Id::of(sse.last_id());
    let mut received: Vec<Event> = Vec::new();
    for turn in 0..5 {
        let mut left = 40;
        received.extend(
            sse.until(|event| {
                left -= i32::from(!event.is_system());
                left == 0
            })
            .await,
        );
        let mut last = sse.last_id().to_string();
        if turn % 2 == 0 {
            drop(sse);
        }
        for _ in 0..3 {
            let answer = poll(&two, &same, &after(&last, "1")).await;
            assert_eq!(answer["gap"], Value::Null);
            received.extend(events(&answer));
            last = cursor(&answer);
        }
        let header = [("Last-Event-ID", last.as_str())];
        sse = Sse::connect(&one.events_url(&same, ""), &header).await;
        assert_eq!(sse.connected().await.id.as_ref(), Some(&last));
    }
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    received.extend(sse.until(|event| event.event == "end").await);
    received.pop();
    assert!(received.iter().all(|e| e.event != "sse.gap"));
    assert_received(&published, &received, |_| true, start, Id::of(&end));
}
