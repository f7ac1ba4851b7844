//! Yardstick: a simple SSE server built with actix-web. It has no tickets, users or resume: `POST
//! /publish` sends the body to all streams of `GET /events`. The difference to the gateway is the
//! cost of the gateway's features.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::web::{Bytes, Data, get, post};
use actix_web::{App, HttpResponse, HttpServer};
use clap::Parser;
use futures_util::stream;
use tokio::sync::broadcast;

/// Maximum number of frames a stream may lag behind; a slower stream is closed.
const QUEUE_FRAMES: usize = 1024;

#[derive(Parser)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Number of worker threads
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// One queue read by all streams. A tokio channel per stream would allocate its first block of
/// slots, 3.3 KiB, for each idle stream.
struct Hub {
    frames: broadcast::Sender<Bytes>,
    last_id: AtomicU64,
}

async fn events(hub: Data<Hub>) -> HttpResponse {
    let frames = stream::unfold(hub.frames.subscribe(), |mut frames| async {
        let frame = frames.recv().await.ok()?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(frames)
}

async fn publish(hub: Data<Hub>, body: String) -> HttpResponse {
    let id = hub.last_id.fetch_add(1, Ordering::SeqCst);
    // The only error is that there is no stream.
    let _ = hub
        .frames
        .send(Bytes::from(format!("id: 1763719000000-{id}\nevent: load\ndata: {body}\n\n")));
    HttpResponse::NoContent().finish()
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let hub = Data::new(Hub {
        frames: broadcast::Sender::new(QUEUE_FRAMES),
        last_id: AtomicU64::default(),
    });
    let app = move || {
        App::new()
            .app_data(hub.clone())
            .route("/events", get().to(events))
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
