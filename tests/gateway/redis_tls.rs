//! TLS to Redis, with a private authority and a client certificate.

use crate::config::{GOOD, run};
use crate::harness::gateway::Builder;
use crate::harness::keys::Dir;
use crate::harness::process::free_port;
use crate::harness::sentinel::TlsSentinel;
use crate::harness::{Gateway, Redis, user};

/// A Redis that requires client certificates on its TLS port, and that port.
async fn redis(dir: &Dir) -> (Redis, u16) {
    dir.identities();
    let port = free_port().to_string();
    let arguments = [
        ["--tls-port", &port],
        ["--tls-cert-file", &dir.text("server.pem")],
        ["--tls-key-file", &dir.text("server.key")],
        ["--tls-ca-cert-file", &dir.text("ca.pem")],
        ["--tls-auth-clients", "yes"],
    ];
    let redis = Redis::start_with(&arguments.concat()).await;
    (redis, port.parse().unwrap())
}

/// A gateway that trusts the authority of `dir` and has its client certificate.
fn with_files(builder: Builder, dir: &Dir) -> Builder {
    builder
        .env("REDIS__TLS__CA_FILE", &dir.text("ca.pem"))
        .env("REDIS__TLS__CERTIFICATE_FILE", &dir.text("client.pem"))
        .env("REDIS__TLS__KEY_FILE", &dir.text("client.key"))
}

#[tokio::test]
async fn private_authority_and_client_certificate_are_used() {
    let dir = Dir::new();
    let (redis, port) = redis(&dir).await;
    let url = format!("rediss://127.0.0.1:{port}");
    let builder = Gateway::durable_only(&redis).redis_url(&url);
    let gateway = with_files(builder.clone(), &dir).start().await;
    let mut stream = gateway.connect("1").await;
    redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.event, "a");
    // Commands of the command line.
    let (ca, certificate) = (dir.text("ca.pem"), dir.text("client.pem"));
    let key = dir.text("client.key");
    let env = [
        GOOD,
        ("REDIS__URL", &url),
        ("REDIS__TLS__CA_FILE", &ca),
        ("REDIS__TLS__CERTIFICATE_FILE", &certificate),
        ("REDIS__TLS__KEY_FILE", &key),
    ];
    let ran = run(&["publish", &user("1"), "b", "2"], &env);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(stream.app_event().await.event, "b");
    let ran = run(&["trace", ran.out.trim()], &env);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    // Neither of the two can be left out.
    let without = builder.clone().env("REDIS__TLS__CA_FILE", &ca).start_unready().await;
    without.wait_for_log("no link to Redis, retrying").await;
    assert_ne!(without.admin_get("/readyz").await.0, 200);
    let other = Dir::new();
    other.identities();
    let wrong = with_files(builder, &other).start_unready().await;
    wrong.wait_for_log("invalid peer certificate").await;
    assert_ne!(wrong.admin_get("/readyz").await.0, 200);
    wrong.wait_for_log(&format!("127.0.0.1:{port}")).await;
}

#[tokio::test]
async fn sentinel_and_redis_both_use_tls() {
    let dir = Dir::new();
    let (redis, port) = redis(&dir).await;
    let sentinel = TlsSentinel::start(&dir, port);
    let url = format!("rediss+sentinel://127.0.0.1:{}/mymaster", sentinel.port);
    let builder = with_files(Gateway::durable_only(&redis).redis_url(&url), &dir);
    let gateway = builder.start().await;
    let mut stream = gateway.connect("1").await;
    redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.event, "a");
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    let dir = Dir::new();
    dir.identities();
    let (certificate, key) = (dir.text("client.pem"), dir.text("server.key"));
    dir.write("text.pem", "text");
    let (text, none) = (dir.text("text.pem"), dir.text("none.pem"));
    let url = ("REDIS__URL", "rediss://127.0.0.1:1");
    for (command, env, words) in [
        ("serve", &[("REDIS__TLS__CA_FILE", none.as_str())][..], ["cannot be read", &none]),
        ("serve", &[("REDIS__TLS__CA_FILE", &text)], ["must contain certificates", &text]),
        (
            "serve",
            &[("REDIS__TLS__CERTIFICATE_FILE", &certificate), ("REDIS__TLS__KEY_FILE", &text)],
            ["must contain a private key", &text],
        ),
        (
            "serve",
            &[("REDIS__TLS__CERTIFICATE_FILE", &certificate), ("REDIS__TLS__KEY_FILE", &key)],
            ["matches the key", &key],
        ),
        (
            "check-config",
            &[("REDIS__TLS__CERTIFICATE_FILE", &certificate), ("REDIS__TLS__KEY_FILE", &key)],
            ["matches the key", &key],
        ),
    ] {
        let listen = [("SERVER__LISTEN", "127.0.0.1:0"), ("ADMIN__LISTEN", "127.0.0.1:0")];
        let ran = run(&[command], &[&[GOOD, url], &listen[..], env].concat());
        assert_eq!(ran.code, Some(78), "{env:?} {}", ran.err);
        assert!(words.iter().all(|word| ran.err.contains(word)), "{words:?} {}", ran.err);
    }
}
