//! Used tickets remain valid for reconnects while their session lives, and no longer.

use crate::harness::gateway::Builder;
use crate::harness::ticket::Ticket;
use crate::harness::{Gateway, Id, Proxy, Redis, Sse, encode, eventually, now_ms, ticket, user};
use serde_json::{Value, json};

/// Connects with this ticket. Returns the code of the rejection.
pub async fn rejection(gateway: &Gateway, ticket: &Ticket) -> String {
    let mut sse = Sse::connect(&gateway.events_url(ticket, ""), &[]).await;
    if sse.status == 200 {
        return format!("admitted: {}", sse.event().await);
    }
    let body = sse.body().await;
    assert_eq!(sse.status, 401, "{body}");
    let json: Value = serde_json::from_str(&body).expect("JSON");
    json["error"].as_str().expect("a code").to_string()
}

/// No leeway, so that tickets expire at `exp`.
fn without_leeway(redis: &Redis) -> Builder {
    Gateway::builder(redis).env("TICKETS__LEEWAY", "0").env("SERVER__HEARTBEAT", "200ms")
}

/// Waits until `ticket` would be rejected as expired if it had never been used.
async fn wait_until_expired(gateway: &Gateway, ticket: &Ticket) {
    wait_for_exp(ticket).await;
    assert_eq!(rejection(gateway, &unused(ticket)).await, "ticket-expired");
}

/// The same ticket with a `jti` that was never used.
fn unused(ticket: &Ticket) -> Ticket {
    ticket.clone().claim("jti", json!("never used"))
}

async fn wait_for_exp(ticket: &Ticket) {
    let exp = ticket.claims["exp"].as_u64().unwrap();
    eventually("exp to pass", || async { (now_ms() > (exp + 1) * 1000).then_some(()) }).await;
}

async fn session_count(redis: &Redis) -> usize {
    redis.command::<Vec<String>>(&["KEYS", "sse:session:*"]).await.len()
}

/// The reason in the last frame, and its `retry:`.
pub async fn close_reason(sse: &mut Sse) -> (String, u64) {
    let last = sse.rest().await.pop();
    let last = last.unwrap_or_else(|| panic!("no last frame; {}", sse.dump()));
    assert_eq!(last.event, "sse.closing", "{}", sse.dump());
    assert_eq!(last.id, None, "{last}");
    (last.json()["reason"].as_str().unwrap().to_string(), last.retry.expect("a retry"))
}

#[tokio::test]
async fn reconnect_after_exp_takes_over_on_another_instance() {
    let redis = Redis::start().await;
    let builder = without_leeway(&redis);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let same = ticket("1").ttl(8);
    let mut first = one.connect_with(&same, "").await;
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(first.app_event().await.id, Some(id.clone()));
    wait_until_expired(&two, &same).await;
    let header = [("Last-Event-ID", id.as_str())];
    let mut retries = Vec::new();
    let mut old = first;
    for turn in 0..4 {
        let gateway = if turn % 2 == 0 { &two } else { &one };
        let mut new = Sse::connect(&gateway.events_url(&same, ""), &header).await;
        assert_eq!(new.connected().await.json()["resumed"], true);
        let (reason, retry) = close_reason(&mut old).await;
        assert_eq!(reason, "taken-over");
        retries.push(retry);
        old = new;
    }
    assert!(retries[0] >= 60_000, "{retries:?}");
    assert!(retries.is_sorted_by(|a, b| a < b), "growing: {retries:?}");
    let live = redis.durable(&user("1"), "a", "2").await.unwrap();
    assert_eq!(old.app_event().await.id, Some(live));
    for gateway in [&one, &two] {
        // A stream is counted after its client got the end.
        let taken_over = [("reason", "taken-over")];
        gateway.metric_reaches("sse_connections_closed_total", &taken_over, 2.0).await;
        let closed = gateway.metric("sse_connections_closed_total", &taken_over).await;
        assert_eq!(closed, 2.0);
    }
    // Another ticket of the same user has its own session.
    let mut other = one.connect("1").await;
    let live = redis.durable(&user("1"), "a", "3").await.unwrap();
    assert_eq!(other.app_event().await.id, Some(live.clone()));
    assert_eq!(old.app_event().await.id, Some(live));
}

