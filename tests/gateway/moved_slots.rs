//! The link's connection on a cluster: subscriptions that end because their slot moves.

use std::time::Duration;

use redis::{IntoConnectionInfo, RedisResult};
use sse_gateway::redis::wire::{Connection, Push};
use tokio::sync::mpsc;

use crate::harness::{GUARD, cluster::Cluster};

const TIMEOUT: Duration = GUARD;

/// A connection, and what it pushes: `<channel> <message>`, `ended <channel>`.
async fn connect(url: &str) -> (Connection, mpsc::UnboundedReceiver<String>) {
    let (sender, messages) = mpsc::unbounded_channel();
    let push = move |push: Push<'_>| {
        let text = String::from_utf8_lossy;
        let _ = match push {
            Push::Live { channel, message } => {
                sender.send(format!("{} {}", text(channel), text(message)))
            }
            Push::Plain { .. } => Ok(()),
            Push::Ended { channel } => sender.send(format!("ended {}", text(channel))),
        };
    };
    let server = url.into_connection_info().expect("a URL");
    let opened = Connection::open(&server, None, TIMEOUT, push).await;
    let (connection, _end) = opened.expect("a connection");
    (connection, messages)
}

/// The first channels whose slots the first master owns.
async fn channels_of_first(cluster: &Cluster, count: usize) -> Vec<String> {
    let mut channels = Vec::new();
    for n in 0.. {
        let channel = format!("{{c{n}}}");
        if channels.len() == count {
            break;
        }
        if cluster.owner_of(&channel).await == 0 {
            channels.push(channel);
        }
    }
    channels
}

/// Moves the slot of a channel to the second master.
async fn move_slot_of(cluster: &Cluster, channel: &str) {
    cluster.migrate(cluster.slot_of(channel).await, 1).await;
}

async fn echo(connection: &mut Connection, text: &str) {
    let reply: String = redis::cmd("ECHO").arg(text).query_async(connection).await.unwrap();
    assert_eq!(reply, text, "a reply belongs to another command");
}

#[tokio::test]
async fn moved_slot_is_reported_and_replies_stay_paired() {
    let cluster = Cluster::start(2).await;
    let (mut connection, mut messages) = connect(&cluster.node(0).url()).await;
    let channels = channels_of_first(&cluster, 3).await;
    let subscribed = connection.ssubscribe(&channels).await.unwrap();
    subscribed.into_iter().collect::<RedisResult<()>>().expect("three subscriptions");

    move_slot_of(&cluster, &channels[1]).await;
    assert_eq!(messages.recv().await, Some(format!("ended {}", channels[1])));
    echo(&mut connection, "after the move").await;

    // The old master refuses the channel that moved, and only that one.
    let results = connection.ssubscribe(&channels).await.unwrap();
    let moved = results.iter().map(|r| r.as_ref().err().and_then(|e| e.code())).collect::<Vec<_>>();
    assert_eq!(moved, [None, Some("MOVED"), None]);
    connection.sunsubscribe(&channels[1..]).await.expect("it is not subscribed any more");
    echo(&mut connection, "after the refusals").await;

    let (mut moved_to, mut moved_messages) = connect(&cluster.node(1).url()).await;
    moved_to.ssubscribe(&channels[1..2]).await.unwrap().remove(0).expect("the new owner");
    echo(&mut moved_to, "new owner").await;
    cluster.node(0).command::<i64>(&["SPUBLISH", &channels[0], "1"]).await;
    cluster.node(1).command::<i64>(&["SPUBLISH", &channels[1], "2"]).await;
    assert_eq!(messages.recv().await, Some(format!("{} 1", channels[0])));
    assert_eq!(moved_messages.recv().await, Some(format!("{} 2", channels[1])));
}

#[tokio::test]
async fn slots_that_move_under_commands_keep_replies_paired() {
    let cluster = Cluster::start(2).await;
    let (mut connection, mut messages) = connect(&cluster.node(0).url()).await;
    let channels = channels_of_first(&cluster, 20).await;
    connection.ssubscribe(&channels).await.unwrap();
    let moves = async {
        for channel in &channels {
            move_slot_of(&cluster, channel).await;
        }
    };
    tokio::pin!(moves);
    for n in 1.. {
        let text = n.to_string();
        tokio::select! {
            () = &mut moves => break,
            () = echo(&mut connection, &text) => {}
        }
    }
    for channel in &channels {
        assert_eq!(messages.recv().await, Some(format!("ended {channel}")));
    }
    echo(&mut connection, "at the end").await;
}
