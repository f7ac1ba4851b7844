//! `since=`: a stream or poll without a last event id begins in the past, and continues live.

use crate::harness::cluster_load::{gateway as cluster_gateway, publish, user_at};
use crate::harness::ticket::Ticket;
use crate::harness::{Cluster, Event, Gateway, Id, Redis, Sse, encode, ticket, topic, user};
use serde_json::{Value, json};

/// The data of the events up to and including `last`, and the reasons of gaps.
async fn data_until(sse: &mut Sse, last: &str) -> Vec<String> {
    let events = sse.until(|event| event.data == last).await;
    let data = |event: Event| match event.event.as_str() {
        "sse.gap" => event.json()["reason"].as_str().unwrap().to_owned(),
        _ => event.data,
    };
    events.into_iter().filter(|event| event.event != "sse.heartbeat").map(data).collect()
}

/// Publishes to the user's channel and to a topic in turn; the data are the numbers of the events.
async fn publish_numbers(redis: &Redis, numbers: std::ops::Range<usize>) -> Vec<Id> {
    let mut ids = Vec::new();
    for n in numbers {
        let channel = if n % 2 == 0 { user("1") } else { topic("t") };
        ids.push(Id::of(&redis.durable(&channel, "n", n.to_string()).await.unwrap()));
    }
    ids
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// The first number whose event has this ms or a later one, as the only order of these events.
fn first_from(ids: &[Id], ms: u64) -> usize {
    ids.iter().position(|id| id.ms >= ms).unwrap_or(ids.len())
}

/// The status and the code of an error.
async fn refused(gateway: &Gateway, path: &str) -> (u16, String) {
    crate::http::error(gateway.http().get(gateway.url(path)).send().await.unwrap()).await
}

/// A stream that a browser opens again, with the last id in the header.
async fn reconnect(gateway: &Gateway, ticket: &Ticket, query: &str, last_id: &str) -> Sse {
    let url = gateway.events_url(ticket, query);
    let mut sse = Sse::connect(&url, &[("Last-Event-ID", last_id)]).await;
    assert_eq!(sse.connected().await.id.as_deref(), Some(last_id));
    sse
}

#[tokio::test]
async fn stream_since_a_time_replays_and_continues_live() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let ids = publish_numbers(&redis, 0..20).await;
    let first = first_from(&ids, ids[10].ms);
    let (exact, same) = (format!("&since={}", ids[10].ms), ticket("1"));
    let mut sse = gateway.connect_with(&same, &exact).await;
    let (begin, connected) = (sse.last_id().to_owned(), sse.dump());
    assert!(connected.contains("resumed\\\":false"), "{connected}");
    publish_numbers(&redis, 20..22).await;
    // That ms is included.
    assert_eq!(data_until(&mut sse, "21").await, numbers(first..22));
    // A client that received nothing else comes back to the same beginning.
    let mut again = reconnect(&gateway, &same, &exact, &begin).await;
    assert_eq!(data_until(&mut again, "21").await, numbers(first..22));
    // The browser's own id wins, and so does that of a new EventSource.
    let mut resumed = reconnect(&gateway, &same, &exact, &ids[18].to_string()).await;
    assert_eq!(data_until(&mut resumed, "21").await, numbers(19..22));
    let query = format!("&since=1d&lastEventId={}", ids[17]);
    let mut resumed = gateway.connect_with(&ticket("1"), &query).await;
    assert_eq!(data_until(&mut resumed, "21").await, numbers(18..22));
    // Another instance has read nothing yet; a ticket limits what is replayed, too.
    let other = Gateway::durable_only(&redis).start().await;
    for since in ["15m", "0", &httpdate_of(ids[0].ms)] {
        let query = format!("&since={}", encode(since));
        for gateway in [&gateway, &other] {
            let mut sse = gateway.connect_with(&ticket("1"), &query).await;
            let mut received = data_until(&mut sse, "21").await;
            // Nothing proves what was there in 1970.
            received.retain(|data| data != "expired" || since != "0");
            assert_eq!(received, numbers(0..22), "{since}");
        }
    }
    let mut own = other.connect_with(&ticket("1").topics(&[]), "&since=15m").await;
    assert_eq!(data_until(&mut own, "2").await, ["0", "2"]);
    for path in ["/events", "/events/poll"] {
        for bad in ["soon", "", "15", "2999-01-01T00:00:00Z"] {
            let path = format!("{path}?ticket={}&since={bad}", ticket("1").jwt());
            assert_eq!(refused(&gateway, &path).await, (400, "bad-since".to_owned()), "{bad}");
        }
    }
}

