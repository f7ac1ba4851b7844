//! `trace` reports where an event is and what a client with this cursor would get. Clients must get
//! the same.

use serde_json::{Value, json};

use crate::config::{Ran, run};
use crate::harness::load::publish_batch;
use crate::harness::{
    Gateway, Redis, Sse, encode, eventually, log_key, now_ms, ticket, topic, user,
};

/// Runs `trace` with these arguments, without a configured ticket key.
fn trace(redis: &Redis, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
    let url = redis.url();
    run(&[&["trace"], arguments].concat(), &[&[("REDIS__URL", url.as_str())], env].concat())
}

/// The report of `trace --json`, and the exit status.
fn trace_json(redis: &Redis, arguments: &[&str], env: &[(&str, &str)]) -> (Value, Option<i32>) {
    let ran = trace(redis, &[arguments, &["--json"]].concat(), env);
    assert_eq!(ran.err, "", "{arguments:?}");
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.out));
    (report, ran.code)
}

/// A stream of this user without topics, resumed at this cursor.
async fn resumed(gateway: &Gateway, name: &str, cursor: &str) -> Sse {
    let query = format!("&lastEventId={}", encode(cursor));
    gateway.connect_with(&ticket(name).topics(&[]), &query).await
}

#[tokio::test]
async fn event_in_a_log_is_found_with_neighbours() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    for n in 0..200 {
        redis.durable(&topic(&format!("other-{n}")), "a", "1").await.unwrap();
    }
    let mut publisher = redis.publisher().await;
    let first = redis.durable(&user("7"), "a", "0").await.unwrap();
    let options = ["KEY", "order 7", "RETRY", "1500"];
    let id =
        publisher.durable(&user("7"), "order-completed", "{\"hush\":1}", &options).await.unwrap();
    let next = redis.durable(&user("7"), "a", "2").await.unwrap();
    redis.durable(&user("7"), "a", "3").await.unwrap();
    let (report, code) = trace_json(&redis, &[&id], &[]);
    assert_eq!(
        (code, &report["found"], &report["breaks"][0]),
        (Some(0), &json!(true), &Value::Null)
    );
    assert_eq!(
        report["search"],
        json!({"logs": 201, "complete": true, "maybe": 0, "maybeChannels": []})
    );
    let seen = report["channels"].as_array().unwrap();
    assert_eq!(
        (seen.len(), &seen[0]["channel"], &seen[0]["place"]),
        (1, &json!("user:7:events"), &json!("in-log"))
    );
    let event = json!({
        "type": "order-completed",
        "bytes": 10,
        "retryMs": 1500,
        "key": "order 7",
        "predecessor": first,
        "predecessorInLog": true
    });
    assert_eq!(seen[0]["event"], event, "no payload unless requested");
    assert_eq!(
        (&seen[0]["successor"], &seen[0]["resume"]),
        (&json!(next), &json!({"gap": null, "replayed": 2}))
    );
    let day = 24 * 3600 * 1000;
    let ttl = seen[0]["logTtlMs"].as_u64().unwrap();
    assert!((day - 60_000..=day + 10_000).contains(&ttl), "{ttl}");
    let age = report["ageMs"].as_u64().unwrap();
    assert!(age < 60_000, "{age}");
    let time = humantime::parse_rfc3339(report["time"].as_str().unwrap()).unwrap();
    let since_1970 = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since_1970.as_millis().to_string(), id.split('-').next().unwrap());
    // With a channel there is no search. It may include the channel prefix.
    let app = [("REDIS__CHANNEL_PREFIX", "app:"), ("REDIS__KEY_PREFIX", "app:")];
    let _app = Gateway::durable_only(&redis).env(app[0].0, app[0].1).env(app[1].0, app[1].1);
    let _app = _app.start().await;
    let publish = ["FCALL", "app_publish", "1", "app:user:7:events", "t", "{\"hush\":1}"];
    let id_of_app: String = redis.command(&publish).await;
    let given = ["--channel", "app:user:7:events", &id_of_app, "--payload"];
    let (direct, _) = trace_json(&redis, &given, &app);
    assert_eq!(
        (&direct["search"], &direct["channels"][0]["event"]["payload"]),
        (&Value::Null, &json!("{\"hush\":1}"))
    );
    // The first event of its log, and an id of another channel.
    let (of_first, _) = trace_json(&redis, &[&first], &[]);
    assert_eq!(of_first["channels"][0]["event"]["predecessor"], Value::Null);
    let (elsewhere, code) = trace_json(&redis, &["--channel", &topic("other-1"), &id], &[]);
    assert_eq!((code, &elsewhere["channels"][0]["place"]), (Some(1), &json!("never")));
    // The same as text.
    let words = trace(&redis, &[&id], &[]).out;
    for expected in [
        "user:7:events",
        "in the log",
        "order-completed",
        "10 bytes",
        "order 7",
        &first,
        &next,
        "replay of 2 events",
        "break since  none",
    ] {
        assert!(words.contains(expected), "{expected:?} is missing in\n{words}");
    }
    assert!(!words.contains("hush"), "{words}");
    assert!(trace(&redis, &[&id, "--payload"], &[]).out.contains("{\"hush\":1}"));
    // A client gets the same.
    let mut stream = resumed(&gateway, "7", &id).await;
    assert_eq!(stream.app_event().await.id, Some(next));
    assert_eq!(stream.app_event().await.data, "3");
}

