//! Retained values: a stream that begins, or that may have lost events, gets the current state of
//! its channels first.

use serde_json::json;

use crate::harness::{Cluster, Event, Gateway, Proxy, Redis, Sse, eventually, ticket, topic, user};

async fn keep(redis: &Redis, channel: &str, key: &str, payload: &str) -> String {
    let words = ["FCALL", "sse_publish", "1", channel, "price", payload, "KEEP", key];
    redis.command(&words).await
}

async fn forget(redis: &Redis, channel: &str, key: &str) -> String {
    let words = ["FCALL", "sse_publish", "1", channel, "gone", key, "FORGET", key];
    redis.command(&words).await
}

/// Reads `sse.snapshot`, and as many values as it names.
async fn snapshot(sse: &mut Sse) -> (serde_json::Value, Vec<String>) {
    let snapshot = sse.app_event().await;
    assert_eq!(snapshot.event, "sse.snapshot", "{}", sse.dump());
    assert_eq!(snapshot.id, None);
    let data = snapshot.json();
    let channels = data["channels"].as_object().expect("channels");
    let count: usize = channels.values().map(|keys| keys.as_array().expect("keys").len()).sum();
    let mut values = Vec::new();
    for _ in 0..count {
        let Event { event, id, data, .. } = sse.app_event().await;
        assert_eq!((&*event, id), ("price", None), "{}", sse.dump());
        values.push(data);
    }
    (data, values)
}

#[tokio::test]
async fn new_stream_begins_with_the_current_values() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut early = gateway.connect("1").await;
    let (prices, own) = (topic("prices"), user("1"));
    keep(&redis, &prices, "btc", "1").await;
    keep(&redis, &prices, "eth", "2").await;
    keep(&redis, &own, "cart", "3").await;
    keep(&redis, &prices, "btc", "4").await;
    keep(&redis, &prices, "old", "5").await;
    forget(&redis, &prices, "old").await;
    redis.durable(&prices, "trade", "not kept").await.unwrap();
    keep(&redis, &user("2"), "cart", "another's").await;
    // What is live already gets each of them as an ordinary event.
    for data in ["1", "2", "3", "4", "5", "old", "not kept"] {
        let event = early.app_event().await;
        assert_eq!((&*event.data, event.id.is_some()), (data, true));
    }
    let mut sse = gateway.connect_with(&ticket("1"), "").await;
    let (data, values) = snapshot(&mut sse).await;
    assert_eq!(
        data,
        json!({
            "covers": ["user:1:events", "broadcast:*"],
            "channels": { "broadcast:prices": ["eth", "btc"], "user:1:events": ["cart"] },
        })
    );
    assert_eq!(values, ["2", "3", "4"], "in the order of their events");
    let live = keep(&redis, &prices, "btc", "6").await;
    assert_eq!(sse.app_event().await.id, Some(live), "{}", sse.dump());
    // Values of other topics are not sent, and a stream without values gets no snapshot.
    let mut narrow = gateway.connect_with(&ticket("3").topics(&["news"]), "").await;
    redis.durable(&topic("news"), "live", "").await.unwrap();
    assert_eq!(narrow.app_event().await.event, "live", "{}", narrow.dump());
    let ttl: i64 = redis.command(&["PTTL", "sse:kept:{broadcast}:prices"]).await;
    assert!(ttl > 29 * 86_400_000, "{ttl}");
}

#[tokio::test]
async fn resumed_stream_gets_events_and_no_values() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let same = ticket("1");
    let first = keep(&redis, &topic("a"), "k", "1").await;
    let mut sse = gateway.connect_with(&same, "").await;
    snapshot(&mut sse).await;
    let heartbeat = sse.event().await;
    assert_eq!((&*heartbeat.event, heartbeat.id.is_some()), ("sse.heartbeat", true));
    let complete = heartbeat.id.unwrap();
    assert!(!complete.ends_with('!') && complete >= first, "{complete}");
    drop(sse);
    let second = keep(&redis, &topic("a"), "k", "2").await;
    let mut sse = gateway.connect_with(&same, &format!("&lastEventId={complete}")).await;
    assert_eq!(sse.app_event().await.id, Some(second), "{}", sse.dump());
}

