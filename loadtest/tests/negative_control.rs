//! Negative control: an SSE server injects a known number of faults, and the tool must report
//! exactly these. A tool that misses faults here would miss them anywhere.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

/// Streams per run. About 80 events are published (40/s for 2 s); the report contains the exact
/// number.
const STREAMS: usize = 6;
/// The server backdates delayed events: exact, however busy the machine is.
const DELAY_NS: u64 = 60 * 1_000_000_000;
/// No event is this late for any other reason.
const LATE: &str = "30s";
const LATE_MS: f64 = 30_000.0;

/// Action of the server for an event on a stream.
#[derive(Clone, Copy, PartialEq)]
enum Action {
    Pass,
    Drop,
    Duplicate,
    /// Holds the event back until the next one has been sent.
    Swap,
    Delay,
    /// Sends an event that is not from this run.
    Foreign,
    /// Ends the stream instead of sending the event.
    End,
    /// The same with a TCP reset.
    Reset,
}

/// Number of the opening of a stream, before the first event. Only `Action::End` applies.
const OPENING: u64 = 0;

type Plan = fn(stream: usize, number: u64) -> Action;

#[test]
fn correct_server_has_no_faults() {
    let (report, status) = run(
        |_, _| Action::Pass,
        &["--max-lost", "0", "--max-doubled", "0", "--max-out-of-order", "0", "--max-p99", LATE],
    );
    let load = &report["load"];
    assert_eq!(counts(load), (0, 0, 0), "{load}");
    assert_eq!(load["delivered"], load["expected"]);
    assert_eq!(load["expected"], number(&load["published"]["published"]) * STREAMS as u64);
    assert_eq!((status, &report["violations"]), (0, &serde_json::json!([])));
}

#[test]
fn lost_events_are_counted() {
    let (report, status) = run(
        |stream, number| if number <= 3 && stream < 2 { Action::Drop } else { Action::Pass },
        &["--max-lost", "5"],
    );
    let load = &report["load"];
    assert_eq!(counts(load), (6, 0, 0), "{load}");
    assert_eq!(number(&load["expected"]) - number(&load["delivered"]), 6);
    assert_eq!(status, 1);
    assert!(report["violations"][0].as_str().unwrap().contains("lost"), "{report}");
}

#[test]
fn lost_events_at_the_end_are_counted() {
    // Drops all events after the 20th on one stream: no later event reveals the hole.
    let (report, _) = run(
        |stream, number| if stream == 3 && number > 20 { Action::Drop } else { Action::Pass },
        &[],
    );
    let published = number(&report["load"]["published"]["published"]);
    assert!(published > 20);
    assert_eq!(counts(&report["load"]), (published - 20, 0, 0));
}

#[test]
fn duplicate_events_are_counted() {
    let (report, status) = run(
        |stream, number| if stream == 1 && number <= 4 { Action::Duplicate } else { Action::Pass },
        &["--max-doubled", "3"],
    );
    assert_eq!(counts(&report["load"]), (0, 4, 0), "{report}");
    assert_eq!(report["load"]["delivered"], report["load"]["expected"]);
    assert_eq!(status, 1);
}

#[test]
fn swapped_events_are_counted() {
    let swap = |stream, number| {
        if stream == 2 && (number == 5 || number == 9) { Action::Swap } else { Action::Pass }
    };
    let (report, status) = run(swap, &["--max-out-of-order", "1"]);
    assert_eq!(counts(&report["load"]), (0, 0, 2), "{report}");
    assert_eq!(status, 1);
}

#[test]
fn delayed_events_appear_in_the_quantiles() {
    let (report, status) = run(
        |_, number| if number % 20 == 5 { Action::Delay } else { Action::Pass },
        &["--max-p99", LATE],
    );
    let load = &report["load"];
    assert_eq!(counts(load), (0, 0, 0), "{load}");
    let times = &load["latency"];
    // One in twenty affects p99, but not p90.
    let ms = |name: &str| times[name].as_f64().unwrap();
    assert!(
        ms("max_ms") >= 60_000.0 && ms("p99_ms") >= 60_000.0 && ms("p90_ms") < LATE_MS,
        "{times}"
    );
    assert_eq!(status, 1);
}

