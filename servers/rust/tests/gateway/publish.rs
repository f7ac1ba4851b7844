//! What the library publishes is what the gateway delivers.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::servers::{Stream, connect, gateway, is_id, refused, settings, user, var};
use redis::cluster::ClusterClient;
use serde_json::json;
use sse_gateway_backend::{Settings, SseGateway, Ticket, Undelivered};

fn impatient(settings: Settings) -> SseGateway {
    SseGateway::new(Settings { retry_for: Duration::ZERO, ..settings }).expect("valid settings")
}

#[test]
fn events_arrive_as_published() {
    let (sse, user, mut redis) = (gateway(), user(), connect("SSE_TEST_REDIS"));
    let ticket = Ticket::new(&user).topics(["news"]).filter("region", ["eu"]);
    let mut stream = Stream::open("SSE_TEST_GATEWAY", &sse.ticket(&ticket).unwrap());
    assert_eq!(stream.connected["user"], user.as_str());
    assert_eq!(stream.connected["topics"], json!(["news"]));

    let payload = json!({ "total": 1.5, "ü": [null] });
    let event = sse.publish_to_user(&user, "order-completed", payload).key(&user);
    let id = event.send(&mut redis).unwrap();
    assert!(is_id(&id), "{id}");
    stream.expect("order-completed", r#"{"total":1.5,"ü":[null]}"#, &id);
    let again = sse.publish_to_user(&user, "order-completed", 2).key(&user);
    assert_eq!(again.send(&mut redis).unwrap(), id);

    let channel = format!("user:{user}:events");
    let event = sse.publish(&channel, "text", "a").retry(Duration::from_millis(1234));
    let id = event.send(&mut redis).unwrap();
    let event = stream.next_event();
    assert_eq!(
        (&event["id"], event["retry"].as_str(), event["data"].as_str()),
        (&id, "1234", "\"a\"")
    );

    sse.publish_to_broadcast("news", "filtered", 1).tag("region", "us").send(&mut redis).unwrap();
    sse.publish_to_broadcast("other", "not-permitted", 1).send(&mut redis).unwrap();
    let event = sse.publish_to_broadcast("news", "headline", ["a"]);
    let id = event.tag("region", "eu").tag("team", "x=y").send(&mut redis).unwrap();
    stream.expect("headline", r#"["a"]"#, &id);

    let typing = sse.publish_to_user(&user, "typing", ()).ephemeral();
    assert_eq!(typing.send(&mut redis).unwrap(), "");
    stream.expect("typing", "null", "");
    let traced = || sse.publish_to_user(&user, "traced", 1);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let id = traced().traceparent(trace).send(&mut redis).unwrap();
    stream.expect("traced", "1", &id);
    traced().traceparent("").send(&mut redis).unwrap();
    refused(traced().traceparent("x").send(&mut redis), "bad-traceparent", false);
}

#[test]
fn kept_values_reach_new_streams() {
    let (sse, user, mut redis) = (gateway(), user(), connect("SSE_TEST_REDIS"));
    let price = |value| sse.publish_to_user(&user, "price", value);
    price(1).keep("btc").send(&mut redis).unwrap();
    price(2).keep("btc").send(&mut redis).unwrap();
    price(3).keep("eth").send(&mut redis).unwrap();
    price(0).forget("eth").send(&mut redis).unwrap();
    let ticket = Ticket::new(&user).topics([] as [&str; 0]);
    let mut stream = Stream::open("SSE_TEST_GATEWAY", &sse.ticket(&ticket).unwrap());
    assert_eq!(stream.next_event()["event"], "sse.snapshot");
    stream.expect("price", "2", "");
    let id = sse.publish_to_user(&user, "end", 1).send(&mut redis).unwrap();
    stream.expect("end", "1", &id);
}

#[test]
fn undelivered_events_are_read_and_acknowledged() {
    let (sse, user, mut redis) = (gateway(), user(), connect("SSE_TEST_REDIS"));
    let event = sse.publish_to_user(&user, "shipped", json!({ "orderId": 7 }));
    let id = event.unseen(Duration::from_secs(1)).send(&mut redis).unwrap();
    let channel = format!("user:{user}:events");
    let find = |events: Vec<Undelivered>| events.into_iter().find(|event| event.channel == channel);
    let event = loop {
        if let Some(event) = find(sse.undelivered(&mut redis, &user, "first").unwrap()) {
            break event;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let found = (event.id.as_str(), event.kind.as_str(), event.payload.as_str());
    assert_eq!(found, (id.as_str(), "shipped", r#"{"orderId":7}"#));
    // Another consumer gets it after some time, and nobody after it was acknowledged.
    let mut claim = || sse.claim(&mut redis, &user, "second", Duration::ZERO).map(find).unwrap();
    assert_eq!(claim(), Some(event.clone()));
    sse.acknowledge(&mut connect("SSE_TEST_REDIS"), &user, &[event]).unwrap();
    assert_eq!(claim(), None);
}

#[test]
fn errors_have_codes() {
    let (sse, mut redis) = (gateway(), connect("SSE_TEST_REDIS"));
    let event = |kind| sse.publish_to_user("42", kind, 1);
    let large = "x".repeat(70_000);
    refused(sse.publish_to_user("42", "a", large).send(&mut redis), "too-large", false);
    refused(event("sse.a").send(&mut redis), "reserved-type", false);
    refused(event("a").ephemeral().key("k").send(&mut redis), "bad-ephemeral", false);
    refused(sse.publish_to_user("4 2", "a", 1).send(&mut redis), "bad-user", false);
    refused(sse.publish_to_broadcast("a*", "a", 1).send(&mut redis), "bad-channel", false);
    refused(sse.publish("news", "a", 1).send(&mut redis), "bad-channel", false);
    let payload = std::collections::BTreeMap::from([([1], 1)]);
    refused(sse.publish_to_user("42", "a", payload).send(&mut redis), "bad-payload", false);
    let absent = impatient(Settings { key_prefix: "absent:".to_owned(), ..settings() });
    refused(absent.publish_to_user("42", "a", 1).send(&mut redis), "not-loaded", true);
    let key = "sse:log:{user:broken:events}";
    redis::cmd("SET").arg((key, "1")).exec(&mut redis).unwrap();
    refused(sse.publish_to_user("broken", "a", 1).send(&mut redis), "wrong-type", false);
    let rule = ("SETUSER", "nobody", "on", "nopass", "+auth");
    redis::cmd("ACL").arg(rule).exec(&mut redis).unwrap();
    redis::cmd("AUTH").arg(("nobody", "any")).exec(&mut redis).unwrap();
    refused(event("a").send(&mut redis), "redis-error", false);
}

#[test]
fn lost_connections_are_retriable_with_a_key() {
    let mut redis = connect("SSE_TEST_REDIS");
    // A `redis::Connection` does not reconnect.
    redis::cmd("QUIT").exec(&mut redis).unwrap();
    let sse = impatient(settings());
    refused(sse.publish_to_user("42", "a", 1).send(&mut redis), "redis-away", false);
    refused(sse.publish_to_user("42", "a", 1).key("k").send(&mut redis), "redis-away", true);
    let retry_for = Duration::from_millis(300);
    let patient = SseGateway::new(Settings { retry_for, ..settings() }).unwrap();
    let started = Instant::now();
    refused(patient.undelivered(&mut redis, "emails", "c"), "redis-away", true);
    assert!(started.elapsed() > Duration::from_millis(50));
}

#[test]
fn prefixes() {
    let sse = impatient(Settings {
        key_prefix: "shop-1:".to_owned(),
        channel_prefix: "shop:".to_owned(),
        ..settings()
    });
    let (user, mut redis) = (user(), connect("SSE_TEST_REDIS"));
    let ticket = sse.ticket(&Ticket::new(&user).topics(["*"])).unwrap();
    let mut stream = Stream::open("SSE_TEST_PREFIXED_GATEWAY", &ticket);
    let id = sse.publish_to_user(&user, "a", 1).send(&mut redis).unwrap();
    stream.expect("a", "1", &id);
    let id = sse.publish("{broadcast}:news", "a", 2).send(&mut redis).unwrap();
    stream.expect("a", "2", &id);
    assert_eq!(sse.undelivered(&mut redis, &user, "c").unwrap(), []);
}

#[test]
fn cluster() {
    let nodes: Vec<_> =
        var("SSE_TEST_CLUSTER").split(',').map(|node| format!("redis://{node}")).collect();
    let client = ClusterClient::new(vec![nodes[0].clone()]).unwrap();
    let (sse, mut redis) = (gateway(), client.get_connection().unwrap());
    // Their slots are on all masters.
    for _ in 0..6 {
        let user = user();
        let ticket = sse.ticket(&Ticket::new(&user).topics(["news"])).unwrap();
        let mut stream = Stream::open("SSE_TEST_CLUSTER_GATEWAY", &ticket);
        sse.publish_to_user(&user, "a", 1).key("k").keep("x").send(&mut redis).unwrap();
        assert_eq!(stream.next_event()["event"], "a");
        sse.publish_to_broadcast("news", "b", 2).send(&mut redis).unwrap();
        assert_eq!(stream.next_event()["event"], "b");
    }
    refused(sse.publish_to_user("42", "sse.a", 1).send(&mut redis), "reserved-type", false);
    assert_eq!(sse.undelivered(&mut redis, "emails", "one").unwrap(), []);

    let sse = impatient(settings());
    let publish = |node: &String| {
        let mut redis = redis::Client::open(node.as_str()).unwrap().get_connection().unwrap();
        sse.publish_to_user("42", "a", 1).send(&mut redis)
    };
    let failed: Vec<_> = nodes.iter().map(publish).filter(Result::is_err).collect();
    assert_eq!(failed.len(), 2);
    failed.into_iter().for_each(|moved| refused(moved, "redis-away", true));
}

#[test]
fn unadopted_server_is_a_temporary_error() {
    let mut redis = connect("SSE_TEST_UNADOPTED");
    let mut publish = |sse: &SseGateway| sse.publish_to_user("42", "a", 1).send(&mut redis);
    refused(publish(&impatient(settings())), "not-adopted", true);
    let resumed = Command::new("kill").args(["-CONT", &var("SSE_TEST_STOPPED_GATEWAY")]).status();
    assert!(resumed.unwrap().success());
    let retry_for = Duration::from_secs(30);
    let patient = SseGateway::new(Settings { retry_for, ..settings() }).unwrap();
    assert!(is_id(&publish(&patient).unwrap()));
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn asynchronous_connections() {
    let client = redis::Client::open(var("SSE_TEST_REDIS")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (sse, user) = (gateway(), user());
    let event = sse.publish_to_user(&user, "shipped", 7).unseen(Duration::from_secs(1));
    let id = event.send_async(&mut redis).await.unwrap();
    let refusal = sse.publish_to_user(&user, "sse.a", 1).send_async(&mut redis).await;
    refused(refusal, "reserved-type", false);
    let has_it = |events: &[Undelivered]| events.iter().any(|event| event.id == id);
    while !has_it(&sse.undelivered_async(&mut redis, &user, "first").await.unwrap()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Another consumer gets it after some time, and nobody after it was acknowledged.
    let claimed = sse.claim_async(&mut redis, &user, "second", Duration::ZERO).await.unwrap();
    assert!(has_it(&claimed));
    sse.acknowledge_async(&mut redis, &user, &claimed).await.unwrap();
    let claimed = sse.claim_async(&mut redis, &user, "second", Duration::ZERO).await.unwrap();
    assert!(!has_it(&claimed));
}