/// The id in `sse.connected` says that values are missing: a client that loses its connection
/// before it has them gets them when it resumes.
#[tokio::test]
async fn interrupted_snapshot_is_sent_again() {
    let redis = Redis::start().await;
    let gateways = [Gateway::start(&redis).await, Gateway::start(&redis).await];
    keep(&redis, &topic("a"), "k", "1").await;
    keep(&redis, &topic("a"), "l", "2").await;
    let same = ticket("1");
    let sse = gateways[0].connect_with(&same, "").await;
    let incomplete = sse.last_id().to_owned();
    assert!(incomplete.ends_with('!'), "{incomplete}");
    drop(sse);
    let newer = keep(&redis, &topic("a"), "k", "3").await;
    let missed = redis.durable(&topic("a"), "missed", "").await.unwrap();
    let url = gateways[1].events_url(&same, "");
    let mut sse = Sse::connect(&url, &[("Last-Event-ID", &incomplete)]).await;
    let connected = sse.connected().await;
    assert_eq!(
        (connected.json()["resumed"].clone(), connected.id),
        (json!(true), Some(incomplete))
    );
    let (_, values) = snapshot(&mut sse).await;
    assert_eq!(values, ["2", "3"]);
    // The event of the value is not replayed, others are. Until the client has them, the values
    // would have to be sent again.
    let event = sse.app_event().await;
    assert_eq!(event.id, Some(format!("{missed}!")), "{} after {newer}", sse.dump());
    let complete = sse.event().await;
    assert_eq!(complete.event, "sse.heartbeat");
    assert!(complete.id.is_some_and(|id| !id.ends_with('!')), "{}", sse.dump());
}

/// Clients must discard the values that they have, also if Redis does not know of any.
#[tokio::test]
async fn wiped_values_are_discarded() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let mut sse = gateway.connect("1").await;
    keep(&redis, &topic("a"), "k", "1").await;
    assert_eq!(sse.app_event().await.data, "1");
    redis.command::<String>(&["FLUSHALL"]).await;
    let gap = sse.app_event().await;
    assert_eq!((&*gap.event, &gap.json()["reason"]), ("sse.gap", &json!("reset")));
    let (data, _) = snapshot(&mut sse).await;
    assert_eq!(data, json!({ "covers": ["user:1:events", "broadcast:*"], "channels": {} }));
}

#[tokio::test]
async fn values_follow_a_gap_and_supersede_earlier_events() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("HISTORY__MAX_LEN", "100").start().await;
    let same = ticket("1");
    let sse = gateway.connect_with(&same, "").await;
    let cursor = sse.last_id().to_owned();
    drop(sse);
    let prices = topic("prices");
    keep(&redis, &prices, "btc", "lost").await;
    for n in 0..400 {
        redis.durable(&prices, "trade", &n.to_string()).await.unwrap();
    }
    keep(&redis, &prices, "eth", "forgotten").await;
    keep(&redis, &prices, "btc", "old").await;
    forget(&redis, &prices, "eth").await;
    keep(&redis, &prices, "btc", "new").await;
    // The other gateway has received none of them.
    let late = Gateway::start(&redis).await;
    let mut sse = late.connect_with(&same, &format!("&lastEventId={cursor}")).await;
    let gap = sse.app_event().await;
    assert_eq!((&*gap.event, &gap.json()["reason"]), ("sse.gap", &json!("trimmed")));
    let (data, values) = snapshot(&mut sse).await;
    assert_eq!(data["channels"], json!({ "broadcast:prices": ["btc"] }));
    assert_eq!(values, ["new"]);
    let last = redis.durable(&prices, "last", "").await.unwrap();
    let rest = sse.until(|event| event.event == "last").await;
    let id = rest.last().and_then(|event| event.id.clone()).expect("an id");
    assert_eq!(id.trim_end_matches('!'), last);
    let changes = rest.iter().filter(|e| e.event != "trade" && !e.is_system());
    let changes: Vec<_> = changes.map(|e| (&*e.event, &*e.data)).collect();
    // Only what belongs to a key without a value.
    assert_eq!(changes, [("price", "forgotten"), ("gone", "eth"), ("last", "")]);
}

