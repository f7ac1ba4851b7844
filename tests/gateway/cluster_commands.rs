//! Sessions, commands and endpoints on a Redis Cluster, whose masters have different users.

use serde_json::{Value, json};

use crate::acl::{BASICS, denials, documented, publisher, set_user, url_of};
use crate::api::{json_of, post};
use crate::config::{GOOD, Ran, run};
use crate::harness::keys::api_keys;
use crate::harness::{
    Cluster, Gateway, Id, Sse, encode, eventually, gateway::Builder, ticket, topic, user,
};
use crate::library_cluster::user_of;
use crate::revocations::{connections, revoke};

/// `redis+cluster://` with these credentials.
fn url(cluster: &Cluster, login: &str) -> String {
    format!("redis+cluster://{login}{}", cluster.addresses().join(","))
}

fn gateway(cluster: &Cluster) -> Builder {
    Gateway::at(&url(cluster, "")).env("PUBLISHERS__PLAIN", "off")
}

/// Starts a gateway and waits until every master is adopted; readiness needs one.
async fn start(cluster: &Cluster, builder: Builder) -> Gateway {
    let gateway = builder.start().await;
    for node in &cluster.nodes()[..3] {
        eventually("an adopted master", || async {
            let keys: Vec<String> = node.command(&["KEYS", "sse:node:*"]).await;
            let words = ["HGET", keys.first()?, "confirmed"];
            node.command::<Option<String>>(&words).await.map(drop)
        })
        .await;
    }
    gateway
}

/// A user of each master, without `user:` and `:events`.
async fn users(cluster: &Cluster) -> Vec<String> {
    let mut users = Vec::new();
    for n in 0..3 {
        let channel = user_of(cluster, n).await;
        users.push(channel.split(':').nth(1).expect("a user").to_owned());
    }
    users
}

/// A user of another master than the one that has the broadcasts, and the numbers of both masters.
async fn split_user(cluster: &Cluster) -> (String, usize, usize) {
    let broadcasts = cluster.owner_of("{broadcast}").await;
    let n = (broadcasts + 1) % 3;
    (users(cluster).await[n].clone(), n, broadcasts)
}

/// Runs a command with this Redis.
fn with(url: &str, arguments: &[&str]) -> Ran {
    run(arguments, &[GOOD, ("REDIS__URL", url)])
}

/// The standard output of a command that must succeed.
fn output(url: &str, arguments: &[&str]) -> String {
    let ran = with(url, arguments);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?} with {url}");
    ran.out.trim_end().to_owned()
}

fn trace(url: &str, arguments: &[&str]) -> Value {
    let ran = with(url, &[&["trace", "--json"], arguments].concat());
    assert_eq!(ran.err, "", "{arguments:?}");
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.out))
}

