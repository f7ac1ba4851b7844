//! `GET /events/history`: stored events of a channel in pages, and the stream that continues them.

use crate::cluster_moves::{append_in_a_later_epoch, assign_later_ids};
use crate::harness::cluster_load::{gateway as cluster_gateway, publish, user_at};
use crate::harness::keys::api_keys;
use crate::harness::load::publish_batch;
use crate::harness::ticket::Ticket;
use crate::harness::{
    Cluster, Gateway, Id, Load, Redis, Sse, encode, eventually, log_key, now_ms, ticket, topic,
    user,
};
use crate::http::error;
use reqwest::{Response, header};
use serde_json::{Value, json};

async fn get(gateway: &Gateway, ticket: &Ticket, query: &str) -> Response {
    let url = gateway.url(&format!("/events/history?ticket={}{query}", ticket.jwt()));
    gateway.http().get(url).send().await.expect("a response")
}

/// One page. Repeats the request after an error `redis-away`: on a busy machine the link to Redis
/// may time out.
async fn page(gateway: &Gateway, ticket: &Ticket, query: &str) -> Value {
    eventually("a page while Redis is available", || async {
        let response = get(gateway, ticket, query).await;
        let status = response.status().as_u16();
        assert!([200, 503].contains(&status), "{status} {}", response.text().await.unwrap());
        let cache_control = response.headers().get(header::CACHE_CONTROL).cloned();
        let text = response.text().await.expect("a body");
        assert!(cache_control.is_some_and(|value| value == "no-store"), "{text}");
        (status == 200).then(|| serde_json::from_str(&text).expect("JSON"))
    })
    .await
}

fn events(page: &Value) -> &Vec<Value> {
    page["events"].as_array().expect("a list")
}