/// The values restore the state of a channel that accepts nothing else, so nobody is notified.
#[tokio::test]
async fn channels_that_require_keep_repair_themselves() {
    let redis = Redis::start().await;
    let rules = r#"[{"match": "broadcast:prices.*", "keep": "required"}]"#;
    let builder = Gateway::builder(&redis).env("CHANNELS", rules);
    let builder = builder.env("HISTORY__MAX_LEN", "100");
    let gateway = builder.start().await;
    let prices = topic("prices.eu");
    let refused = ["FCALL", "sse_publish", "1", &prices, "t", "no key"];
    let error = redis.try_command::<String>(&refused).await.unwrap_err().to_string();
    assert!(error.contains("needs-keep"), "{error}");
    let same = ticket("1").topics(&["prices.*", "news"]);
    let cursor = gateway.connect_with(&same, "").await.last_id().to_owned();
    for n in 0..400 {
        keep(&redis, &prices, &(n % 7).to_string(), &n.to_string()).await;
    }
    // The other gateway has received none of them.
    let late = builder.start().await;
    let mut sse = late.connect_with(&same, &format!("&lastEventId={cursor}")).await;
    let (data, values) = snapshot(&mut sse).await;
    let keys = data["channels"]["broadcast:prices.eu"].as_array().map(Vec::len);
    assert_eq!((keys, values.last().map(String::as_str)), (Some(7), Some("399")), "{data}");
    // What concerns another channel, too, names only that one.
    let url = gateway.events_url(&same, "");
    let mut sse = Sse::connect(&url, &[("Last-Event-ID", "no id")]).await;
    sse.connected().await;
    let gap = sse.app_event().await.json();
    assert_eq!(gap["channels"], json!(["user:1:events", "broadcast:news"]), "{gap}");
    // Without values, nothing repairs them.
    redis.command::<i64>(&["DEL", "sse:kept:{broadcast}:prices.eu"]).await;
    redis.command::<i64>(&["ZREM", "sse:kept:{broadcast}", "prices.eu"]).await;
    let last = builder.start().await;
    let mut sse = last.connect_with(&same, &format!("&lastEventId={cursor}")).await;
    let gap = sse.app_event().await;
    assert_eq!((&*gap.event, &gap.json()["reason"]), ("sse.gap", &json!("trimmed")), "{gap}");
    assert_eq!(gap.json()["channels"], json!(["broadcast:prices.eu"]), "{gap}");
}

/// A client that missed the end of the last value learns of it.
#[tokio::test]
async fn gap_says_that_the_last_value_was_forgotten() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let same = ticket("1");
    keep(&redis, &topic("a"), "k", "1").await;
    let mut sse = gateway.connect_with(&same, "").await;
    snapshot(&mut sse).await;
    forget(&redis, &topic("a"), "k").await;
    sse.next_of("gone").await;
    let url = gateway.events_url(&same, "");
    let mut sse = Sse::connect(&url, &[("Last-Event-ID", "no id")]).await;
    sse.connected().await;
    assert_eq!(sse.app_event().await.json()["reason"], "unknown-id");
    let (data, _) = snapshot(&mut sse).await;
    assert_eq!(data["channels"], json!({}), "{data}");
    // A new stream has nothing to discard.
    let mut new = gateway.connect("2").await;
    redis.durable(&topic("a"), "live", "").await.unwrap();
    assert_eq!(new.app_event().await.event, "live");
}

