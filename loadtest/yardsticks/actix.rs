//! Yardstick: a simple SSE server built with actix-web. It has no tickets or resume. `POST
//! /publish` sends the body to all streams of `GET /events`; with `--redis`, a message on the
//! channel `user:NAME:events` is sent to all streams of `GET /events/NAME`. The difference to the
//! gateway is the cost of the gateway's features.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::web::{Bytes, Data, Path, get, post};
use actix_web::{App, HttpResponse, HttpServer};
use clap::Parser;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// Maximum number of frames a stream may lag behind; a slower stream is closed.
const QUEUE_FRAMES: usize = 1024;
/// The same for the streams of one user, each of which has a queue of its own.
const USER_QUEUE_FRAMES: usize = 16;

#[derive(Parser)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Number of worker threads
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Redis with the events of single users
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

/// One queue read by all streams. A tokio channel per stream would allocate its first block of
/// slots, 3.3 KiB, for each idle stream.
struct Hub {
    frames: broadcast::Sender<Bytes>,
    users: Mutex<HashMap<String, broadcast::Sender<Bytes>>>,
    last_id: AtomicU64,
}

impl Hub {
    fn frame(&self, data: &str) -> Bytes {
        let id = self.last_id.fetch_add(1, Ordering::SeqCst);
        Bytes::from(format!("id: 1763719000000-{id}\nevent: load\ndata: {data}\n\n"))
    }

    /// Sends the messages of all users' channels to their streams. Returns when the connection
    /// ends.
    fn relay(&self, redis: &str) -> redis::RedisResult<()> {
        let mut connection = redis::Client::open(redis)?.get_connection()?;
        let mut messages = connection.as_pubsub();
        messages.psubscribe("user:*:events")?;
        loop {
            let message = messages.get_message()?;
            let user = message.get_channel_name().split(':').nth(1).unwrap_or_default();
            let data: String = message.get_payload()?;
            if let Some(frames) = self.users.lock().get(user) {
                let _ = frames.send(self.frame(&data));
            }
        }
    }
}

async fn events(hub: Data<Hub>) -> HttpResponse {
    event_stream(hub.frames.subscribe())
}

async fn user_events(hub: Data<Hub>, user: Path<String>) -> HttpResponse {
    let mut users = hub.users.lock();
    let frames =
        users.entry(user.into_inner()).or_insert_with(|| broadcast::Sender::new(USER_QUEUE_FRAMES));
    event_stream(frames.subscribe())
}

fn event_stream(frames: broadcast::Receiver<Bytes>) -> HttpResponse {
    let frames = stream::unfold(frames, |mut frames| async {
        let frame = frames.recv().await.ok()?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(frames)
}

async fn publish(hub: Data<Hub>, body: String) -> HttpResponse {
    // The only error is that there is no stream.
    let _ = hub.frames.send(hub.frame(&body));
    HttpResponse::NoContent().finish()
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let hub = Data::new(Hub {
        frames: broadcast::Sender::new(QUEUE_FRAMES),
        users: Mutex::default(),
        last_id: AtomicU64::default(),
    });
    if let Some(redis) = args.redis {
        let hub = hub.clone();
        std::thread::spawn(move || {
            if let Err(error) = hub.relay(&redis) {
                eprintln!("--redis {redis}: {error}");
            }
        });
    }
    let app = move || {
        App::new()
            .app_data(hub.clone())
            .route("/events", get().to(events))
            .route("/events/{user}", get().to(user_events))
            .route("/publish", post().to(publish))
    };
    let server = HttpServer::new(app)
        .workers(args.workers)
        .max_connections(100_000)
        .backlog(4096)
        .bind(&args.listen)?;
    println!("listening on {}", server.addrs()[0]);
    server.run().await
}
