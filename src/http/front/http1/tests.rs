//! Connections, output and streams over real sockets, with a small service instead of the app.

use std::{future::Future, rc::Rc, time::Duration};

use actix_http::{Request, Response};
use actix_service::{Service, fn_service};
use actix_web::{
    Error,
    body::{BodyStream, BoxBody},
    http::StatusCode,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::serve;
use crate::{
    http::{
        front::{FrontContext, prefixed::Prefixed},
        sockets::{
            budget::{SocketBudget, WorkerLoad},
            idle::IdleLimits,
            peer::Peer,
            tcp::ClientTcp,
            watch::SocketWatch,
        },
    },
    metrics::Metrics,
    state::testing,
};

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// The responses of the service, by path.
async fn respond(mut request: Request) -> Result<Response<BoxBody>, Error> {
    let path = request.path().to_owned();
    let body: BoxBody = match path.as_str() {
        "/echo" => {
            let mut payload = request.take_payload();
            let mut body = Vec::new();
            while let Some(piece) = payload.next().await {
                body.extend_from_slice(&piece?);
            }
            BoxBody::new(body)
        }
        "/large" => BoxBody::new(large()),
        "/stream" => {
            let pieces = ["", "one", "", "two"].map(|text| Ok::<_, Error>(Bytes::from(text)));
            BoxBody::new(BodyStream::new(stream::iter(pieces).chain(last_piece())))
        }
        "/endless" => BoxBody::new(BodyStream::new(stream::pending::<Result<Bytes, Error>>())),
        _ => {
            // Like most handlers, it does not respond at once.
            tokio::task::yield_now().await;
            BoxBody::new(path)
        }
    };
    Ok(Response::with_body(StatusCode::OK, body))
}

/// A piece large enough to be written as three parts without a copy.
fn last_piece() -> impl futures_util::Stream<Item = Result<Bytes, Error>> {
    stream::iter([Ok(large())])
}

/// A body that exceeds the socket's buffers.
fn large() -> Bytes {
    (0..6 << 20).map(|n: u32| (n % 251) as u8).collect()
}

/// Serves one connection; returns the client's end and the task.
async fn connect() -> (TcpStream, impl Future<Output = ()>) {
    let (client, _, task) = connect_to(fn_service(respond)).await;
    (client, task)
}

/// Serves one connection with a service; also returns the socket's handle.
pub(super) async fn connect_to<S>(service: S) -> (TcpStream, Peer, impl Future<Output = ()>)
where
    S: Service<Request, Response = Response<BoxBody>, Error = Error>,
{
    let (client, tcp) = pair().await;
    let (peer, task) = serve_socket(tcp, service);
    (client, peer, task)
}

/// A client's socket, and the gateway's end of it.
pub(super) async fn pair() -> (TcpStream, ClientTcp) {
    let budget = SocketBudget::new("public", 8, IdleLimits { crowded: 8, max: 8 }, &Metrics::new());
    let load = WorkerLoad::of_workers(1).remove(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, address) = listener.accept().await.unwrap();
    let slot = budget.try_slot(&load).unwrap();
    (client, ClientTcp::new(tcp.into_std().unwrap(), address, slot))
}

/// Serves a socket with a service.
pub(super) fn serve_socket<S>(tcp: ClientTcp, service: S) -> (Peer, impl Future<Output = ()>)
where
    S: Service<Request, Response = Response<BoxBody>, Error = Error>,
{
    let peer = tcp.peer();
    let io = Prefixed { held: Default::default(), socket: tcp };
    let shared = testing::context(&[]);
    let context = Rc::new(FrontContext::new(
        &testing::settings(&[]),
        shared.clock.clone(),
        shared.metrics.clone(),
        Default::default(),
    ));
    let (service, socket) = (Rc::new(service), peer.clone());
    let watch = SocketWatch::start().unwrap();
    let task = serve(io, peer, service, context, watch, Instant::now() + super::super::HEAD);
    (socket, task)
}

/// Sends requests, the last of which ends the connection, and reads to the end. The client keeps
/// its side open until then, because a half-close counts as a disconnect.
async fn exchange(text: &str) -> Vec<u8> {
    let (mut client, task) = connect().await;
    let client = async move {
        client.write_all(text.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        read
    };
    let both = async { tokio::join!(client, task).0 };
    tokio::time::timeout(LIMIT, both).await.expect("it ends")
}

/// The heads and bodies of responses with Content-Length.
fn responses(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |text| text.parse().unwrap());
        let body = &bytes[end + 4..end + 4 + length];
        all.push((head, body.to_vec()));
        bytes = &bytes[end + 4 + length..];
    }
    assert!(bytes.is_empty(), "{:?}", String::from_utf8_lossy(bytes));
    all
}

fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
    responses(bytes).into_iter().map(|(_, body)| body).collect()
}

#[actix_web::test]
async fn pipelined_requests_are_answered_in_order() {
    let read = exchange(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
         POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n\
         GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\
         GET /never HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert_eq!(bodies(&read), ["/a", "abcde", "/unread", "/b"].map(|body| body.as_bytes()));
}

#[actix_web::test]
async fn malformed_request_gets_400_and_ends_the_connection() {
    let read = exchange(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
         GET /never HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    let responses = responses(&read);
    assert_eq!(responses.len(), 2);
    assert!(responses[1].0.starts_with("HTTP/1.1 400 ") && responses[1].0.contains("close"));
}

#[actix_web::test]
async fn continue_is_sent_only_if_the_handler_reads() {
    let head = "Host: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let (mut client, task) = connect().await;
    let client = async {
        client.write_all(format!("POST /echo HTTP/1.1\r\n{head}").as_bytes()).await.unwrap();
        let mut interim = [0; 25];
        client.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"abc").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(bodies(&rest), [b"abc"]);
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(client, task) }).await.expect("it ends");
    let read = exchange(&format!("POST /unread HTTP/1.1\r\n{head}")).await;
    assert_eq!(bodies(&read), [b"/unread"]);
}

#[actix_web::test]
async fn large_response_is_written_in_full_to_a_slow_client() {
    let (mut client, task) = connect().await;
    let client = async move {
        let request = "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut read, mut piece) = (Vec::new(), vec![0; 10_000]);
        loop {
            match client.read(&mut piece).await.unwrap() {
                0 => return read,
                count => read.extend_from_slice(&piece[..count]),
            }
            tokio::task::yield_now().await;
        }
    };
    let both = async { tokio::join!(client, task).0 };
    let read = tokio::time::timeout(LIMIT, both).await.expect("it ends");
    assert_eq!(bodies(&read), [large()]);
}

#[actix_web::test]
async fn response_to_head_has_no_body() {
    let read = exchange("HEAD /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let text = String::from_utf8(read).unwrap();
    assert!(text.contains("content-length: 6291456\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

/// The pieces of a body in chunks.
fn chunks(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let (data, rest) = bytes[end + 2..].split_at(size);
        bytes = rest.strip_prefix(b"\r\n").expect("the end of a chunk");
        if size == 0 {
            assert!(bytes.is_empty(), "bytes after the last chunk");
            return all;
        }
        all.push(data.to_vec());
    }
}

#[actix_web::test]
async fn stream_is_sent_in_chunks_and_ends_the_connection() {
    let (mut client, task) = connect().await;
    let client = async move {
        client.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        read
    };
    let both = async { tokio::join!(client, task).0 };
    let read = tokio::time::timeout(LIMIT, both).await.expect("it ends");
    let end = read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(read[..end].windows(28).any(|line| line == b"transfer-encoding: chunked\r\n"));
    assert_eq!(chunks(&read[end..]), [b"one".to_vec(), b"two".to_vec(), large().to_vec()]);
}

#[actix_web::test]
async fn client_that_sends_much_on_a_stream_is_disconnected() {
    let (mut client, task) = connect().await;
    let client = async {
        client.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 16];
        client.read_exact(&mut head).await.unwrap();
        let junk = [b'x'; 4096];
        let mut sent_bytes = 0;
        while client.write_all(&junk).await.is_ok() {
            sent_bytes += junk.len();
            // The socket's buffers are far smaller.
            assert!(sent_bytes < 64 << 20, "the stream accepts any amount");
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(client, task) }).await.expect("it ends");
}
