//! A connection whose server is the test.

use std::sync::mpsc as std_mpsc;

use redis::RedisResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);
const LIMIT: usize = 10_000;

/// What was pushed as text: `live <channel> <message>`, `ended <channel>`.
type Messages = std_mpsc::Receiver<String>;

struct Server {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
}

impl Server {
    async fn send(&mut self, text: &str) {
        self.write.write_all(text.as_bytes()).await.expect("an open connection");
    }

    /// Waits until the client has sent this text after all earlier ones.
    async fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.read.read_exact(&mut bytes).await.expect("commands");
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }
}

fn connect() -> (Connection, End, Server, Messages) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (sender, messages) = std_mpsc::channel();
    let (connection, end) =
        Connection::start(tokio::io::split(near), TIMEOUT, LIMIT, move |push| {
            let text = String::from_utf8_lossy;
            let _ = sender.send(match push {
                Push::Live { channel, message } => {
                    format!("live {} {}", text(channel), text(message))
                }
                Push::Plain { channel, message } => {
                    format!("plain {} {}", text(channel), text(message))
                }
                Push::Ended { channel } => format!("ended {}", text(channel)),
            });
        });
    let (read, write) = tokio::io::split(far);
    (connection, end, Server { read, write }, messages)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn command(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| bulk(word)).collect();
    format!("*{}\r\n{}", words.len(), words.concat())
}

fn confirmation(kind: &str, channel: &str) -> String {
    format!(">3\r\n{}{}:1\r\n", bulk(kind), bulk(channel))
}

fn message(channel: &str, text: &str) -> String {
    format!(">3\r\n{}{}{}", bulk("smessage"), bulk(channel), bulk(text))
}

fn names<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(str::to_owned)
}

async fn query(connection: &mut Connection, word: &str) -> RedisResult<String> {
    redis::cmd(word).query_async(connection).await
}

fn codes(results: Vec<RedisResult<()>>) -> Vec<String> {
    let code = |result: RedisResult<()>| match result {
        Ok(()) => "OK".to_owned(),
        Err(error) => error.code().unwrap_or("none").to_owned(),
    };
    results.into_iter().map(code).collect()
}

#[tokio::test]
async fn unsolicited_sunsubscribe_answers_no_command() {
    let (mut connection, _end, mut server, messages) = connect();
    let serve = async {
        server.expect(&command(&["ONE"])).await;
        server.send(&(confirmation("sunsubscribe", "a") + "+one\r\n")).await;
        server.expect(&command(&["TWO"])).await;
        server.send(&(message("b", "m") + "+two\r\n" + &confirmation("sunsubscribe", "b"))).await;
        server.expect(&command(&["ssubscribe", "c"])).await;
        let two = confirmation("sunsubscribe", "c") + &confirmation("ssubscribe", "c");
        server.send(&two).await;
        server.expect(&command(&["THREE"])).await;
        server.send("+three\r\n").await;
    };
    let use_it = async {
        assert_eq!(query(&mut connection, "ONE").await.unwrap(), "one");
        assert_eq!(query(&mut connection, "TWO").await.unwrap(), "two");
        assert_eq!(codes(connection.ssubscribe(&names(["c"])).await.unwrap()), ["OK"]);
        assert_eq!(query(&mut connection, "THREE").await.unwrap(), "three");
    };
    tokio::join!(serve, use_it);
    let pushed: Vec<_> = messages.try_iter().collect();
    assert_eq!(pushed, ["ended a", "live b m", "ended b", "ended c"]);
}

