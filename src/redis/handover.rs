//! Planned failovers: whether the former primary follows the new one and lost nothing of what it
//! had (ARCHITECTURE.md#adoption-and-fence).

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisResult,
    aio::{ConnectionLike, MultiplexedConnection},
};
use secrecy::ExposeSecret;

use super::{commands::Commands, pool, watermark};
use crate::settings;

/// Maximum number of replicas that are asked.
const REPLICAS: usize = 16;
/// The former primary may still be connecting to the new one: attempts, and the time between them.
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// What a replica says about an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It was the primary of the epoch, and has lost nothing since then.
    HandedOver,
    /// The same, but it does not follow the new primary yet.
    NotYet,
    /// It was not, or has loaded the data of the new primary.
    Other,
}

/// Whether one of the replicas of the server on `connection` was the primary of `epoch` and has
/// lost nothing: it still has the epoch in the memory of its library, which a complete
/// resynchronisation would have cleared. A partial one is possible only if the new primary has
/// everything that the former one had.
pub async fn is_handed_over(
    connection: &mut impl ConnectionLike,
    commands: &Commands,
    settings: &settings::Redis,
    epoch: u64,
) -> bool {
    for attempt in 0..ATTEMPTS {
        let Ok(info) = replication(connection).await else { return false };
        let mut answers = Vec::new();
        for (host, port) in replicas(&info) {
            let asked = ask(settings, commands, (host, port), &info, epoch);
            let answer = tokio::time::timeout(settings.command_timeout, asked).await;
            answers.push(answer.map_or(Answer::Other, |answer| answer.unwrap_or(Answer::Other)));
        }
        if answers.contains(&Answer::HandedOver) {
            return true;
        }
        // The former primary may be too early to be a replica, but not if it is away.
        if attempt + 1 < ATTEMPTS && answers.contains(&Answer::NotYet) {
            tokio::time::sleep(PAUSE).await;
        } else {
            return false;
        }
    }
    false
}

async fn ask(
    settings: &settings::Redis,
    commands: &Commands,
    (host, port): (String, u16),
    primary: &str,
    epoch: u64,
) -> RedisResult<Answer> {
    let mut replica = connect(settings, host, port).await?;
    if watermark::epoch_of_replica(&mut replica, commands).await? != Some(epoch) {
        return Ok(Answer::Other);
    }
    let info = replication(&mut replica).await?;
    let is_following = field(&info, "master_link_status") == Some("up")
        && field(&info, "master_replid") == field(primary, "master_replid");
    Ok(if is_following { Answer::HandedOver } else { Answer::NotYet })
}

/// Connects to another server with the credentials of `redis.url`.
async fn connect(
    settings: &settings::Redis,
    host: String,
    port: u16,
) -> RedisResult<MultiplexedConnection> {
    let info = settings.url.expose_secret().into_connection_info()?;
    let address = match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.command_timeout))
        .set_response_timeout(Some(settings.command_timeout));
    pool::connect(info.set_addr(address), &config).await
}

async fn replication(connection: &mut impl ConnectionLike) -> RedisResult<String> {
    redis::cmd("INFO").arg("replication").query_async(connection).await
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Host and port of each replica in `INFO replication`.
fn replicas(info: &str) -> Vec<(String, u16)> {
    let replica = |line: &str| {
        let (name, members) = line.split_once(':')?;
        let number = name.strip_prefix("slave")?;
        number.parse::<u32>().ok()?;
        let member = |name: &str| {
            members.split(',').find_map(|member| member.strip_prefix(name)?.strip_prefix('='))
        };
        Some((member("ip")?.to_owned(), member("port")?.trim().parse().ok()?))
    };
    info.lines().filter_map(replica).take(REPLICAS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read_from_info() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_replid:ab\r\n\
                    slave0:ip=10.0.0.1,port=6380,state=online,offset=0,lag=0\r\n\
                    slave1:ip=fd00::1,port=6381,state=online,offset=0,lag=0\r\n\
                    slave_read_only:1\r\n";
        let expected = [("10.0.0.1".to_owned(), 6380), ("fd00::1".to_owned(), 6381)];
        assert_eq!(replicas(info), expected);
        assert_eq!(field(info, "master_replid"), Some("ab"));
    }
}