#[tokio::test]
async fn options_of_an_event_and_their_outcome_are_shown() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut publisher = redis.publisher().await;
    let prices = topic("prices");
    let mut price =
        async |options: &[&str]| publisher.durable(&prices, "price", "1", options).await.unwrap();
    let replaced = price(&["KEEP", "btc", "TAGS", "region=eu", "team=a"]).await;
    let current = price(&["KEEP", "btc"]).await;
    let forgotten = price(&["FORGET", "eth"]).await;
    let event = |id: &str| trace_json(&redis, &[id], &[]).0["channels"][0]["event"].clone();
    let retained = |id: &str| event(id)["retained"].clone();
    let value = |id: &str, is_current: bool| {
        let key = "btc";
        json!({"key": key, "isForget": false, "value": id, "isCurrent": is_current})
    };
    assert_eq!(retained(&replaced), value(&current, false));
    assert_eq!(retained(&current), value(&current, true));
    assert_eq!(
        retained(&forgotten),
        json!({"key": "eth", "isForget": true, "value": null, "isCurrent": true})
    );
    assert_eq!(event(&replaced)["tags"], json!("region=eu team=a"));
    let mut stream = gateway.connect("1").await;
    let seen = publisher.durable(&user("1"), "a", "", &["UNSEEN", "1h"]).await.unwrap();
    let waiting = publisher.durable(&user("2"), "a", "", &["UNSEEN", "1h"]).await.unwrap();
    stream.until(|event| event.id.as_ref() == Some(&seen)).await;
    eventually("the report that the event was seen", async || {
        (event(&seen)["unseen"]["isWaiting"] == json!(false)).then_some(())
    })
    .await;
    assert_eq!(event(&waiting)["unseen"]["isWaiting"], json!(true));
    let words = trace(&redis, &[&replaced], &[]).out;
    for line in [format!("btc, replaced: the current value is {current}"), "team=a".to_owned()] {
        assert!(words.contains(&line), "{line:?} is missing in\n{words}");
    }
    let words = trace(&redis, &[&waiting], &[]).out;
    assert!(words.contains("no stream was handed it yet"), "{words}");
    // The id of a stream that has not got all values yet.
    let incomplete = format!("{current}!");
    assert_eq!(trace(&redis, &[&incomplete], &[]).code, Some(0));
}

#[tokio::test]
async fn control_characters_of_publishers_are_escaped() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let options = ["KEY", "k\u{1b}[31m"];
    let id = redis
        .publisher()
        .await
        .durable(&user("1"), "a", "1\u{1b}[2J\u{9b}1m\nfaked", &options)
        .await
        .unwrap();
    let words = trace(&redis, &[&id, "--payload"], &[]).out;
    assert!(
        words.contains("k\\u{1b}[31m\n") && words.contains("1\\u{1b}[2J\\u{9b}1m\\nfaked\n"),
        "{words}"
    );
    assert!(!words.chars().any(|c| c.is_control() && c != '\n'), "{words:?}");
    let (report, _) = trace_json(&redis, &[&id, "--payload"], &[]);
    assert_eq!(report["channels"][0]["event"]["payload"], "1\u{1b}[2J\u{9b}1m\nfaked");
}

