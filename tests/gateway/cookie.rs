//! Tickets in a cookie: all tabs of a browser share a session, and only pages that may read the
//! response can use the cookie.

use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::ticket::Ticket;
use crate::harness::{Gateway, Redis, Sse, eventually, now_ms, ticket, topic, user};
use crate::http::error;
use crate::revocations::revoke;
use crate::sessions::close_reason;
use reqwest::header;
use serde_json::json;

/// A gateway that takes tickets from the cookie `sse`; they expire at `exp`.
fn with_cookie(redis: &Redis) -> Builder {
    Gateway::durable_only(redis)
        .env("TICKETS__COOKIE", "sse")
        .env("TICKETS__LEEWAY", "0")
        .env("SERVER__HEARTBEAT", "200ms")
}

/// A tab of a browser that has this ticket in its cookie.
async fn tab(gateway: &Gateway, ticket: &Ticket, last_id: &str) -> Sse {
    let cookie = format!("theme=dark; sse={}", ticket.jwt());
    let headers = [("Cookie", cookie.as_str()), ("Last-Event-ID", last_id)];
    Sse::connect(&gateway.url("/events"), &headers).await
}

async fn connected_tab(gateway: &Gateway, ticket: &Ticket, last_id: &str) -> Sse {
    let mut sse = tab(gateway, ticket, last_id).await;
    let connected = sse.connected().await;
    assert_eq!(connected.json()["resumed"], json!(!last_id.is_empty()), "{}", sse.dump());
    sse
}

/// The error code of the 401 that a tab gets.
async fn rejection(gateway: &Gateway, ticket: &Ticket) -> String {
    let mut sse = tab(gateway, ticket, "").await;
    assert_eq!(sse.status, 401, "{}", sse.dump());
    let body = sse.body().await;
    serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].as_str().unwrap().to_owned()
}

async fn wait_for_exp(ticket: &Ticket) {
    let exp = ticket.claims["exp"].as_u64().unwrap();
    eventually("exp to pass", || async { (now_ms() > (exp + 1) * 1000).then_some(()) }).await;
}

async fn session_count(redis: &Redis) -> usize {
    redis.command::<Vec<String>>(&["KEYS", "sse:session:*"]).await.len()
}

async fn taken_over(gateway: &Gateway) -> f64 {
    gateway.metric("sse_connections_closed_total", &[("reason", "taken-over")]).await
}

#[tokio::test]
async fn tabs_with_one_cookie_share_its_session() {
    let redis = Redis::start().await;
    let builder = with_cookie(&redis).env("TICKETS__SESSION_COOKIE", "true");
    let limited = builder.clone().env("LIMITS__MAX_CONNECTIONS_PER_USER", "1");
    let (one, two) = tokio::join!(limited.start(), builder.start());
    let cookie = ticket("1").ttl(10);
    let first = connected_tab(&one, &cookie, "").await;
    assert_eq!(first.header("set-cookie"), None, "the ticket is in a cookie already");
    let mut tabs =
        [first, connected_tab(&two, &cookie, "").await, connected_tab(&two, &cookie, "").await];
    assert_eq!(session_count(&redis).await, 1);
    // Each tab counts for the limit of the user: none replaces another one.
    let busy = tab(&one, &cookie, "").await.first().await;
    assert_eq!((busy.event.as_str(), &busy.json()["reason"]), ("sse.busy", &json!("user-full")));
    wait_for_exp(&cookie).await;
    let never_used = cookie.clone().claim("jti", json!("never used"));
    assert_eq!(rejection(&two, &never_used).await, "ticket-expired");

    // A tab reconnects after exp, also after Redis has lost the session, and while it refuses
    // writes.
    redis.flushall().await;
    for sse in &mut tabs {
        assert_eq!(sse.next_of("sse.gap").await.json()["reason"], "reset");
    }
    eventually("the session to be written again", async || {
        (session_count(&redis).await == 1).then_some(())
    })
    .await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    for sse in &mut tabs {
        assert_eq!(sse.next_of("a").await.id.as_ref(), Some(&id));
    }
    tabs[1] = connected_tab(&two, &cookie, &id).await;
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    tabs[2] = connected_tab(&two, &cookie, &id).await;
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    let id = redis.durable(&user("1"), "a", "2").await.unwrap();
    for sse in &mut tabs {
        assert_eq!(sse.next_of("a").await.id.as_ref(), Some(&id));
    }
    assert_eq!((taken_over(&one).await, taken_over(&two).await), (0.0, 0.0));
}

