//! A client that behaves like a browser's `EventSource`: it reconnects with its last event id after
//! the delay that the server asked for, and stops permanently after any response other than a
//! stream with status 200.

use crate::harness::eventually_within;
use crate::harness::parser::{Event, Parser};
use crate::harness::ticket::{Ticket, ticket};
use crate::kept::{self, Values};
use crate::presence;
use crate::world::LIMIT;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The delay of browsers until a server sends `retry:`.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// An event and when it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub event: Event,
}

/// What happened to a client.
#[derive(Clone, Default)]
pub struct Log {
    /// Everything except heartbeats, in order.
    pub received: Vec<Received>,
    /// The first `sse.connected`: every event that is published later is due.
    pub connected: Option<Instant>,
    /// The retained values that it knows, over all rounds.
    pub values: Values,
    /// What it knows of the presence of users, over all rounds.
    pub presence: presence::View,
    /// Streams that ended, and when.
    pub ended: Vec<Instant>,
    /// The response after which an `EventSource` never reconnects.
    pub broken: Option<String>,
}

/// One client; disconnects when dropped.
pub struct Client {
    pub user: String,
    /// Exact topics or `*`.
    pub topics: Vec<String>,
    log: Arc<Mutex<Log>>,
    /// Whether it stays away when its stream ends.
    leaves: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Client {
    /// Connects in the background to a gateway or a balancer.
    pub fn start(address: SocketAddr, user: &str, topics: &[&str]) -> Client {
        Client::with(address, ticket(user), user, topics)
    }

    /// [`Client::start`] without topics, and with the events of presence.
    pub fn watch(address: SocketAddr, user: &str) -> Client {
        Client::with(address, ticket(user).claim("presence", true.into()), user, &[])
    }

    fn with(address: SocketAddr, ticket: Ticket, user: &str, topics: &[&str]) -> Client {
        let (log, leaves) = (Arc::<Mutex<Log>>::default(), Arc::<AtomicBool>::default());
        let path = format!("/events?ticket={}", ticket.topics(topics).ttl(60).jwt());
        let task = tokio::spawn(run(address, path, log.clone(), leaves.clone()));
        let topics = topics.iter().map(|topic| topic.to_string()).collect();
        Client { user: user.to_owned(), topics, log, leaves, task }
    }

    /// From now on it does not reconnect.
    pub fn leave_with_the_stream(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// Disconnects, unless the stream has ended before.
    pub fn leave(&self) {
        self.task.abort();
        let mut log = self.log.lock().unwrap();
        if log.ended.is_empty() {
            log.ended.push(Instant::now());
        }
    }

    /// Waits until it was connected once.
    pub async fn connected(&self) {
        eventually_within(LIMIT, "a connected client", || async {
            self.read(|log| log.connected).map(drop)
        })
        .await;
    }

    /// Everything so far.
    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Looks at the log without copying it.
    pub fn read<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap())
    }

    /// Forgets what was received so far. The next round begins.
    pub fn clear(&self) {
        let mut log = self.log.lock().unwrap();
        log.received.clear();
        log.ended.clear();
        log.presence.repeated.clear();
    }

    /// Whether it is due to receive events of this channel.
    pub fn wants(&self, channel: &str) -> bool {
        match channel.strip_prefix("broadcast:") {
            Some(topic) => self.topics.iter().any(|own| own == "*" || own == topic),
            None => channel == format!("user:{}:events", self.user),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(address: SocketAddr, path: String, log: Arc<Mutex<Log>>, leaves: Arc<AtomicBool>) {
    let (mut last_id, mut retry) = (String::new(), FIRST_RETRY);
    loop {
        let end = stream(address, &path, &mut last_id, &mut retry, &log).await;
        if let Err(broken) = end {
            log.lock().unwrap().broken = Some(broken);
            return;
        }
        if leaves.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(retry).await;
    }
}

/// One connection. `Err`: a response after which an `EventSource` never reconnects.
async fn stream(
    address: SocketAddr,
    path: &str,
    last_id: &mut String,
    retry: &mut Duration,
    log: &Mutex<Log>,
) -> Result<(), String> {
    let Ok(mut socket) = TcpStream::connect(address).await else { return Ok(()) };
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
    request.push_str("Accept: text/event-stream\r\nCache-Control: no-cache\r\n");
    if !last_id.is_empty() {
        request.push_str(&format!("Last-Event-ID: {last_id}\r\n"));
    }
    request.push_str("\r\n");
    if socket.write_all(request.as_bytes()).await.is_err() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    let Some(head) = read_head(&mut socket, &mut bytes).await else { return Ok(()) };
    let is_stream = head.starts_with("HTTP/1.1 200")
        && head.to_ascii_lowercase().contains("content-type: text/event-stream");
    if !is_stream {
        let body = String::from_utf8_lossy(&bytes).into_owned();
        return Err(format!("{}: {body}", head.lines().next().unwrap_or_default()));
    }
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let (mut parser, mut chunks, mut is_open) = (Parser::default(), Chunks::default(), false);
    loop {
        let data = if is_chunked { chunks.feed(&bytes) } else { std::mem::take(&mut bytes) };
        bytes.clear();
        for event in parser.feed(&data) {
            if !event.last_id.is_empty() {
                last_id.clone_from(&event.last_id);
            }
            is_open |= event.event == "sse.connected";
            note(log, event);
        }
        if let Some(ms) = parser.retry {
            *retry = Duration::from_millis(ms);
        }
        let is_over = chunks.done || !matches!(socket.read_buf(&mut bytes).await, Ok(1..));
        if is_over {
            if is_open {
                log.lock().unwrap().ended.push(Instant::now());
            }
            return Ok(());
        }
    }
}

fn note(log: &Mutex<Log>, event: Event) {
    let at = Instant::now();
    let mut log = log.lock().unwrap();
    if event.event == "sse.connected" {
        log.connected.get_or_insert(at);
    }
    kept::apply(&mut log.values, &event);
    log.presence.apply(&event);
    if event.event != "sse.heartbeat" {
        log.received.push(Received { at, event });
    }
}

/// The head of a response; what follows remains in `bytes`.
async fn read_head(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
            bytes.drain(..at + 4);
            return Some(head);
        }
        if !matches!(socket.read_buf(bytes).await, Ok(1..)) {
            return None;
        }
    }
}

/// A decoder of the chunked coding.
#[derive(Default)]
struct Chunks {
    raw: Vec<u8>,
    done: bool,
}

impl Chunks {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.raw.extend_from_slice(bytes);
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(line) = self.raw[at..].windows(2).position(|window| window == b"\r\n") {
            let text = std::str::from_utf8(&self.raw[at..at + line]).unwrap_or_default();
            let size = usize::from_str_radix(text.trim(), 16).expect("a chunk size");
            let start = at + line + 2;
            if size == 0 {
                self.done = true;
                break;
            }
            if self.raw.len() < start + size + 2 {
                break;
            }
            out.extend_from_slice(&self.raw[start..start + size]);
            at = start + size + 2;
        }
        self.raw.drain(..at);
        out
    }
}

#[test]
fn chunks_are_decoded_when_they_are_complete() {
    let mut chunks = Chunks::default();
    let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let out: Vec<u8> = body.iter().flat_map(|byte| chunks.feed(&[*byte])).collect();
    assert_eq!((out.as_slice(), chunks.done), (b"abcde".as_slice(), true));
}
