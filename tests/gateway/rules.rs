//! Channel rules (`[[channels]]`): length, retention, size and rate of single channels.

use crate::api::{json_of, post};
use crate::config::{GOOD, run};
use crate::harness::gateway::Builder;
use crate::harness::keys::{Dir, api_keys};
use crate::harness::load::publish_batch;
use crate::harness::{Event, Gateway, Redis, Sse, eventually, log_key, ticket, topic, user};
use crate::http::error;
use reqwest::{StatusCode, header};
use serde_json::json;

/// An hour and a day, ms.
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A gateway without a recorder, with rules as JSON.
fn durable(redis: &Redis, rules: &str) -> Builder {
    Gateway::durable_only(redis).env("CHANNELS", rules)
}

/// The reason and the channels of a gap.
fn gap(event: &Event) -> (String, Vec<String>) {
    assert_eq!(event.event, "sse.gap");
    let data = event.json();
    let channels = serde_json::from_value(data["channels"].clone()).expect("channels");
    (data["reason"].as_str().expect("a reason").to_owned(), channels)
}

/// A stream of a user with these topics that resumes from a cursor.
async fn resume(gateway: &Gateway, name: &str, topics: &[&str], cursor: &str) -> Sse {
    let query = format!("&lastEventId={cursor}");
    gateway.connect_with(&ticket(name).topics(topics), &query).await
}

/// Waits until the log of a channel has expired.
async fn wait_until_expired(redis: &Redis, channel: &str) {
    let key = log_key(channel);
    eventually("the log to expire", || async {
        (redis.command::<i64>(&["EXISTS", &key]).await == 0).then_some(())
    })
    .await;
}

/// Whether a log expires after this time, give or take the time of a slow test.
async fn expires_after(redis: &Redis, key: &str, retention_ms: u64) -> bool {
    let ttl_ms: u64 = redis.command(&["PTTL", key]).await;
    // Redis keeps it up to 10 s longer.
    (retention_ms - 60_000..=retention_ms + 10_000).contains(&ttl_ms)
}

#[tokio::test]
async fn first_matching_rule_sets_length_retention_and_size() {
    let redis = Redis::start().await;
    let rules = json!([
        {"match": "broadcast:prices.eur", "max_len": 10},
        {"match": "broadcast:prices.*", "retention": "1h", "max_event_bytes": 10},
        {"match": "user:*1:events", "max_len": 10, "retention": "2h"},
        {"match": "broadcast:it's.@F@\"*", "retention": "3h"},
        {"match": "*:large", "max_event_bytes": "100KiB"},
        {"match": "broadcast:ab*ba", "retention": "4h"},
    ])
    .to_string();
    let builder = Gateway::builder(&redis).env("CHANNELS", &rules);
    let relay = builder.clone().env("PUBLISHERS__PLAIN", "relay");
    let (gateway, relay) = tokio::join!(builder.start(), relay.start());
    let (eur, usd) = (topic("prices.eur"), topic("prices.usd"));
    let (quoted, large, news) = (topic("it's.@F@\"x"), topic("large"), topic("news"));
    let mut publisher = redis.publisher().await;
    // The two sides of a pattern do not overlap.
    let (narrow, wide) = (topic("aba"), topic("abba"));
    let all = [&eur, &usd, &quoted, &news, &narrow, &wide, &user("1"), &user("2")];
    let all = all.map(ToString::to_string);
    publish_batch(&mut publisher, &all, 8 * 250, &mut Vec::new()).await;
    for (channel, is_short, retention_ms) in [
        (&eur, true, DAY_MS),
        (&usd, false, HOUR_MS),
        (&user("1"), true, 2 * HOUR_MS),
        (&user("2"), false, DAY_MS),
        (&quoted, false, 3 * HOUR_MS),
        (&news, false, DAY_MS),
        (&narrow, false, DAY_MS),
        (&wide, false, 4 * HOUR_MS),
    ] {
        let key = log_key(channel);
        let length: usize = redis.command(&["XLEN", &key]).await;
        // Redis trims whole nodes of 100 entries.
        assert_eq!(length < 130, is_short, "{channel}: {length}");
        assert!(expires_after(&redis, &key, retention_ms).await, "{channel}");
    }
    let error = redis.durable(&usd, "a", "x".repeat(11)).await.unwrap_err();
    assert!(error.starts_with("too-large: ") && error.ends_with("is 10"), "{error}");
    redis.durable(&usd, "a", "x".repeat(10)).await.unwrap();
    redis.durable(&eur, "a", "x".repeat(11)).await.unwrap();
    redis.durable(&large, "a", "x".repeat(100 << 10)).await.unwrap();
    // Each gateway applies the sizes to plain messages, which it decodes itself.
    gateway.wait_for_recorder().await;
    let mut sse = relay.connect("1").await;
    redis.plain(&usd, "y".repeat(11)).await;
    redis.plain(&large, "y".repeat(80_000)).await;
    redis.plain(&usd, "end").await;
    // Relayed messages have no id; recorded ones do.
    let received = sse.until(|event| event.data == "end" && event.id.is_some()).await;
    let lengths = |has_id: bool| {
        let events = received.iter().filter(|event| event.id.is_some() == has_id);
        events.filter(|e| e.event == "message").map(|e| e.data.len()).collect::<Vec<_>>()
    };
    assert_eq!((lengths(false), lengths(true)), (vec![80_000, 3], vec![80_000, 3]));
    for gateway in [&gateway, &relay] {
        gateway.metric_reaches("sse_rejected_total", &[("reason", "too-large")], 1.0).await;
    }
}

