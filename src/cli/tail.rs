//! `tail`: a terminal client that reconnects and resumes like a browser's EventSource.

use std::{process::ExitCode, time::Duration};

use futures_util::StreamExt;
use reqwest::{Client, StatusCode, header};
use secrecy::ExposeSecret;

use super::args::TailArgs;
use crate::backoff::Backoff;
use crate::core::parser::{Parsed, Parser};
use crate::error_chain::ErrorChain;

/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// The delay after a stream without `retry:`.
const RECONNECT: Duration = Duration::from_secs(2);

/// Prints a stream until it is refused or interrupted.
pub fn tail(args: &TailArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(follow(args));
    eprintln!("{}", ErrorChain(&end));
    ExitCode::FAILURE
}

/// Why `tail` does not reconnect.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("--url: must be the URL of a gateway, for example http://127.0.0.1:8080")]
    Url(#[source] <reqwest::Url as std::str::FromStr>::Err),
    #[error("refused: {status} {body}")]
    Refused { status: StatusCode, body: String },
}

/// Connects again after each stream, until a response says that it can never succeed.
async fn follow(args: &TailArgs) -> End {
    let client = Client::new();
    let mut last_id = args.last_event_id.clone().unwrap_or_default();
    let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
    loop {
        let mut query = vec![("ticket", args.ticket.expose_secret())];
        query.extend(args.topics.as_deref().map(|topics| ("topics", topics)));
        let url = match reqwest::Url::parse_with_params(
            &format!("{}/events", args.url.trim_end_matches('/')),
            &query,
        ) {
            Ok(url) => url,
            Err(error) => return End::Url(error),
        };
        let address = url.origin().ascii_serialization();
        let mut request = client.get(url).header(header::ACCEPT, "text/event-stream");
        if !last_id.is_empty() {
            request = request.header("last-event-id", &last_id);
        }
        let (end, delay) = match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                let delay = read(response, &mut last_id).await.unwrap_or(RECONNECT);
                backoff = Backoff::new(delay, MAX_RETRY);
                ("the stream ended".to_owned(), delay)
            }
            Ok(response) if response.status().is_client_error() => {
                let status = response.status();
                return End::Refused { status, body: response.text().await.unwrap_or_default() };
            }
            Ok(response) => {
                (format!("the response has status {}", response.status()), backoff.delay())
            }
            // Without the URL, because its query contains the ticket.
            Err(e) => (ErrorChain(&e.without_url()).to_string(), backoff.delay()),
        };
        eprintln!("-- {address}: {end}; reconnecting in {} ms", delay.as_millis());
        tokio::time::sleep(delay).await;
    }
}

/// Prints the events of one stream; returns its last `retry:`.
async fn read(response: reqwest::Response, last_id: &mut String) -> Option<Duration> {
    let mut parser = Parser::default();
    let mut chunks = response.bytes_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        parser.push(&chunk, |event| {
            let has_id = event.id != *last_id;
            last_id.clone_from(&event.id);
            print(&event, has_id);
        });
    }
    parser.retry_ms.map(Duration::from_millis)
}

/// Prints an event. One that repeats the last id has no id of its own, such as `sse.snapshot`, a
/// retained value, or an ephemeral event.
fn print(event: &Parsed, has_id: bool) {
    let id = if has_id { &event.id } else { "-" };
    println!("{id}\t{}\t{}", event.kind, event.data.replace('\n', "\n\t\t"));
}
