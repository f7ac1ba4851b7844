//! A TCP balancer in front of the gateways: each connection goes to the next one that accepts it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The gateways, of which some may be down.
type Targets = Arc<Mutex<Vec<Option<SocketAddr>>>>;

/// Listens on a free port; ends with its connections when dropped.
pub struct Balancer {
    address: SocketAddr,
    targets: Targets,
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Balancer {
    /// A balancer without targets.
    pub async fn start() -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let targets = Targets::default();
        let (cuts, cut) = watch::channel(0);
        let accepting = tokio::spawn(accept(listener, targets.clone(), cut));
        Balancer { address, targets, cuts, accepting }
    }

    /// The address that clients use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Sets target `n`, or takes it out. Existing connections continue.
    pub fn set(&self, n: usize, target: Option<SocketAddr>) {
        let mut targets = self.targets.lock().unwrap();
        let len = targets.len().max(n + 1);
        targets.resize(len, None);
        targets[n] = target;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, targets: Targets, cut: watch::Receiver<u64>) {
    let mut connections = JoinSet::new();
    for turn in 0.. {
        let Ok((client, _)) = listener.accept().await else { return };
        let mut order: Vec<SocketAddr> =
            targets.lock().unwrap().iter().flatten().copied().collect();
        if !order.is_empty() {
            let first = turn % order.len();
            order.rotate_left(first);
        }
        let mut cut = cut.clone();
        cut.mark_unchanged();
        connections.spawn(async move {
            tokio::select! {
                () = relay(client, order) => {}
                _ = cut.changed() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut client: TcpStream, order: Vec<SocketAddr>) {
    for target in order {
        let Ok(mut server) = TcpStream::connect(target).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        // Both ends close together: a stream that one side has left is of no use.
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
        return;
    }
}
