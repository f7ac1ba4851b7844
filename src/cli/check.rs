//! `check-config`

use std::{process::ExitCode, sync::Arc};

use super::args::{CheckArgs, EX_CONFIG, EX_UNAVAILABLE};
use crate::{
    core::channel_rules::{ChannelPolicy, ChannelRules},
    error_chain::ErrorChain,
    metrics::Metrics,
    redis::{
        cluster::discovery::{Discovered, DiscoveryError, discover},
        commands::CommandError,
        inspect::{ServerReport, Verdict, cluster::inspect_cluster, inspect},
        tls,
    },
    settings::{Settings, check::warnings, parse::show_duration, sample},
    sources::{
        Sources, SourcesError,
        source::{Fault, SourceError},
    },
};

/// Channels that no rule matches, in the list of rules.
const OTHERS: &str = "other channels";

/// Why Redis was not checked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Discovery(DiscoveryError),
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error("Redis at {address} was not checked")]
    Unavailable {
        address: Arc<str>,
        #[source]
        source: CommandError,
    },
    #[error("Redis at {address} refuses this user; check user and password in redis.url")]
    Login {
        address: Arc<str>,
        #[source]
        source: CommandError,
    },
}

impl Failure {
    fn of(address: Arc<str>, source: CommandError) -> Self {
        if source.is_login_refusal() {
            Self::Login { address, source }
        } else {
            Self::Unavailable { address, source }
        }
    }

    /// Whether the configuration must be changed. Otherwise another attempt can succeed.
    fn exit_status(&self) -> u8 {
        match self {
            Self::Discovery(DiscoveryError::Tls(_)) | Self::Sources(_) | Self::Login { .. } => {
                EX_CONFIG
            }
            Self::Discovery(DiscoveryError::Redis {
                source: CommandError::Rejected(_), ..
            }) => EX_CONFIG,
            Self::Discovery(_) | Self::Unavailable { .. } => EX_UNAVAILABLE,
        }
    }
}

/// Checks the settings and, with `--connect`, Redis.
pub fn check(args: &CheckArgs) -> ExitCode {
    if args.sample {
        print!("{}", sample::toml());
        return ExitCode::SUCCESS;
    }
    let settings = match args.config.load() {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    if let Err(error) = tls::client_config(&settings.redis.tls) {
        eprintln!("{}", ErrorChain(&error));
        return EX_CONFIG.into();
    }
    warnings(&settings).iter().for_each(|w| eprintln!("warning: {w}"));
    println!("the configuration is valid");
    if !settings.channels.rules().is_empty() {
        print_rules(&settings.channels);
    }
    if !args.connect {
        return ExitCode::SUCCESS;
    }
    match actix_rt::System::new().block_on(connect(&settings)) {
        Ok((report, sources)) => {
            print(&report);
            let of_redis = if report.is_usable() { 0 } else { EX_CONFIG };
            let of_sources = print_sources(sources);
            // What must be changed comes before what may pass.
            let status = [of_redis, of_sources].into_iter().max().unwrap_or(0);
            ExitCode::from(status)
        }
        Err(failure) => {
            eprintln!("{}", ErrorChain(&failure));
            failure.exit_status().into()
        }
    }
}

/// A source, and what was found or why it cannot be used.
type CheckedSource = (String, Result<String, SourceError>);

async fn connect(settings: &Settings) -> Result<(ServerReport, Vec<CheckedSource>), Failure> {
    let Discovered { commands, nodes } = discover(settings).await.map_err(|error| match error {
        DiscoveryError::Redis { address, source } if source.is_login_refusal() => {
            Failure::Login { address, source }
        }
        other => Failure::Discovery(other),
    })?;
    let report = match nodes.is_empty() {
        true => inspect(&commands, settings).await,
        false => inspect_cluster(&commands, &nodes, settings).await,
    };
    let report = report.map_err(|source| Failure::of(commands.address(), source))?;
    let metrics = Metrics::new();
    let sources = Sources::new(settings, &metrics, || commands.clone());
    Ok((report, sources?.check().await))
}

/// Prints what was found of each source, and returns the exit status.
fn print_sources(sources: Vec<CheckedSource>) -> u8 {
    let mut status = 0;
    for (name, checked) in sources {
        match checked {
            Ok(found) => println!("ok: source {name}: {found}"),
            Err(error) => {
                println!("error: source {name}: {}", ErrorChain(&error));
                let own = match error.fault {
                    Fault::Unavailable => EX_UNAVAILABLE,
                    Fault::Misconfigured => EX_CONFIG,
                };
                status = status.max(own);
            }
        }
    }
    status
}

/// Prints what applies to the channels of each rule, and to all others.
fn print_rules(rules: &ChannelRules) {
    println!("channel rules (the first match applies):");
    let width = rules.rules().iter().map(|rule| rule.pattern.to_string().len()).max();
    let width = width.unwrap_or(0).max(OTHERS.len());
    for (number, rule) in (1..).zip(rules.rules()) {
        let (name, policy) = (rule.pattern.to_string(), policy_text(rules.resolve(rule)));
        println!("{number:>4}  {name:width$}  {policy}");
    }
    println!("      {OTHERS:width$}  {}", policy_text(rules.default_policy()));
}

fn policy_text(policy: ChannelPolicy) -> String {
    let mut text = format!(
        "max_len {}, retention {}, max_event_bytes {}",
        policy.max_len,
        show_duration(policy.retention),
        policy.max_event_bytes
    );
    if policy.requires_keep {
        text.push_str(", keep required");
    }
    if policy.is_ephemeral {
        text.push_str(", ephemeral");
    }
    if let Some(rate) = policy.rate {
        text.push_str(&format!(", rate {rate} per second"));
    }
    text
}

fn print(report: &ServerReport) {
    println!("Redis:");
    for (name, value) in &report.facts {
        println!("  {name:<9}{value}");
    }
    for finding in &report.findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Error => "error",
        };
        println!("{verdict}: {}", finding.text);
    }
    let result = if report.is_usable() { "can" } else { "cannot" };
    println!("the gateway {result} use this Redis");
}
