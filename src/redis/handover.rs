//! Planned failovers: whether the former primary follows the new one and lost nothing of what it
//! had (ARCHITECTURE.md#adoption-and-fence).

use std::time::Duration;

use redis::{RedisResult, aio::ConnectionLike};

use super::{commands::Commands, pool::timeouts, watermark};
use crate::settings::ServerAddress;

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
    timeout: Duration,
    epoch: u64,
) -> bool {
    for attempt in 0..ATTEMPTS {
        let Ok(info) = replication(connection).await else { return false };
        let mut answers = Vec::new();
        for replica in replicas(&info) {
            let asked = ask(timeout, commands, &replica, &info, epoch);
            let answer = tokio::time::timeout(timeout, asked).await;
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
    timeout: Duration,
    commands: &Commands,
    address: &ServerAddress,
    primary: &str,
    epoch: u64,
) -> RedisResult<Answer> {
    let client = redis::Client::open(commands.locator.connection_to(address))?;
    let mut replica =
        client.get_multiplexed_async_connection_with_config(&timeouts(timeout)).await?;
    if watermark::epoch_of_replica(&mut replica, commands).await? != Some(epoch) {
        return Ok(Answer::Other);
    }
    let info = replication(&mut replica).await?;
    let is_following = field(&info, "master_link_status") == Some("up")
        && field(&info, "master_replid") == field(primary, "master_replid");
    Ok(if is_following { Answer::HandedOver } else { Answer::NotYet })
}

async fn replication(connection: &mut impl ConnectionLike) -> RedisResult<String> {
    redis::cmd("INFO").arg("replication").query_async(connection).await
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Where each replica is, by `INFO replication`.
fn replicas(info: &str) -> Vec<ServerAddress> {
    let replica = |line: &str| {
        let (name, members) = line.split_once(':')?;
        let number = name.strip_prefix("slave")?;
        number.parse::<u32>().ok()?;
        let member = |name: &str| {
            members.split(',').find_map(|member| member.strip_prefix(name)?.strip_prefix('='))
        };
        let port = member("port")?.trim().parse().ok()?;
        Some(ServerAddress { host: member("ip")?.to_owned(), port })
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
        let shown: Vec<String> = replicas(info).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:6380", "[fd00::1]:6381"]);
        assert_eq!(field(info, "master_replid"), Some("ab"));
    }
}
