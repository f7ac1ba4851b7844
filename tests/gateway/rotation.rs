//! Keys and certificates are reloaded without a restart, on SIGHUP and when their files change.

use crate::harness::gateway::Builder;
use crate::harness::keys::{Dir, api_keys, sha256};
use crate::harness::parser::Parser;
use crate::harness::ticket::{SECRET, Ticket};
use crate::harness::{Gateway, Redis, Sse, eventually, ticket, user};
use crate::http::next;
use crate::tickets::assert_rejected;
use jsonwebtoken::Algorithm;
use reqwest::{Certificate, Client, StatusCode};
use serde_json::json;

const NEW: &str = "another-secret-for-tests-of-more-than-32-bytes";

fn builder(redis: &Redis) -> Builder {
    Gateway::durable_only(redis).unset("TICKETS__SECRET")
}

/// Waits until a ticket signed with this secret is accepted.
async fn wait_for_secret(gateway: &Gateway, secret: &str) {
    eventually("the new secret", || async {
        let sse = Sse::connect(&gateway.events_url(&ticket("1").secret(secret), ""), &[]).await;
        (sse.status == 200).then_some(())
    })
    .await;
}

/// Checks that this stream still receives the user's events.
async fn assert_live(redis: &Redis, sse: &mut Sse, who: &str) {
    let id = redis.durable(&user(who), "a", "1").await.unwrap();
    assert_eq!(sse.next_of("a").await.id, Some(id));
}

#[tokio::test]
async fn sighup_replaces_the_secret_without_ending_streams() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let file = dir.write("secret", SECRET);
    let gateway = builder(&redis).env("TICKETS__SECRET_FILE", &file).start().await;
    let mut open = gateway.connect("open").await;
    dir.write("secret", &format!("{NEW}\n"));
    gateway.hup();
    gateway.wait_for_log("\"signal\":true").await;
    // The signal takes effect immediately, without waiting for the next check of the files.
    assert_rejected(&gateway, &ticket("1").jwt(), "ticket-bad-signature").await;
    gateway.connect_with(&ticket("1").secret(NEW), "").await;
    assert_live(&redis, &mut open, "open").await;
    assert!(gateway.metric("sse_reloads_total", &[("outcome", "ok")]).await >= 1.0);
    assert!(!gateway.log_contains(NEW) && !gateway.log_contains(SECRET));
}

#[tokio::test]
async fn secret_is_reloaded_after_a_kubernetes_symlink_swap() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    for (version, secret) in [("..1", SECRET), ("..2", NEW)] {
        std::fs::create_dir(dir.path(version)).unwrap();
        std::fs::write(dir.path(version).join("secret"), secret).unwrap();
    }
    let point_to = |version: &str| {
        std::os::unix::fs::symlink(version, dir.path("..tmp")).unwrap();
        std::fs::rename(dir.path("..tmp"), dir.path("..data")).unwrap();
    };
    point_to("..1");
    std::os::unix::fs::symlink("..data/secret", dir.path("secret")).unwrap();
    let gateway = builder(&redis).env("TICKETS__SECRET_FILE", &dir.text("secret")).start().await;
    let mut open = gateway.connect("open").await;
    point_to("..2");
    wait_for_secret(&gateway, NEW).await;
    assert_rejected(&gateway, &ticket("1").jwt(), "ticket-bad-signature").await;
    assert_live(&redis, &mut open, "open").await;
    assert!(!gateway.log_contains("\"signal\":true"));
}

#[tokio::test]
async fn invalid_key_file_keeps_the_previous_keys() {
    let redis = Redis::start().await;
    let (dir, other) = (Dir::new(), Dir::new());
    let (old, _) = dir.pair("EC");
    let (new, public) = other.pair("EC");
    let (secret, file) = (dir.write("secret", SECRET), dir.text("EC.pub"));
    let keys = json!([{"kid": "ec", "algorithm": "ES256", "public_key_file": file}]);
    let gateway = builder(&redis)
        .env("TICKETS__SECRET_FILE", &secret)
        .env("TICKETS__KEYS", &keys.to_string())
        .start()
        .await;
    let by = |key: &jsonwebtoken::EncodingKey| {
        ticket("1").signed(Algorithm::ES256, key.clone()).kid("ec")
    };
    let failed = async || gateway.metric("sse_reloads_total", &[("outcome", "failed")]).await;
    let mut received = 0;
    for (name, content) in
        [("EC.pub", "-----BEGIN NONSENSE-----"), ("EC.pub", ""), ("secret", " \n")]
    {
        let before = failed().await;
        dir.write(name, content);
        eventually("the failure", || async { (failed().await > before).then_some(()) }).await;
        let path = dir.text(name);
        let lines = || {
            gateway.log_text().lines().filter(|l| l.contains("ERROR") && l.contains(&path)).count()
        };
        eventually("the file's name", || std::future::ready((lines() > 0).then_some(()))).await;
        gateway.connect_with(&by(&old), "").await;
        gateway.connect("1").await;
        received += 1;
    }
    assert_eq!(received, 3);
    assert_eq!(gateway.metric("sse_reloads_total", &[("outcome", "ok")]).await, 0.0);
    // A file may be missing for a while, as during a remount.
    std::fs::remove_file(dir.path("EC.pub")).unwrap();
    dir.write("secret", SECRET);
    gateway.hup();
    gateway.wait_for_log("No such file").await;
    gateway.connect_with(&by(&old), "").await;
    dir.write("EC.pub", &public);
    eventually("the new key", || async {
        let sse = Sse::connect(&gateway.events_url(&by(&new), ""), &[]).await;
        (sse.status == 200).then_some(())
    })
    .await;
    assert_rejected(&gateway, &by(&old).jwt(), "ticket-bad-signature").await;
}

