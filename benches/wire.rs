//! CPU of the link's reading task for each message: a server on a loopback socket sends live
//! messages, and the connection passes them on. Compares our connection with that of redis-rs.
//!
//! Prints CPU time of the reading thread and messages per second.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, IntoConnectionInfo, ProtocolVersion, Value};
use sse_gateway::redis::wire::{Connection, Push};
use tokio::sync::Notify;

const MESSAGES: u64 = 1_000_000;
const MESSAGE_BYTES: usize = 256;
const ROUNDS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Counts messages, and notifies when all have arrived.
#[derive(Default)]
struct Counter {
    messages: AtomicU64,
    bytes: AtomicU64,
    all: Notify,
}

impl Counter {
    fn count(&self, channel: &[u8], message: &[u8]) {
        self.bytes.fetch_add((channel.len() + message.len()) as u64, Ordering::Relaxed);
        if self.messages.fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES {
            self.all.notify_one();
        }
    }
}

/// Accepts one connection, answers its first commands, and sends `batch` messages at once until all
/// are sent.
fn serve(batch: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        socket.set_nodelay(true).expect("nodelay");
        let mut commands = [0; 4096];
        // HELLO, CLIENT SETINFO, CLIENT SETINFO, in one write.
        let _ = socket.read(&mut commands).expect("commands");
        socket.write_all(b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n").expect("a client");
        let channel = "sse:live:{user:12345:events}";
        let message = format!(
            ">3\r\n$8\r\nsmessage\r\n${}\r\n{channel}\r\n${MESSAGE_BYTES}\r\n{}\r\n",
            channel.len(),
            "x".repeat(MESSAGE_BYTES)
        );
        let many = message.repeat(batch as usize);
        for _ in 0..MESSAGES / batch {
            socket.write_all(many.as_bytes()).expect("a client");
        }
        // Until the client closes.
        let _ = socket.read(&mut commands);
    });
    address
}

fn thread_cpu() -> Duration {
    // SAFETY: clock_gettime writes the given struct only.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn ours(address: SocketAddr, counter: Arc<Counter>) -> Connection {
    let server = format!("redis://{address}").into_connection_info().expect("a URL");
    let push = move |push: Push<'_>| match push {
        Push::Live { channel, message } | Push::Plain { channel, message } => {
            counter.count(channel, message);
        }
        Push::Ended { .. } => {}
    };
    Connection::open(&server, None, TIMEOUT, push).await.expect("a connection").0
}

async fn redis_rs(address: SocketAddr, counter: Arc<Counter>) -> impl Drop {
    let server = format!("redis://{address}").into_connection_info().expect("a URL");
    let resp3 = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = redis::Client::open(server.set_redis_settings(resp3)).expect("a client");
    let config = AsyncConnectionConfig::new().set_push_sender(move |push: redis::PushInfo| {
        if let [Value::BulkString(channel), Value::BulkString(message)] = &push.data[..] {
            counter.count(channel, message);
        }
        Ok::<(), redis::aio::SendError>(())
    });
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    Keep(Some(connection.expect("a connection")))
}

struct Keep<T>(Option<T>);

impl<T> Drop for Keep<T> {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// CPU time and time of one round.
fn round<C, F: Future<Output = C>>(
    batch: u64,
    connect: impl FnOnce(SocketAddr, Arc<Counter>) -> F,
) -> (Duration, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let counter = Arc::new(Counter::default());
        let (began, cpu) = (Instant::now(), thread_cpu());
        let _connection = connect(serve(batch), counter.clone()).await;
        counter.all.notified().await;
        (thread_cpu() - cpu, began.elapsed())
    })
}

fn report(name: &str, batch: u64, mut rounds: Vec<(Duration, Duration)>) {
    rounds.sort();
    let (cpu, elapsed) = rounds[rounds.len() / 2];
    println!(
        "{name:10} {batch:>3} at once: {:6.0} ns CPU per message, {:9.0} messages/s",
        cpu.as_nanos() as f64 / MESSAGES as f64,
        MESSAGES as f64 / elapsed.as_secs_f64()
    );
}

fn main() {
    // As with the other benches, an argument that is no option is a filter.
    if std::env::args().skip(1).any(|arg| !arg.starts_with('-') && !"wire".contains(&arg)) {
        return;
    }
    for batch in [1, 100] {
        report("redis-rs", batch, (0..ROUNDS).map(|_| round(batch, redis_rs)).collect());
        report("ours", batch, (0..ROUNDS).map(|_| round(batch, ours)).collect());
    }
}
