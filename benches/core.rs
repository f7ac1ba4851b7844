//! The pure core: encoder, envelope, live messages, and the state of one stream.

use std::{hint::black_box, rc::Rc, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sse_gateway::core::{
    channel::Channel, envelope, event::Event, frame, id::EventId, part::Part, queue::Item,
    stream_state::StreamState,
};

const ID: EventId = EventId { epoch: 0, ms: 1_763_719_000_456, seq: 7 };
const PAYLOAD: &str = r#"{"orderId":7,"state":"completed","items":[1,2,3],"note":"thank you"}"#;

fn encoder(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let lines = "a line of text\n".repeat(64);
    let large = "x".repeat(64 << 10);
    for (name, data) in [("68 bytes", PAYLOAD), ("64 lines", &lines), ("64 KiB", &large)] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| frame::encode(None, Some(ID), "order-completed", black_box(data)))
        });
    }
}

fn decoders(c: &mut Criterion) {
    let message = format!(r#"{{"type":"order-completed","payload":{PAYLOAD},"id":"key-7"}}"#);
    c.bench_function("envelope/object", |b| {
        b.iter(|| envelope::decode(black_box(message.as_bytes()), 1 << 16))
    });
    c.bench_function("envelope/text", |b| {
        b.iter(|| envelope::decode(black_box(b"plain text"), 1 << 16))
    });
    let live =
        format!("1763719000456-7.k3f9x2 1763719000455-0.k3f9x2 - news order-completed\n{PAYLOAD}");
    c.bench_function("live message", |b| {
        b.iter(|| Event::from_live(None, black_box(live.as_bytes())))
    });
}

fn stream_state(c: &mut Criterion) {
    let channel = Channel::parse("broadcast:news").expect("a channel");
    let event = |n: u64| {
        let id = |ms| EventId { epoch: 0, ms, seq: 0 };
        Item::Event(Arc::new(Event::new(id(n), id(n - 1), channel.clone(), None, "t", PAYLOAD)))
    };
    let events: Vec<Item> = (1..=100).map(event).collect();
    let live = || {
        let mut state = StreamState::new(EventId::ZERO, 1 << 20, Rc::new(Vec::new()));
        state.begin_catch_up(Part::Whole);
        state.finish_catch_up(Part::Whole, EventId::ZERO);
        state
    };
    let mut group = c.benchmark_group("stream state");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("offer and take, one at a time", |b| {
        b.iter_batched_ref(
            live,
            |state| {
                for event in &events {
                    state.offer(event);
                    black_box(state.take());
                }
            },
            criterion::BatchSize::SmallInput,
        )
    });
    group.bench_function("offer 100, then take 100", |b| {
        b.iter_batched_ref(
            live,
            |state| {
                for event in &events {
                    state.offer(event);
                }
                while let Some(frame) = state.take() {
                    black_box(frame);
                }
            },
            criterion::BatchSize::SmallInput,
        )
    });
}

criterion_group!(benches, encoder, decoders, stream_state);
criterion_main!(benches);
