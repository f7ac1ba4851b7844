//! A link without Redis, for unit tests.

use super::*;
use crate::redis::{link_context::testing::link_context, recorder::inbox};

/// A link whose Redis refuses connections.
pub fn unreachable(mode: &str) -> (LinkContext, Link, Supervisor) {
    // A port that nobody listens on: it is bound without listening until the test ends.
    static PORT: std::sync::OnceLock<socket2::Socket> = std::sync::OnceLock::new();
    let bound = PORT.get_or_init(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a free port");
        socket
    });
    let address = bound.local_addr().ok().and_then(|address| address.as_socket());
    let url = format!("redis://{}", address.expect("an address"));
    let context = link_context(&[("REDIS__URL", &url), ("PUBLISHERS__PLAIN", mode)]);
    let commands = context.commands();
    let keys = commands.keys.clone();
    let (rejected, _) = mpsc::channel(1);
    let inbound = Inbound::new(context.clone(), keys, inbox::channel().0, rejected);
    let (link, supervisor) = new(context.clone(), commands, Arc::new(inbound));
    (context, link, supervisor)
}

impl Supervisor {
    /// Waits for the next request, which fails with [`LinkDown`] and is not counted.
    pub async fn refuse_one(&mut self) {
        drop(self.requests.recv().await);
    }

    /// Fails requests as between two links, until `end` is ready.
    pub async fn refuse_until<T>(&mut self, end: impl Future<Output = T>) -> T {
        tokio::select! {
            () = self.refuse_for(Duration::from_secs(60)) => panic!("too slow"),
            result = end => result,
        }
    }

    /// The users with a connection, after the requests that are on their way.
    pub async fn connected_users(&mut self) -> Vec<Arc<str>> {
        self.refuse_for(Duration::ZERO).await;
        self.subscriptions.lost()
    }
}

/// A link that nobody serves.
pub fn idle_link() -> Link {
    let (requests, _) = mpsc::unbounded_channel();
    Link { requests, timeout: Duration::from_secs(1) }
}
