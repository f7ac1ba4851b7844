//! The task of a connection: reads and writes at once, and waits for nothing else.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
};

use super::{
    batching::Batching,
    error::EndReason,
    frame::Frames,
    pending::{Confirmed, Pending, unexpected},
    push::{self, Push, PushFrame, Subscribing},
};

/// Maximum number of batches of commands in one write.
const MAX_WRITES: usize = 64;

/// Where the task passes on what it reads.
pub(super) struct Outputs<P> {
    pub(super) pending: Arc<Mutex<Pending>>,
    pub(super) push: P,
    pub(super) end: oneshot::Sender<EndReason>,
}

/// Runs until the connection ends, and reports why.
pub(super) async fn run<P: FnMut(Push<'_>)>(
    socket: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    commands: mpsc::Receiver<Vec<u8>>,
    frame_limit: usize,
    mut outputs: Outputs<P>,
) {
    let (read_half, write_half) = socket;
    let reason = tokio::select! {
        reason = read(read_half, Frames::new(frame_limit), &mut outputs) => reason,
        reason = write(write_half, commands) => reason,
    };
    // First: a caller whose command failed can then ask for the reason.
    let _ = outputs.end.send(reason);
    outputs.pending.lock().end();
}

async fn read<P: FnMut(Push<'_>)>(
    mut socket: impl AsyncRead + Unpin,
    mut frames: Frames,
    outputs: &mut Outputs<P>,
) -> EndReason {
    let mut batching = Batching::new();
    loop {
        let bytes = match socket.read_buf(frames.room()).await {
            Ok(0) => return EndReason::Closed,
            Ok(bytes) => bytes,
            Err(error) => return EndReason::Read(error),
        };
        let mut count = 0;
        loop {
            match frames.next() {
                Ok(Some(frame)) => {
                    count += 1;
                    if let Err(reason) = outputs.frame(frame) {
                        return reason;
                    }
                }
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        if let Some(pause) = batching.pause(count, bytes, Instant::now()) {
            std::thread::sleep(pause);
            batching.paused(Instant::now());
        }
    }
}

async fn write(
    mut socket: impl AsyncWrite + Unpin,
    mut commands: mpsc::Receiver<Vec<u8>>,
) -> EndReason {
    let mut waiting = Vec::new();
    while commands.recv_many(&mut waiting, MAX_WRITES).await > 0 {
        // All of them in one write.
        let bytes = match &mut waiting[..] {
            [only] => std::mem::take(only),
            all => all.concat(),
        };
        waiting.clear();
        let written = async {
            socket.write_all(&bytes).await?;
            socket.flush().await
        };
        if let Err(error) = written.await {
            return EndReason::Write(error);
        }
    }
    EndReason::Dropped
}

impl<P: FnMut(Push<'_>)> Outputs<P> {
    fn frame(&mut self, frame: &[u8]) -> Result<(), EndReason> {
        if frame.first() != Some(&b'>') {
            let value = redis::parse_redis_value(frame).map_err(EndReason::Reply)?;
            return self.pending.lock().reply(value);
        }
        match push::read(frame) {
            PushFrame::Message(message) => (self.push)(message),
            PushFrame::Confirmation(kind, channel) => return self.confirmation(kind, channel),
            PushFrame::Unknown => {}
        }
        Ok(())
    }

    fn confirmation(&mut self, kind: Subscribing, channel: &[u8]) -> Result<(), EndReason> {
        if self.pending.lock().confirm(kind, channel) == Confirmed::Answer {
            return Ok(());
        }
        if kind != Subscribing::SUnsubscribe {
            let text = format!("{} {}", kind.name(), String::from_utf8_lossy(channel));
            return Err(unexpected(&redis::Value::SimpleString(text)));
        }
        (self.push)(Push::Ended { channel });
        Ok(())
    }
}
