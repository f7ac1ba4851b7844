//! Yardstick: the minimum cost of a delivery. A loop of blocking `send()` calls over all sockets,
//! without HTTP library, runtime or queue; one stalled client blocks all others. `POST /publish`
//! sends the body to all streams of `GET /events`.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use clap::Parser;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// Pause of the loop when nothing was published.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Parser)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(Args::parse().listen)?;
    println!("listening on {}", listener.local_addr()?);
    let (mut streams, mut publishers): (Vec<TcpStream>, Vec<TcpStream>) = (Vec::new(), Vec::new());
    listener.set_nonblocking(true)?;
    for id in 0u64.. {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nodelay(true)?;
            let mut first = [0];
            socket.peek(&mut first)?;
            if first == *b"G" {
                if read_request(&socket).is_ok() && (&socket).write_all(HEAD).is_ok() {
                    streams.push(socket);
                }
            } else {
                publishers.push(socket);
            }
        }
        let mut bodies = Vec::new();
        publishers.retain_mut(|socket| match has_request(socket) {
            Ok(false) => true,
            Ok(true) => read_request(socket)
                .and_then(|body| socket.write_all(NO_CONTENT).map(|()| bodies.push(body)))
                .is_ok(),
            Err(_) => false,
        });
        for body in &bodies {
            let event = format!("id: 1763719000000-{id}\nevent: load\ndata: {body}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            streams.retain_mut(|socket| socket.write_all(chunk.as_bytes()).is_ok());
        }
        if bodies.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Returns whether a request has arrived. Fails if the connection is closed.
fn has_request(socket: &TcpStream) -> io::Result<bool> {
    socket.set_nonblocking(true)?;
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false)?;
    match peeked {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a request and returns its body.
fn read_request(mut socket: &TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(body.to_owned());
            }
        }
        match socket.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}
