//! Connecting to Postgres: TLS, and errors that name fault and fix without the password.

use crate::config::{GOOD, Ran, run};
use crate::harness::keys::Dir;
use crate::harness::postgres::{PASSWORD, Pooler, outbox_sql};
use crate::harness::{Gateway, Postgres, Redis, user};
use crate::postgres_outbox::{insert, with_outbox};

fn check(redis: &Redis, url: &str, more: &[(&str, &str)]) -> Ran {
    let redis = redis.url();
    let timeout = ("SOURCES__POSTGRES__TIMEOUT", "30s");
    let env = [GOOD, timeout, ("REDIS__URL", &redis), ("SOURCES__POSTGRES__URL", url)];
    run(&["check-config", "--connect"], &[&env, more].concat())
}

/// Asserts that the check fails with these words, without a password.
fn assert_fails(ran: &Ran, code: i32, words: &[&str]) {
    let text = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
    assert!(!text.contains("hush"), "{text}");
}

#[tokio::test]
async fn tls_checks_the_certificate() {
    let (redis, dir) = (Redis::start().await, Dir::new());
    dir.identities();
    let postgres = Postgres::start_with(&[]).await;
    for name in ["server.pem", "server.key"] {
        postgres.install(&dir.path(name), name);
    }
    postgres.sql("ALTER SYSTEM SET ssl_cert_file = 'server.pem'").await;
    postgres.sql("ALTER SYSTEM SET ssl_key_file = 'server.key'").await;
    postgres.sql("ALTER SYSTEM SET ssl = on").await;
    postgres.kill9();
    postgres.start_again().await;
    postgres.sql(&outbox_sql()).await;
    let url = format!("{}?sslmode=require", postgres.url());
    let ca = dir.text("ca.pem");
    let gateway = with_outbox(&redis, &postgres)
        .env("SOURCES__POSTGRES__URL", &url)
        .env("SOURCES__POSTGRES__CA_FILE", &ca)
        .start()
        .await;
    let mut stream = gateway.connect("1").await;
    postgres.sql(&insert(&user("1"), "a", "1")).await;
    assert_eq!(stream.app_event().await.event, "a");
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE ssl AND application_name = 'sse-gateway'";
    assert_eq!(postgres.number(encrypted).await, 1);
    // Without the authority, and with a name that is not in the certificate.
    let tls = "the TLS connection failed; set sources.postgres.ca_file";
    assert_fails(&check(&redis, &url, &[]), 78, &[tls]);
    let other = url.replace("127.0.0.1", "localhost");
    assert_fails(&check(&redis, &other, &[("SOURCES__POSTGRES__CA_FILE", &ca)]), 78, &[tls]);
    let found = check(&redis, &url, &[("SOURCES__POSTGRES__CA_FILE", &ca)]);
    assert_eq!(found.code, Some(0), "{}{}", found.out, found.err);
    // A server without TLS.
    let plain = Postgres::start_with(&[]).await;
    let url = format!("{}?sslmode=verify-full", plain.url());
    assert_fails(&check(&redis, &url, &[]), 78, &[tls, "server does not support TLS"]);
}

