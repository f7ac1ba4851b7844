//! What a benchmark ran on.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine, as it says itself.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// Cores.
    pub cores: usize,
    /// Memory, GiB.
    pub memory_gib: u64,
    /// Kernel.
    pub kernel: String,
    /// Distribution.
    pub system: String,
    /// `ulimit -Hn`.
    pub open_files: String,
    /// `git describe` of the folder that it was started in, if it is one.
    pub commit: Option<String>,
    /// Load average of the last minute and of the last five, before the run: what else went on.
    pub load_average: String,
    /// The day.
    pub date: String,
}

impl Machine {
    /// Reads it.
    pub fn read() -> Self {
        let line = |file: &str, start: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix(start).map(str::to_owned));
            found.unwrap_or_default().trim_matches([' ', '\t', ':', '=', '"']).to_owned()
        };
        let kib: u64 =
            line("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            cpu: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib / (1 << 20),
            kernel: line("/proc/version", "Linux version ")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            system: line("/etc/os-release", "PRETTY_NAME"),
            open_files: first_line("sh", &["-c", "ulimit -Hn"]).unwrap_or_default(),
            commit: first_line("git", &["describe", "--always", "--dirty"])
                .filter(|line| !line.starts_with("fatal")),
            load_average: fs::read_to_string("/proc/loadavg")
                .map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "))
                .unwrap_or_default(),
            date: first_line("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
        }
    }
}

/// The first line that a command prints, None if it is not there or prints nothing.
pub fn first_line(command: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(command).args(args).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}
