//! Operating system helpers: signals, free ports, memory, children that end with the test.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sends `signal` to one process.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours.
    let done = unsafe { libc::kill(pid as i32, signal) };
    assert_eq!(done, 0, "kill -{signal} {pid}");
}

/// Sends SIGSTOP and waits until every thread has stopped. One thread must run to stop the others,
/// which may take a while on a busy machine.
pub fn freeze(pid: u32) {
    signal(pid, libc::SIGSTOP);
    let stopped = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that has ended counts as stopped.
        let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat"))
            .unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with(['T', 'Z', 'X']))
    };
    while !std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process").all(stopped) {
        std::thread::yield_now();
    }
}

/// Kills the child when the test's thread ends, also if the test run is killed.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and is the only call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Sets the soft and the hard limit of a child's open files.
pub fn limit_open_files(command: &mut Command, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: setrlimit is async-signal-safe, reads only the given struct, and is the only call
    // between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Changes the soft limit of open files of a running process. Returns the previous limit.
pub fn change_open_files(pid: u32, soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prlimit only reads and writes the given structs.
    unsafe {
        let null = std::ptr::null();
        let files = libc::RLIMIT_NOFILE;
        assert_eq!(libc::prlimit(pid as i32, files, null, &raw mut limit), 0);
        let new = libc::rlimit { rlim_cur: soft, ..limit };
        assert_eq!(libc::prlimit(pid as i32, files, &raw const new, std::ptr::null_mut()), 0);
    }
    limit.rlim_cur
}

/// A free port below the ephemeral range, so that no outgoing connection (not even one that
/// connects to itself) can occupy it while its server is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..2000 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (20000 + (std::process::id() * 97 + n * 13) % 12000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Number of established connections to a listener on 127.0.0.1 (proc_pid_net_tcp(5)).
pub fn connections(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let local = format!("0100007F:{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").expect("a Linux");
    let fields = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[1] == local && fields[3] == ESTABLISHED).count()
}

/// Anonymous memory of a process, bytes. Not PSS, which depends on how many other processes share
/// the binary's pages, and thus on tests that end meanwhile.
pub fn anonymous(pid: u32) -> u64 {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Anonymous:")
}

/// Peak resident memory of a process, bytes. It may decrease: the kernel counts it inexactly.
pub fn peak(pid: u32) -> u64 {
    kib(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn kib(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = text.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name} in {path}"))
        * 1024
}
