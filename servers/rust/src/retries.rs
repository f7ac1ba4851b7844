use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};

use crate::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Decides whether a call that failed is repeated.
pub(crate) struct Retries {
    end: Instant,
    delay: Duration,
    is_repeatable: bool,
}

impl Retries {
    /// `is_repeatable`: also errors that leave it unknown whether the call was executed are
    /// retried.
    pub(crate) fn new(retry_for: Duration, is_repeatable: bool) -> Self {
        Self { end: Instant::now() + retry_for, delay: FIRST_PAUSE, is_repeatable }
    }

    /// The pause before the next attempt, or the error if it is final.
    fn pause(&mut self, source: RedisError) -> Result<Duration, Error> {
        let error = Error::from_redis(source, self.is_repeatable);
        // Clients that failed together must not retry together.
        let pause = self.delay.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.delay = MAX_PAUSE.min(2 * self.delay);
        if !error.is_retriable() || Instant::now() + pause > self.end {
            return Err(error);
        }
        Ok(pause)
    }

    pub(crate) fn run<T>(mut self, mut call: impl FnMut() -> RedisResult<T>) -> Result<T, Error> {
        loop {
            match call() {
                Ok(value) => return Ok(value),
                Err(error) => std::thread::sleep(self.pause(error)?),
            }
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) async fn run_async<T>(
        mut self,
        mut call: impl AsyncFnMut() -> RedisResult<T>,
    ) -> Result<T, Error> {
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) => tokio::time::sleep(self.pause(error)?).await,
            }
        }
    }
}
