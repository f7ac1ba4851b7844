//! Prepares a run from the command line. Reports all configuration errors before the first stream.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jsonwebtoken::{EncodingKey, Header};
use tokio::sync::{Notify, Semaphore};

use super::{MemoryBaseline, Run};
use crate::args::{Common, Publish};
use crate::fleet::Fleet;
use crate::publisher::{PublishMethod, Schedule, Share};
use crate::report::{Report, Streams};
use crate::sequence::PublishedSequences;
use crate::stats::Stats;
use crate::stream::{Connections, Env};
use crate::target::{Protocol, ServerKind, Target, needs_token};
use crate::tickets::TicketSource;
use crate::usage::{KernelMemory, Processes, RedisInfo, anonymous_bytes};
use crate::{limits, tls};

/// Prepares a run without opening any stream.
pub(super) fn run(name: &'static str, args: &Common) -> Result<Run, String> {
    let streams_per_connection = if args.http2 { args.streams_per_connection } else { 1 };
    limits::open_files(args.streams, streams_per_connection)?;
    if args.rate.max(args.user_rate) * args.duration.as_secs_f64() > f64::from(u32::MAX) {
        return Err(format!(
            "--rate, --user-rate: a run can publish at most {} events; reduce the rate or \
             --duration",
            u32::MAX
        ));
    }
    if name == "slow-publish" && (args.rate == 0.0 || args.publish == Publish::None) {
        return Err(
            "slow-publish: --rate must be greater than 0 and --publish must not be none".to_owned()
        );
    }
    let protocol = if args.http2 { Protocol::Http2 } else { Protocol::Http1 };
    let users = args.streams.div_ceil(args.streams_per_user);
    let run_number = fastrand::u16(..);
    let schedule = schedule(name, args, users, run_number)?;
    let uses_redis =
        schedule.is_some() && matches!(args.publish, Publish::Durable | Publish::Plain);
    let redis = if uses_redis || args.redis.is_some() {
        Some(RedisInfo::open(args.redis_url())?)
    } else {
        None
    };
    let server =
        if args.server_pids.is_empty() { None } else { Some(Processes::new(&args.server_pids)?) };
    let env = Env {
        target: target(args, protocol)?,
        tickets: tickets(args)?,
        topic: args.topic.clone(),
        user_prefix: args.user_prefix.clone(),
        run: run_number,
        streams_per_user: args.streams_per_user,
        published: Arc::new(PublishedSequences::new(users)),
        stats: Stats::new(),
        connecting: Arc::new(Semaphore::new(args.connecting as usize)),
        connections: Connections::new(args.streams_per_connection),
        disrupted_ns: 0.into(),
        wake: Notify::new(),
    };
    let streams = Streams::new(&env.stats);
    let tool = Processes::own();
    let empty = MemoryBaseline {
        server_bytes: server.as_ref().map(Processes::pss_bytes).unwrap_or_default(),
        tool_bytes: anonymous_bytes(),
        kernel: KernelMemory::read(),
    };
    Ok(Run {
        fleet: Fleet::new(env, args.streams),
        active: 0,
        schedule,
        server,
        tool,
        publishers: args.publishers,
        redis_url: redis.is_some().then(|| args.redis_url().to_owned()),
        redis,
        settle: args.settle,
        drain: args.drain,
        report: Report {
            scenario: name,
            url: args.url.clone(),
            protocol,
            payload_bytes: args.payload_bytes,
            connect: None,
            memory: None,
            held: None,
            load: None,
            storm: None,
            stall: None,
            search: None,
            streams,
            violations: Vec::new(),
            failure: None,
        },
        empty,
    })
}

/// Shows a progress line on a terminal.
pub(super) fn progress(fleet: &Fleet) -> ProgressBar {
    const REFRESH_INTERVAL: Duration = Duration::from_millis(200);
    let bar = ProgressBar::new(fleet.len().into());
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} streams open {msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|error| unreachable!("the template is constant: {error}")));
    if bar.is_hidden() {
        return bar;
    }
    let (env, shown) = (fleet.env.clone(), bar.clone());
    tokio::task::spawn_local(async move {
        while !shown.is_finished() {
            shown.set_position(env.stats.held.get().into());
            shown.set_message(format!("{} delivered", env.stats.delivered.get()));
            shown.tick();
            tokio::time::sleep(REFRESH_INTERVAL).await;
        }
    });
    bar
}

/// Returns the TLS configuration for https, or `None` if there is no certificate option.
fn tls_config(args: &Common) -> Result<Option<rustls::ClientConfig>, String> {
    match (&args.ca, args.insecure) {
        (Some(file), _) => tls::with_ca(file).map(Some),
        (None, true) => tls::without_verification().map(Some),
        (None, false) => Ok(None),
    }
}