#[tokio::test]
async fn shared_session_lives_as_long_as_any_of_its_streams() {
    let redis = Redis::start().await;
    let builder = with_cookie(&redis).env("TICKETS__RECONNECT_GRACE", "5s");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let cookie = ticket("1").ttl(6);
    let closed = connected_tab(&one, &cookie, "").await;
    let mut stays = connected_tab(&two, &cookie, "").await;
    wait_for_exp(&cookie).await;
    drop(closed);
    // 9 s, more than the grace period and the time until the next renewal.
    for _ in 0..46 {
        stays.next_of("sse.heartbeat").await;
    }
    let again = connected_tab(&one, &cookie, "").await;
    drop((again, stays));
    // Within the grace period after the last one.
    connected_tab(&two, &cookie, "").await;
    eventually("the end of the session", || async {
        (session_count(&redis).await == 0).then_some(())
    })
    .await;
    assert_eq!(rejection(&one, &cookie).await, "ticket-expired");
    assert_eq!((taken_over(&one).await, taken_over(&two).await), (0.0, 0.0));
}

#[tokio::test]
async fn tab_behind_another_one_resumes_from_its_own_position() {
    let redis = Redis::start().await;
    let gateway = with_cookie(&redis).start().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(redis.durable(&topic("news"), "a", n.to_string()).await.unwrap());
    }
    // A new cookie, with which the tab that has received more reconnects first.
    let cookie = ticket("1");
    connected_tab(&gateway, &cookie, &ids[2]).await;
    let mut behind = connected_tab(&gateway, &cookie, &ids[0]).await;
    for id in &ids[1..] {
        assert_eq!(behind.app_event().await.id.as_ref(), Some(id), "{}", behind.dump());
    }
}

#[tokio::test]
async fn cookie_without_grace_works_until_it_expires() {
    let redis = Redis::start().await;
    let gateway = with_cookie(&redis).env("TICKETS__RECONNECT_GRACE", "0").start().await;
    let cookie = ticket("1").ttl(8);
    let stays = connected_tab(&gateway, &cookie, "").await;
    for _ in 0..3 {
        connected_tab(&gateway, &cookie, "").await;
    }
    wait_for_exp(&cookie).await;
    assert_eq!(rejection(&gateway, &cookie).await, "ticket-expired");
    drop(stays);
    assert_eq!(taken_over(&gateway).await, 0.0);
}

#[tokio::test]
async fn long_lived_ticket_is_accepted_only_in_the_cookie() {
    let redis = Redis::start().await;
    let gateway = with_cookie(&redis).start().await;
    let get = |path: &str| gateway.http().get(gateway.url(path));
    let long = ticket("1").ttl(3600);
    connected_tab(&gateway, &long, "").await;
    assert_eq!(rejection(&gateway, &ticket("1").ttl(3601)).await, "ticket-too-long-lived");
    for path in ["/events", "/events/poll"] {
        let in_query = get(&format!("{path}?ticket={}", long.jwt())).send().await.unwrap();
        let in_header = get(path).bearer_auth(long.jwt()).send().await.unwrap();
        for answer in [in_query, in_header] {
            assert_eq!(error(answer).await, (401, "ticket-too-long-lived".to_owned()));
        }
    }
    // Authorization precedes the query, which precedes the cookie.
    let [bearer, query, cookie] = ["bearer", "query", "cookie"].map(|name| ticket(name).jwt());
    let cookie = format!("sse={cookie}");
    let (in_query, authorization) = (format!("/events?ticket={query}"), format!("Bearer {bearer}"));
    for (path, headers, expected) in [
        (&*in_query, &[("Cookie", &*cookie), ("Authorization", &*authorization)][..], "bearer"),
        (&*in_query, &[("Cookie", &*cookie)], "query"),
        ("/events", &[("Cookie", &*cookie)], "cookie"),
    ] {
        let mut sse = Sse::connect(&gateway.url(path), headers).await;
        assert_eq!(sse.connected().await.json()["user"], expected);
    }
    let poll = get("/events/poll").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(poll.status(), 200);
}

