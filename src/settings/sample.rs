//! The commented sample file, written from the table of settings.

use super::table::KEYS;

const MAX_COLUMNS: usize = 100;

/// `config/gateway.toml`: every key with its meaning and its default, commented out.
pub fn toml() -> String {
    let mut out = String::from(
        "# Every setting of the gateway with its default.\n\
         # Remove the leading `#` of a line to set it. Environment variables override this file:\n\
         # SSE_GATEWAY__<SECTION>__<KEY>. Keep secrets in the environment or in separate files.\n\
         # Written by `sse-gateway check-config --sample`.\n",
    );
    // Top-level keys come first: TOML assigns keys below a section header to that section.
    let (top, sections): (Vec<_>, Vec<_>) = KEYS.iter().partition(|k| !k.name.contains('.'));
    let mut section = "";
    for key in top.into_iter().chain(sections) {
        let (head, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if head != section {
            out.push_str(&format!("\n[{head}]\n"));
            section = head;
        } else if head.is_empty() {
            out.push('\n');
        }
        out.push_str(&comment(key.help));
        out.push_str(&format!("#{name} = {}\n", key.default));
    }
    out
}

/// A text as comment lines of at most 100 columns.
fn comment(text: &str) -> String {
    let (mut out, mut columns) = (String::from("#"), 1);
    for word in text.split(' ') {
        let width = 1 + word.chars().count();
        if columns + width > MAX_COLUMNS {
            out.push_str("\n#");
            columns = 1;
        }
        out.push(' ');
        out.push_str(word);
        columns += width;
    }
    out.push('\n');
    out
}