#[tokio::test]
async fn publish_and_trace_find_the_master_of_each_channel() {
    let cluster = Cluster::start(3).await;
    let gateway = start(&cluster, gateway(&cluster)).await;
    let users = users(&cluster).await;
    let any_node = cluster.node(0).url();
    for (n, id) in users.iter().enumerate() {
        let mut stream = gateway.connect(id).await;
        // A list of nodes, or any node.
        for url in [url(&cluster, ""), any_node.clone()] {
            let own = output(&url, &["publish", &user(id), "own", "1"]);
            let shared = output(&url, &["publish", &topic("news"), "shared", "1"]);
            let mut received = [stream.app_event().await.event, stream.app_event().await.event];
            received.sort();
            assert_eq!(received, ["own", "shared"]);

            for (id, channel) in [(&own, user(id)), (&shared, topic("news"))] {
                let report = trace(&url, &[id]);
                let search = &report["search"];
                assert_eq!((&report["found"], &search["complete"]), (&json!(true), &json!(true)));
                assert_eq!(search["logs"], json!(n + 2), "the logs of all masters: {report}");
                assert_eq!(report["channels"][0]["channel"], json!(channel));
                assert_eq!(report["channels"][0]["resume"], json!({"gap": null, "replayed": 0}));
                let epoch = Id::of(report["clock"].as_str().unwrap()).epoch;
                assert_eq!(epoch, Id::of(id).epoch, "the clock of the channel's master");
                let direct = trace(&url, &["--channel", &channel, id]);
                assert_eq!((&direct["found"], &direct["search"]), (&json!(true), &Value::Null));
            }
        }
    }
    // The last event id of a stream has two parts, of which one is the event's id.
    let (id, n, _) = split_user(&cluster).await;
    let mut stream = gateway.connect(&id).await;
    for channel in [user(&id), topic("news")] {
        let event = output(&any_node, &["publish", &channel, "last", "1"]);
        assert_eq!(stream.app_event().await.event, "last");
        let last = stream.last_id().to_string();
        let (own, shared) = last.split_once('~').expect("two parts");
        assert!([own, shared].contains(&event.as_str()), "{event} {last}");
        let report = trace(&any_node, &[&last]);
        let parts = report["parts"].as_array().unwrap();
        let named: Vec<_> = parts.iter().map(|part| (&part["part"], &part["id"])).collect();
        let expected = [(json!("user"), json!(own)), (json!("broadcasts"), json!(shared))];
        assert_eq!(named, expected.iter().map(|(part, id)| (part, id)).collect::<Vec<_>>());
        let channels = report["channels"].as_array().unwrap();
        assert!(channels.iter().any(|seen| seen["channel"] == json!(channel)), "{report}");
        let words = output(&any_node, &["trace", &last]);
        assert!(words.contains(&format!("broadcasts   {shared}, 20")), "{words}");
    }
    // Without a master its logs cannot be searched, and the report says so.
    let elsewhere = output(&any_node, &["publish", &user(&users[(n + 1) % 3]), "t", "1"]);
    cluster.node(n).stop();
    let report = trace(&url(&cluster, ""), &[&elsewhere]);
    assert_eq!(report["unavailable"], json!([cluster.node(n).address()]));
    assert_eq!((&report["found"], &report["search"]["complete"]), (&json!(true), &json!(false)));
    let lost = with(&url(&cluster, ""), &["publish", &user(&id), "t", "1"]);
    assert_eq!(lost.code, Some(1), "{}", lost.out);
    let expected = format!("not published (Redis at {})", cluster.node(n).address());
    assert!(lost.err.starts_with(&expected), "{}", lost.err);
}

#[tokio::test]
async fn check_config_describes_every_master() {
    let mut cluster = Cluster::start(3).await;
    let replica = cluster.add_replica(0).await;
    for node in cluster.nodes() {
        for (name, value) in [
            ("maxmemory", "1gb"),
            ("proto-max-bulk-len", "128mb"),
            ("appendonly", "yes"),
            ("min-replicas-to-write", "0"),
            ("client-output-buffer-limit", "pubsub 256mb 64mb 60"),
        ] {
            node.command::<()>(&["CONFIG", "SET", name, value]).await;
        }
    }
    let _gateway = start(&cluster, gateway(&cluster)).await;
    for url in [url(&cluster, ""), cluster.node(1).url()] {
        let out = eventually("three adopted masters", || async {
            let out = output(&url, &["check-config", "--connect"]);
            (out.matches("adopted in epoch").count() == 3).then_some(out)
        })
        .await;
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.contains(&"  mode     cluster"), "{out}");
        for (n, slots) in ["0-5460", "5461-10921", "10922-16383"].into_iter().enumerate() {
            let master = format!("  master   {}, slots {slots}, ", cluster.node(n).address());
            assert!(lines.iter().any(|line| line.starts_with(&master)), "{master:?} in {out}");
        }
        let line = format!("  replica  {}", cluster.node(replica).address());
        assert!(lines.contains(&line.as_str()), "{out}");
        // A finding of all masters is one line, and that of some masters names them.
        let without = lines.iter().filter(|line| line.contains("the master has no replica"));
        let [line] = without.collect::<Vec<_>>()[..] else { panic!("{out}") };
        let nodes = format!("({}, {})", cluster.node(1).address(), cluster.node(2).address());
        assert!(line.starts_with("warning: ") && line.ends_with(&nodes), "{line}");
        assert!(lines.contains(&"ok: permissions: all commands that the gateway needs"), "{out}");
        assert!(out.ends_with("the gateway can use this Redis"), "{out}");
    }
    cluster.node(2).command::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]).await;
    let yes = ["CONFIG", "SET", "cluster-require-full-coverage", "yes"];
    cluster.node(1).command::<()>(&yes).await;
    let out = output(&url(&cluster, ""), &["check-config", "--connect"]);
    for (words, n) in [
        ("warning: cluster-require-full-coverage is yes", 1),
        ("warning: proto-max-bulk-len is 1048576, but a log may have", 2),
    ] {
        let line = out.lines().find(|line| line.starts_with(words));
        let node = format!("({})", cluster.node(n).address());
        assert!(line.is_some_and(|line| line.ends_with(&node)), "{words}: {out}");
    }
    cluster.node(2).stop();
    let ran = with(&url(&cluster, ""), &["check-config", "--connect"]);
    let warning = format!(
        "warning: the master does not reply: the channels of its slots are unavailable ({})",
        cluster.node(2).address()
    );
    assert_eq!((ran.code, ran.out.contains(&warning)), (Some(0), true), "{}", ran.out);
    cluster.nodes().iter().for_each(|node| node.stop());
    let away = with(&url(&cluster, ":hush@"), &["check-config", "--connect"]);
    assert_eq!(away.code, Some(69), "{}", away.err);
    assert!(away.err.starts_with("no node of the cluster answers CLUSTER NODES"), "{}", away.err);
    assert!(!away.err.contains("hush"), "{}", away.err);
}

