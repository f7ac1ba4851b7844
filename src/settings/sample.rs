//! The commented sample file, written from the table so that it cannot lie.

use super::table::KEYS;

/// `config/gateway.toml`: every key with its meaning and its default, commented out.
pub fn toml() -> String {
    let mut out = String::from(
        "# Every setting of the gateway with its default. A line without the leading `#` sets it; the environment\n\
         # (SSE_GATEWAY__<SECTION>__<KEY>) comes before this file. Secrets belong into the environment or into files of\n\
         # their own. Written by `sse-gateway check-config --sample`.\n",
    );
    // Arrays of tables at the top level come first: TOML would count them to the section above them.
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
        out.push_str(&format!("# {}\n#{name} = {}\n", key.help, key.default));
    }
    out
}