#[tokio::test]
async fn rules_match_names_without_the_channel_prefix() {
    let redis = Redis::start().await;
    let rules = r#"[{"match": "broadcast:a", "retention": "1h"},
        {"match": "user:1:events", "retention": "2h"}]"#;
    let _gateway = durable(&redis, rules).env("REDIS__CHANNEL_PREFIX", "app:").start().await;
    for (channel, key, retention_ms) in [
        ("app:broadcast:a", "sse:log:{app:broadcast}:a", HOUR_MS),
        ("{app:broadcast}:a", "sse:log:{app:broadcast}:a", HOUR_MS),
        ("app:user:1:events", "sse:log:{app:user:1:events}", 2 * HOUR_MS),
        ("app:broadcast:b", "sse:log:{app:broadcast}:b", DAY_MS),
    ] {
        redis.durable(channel, "a", "1").await.unwrap();
        assert!(expires_after(&redis, key, retention_ms).await, "{channel}");
    }
}

#[tokio::test]
async fn each_channel_expires_by_its_own_retention() {
    let redis = Redis::start().await;
    // The last one expires when a list of topics that is cleaned by the default of 1 s would have
    // lost the others.
    let rules = r#"[{"match": "broadcast:last", "retention": "2500ms"},
        {"match": "broadcast:long.*", "retention": "1h"},
        {"match": "user:2:events", "retention": "1s"},
        {"match": "user:*:events", "retention": "1h"}]"#;
    let builder = durable(&redis, rules).env("HISTORY__RETENTION", "1s");
    let gateway = builder.start().await;
    let cursor = gateway.connect("1").await.last_id().to_owned();
    for name in ["short", "long.a", "last"] {
        redis.durable(&topic(name), name, "1").await.unwrap();
    }
    wait_until_expired(&redis, &topic("last")).await;
    redis.durable(&topic("long.b"), "long.b", "1").await.unwrap();
    drop(gateway);
    // A new instance, because the first one has everything in its replay cache.
    let gateway = builder.start().await;
    let topics = async |name: &str, topics: &[&str]| {
        let mut sse = resume(&gateway, name, topics, &cursor).await;
        let end = redis.durable(&user(name), "end", "1").await.unwrap();
        sse.until(|event| event.id.as_ref() == Some(&end)).await
    };
    let names =
        |events: &[Event]| events.iter().map(|event| event.event.clone()).collect::<Vec<_>>();
    // Longer than the default: no gap.
    assert_eq!(names(&topics("1", &["long.*"]).await), ["long.a", "long.b", "end"]);
    assert_eq!(names(&topics("3", &["long.a"]).await), ["long.a", "end"]);
    // The pattern's topics are known, so the gap names those with missing events.
    let received = topics("4", &["*"]).await;
    assert_eq!(names(&received), ["sse.gap", "long.a", "long.b", "end"]);
    assert_eq!(gap(&received[0]), ("expired".to_owned(), vec![topic("last"), topic("short")]));
    let received = topics("5", &["short", "long.b"]).await;
    assert_eq!(names(&received), ["sse.gap", "long.b", "end"]);
    assert_eq!(gap(&received[0]), ("expired".to_owned(), vec![topic("short")]));
    // Shorter than that of other users.
    let received = topics("2", &["long.a"]).await;
    assert_eq!(names(&received), ["sse.gap", "long.a", "end"]);
    assert_eq!(gap(&received[0]), ("expired".to_owned(), vec![user("2")]));
}

