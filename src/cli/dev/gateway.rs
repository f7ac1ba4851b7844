//! One of the two gateways: a process of its own, so that it can be killed.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{routes, settings};
use crate::cli::serve;

/// The environment variable by which a process knows that it is one of the gateways.
const VARIABLE: &str = "SSE_GATEWAY_DEV_INSTANCE";

/// What distinguishes one of the gateways, and what its page needs.
#[derive(Clone, Serialize, Deserialize)]
pub struct Instance {
    /// 1 or 2.
    pub number: u8,
    /// The API key of the page.
    pub api_key: String,
    /// The command that connects to Redis.
    pub redis_cli: String,
}

/// What a gateway prints on its standard output when it is ready.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Ready {
    /// The gateway's number.
    pub number: u8,
    /// Address of its public listener.
    pub public: SocketAddr,
    /// Address of its admin listener.
    pub admin: SocketAddr,
}

impl Instance {
    /// The gateway that this process is; `None`: it is no gateway of `dev`.
    pub fn of_environment() -> Option<Self> {
        serde_json::from_str(&std::env::var(VARIABLE).ok()?).ok()
    }

    /// The variable that makes a process this gateway.
    pub fn variable(&self) -> (&'static str, String) {
        (VARIABLE, serde_json::json!(self).to_string())
    }
}

/// Runs one of the gateways.
pub fn run(instance: Instance) -> ExitCode {
    let settings = match settings::load(Vec::new()) {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    let number = instance.number;
    let extra = routes::of(instance);
    serve::run(settings, None, Arc::new(extra), move |public, admin| {
        println!("{}", serde_json::json!(Ready { number, public, admin }));
    })
}
