//! `publish`

use std::{fmt::Display, process::ExitCode};

use super::args::PublishArgs;
use crate::redis::{
    commands::Commands,
    library,
    publish::{Publish, PublishError, publish as publish_all},
};

/// Publishes one event.
pub fn publish(args: &PublishArgs) -> ExitCode {
    let settings = match args.config.load() {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    let event = Publish {
        channel: args.channel.clone(),
        kind: args.kind.clone(),
        payload: args.payload.clone(),
        key: args.key.clone(),
        retry_ms: args.retry,
    };
    let answer = actix_rt::System::new().block_on(async {
        let not = |fault: &dyn Display| format!("not published: {fault}");
        let commands = Commands::new(&settings.redis).map_err(|e| not(&e))?;
        library::ensure(&commands, &settings).await.map_err(|unfit| not(&unfit))?;
        match publish_all(&commands, &[event]).await.pop() {
            Some(Ok(id)) => Ok(id),
            Some(Err(PublishError::Refused(refusal, text))) => {
                Err(not(&format!("{refusal}: {text}")))
            }
            Some(Err(PublishError::Away(text))) => Err(not(&text)),
            Some(Err(PublishError::Unanswered(text))) => Err(format!(
                "the event may have been published ({text}); use --key to retry without duplicates"
            )),
            None => Err(not(&"Redis sent no reply")),
        }
    });
    match answer {
        Ok(id) => {
            println!("{id}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}
