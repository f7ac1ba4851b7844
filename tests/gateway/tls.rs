//! TLS with another implementation than our own: openssl's client.

use crate::harness::{GUARD, Gateway, Redis, keys::Dir, ticket};
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
};

/// openssl's client with an open stream.
struct Client {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: tokio::process::Child,
}

impl Client {
    async fn open(gateway: &Gateway, dir: &Dir, user: &str, version: &str) -> Client {
        let openssl = format!(
            "exec openssl s_client -connect {} -CAfile {} -verify_return_error {version} 2>&1",
            gateway.public,
            dir.text("ca.pem"),
        );
        let mut child = Command::new("sh")
            .args(["-c", &openssl])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut client = Client { stdin, lines: BufReader::new(stdout).lines(), _child: child };
        let ticket = ticket(user);
        let request = format!("GET /events?ticket={} HTTP/1.1\r\nHost: x\r\n\r\n", ticket.jwt());
        client.types(&request).await;
        client.until("event: sse.connected").await;
        client
    }

    async fn types(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).await.unwrap();
        self.stdin.flush().await.unwrap();
    }

    /// Reads until a line contains `text`.
    async fn until(&mut self, text: &str) {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.contains(text) {
                    return;
                }
            }
            panic!("the end before {text:?}");
        };
        tokio::time::timeout(GUARD, reading).await.unwrap_or_else(|_| panic!("no {text:?}"));
    }
}

async fn serve() -> (Redis, Gateway, Dir) {
    let (redis, dir) = (Redis::start().await, Dir::new());
    dir.certificate();
    let gateway = Gateway::builder(&redis)
        .env("SERVER__TLS__CERTIFICATE", &dir.text("server.pem"))
        .env("SERVER__TLS__KEY", &dir.text("server.key"))
        .start()
        .await;
    (redis, gateway, dir)
}

#[tokio::test]
async fn stream_of_openssl_continues_after_key_updates() {
    let (redis, gateway, dir) = serve().await;
    let mut client = Client::open(&gateway, &dir, "1", "-tls1_3").await;
    for n in 0..3 {
        // `K` also asks the gateway to update its key.
        client.types("K\n").await;
        client.until("KEYUPDATE").await;
        let id = redis.durable("user:1:events", "a", &n.to_string()).await.unwrap();
        client.until(&format!("id: {id}")).await;
        client.until(&format!("data: {n}")).await;
    }
}

#[tokio::test]
async fn renegotiation_is_refused() {
    let (redis, gateway, dir) = serve().await;
    let mut client = Client::open(&gateway, &dir, "1", "-tls1_2").await;
    let id = redis.durable("user:1:events", "a", "1").await.unwrap();
    client.until(&format!("id: {id}")).await;
    // openssl disconnects when it gets the refusal; others are served.
    client.types("R\n").await;
    let gone = [("reason", "client-gone")];
    gateway.metric_reaches("sse_connections_closed_total", &gone, 1.0).await;
    let mut client = Client::open(&gateway, &dir, "2", "-tls1_2").await;
    let id = redis.durable("user:2:events", "a", "2").await.unwrap();
    client.until(&format!("id: {id}")).await;
}