#[tokio::test]
async fn refused_channel_does_not_affect_the_others() {
    let (mut connection, _end, mut server, _messages) = connect();
    let channels = names(["a", "b", "c", "d"]);
    let serve = async {
        let one_each: Vec<_> =
            channels.iter().map(|channel| command(&["ssubscribe", channel])).collect();
        server.expect(&one_each.concat()).await;
        server.send(&confirmation("ssubscribe", "a")).await;
        server.send("-MOVED 7 10.0.0.1:6379\r\n").await;
        server.send(&(message("a", "m") + &confirmation("ssubscribe", "c"))).await;
        server.send("-NOPERM no\r\n").await;
        server.expect(&command(&["NEXT"])).await;
        server.send("+next\r\n").await;
    };
    let use_it = async {
        let results = connection.ssubscribe(&channels).await.unwrap();
        let moved = results[1].clone().unwrap_err();
        assert_eq!(moved.redirect_node(), Some(("10.0.0.1:6379", 7)));
        assert_eq!(codes(results), ["OK", "MOVED", "OK", "NOPERM"]);
        assert_eq!(query(&mut connection, "NEXT").await.unwrap(), "next");
    };
    tokio::join!(serve, use_it);
}

#[tokio::test]
async fn channels_that_move_while_unsubscribing_keep_replies_paired() {
    let (mut connection, _end, mut server, messages) = connect();
    let serve = async {
        for round in 0..2 {
            let ping = format!("unsubscribed-{round}");
            let commands = ["a", "b"].map(|channel| command(&["sunsubscribe", channel])).concat();
            server.expect(&(commands + &command(&["PING", &ping]))).await;
            server.send(&confirmation("sunsubscribe", "a")).await;
            if round == 1 {
                // The slots moved before the commands arrived.
                server.send(&confirmation("sunsubscribe", "b")).await;
                server.send("-MOVED 7 10.0.0.1:6379\r\n-MOVED 8 10.0.0.1:6379\r\n").await;
                server.send(&confirmation("sunsubscribe", "other")).await;
            } else {
                server.send(&confirmation("sunsubscribe", "b")).await;
            }
            server.send(&bulk(&ping)).await;
            server.expect(&command(&["NEXT"])).await;
            server.send("+next\r\n").await;
        }
    };
    let use_it = async {
        for _ in 0..2 {
            connection.sunsubscribe(&names(["a", "b"])).await.unwrap();
            assert_eq!(query(&mut connection, "NEXT").await.unwrap(), "next");
        }
    };
    tokio::join!(serve, use_it);
    assert_eq!(messages.try_iter().collect::<Vec<_>>(), ["ended other"]);
}

#[tokio::test]
async fn refused_sunsubscribe_is_an_error() {
    let (connection, _end, mut server, _messages) = connect();
    let serve = async {
        server.send(&("-NOPERM no\r\n".to_owned() + &bulk("unsubscribed-0"))).await;
    };
    let channels = names(["a"]);
    let (result, ()) = tokio::join!(connection.sunsubscribe(&channels), serve);
    assert_eq!(result.unwrap_err().code(), Some("NOPERM"));
}