#[tokio::test]
async fn number_of_values_is_limited() {
    let redis = Redis::start().await;
    let _gateway = Gateway::builder(&redis).env("HISTORY__MAX_KEPT", "2").start().await;
    let a = topic("a");
    keep(&redis, &a, "1", "").await;
    keep(&redis, &a, "2", "").await;
    let third = ["FCALL", "sse_publish", "1", &a, "t", "", "KEEP", "3"];
    let error = redis.try_command::<String>(&third).await.unwrap_err().to_string();
    assert!(error.contains("too-many-kept") && error.contains("history.max_kept"), "{error}");
    keep(&redis, &a, "2", "again").await;
    forget(&redis, &a, "1").await;
    let _: String = redis.command(&third).await;
    // Two values, and the mark of the hash.
    assert_eq!(redis.command::<i64>(&["HLEN", "sse:kept:{broadcast}:a"]).await, 3);
}

#[tokio::test]
async fn every_way_of_publishing_keeps_values() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    redis.plain(topic("a"), r#"{"type":"price","payload":1,"keep":"plain"}"#).await;
    redis.plain(topic("a"), r#"{"type":"price","payload":2,"keep":"gone"}"#).await;
    redis.plain(topic("a"), r#"{"type":"gone","payload":3,"forget":"gone"}"#).await;
    sse.until(|event| event.data == "3").await;
    let mut new = gateway.connect("2").await;
    let (_, values) = snapshot(&mut new).await;
    assert_eq!(values, ["1"]);
}

/// No stream holds a copy of its own of values that the cache has no room for.
#[tokio::test]
async fn values_beyond_the_cache_are_a_gap() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("HISTORY__REPLAY_CACHE_BYTES", "60000").start().await;
    keep(&redis, &topic("a"), "k", &"a".repeat(20_000)).await;
    keep(&redis, &topic("b"), "k", &"b".repeat(20_000)).await;
    keep(&redis, &user("1"), "k", "own").await;
    let mut sse = gateway.connect("1").await;
    let gap = sse.app_event().await;
    assert_eq!((&*gap.event, &gap.json()["reason"]), ("sse.gap", &json!("trimmed")), "{gap}");
    assert_eq!(gap.json()["channels"], json!(["broadcast:b"]), "{gap}");
    let (data, values) = snapshot(&mut sse).await;
    assert_eq!(values.len(), 2, "{data}");
    redis.durable(&topic("b"), "live", "").await.unwrap();
    assert_eq!(sse.app_event().await.event, "live");
}

#[tokio::test]
async fn members_that_are_no_text_stop_nothing() {
    let redis = Redis::start().await;
    drop(Gateway::start(&redis).await);
    keep(&redis, &topic("a"), "k", "1").await;
    let not_text: &[u8] = b"\xff";
    let mut connection = redis.conn().await;
    for (name, key, value) in [
        ("ZADD", "sse:kept:{broadcast}", b"99999999999999".as_slice()),
        ("ZADD", "sse:topics:{broadcast}", b"99999999999999"),
    ] {
        let mut command = redis::cmd(name);
        command.arg(key).arg(value).arg(not_text);
        command.query_async::<i64>(&mut connection).await.unwrap();
    }
    for key in ["sse:kept:{broadcast}:a", "sse:kept:{user:1:events}"] {
        let mut command = redis::cmd("HSET");
        command.arg(key).arg(not_text).arg("x");
        command.query_async::<i64>(&mut connection).await.unwrap();
    }
    let gateway = Gateway::start(&redis).await;
    let mut sse = gateway.connect("1").await;
    assert_eq!(snapshot(&mut sse).await.1, ["1"]);
    redis.durable(&topic("a"), "live", "").await.unwrap();
    assert_eq!(sse.app_event().await.event, "live");
    let mut since = gateway.connect_with(&ticket("2"), "&since=1h").await;
    since.until(|event| event.event == "live").await;
}

/// Ten thousand streams that begin at once must not read Redis ten thousand times.
#[tokio::test]
async fn streams_share_the_values_of_broadcasts() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    for n in 0..20 {
        keep(&redis, &topic(&format!("t{n}")), "k", &n.to_string()).await;
    }
    for n in 0..10 {
        let mut sse = gateway.connect(&n.to_string()).await;
        let (_, values) = snapshot(&mut sse).await;
        assert_eq!(values.len(), 20);
    }
    let stats: String = redis.command(&["INFO", "commandstats"]).await;
    let calls = |name: &str| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
        calls.and_then(|calls| calls.parse::<u32>().ok()).unwrap_or(0)
    };
    assert_eq!(calls("zrange"), 1);
    // One for each topic, and one for each user.
    assert_eq!(calls("hgetall"), 20 + 10, "{stats}");
}

