//! The `filter` claim: a stream gets the events whose tags it lets pass, and nothing is missing.

use serde_json::{Value, json};

use crate::harness::{Gateway, Redis, Sse, ticket, topic, user};

async fn tagged(redis: &Redis, channel: &str, data: &str, tags: &[&str]) -> String {
    let mut words = vec!["FCALL", "sse_publish", "1", channel, "t", data];
    if !tags.is_empty() {
        words.push("TAGS");
        words.extend(tags);
    }
    redis.command(&words).await
}

async fn connect(gateway: &Gateway, name: &str, filter: Value) -> Sse {
    gateway.connect_with(&ticket(name).claim("filter", filter), "").await
}

async fn data_until(sse: &mut Sse, last: &str) -> Vec<String> {
    let events = sse.until(|event| event.data == last).await;
    events.into_iter().filter(|e| !e.is_system()).map(|e| e.data).collect()
}

#[tokio::test]
async fn streams_get_what_their_filter_lets_pass() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut all = gateway.connect("1").await;
    let mut europe = connect(&gateway, "2", json!({ "region": ["eu"] })).await;
    let mut both = connect(&gateway, "3", json!({ "region": ["eu", "us"], "team": ["a"] })).await;
    let news = topic("news");
    // Enough that a stream that catches up for each event it does not get would be noticed.
    for n in 0..50 {
        tagged(&redis, &news, "jp", &["region=jp"]).await;
        tagged(&redis, &news, &format!("eu {n}"), &["region=eu", "team=b"]).await;
        tagged(&redis, &news, &format!("us {n}"), &["team=a", "region=us"]).await;
    }
    tagged(&redis, &user("3"), "own jp", &["region=jp"]).await;
    tagged(&redis, &user("3"), "own eu", &["region=eu"]).await;
    tagged(&redis, &news, "end", &[]).await;
    let expected = |name: &str| (0..50).map(|n| format!("{name} {n}")).collect::<Vec<_>>();
    assert_eq!(data_until(&mut all, "end").await.len(), 151);
    let got = data_until(&mut europe, "end").await;
    assert_eq!(got, [expected("eu"), vec!["end".to_owned()]].concat(), "{}", europe.dump());
    let got = data_until(&mut both, "end").await;
    let rest = vec!["own eu".to_owned(), "end".to_owned()];
    assert_eq!(got, [expected("us"), rest].concat(), "{}", both.dump());
    // The first event of a channel may make a stream catch up; the others do not.
    let caught_up = gateway.metric("sse_catch_ups_total", &[("cause", "predecessor")]).await;
    assert!(caught_up <= 4.0, "{caught_up}");
}

#[tokio::test]
async fn replay_and_values_are_filtered_too() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let same = ticket("1").claim("filter", json!({ "region": ["eu"] }));
    let sse = gateway.connect_with(&same, "").await;
    let cursor = sse.last_id().to_owned();
    drop(sse);
    let a = topic("a");
    for (key, data, tag) in [("k", "1", "region=jp"), ("l", "2", "region=eu"), ("m", "3", "x=y")] {
        let words = ["FCALL", "sse_publish", "1", &a, "t", data, "KEEP", key, "TAGS", tag];
        redis.command::<String>(&words).await;
    }
    let query = format!("&lastEventId={cursor}");
    let mut sse = gateway.connect_with(&same, &query).await;
    tagged(&redis, &a, "end", &["region=eu"]).await;
    assert_eq!(data_until(&mut sse, "end").await, ["2", "3", "end"], "{}", sse.dump());
    let mut new = connect(&gateway, "2", json!({ "region": ["eu"] })).await;
    let keys = new.app_event().await.json();
    assert_eq!(keys["channels"], json!({ "broadcast:a": ["l", "m"] }));
    assert_eq!((new.app_event().await.data, new.app_event().await.data), ("2".into(), "3".into()));
}

#[tokio::test]
async fn event_lost_on_the_link_is_noticed_behind_a_filter() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut sse = connect(&gateway, "1", json!({ "region": ["eu"] })).await;
    let a = topic("a");
    tagged(&redis, &a, "1", &["region=eu"]).await;
    assert_eq!(sse.app_event().await.data, "1");
    tagged(&redis, &a, "2", &["region=jp"]).await;
    let third = tagged(&redis, &a, "3", &["region=eu"]).await;
    assert_eq!(sse.app_event().await.data, "3", "{}", sse.dump());
    // A live message whose predecessor has not come.
    let (ms, rest) = third.split_once('-').expect("an id");
    let later = |n: u64| format!("{}-{rest}", ms.parse::<u64>().expect("ms") + n);
    // It does not concern the stream itself, but the missing one may.
    let lost = format!("{} {} -g a t\nregion=jp\n", later(2), later(1));
    redis.command::<i64>(&["SPUBLISH", "sse:live:{broadcast}", &lost]).await;
    gateway.metric_reaches("sse_catch_ups_total", &[("cause", "predecessor")], 1.0).await;
}

#[tokio::test]
async fn invalid_tags_and_filters_are_rejected() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let nine: Vec<String> = (0..9).map(|n| format!("t{n}=1")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    for tags in [&["a=b", "a=c"][..], &["a b=c"], &["=c"], &["a="], &nine] {
        let mut words = vec!["FCALL", "sse_publish", "1", "broadcast:a", "t", "", "TAGS"];
        words.extend(tags);
        let error = redis.try_command::<String>(&words).await.unwrap_err().to_string();
        assert!(error.contains("bad-tags"), "{tags:?}: {error}");
    }
    let bad = ticket("1").claim("filter", json!({ "region": "eu" }));
    let response = gateway.http().get(gateway.events_url(&bad, "")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.text().await.unwrap().contains("filter must be an object"));
}

#[tokio::test]
async fn issued_tickets_may_have_a_filter() {
    let redis = Redis::start().await;
    let keys = crate::harness::keys::api_keys(&[("a backend's key", "tickets")]);
    let gateway = Gateway::durable_only(&redis).env("API_KEYS", &keys).start().await;
    let issue = async |body: &'static str| {
        let request = gateway.http().post(gateway.url("/tickets")).bearer_auth("a backend's key");
        let response = request.body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, body) = issue(r#"{"user":"1","filter":{"region":["eu"]}}"#).await;
    assert_eq!(status, 200, "{body}");
    let ticket = serde_json::from_str::<Value>(&body).unwrap()["ticket"].clone();
    let url = gateway.url(&format!("/events?ticket={}", ticket.as_str().expect("a ticket")));
    let mut sse = Sse::connect(&url, &[]).await;
    sse.connected().await;
    tagged(&redis, &topic("a"), "jp", &["region=jp"]).await;
    tagged(&redis, &topic("a"), "eu", &["region=eu"]).await;
    assert_eq!(sse.app_event().await.data, "eu");
    let (status, body) = issue(r#"{"user":"1","filter":{"region":"eu"}}"#).await;
    assert!(status == 400 && body.contains("filter must be"), "{status} {body}");
}
