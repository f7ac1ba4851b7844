//! A Debian PostgreSQL for one test, with the outbox table of the documentation.

use super::{GUARD, eventually, process};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use tokio_postgres::{Client, Config, NoTls};

/// The user of the tests, a superuser.
pub const ADMIN: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "hush-hush-password";

/// A server on 127.0.0.1, killed when dropped.
pub struct Postgres {
    port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Postgres {
    /// A running server with the outbox table of docs/guides/postgres-outbox.md.
    pub async fn start() -> Postgres {
        let postgres = Postgres::start_with(&[]).await;
        postgres.sql(&outbox_sql()).await;
        postgres
    }

    /// A running server without tables, with further arguments (`-c`, `ssl=on`).
    pub async fn start_with(arguments: &[&str]) -> Postgres {
        let port = process::free_port();
        let dir = std::env::temp_dir().join(format!("sse-test-{}-pg-{port}", std::process::id()));
        let copied = Command::new("cp").arg("-a").arg(template()).arg(&dir).status();
        assert!(copied.expect("cp").success());
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let postgres = Postgres { port, dir, arguments, child: Mutex::new(None) };
        postgres.start_again().await;
        postgres
    }

    /// Starts the server (again) on its port, with its data.
    pub async fn start_again(&self) {
        eventually("a Postgres that accepts connections", || async {
            if !self.is_running() {
                *self.child.lock().unwrap() = Some(self.spawn());
            }
            self.try_client().await.ok().map(drop)
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let mut command = program("postgres");
        command.arg("-D").arg(&self.dir).args(["-p", &self.port.to_string()]);
        let socket = format!("unix_socket_directories={}", self.dir.display());
        // Processes are killed here, not the machine: what is written survives without fsync.
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=40", &socket] {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.dir.join("log")).expect("a file");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        process::die_with_parent(&mut command);
        command.spawn().expect("postgres")
    }

    /// Whether the process runs.
    fn is_running(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills the server and its processes, as in a crash.
    pub fn kill9(&self) {
        let Some(mut child) = self.child.lock().unwrap().take() else { return };
        let backends = children(child.id());
        let _ = child.kill();
        for pid in backends {
            // SAFETY: kill takes two integers and touches no memory of ours.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        let _ = child.wait();
    }

    /// Sends SIGSTOP to the server and its processes: connections stay open, without replies.
    pub fn freeze(&self) {
        for pid in self.pids() {
            process::freeze(pid);
        }
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        for pid in self.pids() {
            process::signal(pid, libc::SIGCONT);
        }
    }

    fn pids(&self) -> Vec<u32> {
        let child = self.child.lock().unwrap();
        let pid = child.as_ref().expect("a running Postgres").id();
        std::iter::once(pid).chain(children(pid)).collect()
    }

    /// The value for the setting `sources.postgres.url`.
    pub fn url(&self) -> String {
        self.url_of(ADMIN, PASSWORD)
    }

    /// The same for another user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Copies a file into its data directory, for its own user only.
    pub fn install(&self, from: &Path, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let to = self.dir.join(name);
        std::fs::copy(from, &to).expect("a file");
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).expect("a file");
        if let Some((uid, gid)) = unprivileged() {
            chown(&to, Some(uid), Some(gid)).expect("root");
        }
    }

    /// A new connection.
    pub async fn client(&self) -> Client {
        self.try_client().await.expect("a connection to Postgres")
    }

    /// A new connection, or the error.
    pub async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let config: Config = self.url().parse().expect("a URL");
        let connecting = tokio::time::timeout(GUARD, config.connect(NoTls));
        let (client, connection) = connecting.await.expect("a reply of Postgres")?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements on a new connection, each in its own transaction unless they begin one.
    pub async fn sql(&self, statements: &str) {
        let done = self.client().await.batch_execute(statements).await;
        done.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// The number in the first column of the only row.
    pub async fn number(&self, query: &str) -> i64 {
        let row = self.client().await.query_one(query, &[]).await;
        row.unwrap_or_else(|e| panic!("{query}: {e:?}")).get(0)
    }

    /// Waits until a query for a number returns this one.
    pub async fn number_becomes(&self, query: &str, expected: i64) {
        eventually(&format!("{query} to return {expected}"), || async {
            (self.number(query).await == expected).then_some(())
        })
        .await;
    }

    /// Waits until the outbox has no rows.
    pub async fn outbox_is_empty(&self) {
        self.number_becomes("SELECT count(*) FROM sse_outbox", 0).await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            eprintln!("log of Postgres:\n{}\n", tail.join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A PgBouncer in transaction mode, killed when dropped.
pub struct Pooler {
    pub port: u16,
    child: Child,
}

impl Pooler {
    /// Starts one in front of a server, with a further setting.
    pub async fn start(postgres: &Postgres, setting: &str) -> Pooler {
        let port = process::free_port();
        let dir = postgres.dir.display();
        let ini = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user={ADMIN} password={PASSWORD}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\nlogfile = {dir}/pooler-{port}.log\n\
             {setting}\n",
            postgres.port
        );
        let file = postgres.dir.join(format!("pooler-{port}.ini"));
        std::fs::write(&file, ini).expect("a file");
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if let Some((uid, gid)) = unprivileged() {
            command.uid(uid).gid(gid);
        }
        command.arg("-q").arg(&file).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        process::die_with_parent(&mut command);
        let child = command.spawn().expect("pgbouncer: apt-get install pgbouncer");
        eventually("a pooler that listens", || async {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })
        .await;
        Pooler { port, child }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first block of SQL of the guide.
pub fn outbox_sql() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/postgres-outbox.md");
    let page = std::fs::read_to_string(path).expect("the guide");
    let (_, block) = page.split_once("```sql\n").expect("a block of SQL");
    block.split_once("```").expect("its end").0.to_owned()
}

/// Processes whose parent is this one.
fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let processes = std::fs::read_dir("/proc").expect("a Linux");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        fields.split(' ').nth(1) == Some(&parent)
    };
    pids.filter(is_child).collect()
}

/// A program of the newest PostgreSQL of Debian, as an unprivileged user: it refuses root.
fn program(name: &str) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.expect("a Debian PostgreSQL: apt-get install postgresql");
    let version = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.parse::<u32>().ok()
    };
    let newest = versions.filter_map(version).max().expect("a version");
    let mut command = Command::new(format!("/usr/lib/postgresql/{newest}/bin/{name}"));
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    command
}

/// Debian's user `postgres`, if the tests run as root.
fn unprivileged() -> Option<(u32, u32)> {
    // SAFETY: geteuid has no arguments and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let user = users.lines().find(|line| line.starts_with("postgres:")).expect("user postgres");
    let mut ids = user.split(':').skip(2).map(|id| id.parse().expect("a number"));
    Some((ids.next().expect("a user"), ids.next().expect("a group")))
}

/// An empty data directory. It is made once and kept, because copies are faster than initdb.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let name = format!("postgres-{}", program("postgres").get_program().display());
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.replace('/', "-"));
        if !kept.exists() {
            make_template(&kept);
        }
        kept
    })
}

fn make_template(kept: &Path) {
    // Its own user must be able to reach the directory, so it is made in /tmp.
    let dir = std::env::temp_dir().join(format!("sse-test-{}-pg", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    if let Some((uid, gid)) = unprivileged() {
        chown(&dir, Some(uid), Some(gid)).expect("root");
    }
    let password = dir.with_extension("password");
    std::fs::write(&password, PASSWORD).expect("a file");
    let made = program("initdb")
        .arg("-D")
        .arg(&dir)
        .args(["-U", ADMIN, "--auth=scram-sha-256", "--no-sync", "-E", "UTF8"])
        .arg("--pwfile")
        .arg(&password)
        .stdin(Stdio::null())
        .output()
        .expect("initdb");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::remove_file(password).expect("a file");
    // Another process may do the same.
    let copy = kept.with_extension(std::process::id().to_string());
    let copied = Command::new("cp").arg("-a").arg(&dir).arg(&copy).status();
    assert!(copied.expect("cp").success());
    std::fs::remove_dir_all(&dir).expect("a directory");
    if std::fs::rename(&copy, kept).is_err() {
        std::fs::remove_dir_all(&copy).expect("a directory");
    }
}