#[tokio::test]
async fn values_are_right_after_the_link_broke() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = Gateway::at(&proxy.redis_url()).start().await;
    keep(&redis, &topic("a"), "k", "1").await;
    let mut sse = gateway.connect("1").await;
    assert_eq!(snapshot(&mut sse).await.1, ["1"]);
    proxy.down();
    gateway.not_ready().await;
    keep(&redis, &topic("a"), "k", "2").await;
    forget(&redis, &topic("a"), "other").await;
    proxy.up();
    gateway.ready().await;
    let mut sse = gateway.connect("2").await;
    assert_eq!(snapshot(&mut sse).await.1, ["2"]);
}

#[tokio::test]
async fn poll_returns_values_and_continues_behind_them() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    keep(&redis, &topic("a"), "k", "1").await;
    let same = ticket("1").jwt();
    let poll = async |query: &str| {
        let url = gateway.url(&format!("/events/poll?ticket={same}{query}"));
        let response = gateway.http().get(url).send().await.unwrap();
        let body = response.text().await.unwrap();
        serde_json::from_str::<serde_json::Value>(&body).expect("JSON")
    };
    let first = poll("").await;
    assert_eq!(first["events"][0]["data"], json!("1"), "{first}");
    assert_eq!(first["events"][0]["retained"], json!(true), "{first}");
    assert_eq!(first["snapshot"]["channels"], json!({ "broadcast:a": ["k"] }), "{first}");
    let last = first["lastEventId"].as_str().unwrap();
    assert!(!last.ends_with('!'), "{first}");
    let second = poll(&format!("&lastEventId={last}")).await;
    assert_eq!((&second["events"], &second["snapshot"]), (&json!([]), &json!(null)), "{second}");
}

#[tokio::test]
async fn stream_of_a_cluster_gets_values_of_both_servers() {
    let cluster = Cluster::start(3).await;
    let gateway = crate::harness::cluster_load::gateway(&cluster).start().await;
    let user_id = crate::harness::cluster_load::user_at(&cluster, 1, 0).await;
    let own = user(&user_id);
    for (key, payload) in [("{broadcast}:a", "shared"), (&*own, "own")] {
        let words = ["FCALL", "sse_publish", "1", key, "price", payload, "KEEP", "k"];
        let owner = cluster.owner_of(key).await;
        // The server is adopted first.
        eventually("a publish", async || {
            cluster.node(owner).try_command::<String>(&words).await.ok()
        })
        .await;
    }
    let mut sse = gateway.connect(&user_id).await;
    let mut values = Vec::new();
    while values.len() < 2 {
        let event = sse.app_event().await;
        if event.event == "price" {
            values.push(event.data);
        } else {
            assert_eq!(event.event, "sse.snapshot", "{}", sse.dump());
        }
    }
    values.sort();
    assert_eq!(values, ["own", "shared"]);
    // A poll has the keys of both.
    let ticket = ticket(&user_id).jwt();
    let url = gateway.url(&format!("/events/poll?ticket={ticket}"));
    let body = gateway.http().get(url).send().await.unwrap().text().await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let channels = json!({ "broadcast:a": ["k"], (own.clone()): ["k"] });
    assert_eq!(body["snapshot"]["channels"], channels, "{body}");
    assert_eq!(body["events"].as_array().map(Vec::len), Some(2), "{body}");
}
