//! Two Redis servers behind one address have two histories: a gateway uses only the one of its
//! link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Gateway, Redis, topic, user};
use tokio::net::{TcpListener, TcpStream};

/// A balancer that sends connections to two servers in turn. Returns its URL.
async fn balancer(servers: [String; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let next = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let target = servers[next.fetch_add(1, Ordering::Relaxed) % 2].clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    url
}

/// The server that has the gateway's subscriptions.
async fn link_server(servers: &[Redis; 2]) -> (&Redis, &Redis) {
    let [one, two] = servers;
    let channels: Vec<String> = one.command(&["PUBSUB", "SHARDCHANNELS", "sse:live:*"]).await;
    if channels.is_empty() { (two, one) } else { (one, two) }
}

#[tokio::test]
async fn resumes_read_only_the_server_of_the_link() {
    let servers = [Redis::start().await, Redis::start().await];
    let url = balancer([servers[0].address(), servers[1].address()]).await;
    // Few connections, so that each is replaced often.
    let builder = Gateway::durable_only(&servers[0]).redis_url(&url);
    let gateway = builder.env("REDIS__POOL_SIZE", "2").start().await;
    let (own, other) = link_server(&servers).await;
    let mut cursor = gateway.connect("1").await.last_id().to_owned();
    for n in 0..24 {
        let channel = if n % 2 == 0 { user("1") } else { topic("t") };
        let id = own.durable(&channel, "a", n.to_string()).await.unwrap();
        let mut sse = gateway.resume("1", &cursor).await;
        assert_eq!(sse.app_event().await.id.as_ref(), Some(&id), "{}", sse.dump());
        cursor = id;
        // Its sessions are on the same server.
        let sessions: Vec<String> = other.command(&["KEYS", "sse:session:*"]).await;
        assert!(sessions.is_empty(), "{sessions:?}");
        // New connections are opened.
        own.command::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    }
}
