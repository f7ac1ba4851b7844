//! The part of `TCP_INFO` that shows a client's progress (tcp(7), linux/tcp.h).

use std::{
    mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::state::client_liveness::Progress;

/// The start of the kernel's `struct tcp_info`. The one in the libc crate ends before
/// `tcpi_bytes_acked`.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    states: [u8; 8],
    timeouts: [u32; 4],
    unacked_segments: u32,
    counters: [u32; 19],
    pacing_rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segments: [u32; 2],
    notsent_bytes: u32,
    min_rtt: u32,
}

/// Required length: up to and including `notsent_bytes` (Linux 4.6).
const NEEDED: usize = mem::offset_of!(TcpInfo, notsent_bytes) + mem::size_of::<u32>();

/// What the peer has acknowledged; `None` if this is not a TCP socket or the kernel is too old.
pub fn progress(socket: BorrowedFd<'_>) -> Option<Progress> {
    let mut info = TcpInfo::default();
    let mut length = mem::size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so it stays open. The kernel writes at most `length`
    // bytes, the size of `info`, whose fields are integers without padding and valid for any bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    (status == 0 && length as usize >= NEEDED).then_some(Progress {
        acknowledged_bytes: info.bytes_acked,
        is_outstanding: info.unacked_segments > 0 || info.notsent_bytes > 0,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn acknowledged_bytes_grow_as_the_client_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(!progress(server.as_fd()).unwrap().is_outstanding);
        server.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = server.write(&[0; 64 << 10]) {
            written += count;
        }
        let full = progress(server.as_fd()).unwrap();
        assert!(full.is_outstanding && full.acknowledged_bytes < written as u64, "{full:?}");
        client.read_exact(&mut vec![0; written]).unwrap();
        let mut done = full;
        let deadline = Instant::now() + Duration::from_secs(30);
        // The last acknowledgement is sent when the client has read.
        while done.is_outstanding {
            assert!(Instant::now() < deadline, "bytes are still outstanding: {done:?}");
            std::thread::yield_now();
            done = progress(server.as_fd()).unwrap();
        }
        assert!(done.acknowledged_bytes >= written as u64, "{done:?} of {written}");
    }

    #[test]
    fn other_sockets_have_no_progress() {
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(progress(unix.as_fd()).is_none());
    }
}