#[tokio::test]
async fn endpoints_reach_the_users_of_every_master() {
    let cluster = Cluster::start(3).await;
    let keys = api_keys(&[("publisher", "publish"), ("an admin's key", "admin"), ("t", "tickets")]);
    let gateway = start(&cluster, gateway(&cluster).env("API_KEYS", &keys)).await;
    let users = users(&cluster).await;
    let mut streams = Vec::new();
    for id in &users {
        let body = json!({"user": id, "topics": ["news"]}).to_string();
        let made = json_of(post(&gateway, "/tickets", Some("t"), body).await).await;
        let jwt = made["ticket"].as_str().expect("a ticket");
        let mut stream = Sse::connect(&gateway.url(&format!("/events?ticket={jwt}")), &[]).await;
        stream.connected().await;
        streams.push(stream);
    }
    let mut events: Vec<Value> = users
        .iter()
        .map(|id| json!({"channel": user(id), "type": "own", "payload": id, "id": "k"}))
        .collect();
    events.push(json!({"channel": topic("news"), "type": "shared", "payload": 1}));
    events.push(json!({"channel": "nowhere", "type": "t", "payload": 1}));
    let body = Value::Array(events).to_string();
    let sent = json_of(post(&gateway, "/publish", Some("publisher"), body.clone()).await).await;
    assert_eq!(sent[4]["error"], "bad-channel", "{sent}");
    for (n, stream) in streams.iter_mut().enumerate() {
        let (mut own, mut shared) = (stream.app_event().await, stream.app_event().await);
        if own.event == "shared" {
            std::mem::swap(&mut own, &mut shared);
        }
        assert_eq!((own.data, shared.event.as_str()), (json!(users[n]).to_string(), "shared"));
        let last = stream.last_id();
        let has = |id: &Value| last.contains(id.as_str().expect("an id"));
        assert!(has(&sent[n]["id"]) || has(&sent[3]["id"]), "{last} {sent}");
    }
    let again = json_of(post(&gateway, "/publish", Some("publisher"), body).await).await;
    assert_eq!((&again[0], &again[1], &again[2]), (&sent[0], &sent[1], &sent[2]));
    assert_eq!(connections(&gateway, "").await.len(), 3);
    for (n, id) in users.iter().enumerate() {
        assert_eq!(revoke(&gateway, id, "an admin's key").await, 200);
        let closing = streams[n].next_of("sse.closing").await;
        assert_eq!(closing.json()["reason"], "revoked");
        eventually("one stream less", || async {
            (connections(&gateway, "").await.len() == 2 - n).then_some(())
        })
        .await;
    }
}