fn target(args: &Common, protocol: Protocol) -> Result<Target, String> {
    Target::new(
        &args.url,
        args.kind,
        protocol,
        tls_config(args)?,
        &args.headers,
        args.streams_per_source,
    )
}

fn read_secret(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn tickets(args: &Common) -> Result<TicketSource, String> {
    match (args.kind, &args.secret_file, &args.api_key_file) {
        (ServerKind::Plain | ServerKind::Centrifugo, ..) if !needs_token(&args.url) => {
            Ok(TicketSource::None)
        }
        (_, Some(file), _) => {
            let key = Box::new(EncodingKey::from_secret(read_secret(file)?.as_bytes()));
            let header = Box::new(Header { kid: args.kid.clone(), ..Header::default() });
            let (audience, issuer) = (args.audience.clone(), args.issuer.clone());
            Ok(TicketSource::Signed { key, header, audience, issuer, ttl: args.ticket_ttl })
        }
        (ServerKind::Gateway, None, Some(file)) => {
            let mut builder = reqwest::Client::builder();
            if let Some(tls_config) = tls_config(args)? {
                builder = builder.use_preconfigured_tls(tls_config);
            }
            let client = builder
                .build()
                .map_err(|error| format!("cannot create the HTTP client: {error}"))?;
            let (url, api_key) = (sibling_url(&args.url, "/tickets"), read_secret(file)?);
            Ok(TicketSource::Requested { client, url, api_key, ttl: args.ticket_ttl })
        }
        (ServerKind::Plain | ServerKind::Centrifugo, None, _) => {
            Err("--url: {token} requires --secret-file, with the server's HS256 secret".to_owned())
        }
        (ServerKind::Gateway, None, None) => Err(
            "--kind gateway requires tickets: use --secret-file (the gateway's tickets.secret) \
                 or --api-key-file (an API key with scope tickets); use --kind plain for any \
                 other SSE server"
                .to_owned(),
        ),
    }
}

fn schedule(name: &str, args: &Common, users: u32, run: u16) -> Result<Option<Schedule>, String> {
    let method = match args.publish {
        _ if name == "idle" => return Ok(None),
        Publish::None => return Ok(None),
        Publish::Durable => PublishMethod::Durable { redis: args.redis_url().to_owned() },
        Publish::Plain => PublishMethod::Plain { redis: args.redis_url().to_owned() },
        Publish::Http => {
            let file = args
                .api_key_file
                .as_deref()
                .ok_or("--publish http requires --api-key-file (an API key with scope publish)")?;
            let url =
                args.publish_url.clone().unwrap_or_else(|| sibling_url(&args.url, "/publish"));
            PublishMethod::Http { url, api_key: read_secret(file)? }
        }
        Publish::Post => {
            let header = |line: &String| {
                line.split_once(':')
                    .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            };
            let headers = args
                .post_headers
                .iter()
                .map(header)
                .collect::<Option<_>>()
                .ok_or("--post-header: must have the form 'Name: value'")?;
            let url = args.publish_url.clone().ok_or("--publish post requires --publish-url")?;
            PublishMethod::Post { url, body: args.post_body.clone(), headers }
        }
    };
    let (broadcasts, user_events) = match name {
        "users" => (0.0, args.user_rate),
        "mixed" => (args.rate, args.user_rate),
        _ => (args.rate, 0.0),
    };
    let names_user = |text: &str| text.contains("{user}");
    if user_events > 0.0
        && args.publish == Publish::Post
        && !names_user(&args.post_body)
        && !args.publish_url.as_deref().is_some_and(names_user)
    {
        return Err("--publish post: single-user events require {user} in --publish-url or \
                    --post-body"
            .to_owned());
    }
    if broadcasts > 0.0 && user_events > 0.0 && args.publish == Publish::Post {
        return Err("--publish post supports either broadcasts or single-user events".to_owned());
    }
    Ok(Some(Schedule {
        method,
        topic: args.topic.clone(),
        broadcasts_per_s: broadcasts,
        user_events_per_s: user_events,
        users,
        user_prefix: args.user_prefix.clone(),
        run,
        payload_bytes: args.payload_bytes,
        tls_config: tls_config(args)?,
        share: Share::ALL,
    }))
}

/// Replaces the path of a URL.
fn sibling_url(url: &str, path: &str) -> String {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find('/').map_or(url.len(), |at| authority + at);
    format!("{}{path}", &url[..end])
}
