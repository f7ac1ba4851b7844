//! `completions` and `man` contain every command and option, and are valid input for their tools.

use crate::config::run;
use crate::harness::keys::Dir;
use clap::CommandFactory;
use sse_gateway::cli::args::Cli;
use std::process::Command;

/// Each command with its long options.
fn commands() -> Vec<(String, Vec<String>)> {
    let longs = |c: &clap::Command| {
        c.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect()
    };
    Cli::command().get_subcommands().map(|c| (c.get_name().to_owned(), longs(c))).collect()
}

#[test]
fn completions_contain_every_command_and_option() {
    let commands = commands();
    assert!(commands.len() >= 9, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell], &[]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        for (command, longs) in &commands {
            assert!(ran.out.contains(command.as_str()), "{shell}: {command}");
            let missing: Vec<_> =
                longs.iter().filter(|long| !ran.out.contains(long.as_str())).collect();
            assert!(missing.is_empty(), "{shell}: {command}: {missing:?}");
        }
    }
    let unknown = run(&["completions", "tcsh"], &[]);
    assert!(unknown.code == Some(2) && unknown.err.contains("possible values"), "{}", unknown.err);
}

#[test]
fn bash_completes_options_with_the_script() {
    let dir = Dir::new();
    dir.write("completions", &run(&["completions", "bash"], &[]).out);
    let script = "source ./completions; COMP_WORDS=(sse-gateway trace --ch); COMP_CWORD=2; \
                  $(complete -p sse-gateway | sed 's/.*-F \\([^ ]*\\).*/\\1/') \
                  sse-gateway --ch trace; echo \"${COMPREPLY[*]}\"";
    let done =
        Command::new("bash").args(["-euc", script]).current_dir(&dir).output().expect("bash");
    let received = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "--channel", "{received}");
}

#[test]
fn man_pages_document_every_command_and_option() {
    let page = run(&["man"], &[]);
    assert_eq!((page.code, page.err.as_str()), (Some(0), ""));
    assert!(page.out.contains(".TH sse-gateway 1"), "{}", page.out);
    // roff writes a hyphen as \-.
    let plain = |page: &str| page.replace("\\-", "-");
    let dir = Dir::new();
    assert_eq!(run(&["man", "--dir", &dir.text("man")], &[]).code, Some(0));
    for (command, longs) in commands() {
        assert!(plain(&page.out).contains(&format!("sse-gateway-{command}(1)")), "{command}");
        let own = plain(&dir.read(&format!("man/sse-gateway-{command}.1")));
        let missing: Vec<_> =
            longs.iter().filter(|long| !own.contains(&format!("--{long}"))).collect();
        assert!(missing.is_empty(), "{command}: {missing:?}");
    }
    assert_eq!(dir.read("man/sse-gateway.1"), page.out);
    let no_place = run(&["man", "--dir", "/dev/null/x"], &[]);
    assert!(no_place.code == Some(1) && !no_place.err.is_empty());
}
