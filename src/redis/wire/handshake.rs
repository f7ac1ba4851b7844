//! The first commands on a connection: protocol, credentials, database.

use redis::{Cmd, RedisConnectionInfo, RedisResult};

use super::Connection;

/// Name and version of this client in `CLIENT LIST` (since Redis 7.2).
const LIBRARY: [(&str, &str); 2] =
    [("LIB-NAME", env!("CARGO_PKG_NAME")), ("LIB-VER", env!("CARGO_PKG_VERSION"))];

fn hello(settings: &RedisConnectionInfo) -> Cmd {
    let mut hello = redis::cmd("HELLO");
    hello.arg("3");
    if let Some(password) = settings.password() {
        hello.arg("AUTH").arg(settings.username().unwrap_or("default")).arg(password);
    }
    hello
}

/// Switches a new connection to RESP3, logs in, and selects the database.
pub(super) async fn greet(
    connection: &mut Connection,
    settings: &RedisConnectionInfo,
) -> RedisResult<()> {
    let mut commands = redis::pipe();
    commands.add_command(hello(settings));
    if settings.db() != 0 {
        commands.cmd("SELECT").arg(settings.db());
    }
    let required = commands.len();
    for (name, value) in LIBRARY {
        commands.cmd("CLIENT").arg("SETINFO").arg(name).arg(value);
    }
    let replies = connection.send(commands.get_packed_pipeline(), commands.len()).await?;
    replies.into_iter().take(required).try_for_each(|reply| reply.extract_error().map(drop))?;
    connection.db = settings.db();
    Ok(())
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use super::*;

    #[test]
    fn credentials_come_with_the_protocol() {
        for (url, expected) in [
            ("redis://h", "HELLO 3"),
            ("redis://:p@h", "HELLO 3 AUTH default p"),
            ("redis://u:p@h", "HELLO 3 AUTH u p"),
        ] {
            let info = url.into_connection_info().unwrap();
            let words = hello(info.redis_settings());
            let words: Vec<_> = words
                .args_iter()
                .map(|arg| match arg {
                    redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(words.join(" "), expected);
        }
    }
}
