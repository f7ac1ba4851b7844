//! `x-request-id`: taken from trusted proxies only, and returned with every response.

use reqwest::{Client, Method, RequestBuilder, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Redis, Sse, ticket};

const NAME: &str = "x-request-id";

fn gateway(redis: &Redis, trusted: &str) -> Builder {
    Gateway::durable_only(redis)
        .env("SERVER__TRUSTED_PROXIES", trusted)
        .env("CORS__ALLOWED_ORIGINS", "https://app.example")
        .env("API_KEYS", &api_keys(&[("k", "publish"), ("t", "tickets"), ("a", "admin")]))
}

fn behind_proxy(redis: &Redis) -> Builder {
    gateway(redis, "127.0.0.0/8")
}

fn id_of(response: &Response) -> String {
    let ids: Vec<_> = response.headers().get_all(NAME).iter().collect();
    assert_eq!(ids.len(), 1, "{} {}", response.url().path(), response.status());
    ids[0].to_str().unwrap().to_owned()
}

/// Sends a request with these ids; returns the id of the response.
async fn returned(request: RequestBuilder, sent: &[&[u8]]) -> String {
    let mut request = request;
    for id in sent {
        request = request.header(NAME, *id);
    }
    id_of(&request.send().await.expect("a response"))
}

fn is_uuid(id: &str) -> bool {
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Requests that different parts of the gateway answer, and the status of the response.
fn requests(gateway: &Gateway, client: &Client) -> Vec<(RequestBuilder, u16)> {
    let (public, admin) = (|path: &str| gateway.url(path), |path: &str| gateway.admin_url(path));
    let events = gateway.events_url(&ticket("1"), "");
    let preflight = client
        .request(Method::OPTIONS, public("/events"))
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET");
    let foreign = client
        .request(Method::OPTIONS, public("/events"))
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "GET");
    vec![
        (client.get(&events), 200),
        (client.get(events.replace("/events", "/events/poll")), 200),
        (client.get(public("/events")), 401),
        (client.get(public("/events/poll?wait=99")), 400),
        (client.post(public("/publish")).body("{}"), 401),
        (client.post(public("/tickets")).body("{}"), 401),
        (client.put(public("/events")), 405),
        (client.get(public("/nothing")), 404),
        (preflight, 200),
        (foreign, 403),
        (client.get(admin("/healthz")), 200),
        (client.get(admin("/metrics")), 200),
        (client.get(admin("/connections")), 401),
        (client.get(admin("/nothing")), 404),
    ]
}

#[tokio::test]
async fn proxys_request_id_is_returned_with_every_response() {
    let redis = Redis::start().await;
    let gateway = behind_proxy(&redis).start().await;
    let http2 = Client::builder().http2_prior_knowledge().build().unwrap();
    for client in [gateway.admin_http(), &http2] {
        for (n, (request, status)) in requests(&gateway, client).into_iter().enumerate() {
            let id = format!("proxy/{n}=\"~");
            let response = request.header(NAME, &id).send().await.expect("a response");
            assert_eq!(response.status(), status, "{}", response.url());
            assert_eq!(id_of(&response), id, "{}", response.url());
        }
    }
    let cors = gateway.http().get(gateway.url("/events")).header("origin", "https://app.example");
    let cors = cors.send().await.unwrap();
    let exposed = cors.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
    assert!(exposed.contains(NAME), "{exposed}");
}

#[tokio::test]
async fn request_id_of_an_untrusted_peer_is_replaced() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis, "10.0.0.0/8").start().await;
    let mut ids = std::collections::BTreeSet::new();
    for (request, _) in requests(&gateway, gateway.admin_http()) {
        ids.insert(returned(request, &[b"mine"]).await);
    }
    assert!(ids.iter().all(|id| is_uuid(id)), "{ids:?}");
    assert_eq!(ids.len(), requests(&gateway, gateway.admin_http()).len(), "each has its own");
}

#[tokio::test]
async fn malformed_request_ids_are_replaced() {
    let redis = Redis::start().await;
    let gateway = behind_proxy(&redis).start().await;
    let get = || gateway.http().get(gateway.url("/nothing"));
    for id in [&[b'x'; 128][..], b"!#$%&'()*+,-./:;<=>?@[]^_`{|}~"] {
        assert_eq!(returned(get(), &[id]).await.as_bytes(), id);
    }
    let long = [b'x'; 129];
    let single: [&[u8]; 5] = [b"", &long, b"a b", b"a\tb", b"\xe4"];
    let mut sent: Vec<Vec<&[u8]>> = single.iter().map(|id| vec![*id]).collect();
    sent.extend([vec![], vec![&b"a"[..], b"a"]]);
    for ids in sent {
        let id = returned(get(), &ids).await;
        assert!(is_uuid(&id), "{ids:?} got {id}");
    }
}

#[tokio::test]
async fn streams_that_are_refused_return_the_request_id() {
    let redis = Redis::start().await;
    let gateway = behind_proxy(&redis).env("LIMITS__MAX_CONNECTIONS", "1").start().await;
    let _full = gateway.connect("1").await;
    let mut busy = Sse::connect(&gateway.events_url(&ticket("2"), ""), &[(NAME, "a")]).await;
    assert_eq!(busy.header(NAME), Some("a"));
    assert_eq!(busy.event().await.event, "sse.busy");
}

/// The front's own responses: `OPTIONS *` has an id, malformed heads are not searched for one.
#[tokio::test]
async fn only_malformed_heads_get_no_request_id() {
    let redis = Redis::start().await;
    let gateway = behind_proxy(&redis).start().await;
    let answer = async |head: &str| {
        let mut socket = TcpStream::connect(gateway.public).await.unwrap();
        let request = format!("{head}\r\nConnection: close\r\nX-Request-Id: a\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    };
    let options = answer("OPTIONS * HTTP/1.1\r\nHost: x").await;
    assert!(options.starts_with("HTTP/1.1 204 "), "{options}");
    assert!(options.contains("\r\nx-request-id: a\r\n"), "{options}");
    let malformed = answer("GET / HTTP/1.1").await;
    assert!(malformed.starts_with("HTTP/1.1 400 "), "{malformed}");
    assert!(!malformed.contains(NAME), "{malformed}");
}
