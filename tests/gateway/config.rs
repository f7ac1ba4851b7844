//! Settings: all errors are reported at once, each with its fix and without secrets.

use crate::harness::gateway::PROGRAM;
use crate::harness::keys::{Dir, api_keys};
use crate::harness::process::{die_with_parent, free_port};
use crate::harness::ticket::SECRET;
use crate::harness::{Redis, Sse, eventually};
use std::process::{Command, Stdio};

/// A secret that must never appear in output.
const MARKER: &str = "hushhush-marker";

/// What a command printed, and its exit code.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Asserts that one error has this origin (a file and line, or a variable), this setting and
    /// these words.
    fn reports(&self, origin: &str, key: &str, words: &[&str]) {
        let parts = [origin, key].into_iter().filter(|part| !part.is_empty());
        let start: String = parts.map(|part| format!("{part}: ")).collect();
        let in_folder = format!("/{start}");
        let found = |line: &&str| line.starts_with(&start) || line.contains(&in_folder);
        let line = self.err.lines().find(found);
        let line = line.unwrap_or_else(|| panic!("no error {start:?} in:\n{}", self.err));
        for word in words {
            assert!(line.contains(word), "{word:?} is missing in: {line}");
        }
    }
}

/// The program with these settings and none from outside.
pub fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SSE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    for (key, value) in env {
        command.env(format!("SSE_GATEWAY__{key}"), value);
    }
    die_with_parent(&mut command);
    command
}

