//! `tail`: a terminal client that behaves like a browser's EventSource, and resumes.

use std::{process::ExitCode, time::Duration};

use futures_util::StreamExt;
use reqwest::{Client, StatusCode, header};

use super::args::TailArgs;
use crate::backoff::Backoff;
use crate::core::parser::{Parsed, Parser};

/// The delay after a failure, and the longest one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// The delay after a stream that gave none.
const RECONNECT: Duration = Duration::from_secs(2);

/// Follows a stream until it is refused or interrupted.
pub fn tail(args: &TailArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    let refusal = runtime.block_on(follow(args));
    eprintln!("{refusal}");
    ExitCode::FAILURE
}

/// Connects again and again; gives the text of the answer that ends it.
async fn follow(args: &TailArgs) -> String {
    let client = Client::new();
    let mut last_id = args.last_event_id.clone().unwrap_or_default();
    let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
    loop {
        let mut query = vec![("ticket", args.ticket.as_str())];
        query.extend(args.topics.as_deref().map(|topics| ("topics", topics)));
        let url = match reqwest::Url::parse_with_params(
            &format!("{}/events", args.url.trim_end_matches('/')),
            &query,
        ) {
            Ok(url) => url,
            Err(e) => return format!("--url: {e}; give e.g. http://127.0.0.1:8080"),
        };
        let mut request = client.get(url).header(header::ACCEPT, "text/event-stream");
        if !last_id.is_empty() {
            request = request.header("last-event-id", &last_id);
        }
        let (end, delay) = match request.send().await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                let delay = read(answer, &mut last_id).await.unwrap_or(RECONNECT);
                backoff = Backoff::new(delay, MAX_RETRY);
                ("the stream ended".to_owned(), delay)
            }
            Ok(answer) if answer.status().is_client_error() => {
                let status = answer.status();
                return format!("refused: {status} {}", answer.text().await.unwrap_or_default());
            }
            Ok(answer) => (format!("the answer is {}", answer.status()), backoff.delay()),
            // The error's own text would show the URL and with it the ticket.
            Err(e) => (e.without_url().to_string(), backoff.delay()),
        };
        eprintln!("-- {end}; connecting again in {} ms", delay.as_millis());
        tokio::time::sleep(delay).await;
    }
}

/// Prints the events of one stream; gives its last `retry:`.
async fn read(answer: reqwest::Response, last_id: &mut String) -> Option<Duration> {
    let mut parser = Parser::default();
    let mut chunks = answer.bytes_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        parser.push(&chunk, |event| {
            last_id.clone_from(&event.id);
            print(&event);
        });
    }
    parser.retry_ms.map(Duration::from_millis)
}

fn print(event: &Parsed) {
    println!("{}\t{}\t{}", event.id, event.kind, event.data.replace('\n', "\n\t\t"));
}
