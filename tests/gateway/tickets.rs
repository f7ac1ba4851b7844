//! Invalid tickets are rejected with a code for each fault, and never shown anywhere.

use crate::harness::keys::{Dir, base64};
use crate::harness::ticket::{SECRET, Ticket};
use crate::harness::{Gateway, Redis, Sse, eventually, now_ms, ticket, topic, user};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::time::Duration;

/// The secret of the key `hs`.
const HS_SECRET: &str = "the-secret-of-key-hs-of-32-bytes-and-more";

fn now_s() -> u64 {
    now_ms() / 1000
}

/// A token with this header and this text as its signature.
fn forged(header: Value, claims: &Ticket, signature: &str) -> String {
    let claims = json!(claims.claims).to_string();
    format!("{}.{}.{signature}", base64(header.to_string().as_bytes()), base64(claims.as_bytes()))
}

/// Checks that stream and poll reject this token: status, form and code, and no part of the token
/// in the response.
pub async fn assert_rejected(gateway: &Gateway, token: &str, code: &str) {
    let before = gateway.metric("sse_tickets_refused_total", &[("code", code)]).await;
    for path in ["/events", "/events/poll"] {
        let url = gateway.url(&format!("{path}?ticket={}", crate::harness::encode(token)));
        let mut sse = Sse::connect(&url, &[]).await;
        if sse.status == 200 && path == "/events" {
            panic!("admitted instead of {code}: {}", sse.event().await);
        }
        let body = sse.body().await;
        assert_eq!(sse.status, 401, "expected {code}: {body}");
        assert_eq!(sse.header("content-type"), Some("application/json"), "{code}");
        let json: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
        assert_eq!(json["error"], code, "{body}");
        assert!(json["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
        assert_eq!(json.as_object().map(|o| o.len()), Some(2), "{body}");
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!body.contains(part), "the ticket in the answer: {body}");
        }
    }
    let after = gateway.metric("sse_tickets_refused_total", &[("code", code)]).await;
    assert_eq!(after, before + 2.0, "counted: {code}");
}

#[tokio::test]
async fn malformed_tickets_are_rejected() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    for path in
        ["/events", "/events/poll", "/events?token=x", "/events?lastEventId=1-1", "/events?ticket="]
    {
        let mut sse = Sse::connect(&gateway.url(path), &[]).await;
        let body = sse.body().await;
        assert_eq!(sse.status, 401, "{body}");
        assert!(body.contains("\"ticket-missing\""), "{body}");
    }
    let mut basic = Sse::connect(&gateway.url("/events"), &[("Authorization", "Basic YTpi")]).await;
    assert_eq!(basic.status, 401);
    assert!(basic.body().await.contains("\"ticket-missing\""));
    assert_eq!(
        gateway.metric("sse_tickets_refused_total", &[("code", "ticket-missing")]).await,
        6.0
    );
    let good = ticket("1").jwt();
    // An empty parameter does not hide a ticket in the header.
    let bearer = [("Authorization", &*format!("Bearer {good}"))];
    Sse::connect(&gateway.url("/events?ticket="), &bearer).await.connected().await;
    let (head, rest) = good.split_once('.').unwrap();
    let long = format!("{good}{}", "A".repeat(9000));
    let nul = format!("{good}\0");
    for token in ["garbage", "a.b.c", "....", "ž.ž.ž", head, rest, &long, &nul, "%", "null"] {
        assert_rejected(&gateway, token, "ticket-malformed").await;
    }
    // RFC 7515 section 4.1.11: critical extensions must be understood.
    for crit in [vec!["x".to_owned()], vec![]] {
        let mut critical = ticket("1");
        critical.header.crit = Some(crit);
        assert_rejected(&gateway, &critical.jwt(), "ticket-malformed").await;
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    for claims in [json!([1]), json!("text"), json!(null)] {
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        assert_rejected(&gateway, &token, "ticket-malformed").await;
    }
}