/// Runs a command that ends by itself.
pub fn run(arguments: &[&str], env: &[(&str, &str)]) -> Ran {
    let done = command(arguments, env).output().expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

/// `check-config` of a file and an environment.
fn check(file: Option<&str>, env: &[(&str, &str)]) -> Ran {
    let dir = Dir::new();
    let mut arguments = vec!["check-config"];
    let path = dir.text("gateway.toml");
    if let Some(content) = file {
        dir.write("gateway.toml", content);
        arguments.extend(["--config", &path]);
    }
    let ran = run(&arguments, env);
    if ran.code != Some(0) {
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        assert!(ran.out.is_empty(), "faults belong on stderr: {}", ran.out);
        for line in ran.err.lines() {
            let (_, text) = line.split_once(": ").unwrap_or_else(|| panic!("no key: {line}"));
            let names_fix = ["must ", "; ", "each entry needs "].iter().any(|w| text.contains(w));
            assert!(names_fix, "no fix: {line}");
        }
    }
    assert!(
        !ran.err.contains(MARKER) && !ran.out.contains(MARKER),
        "the output contains a secret: {}{}",
        ran.err,
        ran.out
    );
    ran
}

/// The one setting that has no default.
pub const GOOD: (&str, &str) = ("TICKETS__SECRET", SECRET);

#[test]
fn valid_configuration_exits_0() {
    let ran = check(None, &[GOOD]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(!ran.out.contains(SECRET));
    assert_eq!(
        check(Some("[tickets]\nsecret = \"a-secret-of-more-than-thirty-two-bytes\"\n"), &[]).code,
        Some(0)
    );
    let keys = api_keys(&[("key", "publish"), ("another", "admin")]);
    assert_eq!(check(None, &[GOOD, ("API_KEYS", &keys)]).code, Some(0));
    // Settings that are only inefficient cause a warning.
    let ran = check(None, &[GOOD, ("LIMITS__QUEUE_BYTES", "1KiB")]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.starts_with("warning: limits.queue_bytes"), "{}", ran.err);
}

#[test]
fn short_secrets_and_unknown_log_levels_are_errors() {
    let ran = check(None, &[("TICKETS__SECRET", MARKER), ("LOG__LEVEL", "warning")]);
    assert_eq!(ran.code, Some(78));
    ran.reports("SSE_GATEWAY__TICKETS__SECRET", "tickets.secret", &["32 bytes", "openssl"]);
    ran.reports("SSE_GATEWAY__LOG__LEVEL", "log.level", &["warn", "\"warning\""]);
    let file = format!("[tickets]\nkeys = [{{ algorithm = \"HS256\", secret = \"{MARKER}\" }}]");
    let ran = check(Some(&file), &[]);
    ran.reports("gateway.toml:2", "tickets.keys", &["32 bytes"]);
}

#[test]
fn all_errors_are_reported_at_once() {
    let file = r#"
        api_keys = [{ sha256 = "short", scopes = ["publish"] }]
        [server]
        listn = "127.0.0.1:1"
        heartbeat = 15
        workers = "many"
        [server.tls]
        certificate = "/nowhere.pem"
        [redis]
        url = "http://example.org"
        pool_size = 0
        [history]
        max_len = -1
        max_event_bytes = "64 kilo"
        retention = "1 fortnight"
        [nonsense]
        a = 1
        [publishers]
        plain = "maybe"
        [cors]
        allowed_origins = ["example.org/path"]
    "#;
    let env = [
        ("SERVER__HEARTBET", "1s"),
        ("REDIS__KEY_PREFIX", "{sse}:"),
        ("REDIS__CHANNEL_PREFIX", "shop}"),
        ("TICKETS__LEEWAY", "1h"),
        ("TICKETS__DEFAULT_TOPICS", "[\"a b\"]"),
        ("LOG__FORMAT", "xml"),
        ("LOG__LEVEL", "very=loud=x"),
        ("ADMIN__LISTEN", "localhost"),
        ("LIMITS__QUEUE_BYTES", "10"),
        ("DRAIN__WINDOW", "-1s"),
    ];
    let ran = check(Some(file), &env);
    for (line, key, words) in [
        (4, "server.listn", &["server.listen"][..]),
        (5, "server.heartbeat", &["unit", "(got 15)"]),
        (6, "server.workers", &["integer", "(got \"many\")"]),
        (8, "server.tls", &["both"]),
        (2, "api_keys", &["sha256"]),
        (10, "redis.url", &["redis://"]),
        (11, "redis.pool_size", &["from 1"]),
        (13, "history.max_len", &["integer"]),
        (14, "history.max_event_bytes", &["KiB"]),
        (15, "history.retention", &["unit"]),
        (16, "nonsense", &["unknown setting"]),
        (19, "publishers.plain", &["record", "relay", "off"]),
        (21, "cors.allowed_origins", &["origin"]),
    ] {
        ran.reports(&format!("gateway.toml:{line}"), key, words);
    }
    for (variable, key, words) in [
        ("SERVER__HEARTBET", "server.heartbet", &["server.heartbeat"][..]),
        ("REDIS__KEY_PREFIX", "redis.key_prefix", &["{ }", "(got \"{sse}:\")"]),
        ("REDIS__CHANNEL_PREFIX", "redis.channel_prefix", &["{ }", "(got \"shop}\")"]),
        ("TICKETS__LEEWAY", "tickets.leeway", &["5s"]),
        ("TICKETS__DEFAULT_TOPICS", "tickets.default_topics", &["topic"]),
        ("LOG__FORMAT", "log.format", &["json"]),
        ("LOG__LEVEL", "log.level", &["info"]),
        ("ADMIN__LISTEN", "admin.listen", &["PORT"]),
        ("LIMITS__QUEUE_BYTES", "limits.queue_bytes", &["KiB"]),
        ("DRAIN__WINDOW", "drain.window", &["unit"]),
    ] {
        ran.reports(&format!("SSE_GATEWAY__{variable}"), key, words);
    }
    // A missing setting is reported together with all other errors.
    ran.reports("", "tickets.secret", &["SSE_GATEWAY__TICKETS__SECRET"]);
}

#[test]
fn serve_with_errors_exits_78() {
    let none = run(&["serve"], &[]);
    assert_eq!(none.code, Some(78));
    none.reports("", "tickets.secret", &["openssl rand -hex 32"]);
    let two = run(&["serve"], &[GOOD, ("SERVER__RETRY", "soon"), ("SERVER__LISTEN", "8080")]);
    assert_eq!(two.code, Some(78));
    two.reports("SSE_GATEWAY__SERVER__RETRY", "server.retry", &[]);
    two.reports("SSE_GATEWAY__SERVER__LISTEN", "server.listen", &[]);
    assert!(!two.err.contains(SECRET));
    let missing = run(&["serve", "--config", "/nowhere/gateway.toml"], &[GOOD]);
    assert_eq!(missing.code, Some(78));
    missing.reports("/nowhere/gateway.toml", "", &["read"]);
}

#[test]
fn taken_port_exits_71_and_may_be_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran =
        run(&["serve"], &[GOOD, ("SERVER__LISTEN", &address), ("ADMIN__LISTEN", "127.0.0.1:0")]);
    assert_eq!(ran.code, Some(71), "{}", ran.err);
    assert!(ran.err.contains("server.listen") && ran.err.contains(&address), "{}", ran.err);
    assert!(ran.err.contains("in use"), "{}", ran.err);
}

#[test]
fn unreadable_and_malformed_files_are_errors() {
    for (file, line) in [("[server", 1), ("a = 1\n[server]\nlisten = \"x\n", 3), ("= 1", 1)] {
        let ran = check(Some(file), &[GOOD]);
        ran.reports(&format!("gateway.toml:{line}"), "", &["valid TOML"]);
    }
    let dir = Dir::new();
    std::fs::write(dir.path("binary.toml"), b"\xff\xfe\x00").unwrap();
    for path in [dir.text("binary.toml"), dir.text("missing.toml"), dir.text("")] {
        let ran = run(&["check-config", "--config", &path], &[GOOD]);
        assert_eq!(ran.code, Some(78), "{path}: {}", ran.err);
        assert!(ran.err.starts_with(&path), "{}", ran.err);
    }
    let certificate = dir.write("empty.pem", "");
    let tls =
        [GOOD, ("SERVER__TLS__CERTIFICATE", &*certificate), ("SERVER__TLS__KEY", &*certificate)];
    let ran = run(
        &["serve"],
        &[&tls[..], &[("SERVER__LISTEN", "127.0.0.1:0"), ("ADMIN__LISTEN", "127.0.0.1:0")]]
            .concat(),
    );
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("empty.pem"), "{}", ran.err);
    let ran = check(None, &[GOOD, ("SERVER__TLS__KEY", "/a.pem")]);
    ran.reports("SSE_GATEWAY__SERVER__TLS__KEY", "server.tls", &["certificate", "key"]);
    let ran = check(None, &[("TICKETS__SECRET_FILE", "/nowhere/secret")]);
    ran.reports("SSE_GATEWAY__TICKETS__SECRET_FILE", "tickets.secret_file", &["/nowhere/secret"]);
}