#[test]
fn simultaneous_faults_are_distinguished() {
    let plan: Plan = |stream, number| match (stream, number) {
        (0, 2 | 7) => Action::Drop,
        (1, 3) | (5, 4) => Action::Duplicate,
        (2, 6) => Action::Swap,
        _ => Action::Pass,
    };
    assert_eq!(counts(&run(plan, &[]).0["load"]), (2, 2, 1));
}

#[test]
fn foreign_events_are_not_deliveries() {
    let (report, _) = run(
        |stream, number| if stream == 4 && number <= 3 { Action::Foreign } else { Action::Pass },
        &[],
    );
    let load = &report["load"];
    assert_eq!((counts(load), number(&load["foreign"])), ((3, 0, 0), 3), "{load}");
}

#[test]
fn broken_and_reopened_streams_are_counted() {
    let (report, status) = run(
        |stream, number| match (stream, number) {
            (0 | 3, 5) => Action::End,
            (4, 9) => Action::Reset,
            // The first of the reopened streams breaks again.
            (6, OPENING) => Action::End,
            _ => Action::Pass,
        },
        // The wait ends when all have what they missed: afterwards, all streams are open again.
        &["--drain", "60s", "--max-lost", "0", "--max-broken", "3"],
    );
    assert_eq!(counts(&report["load"]), (0, 0, 0), "{report:#}");
    assert_eq!(breaks(&report), (4, 4, STREAMS as u64), "{report:#}");
    assert_eq!(
        (status, &report["violations"][0]),
        (1, &"broken streams: 4.000, allowed 3.000".into())
    );
}

#[test]
fn broken_streams_that_stay_away_are_counted() {
    let address = start(|stream, number| match (stream, number) {
        (1, 20) => Action::End,
        _ => Action::Pass,
    });
    let publish = format!("http://{address}/publish");
    let (report, _, error) = tool(
        &format!("http://{address}/events/once"),
        &["--publish", "post", "--publish-url", &publish, "--duration", "2s", "--rate", "40"],
    );
    assert_eq!(breaks(&report), (1, 0, STREAMS as u64 - 1), "{error}{report:#}");
    let published = number(&report["load"]["published"]["published"]);
    assert!(published >= 20, "{report:#}");
    assert_eq!(counts(&report["load"]), (published - 19, 0, 0));
}

#[test]
fn streams_that_the_tool_disconnects_are_not_broken() {
    let address = start(|_, _| Action::Pass);
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["storm", "--kind", "plain", "--url", &format!("http://{address}/events")])
        .args(["--publish", "post", "--publish-url", &format!("http://{address}/publish")])
        .args(["-n", &STREAMS.to_string(), "--duration", "1s", "--away", "200ms", "--json", "-"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts(&report["load"]), (0, 0, 0), "{report:#}");
    assert_eq!(report["storm"]["caught_up"], STREAMS);
    assert_eq!(breaks(&report), (0, 0, STREAMS as u64), "{report:#}");
}

#[test]
fn unreachable_or_refusing_server_is_reported() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_, status, error) =
        tool(&format!("http://{free}/events"), &["--publish", "none", "--connect-timeout", "3s"]);
    assert_eq!(status, 2);
    assert!(error.contains("0 of 6 streams") && error.contains("connection refused"), "{error}");

    let address = start(|_, _| Action::Pass);
    let (_, status, error) = tool(
        &format!("http://{address}/nowhere"),
        &["--publish", "none", "--connect-timeout", "20s"],
    );
    assert_eq!(status, 2);
    assert!(
        error.contains(
            "the first 6 connection attempts were all refused permanently; first refusal: 404"
        ),
        "{error}"
    );
}

/// Returns (lost, duplicated, out of order).
fn counts(load: &Value) -> (u64, u64, u64) {
    (number(&load["lost"]), number(&load["doubled"]), number(&load["out_of_order"]))
}

