//! Yardstick: the SSE server that one writes with actix-web in an afternoon. No tickets, no users, no resume: `POST /publish` goes
//! to all streams of `GET /events`. What the gateway costs beyond this is the price of what it does.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use actix_web::web::{Bytes, Data, get, post};
use actix_web::{App, HttpResponse, HttpServer};
use clap::Parser;
use futures_util::StreamExt;
use tokio::sync::mpsc;

/// Frames that a stream may be behind; it is ended if it is further.
const QUEUE_FRAMES: usize = 1024;

#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Threads
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

#[derive(Default)]
struct Hub {
    streams: Mutex<Vec<mpsc::Sender<Bytes>>>,
    last_id: AtomicU64,
}

async fn events(hub: Data<Hub>) -> HttpResponse {
    let (sender, mut receiver) = mpsc::channel(QUEUE_FRAMES);
    hub.streams.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok::<_, Infallible>);
    HttpResponse::Ok().content_type("text/event-stream").streaming(frames)
}

async fn publish(hub: Data<Hub>, body: String) -> HttpResponse {
    let id = hub.last_id.fetch_add(1, Ordering::SeqCst);
    let frame = Bytes::from(format!("id: 1763719000000-{id}\nevent: load\ndata: {body}\n\n"));
    hub.streams.lock().unwrap_or_else(PoisonError::into_inner).retain(|stream| stream.try_send(frame.clone()).is_ok());
    HttpResponse::NoContent().finish()
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let hub = Data::new(Hub::default());
    let app = move || {
        App::new().app_data(hub.clone()).route("/events", get().to(events)).route("/publish", post().to(publish))
    };
    let server =
        HttpServer::new(app).workers(args.workers).max_connections(100_000).backlog(4096).bind(&args.listen)?;
    println!("listening on {}", server.addrs()[0]);
    server.run().await
}
