//! Resumes under load: 200 catch-ups at 2,000 events per second on ten channels.

use crate::harness::{
    Event, Gateway, Id, Load, Redis, Sse, assert_received, encode, ticket, topic, user,
};

/// A client with its first cursor, its current cursor, and all events received.
struct Client {
    name: String,
    start: Id,
    cursor: String,
    received: Vec<Event>,
}

impl Client {
    async fn resume(&self, gateway: &Gateway) -> Sse {
        let query = format!("&lastEventId={}", encode(&self.cursor));
        gateway.connect_with(&ticket(&self.name), &query).await
    }

    /// Receives events until `enough`, and checks that there is no gap.
    async fn take(&mut self, sse: &mut Sse, enough: impl FnMut(&Event) -> bool) {
        let events = sse.until(enough).await;
        assert!(events.iter().all(|e| e.event != "sse.gap"), "{}", sse.dump());
        self.cursor = sse.last_id().to_string();
        self.received.extend(events);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_resumes_under_load_lose_nothing() {
    let redis = Redis::start().await;
    let start = || {
        let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000");
        async move { builder.start().await }
    };
    let (one, two) = tokio::join!(start(), start());
    let gateways = std::sync::Arc::new([one, two]);
    let mut channels = vec![user("u0"), user("u1")];
    channels.extend((0..8).map(|n| topic(&format!("t{n}"))));
    // Ten clients that reconnect 20 times each, alternating between the gateways.
    let load = Load::start(&redis, &channels, 2000).await;
    let mut tasks = Vec::new();
    for n in 0..10usize {
        let gateways = gateways.clone();
        tasks.push(tokio::spawn(async move {
            let name = format!("u{}", n % 2);
            let sse = gateways[n % 2].connect(&name).await;
            let cursor = sse.last_id().to_string();
            drop(sse);
            let mut client = Client { name, start: Id::of(&cursor), cursor, received: Vec::new() };
            for round in 0..20usize {
                let mut sse = client.resume(&gateways[(n + round) % 2]).await;
                // From none to some hundreds: within the replay, at its end, and live.
                let mut left = [0, 1, 7, 60, 300][(n + round * 3) % 5];
                if left > 0 {
                    let enough = |event: &Event| {
                        left -= usize::from(!event.is_system());
                        left == 0
                    };
                    client.take(&mut sse, enough).await;
                }
            }
            client
        }));
    }
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await.unwrap());
    }
    // A busy machine publishes more slowly, but the clients need some load.
    load.total(1001).await;
    let published = load.stop().await;
    for (n, mut client) in clients.into_iter().enumerate() {
        let mine = user(&client.name);
        let due = |channel: &str| channel == mine || channel.starts_with("broadcast:");
        let last = published.iter().rfind(|p| due(&p.channel)).unwrap().id;
        let mut sse = client.resume(&gateways[n % 2]).await;
        if Id::of(&client.cursor) < last {
            let enough = |event: &Event| event.id == Some(last.to_string());
            client.take(&mut sse, enough).await;
        }
        assert_received(&published, &client.received, due, client.start, last);
    }
    let total = published.len();
    assert!(total > 1000, "only {total} events: no load");
    for gateway in gateways.iter() {
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.get("sse_gaps_total", &[]), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_under_load_receive_everything_in_order() {
    let redis = Redis::start().await;
    let builder = Gateway::durable_only(&redis).env("HISTORY__MAX_LEN", "100000");
    let gateway = builder.start().await;
    let mut channels = vec![user("a"), user("b")];
    channels.extend((0..8).map(|n| topic(&format!("t{n}"))));
    let mut streams = Vec::new();
    for name in ["a", "b", "a", "c"] {
        streams.push((name, gateway.connect(name).await));
    }
    let load = Load::start(&redis, &channels, 2000).await;
    let mut tasks = Vec::new();
    for (name, mut sse) in streams {
        tasks.push(tokio::spawn(async move {
            let start = Id::of(sse.last_id());
            let received = sse.until(|event| event.event == "end").await;
            (name, start, received)
        }));
    }
    load.more(6000).await;
    let published = load.stop().await;
    let end = redis.durable(&topic("end"), "end", "").await.unwrap();
    for task in tasks {
        let (name, start, mut received) = task.await.unwrap();
        assert_eq!(received.pop().unwrap().id, Some(end.clone()));
        let mine = user(name);
        let due = |channel: &str| channel == mine || channel.starts_with("broadcast:");
        assert_received(&published, &received, due, start, Id::of(&end));
    }
}