/// All pages from the first query on: their events, the number of pages, and where a stream
/// continues.
async fn all(gateway: &Gateway, user: &str, query: &str) -> (Vec<Value>, usize, String) {
    let same = ticket(user);
    let (mut found, mut pages, mut query) = (Vec::new(), 0, query.to_owned());
    loop {
        let answer = page(gateway, &same, &query).await;
        found.extend(events(&answer).iter().cloned());
        pages += 1;
        let Some(next) = answer["next"].as_str() else {
            let position = answer["lastEventId"].as_str().expect("a position").to_owned();
            return (found, pages, position);
        };
        assert_eq!(answer["lastEventId"], Value::Null, "more follows");
        let parameters = query.split('&').filter(|p| !p.starts_with("since="));
        let parameters = parameters.filter(|p| !p.starts_with("after="));
        query = format!("{}&after={}", parameters.collect::<Vec<_>>().join("&"), encode(next));
    }
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

async fn append_foreign(redis: &Redis, channel: &str, count: usize) {
    let mut pipe = redis::pipe();
    for _ in 0..count {
        pipe.cmd("XADD").arg(log_key(channel)).arg("*").arg("f").arg("x").ignore();
    }
    pipe.query_async::<()>(&mut redis.conn().await).await.expect("XADD");
}

#[tokio::test]
async fn pages_contain_every_event_once_across_epochs() {
    let redis = Redis::start_persistent("everysec").await;
    let gateway = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000").start().await;
    let (channel, mut publisher, mut published) = (user("1"), redis.publisher().await, Vec::new());
    publish_batch(&mut publisher, std::slice::from_ref(&channel), 1100, &mut published).await;
    append_foreign(&redis, &channel, 300).await;
    redis.stop();
    redis.start_again().await;
    gateway.metric_reaches("sse_epoch_changes_total", &[], 1.0).await;
    gateway.ready().await;
    let mut publisher = redis.publisher().await;
    publish_batch(&mut publisher, std::slice::from_ref(&channel), 1000, &mut published).await;
    append_foreign(&redis, &channel, 200).await;
    let expected: Vec<String> = published.iter().map(|p| p.id.to_string()).collect();
    assert!(published[1099].id.epoch < published[1100].id.epoch);
    for (limit, least) in [("", 21), ("&limit=1000", 3), ("&limit=700", 3)] {
        let query = format!("&channel={channel}{limit}");
        let (found, pages, _) = all(&gateway, "1", &query).await;
        assert_eq!(ids(&found), expected, "{limit}");
        assert!((least..least + 2).contains(&pages), "{pages} pages{limit}");
        assert_eq!(found[7], json!({"id": expected[7], "type": "load", "data": "{\"n\":7}"}));
    }
    // After an event of an earlier epoch, and after the position of a stream.
    for n in [0, 1099, 1100, 2099] {
        let two_parts = format!("{}~{}", expected[n], published[50].id);
        for after in [&expected[n], &two_parts] {
            let query = format!("&channel={channel}&limit=1000&after={}", encode(after));
            assert_eq!(ids(&all(&gateway, "1", &query).await.0), expected[n + 1..], "{n}");
        }
    }
    let since_ms = published[1050].id.ms;
    let first = published.iter().position(|p| p.id.ms >= since_ms).unwrap();
    let query = format!("&channel={channel}&limit=999&since={since_ms}");
    assert_eq!(ids(&all(&gateway, "1", &query).await.0), expected[first..]);
    // The oldest are gone, others are unknown, and a channel may have none.
    let key = log_key(&channel);
    redis.command::<i64>(&["XTRIM", &key, "MAXLEN", "=", "700"]).await;
    let (found, ..) =
        all(&gateway, "1", &format!("&channel={channel}&after={}", expected[5])).await;
    assert_eq!(ids(&found), expected[1600..]);
    let (none, pages, position) = all(&gateway, "1", "&channel=broadcast:t&since=1h").await;
    assert_eq!((none.len(), pages), (0, 1));
    assert!(Id::of(&position) >= published[2099].id);
}

#[tokio::test]
async fn size_of_a_page_is_limited() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut publisher = redis.publisher().await;
    for n in 0..60 {
        publisher.durable(&topic("t"), "big", format!("{n:.<60000}"), &[]).await.unwrap();
    }
    let first = page(&gateway, &ticket("1"), "&channel=broadcast:t&limit=1000").await;
    assert!((17..20).contains(&events(&first).len()), "{}", events(&first).len());
    let (found, pages, _) = all(&gateway, "1", "&channel=broadcast:t&limit=1000").await;
    let numbers = found.iter().map(|e| e["data"].as_str().unwrap().trim_end_matches('.').parse());
    assert_eq!(numbers.collect::<Result<Vec<usize>, _>>().unwrap(), (0..60).collect::<Vec<_>>());
    assert_eq!(pages, 4);
}

