//! Rust in the book is Rust that compiles. Other languages are run by `tests/clients/docs.test.js`.

use crate::file;

#[test]
fn rust_guide_contains_the_compiled_example() {
    let page = file("docs/guides/publishing-from-rust.md");
    let example = file("examples/publish.rs");
    assert!(page.contains(&format!("```rust\n{example}```\n")), "differs from examples/publish.rs");
}
