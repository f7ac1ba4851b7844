//! Streams on a cluster: one id resumes both sources, at any gateway.

use std::time::Duration;

use serde_json::Value;

use crate::harness::cluster_load::{Reader, Writer, gateway, publish, two_gateways, user_at};
use crate::harness::keys::api_keys;
use crate::harness::{Cluster, Gateway, Id, encode, eventually, ticket, topic, user};

/// A user on each master; the first one is on the server of the broadcasts.
async fn users(cluster: &Cluster) -> Vec<String> {
    let first = cluster.owner_of("{broadcast}").await;
    let mut users = Vec::new();
    for n in 0..3 {
        users.push(user_at(cluster, (first + n) % 3, 0).await);
    }
    users
}

#[tokio::test]
async fn one_id_resumes_both_sources_at_any_gateway() {
    let cluster = Cluster::start(3).await;
    let gateways = two_gateways(&cluster).await;
    let users = users(&cluster).await;
    let mut readers = Vec::new();
    for (n, name) in users.iter().enumerate() {
        let reader = Reader::connect(&gateways[n % 2], name).await;
        assert_eq!(reader.last_id().contains('~'), n > 0, "{}", reader.last_id());
        readers.push(reader);
    }
    for round in 0..4 {
        let (before, missed) = (round * 6, round * 6 + 3);
        publish(&cluster, &topic("t"), "news", before, 3).await;
        for name in &users {
            publish(&cluster, &user(name), "own", before, 3).await;
        }
        for (n, reader) in readers.iter_mut().enumerate() {
            reader.has_all("own", missed).await;
            reader.has_all("news", missed).await;
            let id = reader.last_id();
            assert!(n > 0 || !id.contains('~'), "{id}");
        }
        let ids: Vec<_> = readers.iter().map(|r| r.last_id().to_owned()).collect();
        publish(&cluster, &topic("t"), "news", missed, 3).await;
        for (n, name) in users.iter().enumerate() {
            publish(&cluster, &user(name), "own", missed, 3).await;
            let gateway = &gateways[(n + round) % 2];
            assert_eq!(poll(gateway, name, &ids[n]).await, missed..missed + 3, "{name}");
            // The stream that was open, and one that resumes elsewhere.
            readers[n].has_all("own", missed + 3).await;
            readers[n].has_all("news", missed + 3).await;
            let mut resumed = Reader::connect(gateway, name).await;
            resumed.sse = gateway.resume(name, &ids[n]).await;
            resumed.read_all("own", missed + 3).await;
            resumed.read_all("news", missed + 3).await;
            resumed.assert_range("own", missed, missed + 3);
            resumed.assert_range("news", missed, missed + 3);
            resumed.assert_no_gap();
            readers[n].reconnect(gateway).await;
        }
    }
    readers.iter().for_each(Reader::assert_no_gap);
}

/// Polls until all events after an id have come; returns the range of the payloads, which must be
/// the same for both sources.
async fn poll(gateway: &Gateway, user: &str, id: &str) -> std::ops::Range<usize> {
    let (mut id, mut own, mut news) = (id.to_owned(), Vec::new(), Vec::new());
    for _ in 0..20 {
        if own.len() >= 3 && news.len() >= 3 {
            break;
        }
        let jwt = ticket(user).jwt();
        let path = format!("/events/poll?ticket={jwt}&wait=2&lastEventId={}", encode(&id));
        let answer = gateway.http().get(gateway.url(&path)).send().await.unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert!(answer["gap"].is_null(), "{answer}");
        id = answer["lastEventId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        for event in answer["events"].as_array().expect("events") {
            let number: usize = match &event["data"] {
                Value::String(text) => text.parse().unwrap(),
                other => other.to_string().parse().unwrap(),
            };
            match event["event"].as_str().or(event["type"].as_str()).expect("a type") {
                "own" => own.push(number),
                _ => news.push(number),
            }
        }
    }
    assert_eq!(own, news, "{user} from {id}");
    assert!(own.windows(2).all(|w| w[1] == w[0] + 1), "{own:?}");
    own[0]..own[0] + own.len()
}

#[tokio::test]
async fn plain_url_of_a_node_is_a_cluster() {
    let cluster = Cluster::start(3).await;
    let gateway = gateway(&cluster).redis_url(&cluster.node(1).url()).start().await;
    for name in users(&cluster).await {
        let mut reader = Reader::connect(&gateway, &name).await;
        publish(&cluster, &user(&name), "own", 0, 3).await;
        publish(&cluster, &topic(&name), "news", 0, 3).await;
        reader.has_all("own", 3).await;
        reader.has_all("news", 3).await;
        reader.assert_no_gap();
    }
}

