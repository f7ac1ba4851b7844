//! The gateway accepts what `ticket` signs, and `ticket` rejects what the gateway would.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::servers::{Stream, gateway, refused, settings};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sse_gateway_backend::{Settings, SseGateway, Ticket};

fn part(ticket: &str, n: usize) -> Value {
    let text = URL_SAFE_NO_PAD.decode(ticket.split('.').nth(n).unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn ticket_has_the_claims_that_were_requested() {
    let made = part(&gateway().ticket(&Ticket::new("42")).unwrap(), 1);
    let (iat, jti) = (made["iat"].as_u64().unwrap(), made["jti"].as_str().unwrap());
    let want = json!({
        "sub": "42", "aud": "sse-gateway", "iat": iat, "exp": iat + 30, "jti": jti,
    });
    assert_eq!(made, want);

    let hour = Duration::from_secs(3600);
    let end = SystemTime::now() + hour;
    let sse = SseGateway::new(Settings {
        audience: "a".to_owned(),
        issuer: Some("i".to_owned()),
        key_id: Some("k".to_owned()),
        max_ttl: hour,
        ..settings()
    });
    let ticket = Ticket::new("42").topics([] as [&str; 0]).filter("a", ["b"]);
    let ticket = ticket.presence().ttl(hour).session_expires(end);
    let signed = sse.unwrap().ticket(&ticket).unwrap();
    let made = part(&signed, 1);
    let iat = made["iat"].as_u64().unwrap();
    let want = json!({
        "sub": "42", "aud": "a", "iss": "i", "iat": iat, "exp": iat + 3600, "jti": made["jti"],
        "topics": [], "filter": { "a": ["b"] }, "presence": true,
        "session_exp": end.duration_since(UNIX_EPOCH).unwrap().as_secs(),
    });
    assert_eq!(made, want);
    assert_eq!(part(&signed, 0), json!({ "alg": "HS256", "typ": "JWT", "kid": "k" }));
}

#[test]
fn gateway_accepts_every_claim() {
    let minute = Duration::from_secs(60);
    let ticket = Ticket::new("a:b@c").topics(["news", "team-*", "*"]).filter("x-y_z.1", ["é", "b"]);
    let ticket = ticket.presence().ttl(minute).session_expires(SystemTime::now() + minute);
    let signed = gateway().ticket(&ticket).unwrap();
    assert_eq!(Stream::open("SSE_TEST_GATEWAY", &signed).connected["user"], "a:b@c");
}

fn names(count: usize, end: &str) -> Vec<String> {
    (0..count).map(|n| format!("n{n}{end}")).collect()
}

#[test]
fn wrong_tickets_are_reported() {
    let sse = gateway();
    let wrong = |code: &str, ticket: Ticket| refused(sse.ticket(&ticket), code, false);
    let ticket = || Ticket::new("42");
    for user in ["", "a b", "a,b", "a*", "a?", "[a", "a]", "{a", "a}", "a\\", "ä", "a\n"] {
        wrong("bad-user", Ticket::new(user));
    }
    wrong("bad-user", Ticket::new("x".repeat(257)));
    for topics in
        [vec!["a b".to_owned()], vec!["a*b".to_owned()], vec![String::new()], names(257, "")]
    {
        wrong("bad-topics", ticket().topics(topics));
    }
    wrong("bad-filter", ticket().filter("a", [] as [&str; 0]));
    wrong("bad-filter", ticket().filter("a b", ["c"]));
    wrong("bad-filter", ticket().filter("a", ["b c"]));
    wrong("bad-filter", ticket().filter("a", ["ä".repeat(129)]));
    wrong("bad-filter", ticket().filter("a", names(65, "")));
    wrong(
        "bad-filter",
        names(9, "").into_iter().fold(ticket(), |made, name| made.filter(name, ["a"])),
    );
    wrong("bad-ttl", ticket().ttl(Duration::from_millis(999)));
    wrong("bad-ttl", ticket().ttl(Duration::from_secs(61)));
    wrong("bad-session-expires", ticket().session_expires(SystemTime::now()));
    wrong("ticket-too-long", ticket().topics(names(256, &"x".repeat(60))));
}

#[test]
fn short_or_missing_secret_is_reported() {
    for secret in [vec![], vec![b'x'; 31]] {
        let made = SseGateway::new(Settings { secret: Some(secret), ..Settings::default() });
        refused(made.map(|_| ()), "bad-secret", false);
    }
    let sse = SseGateway::new(Settings::default()).unwrap();
    refused(sse.ticket(&Ticket::new("42")), "bad-secret", false);
}
