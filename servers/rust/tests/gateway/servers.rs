//! The servers of `servers/harness/run.js`, and what a gateway delivers.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use serde_json::Value;
use sse_gateway_backend::{Error, Settings, SseGateway};

pub fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is missing: run `servers/harness/test rust`"))
}

/// A connection to the server that a variable names.
pub fn connect(variable: &str) -> redis::Connection {
    let client = redis::Client::open(var(variable)).expect("a URL");
    client.get_connection().expect("a connection")
}

pub fn settings() -> Settings {
    Settings { secret: Some(var("TICKET_SECRET").into_bytes()), ..Settings::default() }
}

pub fn gateway() -> SseGateway {
    SseGateway::new(settings()).expect("valid settings")
}

pub fn user() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Whether the text has the form of an event id.
pub fn is_id(text: &str) -> bool {
    text.split_once('.').is_some_and(|(position, epoch)| {
        position.split('-').all(|number| number.parse::<u64>().is_ok()) && !epoch.is_empty()
    })
}

/// Checks the error of a call that must fail.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: &str, is_retriable: bool) {
    let error = result.expect_err(code);
    assert_eq!((error.code(), error.is_retriable()), (code, is_retriable), "{error}");
}

/// Reads the stream of a ticket from now on.
pub struct Stream {
    lines: BufReader<TcpStream>,
    pub connected: Value,
}

impl Stream {
    pub fn open(variable: &str, ticket: &str) -> Self {
        let url = var(variable);
        let address = url.strip_prefix("http://").expect("a URL");
        let mut socket = TcpStream::connect(address).expect("a gateway");
        write!(socket, "GET /events?ticket={ticket} HTTP/1.0\r\nhost: test\r\n\r\n").expect("sent");
        let mut stream = Self { lines: BufReader::new(socket), connected: Value::Null };
        assert!(stream.line().contains(" 200 "));
        while !stream.line().is_empty() {}
        stream.connected = serde_json::from_str(&stream.next_event()["data"]).expect("JSON");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).expect("a line"), 0, "the stream ended");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The lines of the next event.
    pub fn next_event(&mut self) -> HashMap<String, String> {
        loop {
            let mut event = HashMap::new();
            loop {
                let line = self.line();
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
                event.insert(name.to_owned(), value.to_owned());
            }
            if event.get("event").is_some_and(|name| name != "sse.heartbeat") {
                return event;
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self, name: &str, data: &str, id: &str) {
        let event = self.next_event();
        let member = |name: &str| event.get(name).map_or("", String::as_str);
        assert_eq!((member("event"), member("data"), member("id")), (name, data, id));
    }
}