/// The time in RFC 3339.
fn httpdate_of(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

#[tokio::test]
async fn stream_since_a_time_crosses_epochs_without_reset() {
    let redis = Redis::start_persistent("everysec").await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut ids = publish_numbers(&redis, 0..6).await;
    for restart in 1..3 {
        redis.stop();
        redis.start_again().await;
        gateway.metric_reaches("sse_epoch_changes_total", &[], f64::from(restart)).await;
        gateway.ready().await;
        let first = ids.len();
        ids.extend(publish_numbers(&redis, first..first + 4).await);
    }
    assert!(ids[5].epoch < ids[6].epoch && ids[9].epoch < ids[10].epoch);
    for begin in [2, 7, 11] {
        let (query, same) = (format!("&since={}", ids[begin].ms), ticket("1"));
        let expected = numbers(first_from(&ids, ids[begin].ms)..14);
        let mut sse = gateway.connect_with(&same, &query).await;
        let cursor = sse.last_id().to_owned();
        assert_eq!(data_until(&mut sse, "13").await, expected);
        let mut again = reconnect(&gateway, &same, &query, &cursor).await;
        assert_eq!(data_until(&mut again, "13").await, expected);
    }
    // What was read for these streams does not hide earlier events from others.
    let mut resumed = gateway.resume("1", &ids[0].to_string()).await;
    let received = data_until(&mut resumed, "13").await;
    assert_eq!((&*received[0], &received[1..]), ("reset", &numbers(1..14)[..]));
    // In the current epoch, a later one is noticed.
    let same = ticket("1");
    let cursor = gateway.connect_with(&same, &format!("&since={}", ids[11].ms)).await;
    let cursor = cursor.last_id().to_owned();
    redis.flushall().await;
    let mut again = reconnect(&gateway, &same, "", &cursor).await;
    publish_numbers(&redis, 14..15).await;
    assert_eq!(data_until(&mut again, "14").await, ["reset", "14"]);
}

#[tokio::test]
async fn events_that_are_gone_since_then_are_a_gap() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "10").start().await;
    let mut publisher = redis.publisher().await;
    for n in 0..350 {
        publisher.durable(&user("1"), "n", n.to_string(), &[]).await.unwrap();
    }
    let left = redis.log_ids(&user("1")).await;
    let expected = numbers(350 - left.len()..350);
    let own = || ticket("1").topics(&[]);
    let mut sse = gateway.connect_with(&own(), "&since=15m").await;
    let mut received = data_until(&mut sse, "349").await;
    assert_eq!(received.remove(0), "trimmed");
    assert_eq!(received, expected);
    // From a time at which nothing is missing any more.
    let ms = Id::of(&left[0]).ms + 1;
    let mut sse = gateway.connect_with(&own(), &format!("&since={ms}")).await;
    let received = data_until(&mut sse, "349").await;
    assert!(!received.contains(&"trimmed".to_owned()), "{received:?}");
    // Longer ago than the retention of 24 h.
    redis.durable(&user("2"), "n", "only").await.unwrap();
    let mut sse = gateway.connect_with(&ticket("2").topics(&[]), "&since=2d").await;
    assert_eq!(data_until(&mut sse, "only").await, ["expired", "only"]);
}

