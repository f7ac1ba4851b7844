//! `dev`: two gateways behind one address, with everything needed to try them. Nothing is left
//! behind: the gateways and the private Redis are child processes that end with this one, and Redis
//! writes nothing to disk.

mod assets;
mod balancer;
mod death;
mod gateway;
mod page;
mod private_redis;
mod published;
mod redis_cli;
mod routes;
mod settings;
mod supervisor;

use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

use secrecy::ExposeSecret;

use self::{
    gateway::{Instance, Ready},
    private_redis::PrivateRedis,
    redis_cli::redis_cli,
    settings::DevSettings,
    supervisor::Supervisor,
};
use super::args::{DevArgs, EX_CONFIG, EX_OSERR};
use crate::error_chain::ErrorChain;

const USER: &str = "demo";

/// Runs two gateways with a private Redis, temporary keys and the demo page.
pub fn dev(args: &DevArgs) -> ExitCode {
    if let Some(instance) = Instance::of_environment() {
        return gateway::run(instance);
    }
    let listener = match listen(args) {
        Ok(listener) => listener,
        Err(error) => return failed(&error, EX_OSERR),
    };
    if !args.listen.ip().is_loopback() {
        eprintln!(
            "warning: the demo page at {} lets everyone who reaches it publish, issue tickets and \
             delete events",
            args.listen
        );
    }
    let private = match args.redis {
        Some(_) => None,
        None => match PrivateRedis::start() {
            Ok(redis) => Some(redis),
            Err(error) => return failed(&error, EX_CONFIG),
        },
    };
    let given = args.redis.as_ref().map(|url| url.expose_secret().to_owned());
    let url = given.or_else(|| private.as_ref().map(PrivateRedis::url)).unwrap_or_default();
    let DevSettings { environment, api_key, ticket } = match DevSettings::new(&url) {
        Ok(settings) => settings,
        Err(status) => return status.into(),
    };
    let redis_cli = match url.rsplit(':').next().filter(|_| private.is_some()) {
        Some(port) => format!("redis-cli -p {port}"),
        None => redis_cli(&url),
    };
    let instance = Instance { number: 1, api_key, redis_cli: redis_cli.clone() };
    let admin_listen = args.admin_listen;
    let supervisor = Supervisor { environment, instance, admin_listen, redis: private };
    let status = supervisor.run(listener, move |public, gateways| {
        print(public, gateways, &redis_cli, &ticket);
    });
    match status {
        Ok(status) => status,
        Err(error) => failed(&error, EX_OSERR),
    }
}

fn failed(error: &dyn Error, status: u8) -> ExitCode {
    eprintln!("{}", ErrorChain(error));
    status.into()
}

/// An address of the command line cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: cannot listen; choose another port, for example {flag} {example}")]
struct ListenError {
    flag: &'static str,
    address: SocketAddr,
    example: SocketAddr,
    source: io::Error,
}

/// Binds the address of the page, and checks that of the admin listener, which a gateway binds.
fn listen(args: &DevArgs) -> Result<TcpListener, ListenError> {
    let bind = |flag, address: SocketAddr, port| {
        let example = SocketAddr::new(address.ip(), port);
        TcpListener::bind(address).map_err(|source| ListenError { flag, address, example, source })
    };
    bind("--admin-listen", args.admin_listen, 0)?;
    let other = if args.listen.port() == 8090 { 8091 } else { 8090 };
    bind("--listen", args.listen, other)
}

fn print(public: SocketAddr, gateways: &[Ready], redis_cli: &str, ticket: &str) {
    println!("Demo page:\n  http://{public}/\n");
    println!(
        "Publish an event, first plain, then durably:\n  \
         {redis_cli} PUBLISH user:{USER}:events \
         '{{\"type\":\"order-completed\",\"payload\":{{\"orderId\":7}}}}'"
    );
    println!(
        "  {redis_cli} FCALL sse_publish 1 '{{broadcast}}:news' headline '{{\"text\":\"hello\"}}'\n"
    );
    println!("Receive events with curl:\n  curl -N 'http://{public}/events?ticket={ticket}'\n");
    println!("Health and metrics of the two gateways:");
    for Ready { admin, .. } in gateways {
        println!("  http://{admin}/metrics");
    }
    println!("\nPress Ctrl-C to stop everything. All data is discarded.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_names_the_flag_and_another_port() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("its address");
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        for (flag, listen_on, admin_listen) in
            [("--listen", address, free), ("--admin-listen", free, address)]
        {
            let args = DevArgs { listen: listen_on, admin_listen, redis: None };
            let text = ErrorChain(&listen(&args).expect_err("the port is taken")).to_string();
            let start = format!("{flag} {address}: cannot listen; choose another port");
            let example = format!("for example {flag} 127.0.0.1:");
            assert!(text.starts_with(&start) && text.contains(&example), "{text}");
        }
    }
}
