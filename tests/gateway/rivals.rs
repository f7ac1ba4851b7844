//! Rivals: two primaries behind one address. One of them yields, and no event is lost silently.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::harness::{GUARD, Gateway, Id, Redis, Sse, eventually, eventually_within, user};
use tokio::net::{TcpListener, TcpStream};

/// A balancer that sends connections to its targets in turn. Existing connections continue.
struct Balancer {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
}

impl Balancer {
    async fn start(servers: &[&Redis]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let balancer = Balancer { address, targets: Arc::default() };
        balancer.set(servers);
        let targets = balancer.targets.clone();
        tokio::spawn(async move {
            for turn in 0.. {
                let Ok((mut client, _)) = listener.accept().await else { return };
                let target = {
                    let targets = targets.lock().unwrap();
                    targets[turn % targets.len()].clone()
                };
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        balancer
    }

    /// Changes where new connections lead to.
    fn set(&self, servers: &[&Redis]) {
        *self.targets.lock().unwrap() = servers.iter().map(|server| server.address()).collect();
    }

    async fn gateway(&self, redis: &Redis) -> Gateway {
        let url = format!("redis://{}", self.address);
        Gateway::durable_only(redis).redis_url(&url).start().await
    }
}

/// The second server has the function library, as if gateways had used it earlier.
async fn copy_library(from: &Redis, to: &Redis) {
    let dump: Vec<u8> = from.command(&["FUNCTION", "DUMP"]).await;
    let words = [b"FUNCTION".to_vec(), b"RESTORE".to_vec(), dump];
    to.command::<()>(&words).await;
}

async fn publish(redis: &Redis, name: &str) -> Result<Id, String> {
    redis.durable(&user("1"), name, "1").await.map(|id| Id::of(&id))
}

/// Waits until a server has yielded.
async fn yielded(redis: &Redis) {
    eventually("a server that has yielded", || async { has_yielded(redis).await.then_some(()) })
        .await;
}

async fn has_yielded(redis: &Redis) -> bool {
    let mark: Option<String> = redis.command(&["HGET", "sse:node:{broadcast}", "yielded"]).await;
    mark.as_deref() == Some("1")
}

async fn assert_refuses(redis: &Redis) {
    let refused = publish(redis, "refused").await.unwrap_err();
    assert!(refused.starts_with("not-adopted:"), "{refused}");
}

async fn expect(sse: &mut Sse, name: &str) {
    let event = sse.app_event().await;
    assert_eq!(event.event, name, "{}", sse.dump());
}

async fn expect_reset(sse: &mut Sse) {
    let gap = sse.app_event().await;
    assert_eq!(gap.event, "sse.gap", "{}", sse.dump());
    assert_eq!(gap.json()["reason"], "reset");
}

#[tokio::test]
async fn lone_rival_that_accepted_events_yields_and_streams_are_reset() {
    let (own, rival) = (Redis::start().await, Redis::start_beside().await);
    let balancer = Balancer::start(&[&own]).await;
    let (one, two) = (balancer.gateway(&own).await, balancer.gateway(&own).await);
    let mut streams = [one.connect("1").await, two.connect("1").await];
    let before = publish(&own, "before").await.unwrap();
    for sse in &mut streams {
        expect(sse, "before").await;
    }
    copy_library(&own, &rival).await;
    publish(&rival, "lost").await.unwrap();
    balancer.set(&[&own, &rival]);
    for sse in &mut streams {
        expect_reset(sse).await;
    }
    assert_refuses(&rival).await;
    publish(&own, "after").await.unwrap();
    for sse in &mut streams {
        expect(sse, "after").await;
    }
    // A client that was away gets the reset as well.
    let mut resumed = one.resume("1", &before.to_string()).await;
    expect_reset(&mut resumed).await;
    expect(&mut resumed, "after").await;
    // Both gateways have met the rival again, and nobody was notified twice.
    for gateway in [&one, &two] {
        let met = gateway.metric("sse_redis_rivals_total", &[]).await;
        gateway.metric_reaches("sse_redis_rivals_total", &[], met + 2.0).await;
        gateway.wait_for_log("two Redis servers with different data").await;
    }
    publish(&own, "end").await.unwrap();
    for sse in &mut streams {
        expect(sse, "end").await;
    }
    // The rival remembers it after a restart of its library.
    rival.command::<()>(&["FUNCTION", "FLUSH"]).await;
    copy_library(&own, &rival).await;
    assert_refuses(&rival).await;
}

#[tokio::test]
async fn rival_without_events_yields_and_streams_get_no_gap() {
    let (own, rival) = (Redis::start().await, Redis::start_beside().await);
    let balancer = Balancer::start(&[&own]).await;
    let gateway = balancer.gateway(&own).await;
    let mut sse = gateway.connect("1").await;
    copy_library(&own, &rival).await;
    balancer.set(&[&own, &rival]);
    yielded(&rival).await;
    assert_refuses(&rival).await;
    gateway.metric_reaches("sse_redis_rivals_total", &[], 3.0).await;
    publish(&own, "after").await.unwrap();
    expect(&mut sse, "after").await;
    assert_eq!(gateway.metric("sse_redis_reconnects_total", &[]).await, 0.0);
}

#[tokio::test]
async fn gateways_on_two_servers_move_to_one_of_them() {
    let (first, second) = (Redis::start().await, Redis::start_beside().await);
    let balancer = Balancer::start(&[&first]).await;
    let one = balancer.gateway(&first).await;
    let mut early = one.connect("1").await;
    publish(&first, "first").await.unwrap();
    let of_first = early.app_event().await.own_id();
    balancer.set(&[&second]);
    let two = balancer.gateway(&second).await;
    let mut late = two.connect("1").await;
    publish(&second, "second").await.unwrap();
    let of_second = late.app_event().await.own_id();
    balancer.set(&[&first, &second]);
    // The server with the later epoch remains. Both may have begun in the same second.
    let (used, left) = eventually("a server that has yielded", || async {
        let marks = [(&second, &first), (&first, &second)];
        for (used, left) in marks {
            if has_yielded(left).await {
                return Some((used, left));
            }
        }
        None
    })
    .await;
    // The balancer serves both gateways in turn, so that one of them may reach its own server
    // several times.
    eventually_within(4 * GUARD, "links to one server", || async {
        let (_, links): (String, i64) =
            used.command(&["PUBSUB", "SHARDNUMSUB", "sse:live:{broadcast}"]).await;
        (links == 2).then_some(())
    })
    .await;
    assert_refuses(left).await;
    publish(used, "end").await.unwrap();
    // Each server may have accepted events that the other gateway's clients missed. A client that
    // connected after the decision has missed none.
    for (sse, before) in [(&mut early, of_first), (&mut late, of_second)] {
        let received = sse.until(|event| event.event == "end").await;
        let is_reset = received.iter().any(|event| event.event == "sse.gap");
        let end = received.last().expect("the event").own_id();
        assert!(is_reset || end.epoch == before.epoch, "{}", sse.dump());
    }
}

#[tokio::test]
async fn link_follows_an_address_that_leads_elsewhere() {
    let (old, new) = (Redis::start().await, Redis::start_beside().await);
    let balancer = Balancer::start(&[&old]).await;
    let gateway = balancer.gateway(&old).await;
    let mut sse = gateway.connect("1").await;
    publish(&old, "before").await.unwrap();
    expect(&mut sse, "before").await;
    copy_library(&old, &new).await;
    balancer.set(&[&new]);
    yielded(&new).await;
    new.durable_retried(&user("1"), "after", "1").await;
    assert_refuses(&old).await;
    expect_reset(&mut sse).await;
    expect(&mut sse, "after").await;
}

#[tokio::test]
async fn new_gateway_adopts_no_server_beside_the_one_in_use() {
    let (own, rival) = (Redis::start().await, Redis::start_beside().await);
    let balancer = Balancer::start(&[&own]).await;
    let _first = balancer.gateway(&own).await;
    copy_library(&own, &rival).await;
    publish(&rival, "lost").await.unwrap();
    for _ in 0..4 {
        balancer.set(&[&own, &rival]);
        let gateway = balancer.gateway(&own).await;
        let mut sse = gateway.connect("1").await;
        publish(&own, "event").await.unwrap();
        sse.until(|event| event.event == "event").await;
        assert_refuses(&rival).await;
    }
}