#[tokio::test]
async fn session_expires_a_grace_period_after_its_stream() {
    let redis = Redis::start().await;
    let gateway = without_leeway(&redis).env("TICKETS__RECONNECT_GRACE", "15s").start().await;
    let same = ticket("1").ttl(6);
    drop(gateway.connect_with(&same, "").await);
    wait_until_expired(&gateway, &same).await;
    // Within the grace period it is admitted.
    drop(gateway.connect_with(&same, "").await);
    eventually("the end of the session", || async {
        (session_count(&redis).await == 0).then_some(())
    })
    .await;
    assert_eq!(rejection(&gateway, &same).await, "ticket-expired");
}

#[tokio::test]
async fn session_lives_as_long_as_its_stream() {
    let redis = Redis::start().await;
    let builder = without_leeway(&redis).env("TICKETS__RECONNECT_GRACE", "4s");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let same = ticket("1").ttl(6);
    let mut sse = one.connect_with(&same, "").await;
    // More than 12 s, several times the grace period and twice the ticket's lifetime.
    for _ in 0..61 {
        sse.next_of("sse.heartbeat").await;
    }
    assert_eq!(session_count(&redis).await, 1);
    two.connect_with(&same, "").await;
    assert_eq!(close_reason(&mut sse).await.0, "taken-over");
}

#[tokio::test]
async fn ticket_without_grace_allows_one_connection() {
    let redis = Redis::start().await;
    let builder = without_leeway(&redis).env("TICKETS__RECONNECT_GRACE", "0");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let same = ticket("1").ttl(60);
    let mut sse = one.connect_with(&same, "").await;
    // While the stream lives, both instances reject the ticket, and the stream is unaffected.
    assert_eq!(rejection(&one, &same).await, "ticket-used");
    assert_eq!(rejection(&two, &same).await, "ticket-used");
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id));
    drop(sse);
    // Also right after its end, and after the gateway noticed the end.
    assert_eq!(rejection(&two, &same).await, "ticket-used");
    one.metric_reaches("sse_connections_closed_total", &[("reason", "client-gone")], 1.0).await;
    for _ in 0..10 {
        assert_eq!(rejection(&one, &same).await, "ticket-used");
        assert_eq!(rejection(&two, &same).await, "ticket-used");
    }
    // A poll uses up a ticket, too.
    let polled = ticket("1");
    let url = one.url(&format!("/events/poll?ticket={}", polled.jwt()));
    assert_eq!(one.http().get(&url).send().await.unwrap().status(), 200);
    assert_eq!(one.http().get(&url).send().await.unwrap().status(), 401);
    assert_eq!(rejection(&two, &polled).await, "ticket-used");
}

#[tokio::test]
async fn concurrent_connects_without_grace_admit_one() {
    let redis = Redis::start().await;
    let builder = without_leeway(&redis).env("TICKETS__RECONNECT_GRACE", "0");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let same = ticket("1");
    let urls = [one.events_url(&same, ""), two.events_url(&same, "")];
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let url = urls[n % 2].clone();
            tokio::spawn(async move { Sse::connect(&url, &[]).await })
        })
        .collect();
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await.unwrap());
    }
    assert_eq!(streams.iter().filter(|sse| sse.status == 200).count(), 1);
    assert_eq!(streams.iter().filter(|sse| sse.status == 401).count(), 15);
}

