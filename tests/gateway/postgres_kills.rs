//! Rows of an outbox arrive exactly once and in order per channel, although gateways, Redis and
//! Postgres are killed meanwhile.

use crate::harness::gateway::Builder;
use crate::harness::{Event, Postgres, Redis, Sse, eventually, eventually_within, user};
use crate::postgres_outbox::with_outbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const CHANNELS: usize = 5;
/// Maximum time to publish what is left at the end.
const LONG: Duration = Duration::from_secs(300);

/// A gateway of the test. Its history has room for all rows.
fn builder(redis: &Redis, postgres: &Postgres) -> Builder {
    with_outbox(redis, postgres)
        .env("HISTORY__MAX_LEN", "100000")
        .env("SERVER__HEARTBEAT", "1s")
        .env("SOURCES__POSTGRES__TIMEOUT", "2s")
}

/// Inserts the rows of one channel, one transaction each. A ledger in the same transaction tells
/// after a failure whether it was committed.
async fn write(postgres: Arc<Postgres>, channel: String, rows: usize, total: Arc<AtomicUsize>) {
    let mut next = 0;
    while next < rows {
        let Ok(client) = postgres.try_client().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let query = "SELECT count(*) FROM ledger WHERE channel = $1";
        let Ok(row) = client.query_one(query, &[&channel]).await else { continue };
        next = row.get::<_, i64>(0) as usize;
        while next < rows {
            let insert = format!(
                "BEGIN; INSERT INTO ledger VALUES ('{channel}', {next});
                 INSERT INTO sse_outbox (channel, type, payload)
                   VALUES ('{channel}', 'row', '{next}'); COMMIT"
            );
            if client.batch_execute(&insert).await.is_err() {
                break;
            }
            next += 1;
            total.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads one channel until its event `end`.
fn read(mut stream: Sse) -> JoinHandle<Vec<Event>> {
    tokio::spawn(async move { stream.until(|event| event.event == "end").await })
}

/// Which process is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Gateway(usize),
    Redis,
    Postgres,
}

/// Kills processes while rows are written, and checks what arrives. `pause` is the number of rows
/// between two kills.
async fn exactly_once(rows: usize, kills: usize, pause: usize, victim: impl Fn(usize) -> Victim) {
    let redis = Redis::start_persistent("always").await;
    let postgres = Arc::new(Postgres::start().await);
    postgres.sql("CREATE TABLE ledger (channel text, n int, PRIMARY KEY (channel, n))").await;
    let builder = builder(&redis, &postgres);
    // The clients stay on this one. It may read the outbox, too.
    let front = builder.start().await;
    let mut gateways = [builder.start().await, builder.start().await];
    let mut readers = Vec::new();
    for n in 0..CHANNELS {
        readers.push(read(front.connect(&n.to_string()).await));
    }
    let total = Arc::new(AtomicUsize::new(0));
    let per_channel = rows / CHANNELS;
    let writers: Vec<_> = (0..CHANNELS)
        .map(|n| {
            let channel = user(&n.to_string());
            tokio::spawn(write(postgres.clone(), channel, per_channel, total.clone()))
        })
        .collect();
    for n in 0..kills {
        let goal = (total.load(Ordering::Relaxed) + pause).min(per_channel * CHANNELS * 9 / 10);
        eventually("more rows", || async { (total.load(Ordering::Relaxed) >= goal).then_some(()) })
            .await;
        let victim = victim(n);
        match victim {
            Victim::Gateway(n) => {
                gateways[n].kill9();
                gateways[n].wait_exit().await;
                gateways[n] = builder.start_unready().await;
            }
            Victim::Redis => {
                redis.stop();
                redis.start_again().await;
            }
            Victim::Postgres => {
                postgres.kill9();
                postgres.start_again().await;
            }
        }
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    eventually_within(LONG, "an empty outbox", || async {
        (postgres.number("SELECT count(*) FROM sse_outbox").await == 0).then_some(())
    })
    .await;
    front.ready().await;
    for n in 0..CHANNELS {
        redis.durable_retried(&user(&n.to_string()), "end", "").await;
    }
    let expected: Vec<_> = (0..per_channel).map(|n| n.to_string()).collect();
    for reader in readers {
        let received = reader.await.expect("a reader");
        let rows = received.into_iter().filter(|event| event.event == "row");
        let numbers: Vec<_> = rows.map(|event| event.data).collect();
        let differs = numbers.iter().zip(&expected).position(|(found, due)| found != due);
        assert_eq!((numbers.len(), differs), (per_channel, None), "{differs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_arrive_once_in_order_despite_kills() {
    let victims = [Victim::Gateway(0), Victim::Postgres, Victim::Redis, Victim::Gateway(1)];
    exactly_once(600, victims.len() * 2, 60, |n| victims[n % victims.len()]).await;
}

/// The acceptance of the outbox: `make test-outbox`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; make test-outbox"]
async fn ten_thousand_rows_arrive_once_despite_random_kills() {
    let victims = [Victim::Gateway(0), Victim::Gateway(1), Victim::Redis, Victim::Postgres];
    let random = |_| victims[fastrand::usize(..victims.len())];
    exactly_once(10_000, 30, 280, random).await;
}

/// Prints the time from the end of a commit to the arrival in a browser. `OUTBOX_LAG_P99_MS` sets
/// the limit of the 99th percentile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a quiet machine; make test-outbox"]
async fn lag_after_commit_is_measured() {
    const ROWS: usize = 1000;
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let gateway = builder(&redis, &postgres).start().await;
    let mut stream = gateway.connect("1").await;
    let client = postgres.client().await;
    let mut lags = Vec::new();
    for n in 0..ROWS {
        let insert =
            format!("INSERT INTO sse_outbox (channel, payload) VALUES ('user:1:events', '{n}')");
        client.batch_execute(&insert).await.expect("a commit");
        let committed = Instant::now();
        assert_eq!(stream.app_event().await.data, n.to_string());
        lags.push(committed.elapsed());
        // Not in step with the polls.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(..20_000))).await;
    }
    lags.sort();
    let ms = |part: f64| lags[(part * ROWS as f64) as usize].as_secs_f64() * 1000.0;
    let (half, most, max) = (ms(0.5), ms(0.99), ms(0.999));
    println!("lag after commit: p50 {half:.2} ms, p99 {most:.2} ms, p99.9 {max:.2} ms");
    let limit = std::env::var("OUTBOX_LAG_P99_MS").ok().and_then(|text| text.parse().ok());
    assert!(most < limit.unwrap_or(f64::INFINITY), "p99 {most:.2} ms");
}