#[tokio::test]
async fn bytes_that_arrive_one_by_one_are_read_alike() {
    let (mut connection, mut end, mut server, messages) = connect();
    let serve = async {
        server.expect(&command(&["ONE"])).await;
        let answer = message("a", "m\r\n")
            + &confirmation("sunsubscribe", "a")
            + &bulk("one")
            + &format!(">4\r\n{}{}{}{}", bulk("pmessage"), bulk("*"), bulk("c"), bulk("n"));
        for byte in answer.bytes() {
            server.write.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ((), one) = tokio::join!(serve, query(&mut connection, "ONE"));
    assert_eq!(one.unwrap(), "one");
    drop(server);
    assert!(matches!(end.wait().await, EndReason::Closed));
    let pushed: Vec<_> = messages.try_iter().collect();
    assert_eq!(pushed, ["live a m\r\n", "ended a", "plain c n"]);
}

/// Sends `bytes` while a command waits; returns why the connection ended.
async fn end_by(bytes: &str) -> EndReason {
    let (mut connection, mut end, mut server, _messages) = connect();
    let serve = async {
        server.expect(&command(&["ONE"])).await;
        server.send(bytes).await;
        server
    };
    let (_server, failed) = tokio::join!(serve, query(&mut connection, "ONE"));
    if let Err(error) = failed {
        assert!(error.is_connection_dropped(), "{error}");
    }
    let reason = end.wait().await;
    let error = query(&mut connection, "LATER").await.unwrap_err();
    assert!(error.is_connection_dropped(), "{error}");
    reason
}

#[tokio::test]
async fn unreadable_bytes_end_the_connection() {
    let reason = end_by(&format!("${}\r\n", LIMIT + 1)).await;
    assert!(matches!(reason, EndReason::Frame(FrameError::TooLong(LIMIT))), "{reason:?}");
    assert!(reason.to_string().contains("proto-max-bulk-len"), "{reason}");
    let reason = end_by("HTTP/1.1 400 Bad Request\r\n").await;
    assert!(matches!(reason, EndReason::Frame(FrameError::Malformed)), "{reason:?}");
    let reason = end_by(":x\r\n").await;
    assert!(matches!(reason, EndReason::Reply(_)), "{reason:?}");
}

#[tokio::test]
async fn replies_without_a_command_end_the_connection() {
    for (bytes, shown) in [
        ("+one\r\n+two\r\n", "two"),
        ("+one\r\n-ERR something is wrong\r\n", "something is wrong"),
        (&*confirmation("ssubscribe", "a"), "ssubscribe a"),
        (&*confirmation("unsubscribe", "a"), "unsubscribe a"),
    ] {
        let reason = end_by(bytes).await;
        assert!(matches!(&reason, EndReason::Unexpected(t) if t.contains(shown)), "{reason:?}");
    }
}

#[tokio::test]
async fn reply_instead_of_a_confirmation_ends_the_connection() {
    let (connection, mut end, mut server, _messages) = connect();
    server.send("+OK\r\n").await;
    let channels = names(["a"]);
    // The reply may be read before the command is sent: then, too, nothing waits for it.
    assert!(connection.ssubscribe(&channels).await.unwrap_err().is_connection_dropped());
    assert!(matches!(end.wait().await, EndReason::Unexpected(_)));
}

#[tokio::test]
async fn end_of_file_fails_all_pending_commands() {
    let (connection, mut end, server, _messages) = connect();
    let (a, b) = (names(["a"]), names(["b"]));
    let close = async move {
        tokio::task::yield_now().await;
        drop(server);
    };
    let (one, two, ()) =
        tokio::join!(connection.ssubscribe(&a), connection.sunsubscribe(&b), close);
    assert!(one.unwrap_err().is_connection_dropped() && two.unwrap_err().is_connection_dropped());
    // Who learns that a command failed can ask for the reason at once.
    assert!(matches!(end.try_get(), Some(EndReason::Closed)));
    assert!(end.try_get().is_none());
}

#[tokio::test]
async fn reply_after_the_timeout_answers_no_other_command() {
    let (mut connection, _end, mut server, _messages) = connect();
    connection.timeout = Duration::ZERO;
    assert!(query(&mut connection, "ONE").await.unwrap_err().is_timeout());
    connection.timeout = TIMEOUT;
    let serve = async {
        server.expect(&(command(&["ONE"]) + &command(&["TWO"]))).await;
        server.send("+one\r\n+two\r\n").await;
    };
    let (two, ()) = tokio::join!(query(&mut connection, "TWO"), serve);
    assert_eq!(two.unwrap(), "two");
}

#[tokio::test]
async fn commands_without_a_reply_are_bounded() {
    let (mut connection, _end, _server, _messages) = connect();
    connection.timeout = Duration::ZERO;
    let channels: Vec<_> = (0..4000).map(|n| format!("c{n}")).collect();
    for _ in 0..4 {
        assert!(connection.ssubscribe(&channels).await.unwrap_err().is_timeout());
    }
    let error = connection.ssubscribe(&channels).await.unwrap_err();
    assert!(error.to_string().contains("too many commands"), "{error}");
    assert!(query(&mut connection, "ONE").await.unwrap_err().is_timeout(), "room for a few");
}

#[tokio::test]
async fn dropped_handle_closes_the_socket() {
    let (connection, mut end, mut server, _messages) = connect();
    drop(connection);
    let mut rest = Vec::new();
    server.read.read_to_end(&mut rest).await.unwrap();
    assert!(matches!(end.wait().await, EndReason::Dropped));
}
