//! `serve` and `check-config`.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use super::args::{CheckArgs, ConfigArgs, EX_CONFIG, load};
use crate::{
    app::{
        build::{Extra, Gateway},
        drain::Signals,
        logs, reload,
    },
    settings::{Loaded, Settings, Source, check::warnings, sample},
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
    source: Option<(Source, Loaded)>,
    extra: Extra,
    ready: impl FnOnce(SocketAddr, SocketAddr) + 'static,
) -> ExitCode {
    logs::start(&settings.log);
    warnings(&settings).iter().for_each(|w| tracing::warn!("{w}"));
    actix_rt::System::new().block_on(async move {
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(e) => return failed(&e),
        };
        let hangup = match source.is_some().then(reload::hangup).transpose() {
            Ok(hangup) => hangup,
            Err(e) => return failed(&e),
        };
        let gateway = match Gateway::build(settings, extra) {
            Ok(gateway) => gateway,
            Err(e) => return failed(&e),
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

/// An address that cannot be bound or a file that cannot be read is an error of the configuration.
fn failed(error: &std::io::Error) -> ExitCode {
    eprintln!("{error}");
    EX_CONFIG.into()
}

/// Checks the settings.
pub fn check(args: &CheckArgs) -> ExitCode {
    if args.sample {
        print!("{}", sample::toml());
        return ExitCode::SUCCESS;
    }
    match args.config.load() {
        Ok(settings) => {
            warnings(&settings).iter().for_each(|w| eprintln!("warning: {w}"));
            println!("the configuration is valid");
            ExitCode::SUCCESS
        }
        Err(status) => status.into(),
    }
}
