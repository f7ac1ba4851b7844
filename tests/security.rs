//! Checks that every test that SECURITY.md names exists.

use std::{fs, path::Path};

#[test]
fn every_threat_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let mut rows = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat")) {
        rows += 1;
        let tests: Vec<_> = row.split('`').filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "no test in: {row}");
        for test in tests {
            let (module, name) = test.split_once("::").expect("a test name");
            let code = fs::read_to_string(root.join(format!("tests/gateway/{module}.rs")))
                .unwrap_or_default();
            assert!(
                code.contains(&format!("fn {name}()")),
                "SECURITY.md names {test}, which does not exist"
            );
        }
    }
    assert!(rows >= 20, "the table was not found");
}
