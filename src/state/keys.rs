//! What an instance knows of keys: who may use the API, and how the issuer's key set stands.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    core::shared::Shared,
    settings::{ApiKey, Settings},
};

/// The state of keys.
pub struct KeyState {
    api: Shared<Vec<ApiKey>>,
    set_fetched: Mutex<Option<Instant>>,
    /// There is no key but those of the key set.
    set_only: AtomicBool,
}

impl KeyState {
    /// The state at the start.
    pub fn new(settings: &Settings) -> Self {
        let state =
            Self { api: Shared::new(Vec::new()), set_fetched: Mutex::new(None), set_only: AtomicBool::new(false) };
        state.replace(settings);
        state
    }

    /// Takes the API keys of these settings, and notes whether they have ticket keys.
    pub fn replace(&self, settings: &Settings) {
        self.api.set(settings.api_keys.clone());
        self.set_only.store(settings.tickets.keys.is_empty(), Ordering::Relaxed);
    }

    /// The API keys of the moment.
    pub fn api(&self) -> Arc<Vec<ApiKey>> {
        self.api.get()
    }

    fn set_fetched(&self) -> MutexGuard<'_, Option<Instant>> {
        self.set_fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key set came.
    pub fn fetched(&self) {
        *self.set_fetched() = Some(Instant::now());
    }

    /// Age of the key set.
    pub fn set_age(&self) -> Option<Duration> {
        self.set_fetched().map(|at| at.elapsed())
    }

    /// Whether there is no key at all yet: every ticket would be told `sse.busy`.
    pub fn none_yet(&self) -> bool {
        self.set_only.load(Ordering::Relaxed) && self.set_age().is_none()
    }
}