#[tokio::test]
async fn faults_of_table_and_rights_are_named_with_their_fix() {
    let (redis, postgres) = (Redis::start().await, Postgres::start_with(&[]).await);
    let url = postgres.url();
    let missing = "sse_outbox: the table does not exist for user tester";
    assert_fails(&check(&redis, &url, &[]), 78, &[missing, "docs/guides/postgres-outbox.md"]);
    postgres.sql(&outbox_sql()).await;
    let found = check(&redis, &url, &[]);
    assert_eq!(found.code, Some(0), "{}{}", found.out, found.err);
    assert!(found.out.contains("reads the table sse_outbox at 127.0.0.1:"), "{}", found.out);

    postgres.sql("CREATE USER reader PASSWORD 'hush'; GRANT SELECT ON sse_outbox TO reader").await;
    let reader = postgres.url_of("reader", "hush");
    let grant = "run: GRANT UPDATE, DELETE ON sse_outbox TO \"reader\"";
    assert_fails(&check(&redis, &reader, &[]), 78, &[grant]);
    postgres.sql("GRANT UPDATE ON sse_outbox TO reader").await;
    let mark = [("SOURCES__POSTGRES__PUBLISHED", "mark")];
    assert_eq!(check(&redis, &reader, &mark).code, Some(0), "DELETE is not needed");
    // Policies would hide rows silently.
    postgres.sql("ALTER TABLE sse_outbox ENABLE ROW LEVEL SECURITY").await;
    let gateway = with_outbox(&redis, &postgres).env("SOURCES__POSTGRES__URL", &reader);
    let gateway = gateway.env("SOURCES__POSTGRES__PUBLISHED", "mark").start().await;
    gateway.wait_for_log("row-level security may hide rows").await;

    postgres.sql("ALTER TABLE sse_outbox DROP COLUMN key, DROP COLUMN published_at").await;
    let add = "run: ALTER TABLE sse_outbox ADD COLUMN key text NOT NULL DEFAULT gen_random_uuid()";
    assert_fails(&check(&redis, &url, &mark), 78, &[add, "column published_at is missing"]);
    postgres.sql("ALTER DATABASE postgres SET default_transaction_read_only = on").await;
    let standby = "is a standby or read-only; name the primary in sources.postgres.url";
    assert_fails(&check(&redis, &url, &[]), 78, &[standby]);
}

/// PgBouncer in transaction mode loses notifications.
#[tokio::test]
async fn pooler_is_refused() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let dropped = "ignore_startup_parameters = options";
    // One that refuses session settings, and one that drops them.
    for setting in ["", dropped] {
        let pooler = Pooler::start(&postgres, setting).await;
        let url = postgres.url().replace(&postgres.port().to_string(), &pooler.port.to_string());
        let words = ["is a connection pooler", "name the server itself"];
        assert_fails(&check(&redis, &url, &[]), 78, &words);
    }
}

#[tokio::test]
async fn wrong_password_and_absent_server_differ() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let wrong = postgres.url().replace(PASSWORD, "hush-wrong");
    let refused = "refuses this user; check user, password and database in sources.postgres.url";
    assert_fails(&check(&redis, &wrong, &[]), 78, &[refused, "SQLSTATE 28P01"]);
    let gateway = with_outbox(&redis, &postgres).env("SOURCES__POSTGRES__URL", &wrong);
    let gateway = gateway.env("LOG__LEVEL", "debug").start().await;
    gateway.wait_for_log(refused).await;
    gateway.metric_reaches("sse_source_errors_total", &[("source", "postgres")], 1.0).await;
    assert!(!gateway.log_contains("hush"), "{}", gateway.log_text());
    // The gateway itself works.
    let mut stream = gateway.connect("1").await;
    redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.event, "a");
    let url = postgres.url();
    postgres.kill9();
    assert_fails(&check(&redis, &url, &[]), 69, &["is unavailable", "127.0.0.1:"]);
}

#[tokio::test]
async fn table_that_is_created_later_is_read() {
    let (redis, postgres) = (Redis::start().await, Postgres::start_with(&[]).await);
    let gateway = with_outbox(&redis, &postgres).start().await;
    gateway.wait_for_log("the table does not exist").await;
    postgres.sql(&outbox_sql()).await;
    let mut stream = gateway.connect("1").await;
    postgres.sql(&insert(&user("1"), "a", "1")).await;
    assert_eq!(stream.app_event().await.event, "a");
}

#[tokio::test]
async fn gateway_without_the_source_opens_no_connection() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let (_, metrics) = gateway.admin_get("/metrics").await;
    assert!(!metrics.contains("sse_source_reader{"), "{metrics}");
    let leases: Vec<String> = redis.command(&["KEYS", "sse:lease:source:*"]).await;
    assert_eq!(leases, [""; 0]);
}