#[tokio::test]
async fn keys_rotate_through_the_documented_steps() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let (old, new) = (dir.write("old", SECRET), dir.write("new", NEW));
    let write = |keys: &[(&str, &str)], api_key: &str, more: &str| {
        let keys: Vec<String> = keys
            .iter()
            .map(|(kid, file)| {
                format!("{{ kid = \"{kid}\", algorithm = \"HS256\", secret_file = \"{file}\" }}")
            })
            .collect();
        let api = format!(
            "api_keys = [{{ sha256 = \"{}\", scopes = [\"tickets\"] }}]\n",
            sha256(api_key)
        );
        dir.write("gateway.toml", &format!("{api}[tickets]\nkeys = [{}]\n{more}", keys.join(", ")))
    };
    let file = write(&[("old", &old)], "first", "");
    let gateway = builder(&redis).config(&file).start().await;
    // Reloads are not counted: the gateway may find a new file before it gets the signal.
    let status_of =
        async |ticket: Ticket| Sse::connect(&gateway.events_url(&ticket, ""), &[]).await.status;
    let mint = async |key: &str| {
        let request =
            gateway.http().post(gateway.url("/tickets")).bearer_auth(key).body(r#"{"user":"1"}"#);
        request.send().await.unwrap()
    };
    let kid = async |key: &str| {
        let text = mint(key).await.text().await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        jsonwebtoken::decode_header(answer["ticket"].as_str().unwrap()).unwrap().kid
    };
    assert_eq!(kid("first").await.as_deref(), Some("old"));
    let by = |kid: &str, secret: &str| ticket("1").secret(secret).kid(kid);
    gateway.connect_with(&by("old", SECRET), "").await;
    assert_rejected(&gateway, &by("new", NEW).jwt(), "ticket-unknown-key").await;
    // The new key is accepted; the old key still signs.
    write(&[("old", &old), ("new", &new)], "first", "");
    gateway.hup();
    let accepted = || async { (status_of(by("new", NEW)).await == 200).then_some(()) };
    eventually("the new key", accepted).await;
    gateway.connect_with(&by("old", SECRET), "").await;
    gateway.connect_with(&by("new", NEW), "").await;
    assert_eq!(kid("first").await.as_deref(), Some("old"));
    // The new key signs. The API key changes, and so does a setting that needs a restart, whose
    // value must not be logged.
    write(&[("new", &new), ("old", &old)], "second", "issuer = \"hushhush\"\n");
    let accepted = || async { (mint("second").await.status() == StatusCode::OK).then_some(()) };
    eventually("the new API key", accepted).await;
    assert_eq!(kid("second").await.as_deref(), Some("new"));
    assert_eq!(mint("first").await.status(), StatusCode::UNAUTHORIZED);
    gateway.connect_with(&by("old", SECRET), "").await;
    gateway.wait_for_log("setting changed").await;
    gateway.wait_for_log("tickets.issuer").await;
    assert!(!gateway.log_contains("hushhush"));
    // The old key is removed.
    write(&[("new", &new)], "second", "issuer = \"hushhush\"\n");
    gateway.hup();
    let refused = || async { (status_of(by("old", SECRET)).await == 401).then_some(()) };
    eventually("the end of the old key", refused).await;
    assert_rejected(&gateway, &by("old", SECRET).jwt(), "ticket-unknown-key").await;
    gateway.connect_with(&by("new", NEW), "").await;
    // A malformed file changes nothing.
    dir.write("gateway.toml", "[tickets\n");
    gateway.hup();
    gateway.wait_for_log("valid TOML").await;
    gateway.connect_with(&by("new", NEW), "").await;
    assert_eq!(kid("second").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn new_certificate_applies_to_new_connections_only() {
    let redis = Redis::start().await;
    let (dir, other) = (Dir::new(), Dir::new());
    dir.certificate();
    other.certificate();
    let gateway = Gateway::durable_only(&redis)
        .env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"))
        .env("SERVER__TLS__KEY", &dir.text("server.key"))
        .env("API_KEYS", &api_keys(&[("key", "publish")]))
        .start()
        .await;
    let url = || gateway.events_url(&ticket("1"), "").replace("http://", "https://");
    // A new client that trusts only this authority and has no TLS session to resume.
    let client = |dir: &Dir| {
        let authority = Certificate::from_pem(dir.read("ca.pem").as_bytes()).unwrap();
        Client::builder().tls_certs_only([authority]).build().unwrap()
    };
    let mut open = client(&dir).get(url()).send().await.unwrap();
    let mut parser = Parser::default();
    assert_eq!(next(&mut open, &mut parser).await.event, "sse.connected");
    assert!(client(&other).get(url()).send().await.is_err());
    // A certificate without its key is not loaded.
    dir.write("server.pem", &other.read("server.pem"));
    gateway.metric_reaches("sse_reloads_total", &[("outcome", "failed")], 1.0).await;
    gateway.wait_for_log("server.pem contains no certificate that matches the key").await;
    client(&dir).get(url()).send().await.unwrap();
    dir.write("server.key", &other.read("server.key"));
    eventually("the new certificate", || async { client(&other).get(url()).send().await.ok() })
        .await;
    assert!(client(&dir).get(url()).send().await.is_err(), "no new connection with the old one");
    gateway.wait_for_log("new certificate active").await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(next(&mut open, &mut parser).await.id, Some(id));
}
