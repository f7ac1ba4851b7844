//! The `redis-cli` command that `dev` prints.

use crate::settings::{RedisTarget, RedisUrl};

/// The command that connects to the Redis of `--redis`, without the password: it is printed and
/// shown on the demo page. `redis-cli` reads the password from REDISCLI_AUTH.
pub fn redis_cli(url: &str) -> String {
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
