//! Settings: every fault at once, each with its fix, and no secret told.

use crate::harness::gateway::PROGRAM;
use crate::harness::keys::{Dir, api_keys};
use crate::harness::process::{die_with_parent, free_port};
use crate::harness::ticket::SECRET;
use crate::harness::{Redis, Sse, eventually};
use std::process::{Command, Stdio};

/// A word that must never come out again.
const MARKER: &str = "hushhush-marker";

/// What a command printed, and its exit code.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Whether a line of the faults begins with this key and has these words.
    fn faults(&self, key: &str, words: &[&str]) {
        let found = self.err.lines().find(|line| line.starts_with(&format!("{key}: ")));
        let line = found.unwrap_or_else(|| panic!("no fault of {key} in:\n{}", self.err));
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
            assert!(text.contains("; "), "no fix: {line}");
        }
    }
    assert!(!ran.err.contains(MARKER) && !ran.out.contains(MARKER), "a secret is told: {}{}", ran.err, ran.out);
    ran
}

/// The one setting that has no default.
pub const GOOD: (&str, &str) = ("TICKETS__SECRET", SECRET);

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let ran = check(None, &[GOOD]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(!ran.out.contains(SECRET));
    assert_eq!(check(Some("[tickets]\nsecret = \"a-secret-of-more-than-thirty-two-bytes\"\n"), &[]).code, Some(0));
    let keys = api_keys(&[("key", "publish"), ("another", "admin")]);
    assert_eq!(check(None, &[GOOD, ("API_KEYS", &keys)]).code, Some(0));
    // What only costs speed is a warning.
    let ran = check(None, &[GOOD, ("LIMITS__QUEUE_BYTES", "1KiB")]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.starts_with("warning: limits.queue_bytes"), "{}", ran.err);
    // A short secret works, with a warning that does not show it.
    let ran = check(None, &[("TICKETS__SECRET", MARKER)]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.contains("32 bytes"), "{}", ran.err);
}

#[test]
fn all_faults_are_told_at_once() {
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
        bare = "maybe"
        [cors]
        allowed_origins = ["example.org/path"]
    "#;
    let env = [
        ("SERVER__HEARTBET", "1s"),
        ("TICKETS__LEEWAY", "1h"),
        ("TICKETS__DEFAULT_TOPICS", "[\"a b\"]"),
        ("LOG__FORMAT", "xml"),
        ("LOG__LEVEL", "very=loud=x"),
        ("ADMIN__LISTEN", "localhost"),
        ("LIMITS__QUEUE_BYTES", "10"),
        ("DRAIN__WINDOW", "-1s"),
    ];
    let ran = check(Some(file), &env);
    for (key, words) in [
        ("server.listn", &["server.listen"][..]),
        ("SSE_GATEWAY__SERVER__HEARTBET", &["server.heartbeat"]),
        ("server.heartbeat", &["unit"]),
        ("server.workers", &["whole number"]),
        ("server.tls", &["both"]),
        ("api_keys", &["sha256"]),
        ("redis.url", &["redis://"]),
        ("redis.pool_size", &["from 1"]),
        ("history.max_len", &["whole number"]),
        ("history.max_event_bytes", &["KiB"]),
        ("history.retention", &["unit"]),
        ("nonsense", &["no setting"]),
        ("publishers.bare", &["record", "relay", "off"]),
        ("cors.allowed_origins", &["origin"]),
        ("SSE_GATEWAY__TICKETS__LEEWAY", &["5s"]),
        ("SSE_GATEWAY__TICKETS__DEFAULT_TOPICS", &["topic"]),
        ("SSE_GATEWAY__LOG__FORMAT", &["json"]),
        ("SSE_GATEWAY__LOG__LEVEL", &["info"]),
        ("SSE_GATEWAY__ADMIN__LISTEN", &["PORT"]),
        ("SSE_GATEWAY__LIMITS__QUEUE_BYTES", &["KiB"]),
        ("SSE_GATEWAY__DRAIN__WINDOW", &["unit"]),
    ] {
        ran.faults(key, words);
    }
    // A key is missing, too: that is told beside all others.
    ran.faults("tickets.secret", &["SSE_GATEWAY__TICKETS__SECRET"]);
}

