//! `completions` and `man`, generated from the definition of the command line.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs, ManArgs};

const NAME: &str = "sse-gateway";

/// Prints the completions for a shell.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut text);
    ended(io::stdout().write_all(&text))
}

/// Prints the man page, or writes one for each command into a directory.
pub fn man(args: &ManArgs) -> ExitCode {
    // `--help` of each command contains the same text.
    let command = || Cli::command().name(NAME).disable_help_subcommand(true);
    match &args.dir {
        Some(dir) => ended(
            std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command(), dir)),
        ),
        None => {
            let mut page = Vec::new();
            ended(
                clap_mangen::Man::new(command())
                    .render(&mut page)
                    .and_then(|()| io::stdout().write_all(&page)),
            )
        }
    }
}

fn ended(done: io::Result<()>) -> ExitCode {
    match done {
        // `| head` closes the pipe, which is not an error.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