#[tokio::test]
async fn tickets_with_invalid_signatures_are_rejected() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let good = ticket("1");
    assert_rejected(
        &gateway,
        &good.clone().secret("another-secret-of-more-than-32-bytes-x").jwt(),
        "ticket-bad-signature",
    )
    .await;
    assert_rejected(&gateway, &good.clone().secret("").jwt(), "ticket-bad-signature").await;
    // Claims of another ticket under a valid signature.
    let (jwt, other) = (good.jwt(), ticket("2").jwt());
    let parts: Vec<&str> = jwt.split('.').collect();
    let claims = other.split('.').nth(1).unwrap();
    assert_rejected(
        &gateway,
        &format!("{}.{claims}.{}", parts[0], parts[2]),
        "ticket-bad-signature",
    )
    .await;
    assert_rejected(&gateway, &format!("{}.{}.", parts[0], parts[1]), "ticket-bad-signature").await;
    // The token must not choose the algorithm.
    for none in ["none", "None", "NONE", "nOnE"] {
        for signature in ["", parts[2]] {
            let token = forged(json!({"alg": none, "typ": "JWT"}), &good, signature);
            assert_rejected(&gateway, &token, "ticket-wrong-algorithm").await;
        }
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = good.clone().signed(algorithm, key.clone()).jwt();
        assert_rejected(&gateway, &token, "ticket-wrong-algorithm").await;
    }
    let dir = Dir::new();
    for (name, algorithm) in
        [("RSA", Algorithm::RS256), ("EC", Algorithm::ES256), ("ED25519", Algorithm::EdDSA)]
    {
        let (private, _) = dir.pair(name);
        let token = good.clone().signed(algorithm, private).jwt();
        assert_rejected(&gateway, &token, "ticket-wrong-algorithm").await;
    }
    // A key of the attacker, offered in the header.
    let offered = json!({
        "alg": "HS256",
        "jwk": {"kty": "oct", "k": base64(b"mine")},
        "jku": "http://127.0.0.1:1/"
    });
    assert_rejected(&gateway, &forged(offered, &good, parts[2]), "ticket-bad-signature").await;
    gateway.connect_with(&good, "").await;
}

#[tokio::test]
async fn tickets_with_invalid_claims_are_rejected() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("TICKETS__LEEWAY", "2s").start().await;
    let good = || ticket("1");
    for name in ["sub", "aud", "exp", "iat", "jti"] {
        assert_rejected(&gateway, &good().without(name).jwt(), "ticket-missing-claim").await;
    }
    let long = "x".repeat(257);
    let subjects =
        [json!(42), json!(""), json!("a b"), json!(long), json!(null), json!(true), json!("a,b")];
    let more =
        ["a*", "a?", "a[b", "a\\b", "ž", "a\nb", "\u{7f}", "a:events\r\nx"].map(|s| json!(s));
    for sub in subjects.into_iter().chain(more) {
        assert_rejected(&gateway, &good().claim("sub", sub).jwt(), "ticket-bad-subject").await;
    }
    for aud in [json!("another"), json!(["a", "b"]), json!(""), json!("sse-gateway2")] {
        assert_rejected(&gateway, &good().claim("aud", aud).jwt(), "ticket-wrong-audience").await;
    }
    for topics in [
        json!("*"),
        json!([1]),
        json!({}),
        json!(["a b"]),
        json!([""]),
        json!(["a*b"]),
        json!(vec!["t"; 257]),
    ] {
        assert_rejected(&gateway, &good().claim("topics", topics).jwt(), "ticket-bad-claim").await;
    }
    for (name, value) in [
        ("exp", json!("tomorrow")),
        ("iat", json!(-1)),
        ("iat", json!(null)),
        ("nbf", json!("now")),
        ("jti", json!("")),
        ("jti", json!(7)),
        ("session_exp", json!("never")),
        ("exp", json!(1e300)),
    ] {
        assert_rejected(&gateway, &good().claim(name, value).jwt(), "ticket-bad-claim").await;
    }
    let at = |iat: u64, exp: u64| good().claim("iat", json!(iat)).claim("exp", json!(exp));
    let now = now_s();
    assert_rejected(&gateway, &at(now - 100, now - 50).jwt(), "ticket-expired").await;
    assert_rejected(&gateway, &at(now - 30, now - 4).jwt(), "ticket-expired").await;
    assert_rejected(&gateway, &at(now, now + 61).jwt(), "ticket-too-long-lived").await;
    assert_rejected(&gateway, &at(now - 3600, now + 10).jwt(), "ticket-too-long-lived").await;
    assert_rejected(&gateway, &at(now + 100, now + 130).jwt(), "ticket-not-yet-valid").await;
    assert_rejected(
        &gateway,
        &good().claim("nbf", json!(now_s() + 100)).jwt(),
        "ticket-not-yet-valid",
    )
    .await;
    // Values at the limits are accepted.
    let within = [
        at(now, now + 60),
        at(now - 40, now + 20).claim("nbf", json!(now - 40)),
        good().claim("aud", json!(["other", "sse-gateway"])),
        good().claim("sub", json!("x".repeat(256))),
        good().claim("exp", json!(now as f64 + 20.5)),
        good().claim("unknown", json!({"any": [1]})),
        good().claim("iss", json!("anybody")),
        good().claim("session_exp", json!(now + 100_000)),
    ];
    for ticket in within {
        gateway.connect_with(&ticket, "").await;
    }
}