#[test]
fn serve_does_not_start_with_a_fault() {
    let none = run(&["serve"], &[]);
    assert_eq!(none.code, Some(78));
    none.faults("tickets.secret", &["openssl rand -hex 32"]);
    let two = run(&["serve"], &[GOOD, ("SERVER__RETRY", "soon"), ("SERVER__LISTEN", "8080")]);
    assert_eq!(two.code, Some(78));
    two.faults("SSE_GATEWAY__SERVER__RETRY", &[]);
    two.faults("SSE_GATEWAY__SERVER__LISTEN", &[]);
    assert!(!two.err.contains(SECRET));
    let missing = run(&["serve", "--config", "/nowhere/gateway.toml"], &[GOOD]);
    assert_eq!(missing.code, Some(78));
    missing.faults("/nowhere/gateway.toml", &["read"]);
    // A port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run(&["serve"], &[GOOD, ("SERVER__LISTEN", &address), ("ADMIN__LISTEN", "127.0.0.1:0")]);
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("server.listen") && ran.err.contains(&address), "{}", ran.err);
}

#[test]
fn files_that_cannot_be_read_or_understood() {
    for (file, line) in [("[server", "line 1"), ("a = 1\n[server]\nlisten = \"x\n", "line 3"), ("= 1", "line 1")] {
        let ran = check(Some(file), &[GOOD]);
        assert!(ran.err.contains("gateway.toml: ") && ran.err.contains(line), "{}", ran.err);
    }
    let dir = Dir::new();
    std::fs::write(dir.path("binary.toml"), b"\xff\xfe\x00").unwrap();
    for path in [dir.text("binary.toml"), dir.text("missing.toml"), dir.text("")] {
        let ran = run(&["check-config", "--config", &path], &[GOOD]);
        assert_eq!(ran.code, Some(78), "{path}: {}", ran.err);
        assert!(ran.err.starts_with(&path), "{}", ran.err);
    }
    let certificate = dir.write("empty.pem", "");
    let tls = [GOOD, ("SERVER__TLS__CERTIFICATE", &*certificate), ("SERVER__TLS__KEY", &*certificate)];
    let ran =
        run(&["serve"], &[&tls[..], &[("SERVER__LISTEN", "127.0.0.1:0"), ("ADMIN__LISTEN", "127.0.0.1:0")]].concat());
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("empty.pem"), "{}", ran.err);
    let ran = check(None, &[GOOD, ("SERVER__TLS__KEY", "/a.pem")]);
    ran.faults("server.tls", &["certificate", "key"]);
    let ran = check(None, &[("TICKETS__SECRET_FILE", "/nowhere/secret")]);
    ran.faults("SSE_GATEWAY__TICKETS__SECRET_FILE", &["/nowhere/secret"]);
}

#[test]
fn no_secret_is_ever_told() {
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
        "[server]\nlisten = \"127.0.0.1:{other}\"\nretry = \"7s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [redis]\nurl = \"{}\"\n[tickets]\nsecret_file = \"{}\"\naudience = \"from the file\"\n[log]\nformat = \"json\"\n",
        redis.url(),
        dir.write("secret", &format!("{SECRET}\r\n")),
    );
    let path = dir.write("gateway.toml", &file);
    // The environment has the last word on `audience` only.
    let env = [("TICKETS__AUDIENCE", "sse-gateway"), ("DRAIN__DELAY", "0"), ("DRAIN__WINDOW", "0")];
    let mut gateway = command(&["serve", "--config", &path], &env).stderr(Stdio::null()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{other}");
    let again = || async {
        let ticket = crate::harness::ticket("1");
        let url = format!("{url}/events?ticket={}", ticket.jwt());
        let mut sse = Sse::try_connect(&url, &Default::default()).await.ok()?;
        let first = sse.event().await;
        (first.event == "sse.connected").then_some(first)
    };
    let first = eventually("a stream", again).await;
    // From the file: the address, the retry, and (else it would not verify) the secret in its own file.
    assert!(first.retry.is_some_and(|ms| (7000..=14_000).contains(&ms)), "{first}");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

#[test]
fn the_sample_file_is_that_of_the_program() {
    let sample = run(&["check-config", "--sample"], &[]);
    assert_eq!(sample.code, Some(0), "{}", sample.err);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/gateway.toml");
    let file = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(file == sample.out, "write it again: sse-gateway check-config --sample > config/gateway.toml");
    // As it is, and with every line put into force, it is a good configuration.
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
