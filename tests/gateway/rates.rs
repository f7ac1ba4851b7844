//! Rate limits of clients and backends, and which sources of a client's address are trusted.

use reqwest::{StatusCode, header};

use crate::harness::keys::api_keys;
use crate::harness::sse::Request;
use crate::harness::{Gateway, Redis, Sse, ticket};
use crate::http::error;

/// Opens a stream of this user. Returns the name of its first event, with the reason if it is
/// `sse.busy`.
async fn first_event(gateway: &Gateway, user: &str, headers: &[(&str, &str)]) -> String {
    let mut sse = Sse::connect(&gateway.events_url(&ticket(user), ""), headers).await;
    let event = sse.event().await;
    match event.event.as_str() {
        "sse.busy" => format!("busy {}", event.json()["reason"].as_str().unwrap()),
        name => name.to_owned(),
    }
}

#[tokio::test]
async fn user_above_the_connect_rate_gets_busy() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("LIMITS__CONNECTS_PER_USER_PER_MINUTE", "3").start().await;
    for _ in 0..3 {
        assert_eq!(first_event(&gateway, "1", &[]).await, "sse.connected");
    }
    assert_eq!(first_event(&gateway, "1", &[]).await, "busy too-often");
    assert_eq!(first_event(&gateway, "2", &[]).await, "sse.connected", "other users are admitted");
    assert_eq!(gateway.metric("sse_busy_total", &[("reason", "too-often")]).await, 1.0);

    let poll = gateway.url(&format!("/events/poll?ticket={}", ticket("1").jwt()));
    let answer = gateway.http().get(poll).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers()[header::RETRY_AFTER].to_str().unwrap().parse::<u32>().unwrap() >= 10);
    assert_eq!(error(answer).await, (429, "too-often".to_owned()));
}

#[tokio::test]
async fn address_above_the_connect_rate_gets_busy_unauthenticated() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("LIMITS__CONNECTS_PER_ADDRESS_PER_MINUTE", "2").start().await;
    assert_eq!(first_event(&gateway, "1", &[]).await, "sse.connected");
    // Connects without a ticket count, too.
    let refused = Sse::try_connect(&gateway.url("/events"), &Request::default()).await.unwrap();
    assert_eq!(refused.status, 401);
    assert_eq!(first_event(&gateway, "2", &[]).await, "busy too-often");
    // Headers of untrusted peers are ignored.
    for name in ["X-Forwarded-For", "Forwarded", "X-Real-IP"] {
        assert_eq!(
            first_event(&gateway, "3", &[(name, "198.51.100.7")]).await,
            "busy too-often",
            "{name}"
        );
    }
}

#[tokio::test]
async fn client_address_is_taken_only_from_trusted_proxies() {
    let redis = Redis::start().await;
    let builder = || {
        let builder = Gateway::builder(&redis).env("LIMITS__CONNECTS_PER_ADDRESS_PER_MINUTE", "1");
        builder.env("SERVER__TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")
    };
    let gateway = builder().start().await;
    let x = async |value: &str| first_event(&gateway, "1", &[("X-Forwarded-For", value)]).await;
    assert_eq!(x("198.51.100.1").await, "sse.connected");
    assert_eq!(x("198.51.100.2, 10.0.0.9").await, "sse.connected");
    assert_eq!(x("198.51.100.1").await, "busy too-often");
    // Addresses that the client itself put before the proxy's are ignored.
    assert_eq!(x("203.0.113.77, 198.51.100.1").await, "busy too-often");
    assert_eq!(x("2001:db8:0:1::a").await, "sse.connected");
    assert_eq!(x("2001:db8:0:1::b").await, "busy too-often", "one site");
    // The header that is not configured comes from the client and is ignored.
    assert_eq!(
        first_event(
            &gateway,
            "1",
            &[("Forwarded", "for=198.51.100.50"), ("X-Forwarded-For", "198.51.100.1")]
        )
        .await,
        "busy too-often"
    );
    // The access log names the client.
    gateway.wait_for_log(r#""client":"198.51.100.2""#).await;

    let gateway = builder().env("SERVER__CLIENT_ADDRESS_HEADER", "forwarded").start().await;
    let forwarded = async |value: &str| first_event(&gateway, "1", &[("Forwarded", value)]).await;
    assert_eq!(forwarded("for=198.51.100.1;proto=https").await, "sse.connected");
    assert_eq!(forwarded("for=\"198.51.100.1:4711\"").await, "busy too-often");
}

#[tokio::test]
async fn api_key_above_its_rate_gets_429() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("one", "publish"), ("two", "publish")]);
    let gateway = Gateway::builder(&redis)
        .env("API_KEYS", &keys)
        .env("LIMITS__POSTS_PER_KEY_PER_SECOND", "1")
        .start()
        .await;
    let post = async |key: &str| {
        let body = r#"{"channel":"user:1:events","payload":1}"#;
        gateway
            .http()
            .post(gateway.url("/publish"))
            .bearer_auth(key)
            .body(body)
            .send()
            .await
            .unwrap()
    };
    // One request per second is allowed, so most of ten concurrent ones are rejected.
    let answers = futures_util::future::join_all((0..10).map(|_| post("one"))).await;
    let refused = answers
        .iter()
        .find(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS)
        .expect("one too many");
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert!(answers.iter().any(|answer| answer.status() == StatusCode::OK));
    assert_eq!(post("two").await.status(), StatusCode::OK);
}
