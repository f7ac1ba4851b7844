//! The key by which a command finds its server in a cluster. Pure.

use redis::{Arg, Cmd};

/// The first key of a command of this gateway; `None` if it has none.
pub fn of(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().filter_map(|arg| match arg {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    });
    let skipped = match words.next()? {
        // FCALL <function> <number of keys> <key>
        b"FCALL" => 2,
        // XINFO STREAM <key>, MEMORY USAGE <key>
        b"XINFO" | b"MEMORY" => 1,
        b"SCAN" | b"INFO" | b"CONFIG" | b"FUNCTION" | b"CLUSTER" | b"PING" | b"COMMAND"
        | b"CLIENT" | b"ACL" | b"ROLE" => return None,
        _ => 0,
    };
    words.nth(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_found_in_every_kind_of_command() {
        let command = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            words[1..].iter().for_each(|word| {
                command.arg(*word);
            });
            command
        };
        for (words, key) in [
            (
                &["FCALL", "sse_publish", "1", "user:42:events", "t", "x"][..],
                Some("user:42:events"),
            ),
            (&["XRANGE", "sse:log:{a}", "-", "+"], Some("sse:log:{a}")),
            (&["XINFO", "STREAM", "sse:log:{a}"], Some("sse:log:{a}")),
            (&["SPUBLISH", "sse:live:{a}", "x"], Some("sse:live:{a}")),
            (&["SCAN", "0"], None),
            (&["INFO", "server"], None),
        ] {
            assert_eq!(of(&command(words)), key.map(str::as_bytes), "{words:?}");
        }
    }
}
