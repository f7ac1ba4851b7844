//! An issuer of tickets that publishes its key set over HTTP.

use super::process::free_port;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A small web server on one port. It can be down, slow, or return invalid responses.
pub struct Idp {
    port: u16,
    shared: Arc<Shared>,
    server: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// Status, additional header lines, body.
    answer: Mutex<(u16, String, String)>,
    requests: AtomicUsize,
    paused: watch::Sender<bool>,
}

impl Idp {
    /// An issuer that is down: nothing listens on its port.
    pub fn down() -> Idp {
        let answer = Mutex::new((404, String::new(), String::new()));
        let shared =
            Shared { answer, requests: AtomicUsize::new(0), paused: watch::Sender::new(false) };
        Idp { port: free_port(), shared: Arc::new(shared), server: Mutex::new(None) }
    }

    /// An issuer that publishes these keys.
    pub async fn start(keys: &[Value]) -> Idp {
        let idp = Idp::down();
        idp.publish(keys);
        idp.up().await;
        idp
    }

    /// The value for the setting `tickets.jwks_url`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/jwks.json", self.port)
    }

    /// Starts to listen.
    pub async fn up(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free");
        let shared = self.shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, shared.clone()));
            }
        });
        *self.server.lock().unwrap() = Some(server);
    }

    /// Stops to listen.
    pub async fn stop(&self) {
        let server = self.server.lock().unwrap().take().expect("the server runs");
        server.abort();
        let _ = server.await;
    }

    /// Publishes these keys from now on.
    pub fn publish(&self, keys: &[Value]) {
        self.respond(200, "", &json!({"keys": keys}).to_string());
    }

    /// Sets the response to all further requests.
    pub fn respond(&self, status: u16, headers: &str, body: &str) {
        *self.shared.answer.lock().unwrap() = (status, headers.to_string(), body.to_string());
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Counts further requests, but does not respond.
    pub fn pause(&self) {
        self.shared.paused.send_replace(true);
    }

    /// Responds to paused requests.
    pub fn resume(&self) {
        self.shared.paused.send_replace(false);
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let _ = shared.paused.subscribe().wait_for(|paused| !paused).await;
    let (status, headers, body) = shared.answer.lock().unwrap().clone();
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}