#[tokio::test]
async fn trimmed_event_is_distinguished_from_a_nonexistent_one() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "10");
    let gateway = builder.start().await;
    let mut published = Vec::new();
    publish_batch(&mut redis.publisher().await, &[user("1")], 350, &mut published).await;
    let elsewhere = redis.durable(&user("2"), "a", "1").await.unwrap();
    redis.durable(&user("1"), "a", "last").await.unwrap();
    let left = redis.log_ids(&user("1")).await;
    let kept = published.len() + 1 - left.len();
    // The first remaining entry names the last trimmed event, so it is found without the channel.
    let named = published[kept - 1].id.to_string();
    let (report, code) = trace_json(&redis, &[&named], &[]);
    let seen = &report["channels"][0];
    assert_eq!(
        (code, &seen["channel"], &seen["place"]),
        (Some(1), &json!(user("1")), &json!("trimmed")),
        "{report}"
    );
    assert_eq!(
        (&seen["event"], &seen["resume"]),
        (&Value::Null, &json!({"gap": null, "replayed": left.len()}))
    );
    let mut stream = resumed(&gateway, "1", &named).await;
    assert_eq!(stream.app_event().await.id.as_ref(), Some(&left[0]));
    // Earlier events may have been in any trimmed log.
    let older = published[0].id.to_string();
    let (report, code) = trace_json(&redis, &[&older], &[]);
    assert_eq!((code, &report["channels"]), (Some(1), &json!([])));
    assert_eq!(
        (&report["search"]["maybe"], &report["search"]["maybeChannels"]),
        (&json!(1), &json!([user("1")]))
    );
    let words = trace(&redis, &[&older], &[]);
    assert!(
        words.code == Some(1) && words.out.contains("trimmed from one of 1 logs"),
        "{}",
        words.out
    );
    let (report, _) = trace_json(&redis, &[&older, "--channel", &user("1")], &[]);
    let seen = &report["channels"][0];
    assert_eq!(
        (&seen["place"], &seen["resume"]),
        (&json!("maybe-trimmed"), &json!({"gap": "trimmed", "replayed": left.len()}))
    );
    let mut stream = resumed(&gateway, "1", &older).await;
    assert_eq!(stream.app_event().await.json()["reason"], "trimmed");
    for id in &left {
        assert_eq!(stream.app_event().await.id.as_ref(), Some(id));
    }
    // The chain of predecessors proves that this event was not in the channel.
    let (report, _) = trace_json(&redis, &[&elsewhere, "--channel", &user("1")], &[]);
    let seen = &report["channels"][0];
    assert_eq!(
        (&seen["place"], &seen["resume"]),
        (&json!("never"), &json!({"gap": null, "replayed": 1}))
    );
    // An emptied log still has the id of its last event.
    redis.command::<i64>(&["XTRIM", &log_key(&user("2")), "MAXLEN", "0"]).await;
    let (report, _) = trace_json(&redis, &[&elsewhere, "--channel", &user("2")], &[]);
    assert_eq!(report["channels"][0]["place"], "trimmed");
}

#[tokio::test]
async fn expired_event_is_reported_as_possibly_expired() {
    let redis = Redis::start().await;
    let env = [("HISTORY__RETENTION", "6s")];
    let gateway = Gateway::durable_only(&redis).env(env[0].0, env[0].1).start().await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(trace_json(&redis, &[&id], &env).1, Some(0));
    eventually("the log to expire", || async {
        (redis.command::<i64>(&["EXISTS", "sse:log:{user:1:events}"]).await == 0).then_some(())
    })
    .await;
    let (report, code) = trace_json(&redis, &[&id, "--channel", &user("1")], &env);
    let seen = &report["channels"][0];
    assert_eq!(
        (code, &seen["place"], &seen["logTtlMs"]),
        (Some(1), &json!("maybe-expired"), &Value::Null)
    );
    assert_eq!(seen["resume"], json!({"gap": "expired", "replayed": 0}));
    let mut stream = resumed(&gateway, "1", &id).await;
    assert_eq!(stream.app_event().await.json()["reason"], "expired");
    let words = trace(&redis, &[&id], &env);
    assert!(words.code == Some(1) && words.out.contains("may have expired"), "{}", words.out);
}