#[tokio::test]
async fn session_exp_and_max_session_end_streams() {
    let redis = Redis::start().await;
    let builder = without_leeway(&redis);
    let short = builder.clone().env("TICKETS__MAX_SESSION", "2s");
    let (one, two, short) = tokio::join!(builder.start(), builder.start(), short.start());
    let until = now_ms() / 1000 + 8;
    let by_claim = ticket("1").claim("session_exp", json!(until));
    let by_setting = ticket("2");
    let mut claimed = one.connect_with(&by_claim, "").await;
    let mut set = short.connect_with(&by_setting, "").await;
    assert_eq!(close_reason(&mut claimed).await.0, "session-over");
    assert!(now_ms() >= until * 1000, "not before its time");
    assert_eq!(rejection(&one, &by_claim).await, "session-over");
    assert_eq!(rejection(&two, &by_claim).await, "session-over");
    assert_eq!(close_reason(&mut set).await.0, "session-over");
    assert_eq!(rejection(&short, &by_setting).await, "session-over");
    assert_eq!(rejection(&two, &by_setting).await, "session-over");
    let over = [("reason", "session-over")];
    one.metric_reaches("sse_connections_closed_total", &over, 1.0).await;
    assert_eq!(one.metric("sse_connections_closed_total", &over).await, 1.0);
    // A ticket whose session has already ended.
    let late = ticket("1").claim("session_exp", json!(now_ms() / 1000 - 1));
    assert_eq!(rejection(&one, &late).await, "session-over");
}

#[tokio::test]
async fn resume_never_reaches_before_the_first_cursor() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let channel = user("1");
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(redis.durable(&channel, "a", n.to_string()).await.unwrap());
    }
    // Opened without a cursor: earlier events cannot be read.
    let fresh = ticket("1");
    let first = gateway.connect_with(&fresh, "").await.last_id().to_string();
    assert!(Id::of(&first) >= Id::of(&ids[3]));
    // Opened with a cursor, which becomes the limit.
    let resumed = ticket("1");
    gateway.connect_with(&resumed, &format!("&lastEventId={}", encode(&ids[1]))).await;
    redis.durable(&channel, "a", "not replayed").await.unwrap();
    for ticket in [&fresh, &resumed] {
        for cursor in ["1-1", &ids[0]] {
            let header = [("Last-Event-ID", cursor)];
            let mut sse = Sse::connect(&gateway.events_url(ticket, ""), &header).await;
            let connected = sse.connected().await;
            assert_eq!((&connected.json()["resumed"], connected.id), (&json!(false), None));
            let gap = sse.app_event().await;
            assert_eq!(
                (gap.event.as_str(), gap.json()["reason"].as_str()),
                ("sse.gap", Some("unknown-id"))
            );
            assert_eq!(gap.json()["from"], cursor);
            let id = redis.durable(&channel, "a", "live").await.unwrap();
            assert_eq!(sse.app_event().await.id, Some(id), "{}", sse.dump());
            // A poll gets the same.
            let query =
                format!("/events/poll?ticket={}&lastEventId={}", ticket.jwt(), encode(cursor));
            let answer =
                gateway.http().get(gateway.url(&query)).send().await.unwrap().text().await.unwrap();
            let json: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(
                (&json["gap"]["reason"], &json["events"]),
                (&json!("unknown-id"), &json!([])),
                "{answer}"
            );
        }
    }
    let last = redis.durable(&channel, "a", "last").await.unwrap();
    // Cursors after the limit work.
    let header = [("Last-Event-ID", ids[3].as_str())];
    let mut sse = Sse::connect(&gateway.events_url(&resumed, ""), &header).await;
    assert_eq!(sse.connected().await.id.as_ref(), Some(&ids[3]));
    sse.until(|event| event.id.as_ref() == Some(&last)).await;
    assert!(!sse.dump().contains("sse.gap"), "{}", sse.dump());
}

#[tokio::test]
async fn sessions_survive_a_wiped_redis() {
    let redis = Redis::start().await;
    let builder = without_leeway(&redis).env("TICKETS__RECONNECT_GRACE", "10m");
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let same = ticket("1").ttl(8);
    let mut sse = one.connect_with(&same, "").await;
    let mut other = two.connect("2").await;
    wait_for_exp(&same).await;
    redis.flushall().await;
    for stream in [&mut sse, &mut other] {
        assert_eq!(stream.next_of("sse.gap").await.json()["reason"], "reset");
    }
    // Right after a wipe, an unknown ticket may have a session that is not yet written again.
    let mut busy = Sse::connect(&two.events_url(&unused(&same), ""), &[]).await;
    let only = busy.rest().await.pop().expect("a frame");
    assert_eq!((busy.status, only.event.as_str()), (200, "sse.busy"), "{only}");
    eventually("the sessions to be written again", || async {
        (session_count(&redis).await == 2).then_some(())
    })
    .await;
    let mut new = two.connect_with(&same, "").await;
    assert_eq!(close_reason(&mut sse).await.0, "taken-over");
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(new.next_of("a").await.id, Some(id));
}