#[tokio::test]
async fn poll_since_a_time_returns_the_events_since_then() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let ids = publish_numbers(&redis, 0..6).await;
    let same = ticket("1");
    let poll = async |query: &str| -> Value {
        let url = gateway.url(&format!("/events/poll?ticket={}{query}", same.jwt()));
        let answer = gateway.http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    let data = |answer: &Value| -> Vec<String> {
        assert_eq!(answer["gap"], Value::Null);
        let events = answer["events"].as_array().unwrap().iter();
        events.map(|event| event["data"].as_str().unwrap().to_owned()).collect()
    };
    let answer = poll(&format!("&since={}&wait=30", ids[3].ms)).await;
    assert_eq!(data(&answer), numbers(first_from(&ids, ids[3].ms)..6));
    // The id wins, and nothing comes twice.
    let last = encode(answer["lastEventId"].as_str().unwrap());
    publish_numbers(&redis, 6..7).await;
    let answer = poll(&format!("&since=15m&wait=30&lastEventId={last}")).await;
    assert_eq!(data(&answer), ["6"]);
}

#[tokio::test]
async fn both_parts_of_a_split_stream_begin_at_the_time() {
    let cluster = Cluster::start(3).await;
    let gateway = cluster_gateway(&cluster).start().await;
    let broadcasts = cluster.owner_of("{broadcast}").await;
    let name = user_at(&cluster, (broadcasts + 1) % 3, 0).await;
    for n in [0, 3] {
        publish(&cluster, &user(&name), "own", n, 3).await;
        publish(&cluster, &topic("t"), "news", n, 3).await;
    }
    let same = ticket(&name);
    let mut sse = gateway.connect_with(&same, "&since=15m").await;
    let begin = sse.last_id().to_owned();
    for _ in 0..2 {
        let (mut own, mut news) = (Vec::new(), Vec::new());
        while own.len() < 6 || news.len() < 6 {
            let event = sse.app_event().await;
            let kind = if event.event == "own" { &mut own } else { &mut news };
            assert!(!event.is_system(), "{}", sse.dump());
            kind.push(event.data);
        }
        assert_eq!((own, news), (numbers(0..6), numbers(0..6)));
        sse = reconnect(&gateway, &same, "&since=15m", &begin).await;
    }
}

#[tokio::test]
async fn pattern_narrows_topics_live_and_on_replay() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let allowed = || ticket("1").topics(&["team-7", "team-8*", "news"]);
    let publish = async || {
        for name in ["team-9", "news", "team-7", "sport", "team-8", "team-81"] {
            redis.durable(&topic(name), "n", name).await.unwrap();
        }
        redis.durable(&user("1"), "n", "end").await.unwrap();
    };
    let expected = ["team-7", "team-8", "team-81", "end"];
    let same = allowed();
    let mut live = Sse::connect(&gateway.events_url(&same, "&topics=team-*"), &[]).await;
    let connected = live.connected().await;
    assert_eq!(connected.json()["topics"], json!(["team-7", "team-8*"]));
    publish().await;
    assert_eq!(data_until(&mut live, "end").await, expected);
    // From the replay cache, and from the logs.
    let other = Gateway::durable_only(&redis).start().await;
    for gateway in [&gateway, &other] {
        let query = format!("&topics=team-*&lastEventId={}", connected.last_id);
        let mut replayed = gateway.connect_with(&allowed(), &query).await;
        assert_eq!(data_until(&mut replayed, "end").await, expected);
    }
    let all = ticket("1").topics(&["*"]);
    let mut sse = gateway.connect_with(&all, "&topics=team-8*,news&since=15m").await;
    assert_eq!(data_until(&mut sse, "end").await, ["news", "team-8", "team-81", "end"]);
    for bad in ["a*b", "**", &["a*"; 257].join(",")] {
        let path = format!("/events?ticket={}&topics={bad}", ticket("1").jwt());
        assert_eq!(refused(&gateway, &path).await, (400, "bad-topics".to_owned()), "{bad}");
    }
}
