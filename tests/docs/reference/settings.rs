//! `docs/reference/settings.md`

use std::fmt::Write;

use sse_gateway::settings::table::{KEYS, Key};

use super::{assemble, code, table};

const INTRODUCTION: &str = "\
Settings come from the defaults, then from the TOML file given by `--config`, then from environment
variables. The later source wins.

| form | example |
|---|---|
| TOML file | `[server]` and below it `listen = \"[::]:8080\"` |
| environment variable | `SSE_GATEWAY__SERVER__LISTEN=[::]:8080` |

The variable of a key is `SSE_GATEWAY__`, the section, `__` and the key, in capitals:
`server.tls.key` is `SSE_GATEWAY__SERVER__TLS__KEY`, and `api_keys` is `SSE_GATEWAY__API_KEYS`.

- **Durations** need a unit: `250ms`, `15s`, `5m`, `24h`.
- **Sizes** are bytes, or have a unit: `64KiB`, `16MiB`.
- **Lists** in a variable are separated by commas; lists of tables are JSON.
- **Rules** for single channels (`channels`) override settings of `history`
  ([Channel rules](../guides/channel-rules.md)).
- **Errors** are reported all at once, with the line of the file or the name of the variable, and
  the process exits with status 78.
  `sse-gateway check-config --config FILE` reports them without starting.
- **Secrets** belong in environment variables or in files of their own, not in the configuration
  file. They are never logged.

[config/gateway.toml](../../config/gateway.toml) contains every key with its default (written by
`sse-gateway check-config --sample`).
[config/production.toml](../../config/production.toml) is a starting point for production.

Ticket keys, API keys and the certificate are [reloaded without a restart](../guides/key-rotation.md).
All other settings need a restart.";

fn section_of(key: &Key) -> &'static str {
    key.name.rsplit_once('.').map_or("", |(section, _)| section)
}

pub fn page() -> String {
    let mut sections: Vec<&str> = Vec::new();
    for key in KEYS {
        if !sections.contains(&section_of(key)) {
            sections.push(section_of(key));
        }
    }
    let mut out = String::new();
    for section in sections {
        let keys = KEYS.iter().filter(|key| section_of(key) == section);
        let row = |k: &Key| [code(k.name), code(k.default), k.help.replace('|', "\\|")];
        let title = if section.is_empty() { "api_keys and channels" } else { section };
        let rows = table(["key", "default", "meaning"], keys.map(row));
        let _ = write!(out, "## {title}\n\n{rows}\n");
    }
    assemble("Settings", &[INTRODUCTION, &out])
}