#[tokio::test]
async fn changed_rules_still_report_earlier_expiry() {
    let redis = Redis::start().await;
    let short = r#"[{"match": "user:1*:events", "retention": "1s"}]"#;
    let gateway = durable(&redis, short).start().await;
    let cursor = gateway.connect("1").await.last_id().to_owned();
    redis.durable(&user("1"), "a", "1").await.unwrap();
    wait_until_expired(&redis, &user("1")).await;
    drop(gateway);
    let raised = || async {
        redis.command::<Option<u64>>(&["HGET", "sse:node:{broadcast}", "raised_ms"]).await
    };
    assert_eq!(raised().await, None);
    // The default is still that of the first gateway.
    let gateway = durable(&redis, "[]").env("HISTORY__GENERATION", "2").start().await;
    let received = resume(&gateway, "1", &[], &cursor).await.app_event().await;
    assert_eq!(gap(&received), ("expired".to_owned(), vec![user("1")]));
    let first = raised().await;
    assert!(first.is_some());
    // Neither shorter retentions nor other members are a raise.
    for (rules, generation) in [
        (r#"[{"match": "user:1*:events", "retention": "2h"}]"#, "3"),
        (r#"[{"match": "user:1*:events", "retention": "2h", "rate": 5}]"#, "4"),
    ] {
        let _gateway = durable(&redis, rules).env("HISTORY__GENERATION", generation).start().await;
        redis.durable(&user("2"), "a", "1").await.unwrap();
        assert_eq!(raised().await, first, "{rules}");
    }
}

#[tokio::test]
async fn rules_of_the_highest_generation_apply_everywhere() {
    let redis = Redis::start().await;
    let old = Gateway::durable_only(&redis).start().await;
    let cursor = old.connect("1").await.last_id().to_owned();
    let rules = r#"[{"match": "user:*:events", "retention": "1s", "max_event_bytes": 10}]"#;
    let builder = durable(&redis, rules).env("HISTORY__GENERATION", "2");
    let _new = builder.start().await;
    redis.durable(&user("1"), "a", "x".repeat(11)).await.unwrap_err();
    redis.durable(&user("1"), "a", "1").await.unwrap();
    wait_until_expired(&redis, &user("1")).await;
    // The old gateway's own retention is 24 h.
    let received = resume(&old, "1", &[], &cursor).await.app_event().await;
    assert_eq!(gap(&received), ("expired".to_owned(), vec![user("1")]));
    // Another gateway with a lower generation changes nothing, nor does one with the same.
    let _third = durable(&redis, "[]").start().await;
    let same = builder.env("CHANNELS", "[]").start().await;
    same.wait_for_log("with other values of history.*, channels").await;
    redis.durable(&user("1"), "a", "x".repeat(11)).await.unwrap_err();
}

#[tokio::test]
async fn rate_limits_durable_events_by_server_time() {
    let redis = Redis::start().await;
    let rules = r#"[{"match": "broadcast:live", "rate": 5}]"#;
    let gateway = durable(&redis, rules).env("API_KEYS", &api_keys(&[("key", "publish")]));
    let gateway = gateway.start().await;
    let live = topic("live");
    let keyed = redis.publisher().await.durable(&live, "a", "1", &["KEY", "k"]).await.unwrap();
    let mut pipe = redis::pipe();
    pipe.cmd("TIME");
    for _ in 0..200 {
        pipe.cmd("FCALL").arg("sse_publish").arg(1).arg(&live).arg("a").arg("1");
    }
    pipe.cmd("TIME").ignore_errors();
    let replies: Vec<redis::RedisResult<redis::Value>> =
        pipe.query_async(&mut redis.conn().await).await.unwrap();
    let ms = |reply: &redis::RedisResult<redis::Value>| {
        let time: (u64, u64) = redis::from_redis_value(reply.clone().unwrap()).unwrap();
        time.0 * 1000 + time.1 / 1000
    };
    let elapsed_ms = ms(&replies[201]) - ms(&replies[0]);
    let events = &replies[1..201];
    let accepted = events.iter().filter(|reply| reply.is_ok()).count() as u64;
    assert!(events[..4].iter().all(Result::is_ok), "as many at once as in a second");
    assert!(accepted <= 5 + elapsed_ms * 5 / 1000 + 1, "{accepted} in {elapsed_ms} ms");
    let refusal = events.iter().find_map(|reply| reply.as_ref().err()).expect("too many");
    assert_eq!(refusal.code(), Some("SSE"));
    let text = refusal.detail().unwrap();
    assert!(text.starts_with("too-often: ") && text.contains("5 events per second"), "{text}");
    // A repeated key is no event. Other channels are not affected.
    let mut publisher = redis.publisher().await;
    assert_eq!(publisher.durable(&live, "a", "1", &["KEY", "k"]).await, Ok(keyed));
    redis.durable(&topic("other"), "a", "1").await.unwrap();
    // Over HTTP, with the time after which a retry succeeds.
    let event = json!({"channel": live, "payload": 1});
    let list = json!(vec![event.clone(); 200]).to_string();
    let refused = eventually("a rejected request", || async {
        let items = json_of(post(&gateway, "/publish", Some("key"), list.clone()).await).await;
        let is_refused = |item: &serde_json::Value| item["error"] == "too-often";
        assert!(items.as_array().unwrap().iter().any(is_refused), "{items}");
        let answer = post(&gateway, "/publish", Some("key"), event.to_string()).await;
        (answer.status() == StatusCode::TOO_MANY_REQUESTS).then_some(answer)
    })
    .await;
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(error(refused).await, (429, "too-often".to_owned()));
    assert!(gateway.metric("sse_rejected_total", &[("reason", "too-often")]).await > 1.0);
    let next = || async { redis.durable(&live, "next", "1").await.ok() };
    eventually("the next second", next).await;
}

#[tokio::test]
async fn plain_messages_above_the_rate_are_rejected_and_kept() {
    let redis = Redis::start().await;
    let rules = r#"[{"match": "user:1:events", "rate": 2}]"#;
    let gateway = Gateway::builder(&redis).env("CHANNELS", rules).start().await;
    gateway.wait_for_recorder().await;
    let mut burst = redis::pipe();
    for n in 0..60 {
        burst.cmd("PUBLISH").arg(user("1")).arg(n).ignore();
    }
    burst.cmd("PUBLISH").arg(user("2")).arg("end").ignore();
    burst.query_async::<()>(&mut redis.conn().await).await.unwrap();
    let labels = [("reason", "too-often")];
    let (recorded, rejected) = eventually("the end of the burst", || async {
        let recorded = gateway.metric("sse_plain_recorded_total", &[]).await;
        let rejected = gateway.metric("sse_rejected_total", &labels).await;
        (recorded + rejected == 61.0).then_some((recorded, rejected))
    })
    .await;
    assert!(recorded >= 3.0 && rejected > 1.0, "{recorded} recorded, {rejected} rejected");
    let kept = redis.rejected().await;
    assert_eq!(kept.len() as f64, rejected);
    assert!(kept.iter().all(|message| message.reason == "too-often"), "{kept:?}");
    assert_eq!(kept[0].channel, user("1").as_bytes());
    // The first two were accepted, and so was the end.
    assert!(
        kept.iter()
            .all(|message| !["0", "1", "end"].map(str::as_bytes).contains(&&*message.message))
    );
}

#[test]
fn all_errors_of_all_rules_are_reported() {
    let dir = Dir::new();
    let file = "[[channels]]\nmatch = \"broadcast:*\"\nmax_len = 0\n\
                [[channels]]\nmatch = \"broadcast:news\"\nretntion = \"1h\"\nkeep = \"always\"\n";
    let path = dir.text("gateway.toml");
    dir.write("gateway.toml", file);
    let ran = run(&["check-config", "--config", &path], &[GOOD]);
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.err);
    for (line, words) in lines.iter().zip([
        ["rule 1: max_len must be an integer from 1 to", "(got 0)"],
        ["rule 2: unknown member \"retntion\"", "use match, max_len, retention"],
        ["rule 2: keep must be \"optional\" or \"required\"", "(got \"always\")"],
        ["rule 2: match \"broadcast:news\" can never apply", "rule 1 (\"broadcast:*\")"],
    ]) {
        assert!(line.contains("gateway.toml:1: channels: "), "{line}");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
    let variable = ("CHANNELS", r#"[{"match": "prices"}]"#);
    let ran = run(&["serve"], &[GOOD, variable]);
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    let start = "SSE_GATEWAY__CHANNELS: channels: rule 1: match must match channels";
    assert!(ran.err.starts_with(start), "{}", ran.err);
}

#[test]
fn check_config_shows_the_rules() {
    let rules = r#"[{"match": "broadcast:prices.*", "retention": "1h", "keep": "required"},
        {"match": "user:*:events", "max_len": 5, "ephemeral": true, "rate": 50}]"#;
    let ran = run(&["check-config"], &[GOOD, ("CHANNELS", rules)]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let expected = "the configuration is valid\n\
        channel rules (the first match applies):\n   \
        1  broadcast:prices.*  max_len 1000, retention 1h, max_event_bytes 65536, keep \
        required\n   \
        2  user:*:events       max_len 5, retention 1d, max_event_bytes 65536, ephemeral, rate 50 \
        per second\n      \
        other channels      max_len 1000, retention 1d, max_event_bytes 65536\n";
    assert_eq!(ran.out, expected);
}

#[tokio::test]
async fn rules_require_keep_or_make_events_ephemeral() {
    let redis = Redis::start().await;
    let rules = r#"[{"match": "broadcast:state", "keep": "required"},
        {"match": "broadcast:typing", "ephemeral": true, "rate": 1}]"#;
    let gateway = durable(&redis, rules).start().await;
    let mut sse = gateway.connect("1").await;
    let error = redis.durable(&topic("state"), "a", "1").await.unwrap_err();
    assert!(error.starts_with("needs-keep: "), "{error}");
    let mut publisher = redis.publisher().await;
    let kept = publisher.durable(&topic("state"), "a", "1", &["KEEP", "k"]).await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(kept));
    redis.durable(&topic("typing"), "typing", "1").await.unwrap();
    let event = sse.app_event().await;
    assert_eq!((event.event.as_str(), event.id), ("typing", None));
    assert_eq!(redis.command::<i64>(&["EXISTS", &log_key(&topic("typing"))]).await, 0);
    // Ephemeral events count, too.
    let refused = || async { redis.durable(&topic("typing"), "typing", "1").await.err() };
    let error = eventually("too many", refused).await;
    assert!(error.starts_with("too-often: "), "{error}");
}