/// Reconnects, like a browser, until the response is not `sse.busy`.
async fn until_not_busy(gateway: &Gateway, ticket: &Ticket) -> Result<Sse, String> {
    eventually("an answer that is not sse.busy", || async {
        let mut sse = Sse::connect(&gateway.events_url(ticket, ""), &[]).await;
        if sse.status != 200 {
            return Some(Err(sse.body().await));
        }
        let first = sse.event().await;
        (first.event != "sse.busy").then_some(Ok(sse))
    })
    .await
}

#[tokio::test]
async fn client_gone_during_an_outage_is_readmitted_afterwards() {
    let redis = Redis::start().await;
    let gateway = without_leeway(&redis).start().await;
    let (left, stayed) = (ticket("1").ttl(8), ticket("2").ttl(8));
    let leaves = gateway.connect_with(&left, "").await;
    let mut stays = gateway.connect_with(&stayed, "").await;
    wait_for_exp(&left).await;
    wait_for_exp(&stayed).await;
    redis.stop();
    drop(leaves);
    gateway.metric_reaches("sse_connections_closed_total", &[("reason", "client-gone")], 1.0).await;
    // Redis returns empty.
    redis.start_again().await;
    until_not_busy(&gateway, &left).await.expect("the client is admitted");
    until_not_busy(&gateway, &stayed).await.expect("the client is admitted");
    assert_eq!(close_reason(&mut stays).await.0, "taken-over");
    let never = unused(&left);
    let refused = until_not_busy(&gateway, &never).await.err().expect("it has no session");
    assert!(refused.contains("ticket-expired"), "{refused}");
}

#[tokio::test]
async fn sessions_survive_outages_longer_than_their_lifetime() {
    const CLIENTS: usize = 60;
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let builder =
        without_leeway(&redis).redis_url(&proxy.redis_url()).env("TICKETS__RECONNECT_GRACE", "10s");
    let gateway = builder.start().await;
    let (mut tickets, mut streams) = (Vec::new(), Vec::new());
    for n in 0..CLIENTS {
        let ticket = ticket(&n.to_string()).ttl(8);
        streams.push(gateway.connect_with(&ticket, "").await);
        tickets.push(ticket);
    }
    wait_for_exp(tickets.last().unwrap()).await;
    proxy.down();
    eventually("no session in Redis", || async {
        (session_count(&redis).await == 0).then_some(())
    })
    .await;
    // Half of the clients disconnect. All of them reconnect repeatedly while Redis returns.
    streams.truncate(CLIENTS / 2);
    let back = futures_util::future::join_all(
        tickets.iter().map(|ticket| until_not_busy(&gateway, ticket)),
    );
    let (back, ()) = tokio::join!(back, async { proxy.up() });
    for (n, answer) in back.into_iter().enumerate() {
        answer.map(drop).unwrap_or_else(|refused| panic!("{n}: {refused}"));
    }
}

/// The `Set-Cookie` of a response: name=value, and its attributes.
fn cookie(sse: &Sse) -> (String, String) {
    let line = sse.header("set-cookie").expect("a cookie");
    let (pair, rest) = line.split_once("; ").expect("attributes");
    (pair.to_owned(), rest.to_owned())
}

