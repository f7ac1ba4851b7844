//! A TCP proxy that can inject faults, between gateway and Redis or between client and gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Pass,
    Slow(Duration),
    Discard,
    Pause,
    Down,
}

/// State watched by all connections: the mode, and the number of cuts.
type State = (Mode, u64);

/// Listens on a free port and forwards bytes to a target.
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of `host:port` (a [`super::Redis::address`], a gateway's listener).
    pub async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (state, watching) = watch::channel((Mode::Pass, 0));
        let target = Arc::new(Mutex::new(target.to_string()));
        let accepting = tokio::spawn(accept(listener, target.clone(), watching));
        Proxy { address, target, state, accepting }
    }

    /// Forwards new connections to another target, and cuts the others.
    pub fn switch(&self, target: &str) {
        *self.target.lock().unwrap() = target.to_string();
        self.cut();
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a Redis URL.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Cuts all connections. New ones work, except after [`Proxy::down`].
    pub fn cut(&self) {
        self.state.send_modify(|(_, cuts)| *cuts += 1);
    }

    /// Cuts all connections and closes new ones immediately.
    pub fn down(&self) {
        self.state.send_modify(|(mode, cuts)| (*mode, *cuts) = (Mode::Down, *cuts + 1));
    }

    /// Discards all bytes in both directions. Connections stay open, as behind a dead router.
    pub fn discard(&self) {
        self.state.send_modify(|(mode, _)| *mode = Mode::Discard);
    }

    /// Holds all bytes until [`Proxy::up`].
    pub fn pause(&self) {
        self.state.send_modify(|(mode, _)| *mode = Mode::Pause);
    }

    /// Delays all bytes by at least this time, in both directions, until [`Proxy::up`].
    pub fn slow(&self, delay: Duration) {
        self.state.send_modify(|(mode, _)| *mode = Mode::Slow(delay));
    }

    /// Forwards bytes again. Connections that lost bytes are cut.
    pub fn up(&self) {
        self.state.send_modify(|(mode, cuts)| {
            if *mode == Mode::Discard {
                *cuts += 1;
            }
            *mode = Mode::Pass;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: Arc<Mutex<String>>,
    watching: watch::Receiver<State>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let state = watching.clone();
        let (mode, cuts) = *state.borrow();
        if mode != Mode::Down {
            let target = target.lock().unwrap().clone();
            tokio::spawn(relay(client, target, state, cuts));
        }
    }
}

/// Connects one client to the target. Both connections end together.
async fn relay(client: TcpStream, target: String, mut state: watch::Receiver<State>, cuts: u64) {
    let passing = state.clone();
    let work = async {
        let server = TcpStream::connect(target).await.ok()?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::select! {
            _ = copy(client_read, server_write, passing.clone()) => {}
            _ = copy(server_read, client_write, passing.clone()) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = work => {}
        _ = state.wait_for(|(_, now)| *now != cuts) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if state.wait_for(|(mode, _)| *mode != Mode::Pause).await.is_err() {
            return;
        }
        let mode = state.borrow().0;
        if let Mode::Slow(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if mode != Mode::Discard && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Redis;

    #[tokio::test]
    async fn proxy_passes_pauses_delays_discards_and_cuts() {
        let redis = Redis::start().await;
        let proxy = Proxy::start(&redis.address()).await;
        let mut buffer = [0; 7];
        let mut link = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.pause();
        link.write_all(b"PING\r\n").await.unwrap();
        proxy.up();
        link.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"+PONG\r\n");
        proxy.slow(Duration::from_millis(20));
        let sent = std::time::Instant::now();
        link.write_all(b"PING\r\n").await.unwrap();
        link.read_exact(&mut buffer).await.unwrap();
        assert!(sent.elapsed() >= Duration::from_millis(40));
        proxy.discard();
        link.write_all(b"PING\r\n").await.unwrap();
        proxy.up();
        assert!(!matches!(link.read(&mut buffer).await, Ok(1..)));
        proxy.down();
        let mut link = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!matches!(link.read(&mut buffer).await, Ok(1..)));
        proxy.up();
        let mut link = TcpStream::connect(proxy.address()).await.unwrap();
        link.write_all(b"PING\r\n").await.unwrap();
        link.read_exact(&mut buffer).await.unwrap();
    }

    #[tokio::test]
    async fn redis_freezes_restarts_and_loses_its_data() {
        let redis = Redis::start().await;
        redis.command::<()>(&["SET", "a", "1"]).await;
        redis.freeze();
        redis.thaw();
        redis.command::<String>(&["GET", "a"]).await;
        redis.stop();
        assert!(redis.try_conn().await.is_err());
        redis.start_again().await;
        assert_eq!(redis.command::<i64>(&["EXISTS", "a"]).await, 0);
    }
}