/// The permissions that a documented user needs on a cluster in addition.
fn additions(name: &str) -> Vec<String> {
    let page = include_str!("../../docs/operations/redis.md");
    let begins = format!("{name} on a cluster: ");
    let line = page.lines().find_map(|line| line.strip_prefix(&begins));
    line.unwrap_or_else(|| panic!("no {begins:?}")).split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn documented_users_suffice_on_a_cluster_and_need_all_of_it() {
    let cluster = Cluster::start(3).await;
    let set_all = |name: &'static str, rules: Vec<String>| {
        let nodes = cluster.nodes();
        async move {
            for node in nodes {
                set_user(node, name, &rules).await;
            }
        }
    };
    for name in ["gateway", "shop"] {
        set_all(name, [documented(name), additions(name)].concat()).await;
    }
    let login = "gateway:gw-password@";
    let keys = api_keys(&[("an admin's key", "admin"), ("publisher", "publish")]);
    let builder = Gateway::at(&url(&cluster, login)).env("API_KEYS", &keys);
    let gateway = start(&cluster, builder).await;
    for (n, id) in users(&cluster).await.iter().enumerate() {
        let mut stream = gateway.connect(id).await;
        let mut shop = publisher(cluster.node(n), "shop", "shop-password").await;
        let first = shop.durable(&user(id), "t", "1", &["KEY", "k"]).await.expect("published");
        assert!(stream.app_event().await.id.expect("an id").contains(&first));
        let body = json!({"channel": topic("news"), "type": "t", "payload": 1}).to_string();
        json_of(post(&gateway, "/publish", Some("publisher"), body).await).await;
        stream.app_event().await;
        assert_eq!(revoke(&gateway, id, "an admin's key").await, 200);
    }
    let owner = cluster.owner_of("{broadcast}").await;
    let mut shop = publisher(cluster.node(owner), "shop", "shop-password").await;
    shop.durable("{broadcast}:news", "t", "1", &[]).await.expect("published");
    for node in cluster.nodes() {
        let refused = denials(node).await;
        assert!(refused.iter().all(|denial| denial == "gateway config|get"), "{refused:?}");
    }
    let url = url(&cluster, login);
    assert!(output(&url, &["check-config", "--connect"]).contains("ok: permissions: all"));
    let all = [documented("gateway"), additions("gateway")].concat();
    for permission in additions("gateway") {
        let rules = all.iter().filter(|word| **word != permission).cloned().collect();
        set_all("gateway", rules).await;
        let ran = with(&url, &["check-config", "--connect"]);
        let name = permission[1..].replace('|', " ").to_uppercase();
        assert_eq!(ran.code, Some(78), "without {permission}: {}", ran.out);
        let all = format!("{}{}", ran.out, ran.err);
        assert!(all.contains(&name) && !all.contains(BASICS), "without {permission}: {all}");
    }
    // The library looks up the slot of a channel that it does not know yet.
    set_all("shop", documented("shop")).await;
    let refused = shop.durable("{broadcast}:other", "t", "1", &[]).await;
    assert!(refused.is_err() && url_of(cluster.node(0), "shop", "x").contains("shop:x@"));
}

/// The key of a session in Redis.
async fn session_key(cluster: &Cluster, n: usize, id: &str) -> String {
    let pattern = format!("sse:session:{{{}}}:*", user(id));
    let keys: Vec<String> = cluster.node(n).command(&["KEYS", &pattern]).await;
    let [key] = &keys[..] else { panic!("{keys:?}") };
    key.clone()
}

#[tokio::test]
async fn session_of_a_split_stream_begins_in_both_parts() {
    let cluster = Cluster::start(3).await;
    let builder = gateway(&cluster).env("TICKETS__RECONNECT_GRACE", "3s");
    let gateway = start(&cluster, builder).await;
    let (id, n, broadcasts) = split_user(&cluster).await;
    let first_of = |key: String| {
        let node = cluster.node(n);
        async move {
            let text: Option<String> = node.command(&["GET", &key]).await;
            let text = text.unwrap_or_default();
            text.rsplit(' ').next().filter(|first| !first.is_empty()).map(str::to_owned)
        }
    };
    let shared = |payload: &'static str| {
        let node = cluster.node(broadcasts);
        async move { node.durable("{broadcast}:news", "shared", payload).await.unwrap() }
    };
    let mut other = gateway.connect(&users(&cluster).await[broadcasts]).await;
    let (before, second) = (shared("0").await, shared("1").await);
    // The gateway has received both.
    assert_eq!(
        (other.app_event().await.data, other.app_event().await.data),
        ("0".into(), "1".into())
    );
    // A new client begins at the last known position of the broadcasts' server.
    let same = ticket(&id);
    let stream = gateway.connect_with(&same, "").await;
    let key = session_key(&cluster, n, &id).await;
    let first = Id::of(&first_of(key.clone()).await.expect("a first broadcast"));
    assert_eq!(first.epoch, Id::of(&second).epoch);
    assert!(first >= Id::of(&second), "{first} {second}");
    // Renewals keep it.
    cluster.node(n).command::<i64>(&["DEL", &key]).await;
    let kept = eventually("a renewed session", || first_of(key.clone())).await;
    assert_eq!(Id::of(&kept), first);
    // No resume reaches back before it, in any part.
    let own = stream.last_id().split('~').next().unwrap().to_owned();
    drop(stream);
    let resume = |cursor: String, ticket: &crate::harness::ticket::Ticket| {
        let url = gateway.events_url(ticket, &format!("&lastEventId={}", encode(&cursor)));
        async move {
            let mut stream = Sse::connect(&url, &[]).await;
            let resumed = stream.connected().await.json()["resumed"].clone();
            (resumed == json!(true), stream)
        }
    };
    assert!(!resume(format!("{own}~{before}"), &same).await.0);
    assert!(resume(format!("{own}~{kept}"), &same).await.0);
    // A new ticket begins where the client is, if that is possible.
    let next = ticket(&id);
    cluster.node(n).command::<i64>(&["DEL", &key]).await;
    let (is_resumed, mut stream) = resume(format!("{own}~{before}"), &next).await;
    assert!(is_resumed && stream.app_event().await.data == "1", "{}", stream.dump());
    drop(stream);
    let (is_resumed, mut stream) = resume(format!("{own}~{before}"), &next).await;
    assert!(is_resumed && stream.app_event().await.data == "1", "{}", stream.dump());
    // A position ahead of the server would keep the session from ever resuming.
    let ahead = Id { ms: Id::of(&second).ms + 3_600_000, ..Id::of(&second) };
    let other = ticket(&id);
    let (is_resumed, mut stream) = resume(format!("{own}~{ahead}"), &other).await;
    let gap = stream.next_of("sse.gap").await.json();
    assert!(!is_resumed && gap["reason"] == "unknown-id", "{}", stream.dump());
    let last = stream.last_id().to_owned();
    drop(stream);
    assert!(resume(last, &other).await.0, "the session can resume");
}