#[tokio::test]
async fn session_cookie_binds_the_session_to_its_browser() {
    let redis = Redis::start().await;
    let builder = || Gateway::builder(&redis).env("TICKETS__SESSION_COOKIE", "true");
    let (one, two) = (builder().start().await, builder().start().await);
    let (ticket, other) = (ticket("1"), ticket("1"));
    let mut first = one.connect_with(&ticket, "").await;
    let (pair, rest) = cookie(&first);
    assert_eq!(rest, "Path=/events; Max-Age=43200; HttpOnly; Secure; SameSite=None");
    assert!(pair.starts_with("sse_session_") && pair.len() > 60, "{pair}");
    let (of_other, _) = cookie(&one.connect_with(&other, "").await);
    let url = two.events_url(&ticket, "");

    // Clients that have only the URL are rejected and take over nothing.
    let refused = async |cookies: &str| {
        let mut sse = Sse::connect(&url, &[("Cookie", cookies)]).await;
        (sse.status == 401 && sse.body().await.contains("session-cookie-missing")).then_some(())
    };
    let wrong = format!("{}=0", pair.split('=').next().unwrap());
    for cookies in ["", "a=b", &wrong, &of_other] {
        refused(cookies).await.unwrap_or_else(|| panic!("admitted with {cookies:?}"));
        let poll = two.url(&format!("/events/poll?ticket={}", ticket.jwt()));
        assert_eq!(
            two.http().get(poll).header("Cookie", cookies).send().await.unwrap().status().as_u16(),
            401
        );
    }
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(first.app_event().await.id, Some(id));

    // After a wipe the instance with the stream writes the session again, with its cookie.
    redis.flushall().await;
    eventually("the session to be written again", async || {
        (session_count(&redis).await > 0).then_some(())
    })
    .await;
    eventually("a refusal", async || refused("").await).await;

    let cookies = format!("a=b; {pair}; c=d");
    let mut back = Sse::connect(&url, &[("Cookie", &cookies)]).await;
    back.connected().await;
    assert!(back.header("set-cookie").is_none(), "the client has a cookie already");
    let text = format!("{}{}", one.log_text(), two.log_text());
    assert!(!text.contains(pair.split_once('=').unwrap().1), "the cookie is in no log");
}

#[tokio::test]
async fn busy_after_session_opening_still_sets_the_cookie() {
    let redis = Redis::start().await;
    // Without the right to subscribe to users' channels, the link breaks after the session was
    // opened.
    let rule = ["ACL", "SETUSER", "gateway", "on", ">password", "~*", "+@all", "resetchannels"];
    redis.command::<String>(&[&rule[..], &["&sse:live:{broadcast}"]].concat()).await;
    let url = redis.url().replace("redis://", "redis://gateway:password@");
    let gateway = Gateway::builder(&redis).redis_url(&url).env("PUBLISHERS__PLAIN", "off");
    let gateway = gateway.env("TICKETS__SESSION_COOKIE", "true").start().await;
    let ticket = ticket("1");
    let mut busy = Sse::connect(&gateway.events_url(&ticket, ""), &[]).await;
    assert_eq!(busy.event().await.event, "sse.busy");
    let (pair, _) = cookie(&busy);

    redis.command::<String>(&["ACL", "SETUSER", "gateway", "allchannels"]).await;
    let back = || async {
        let mut sse = Sse::connect(&gateway.events_url(&ticket, ""), &[("Cookie", &pair)]).await;
        assert_eq!(sse.status, 200);
        (sse.event().await.event == "sse.connected").then_some(())
    };
    eventually("the stream", back).await;
}

#[tokio::test]
async fn sessions_opened_at_once_share_pipelines() {
    const STREAMS: usize = 60;
    /// A busy machine may lose the link while Redis does not reply, and repeat what was sent.
    const ATTEMPTS: usize = 5;
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let reads = || async {
        let info: String = redis.command(&["INFO", "stats"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        line.expect("Redis counts its reads").trim().parse::<usize>().expect("a number")
    };
    let mut counts = Vec::new();
    while counts.last().is_none_or(|count| *count >= STREAMS) {
        assert!(counts.len() < ATTEMPTS, "{counts:?} reads");
        gateway.ready().await;
        let before = reads().await;
        let goal = gateway.metric("sse_requests_total", &[]).await + STREAMS as f64;
        redis.freeze();
        let requests = async {
            gateway.metric_reaches("sse_requests_total", &[], goal).await;
            redis.thaw();
        };
        let user = |n: usize| format!("{n}-{}", counts.len());
        let users: Vec<String> = (0..STREAMS).map(user).collect();
        let opening =
            futures_util::future::join_all(users.iter().map(|user| gateway.connect(user)));
        let (streams, ()) = tokio::join!(opening, requests);
        assert_eq!(streams.len(), STREAMS);
        // Each stream needs two exchanges with Redis: its session, and its subscription.
        counts.push(reads().await - before);
    }
}
