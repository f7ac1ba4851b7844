//! A TCP proxy that can inject faults, between gateway and Redis or between client and gateway.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
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
    DiscardOf(IpAddr),
    Pause,
    Down,
}

/// State watched by all connections.
struct State {
    mode: Mode,
    /// Number of cuts of all connections, and of those from one address.
    cuts: u64,
    cuts_of: HashMap<IpAddr, u64>,
}

impl State {
    fn cuts_of(&self, source: IpAddr) -> u64 {
        self.cuts + self.cuts_of.get(&source).copied().unwrap_or_default()
    }
}

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
        let (state, watching) =
            watch::channel(State { mode: Mode::Pass, cuts: 0, cuts_of: HashMap::new() });
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
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Cuts all connections and closes new ones immediately.
    pub fn down(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Down;
            state.cuts += 1;
        });
    }

    /// Discards all bytes in both directions. Connections stay open, as behind a dead router.
    pub fn discard(&self) {
        self.set(Mode::Discard);
    }

    /// The same for connections from this address only.
    pub fn discard_of(&self, source: IpAddr) {
        self.set(Mode::DiscardOf(source));
    }

    /// Holds all bytes until [`Proxy::up`].
    pub fn pause(&self) {
        self.set(Mode::Pause);
    }

    /// Delays all bytes by at least this time, in both directions, until [`Proxy::up`].
    pub fn slow(&self, delay: Duration) {
        self.set(Mode::Slow(delay));
    }

    /// Forwards bytes again. Connections that lost bytes are cut.
    pub fn up(&self) {
        self.state.send_modify(|state| {
            match state.mode {
                Mode::Discard => state.cuts += 1,
                Mode::DiscardOf(source) => *state.cuts_of.entry(source).or_default() += 1,
                _ => {}
            }
            state.mode = Mode::Pass;
        });
    }

    fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
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
    while let Ok((client, source)) = listener.accept().await {
        let state = watching.clone();
        let (mode, cuts) = {
            let state = state.borrow();
            (state.mode, state.cuts_of(source.ip()))
        };
        if mode != Mode::Down {
            let target = target.lock().unwrap().clone();
            tokio::spawn(relay((client, source.ip()), target, state, cuts));
        }
    }
}

/// Connects one client to the target. Both connections end together.
async fn relay(
    (client, source): (TcpStream, IpAddr),
    target: String,
    mut state: watch::Receiver<State>,
    cuts: u64,
) {
    let passing = state.clone();
    let work = async {
        let server = TcpStream::connect(target).await.ok()?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::select! {
            _ = copy(client_read, server_write, passing.clone(), source) => {}
            _ = copy(server_read, client_write, passing.clone(), source) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = work => {}
        _ = state.wait_for(|state| state.cuts_of(source) != cuts) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    source: IpAddr,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if state.wait_for(|state| state.mode != Mode::Pause).await.is_err() {
            return;
        }
        let mode = state.borrow().mode;
        if let Mode::Slow(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        let is_lost = mode == Mode::Discard || mode == Mode::DiscardOf(source);
        if !is_lost && to.write_all(&buffer[..n]).await.is_err() {
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
        let mut link = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.discard_of("127.0.0.2".parse().unwrap());
        link.write_all(b"PING\r\n").await.unwrap();
        link.read_exact(&mut buffer).await.unwrap();
        proxy.discard_of(link.local_addr().unwrap().ip());
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
