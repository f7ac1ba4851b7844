//! CPU and memory usage of the server's processes, Redis, the kernel and this tool. Read from /proc
//! and from Redis' INFO.

use std::collections::HashSet;
use std::fs;

use serde::Serialize;

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time in user mode.
    pub user_s: f64,
    /// Time in the kernel.
    pub system_s: f64,
}

impl Cpu {
    /// Returns the sum of user and system time in seconds.
    pub fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }

    /// Returns the CPU time used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { user_s: self.user_s - before.user_s, system_s: self.system_s - before.system_s }
    }
}

/// Processes including their descendants.
#[derive(Clone, Debug)]
pub struct Processes(Vec<u32>);

impl Processes {
    /// Finds the processes and all their descendants. Fails if a process does not exist or its
    /// memory cannot be read.
    pub fn new(pids: &[u32]) -> Result<Self, String> {
        if let Some(pid) = pids.iter().find(|pid| stat(**pid).is_none()) {
            return Err(format!("--server-pid {pid}: no such process"));
        }
        let mut all: Vec<u32> = pids.to_vec();
        let mut known: HashSet<u32> = pids.iter().copied().collect();
        let children = children();
        let mut at = 0;
        while let Some(&parent) = all.get(at) {
            all.extend(
                children
                    .iter()
                    .filter(|(of, pid)| *of == parent && known.insert(*pid))
                    .map(|(_, pid)| *pid),
            );
            at += 1;
        }
        // A process with unreadable memory would look like one without memory.
        if let Some(pid) = all.iter().find(|pid| pss(**pid).is_none()) {
            return Err(format!(
                "/proc/{pid}/smaps_rollup cannot be read: run loadtest as the server's user \
                 or as root"
            ));
        }
        Ok(Self(all))
    }

    /// Returns the process of this tool.
    pub fn own() -> Self {
        Self(vec![std::process::id()])
    }

    /// Returns the CPU time used so far, or `None` if a process has exited, because its time is
    /// unknown.
    pub fn cpu(&self) -> Option<Cpu> {
        let mut sum = Cpu::default();
        for pid in &self.0 {
            let stat = stat(*pid)?;
            sum = Cpu { user_s: sum.user_s + stat.user_s, system_s: sum.system_s + stat.system_s };
        }
        Some(sum)
    }

    /// Returns the proportional set size in bytes: shared pages are divided among the processes
    /// that share them.
    pub fn pss_bytes(&self) -> u64 {
        self.0.iter().filter_map(|pid| pss(*pid)).sum()
    }
}

/// Returns the anonymous memory of this tool in bytes. Excludes the pages of its binary, whose
/// share depends on other processes that run it.
pub fn anonymous_bytes() -> u64 {
    rollup(std::process::id(), "Anonymous:").unwrap_or_default()
}

/// Returns the proportional set size in bytes, or `None` if it cannot be read.
fn pss(pid: u32) -> Option<u64> {
    rollup(pid, "Pss:")
}

fn rollup(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kib(&text, name) * 1024)
}

struct Stat {
    parent: u32,
    user_s: f64,
    system_s: f64,
}

/// Reads /proc/PID/stat; see proc_pid_stat(5).
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process name may contain spaces and brackets; it ends at the last bracket.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    // SAFETY: reads a constant of the system.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let seconds = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / ticks_per_s);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        user_s: seconds(11)?,
        system_s: seconds(12)?,
    })
}

/// Returns (parent, process) pairs of all processes.
fn children() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((stat(pid)?.parent, pid))).collect()
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Kernel memory of the whole machine's sockets, for both ends of loopback connections, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelMemory {
    /// Slab memory, which includes the socket structures and all other kernel objects.
    pub slab_bytes: u64,
    /// Memory of TCP buffers.
    pub tcp_bytes: u64,
}

impl KernelMemory {
    /// Reads the current values.
    pub fn read() -> Self {
        let slab_bytes =
            kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "Slab:") * 1024;
        let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let pages = sockets
            .lines()
            .find(|line| line.starts_with("TCP:"))
            .and_then(|line| line.split("mem ").nth(1)?.trim().parse::<u64>().ok());
        Self { slab_bytes, tcp_bytes: pages.unwrap_or_default() * 4096 }
    }

    /// Returns the growth since `before` in bytes.
    pub fn since(self, before: Self) -> u64 {
        (self.slab_bytes + self.tcp_bytes).saturating_sub(before.slab_bytes + before.tcp_bytes)
    }
}

/// Connection that reads CPU and memory from Redis' INFO, so that Redis may run on another machine.
pub struct RedisInfo(redis::Connection);

impl RedisInfo {
    /// Connects to Redis.
    pub fn open(url: &str) -> Result<Self, String> {
        redis::Client::open(url)
            .and_then(|client| client.get_connection())
            .map(Self)
            .map_err(|error| format!("--redis {url}: {error}"))
    }

    /// Returns the CPU time used so far (`INFO cpu`).
    pub fn cpu(&mut self) -> Cpu {
        let info: String = redis::cmd("INFO").arg("cpu").query(&mut self.0).unwrap_or_default();
        let value = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
        };
        Cpu { user_s: value("used_cpu_user:"), system_s: value("used_cpu_sys:") }
    }

    /// Returns the memory used for data (`INFO memory`) in bytes.
    pub fn used_bytes(&mut self) -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut self.0).unwrap_or_default();
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory:")?.parse().ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory_of_own_process_are_read() {
        let own = Processes::own();
        assert!(own.pss_bytes() > 100_000);
        let before = own.cpu().unwrap();
        let mut sum = 0u64;
        while own.cpu().unwrap().since(before).total_s() < 0.02 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(KernelMemory::read().slab_bytes > 0);
    }

    #[test]
    fn descendants_are_included_and_missing_processes_reported() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0u8];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        let found = Processes::new(&[shell.id()]).unwrap().0;
        for pid in &found {
            // SAFETY: kills only the shell of this test and its child.
            unsafe { libc::kill((*pid).cast_signed(), libc::SIGKILL) };
        }
        shell.wait().unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(Processes(found.clone()).cpu(), None);
        assert!(Processes::new(&[found[0]]).unwrap_err().contains("no such process"));
    }
}