#[tokio::test]
async fn only_channels_of_the_ticket_and_valid_requests_are_answered() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    redis.durable(&user("2"), "n", "secret").await.unwrap();
    let id = redis.durable(&topic("team-7"), "n", "").await.unwrap();
    let code = async |ticket: &Ticket, query: &str| {
        let (status, code) = error(get(&gateway, ticket, query).await).await;
        format!("{status} {code}")
    };
    let some = || ticket("1").topics(&["team-*", "news"]);
    for channel in ["user:2:events", "broadcast:sport", "broadcast:team"] {
        let query = format!("&channel={channel}");
        assert_eq!(code(&some(), &query).await, "403 not-allowed", "{channel}");
    }
    let allowed = page(&gateway, &some(), "&channel=broadcast:team-7").await;
    assert_eq!(ids(events(&allowed)), [id.as_str()]);
    let ahead = format!("{}-0.0", now_ms() + 90_000);
    for (query, expected) in [
        ("", "400 bad-channel"),
        ("&channel=news", "400 bad-channel"),
        ("&channel=broadcast:*", "400 bad-channel"),
        ("&channel=broadcast:news&limit=0", "400 bad-limit"),
        ("&channel=broadcast:news&limit=1001", "400 bad-limit"),
        ("&channel=broadcast:news&limit=", "400 bad-limit"),
        ("&channel=broadcast:news&since=soon", "400 bad-since"),
        (&format!("&channel=broadcast:news&since=1h&after={id}"), "400 bad-since"),
        ("&channel=broadcast:news&after=garbage", "400 bad-after"),
        ("&channel=broadcast:news&after=99999999999999-0.zzzzzzz", "400 bad-after"),
        ("&channel=broadcast:news&until=", "400 bad-until"),
        (&format!("&channel=broadcast:news&after={ahead}"), "400 bad-after"),
        (&format!("&channel=broadcast:news&until={ahead}"), "400 bad-until"),
    ] {
        assert_eq!(code(&some(), query).await, expected, "{query}");
    }
    let query = "&channel=user:1:events";
    assert_eq!(code(&some().secret(&"x".repeat(32)), query).await, "401 ticket-bad-signature");
    assert_eq!(
        code(&some().claim("iat", json!(1)).claim("exp", json!(9)), query).await,
        "401 ticket-expired"
    );
    assert_eq!(code(&some().claim("session_exp", json!(1)), query).await, "401 session-over");
    let without = gateway.http().get(gateway.url("/events/history?channel=user:1:events"));
    assert_eq!(error(without.send().await.unwrap()).await, (401, "ticket-missing".to_owned()));
    redis.stop();
    let answer = get(&gateway, &some(), query).await;
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(error(answer).await, (503, "redis-away".to_owned()));
}