#[tokio::test]
async fn ids_without_events_and_future_ids_are_explained() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let watermark = gateway.connect("1").await.last_id().to_string();
    redis.durable(&user("1"), "a", "1").await.unwrap();
    let (report, code) = trace_json(&redis, &[&watermark], &[]);
    assert_eq!(
        (code, &report["channels"], &report["restart"]),
        (Some(1), &json!([]), &Value::Null)
    );
    assert!(report["note"].as_str().unwrap().contains("valid cursors"), "{report}");
    let (report, _) = trace_json(&redis, &[&watermark, "--channel", &user("1")], &[]);
    assert_eq!(report["channels"][0]["resume"], json!({"gap": null, "replayed": 1}));
    let epoch = watermark.split_once('.').unwrap().1;
    let ahead = format!("{}-0.{epoch}", now_ms() + 3_600_000);
    for id in [&ahead, "18446744073709551615-18446744073709551615.zzzzzzzzz"] {
        for channel in [&[][..], &["--channel", "user:1:events"]] {
            let (report, code) = trace_json(&redis, &[&[id], channel].concat(), &[]);
            assert_eq!(
                (code, &report["restart"], &report["channels"]),
                (Some(1), &json!("unknown-id"), &json!([]))
            );
            assert!(report["note"].as_str().unwrap().contains("ahead of the clock"), "{report}");
        }
        assert!(trace(&redis, &[id], &[]).out.contains("sse.gap with unknown-id"));
        let gap = resumed(&gateway, "1", id).await.app_event().await;
        assert_eq!(gap.json()["reason"], "unknown-id");
    }
}

#[tokio::test]
async fn each_key_prefix_is_searched_separately() {
    let redis = Redis::start().await;
    let prefix = [("REDIS__KEY_PREFIX", "shop-1:")];
    let _gateway = Gateway::durable_only(&redis).env(prefix[0].0, prefix[0].1).start().await;
    // A single gateway uses the plain function names.
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    let (report, code) = trace_json(&redis, &[&id], &prefix);
    assert_eq!((code, &report["channels"][0]["channel"]), (Some(0), &json!(user("1"))));
    assert_eq!(report["search"]["logs"], 1);
    for arguments in [&[id.as_str()][..], &[&id, "--channel", "user:1:events"]] {
        let (report, code) = trace_json(&redis, arguments, &[]);
        assert_eq!(
            (code, &report["clock"], &report["channels"]),
            (Some(1), &Value::Null, &json!([]))
        );
        let note = report["note"].as_str().unwrap();
        assert!(note.contains("sse:node:{broadcast} does not exist"), "{report}");
    }
    // With two gateways in one Redis, each prefix has only its own events.
    let _other = Gateway::durable_only(&redis).start().await;
    let (report, code) = trace_json(&redis, &[&id], &[]);
    assert_eq!((code, &report["search"]["logs"]), (Some(1), &json!(0)));
}

#[tokio::test]
async fn later_breaks_are_reported() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    redis.command::<()>(&["SAVE"]).await;
    redis.stop();
    gateway.not_ready().await;
    redis.start_again().await;
    gateway.ready().await;
    let after = redis.durable(&user("1"), "a", "2").await.unwrap();
    let (report, code) = trace_json(&redis, &[&id], &[]);
    assert_eq!((code, &report["restart"]), (Some(0), &Value::Null));
    assert_eq!(report["breaks"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["breaks"][0]["reason"], "reset");
    let seen = &report["channels"][0];
    assert_eq!((&seen["place"], &seen["successor"]), (&json!("in-log"), &json!(after)));
    assert_eq!(seen["resume"], json!({"gap": "reset", "replayed": 1}));
    assert!(trace(&redis, &[&id], &[]).out.contains(" reset\n"));
    assert_eq!(resumed(&gateway, "1", &id).await.app_event().await.json()["reason"], "reset");
    // No break follows the event after it.
    assert_eq!(trace_json(&redis, &[&after], &[]).0["breaks"], json!([]));
    // Breaks of reason `unrecorded` are reported, too.
    let recorder = Gateway::start(&redis).await;
    recorder.wait_for_recorder().await;
    redis.plain(user("9"), "recorded").await;
    recorder.metric_reaches("sse_plain_recorded_total", &[], 1.0).await;
    recorder.kill9();
    recorder.wait_exit().await;
    let again = Gateway::start(&redis).await;
    again.wait_for_recorder().await;
    let (report, _) = trace_json(&redis, &[&after], &[]);
    let reasons: Vec<&Value> =
        report["breaks"].as_array().unwrap().iter().map(|s| &s["reason"]).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|r| **r == "unrecorded"), "{report}");
    assert_eq!(report["channels"][0]["resume"], json!({"gap": "unrecorded", "replayed": 0}));
    assert_eq!(resumed(&again, "1", &after).await.app_event().await.json()["reason"], "unrecorded");
}

