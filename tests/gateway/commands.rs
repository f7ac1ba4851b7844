//! The commands `ticket`, `publish` and `tail`.

use crate::config::{GOOD, command, run};
use crate::harness::process::free_port;
use crate::harness::{Gateway, Proxy, Redis, Sse, eventually, topic, user};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

#[tokio::test]
async fn ticket_and_publish_work_and_reject_bad_arguments() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let env = [GOOD, ("REDIS__URL", &*redis.url())];
    // A backend that only publishes should not have the key of the tickets.
    let keyless = &env[1..];
    let ran =
        run(&["ticket", "--user", "42", "--topic", "a", "--topic", "b*", "--ttl", "30s"], &env);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let jwt = ran.out.trim_end();
    assert_eq!((ran.out.lines().count(), jwt.matches('.').count()), (1, 2));
    let mut sse = Sse::connect(&gateway.url(&format!("/events?ticket={jwt}")), &[]).await;
    let first = sse.connected().await.json();
    assert_eq!((&first["user"], &first["topics"]), (&json!("42"), &json!(["a", "b*"])));
    let payload = "{ \"a\" : 1.0 }";
    let ran =
        run(&["publish", &user("42"), "kind", payload, "--retry", "6000", "--key", "k"], keyless);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let event = sse.app_event().await;
    assert_eq!(
        (event.event.as_str(), event.data.as_str(), event.retry),
        ("kind", payload, Some(6000))
    );
    assert_eq!(event.id.as_deref(), Some(ran.out.trim_end()));
    // Invalid arguments are rejected with an explanation.
    for arguments in
        [&["publish", "nowhere", "kind", "1"], &["publish", "broadcast:t", "sse.x", "1"]]
    {
        let ran = run(arguments, &env);
        assert!(
            ran.code == Some(1) && ran.out.is_empty() && !ran.err.is_empty(),
            "{arguments:?}: {}",
            ran.err
        );
    }
    for arguments in [
        &["--user", "a b"][..],
        &["--user", "1", "--ttl", "61s"],
        &["--user", "1", "--ttl", "0s"],
        &["--user", "1", "--topic", "a b"],
        &["--user", ""],
    ] {
        let ran = run(&[&["ticket"], arguments].concat(), &env);
        assert!(
            ran.code != Some(0) && ran.out.is_empty() && !ran.err.is_empty(),
            "{arguments:?}: {}",
            ran.out
        );
    }
    assert_eq!(run(&["ticket", "--user", "1"], &[]).code, Some(78), "without a key");
    let away = run(
        &["publish", "broadcast:t", "kind", "1"],
        &[("REDIS__URL", "redis://:hush@127.0.0.1:1")],
    );
    assert_eq!(away.code, Some(1));
    // The object, the problem and its cause, once.
    let expected = "not published (Redis at 127.0.0.1:1): Redis is unavailable: ";
    assert!(away.err.starts_with(expected) && !away.err.contains("hush"), "{}", away.err);
    assert_eq!(away.err.matches("onnection refused").count(), 1, "{}", away.err);
}