#[tokio::test]
async fn ticket_is_checked_like_that_of_a_stream_but_not_used_up() {
    let redis = Redis::start().await;
    let builder = || Gateway::durable_only(&redis).env("TICKETS__RECONNECT_GRACE", "0");
    let gateway = builder().start().await;
    let (once, query) = (ticket("1"), "&channel=user:1:events");
    let code =
        async |gateway: &Gateway, ticket: &Ticket| error(get(gateway, ticket, query).await).await.1;
    for _ in 0..2 {
        page(&gateway, &once, query).await;
    }
    assert_eq!(redis.command::<Vec<String>>(&["KEYS", "sse:session:*"]).await, [""; 0]);
    let open = gateway.connect_with(&once, "").await;
    assert_eq!(code(&gateway, &once).await, "ticket-used");
    drop(open);

    let gateway = Gateway::durable_only(&redis)
        .env("API_KEYS", &api_keys(&[("an admin's key", "admin")]))
        .env("TICKETS__SESSION_COOKIE", "true")
        .start()
        .await;
    let (open, unused) = (ticket("1"), ticket("1"));
    let stream = gateway.connect_with(&open, "").await;
    let cookie = stream.header("set-cookie").expect("a cookie").split(';').next().unwrap();
    assert_eq!(code(&gateway, &open).await, "session-cookie-missing");
    let url = gateway.url(&format!("/events/history?ticket={}{query}", open.jwt()));
    let answer = gateway.http().get(url).header(header::COOKIE, cookie).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    page(&gateway, &unused, query).await;
    // A revocation does not affect tickets of the same second.
    let second = now_ms() / 1000;
    eventually("the next second", || async { (now_ms() / 1000 > second).then_some(()) }).await;
    assert_eq!(crate::revocations::revoke(&gateway, "1", "an admin's key").await, 200);
    assert_eq!(code(&gateway, &unused).await, "session-revoked");

    let gateway = builder().env("LIMITS__CONNECTS_PER_USER_PER_MINUTE", "2").start().await;
    let [one, two] = [ticket("3"), ticket("4")];
    let own = |user: &str| format!("&channel=user:{user}:events");
    for _ in 0..2 {
        page(&gateway, &one, &own("3")).await;
    }
    let answer = get(&gateway, &one, &own("3")).await;
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(error(answer).await, (429, "too-often".to_owned()));
    page(&gateway, &two, &own("4")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_continues_the_history_without_gap_or_duplicate() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000").start().await;
    let channels = [user("1"), topic("t")];
    let load = Load::start(&redis, &channels, 500).await;
    load.more(500).await;
    let query = format!("&channel={}&limit=100", channels[0]);
    let (mut found, pages, position) = all(&gateway, "1", &query).await;
    assert!(pages > 2, "{pages}");
    load.more(100).await;
    let query = format!("&channel={}&limit=1000&until={}", channels[1], encode(&position));
    let (of_topic, _, same) = all(&gateway, "1", &query).await;
    found.extend(of_topic);
    assert_eq!(same, position);
    let mut sse = gateway.resume("1", &position).await;
    load.more(100).await;
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    let followed = sse.until(|event| event.id.as_ref() == Some(&end)).await;
    assert!(followed.iter().all(|event| event.event != "sse.gap"));
    for channel in &channels {
        let expected: Vec<String> = published
            .iter()
            .filter(|published| published.channel == *channel)
            .map(|published| published.id.to_string())
            .collect();
        let followed = followed.iter().filter_map(|event| event.id.clone());
        let all = ids(&found).into_iter().chain(followed).filter(|id| expected.contains(id));
        assert_eq!(all.collect::<Vec<_>>(), expected, "{channel}");
    }
}

#[tokio::test]
async fn history_and_stream_continue_each_other_on_a_cluster() {
    let cluster = Cluster::start(3).await;
    let gateway = cluster_gateway(&cluster).start().await;
    let broadcasts = cluster.owner_of("{broadcast}").await;
    for node in 0..2 {
        let name = user_at(&cluster, (broadcasts + node) % 3, 0).await;
        let (own, news) = (user(&name), topic(&format!("t{node}")));
        for channel in [&own, &news] {
            publish(&cluster, channel, &format!("before{node}"), 0, 5).await;
        }
        for channel in [&own, &news] {
            let query = format!("&channel={channel}&limit=2");
            let (found, pages, position) = all(&gateway, &name, &query).await;
            let data: Vec<_> = found.iter().map(|event| event["data"].as_str().unwrap()).collect();
            assert_eq!((data, pages), (vec!["0", "1", "2", "3", "4"], 3));
            assert_eq!(position.contains('~'), node > 0, "{position}");
            let kind = format!("after {channel}");
            publish(&cluster, channel, &kind, 0, 3).await;
            let mut sse: Sse = gateway.resume(&name, &position).await;
            publish(&cluster, channel, &kind, 3, 1).await;
            for n in 0..4 {
                let event = sse.app_event().await;
                assert_eq!((&event.event, event.data), (&kind, n.to_string()), "{}", sse.dump());
            }
            // What follows that position is left to the stream, of the other channel, too.
            for channel in [&own, &news] {
                let until = format!("&channel={channel}&until={}", encode(&position));
                let (found, _, same) = all(&gateway, &name, &until).await;
                let data: Vec<_> = found.iter().map(|e| e["data"].as_str().unwrap()).collect();
                assert_eq!((data[4], same), ("4", position.clone()));
                let is_later = |event: &&Value| event["type"] == kind.as_str();
                assert_eq!(found.iter().filter(is_later).count(), 0);
            }
            // Another page begins where the stream is.
            let after = format!("&channel={channel}&after={}", encode(sse.last_id()));
            assert_eq!(all(&gateway, &name, &after).await.0.len(), 0);
        }
    }
}

#[tokio::test]
async fn history_does_not_end_before_an_event_of_another_master() {
    let cluster = Cluster::start(3).await;
    let gateway = cluster_gateway(&cluster).start().await;
    let name = user_at(&cluster, 0, 0).await;
    publish(&cluster, &user(&name), "own", 0, 2).await;
    append_in_a_later_epoch(&cluster, &user(&name), "own").await;
    assign_later_ids(&cluster).await;
    let (found, ..) = all(&gateway, &name, &format!("&channel={}", user(&name))).await;
    let data: Vec<_> = found.iter().map(|event| event["data"].as_str().unwrap()).collect();
    assert_eq!(data, ["0", "1", "2"]);
}
