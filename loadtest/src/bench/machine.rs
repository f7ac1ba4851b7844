//! Description of the machine of a benchmark.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Machine of a benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// Number of CPU cores.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub system: String,
    /// Hard limit of open files (`ulimit -Hn`).
    pub open_files: String,
    /// `git describe` of the working directory, if it belongs to a repository.
    pub commit: Option<String>,
    /// Load average of the last one and five minutes before the run.
    pub load_average: String,
    /// Date of the run (UTC).
    pub date: String,
}

impl Machine {
    /// Reads the description from the system.
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

/// Returns the first line that a command prints, or `None` if it cannot be run or prints nothing.
pub fn first_line(command: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(command).args(args).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}
