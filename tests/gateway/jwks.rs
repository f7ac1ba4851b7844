//! Keys from an issuer's key set: each has one algorithm, one fetch serves all waiting clients, and
//! an unreachable issuer never causes a fatal response.

use crate::harness::gateway::Builder;
use crate::harness::keys::{Dir, base64};
use crate::harness::process::{die_with_parent, free_port};
use crate::harness::ticket::{SECRET, Ticket};
use crate::harness::{Gateway, Idp, Redis, Sse, eventually, ticket};
use crate::http::error;
use crate::tickets::assert_rejected;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A key pair of the issuer, which signs tickets under its `kid`.
struct Pair {
    kid: String,
    algorithm: Algorithm,
    private: EncodingKey,
    pem: String,
    jwk: Value,
}

impl Pair {
    fn new(kind: &str, kid: &str) -> Pair {
        let dir = Dir::new();
        let (private, pem) = dir.pair(kind);
        let algorithm = match kind {
            "RSA" => Algorithm::RS256,
            "EC" => Algorithm::ES256,
            _ => Algorithm::EdDSA,
        };
        Pair { kid: kid.to_string(), algorithm, private, pem, jwk: dir.jwk(kind, kid) }
    }

    fn ticket(&self) -> Ticket {
        ticket("1").signed(self.algorithm, self.private.clone()).kid(&self.kid)
    }
}

/// A gateway without keys of its own.
fn builder(redis: &Redis, idp: &Idp) -> Builder {
    Gateway::durable_only(redis).unset("TICKETS__SECRET").env("TICKETS__JWKS_URL", &idp.url())
}