/// A `tail` process and the lines it has printed so far.
struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Tail {
    fn start(arguments: &[&str]) -> Tail {
        let mut child = command(&[&["tail"], arguments].concat(), &[])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tail");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (out, filled) = (child.stdout.take().expect("a pipe"), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                filled.lock().unwrap().push(line);
            }
        });
        Tail { child, lines }
    }

    /// The data of all events of this name so far.
    fn data(&self, name: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let of = |line: &String| {
            let mut columns = line.splitn(3, '\t');
            let (_, kind, data) = (columns.next()?, columns.next()?, columns.next()?);
            (kind == name).then(|| data.to_string())
        };
        lines.iter().filter_map(of).collect()
    }

    async fn wait_for(&self, name: &str, data: &str) {
        eventually(&format!("{name} {data} in the output of tail"), || {
            std::future::ready(self.data(name).iter().any(|d| d == data).then_some(()))
        })
        .await;
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn tail_follows_to_the_next_gateway_without_loss() {
    let redis = Redis::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let builder =
        Gateway::durable_only(&redis).env("SERVER__LISTEN", &address).env("SERVER__RETRY", "100ms");
    let old = builder.start().await;
    // A load balancer in front of both gateways. It is closed while neither is ready, because
    // `tail` would wait 10 to 30 s after `sse.busy`.
    let front = Proxy::start(&address).await;
    let jwt = crate::harness::ticket("1").jwt();
    let tail = Tail::start(&["--url", &format!("http://{}/", front.address()), "--ticket", &jwt]);
    // From then on, it gets what is published.
    eventually("the stream of tail", || async {
        (!tail.data("sse.connected").is_empty()).then_some(())
    })
    .await;
    let mut sent = Vec::new();
    let mut publish = async |n: usize| {
        let channel = if n.is_multiple_of(2) { user("1") } else { topic("t") };
        redis.durable(&channel, "n", n.to_string()).await.unwrap();
        sent.push(n.to_string());
        sent.clone()
    };
    publish(0).await;
    publish(1).await;
    tail.wait_for("n", "1").await;
    old.kill9();
    old.wait_exit().await;
    front.down();
    publish(2).await;
    publish(3).await;
    let new = builder.start().await;
    front.up();
    publish(4).await;
    let sent = publish(5).await;
    tail.wait_for("n", "5").await;
    assert_eq!(tail.data("n"), sent, "all of them, in order, once");
    assert_eq!(tail.data("sse.gap"), Vec::<String>::new());
    assert_eq!(new.metric("sse_catch_ups_total", &[("cause", "resume")]).await, 1.0);
}

#[tokio::test]
async fn tail_shows_events_without_an_id() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let keep = ["FCALL", "sse_publish", "1", &topic("t"), "n", "1", "KEEP", "k"];
    redis.command::<String>(&keep).await;
    let jwt = crate::harness::ticket("1").topics(&["t"]).jwt();
    let tail = Tail::start(&["--url", &gateway.url(""), "--ticket", &jwt]);
    tail.wait_for("n", "1").await;
    let id = redis.durable(&topic("t"), "n", "2").await.unwrap();
    tail.wait_for("n", "2").await;
    let lines = tail.lines.lock().unwrap().clone();
    let lines: Vec<_> = lines.iter().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    let with = |kind: &str| lines.iter().filter(|line| line[1] == kind).collect::<Vec<_>>();
    let keys = r#"{"covers":["user:1:events","broadcast:t"],"channels":{"broadcast:t":["k"]}}"#;
    assert_eq!(with("sse.snapshot"), [&["-", "sse.snapshot", keys]]);
    assert_eq!(with("n"), [&["-", "n", "1"], &[&id, "n", "2"]]);
    assert!(with("sse.connected")[0][0].ends_with('!'), "{lines:?}");
}

#[tokio::test]
async fn tail_resumes_from_id_and_exits_when_rejected() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let from = redis.durable(&topic("t"), "n", "0").await.unwrap();
    redis.durable(&topic("t"), "n", "one\ntwo").await.unwrap();
    redis.durable(&topic("u"), "n", "not asked for").await.unwrap();
    redis.durable(&topic("t"), "n", "last").await.unwrap();
    let (url, jwt) = (gateway.url(""), crate::harness::ticket("1").jwt());
    let tail =
        Tail::start(&["--url", &url, "--ticket", &jwt, "--topics", "t", "--last-event-id", &from]);
    tail.wait_for("n", "last").await;
    assert_eq!(tail.data("n"), ["one", "last"], "several lines of data stand below each other");
    drop(tail);
    let bad = crate::harness::ticket("1").without("jti").jwt();
    let ran = run(&["tail", "--url", &url, "--ticket", &bad], &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("401") && ran.err.contains("ticket-missing-claim"), "{}", ran.err);
    assert!(!ran.err.contains(&bad) && !ran.out.contains(&bad), "the ticket is shown: {}", ran.err);
}