#[tokio::test]
async fn higher_generation_of_the_library_replaces_it_on_all_masters() {
    let cluster = Cluster::start(3).await;
    let [one, two] = two_gateways(&cluster).await;
    let users = users(&cluster).await;
    let mut readers = Vec::new();
    for name in &users {
        readers.push(Reader::connect(&one, name).await);
        publish(&cluster, &user(name), "own", 0, 3).await;
    }
    drop(two);
    let _new = gateway(&cluster).env("HISTORY__GENERATION", "2").start().await;
    for node in cluster.nodes() {
        eventually("the new library", || async {
            let libraries: String = format!(
                "{:?}",
                node.command::<redis::Value>(&["FUNCTION", "LIST", "LIBRARYNAME", "sse_*"]).await
            );
            (libraries.contains("sse_gateway_v7_g2_sse")
                && !libraries.contains("sse_gateway_v7_g1_sse"))
            .then_some(())
        })
        .await;
    }
    for (name, reader) in users.iter().zip(&mut readers) {
        publish(&cluster, &user(name), "own", 3, 3).await;
        reader.has_all("own", 6).await;
        reader.assert_no_gap();
    }
}

#[tokio::test]
async fn sessions_and_admin_endpoints_work_on_all_masters() {
    let cluster = Cluster::start(3).await;
    let builder = gateway(&cluster).env("API_KEYS", &api_keys(&[("an admin's key", "admin")]));
    let [one, two] = [builder.start().await, builder.start().await];
    for name in users(&cluster).await {
        let same = ticket(&name);
        let mut first = one.connect_with(&same, "").await;
        let mut second = two.connect_with(&same, "").await;
        assert_eq!(first.next_of("sse.closing").await.json()["reason"], "taken-over");
        let listed = two.admin_http().get(two.admin_url("/connections"));
        let listed = listed.bearer_auth("an admin's key").send().await.unwrap();
        let listed = listed.text().await.unwrap();
        assert!(listed.contains(&name), "{listed}");
        assert_eq!(crate::revocations::revoke(&one, &name, "an admin's key").await, 200);
        assert_eq!(second.next_of("sse.closing").await.json()["reason"], "revoked");
        for gateway in [&one, &two] {
            assert_eq!(crate::sessions::rejection(gateway, &same).await, "session-revoked");
        }
        let fresh = || async {
            let mut sse =
                crate::harness::Sse::connect(&one.events_url(&ticket(&name), ""), &[]).await;
            (sse.status == 200 && sse.event().await.event == "sse.connected").then_some(())
        };
        eventually("a new ticket after a revocation", fresh).await;
    }
}

#[tokio::test]
async fn random_clients_on_all_masters_miss_nothing() {
    const USERS: usize = 300;
    let cluster = Cluster::start(3).await;
    let gateways = two_gateways(&cluster).await;
    let writer = Writer::start(&cluster, &topic("t"), "news", Duration::from_millis(20));
    let mut random = fastrand_like(7);
    let mut readers: Vec<Reader> = Vec::new();
    let mut expected = [0; USERS];
    for n in 0..USERS {
        readers.push(Reader::connect(&gateways[n % 2], &format!("many{n}")).await);
    }
    for _ in 0..600 {
        let n = random() % USERS;
        match random() % 3 {
            0 => {
                // Some have read what came, others have not.
                if random().is_multiple_of(2) {
                    readers[n].read_all("own", expected[n]).await;
                }
                readers[n].reconnect(&gateways[random() % 2]).await;
            }
            _ => {
                let count = 1 + random() % 3;
                publish(&cluster, &user(&format!("many{n}")), "own", expected[n], count).await;
                expected[n] += count;
            }
        }
    }
    let last = writer.stop().await;
    for (n, reader) in readers.iter_mut().enumerate() {
        reader.read_all("own", expected[n]).await;
        reader.read_all("news", last).await;
        reader.assert_range("own", 0, expected[n]);
        let news = &reader.received["news"];
        reader.assert_range("news", news[0], last);
        reader.assert_no_gap();
        let id = reader.last_id();
        let parts: Vec<Id> = id.split('~').map(Id::of).collect();
        assert!(parts.len() <= 2, "{id}");
    }
}

/// A small generator of random numbers with a seed.
fn fastrand_like(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}
