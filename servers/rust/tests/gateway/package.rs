//! The packed crate in an empty project, with every example of its README.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::servers::{Stream, is_id, var};

/// Runs the examples that are functions.
const MAIN: &str = r#"
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let client = redis::Client::open("redis://127.0.0.1:6379").unwrap();
    let sse = sse_gateway_backend::SseGateway::new(Default::default()).unwrap();
    let mut redis = client.get_connection().unwrap();
    publishing::publish(&sse, &mut redis).unwrap();
    errors::publish_report(&sse, &mut redis);
    asynchronous::publish_async(&sse, &client).await.unwrap();
    undelivered::work(&sse, &mut redis).unwrap();
}
"#;

/// The blocks of the README: (language, code).
fn blocks(readme: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut parts = readme.split("\n```").skip(1);
    while let Some(block) = parts.next() {
        let (language, code) = block.split_once('\n').expect("code");
        blocks.push((language, format!("{code}\n")));
        parts.next();
    }
    blocks
}

fn run(program: &mut Command) -> String {
    let done = program.stderr(Stdio::inherit()).output().expect("a program");
    assert!(done.status.success(), "{program:?}");
    String::from_utf8(done.stdout).expect("text")
}

fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(folder);
    command
}

/// Adapts code to the servers of the tests.
fn local(code: &str) -> String {
    code.replace("redis://127.0.0.1:6379", &var("SSE_TEST_REDIS"))
        .replace("from_secs(30)", "from_secs(1)")
}

/// The manifest of an application: what the README shows, with the features that the examples need
/// and the tests have compiled already.
fn manifest(dependencies: &str) -> String {
    let redis = r#"{ version = "1.8", default-features = false, features = ["cluster"] }"#;
    let dependencies = dependencies
        .replace("\"1.8\"", redis)
        .replace("\"../servers/rust\"", "\"sse-gateway-backend-0.1.0\", features = [\"tokio\"]");
    let tokio =
        r#"tokio = { version = "1", default-features = false, features = ["macros", "rt"] }"#;
    let package = "[package]\nname = \"application\"\nedition = \"2024\"\n[workspace]";
    format!("{package}\n{dependencies}{tokio}\n")
}

/// Unpacks the packed crate in a folder.
fn unpack(root: &Path, folder: &Path) {
    let target = folder.join("packages");
    let options = ["--quiet", "--no-verify", "--allow-dirty", "--offline", "--target-dir"];
    run(cargo(root, &["package"]).args(options).arg(&target));
    let archive = target.join("package/sse-gateway-backend-0.1.0.crate");
    run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder));
}

/// A program with a module for each example, whose functions are public.
fn program(examples: &[(&str, String)]) -> String {
    let public =
        |code: &str| code.replace("\nfn ", "\npub fn ").replace("\nasync fn", "\npub async fn");
    let module = |(name, code): &(&str, String)| format!("mod {name} {{\n{}}}\n", public(code));
    examples.iter().map(module).collect::<String>() + MAIN
}

#[test]
fn readme_runs_in_an_empty_project() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = env::temp_dir().join(format!("sse-rust-{}", std::process::id()));
    fs::create_dir_all(folder.join("src/bin")).unwrap();
    unpack(root, &folder);
    let readme = fs::read_to_string(folder.join("sse-gateway-backend-0.1.0/README.md")).unwrap();
    let blocks = blocks(&readme);
    let languages: Vec<_> = blocks.iter().map(|(language, _)| *language).collect();
    assert_eq!(languages, ["rust", "toml", "rust", "rust", "rust", "rust"]);
    let [first, dependencies, asynchronous, publishing, errors, undelivered] =
        <[_; 6]>::try_from(blocks).unwrap().map(|(_, code)| code);
    let rest = program(&[
        ("asynchronous", asynchronous),
        ("publishing", publishing),
        ("errors", errors),
        ("undelivered", undelivered),
    ]);
    fs::write(folder.join("Cargo.toml"), manifest(&dependencies)).unwrap();
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    fs::write(folder.join("src/bin/first.rs"), local(&first)).unwrap();
    fs::write(folder.join("src/bin/rest.rs"), local(&rest)).unwrap();

    let start = |name| cargo(&folder, &["run", "--quiet", "--offline", "--bin", name]);
    let output = run(&mut start("first"));
    let (ticket, id) = output.trim().split_once(' ').expect("a ticket and an id");
    assert!(is_id(id), "{output}");
    let stream = Stream::open("SSE_TEST_GATEWAY", ticket);
    assert_eq!(stream.connected["topics"], serde_json::json!(["news", "team-*"]));
    drop(stream);

    let mut rest = start("rest").stdout(Stdio::piped()).spawn().expect("a program");
    let mut lines = BufReader::new(rest.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "too-large false"));
    assert!(lines.any(|line| line.starts_with("email user:42:events shipped")));
    rest.kill().unwrap();
    rest.wait().unwrap();
    fs::remove_dir_all(folder).unwrap();
}
