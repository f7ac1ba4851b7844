//! `publish`

use std::{process::ExitCode, sync::Arc};

use super::args::PublishArgs;
use crate::{
    core::{
        event_options::{EventOptions, Retain, Tags},
        trace_context::TraceParent,
    },
    error_chain::ErrorChain,
    redis::{
        cluster::discovery::{DiscoveryError, discover},
        commands::CommandError,
        library::{self, LibraryError},
        publish::{Publish, PublishError, publish as publish_all},
    },
    settings::Settings,
};

/// Why there is no id to print.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("not published (Redis at {address})")]
    Library {
        address: Arc<str>,
        #[source]
        source: LibraryError,
    },
    #[error("not published")]
    Refused(#[source] PublishError),
    #[error("not published (Redis at {address})")]
    Unavailable {
        address: Arc<str>,
        #[source]
        source: Arc<CommandError>,
    },
    #[error(
        "the event may have been published; give it a --key and publish it again (Redis at \
         {address})"
    )]
    NoReply {
        address: Arc<str>,
        #[source]
        source: Arc<CommandError>,
    },
    #[error("not published: Redis sent no reply for the event; run the command again")]
    Missing,
}

/// Publishes one event.
pub fn publish(args: &PublishArgs) -> ExitCode {
    let settings = match args.config.load_keyless() {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    let Some(options) = options(args) else {
        eprintln!(
            "--tag takes a name of letters, digits and _ . -, an equals sign, and a value without \
             spaces; at most 8 different names"
        );
        return ExitCode::FAILURE;
    };
    let trace = match args.traceparent.as_deref().map(TraceParent::parse) {
        Some(Err(_)) => {
            eprintln!(
                "--traceparent must be that of W3C trace context: 00-<32 hexadecimal digits>-<16>-\
                 <2>, in lower case"
            );
            return ExitCode::FAILURE;
        }
        Some(Ok(trace)) => trace,
        None => None,
    };
    let event = Publish {
        channel: args.channel.clone(),
        kind: args.kind.clone(),
        payload: args.payload.clone(),
        key: args.key.clone(),
        retry_ms: args.retry,
        options: Some(Box::new(options)),
        unseen: args.unseen.clone(),
        trace,
    };
    match actix_rt::System::new().block_on(publish_one(&settings, event)) {
        Ok(id) => {
            println!("{id}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{}", ErrorChain(&failure));
            ExitCode::FAILURE
        }
    }
}

/// The options of the event; `None` if a tag is invalid. The library checks the rest.
fn options(args: &PublishArgs) -> Option<EventOptions> {
    let keep = args.keep.as_deref().map(|key| Retain::Keep(key.into()));
    let forget = args.forget.as_deref().map(|key| Retain::Forget(key.into()));
    let tags = match args.tags.is_empty() {
        true => Tags::default(),
        false => Tags::parse(&args.tags.join(" "))?,
    };
    Some(EventOptions {
        retain: keep.or(forget),
        tags,
        is_ephemeral: args.ephemeral,
        unseen_ms: None,
    })
}

/// Returns the id of the event.
async fn publish_one(settings: &Settings, event: Publish) -> Result<String, Failure> {
    let commands = discover(settings).await?.commands;
    let commands = match commands.of_key(&commands.keys.publish(&event.channel)) {
        Ok(owner) => owner,
        Err(source) => {
            let (address, source) = (commands.address(), Arc::new(source));
            return Err(Failure::Unavailable { address, source });
        }
    };
    let address = || commands.address();
    if let Err(source) = library::ensure(&commands, settings, false).await {
        return Err(Failure::Library { address: address(), source });
    }
    match publish_all(&commands, &[event]).await.pop() {
        Some(Ok(id)) => Ok(id),
        Some(Err(refused @ PublishError::Rejected(..))) => Err(Failure::Refused(refused)),
        Some(Err(PublishError::Unavailable(source))) => {
            Err(Failure::Unavailable { address: address(), source })
        }
        Some(Err(PublishError::NoReply(source))) => {
            Err(Failure::NoReply { address: address(), source })
        }
        None => Err(Failure::Missing),
    }
}
