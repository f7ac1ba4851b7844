//! Starts each server with its configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::process::{
    PEER_KEY, SECRET, control_port, fill_placeholders, origin_port, redis, redis_url,
    sibling_binary, spawn, version, wait_until_listening,
};
use crate::bench::machine::first_line;

pub(super) fn gateway(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    fs::write(dir.join("secret"), SECRET).map_err(|error| error.to_string())?;
    let redis_child = redis(dir, port)?;
    let mut command = Command::new(sibling_binary("sse-gateway")?);
    command.arg("serve").env("SSE_GATEWAY__REDIS__URL", redis_url(port));
    command
        .env("SSE_GATEWAY__SERVER__LISTEN", format!("127.0.0.1:{port}"))
        .env("SSE_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0");
    command
        .env("SSE_GATEWAY__TICKETS__SECRET_FILE", dir.join("secret"))
        .env("SSE_GATEWAY__LIMITS__MAX_CONNECTIONS", "19000");
    command.env("SSE_GATEWAY__DRAIN__DELAY", "0s").env("SSE_GATEWAY__DRAIN__WINDOW", "0s");
    Ok(vec![redis_child, spawn(dir, &mut command)?])
}

fn yardstick(name: &str, port: u16) -> Result<Command, String> {
    let mut command = Command::new(sibling_binary(name)?);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    Ok(command)
}

pub(super) fn plain_actix(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let redis_child = redis(dir, port)?;
    let mut command = yardstick("yardstick-actix", port)?;
    Ok(vec![redis_child, spawn(dir, command.args(["--redis", &redis_url(port)]))?])
}

pub(super) fn send_loop(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    Ok(vec![spawn(dir, &mut yardstick("yardstick-send", port)?)?])
}

/// Writes the configuration of a peer and returns its path.
fn write_config(text: &str, name: &str, dir: &Path, port: u16) -> Result<PathBuf, String> {
    let file = dir.join(name);
    fs::write(&file, fill_placeholders(text, dir, port))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

pub(super) fn nchan_version() -> Result<String, String> {
    let nginx = version(Path::new("nginx"), "-v")?;
    let package = first_line("dpkg-query", &["-W", "-f", "${Version}\n", "libnginx-mod-nchan"])
        .filter(|line| !line.starts_with("dpkg-query"));
    let package = package.ok_or(
        "libnginx-mod-nchan is not installed (apt-get install libnginx-mod-nchan nginx-light)",
    )?;
    Ok(format!("{}, libnginx-mod-nchan {package}", nginx.trim_start_matches("nginx version: ")))
}

pub(super) fn nchan(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let redis_child = redis(dir, port)?;
    let file = write_config(include_str!("../../../peers/nchan.conf"), "nginx.conf", dir, port)?;
    Ok(vec![redis_child, spawn(dir, Command::new("nginx").arg("-p").arg(dir).arg("-c").arg(file))?])
}

/// Returns the versions of Pushpin and of its HTTP server.
pub(super) fn pushpin_version() -> Result<String, String> {
    let advice = |error| format!("{error} (apt-get install pushpin)");
    sibling_binary("pushpin-origin")?;
    let pushpin = version(Path::new("pushpin"), "--version").map_err(advice)?;
    Ok(format!("{pushpin}, {}", version(Path::new("condure"), "--version").map_err(advice)?))
}

pub(super) fn pushpin(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let origin = format!("127.0.0.1:{}", origin_port(port));
    let mut command = Command::new(sibling_binary("pushpin-origin")?);
    let origin_child = spawn(dir, command.args(["--listen", &origin]))?;
    wait_until_listening(origin_port(port))?;
    let text = include_str!("../../../peers/pushpin.conf");
    let file = write_config(text, "pushpin.conf", dir, port)?;
    write_config(&format!("* {origin}\n"), "routes", dir, port)?;
    let mut command = Command::new("pushpin");
    command.arg("--merge-output").arg("--config").arg(file);
    let pushpin_child = spawn(dir, &mut command)?;
    wait_until_listening(control_port(port))?;
    Ok(vec![origin_child, pushpin_child])
}

pub(super) fn centrifugo(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    fs::write(dir.join("secret"), PEER_KEY).map_err(|error| error.to_string())?;
    let redis_child = redis(dir, port)?;
    let text = include_str!("../../../peers/centrifugo.json");
    let file = write_config(text, "centrifugo.json", dir, port)?;
    Ok(vec![redis_child, spawn(dir, Command::new("centrifugo").arg("-c").arg(file))?])
}

pub(super) fn anycable(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let redis_child = redis(dir, port)?;
    let text = include_str!("../../../peers/anycable.toml");
    let file = write_config(text, "anycable.toml", dir, port)?;
    let mut command = Command::new("anycable-go");
    command.arg("--config-path").arg(file).env("ANYCABLE_DISABLE_TELEMETRY", "true");
    Ok(vec![redis_child, spawn(dir, command.current_dir(dir))?])
}

/// Returns the version without the hash of its source.
pub(super) fn mercure_version() -> Result<String, String> {
    let version = version(Path::new("mercure"), "version")?;
    Ok(version.split(" h1:").next().unwrap_or_default().to_owned())
}

pub(super) fn mercure(dir: &Path, port: u16) -> Result<Vec<Child>, String> {
    let file = write_config(include_str!("../../../peers/Caddyfile"), "Caddyfile", dir, port)?;
    Ok(vec![spawn(
        dir,
        Command::new("mercure")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(file)
            .env("HOME", dir),
    )?])
}