#[tokio::test]
async fn cookie_is_refused_to_pages_of_other_origins() {
    let redis = Redis::start().await;
    let none = with_cookie(&redis);
    let named = none.clone().env("CORS__ALLOWED_ORIGINS", "https://app.example");
    let any = none.clone().env("CORS__ALLOWED_ORIGINS", "*");
    let (none, named, any) = tokio::join!(none.start(), named.start(), any.start());
    let app = &[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")][..];
    let evil = &[("origin", "https://evil.example")][..];
    let own = format!("http://{}", named.public);
    for (gateway, page, allowed) in [
        (&none, app, false),
        (&any, app, false),
        (&named, app, true),
        (&named, evil, false),
        (&named, &[("origin", "null")], false),
        // A page of the gateway's own origin, and a client that is no browser.
        (&named, &[("origin", &*own), ("sec-fetch-site", "same-origin")], true),
        (&named, &[], true),
        // An image, a script or a link in a page of another site.
        (&named, &[("sec-fetch-site", "cross-site")], false),
        (&named, &[("sec-fetch-site", "same-site")], false),
        (&named, &[("sec-fetch-site", "none")], true),
    ] {
        for path in ["/events", "/events/poll"] {
            let mut request = gateway.http().get(gateway.url(path));
            request = request.header("cookie", format!("sse={}", ticket("1").jwt()));
            for (name, value) in page {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.unwrap();
            if !allowed {
                let text = format!("{page:?}");
                let expected = (403, "origin-not-allowed".to_owned());
                assert_eq!(error(answer).await, expected, "{text}");
                continue;
            }
            assert_eq!(answer.status(), 200, "{page:?}");
            // Scripts can read the response of an allowed origin only.
            let readable = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
            let expected = (page == app).then_some(("https://app.example", "true"));
            let origin = readable(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            let credentials = readable(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            assert_eq!(origin.zip(credentials), expected, "{page:?}");
            assert_eq!(origin.is_some(), credentials.is_some());
        }
    }
    for gateway in [&none, &any] {
        assert_eq!(gateway.metric("sse_connections_opened_total", &[]).await, 0.0);
    }
    // A ticket in the URL is not sent by the browser on its own.
    let url = named.events_url(&ticket("1"), "");
    let answer = named.http().get(url).header("origin", "https://evil.example").send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
}

#[tokio::test]
async fn revocation_ends_all_tabs_and_the_cookie() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("an admin's key", "admin")]);
    let builder = with_cookie(&redis).env("TICKETS__MAX_SESSION", "1m");
    let gateway = builder.env("API_KEYS", &keys).start().await;
    let cookie = ticket("1").ttl(3600);
    let mut tabs =
        [connected_tab(&gateway, &cookie, "").await, connected_tab(&gateway, &cookie, "").await];
    assert_eq!(revoke(&gateway, "1", "an admin's key").await, 200);
    for sse in &mut tabs {
        assert_eq!(close_reason(sse).await.0, "revoked");
    }
    assert_eq!(rejection(&gateway, &cookie).await, "session-revoked");
    // The revocation lasts longer than any ticket from before it.
    let lasts: i64 = redis.command(&["PTTL", "sse:revoked:{user:1:events}"]).await;
    assert!(lasts > 3_500_000, "{lasts}");
    let logs = gateway.log_text();
    assert!(!logs.contains(&cookie.jwt()), "no ticket in a log line");
}