#[tokio::test]
async fn issuer_and_audience_must_match_the_settings() {
    let redis = Redis::start().await;
    let builder = Gateway::builder(&redis)
        .env("TICKETS__ISSUER", "my-backend")
        .env("TICKETS__AUDIENCE", "events");
    let gateway = builder.start().await;
    let mine = ticket("1").claim("aud", json!("events"));
    assert_rejected(
        &gateway,
        &mine.clone().claim("iss", json!("another")).jwt(),
        "ticket-wrong-issuer",
    )
    .await;
    assert_rejected(&gateway, &mine.clone().jwt(), "ticket-missing-claim").await;
    assert_rejected(
        &gateway,
        &ticket("1").claim("iss", json!("my-backend")).jwt(),
        "ticket-wrong-audience",
    )
    .await;
    gateway.connect_with(&mine.claim("iss", json!("my-backend")), "").await;
}

#[tokio::test]
async fn kid_selects_a_key_with_its_own_algorithm() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let kinds =
        [("RSA", Algorithm::RS256), ("EC", Algorithm::ES256), ("ED25519", Algorithm::EdDSA)];
    let mut keys = vec![json!({"kid": "hs", "algorithm": "HS256", "secret": HS_SECRET})];
    let mut pairs = Vec::new();
    for (name, algorithm) in kinds {
        let (private, public) = dir.pair(name);
        let (kid, file) = (name.to_lowercase(), dir.text(&format!("{name}.pub")));
        let mut key = json!({"kid": kid, "algorithm": format!("{algorithm:?}")});
        // Given inline and as a file.
        let (member, value) =
            if name == "EC" { ("public_key_file", &file) } else { ("public_key", &public) };
        key[member] = json!(value);
        keys.push(key);
        pairs.push((kid, algorithm, private, public));
    }
    let builder = Gateway::builder(&redis)
        .unset("TICKETS__SECRET")
        .env("TICKETS__KEYS", &json!(keys).to_string());
    let gateway = builder.start().await;
    gateway.connect_with(&ticket("1").secret(HS_SECRET).kid("hs"), "").await;
    for (kid, algorithm, private, public) in &pairs {
        let good = || ticket("1").signed(*algorithm, private.clone());
        gateway.connect_with(&good().kid(kid), "").await;
        // The public key must not work as an HMAC secret, with or without its final line break.
        for secret in [public.as_str(), public.trim_end()] {
            let confused = ticket("1").secret(secret).kid(kid);
            assert_rejected(&gateway, &confused.jwt(), "ticket-wrong-algorithm").await;
        }
        assert_rejected(&gateway, &good().kid("hs").jwt(), "ticket-wrong-algorithm").await;
        assert_rejected(&gateway, &good().kid("nobody").jwt(), "ticket-unknown-key").await;
        assert_rejected(&gateway, &good().jwt(), "ticket-unknown-key").await;
        // Another key of the same type.
        let other = Dir::new();
        let (stranger, _) = other.pair(kinds.iter().find(|k| k.1 == *algorithm).unwrap().0);
        assert_rejected(
            &gateway,
            &good().signed(*algorithm, stranger).kid(kid).jwt(),
            "ticket-bad-signature",
        )
        .await;
    }
    let none = forged(json!({"alg": "none", "kid": "rsa"}), &ticket("1"), "");
    assert_rejected(&gateway, &none, "ticket-wrong-algorithm").await;
    let hs_under_rsa = ticket("1").secret(HS_SECRET).kid("rsa");
    assert_rejected(&gateway, &hs_under_rsa.jwt(), "ticket-wrong-algorithm").await;
}

#[tokio::test]
async fn single_public_key_is_never_an_hmac_secret() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let (private, public) = dir.pair("RSA");
    let keys = json!([{"algorithm": "RS256", "public_key": public}]);
    let builder =
        Gateway::builder(&redis).unset("TICKETS__SECRET").env("TICKETS__KEYS", &keys.to_string());
    let gateway = builder.start().await;
    let good = ticket("1").signed(Algorithm::RS256, private.clone());
    gateway.connect_with(&good, "").await;
    gateway.connect_with(&good.claim("jti", json!("another")).kid("any"), "").await;
    let der: Vec<&str> = public.lines().filter(|line| !line.starts_with('-')).collect();
    for secret in [public.as_str(), public.trim_end(), &der.concat(), &der.join("\n"), ""] {
        assert_rejected(&gateway, &ticket("1").secret(secret).jwt(), "ticket-wrong-algorithm")
            .await;
    }
    assert_rejected(
        &gateway,
        &ticket("1").signed(Algorithm::RS512, private).jwt(),
        "ticket-wrong-algorithm",
    )
    .await;
}