#[tokio::test]
async fn bounded_search_reports_that_it_is_incomplete() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let mut published = Vec::new();
    let channels: Vec<String> = (0..300).map(|n| user(&n.to_string())).collect();
    publish_batch(&mut redis.publisher().await, &channels, 300, &mut published).await;
    let (report, _) = trace_json(&redis, &["1-1.a", "--max-logs", "100"], &[]);
    let search = &report["search"];
    assert_eq!((&search["logs"], &search["complete"]), (&json!(100), &json!(false)));
    assert!(report["note"].as_str().unwrap().contains("--max-logs"), "{report}");
    let (report, _) = trace_json(&redis, &["1-1.a", "--max-time", "0s"], &[]);
    assert_eq!(
        (&report["search"]["logs"], &report["search"]["complete"]),
        (&json!(0), &json!(false))
    );
    let (report, code) = trace_json(&redis, &[&published[250].id.to_string()], &[]);
    assert_eq!((code, &report["channels"][0]["channel"]), (Some(0), &json!(channels[250])));
    assert_eq!(
        (&report["search"]["logs"], &report["search"]["complete"]),
        (&json!(300), &json!(true))
    );
}

#[tokio::test]
async fn bad_arguments_and_unreachable_redis_exit_with_errors() {
    let redis = Redis::start().await;
    for arguments in [
        &["nonsense"][..],
        &["0-0.0"],
        &["1-1"],
        &["1-1.a", "--channel", "nowhere"],
        &["1"],
        &[],
        &["1-1.a", "--max-time", "x"],
    ] {
        let ran = trace(&redis, arguments, &[]);
        assert!(
            ran.code == Some(2) && ran.out.is_empty() && !ran.err.is_empty(),
            "{arguments:?}: {}",
            ran.err
        );
    }
    let away = run(&["trace", "1-1.a"], &[("REDIS__URL", "redis://:hush@127.0.0.1:1")]);
    assert_eq!((away.code, away.out.as_str()), (Some(69), ""));
    assert!(
        away.err.contains("Redis is unavailable") && !away.err.contains("hush"),
        "{}",
        away.err
    );
    assert_eq!(trace(&redis, &["1-1.a"], &[("REDIS__POOL_SIZE", "x")]).code, Some(78));
}

/// The Redis user for `trace` that the book documents.
fn documented_user() -> Vec<String> {
    let page = include_str!("../../docs/guides/tracing-an-event.md");
    let line = page
        .lines()
        .find(|line| line.starts_with("user trace "))
        .expect("the page has `user trace`");
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}

#[tokio::test]
async fn documented_rights_suffice_and_missing_ones_are_named() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let id = redis.publisher().await.durable(&user("1"), "a", "1", &["KEY", "k"]).await.unwrap();
    let rules = documented_user();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    redis.command::<()>(&[&["ACL", "SETUSER"], &rules[..]].concat()).await;
    let url = redis.url().replace("://", "://trace:trace-password@");
    let (report, code) = trace_json(&redis, &[&id], &[("REDIS__URL", &url)]);
    assert_eq!((code, &report["channels"][0]["event"]["key"]), (Some(0), &json!("k")));
    redis.command::<()>(&["ACL", "SETUSER", "trace", "-scan"]).await;
    let ran = trace(&redis, &[&id], &[("REDIS__URL", &url)]);
    assert_eq!(ran.code, Some(69), "{}", ran.out);
    assert!(ran.err.contains("scan") && ran.err.contains("tracing-an-event.md"), "{}", ran.err);
    let (_, code) = trace_json(&redis, &[&id, "--channel", &user("1")], &[("REDIS__URL", &url)]);
    assert_eq!(code, Some(0), "with the channel, SCAN is not needed");
    // A trimmed log must not pass for one that never had an event.
    redis.command::<i64>(&["XTRIM", &log_key(&user("1")), "MAXLEN", "0"]).await;
    redis.command::<()>(&["ACL", "SETUSER", "trace", "-xinfo"]).await;
    let ran = trace(&redis, &[&id, "--channel", &user("1")], &[("REDIS__URL", &url)]);
    assert_eq!(ran.code, Some(69), "{}{}", ran.out, ran.err);
}
