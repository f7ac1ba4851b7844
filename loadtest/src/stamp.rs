//! Data embedded in each published payload: due time, source, sequence number and run. The rest of
//! the payload is padding.

use std::io::Write;

/// Source number of broadcasts. User n (from 0) has the source number n + 1.
pub const BROADCAST: u32 = 0;

/// Size of the longest stamp in bytes: payloads of at least this size have exactly the requested
/// length.
pub const MIN_BYTES: usize = 73;

/// Stamp of a published event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Time at which the event was due, in ns of CLOCK_MONOTONIC. The time of sending would hide a
    /// slow publisher (coordinated omission).
    pub due_ns: u64,
    /// `BROADCAST`, or user n + 1.
    pub source: u32,
    /// Sequence number within the source, starting at 1.
    pub sequence: u32,
    /// Random number of the run: several runs may use one server at the same time.
    pub run: u16,
}

impl Stamp {
    /// Writes a JSON payload of `bytes` bytes to `out`; longer if the stamp needs more. The keys
    /// are in alphabetical order, because some servers sort them.
    pub fn payload(&self, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        let _ = write!(
            out,
            r#"{{"n":{},"r":{},"s":{},"t":{},"x":""#,
            self.sequence, self.run, self.source, self.due_ns
        );
        let end = bytes.saturating_sub(2).max(out.len());
        out.resize(end, b'x');
        out.extend_from_slice(b"\"}");
    }

    /// Finds the stamp in a payload, which the server may have wrapped. Returns `None` if there is
    /// none.
    pub fn read(data: &[u8]) -> Option<Self> {
        const START: &[u8] = br#"{"n":"#;
        let start = memchr::memmem::find(data, START)? + START.len();
        let (count, rest) = number(&data[start..])?;
        let (run, rest) = number(rest.strip_prefix(br#","r":"#)?)?;
        let (source, rest) = number(rest.strip_prefix(br#","s":"#)?)?;
        let (due_ns, _) = number(rest.strip_prefix(br#","t":"#)?)?;
        Some(Self {
            due_ns,
            source: source.try_into().ok()?,
            sequence: count.try_into().ok()?,
            run: run.try_into().ok()?,
        })
    }
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((value, &text[digits..]))
}

/// Returns the time of CLOCK_MONOTONIC in ns, which all processes of a machine share.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, and every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_has_requested_length_and_readable_stamp() {
        let stamp = Stamp { due_ns: now_ns(), source: 7, sequence: 42, run: 65_535 };
        let mut payload = Vec::new();
        for bytes in [0, 64, 256, 4096] {
            stamp.payload(bytes, &mut payload);
            assert_eq!(Stamp::read(&payload), Some(stamp));
            let wrapped = [b"{\"channel\":\"x\",\"data\":", payload.as_slice(), b"}"].concat();
            assert_eq!(Stamp::read(&wrapped), Some(stamp));
            assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
            assert!(bytes == 0 || payload.len() == bytes, "{bytes}: {}", payload.len());
        }
    }

    #[test]
    fn longest_stamp_fits_the_minimum_payload() {
        let stamp = Stamp { due_ns: u64::MAX, source: u32::MAX, sequence: u32::MAX, run: u16::MAX };
        let mut payload = Vec::new();
        stamp.payload(0, &mut payload);
        assert_eq!(payload.len(), MIN_BYTES);
    }

    #[test]
    fn foreign_payloads_have_no_stamp() {
        for text in [
            "",
            "{}",
            r#"{"n":1}"#,
            r#"{"n":1,"r":2}"#,
            r#"{"n":x,"r":2,"s":3}"#,
            r#"{"n":1,"r":2,"s":3}"#,
            r#"{"n":1,"r":2,"s":99999999999,"t":4}"#,
        ] {
            assert_eq!(Stamp::read(text.as_bytes()), None, "{text}");
        }
    }
}
