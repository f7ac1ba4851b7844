//! Child processes that end with this one.

use std::{io, os::unix::process::CommandExt, process::Command};

/// Makes the kernel kill a child when the thread that starts it ends, also if that happens by
/// SIGKILL. Start it on the main thread, which ends last. It gets its own process group: Ctrl-C
/// must reach only this process, which stops its children in order.
pub fn ends_with_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id() as libc::pid_t;
    command.process_group(0);
    // SAFETY: prctl and getppid are async-signal-safe and touch nothing of this process.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            // The parent may have ended before prctl took effect.
            0 if libc::getppid() == parent => Ok(()),
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}
