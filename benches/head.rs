//! The head of a request. Needs the feature `fuzzing`, which exports the parser.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sse_gateway::fuzzing::http1::parse;

const BROWSER: &str = "GET /events?ticket=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl \
    HTTP/1.1\r\nHost: events.example.com\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36\r\n\
    Origin: https://app.example.com\r\nReferer: https://app.example.com/\r\n\
    Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
    Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCache-Control: no-cache\r\n\
    Last-Event-ID: 1763719000456-7\r\n\r\n";
const MINIMAL: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    for (name, text) in [("of a browser", BROWSER), ("minimal", MINIMAL)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            let held = || BytesMut::from(text);
            let parsed = |held: &mut BytesMut| parse(held).is_ok_and(|head| head.is_some());
            assert!(parsed(&mut held()));
            b.iter_batched_ref(held, parsed, BatchSize::SmallInput)
        });
    }
}

criterion_group!(benches, head);
criterion_main!(benches);