/// Checks that stream and poll are asked to retry (`keys-away`).
async fn assert_busy(gateway: &Gateway, ticket: &Ticket) {
    let mut sse = Sse::connect(&gateway.events_url(ticket, ""), &[]).await;
    assert_eq!(sse.status, 200);
    let event = sse.event().await;
    assert_eq!(
        (event.event.as_str(), event.data.as_str()),
        ("sse.busy", r#"{"reason":"keys-away"}"#)
    );
    assert!(event.retry.is_some_and(|ms| (10_000..=30_000).contains(&ms)), "{event}");
    let url = gateway.url(&format!("/events/poll?ticket={}", ticket.jwt()));
    let answer = gateway.http().get(url).send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(error(answer).await, (503, "keys-away".to_string()));
}

/// Reconnects until admitted. Until then every response must be `sse.busy`.
async fn wait_until_admitted(gateway: &Gateway, ticket: &Ticket) {
    eventually("the client to be admitted", || async {
        let mut sse = Sse::connect(&gateway.events_url(ticket, ""), &[]).await;
        assert_eq!(sse.status, 200);
        let event = sse.event().await.event;
        assert!(event == "sse.connected" || event == "sse.busy", "{event}");
        (event == "sse.connected").then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_key_accepts_only_its_own_algorithm() {
    let redis = Redis::start().await;
    let pairs = [Pair::new("RSA", "rsa"), Pair::new("EC", "ec"), Pair::new("ED25519", "ed")];
    let mut keys: Vec<Value> = pairs.iter().map(|p| p.jwk.clone()).collect();
    let secret = "a-published-value-is-not-a-secret-at-all-x";
    keys.push(json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": base64(secret.as_bytes())}));
    let encrypts = Pair::new("EC", "enc");
    keys.push(encrypts.jwk.clone());
    keys[4]["use"] = json!("enc");
    let idp = Idp::start(&keys).await;
    // A ticket that is rejected twice causes one fetch, however slow the machine is.
    let gateway = builder(&redis, &idp).env("TICKETS__JWKS_COOLDOWN", "10m").start().await;
    for pair in &pairs {
        gateway.connect_with(&pair.ticket(), "").await;
        // Public values of the key set must not work as an HMAC secret.
        let mut published =
            vec![pair.pem.clone(), pair.pem.trim_end().to_string(), pair.jwk.to_string()];
        published.extend(
            ["n", "x", "y"].iter().filter_map(|name| Some(pair.jwk[*name].as_str()?.to_string())),
        );
        for text in &published {
            assert_rejected(
                &gateway,
                &ticket("1").secret(text).kid(&pair.kid).jwt(),
                "ticket-wrong-algorithm",
            )
            .await;
        }
        // The kid of another key, and a signature by an unknown key.
        for other in pairs.iter().filter(|other| other.kid != pair.kid) {
            assert_rejected(
                &gateway,
                &pair.ticket().kid(&other.kid).jwt(),
                "ticket-wrong-algorithm",
            )
            .await;
        }
        let stranger = Pair::new(
            match pair.algorithm {
                Algorithm::RS256 => "RSA",
                Algorithm::ES256 => "EC",
                _ => "ED25519",
            },
            &pair.kid,
        );
        assert_rejected(&gateway, &stranger.ticket().jwt(), "ticket-bad-signature").await;
        let mut nameless = pair.ticket();
        nameless.header.kid = None;
        assert_rejected(&gateway, &nameless.jwt(), "ticket-unknown-key").await;
    }
    assert_rejected(&gateway, &ticket("1").secret(secret).kid("oct").jwt(), "ticket-unknown-key")
        .await;
    assert_rejected(&gateway, &encrypts.ticket().jwt(), "ticket-unknown-key").await;
    assert_eq!(gateway.metric("sse_jwks_keys", &[]).await, 3.0);
    for ignored in ["kty oct", "use is not sig"] {
        gateway.wait_for_log(ignored).await;
    }
    // One fetch at the start, one for the `enc` key. Known keys and HMACs cause none.
    assert_eq!(idp.requests(), 2);
}

#[tokio::test]
async fn configured_keys_work_with_and_without_the_issuer() {
    let redis = Redis::start().await;
    let pair = Pair::new("EC", "ec");
    let idp = Idp::down();
    idp.publish(std::slice::from_ref(&pair.jwk));
    let gateway = builder(&redis, &idp).env("TICKETS__SECRET", SECRET).start().await;
    gateway.connect("1").await;
    gateway.connect_with(&ticket("1").kid("any"), "").await;
    assert_busy(&gateway, &pair.ticket()).await;
    idp.up().await;
    wait_until_admitted(&gateway, &pair.ticket()).await;
    gateway.connect("1").await;
    let confused = ticket("1").secret(&pair.pem).kid("ec");
    assert_rejected(&gateway, &confused.jwt(), "ticket-wrong-algorithm").await;
}

#[tokio::test]
async fn unknown_kid_causes_one_fetch_for_all_clients() {
    let redis = Redis::start().await;
    let (old, new, third) =
        (Pair::new("RSA", "old"), Pair::new("EC", "new"), Pair::new("ED25519", "third"));
    let idp = Idp::start(std::slice::from_ref(&old.jwk)).await;
    let gateway = builder(&redis, &idp)
        .env("TICKETS__JWKS_COOLDOWN", "10m")
        .env("SERVER__WORKERS", "4")
        .start()
        .await;
    gateway.connect_with(&old.ticket(), "").await;
    assert_eq!(idp.requests(), 1, "at the start");
    idp.publish(&[old.jwk.clone(), new.jwk.clone()]);
    idp.pause();
    let open = |n: usize| {
        let pair = if n.is_multiple_of(2) { &new } else { &third };
        let url = gateway.events_url(&pair.ticket().claim("sub", json!(n.to_string())), "");
        tokio::spawn(async move {
            let mut sse = Sse::connect(&url, &[]).await;
            (
                n,
                sse.status,
                if sse.status == 200 { sse.event().await.event } else { sse.body().await },
            )
        })
    };
    let all: Vec<_> = (0..50).map(open).collect();
    eventually("the fetch", || std::future::ready((idp.requests() == 2).then_some(()))).await;
    // Clients with a known key do not wait for the fetch.
    gateway.connect_with(&old.ticket(), "").await;
    idp.resume();
    for one in all {
        let (n, status, response) = one.await.unwrap();
        if n.is_multiple_of(2) {
            assert_eq!((status, response.as_str()), (200, "sse.connected"), "{n}");
        } else {
            assert_eq!(status, 401, "{n}: {response}");
            assert!(response.contains("ticket-unknown-key"), "{response}");
        }
    }
    for n in 0..20 {
        assert_rejected(
            &gateway,
            &third.ticket().kid(&format!("random-{n}")).jwt(),
            "ticket-unknown-key",
        )
        .await;
    }
    assert_eq!(idp.requests(), 2);
    assert_eq!(gateway.metric("sse_jwks_fetches_total", &[("outcome", "ok")]).await, 2.0);
}

#[tokio::test]
async fn unreachable_issuer_at_start_gets_busy_not_rejected() {
    let redis = Redis::start().await;
    let pair = Pair::new("ED25519", "ed");
    let idp = Idp::down();
    let gateway = builder(&redis, &idp).start_unready().await;
    eventually("keys-away", || async {
        let (status, body) = gateway.admin_get("/readyz").await;
        (status == 503 && body.contains("keys-away")).then_some(())
    })
    .await;
    assert_busy(&gateway, &pair.ticket()).await;
    assert!(gateway.metric("sse_busy_total", &[("reason", "keys-away")]).await >= 2.0);
    assert_eq!(gateway.metric("sse_jwks_keys", &[]).await, 0.0);
    // Tickets that no key could make valid are still rejected.
    assert_rejected(&gateway, "garbage", "ticket-malformed").await;
    assert_rejected(&gateway, &ticket("1").kid("ed").jwt(), "ticket-unknown-key").await;
    idp.publish(std::slice::from_ref(&pair.jwk));
    idp.up().await;
    wait_until_admitted(&gateway, &pair.ticket()).await;
    gateway.ready().await;
}

#[tokio::test]
async fn cached_keys_remain_valid_while_the_issuer_fails() {
    let redis = Redis::start().await;
    let (old, new) = (Pair::new("EC", "old"), Pair::new("EC", "new"));
    let idp = Idp::start(std::slice::from_ref(&old.jwk)).await;
    let settings = builder(&redis, &idp)
        .env("TICKETS__JWKS_REFRESH", "1s")
        .env("TICKETS__JWKS_COOLDOWN", "100ms");
    let gateway = settings.start().await;
    gateway.connect_with(&old.ticket(), "").await;
    let large = format!("{{\"keys\":[{}],\"x\":\"{}\"}}", new.jwk, "x".repeat(300 << 10));
    let elsewhere = Idp::start(std::slice::from_ref(&new.jwk)).await;
    let to_another = format!("Location: {}\r\n", elsewhere.url());
    let mut failing = false;
    for (status, headers, body, outcome) in [
        (500, "", "", "status"),
        (302, to_another.as_str(), "", "status"),
        (200, "", "<html>", "invalid"),
        (200, "", "{\"keys\":[]}", "invalid"),
        (200, "", &large, "invalid"),
    ] {
        idp.respond(status, headers, body);
        let labels = [("outcome", outcome)];
        let before = gateway.metric("sse_jwks_fetches_total", &labels).await;
        eventually(outcome, || async {
            if failing {
                assert_busy(&gateway, &new.ticket()).await;
            } else {
                // During the cooldown after the last successful fetch, the key counts as unknown.
                Sse::connect(&gateway.events_url(&new.ticket(), ""), &[]).await;
            }
            let now = gateway.metric("sse_jwks_fetches_total", &labels).await;
            (now > before).then_some(())
        })
        .await;
        failing = true;
        assert_busy(&gateway, &new.ticket()).await;
        gateway.connect_with(&old.ticket(), "").await;
    }
    assert_eq!(elsewhere.requests(), 0, "keys are fetched only from the configured address");
    idp.stop().await;
    gateway.metric_reaches("sse_jwks_fetches_total", &[("outcome", "unreachable")], 1.0).await;
    gateway.connect_with(&old.ticket(), "").await;
    assert_busy(&gateway, &new.ticket()).await;
    assert!(gateway.metric("sse_jwks_age_seconds", &[]).await > 0.0);
    // The issuer returns with a new key and without the old one.
    idp.publish(std::slice::from_ref(&new.jwk));
    idp.up().await;
    wait_until_admitted(&gateway, &new.ticket()).await;
    assert_rejected(&gateway, &old.ticket().jwt(), "ticket-unknown-key").await;
}

/// A web server with TLS, stopped when dropped.
struct Tls(std::process::Child);

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn key_set_is_fetched_only_over_trusted_tls() {
    let redis = Redis::start().await;
    let (dir, stranger) = (Dir::new(), Dir::new());
    dir.certificate();
    stranger.certificate();
    let pair = Pair::new("EC", "ec");
    dir.write("jwks.json", &json!({"keys": [pair.jwk]}).to_string());
    let port = free_port().to_string();
    let mut server = Command::new("openssl");
    server.args([
        "s_server",
        "-quiet",
        "-WWW",
        "-accept",
        &port,
        "-cert",
        "server.pem",
        "-key",
        "server.key",
    ]);
    server.current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    die_with_parent(&mut server);
    let _server = Tls(server.spawn().expect("openssl is installed"));
    eventually("openssl to listen", || {
        std::future::ready(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok())
    })
    .await;
    let settings = Gateway::durable_only(&redis)
        .unset("TICKETS__SECRET")
        .env("TICKETS__JWKS_URL", &format!("https://127.0.0.1:{port}/jwks.json"));
    let gateway = settings.clone().process_env("SSL_CERT_FILE", &dir.text("ca.pem")).start().await;
    gateway.connect_with(&pair.ticket(), "").await;
    let gateway =
        settings.process_env("SSL_CERT_FILE", &stranger.text("ca.pem")).start_unready().await;
    assert_busy(&gateway, &pair.ticket()).await;
    // The log says why.
    gateway.wait_for_log("certificate").await;
}