/// Checks that `text` contains no part of the ticket except the header, which all tickets share.
fn assert_hidden(place: &str, text: &str, jwt: &str) {
    for part in jwt.split('.').skip(1).filter(|part| part.len() > 8) {
        let line = text.lines().find(|line| line.contains(part));
        assert!(line.is_none(), "the ticket in {place}: {line:?}");
    }
}

#[tokio::test]
async fn tickets_never_appear_in_logs_metrics_or_errors() {
    for level in ["trace", "debug"] {
        let redis = Redis::start().await;
        let gateway = Gateway::builder(&redis).env("LOG__LEVEL", level).start().await;
        gateway.wait_for_recorder().await;
        let good = ticket("leaky").topics(&["t"]);
        let mut shown = vec![good.jwt()];
        let mut sse = gateway.connect_with(&good, "&topics=t").await;
        redis.durable(&user("leaky"), "a", "1").await.unwrap();
        redis.plain(topic("t"), "2").await;
        sse.app_event().await;
        sse.app_event().await;
        // Takeover by the same URL; then the ticket as a header, in a poll, and over HTTP/2.
        let second = gateway.connect_with(&good, "").await;
        sse.rest().await;
        let bearer = format!("Bearer {}", good.jwt());
        let header =
            [("Authorization", bearer.as_str()), ("Referer", &gateway.events_url(&good, ""))];
        Sse::connect(&gateway.url("/events"), &header).await.connected().await;
        let url = gateway.url(&format!("/events/poll?ticket={}&wait=0", good.jwt()));
        assert_eq!(gateway.http().get(&url).send().await.unwrap().status(), 200);
        let h2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        assert_eq!(h2.get(&url).send().await.unwrap().status(), 200);
        assert_eq!(h2.get(&url).bearer_auth(good.jwt()).send().await.unwrap().status(), 200);
        drop(second);
        let bad = [
            ticket("leaky").secret("another-secret-of-at-least-32-bytes-x"),
            ticket("leaky").claim("aud", json!("sse-elsewhere")),
            ticket("leaky").without("jti"),
            ticket("leaky").claim("iat", json!(5)).claim("exp", json!(9)),
            ticket("leaky").claim("sub", json!("not a user")),
        ];
        for bad in bad {
            let mut sse = Sse::connect(&gateway.events_url(&bad, ""), &[]).await;
            assert_eq!(sse.status, 401);
            shown.push(bad.jwt());
            assert_hidden("an answer", &sse.body().await, &bad.jwt());
        }
        for url in [
            "/events?ticket=X&topics=a*b",
            "/events?topics=%ff&ticket=X",
            "/x?ticket=X",
            "/events/poll?wait=x&ticket=X",
        ] {
            let url = gateway.url(&url.replace('X', &good.jwt()));
            let body = Sse::connect(&url, &[]).await.body().await;
            assert_hidden("an answer", &body, &good.jwt());
        }
        // Malformed requests that never reach a handler.
        for head in [
            "GET /events?ticket=X HTTP/9.9\r\n\r\n",
            "GET /events?ticket=X HTTP/1.1\r\nBad Header\r\n\r\n",
            // A method may be any token, also a ticket.
            "X /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut raw = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
            raw.write_all(head.replace('X', &good.jwt()).as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let read = raw.read_to_end(&mut answer);
            let _ = tokio::time::timeout(Duration::from_secs(20), read)
                .await
                .expect("the end of a broken request");
            assert_hidden("an answer", &String::from_utf8_lossy(&answer), &good.jwt());
        }
        // Redis errors are logged, too.
        redis.stop();
        gateway.not_ready().await;
        let _ = Sse::connect(&gateway.events_url(&good, ""), &[]).await.body().await;
        assert!(gateway.log_contains("sse_gateway"), "there is a log");
        let metrics = gateway.admin_get("/metrics").await.1;
        gateway.term();
        gateway.wait_exit().await;
        eventually("the end of the log", || {
            std::future::ready(gateway.log_contains("drained").then_some(()))
        })
        .await;
        let log = gateway.log_text();
        for jwt in shown {
            assert_hidden("the log", &log, &jwt);
            assert_hidden("the metrics", &metrics, &jwt);
        }
    }
}