/// Returns the numbers of (broken, reopened, open) streams.
fn breaks(report: &Value) -> (u64, u64, u64) {
    let streams = &report["streams"];
    (number(&streams["broken"]), number(&streams["reopened"]), number(&streams["held"]))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// Returns report and exit status of a run against a server with this plan.
fn run(plan: Plan, options: &[&str]) -> (Value, i32) {
    let address = start(plan);
    let publish = format!("http://{address}/publish");
    let mut all =
        vec!["--publish", "post", "--publish-url", &publish, "--duration", "2s", "--rate", "40"];
    all.extend(options);
    let (report, status, error) = tool(&format!("http://{address}/events"), &all);
    assert_ne!(status, 2, "{error}");
    (report, status)
}

fn tool(url: &str, options: &[&str]) -> (Value, i32, String) {
    let drain: &[&str] = if options.contains(&"--drain") { &[] } else { &["--drain", "5s"] };
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["broadcast", "--kind", "plain", "--url", url, "-n", &STREAMS.to_string()])
        .args(["--settle", "200ms", "--json", "-"])
        .args(drain)
        .args(options)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (report, output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Streams and events of the server.
#[derive(Default)]
struct Shared {
    /// Streams in order of arrival.
    streams: Vec<TcpStream>,
    /// Events in order of `POST /publish`, with their numbers.
    log: Vec<(u64, String)>,
}

/// Starts an SSE server with planned faults. Streams are numbered in order of arrival; events are
/// sent in order of `POST /publish`. A stream with a last event id gets the later events first;
/// `/events/once` refuses it.
fn start(plan: Plan) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shared: Arc<Mutex<Shared>> = Arc::default();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let shared = shared.clone();
            std::thread::spawn(move || serve(socket, &shared, plan));
        }
    });
    address
}

fn serve(mut socket: TcpStream, shared: &Mutex<Shared>, plan: Plan) {
    // Events held back per stream until the next one has been sent.
    let mut kept: HashMap<usize, String> = HashMap::new();
    while let Some((head, body)) = request(&mut socket) {
        let last_id = head.lines().find_map(|line| line.strip_prefix("Last-Event-ID: "));
        let is_refused = head.starts_with("GET /events/once") && last_id.is_some();
        if head.starts_with("GET /events") && !is_refused {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
            socket.write_all(head).unwrap();
            open(&mut shared.lock().unwrap(), socket, last_id, plan);
            return;
        }
        if !head.starts_with("POST /publish") {
            let _ = socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        let event: Value = serde_json::from_str(&body).unwrap();
        let number = event["n"].as_u64().unwrap_or_default();
        let mut shared = shared.lock().unwrap();
        shared.log.push((number, body.clone()));
        for (index, stream) in shared.streams.iter_mut().enumerate() {
            let action = plan(index, number);
            match action {
                Action::Drop => {}
                Action::Swap => drop(kept.insert(index, body.clone())),
                Action::Delay => {
                    let due = event["t"].as_u64().unwrap();
                    send(
                        stream,
                        number,
                        &body.replace(&due.to_string(), &due.saturating_sub(DELAY_NS).to_string()),
                    );
                }
                Action::Foreign => send(stream, number, r#"{"somebody":"else"}"#),
                Action::Pass | Action::Duplicate => send(stream, number, &body),
                Action::End => end(stream),
                Action::Reset => {
                    let socket = SockRef::from(&*stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    // The placeholder accepts nothing either.
                    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
                    *stream = TcpStream::connect(closed.local_addr().unwrap()).unwrap();
                }
            }
            if action == Action::Duplicate {
                send(stream, number, &body);
            }
            if action != Action::Swap
                && let Some(late) = kept.remove(&index)
            {
                send(stream, number, &late);
            }
        }
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
}

/// Sends what a stream has missed and adds it to the others.
fn open(shared: &mut Shared, mut socket: TcpStream, last_id: Option<&str>, plan: Plan) {
    if plan(shared.streams.len(), OPENING) == Action::End {
        end(&mut socket);
    } else {
        let latest = shared.log.last().map_or(0, |(number, _)| *number);
        let last_id = last_id.map_or(latest, |id| id.parse().unwrap());
        let start = format!("retry: 20\nid: {last_id}\n\n");
        write!(socket, "{:x}\r\n{start}\r\n", start.len()).unwrap();
        for (number, missed) in shared.log.iter().filter(|(number, _)| *number > last_id) {
            send(&mut socket, *number, missed);
        }
    }
    shared.streams.push(socket);
}

/// Ends a stream like a server that closes it.
fn end(stream: &mut TcpStream) {
    stream.write_all(b"0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
}

fn send(stream: &mut TcpStream, number: u64, body: &str) {
    let event = format!("id: {number}\nevent: load\ndata: {body}\n\n");
    let _ = write!(stream, "{:x}\r\n{event}\r\n", event.len());
}

/// Returns the head and the body of a request, or `None` if the connection is closed.
fn request(socket: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        let mut piece = [0; 4096];
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}
