//! `docs/reference/command-line.md`

use std::fmt::Write;

use clap::CommandFactory;
use sse_gateway::cli::args::{Cli, EX_CONFIG, EX_OSERR, EX_UNAVAILABLE};

use super::{assemble, code, table};

const INTRODUCTION: &str = "\
`sse-gateway <command> --help` prints the same text, and `sse-gateway man` a man page.

Shell completions and man pages:

```sh
sse-gateway completions bash > /etc/bash_completion.d/sse-gateway # or zsh, fish, elvish, powershell
sse-gateway man --dir /usr/local/share/man/man1
```";

fn statuses() -> String {
    let (unavailable, config) = (EX_UNAVAILABLE.to_string(), EX_CONFIG.to_string());
    let system = EX_OSERR.to_string();
    let rows = [
        ["0", "all", "success; `serve`: drained after SIGTERM or SIGINT"],
        ["1", "`publish`, `tail`", "the event was not published; the stream cannot be resumed"],
        ["1", "`trace`", "the event is in no log"],
        ["2", "all", "the command line is invalid; `trace`: the id or the channel is"],
        [&unavailable, "`trace`, `check-config --connect`", "Redis is unavailable"],
        [&system, "`serve`, `dev`", "a listener cannot be bound, or a thread cannot be started"],
        [
            &config,
            "all",
            "the configuration is invalid; `check-config --connect`: Redis refuses the user, or the \
             gateway cannot use it",
        ],
        ["130", "`serve`, `dev`", "a second signal arrived while draining"],
    ];
    let rows = rows.map(|row| [code(row[0]), row[1].to_owned(), row[2].to_owned()]);
    format!("## Exit status\n\n{}", table(["status", "command", "meaning"], rows))
}

pub fn page() -> String {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let mut out = format!("```text\n{}```\n", help(&mut cli));
    let names: Vec<String> = cli.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names {
        let command = cli.find_subcommand_mut(&name).expect("it was listed");
        let _ = write!(out, "\n## {name}\n\n```text\n{}```\n", help(command));
    }
    assemble("Command line", &[INTRODUCTION, &out, &statuses()])
}

fn help(command: &mut clap::Command) -> String {
    let text = command.render_long_help().to_string();
    let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
