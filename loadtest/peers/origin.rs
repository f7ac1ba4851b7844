//! Origin behind Pushpin: answers each request for `/events/CHANNEL` with GRIP headers, which tell
//! Pushpin to keep the stream open, to subscribe it to the channel and to send a comment after 25 s
//! without an event. It accepts everyone and has no log.

use actix_web::web::{Path, get};
use actix_web::{App, HttpResponse, HttpServer};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

async fn events(channel: Path<String>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Grip-Hold", "stream"))
        .insert_header(("Grip-Channel", channel.into_inner()))
        .insert_header(("Grip-Keep-Alive", r":\n\n; format=cstring; timeout=25"))
        .finish()
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let app = || App::new().route("/events/{channel}", get().to(events));
    let server = HttpServer::new(app).workers(2).backlog(4096).bind(&Args::parse().listen)?;
    println!("listening on {}", server.addrs()[0]);
    server.run().await
}
