//! `serve`

use std::{error::Error, io, net::SocketAddr, process::ExitCode, sync::Arc};

use super::args::{ConfigArgs, EX_CONFIG, EX_OSERR, load};
use crate::{
    app::{
        build::{Extra, Gateway},
        logs, reload,
        signals::Signals,
    },
    error_chain::ErrorChain,
    settings::{Loaded, Settings, SettingsSource, check::warnings},
};

/// Runs the gateway.
pub fn serve(args: &ConfigArgs) -> ExitCode {
    let source = args.source();
    match load(&source) {
        Ok(loaded) => run(
            loaded.settings.clone(),
            Some((source, loaded)),
            Arc::new(|_: &mut _| {}),
            |_, _| {},
        ),
        Err(status) => status.into(),
    }
}

/// Runs a gateway with these settings until it has drained. With `source`, it reloads keys when
/// they change; without, SIGHUP ends it. `ready` is called when the gateway is ready, with its
/// public and admin addresses.
pub fn run(
    settings: Settings,
    source: Option<(SettingsSource, Loaded)>,
    extra: Extra,
    ready: impl FnOnce(SocketAddr, SocketAddr) + 'static,
) -> ExitCode {
    logs::start(&settings.log);
    warnings(&settings).iter().for_each(|w| tracing::warn!("{w}"));
    actix_rt::System::new().block_on(async move {
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(e) => return failed(&SignalsError(e), EX_OSERR),
        };
        let hangup = match source.is_some().then(reload::hangup).transpose() {
            Ok(hangup) => hangup,
            Err(e) => return failed(&SignalsError(e), EX_OSERR),
        };
        let gateway = match Gateway::build(settings, extra) {
            Ok(gateway) => gateway,
            Err(e) => {
                return failed(&e, if e.is_configuration() { EX_CONFIG } else { EX_OSERR });
            }
        };
        tracing::info!(
            public = %gateway.public_address(),
            admin = %gateway.admin_address(),
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        if let Some(((source, loaded), hangup)) = source.zip(hangup) {
            actix_rt::spawn(gateway.reloader(source, loaded).run(hangup));
        }
        let (public, admin) = (gateway.public_address(), gateway.admin_address());
        let becomes_ready = gateway.ready();
        actix_rt::spawn(async move {
            becomes_ready.await;
            ready(public, admin);
        });
        gateway.run(signals).await;
        ExitCode::SUCCESS
    })
}

/// Signals cannot be received.
#[derive(Debug, thiserror::Error)]
#[error("the handlers of SIGTERM, SIGINT and SIGHUP could not be installed")]
struct SignalsError(#[source] io::Error);

fn failed(error: &dyn Error, status: u8) -> ExitCode {
    eprintln!("{}", ErrorChain(error));
    status.into()
}
