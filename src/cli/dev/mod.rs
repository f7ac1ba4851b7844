//! `dev`: a gateway with everything needed to try it. Nothing is left behind: the private Redis is
//! a child process that ends with this one and writes nothing to disk.

mod client;
mod private_redis;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use actix_web::{HttpResponse, http::header, web};
use aws_lc_rs::digest;
use secrecy::ExposeSecret;
use serde_json::json;

use self::private_redis::PrivateRedis;
use super::{
    args::{DevArgs, EX_CONFIG},
    serve::run,
};
use crate::{
    auth::{MintError, NewTicket, Verifier},
    error_chain::ErrorChain,
    settings::{self, RedisTarget, RedisUrl, Settings},
    state::clock::unix_ms,
};

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const USER: &str = "demo";
/// Lifetime of the printed ticket: one day.
const TTL_S: u64 = 86_400;

/// Runs the gateway with a private Redis, temporary keys and the demo page.
pub fn dev(args: &DevArgs) -> ExitCode {
    let private = match args.redis {
        Some(_) => None,
        None => match PrivateRedis::start() {
            Ok(redis) => Some(redis),
            Err(error) => {
                eprintln!("{}", ErrorChain(&error));
                return EX_CONFIG.into();
            }
        },
    };
    let given = args.redis.as_ref().map(|url| url.expose_secret().to_owned());
    let url = given.or_else(|| private.as_ref().map(PrivateRedis::url)).unwrap_or_default();
    let key = secret();
    let settings = match settings_for(args, &url, &key) {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    let ticket = match ticket(&settings) {
        Ok(ticket) => ticket,
        Err(error) => {
            eprintln!("{}", ErrorChain(&error));
            return EX_CONFIG.into();
        }
    };
    let redis_cli = match url.rsplit(':').next().filter(|_| private.is_some()) {
        Some(port) => format!("redis-cli -p {port}"),
        None => redis_cli(&url),
    };
    let page = page(&key, &redis_cli);
    let extra = move |config: &mut web::ServiceConfig| {
        let page = page.clone();
        client::routes(config);
        config.route("/", web::get().to(move || std::future::ready(html(page.clone()))));
    };
    run(settings, None, Arc::new(extra), move |public, admin| {
        print(public, admin, &redis_cli, &ticket);
    })
}

/// Why there is no ticket to print.
#[derive(Debug, thiserror::Error)]
enum TicketError {
    #[error("tickets.keys: a key cannot be used")]
    Key(#[source] jsonwebtoken::errors::Error),
    #[error("tickets.secret: the demo ticket cannot be signed")]
    Sign(#[source] MintError),
}

/// The ticket to print.
fn ticket(settings: &Settings) -> Result<String, TicketError> {
    let verifier = Verifier::new(settings.tickets.clone()).map_err(TicketError::Key)?;
    verifier
        .mint(&NewTicket { user: USER, ..NewTicket::default() }, TTL_S, unix_ms() / 1000)
        .map_err(TicketError::Sign)
}

/// 64 random hex digits.
fn secret() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Settings from the environment, plus those of the demo.
fn settings_for(args: &DevArgs, url: &str, key: &str) -> Result<Settings, u8> {
    let digest = hex::encode(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    let keys = json!([{ "sha256": digest, "scopes": ["publish", "tickets", "admin"] }]).to_string();
    let fixed = [
        ("SERVER__LISTEN", args.listen.to_string()),
        ("ADMIN__LISTEN", args.admin_listen.to_string()),
        ("REDIS__URL", url.to_owned()),
        ("TICKETS__SECRET", secret()),
        ("TICKETS__MAX_TTL", format!("{TTL_S}s")),
        ("API_KEYS", keys),
    ];
    let free = [("DRAIN__DELAY", "0"), ("DRAIN__WINDOW", "0"), ("LOG__LEVEL", "warn")];
    let free = free.map(|(name, value)| (name, value.to_owned()));
    let name =
        |(name, value): (&str, String)| (format!("{}{name}", settings::load::ENV_PREFIX), value);
    let environment = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    // The last value of a name wins.
    let all = free.into_iter().map(name).chain(environment).chain(fixed.into_iter().map(name));
    settings::load(None, all).map_err(|faults| {
        faults.iter().for_each(|fault| eprintln!("{}", ErrorChain(fault)));
        EX_CONFIG
    })
}

/// The command that connects to the Redis of `--redis`, without the password: it is printed and
/// shown on the demo page. `redis-cli` reads the password from REDISCLI_AUTH.
fn redis_cli(url: &str) -> String {
    match RedisUrl::parse(url).map(|url| url.target) {
        Ok(RedisTarget::Sentinel { .. }) => return "redis-cli -h PRIMARY -p PORT".to_owned(),
        Ok(RedisTarget::Cluster { seeds }) => {
            let seed = seeds.first().map(ToString::to_string).unwrap_or_default();
            return format!("redis-cli -c -u redis://{seed}");
        }
        _ => {}
    }
    let Ok(mut url) = reqwest::Url::parse(url) else { return "redis-cli".to_owned() };
    if !url.has_host() {
        return format!("redis-cli -s {}", url.path());
    }
    // `redis-cli` would take a user without a password in the URL for the password.
    let user = match url.username() {
        "" => String::new(),
        user => format!(" --user {user}"),
    };
    // These fail only for URLs without a host.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    // `-c` follows redirections, if this is a node of a cluster.
    format!("redis-cli -c{user} -u {url}")
}

fn page(key: &str, redis_cli: &str) -> String {
    // In a <script> element `<` could end it.
    let quoted = |text: &str| json!(text).to_string().replace('<', "\\u003c");
    PAGE.replace("{{STYLE}}", STYLE)
        .replace("{{API_KEY}}", &quoted(key))
        .replace("{{USER}}", &quoted(USER))
        .replace("{{REDIS_CLI}}", &quoted(redis_cli))
}

fn html(page: String) -> HttpResponse {
    let policy = "default-src 'none'; script-src 'self' 'unsafe-inline'; \
                  style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; \
                  form-action 'none'; frame-ancestors 'none'";
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .body(page)
}

fn print(public: SocketAddr, admin: SocketAddr, redis_cli: &str, ticket: &str) {
    println!("Demo page:\n  http://{public}/\n");
    println!(
        "Publish an event, first plain, then durably:\n  \
         {redis_cli} PUBLISH user:{USER}:events \
         '{{\"type\":\"order-completed\",\"payload\":{{\"orderId\":7}}}}'"
    );
    println!(
        "  {redis_cli} FCALL sse_publish 1 '{{broadcast}}:news' headline '{{\"text\":\"hello\"}}'\n"
    );
    println!("Receive events with curl:\n  curl -N 'http://{public}/events?ticket={ticket}'\n");
    println!("Health and metrics:\n  http://{}/metrics\n", admin);
    println!("Press Ctrl-C to stop everything. All data is discarded.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_command_contains_no_password() {
        for (url, expected) in [
            ("redis://127.0.0.1:7000", "redis-cli -c -u redis://127.0.0.1:7000"),
            ("redis://:hush@127.0.0.1:7000", "redis-cli -c -u redis://127.0.0.1:7000"),
            (
                "rediss://u:hush@redis.example/3",
                "redis-cli -c --user u -u rediss://redis.example/3",
            ),
            ("unix:///run/redis.sock?pass=hush", "redis-cli -s /run/redis.sock"),
            ("hush", "redis-cli"),
            ("redis+sentinel://:hush@s1,s2/m", "redis-cli -h PRIMARY -p PORT"),
            ("redis+cluster://:hush@a,b:7000", "redis-cli -c -u redis://a:6379"),
        ] {
            assert_eq!(redis_cli(url), expected);
        }
    }
}