#[tokio::test]
async fn cursor_of_an_epoch_that_no_server_has_begun_is_unknown() {
    let cluster = Cluster::start(3).await;
    let gateway = start(&cluster, gateway(&cluster)).await;
    let (id, n, broadcasts) = split_user(&cluster).await;
    let event = cluster.node(n).durable(&user(&id), "own", "1").await.unwrap();
    let shared = cluster.node(broadcasts).durable("{broadcast}:n", "t", "1").await.unwrap();
    // A server that gains slots begins an epoch after those of all others.
    let later = |id: &str| Id { epoch: Id::of(id).epoch + 5000, ..Id::of(id) };
    for cursor in [
        format!("{}~{shared}", later(&event)),
        format!("{event}~{}", later(&shared)),
        format!("{}~{}", later(&event), later(&shared)),
    ] {
        let query = format!("&lastEventId={}", encode(&cursor));
        let same = ticket(&id);
        let mut stream = gateway.connect_with(&same, &query).await;
        let gap = stream.next_of("sse.gap").await.json();
        assert_eq!((&gap["reason"], &gap["from"]), (&"unknown-id".into(), &cursor.into()));
        let next = cluster.node(n).durable(&user(&id), "own", "2").await.unwrap();
        let position = stream.app_event().await.id.unwrap();
        assert!(position.starts_with(&format!("{next}~")), "{}", stream.dump());
        // The session resumes from what it got since then.
        let query = format!("&lastEventId={}", encode(&position));
        let mut resumed = gateway.connect_with(&same, &query).await;
        cluster.node(n).durable(&user(&id), "own", "3").await.unwrap();
        assert_eq!(resumed.app_event().await.event, "own", "no gap: {}", resumed.dump());
    }
}

#[tokio::test]
async fn higher_generation_replaces_the_library_on_every_master() {
    let cluster = Cluster::start(3).await;
    let _first = start(&cluster, gateway(&cluster)).await;
    let users = users(&cluster).await;
    let mut before = Vec::new();
    for (n, id) in users.iter().enumerate() {
        before.push(Id::of(&cluster.node(n).durable(&user(id), "t", "1").await.unwrap()));
    }
    let _second = gateway(&cluster).env("HISTORY__GENERATION", "2").start().await;
    for (n, id) in users.iter().enumerate() {
        eventually("the library of the second generation", || async {
            let list = ["FUNCTION", "LIST", "LIBRARYNAME", "sse_gateway_*_g2_*"];
            let found: Vec<redis::Value> = cluster.node(n).command(&list).await;
            (!found.is_empty()).then_some(())
        })
        .await;
        let after = Id::of(&cluster.node(n).durable_retried(&user(id), "t", "1").await);
        assert!(after > before[n] && after.epoch == before[n].epoch, "{after} {}", before[n]);
    }
}
