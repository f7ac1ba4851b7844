//! Limits, memory, source addresses, output files, pipes and exit statuses of the tool. Tested with
//! the yardsticks, which have no further dependencies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

const TOOL: &str = env!("CARGO_BIN_EXE_loadtest");
const ACTIX: &str = env!("CARGO_BIN_EXE_yardstick-actix");
const SEND: &str = env!("CARGO_BIN_EXE_yardstick-send");

/// Running yardstick, stopped when dropped.
struct Yardstick {
    child: Child,
    address: String,
}

impl Yardstick {
    /// Starts a yardstick with the maximum number of open files.
    fn start(binary: &str) -> Self {
        let line = r#"ulimit -n "$(ulimit -Hn)"; exec "$0""#;
        let mut child =
            Command::new("sh").args(["-c", line, binary]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().strip_prefix("listening on ").unwrap().to_owned() }
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the tool with space-separated options and a short settle time.
fn tool(url: &str, options: &str) -> Command {
    let mut tool = Command::new(TOOL);
    tool.args(options.split(' ').take(1))
        .args(["--kind", "plain", "--settle", "200ms", "--url", url]);
    tool.args(options.split(' ').skip(1));
    tool
}

/// Returns report, exit status and standard error.
fn read(output: Output) -> (Value, i32, String) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (
        report,
        output.status.code().expect("an exit status"),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

#[test]
fn yardsticks_deliver_everything() {
    for binary in [ACTIX, SEND] {
        let server = Yardstick::start(binary);
        let publish = format!("http://{}/publish", server.address);
        let load = format!(
            "broadcast -n 20 --rate 40 --duration 1s --publish post --publish-url {publish} \
             --json -"
        );
        let (report, status, error) = read(tool(&server.url(), &load).output().unwrap());
        assert_eq!(status, 0, "{error}");
        let load = &report["load"];
        assert!(number(&load["expected"]) >= 20 * 10, "{binary}: {load:#}");
        assert_eq!(load["delivered"], load["expected"], "{binary}");
        assert_eq!((&load["doubled"], &load["out_of_order"]), (&0.into(), &0.into()), "{binary}");
    }
}

#[test]
fn unwritable_output_file_fails_before_the_run() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let url = format!("http://{}/events", server.local_addr().unwrap());
    let (_, status, error) =
        read(tool(&url, "idle -n 1 --json /dev/null/report.json").output().unwrap());
    assert_eq!(status, 2);
    assert!(error.contains("--json /dev/null/report.json"), "{error}");
    assert_eq!(
        server.accept().unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "a stream was opened before the error"
    );

    let mut bench = Command::new(TOOL);
    bench.args(["bench", "--quick", "--servers", "send-loop", "--out", "/dev/null/bench"]);
    let (_, status, error) = read(bench.output().unwrap());
    assert_eq!(status, 2);
    assert!(error.contains("--out /dev/null/bench") && !error.contains("round 1"), "{error}");
}

#[test]
fn closed_pipe_does_not_change_exit_status() {
    let server = Yardstick::start(ACTIX);
    let run = "idle -n 2 --duration 100ms";
    for (options, expected) in [("", 0), (" --json -", 0), (" --min-held 3", 1)] {
        let mut tool = tool(&server.url(), &format!("{run}{options}"));
        let mut child = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let (_, status, error) = read(child.wait_with_output().unwrap());
        assert_eq!((status, error.as_str()), (expected, ""), "{options}");
    }
    let mut tool = tool("ftp://127.0.0.1/", run);
    let mut child = tool.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn too_few_open_files_report_working_advice() {
    let server = Yardstick::start(ACTIX);
    let limited = |files: u32, streams: u32| {
        let line = format!(
            r#"ulimit -n {files}
            exec "$0" idle --kind plain --url {} -n {streams} --json - \
                --settle 100ms --duration 100ms"#,
            server.url()
        );
        read(Command::new("sh").args(["-c", &line, TOOL]).output().unwrap())
    };
    let (_, status, error) = limited(150, 1000);
    assert_eq!(status, 2);
    assert!(error.contains("`ulimit -n 1100`") && error.contains("(--streams 50)"), "{error}");
    let (report, status, error) = limited(150, 50);
    assert_eq!((status, &report["streams"]["held"]), (0, &50.into()), "{error}");
    let (_, status, error) = limited(80, 10);
    assert_eq!(status, 2);
    assert!(error.contains("`ulimit -n 110`") && !error.contains("--streams"), "{error}");
}

#[test]
fn streams_beyond_one_source_address_use_several() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let sources: Arc<Mutex<BTreeMap<IpAddr, u32>>> = Arc::default();
    let seen = sources.clone();
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for mut socket in listener.incoming().map_while(Result::ok) {
            *seen.lock().unwrap().entry(socket.peer_addr().unwrap().ip()).or_default() += 1;
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
            streams.push(socket);
        }
    });
    let run = "idle -n 5 --streams-per-source 2 --duration 100ms --json -";
    let (report, status, error) = read(tool(&url, run).output().unwrap());
    assert_eq!((status, &report["streams"]["held"]), (0, &5.into()), "{error}");
    let sources: Vec<(String, u32)> = sources
        .lock()
        .unwrap()
        .iter()
        .map(|(source, count)| (source.to_string(), *count))
        .collect();
    let expected = [("127.0.0.1", 2), ("127.0.0.2", 2), ("127.0.0.3", 1)];
    assert_eq!(sources, expected.map(|(source, count)| (source.to_owned(), count)));
}

/// One-time costs (buffers, histograms) are in both runs and cancel out.
#[test]
fn idle_stream_costs_the_tool_one_kibibyte() {
    const FEW: u64 = 500;
    const MANY: u64 = 2500;
    let server = Yardstick::start(ACTIX);
    let bytes = |streams: u64| {
        let run = format!("idle -n {streams} --duration 100ms --json -");
        let (report, status, error) = read(tool(&server.url(), &run).output().unwrap());
        assert_eq!(status, 0, "{error}");
        number(&report["memory"]["tool_bytes_per_stream"]) * streams
    };
    let each = (bytes(MANY) - bytes(FEW)) / (MANY - FEW);
    // Less than the size of `StreamState` and its task would be a measuring error.
    assert!((200..=1048).contains(&each), "{each} bytes a stream");
}
