//! Forwards connections to a gateway, like the load balancer of a deployment.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::gateway::Ready;

/// Time until another attempt, if a gateway has ended or descriptors are exhausted.
const PAUSE: Duration = Duration::from_millis(20);
/// Maximum time to wait for a gateway; the client may connect again.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of connections; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 2000;

/// Forwards each connection to the first of the ready gateways: the page's stream and its requests
/// reach the same one, and when it ends, its successor.
pub async fn forward_all(listener: TcpListener, ready: watch::Receiver<Vec<Ready>>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                let ready = ready.clone();
                tokio::spawn(async move {
                    forward(client, ready).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn forward(mut client: TcpStream, ready: watch::Receiver<Vec<Ready>>) {
    let Ok(Some(mut gateway)) = timeout(MAX_WAIT, connect(ready)).await else { return };
    // These fail only for connections that have ended.
    let _ = client.set_nodelay(true).and(gateway.set_nodelay(true));
    let _ = copy_bidirectional(&mut client, &mut gateway).await;
}

/// A connection to the first gateway, as soon as one is ready; `None`: this process ends.
async fn connect(mut ready: watch::Receiver<Vec<Ready>>) -> Option<TcpStream> {
    loop {
        let first = ready.wait_for(|ready| !ready.is_empty()).await.map(|ready| ready[0].public);
        match TcpStream::connect(first.ok()?).await {
            Ok(gateway) => return Some(gateway),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