#[test]
fn errors_never_contain_a_secret() {
    let quoted = |text: &str| text.replace('X', MARKER);
    for file in [
        "[tickets]\nsecret = \"X",
        "[tickets]\nsecret = X",
        "[tickets]\nsecret = [\"X\"]\n",
        "[tickets]\nsecret = { X = 1 }\n",
        "[tickets]\nsecret_ = \"X\"\n",
        "[tickets]\nkeys = [{ kid = \"a\", algorithm = \"HS256\", secret = [\"X\"] }]\n",
        "[tickets]\nkeys = [{ kid = \"a\", algorithm = \"HS512\", secret = \"X\" }]\n",
        "[tickets]\nkeys = [{ kid = \"a\", algorithm = \"RS256\", public_key = \"X\" }]\n",
        "[tickets]\nkeys = \"X\"\n",
        "[redis]\nurl = \"redis://user:X@[bad\"\n",
        "[redis]\nurl = \"http://user:X@host\"\n",
        "api_keys = [{ sha256 = \"X\", scopes = [\"publish\"] }]\n",
        "api_keys = [\"X\"]\n",
        "api_keys = \"X\"\n",
    ] {
        assert_eq!(check(Some(&quoted(file)), &[]).code, Some(78), "{file}");
    }
    for (key, value) in [
        ("TICKETS__KEYS", "[{\"secret\": \"X\""),
        ("TICKETS__KEYS", "X"),
        ("TICKETS__KEYS", "[{\"algorithm\": \"HS256\", \"secret\": {\"X\": 1}}]"),
        ("API_KEYS", "[{\"sha256\": \"X\"}]"),
        ("API_KEYS", "X"),
        ("REDIS__URL", "X"),
        ("REDIS__URL", "redis://:X@host:port"),
        ("TICKETS__SECRT", "X"),
    ] {
        assert_eq!(check(None, &[(key, &quoted(value))]).code, Some(78), "{key}={value}");
    }
}

#[tokio::test]
async fn defaults_then_the_file_then_the_environment() {
    let redis = Redis::start().await;
    let dir = Dir::new();
    let other = free_port();
    let file = format!(
        "[server]\nlisten = \"127.0.0.1:{other}\"\nretry = \"7s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [redis]\nurl = \"{}\"\n[tickets]\nsecret_file = \"{}\"\n\
         audience = \"from the file\"\n[log]\nformat = \"json\"\n",
        redis.url(),
        dir.write("secret", &format!("{SECRET}\r\n")),
    );
    let path = dir.write("gateway.toml", &file);
    // The environment overrides only `audience`.
    let env = [("TICKETS__AUDIENCE", "sse-gateway"), ("DRAIN__DELAY", "0"), ("DRAIN__WINDOW", "0")];
    let mut gateway =
        command(&["serve", "--config", &path], &env).stderr(Stdio::null()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{other}");
    let again = || async {
        let ticket = crate::harness::ticket("1");
        let url = format!("{url}/events?ticket={}", ticket.jwt());
        let mut sse = Sse::try_connect(&url, &Default::default()).await.ok()?;
        let first = sse.event().await;
        (first.event == "sse.connected").then_some(first)
    };
    let first = eventually("a stream", again).await;
    // From the file: the address, the retry, and the path of the secret, without which the ticket
    // would be rejected.
    assert!(first.retry.is_some_and(|ms| (7000..=14_000).contains(&ms)), "{first}");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

#[test]
fn sample_file_matches_the_program() {
    let sample = run(&["check-config", "--sample"], &[]);
    assert_eq!(sample.code, Some(0), "{}", sample.err);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/gateway.toml");
    let file = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(
        file == sample.out,
        "write it again: sse-gateway check-config --sample > config/gateway.toml"
    );
    // The file is valid as it is, and with every line uncommented.
    assert_eq!(check(Some(&file), &[GOOD]).code, Some(0));
    let (in_force, _): (Vec<_>, Vec<_>) = file
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .partition(|line| !line.starts_with("# "));
    let ran = check(Some(&in_force.join("\n")), &[GOOD]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(in_force.iter().filter(|line| line.contains(" = ")).count() > 30);
}
