//! Snippets of the book that `tests/clients/docs.test.js` does not run.

use crate::file;

#[test]
fn rust_guide_contains_the_compiled_example() {
    let page = file("docs/guides/publishing-from-rust.md");
    let example = file("examples/publish.rs");
    assert!(page.contains(&format!("```rust\n{example}```\n")), "differs from examples/publish.rs");
}

/// Drizzle's schema is also executed, by `tests/clients/next/drizzle.test.js`. Prisma needs a
/// program of its own servers for that.
#[test]
fn schemas_of_the_outbox_have_the_same_columns() {
    let page = file("docs/guides/postgres-outbox.md");
    let block = |begin: &str, end: &str| {
        let (_, rest) = page.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
        rest.split_once(end).expect("its end").0.to_owned()
    };
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let quoted = |line: &str, mark: char| line.split(mark).nth(1).map(str::to_owned);
    let sql = block("CREATE TABLE sse_outbox (\n", "\n);");
    let sql: Vec<_> = sql.lines().filter_map(first).collect();
    assert!(sql.len() > 10, "{sql:?}");
    let drizzle = block("pgTable('sse_outbox', {\n", "\n});");
    let drizzle: Vec<_> = drizzle.lines().filter_map(|line| quoted(line, '\'')).collect();
    assert_eq!(drizzle, sql);
    let prisma = block("model SseOutbox {\n", "\n\n");
    let column = |line: &str| match line.contains("@map(") {
        true => quoted(line, '"'),
        false => first(line),
    };
    assert_eq!(prisma.lines().filter_map(column).collect::<Vec<_>>(), sql);
}
