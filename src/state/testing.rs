//! Parts of the state layer for unit tests.

use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
    rc::Rc,
    sync::Arc,
    task::Waker,
};

use super::{
    client::{Client, Session},
    client_liveness::{ClientLiveness, Progress},
    clock::Clock,
    connection::{Connection, Parts},
    limits::Limits,
    stream_context::{StreamContext, StreamSettings},
};
use crate::{
    core::{
        channel::Channel,
        event::Event,
        id::{EventId, StreamPosition},
        part::Part,
        topics::Topics,
        transport::Transport,
    },
    metrics::Metrics,
    settings::{self, Settings},
};

/// Default settings, except for `changes`: variables without their prefix.
pub fn settings(changes: &[(&str, &str)]) -> Arc<Settings> {
    let secret = ("TICKETS__SECRET", "0123456789abcdef0123456789abcdef");
    let variables = [secret].into_iter().chain(changes.iter().copied());
    let variables =
        variables.map(|(name, value)| (format!("SSE_GATEWAY__{name}"), value.to_owned()));
    Arc::new(settings::load(None, variables).expect("the settings are valid"))
}

/// What hubs and connections need, with [`settings`].
pub fn context(changes: &[(&str, &str)]) -> Arc<StreamContext> {
    let settings = settings(changes);
    Arc::new(StreamContext {
        clock: Arc::new(Clock::new()),
        metrics: Arc::new(Metrics::new()),
        limits: Arc::new(Limits::new(&settings.limits)),
        settings: StreamSettings::new(&settings),
        sightings: Arc::default(),
        presence: settings.presence.enabled.then(Arc::default),
    })
}

/// An id at that time.
pub fn id(ms: u64) -> EventId {
    EventId { epoch: 0, ms, seq: 0 }
}

/// An event of a channel, whose data is its time.
pub fn event(channel: &str, ms: u64, predecessor_ms: u64) -> Arc<Event> {
    let channel = Channel::parse(channel).expect("a channel");
    Arc::new(Event::new(id(ms), id(predecessor_ms), channel, None, "t", &ms.to_string()))
}

/// A client of the session with that digest and generation.
pub fn client(user: &str, topics: &[&str], digest: &str, generation: u64) -> Client {
    let session = Session {
        user: user.into(),
        digest: digest.to_owned(),
        first: StreamPosition::ZERO,
        opened_ms: 1000,
        until_ms: u64::MAX,
        proof: String::new(),
        generation,
    };
    let topics = Topics::parse(topics.iter().copied()).expect("topics");
    let (id, request_id) = (digest.to_owned(), "r".into());
    let session = Some(session);
    Client { session, topics, filter: None, id, transport: Transport::Stream, request_id }
}

/// A client without a ticket.
pub fn anonymous(topics: &[&str]) -> Client {
    Client { session: None, ..client("", topics, "anonymous", 1) }
}

/// A client without known progress, which can be disconnected.
#[derive(Clone, Default)]
pub struct TestClient {
    /// Whether it was disconnected.
    pub is_disconnected: Rc<Cell<bool>>,
    /// What was written to it at once, by call; `None`: it takes nothing.
    pub written: Option<Rc<RefCell<Vec<String>>>>,
    /// See [`ClientLiveness::has_stall_timer`].
    pub has_stall_timer: bool,
}

impl ClientLiveness for TestClient {
    fn progress(&self) -> Option<Progress> {
        None
    }

    fn write_now(&self, chunks: &[u8]) -> bool {
        let text = || String::from_utf8(chunks.to_vec()).expect("UTF-8");
        self.written.iter().for_each(|written| written.borrow_mut().push(text()));
        self.written.is_some()
    }

    fn set_live(&self) {}

    fn resume_writer(&self) {}

    fn has_stall_timer(&self) -> bool {
        self.has_stall_timer
    }

    fn disconnect(&self) -> bool {
        !self.is_disconnected.replace(true)
    }
}

/// A connection that no hub knows yet, before its catch-up from 0-0.
pub fn connection(
    context: &Arc<StreamContext>,
    client: Client,
    test_client: TestClient,
) -> Rc<Connection> {
    Connection::new(parts(context, client, test_client))
}

/// The parts of [`connection`].
pub fn parts(context: &Arc<StreamContext>, client: Client, test_client: TestClient) -> Parts {
    let connections = &context.limits.connections;
    let permit = match &client.session {
        Some(session) => connections.enter(&session.user, Some(&session.digest)),
        None => connections.enter_anonymous(Ipv4Addr::LOCALHOST.into()),
    };
    Parts {
        context: context.clone(),
        permit: permit.unwrap_or_else(|reason| panic!("{}", reason.name())),
        client,
        cursor: Some(StreamPosition::ZERO),
        cursor_text: None,
        liveness: Box::new(test_client),
    }
}

/// Makes a connection live at 0-0.
pub fn make_live(connection: &Connection) {
    connection.set_head("".into());
    for part in connection.parts(Part::Whole) {
        connection.begin_catch_up(part);
        connection.finish_catch_up(part, EventId::ZERO);
    }
    connection.poll_bytes(Waker::noop()).is_ready();
}

/// Everything that a writer can take now.
pub fn written(connection: &Connection) -> String {
    let mut text = String::new();
    while let std::task::Poll::Ready(Some(bytes)) = connection.poll_bytes(Waker::noop()) {
        text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
    }
    text
}
