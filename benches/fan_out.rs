//! One broadcast to all streams of one worker: mailbox, hub, stream states, and writers.

use std::{
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sse_gateway::{
    core::{
        channel::Channel,
        event::Event,
        id::{EventId, StreamPosition},
        part::{Part, ServerIndex},
        topics::Topics,
        transport::Transport,
    },
    metrics::Metrics,
    settings,
    state::{
        client::{Client, Session},
        client_liveness::{ClientLiveness, Progress},
        clock::Clock,
        connection::{Connection, Parts},
        delivery::Delivery,
        hub::{Hub, HubRequests},
        limits::Limits,
        stream_context::{StreamContext, StreamSettings},
    },
};
use tokio::task::LocalSet;

/// A client that acknowledges everything at once.
struct Reader;

impl ClientLiveness for Reader {
    fn progress(&self) -> Option<Progress> {
        Some(Progress { acknowledged_bytes: 0, is_outstanding: false })
    }

    fn write_now(&self, _: &[u8]) -> bool {
        false
    }

    fn set_live(&self) {}

    fn resume_writer(&self) {}

    fn has_stall_timer(&self) -> bool {
        false
    }

    fn disconnect(&self) -> bool {
        true
    }
}

const REPLAY_CACHE_BYTES: usize = 16 << 20;

fn context() -> Arc<StreamContext> {
    let variables = [
        ("SSE_GATEWAY__TICKETS__SECRET", "0123456789abcdef0123456789abcdef"),
        ("SSE_GATEWAY__LIMITS__MAX_CONNECTIONS", "100000"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = settings::load(None, variables.into_iter()).expect("valid settings");
    Arc::new(StreamContext {
        clock: Arc::new(Clock::new()),
        metrics: Arc::new(Metrics::new()),
        limits: Arc::new(Limits::new(&settings.limits)),
        settings: StreamSettings::new(&settings),
        presence: None,
        sightings: Arc::default(),
    })
}

fn live_connection(context: &Arc<StreamContext>, hub: &Hub, number: usize) -> Rc<Connection> {
    let user: Arc<str> = format!("user-{number}").into();
    let digest = format!("{number:064x}").chars().rev().collect::<String>();
    let session = Session {
        user: user.clone(),
        digest: digest.clone(),
        first: StreamPosition::ZERO,
        opened_ms: 0,
        until_ms: u64::MAX,
        proof: String::new(),
        generation: 1,
    };
    let Ok(permit) = context.limits.connections.enter(&user, Some(&digest)) else {
        panic!("more streams than the limit of connections");
    };
    let topics = Topics::parse(["*"].into_iter()).expect("topics");
    let connection = Connection::new(Parts {
        context: context.clone(),
        client: Client {
            session: Some(session),
            topics,
            filter: None,
            id: digest,
            transport: Transport::Stream,
            request_id: "r".into(),
        },
        cursor: Some(StreamPosition::ZERO),
        cursor_text: None,
        permit,
        liveness: Box::new(Reader),
    });
    hub.add(&connection);
    connection.begin_catch_up(Part::Whole);
    connection.finish_catch_up(Part::Whole, EventId::ZERO);
    connection
}

/// A worker with its streams.
struct Worker {
    delivery: Arc<Delivery>,
    connections: Vec<Rc<Connection>>,
    _requests: HubRequests,
    last: u64,
}

impl Worker {
    fn new(streams: usize) -> Self {
        let context = context();
        let delivery = Arc::new(Delivery::new(REPLAY_CACHE_BYTES));
        let inbox = delivery.mailboxes.open();
        let (hub, requests) = Hub::new(context.clone(), delivery.clone(), &inbox, &[]);
        let connections = (0..streams).map(|n| live_connection(&context, &hub, n)).collect();
        tokio::task::spawn_local(hub.run(inbox));
        Self { delivery, connections, _requests: requests, last: 0 }
    }

    /// Publishes one event and returns when every stream has taken it.
    async fn deliver(&mut self) {
        let id = |ms| EventId { epoch: 0, ms, seq: 0 };
        let channel = Channel::parse("broadcast:news").expect("a channel");
        self.last += 1;
        let event =
            Event::new(id(self.last), id(self.last - 1), channel, None, "t", "{\"orderId\":7}");
        self.delivery.mailboxes.send_event(ServerIndex(0), &Arc::new(event), None);
        for connection in &self.connections {
            while connection.poll_bytes(Waker::noop()).is_pending() {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn fan_out(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = c.benchmark_group("fan-out");
    for streams in [1, 100, 10_000] {
        group.throughput(Throughput::Elements(streams as u64));
        group.bench_function(BenchmarkId::from_parameter(streams), |b| {
            b.iter_custom(|rounds| {
                let measured = async {
                    let mut worker = Worker::new(streams);
                    worker.deliver().await;
                    let began = Instant::now();
                    for _ in 0..rounds {
                        worker.deliver().await;
                    }
                    began.elapsed().max(Duration::from_nanos(1))
                };
                LocalSet::new().block_on(&runtime, measured)
            })
        });
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
