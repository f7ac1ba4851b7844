//! Forwards connections to a gateway, like the load balancer of a deployment.

use std::time::Duration;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::gateway::Ready;

/// Time until another attempt, if a gateway has ended or descriptors are exhausted.
const PAUSE: Duration = Duration::from_millis(20);

/// Forwards each connection to the first of the ready gateways: the page's stream and its requests
/// reach the same one, and when it ends, its successor.
pub async fn forward_all(listener: TcpListener, ready: watch::Receiver<Vec<Ready>>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(forward(client, ready.clone()))),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn forward(mut client: TcpStream, mut ready: watch::Receiver<Vec<Ready>>) {
    let mut gateway = loop {
        let first = ready.wait_for(|ready| !ready.is_empty()).await.map(|ready| ready[0].public);
        let Ok(address) = first else { return };
        match TcpStream::connect(address).await {
            Ok(gateway) => break gateway,
            Err(_) => sleep(PAUSE).await,
        }
    };
    // These fail only for connections that have ended.
    let _ = client.set_nodelay(true).and(gateway.set_nodelay(true));
    let _ = copy_bidirectional(&mut client, &mut gateway).await;
}
