//! Streams over HTTP/2 with many streams per connection, like the tabs of a browser or the users of
//! a proxy.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Request, header};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio::task::JoinHandle;

use super::http1::{Io, connect};
use super::{ConnectionEnd, Env, StreamReader, StreamState};
use crate::refusal::{BODY_TIMEOUT, MAX_BODY_BYTES, Refusal};

/// Flow-control windows of a stream and of a connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

type Connection = Rc<OnceCell<(SendRequest<Bytes>, Task)>>;

/// HTTP/2 connections by the index of their first stream.
pub struct Connections {
    streams_per_connection: u32,
    connections: RefCell<HashMap<u32, Connection>>,
}

/// Task that is aborted when dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connections {
    /// Creates an empty set; each connection will carry `streams_per_connection` streams.
    pub fn new(streams_per_connection: u32) -> Self {
        Self {
            streams_per_connection: streams_per_connection.max(1),
            connections: RefCell::default(),
        }
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.connections.borrow_mut().clear();
    }

    async fn sender(&self, env: &Env, index: u32) -> Result<SendRequest<Bytes>, String> {
        let first = index / self.streams_per_connection * self.streams_per_connection;
        let cell = self.connections.borrow_mut().entry(first).or_default().clone();
        let (sender, _) = cell.get_or_try_init(|| handshake(env, first)).await?;
        let ready = sender.clone().ready().await;
        ready.map_err(|error| {
            // Removes the broken connection, so that the next attempt opens a new one. A connection
            // that another stream has opened in the meantime must stay: its streams would end with
            // it.
            let mut connections = self.connections.borrow_mut();
            if connections.get(&first).is_some_and(|current| Rc::ptr_eq(current, &cell)) {
                connections.remove(&first);
            }
            error.to_string()
        })
    }
}

async fn handshake(env: &Env, index: u32) -> Result<(SendRequest<Bytes>, Task), String> {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let io = connect(env, index).await.map_err(|error| error.kind().to_string())?;
    let opened = match io {
        Io::Plain(io) => builder.handshake(io).await.map(|(sender, connection)| {
            (sender, tokio::task::spawn_local(async move { drop(connection.await) }))
        }),
        Io::Tls(io) => builder.handshake(io).await.map(|(sender, connection)| {
            (sender, tokio::task::spawn_local(async move { drop(connection.await) }))
        }),
    };
    opened.map(|(sender, task)| (sender, Task(task))).map_err(|error| error.to_string())
}

/// Runs one stream of a connection, from its request to its end.
pub(super) async fn run_connection(
    env: &Env,
    state: &RefCell<StreamState>,
    permit: Option<OwnedSemaphorePermit>,
) -> ConnectionEnd {
    let (mut body, mut reader) = match Box::pin(open(env, state, permit)).await {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    loop {
        if reader.stalled() {
            reader.wait_while_stalled().await;
        }
        match body.data().await {
            None => return ConnectionEnd::Ended,
            Some(Err(error)) => return ConnectionEnd::Failed(error.to_string()),
            Some(Ok(bytes)) => {
                reader.feed(&bytes);
                if let Err(error) = body.flow_control().release_capacity(bytes.len()) {
                    return ConnectionEnd::Failed(error.to_string());
                }
            }
        }
    }
}

async fn open<'a>(
    env: &'a Env,
    state: &'a RefCell<StreamState>,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<(h2::RecvStream, StreamReader<'a>), ConnectionEnd> {
    let target = &env.target;
    let path = env.path(state).await?;
    let index = state.borrow().index;
    let mut sender = env.connections.sender(env, index).await.map_err(ConnectionEnd::Failed)?;
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let mut request = Request::get(format!("{scheme}://{}{path}", target.authority))
        .header(header::ACCEPT, "text/event-stream");
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    let last_event_id = state.borrow().last_event_id(target.kind).to_vec();
    if !last_event_id.is_empty() {
        request = request.header("last-event-id", last_event_id);
    }
    let request = request.body(()).map_err(|error| ConnectionEnd::Failed(error.to_string()))?;
    let failed = |error: h2::Error| ConnectionEnd::Failed(error.to_string());
    let (response, _) = sender.send_request(request, true).map_err(failed)?;
    let (head, body) = response.await.map_err(failed)?.into_parts();
    let event_stream = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if head.status != 200 || !event_stream {
        let mut body_bytes = Vec::new();
        // After a timeout, the part received so far is used.
        let _ = tokio::time::timeout(BODY_TIMEOUT, read_body(body, &mut body_bytes)).await;
        return Err(ConnectionEnd::Refused(Refusal::new(head.status.as_u16(), &body_bytes)));
    }
    Ok((body, StreamReader::start(env, state, permit)))
}

/// Reads the body of a response that is not a stream, up to `MAX_BODY_BYTES`.
async fn read_body(mut body: h2::RecvStream, body_bytes: &mut Vec<u8>) {
    while body_bytes.len() <= MAX_BODY_BYTES
        && let Some(Ok(bytes)) = body.data().await
    {
        body_bytes.extend_from_slice(&bytes);
        let _ = body.flow_control().release_capacity(bytes.len());
    }
}
