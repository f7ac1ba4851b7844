//! A listener with its worker threads. Each worker has its own runtime and accepts connections
//! itself ([`accept`](crate::http::sockets::accept)).

use std::{
    convert::Infallible,
    io,
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use actix_service::{Service, ServiceFactory};
use tokio::{
    sync::{oneshot, watch},
    task::LocalSet,
};

use crate::{
    http::sockets::{
        accept::{Acceptor, LOG_INTERVAL_MS},
        budget::{SocketBudget, WorkerLoad},
        tcp::ClientTcp,
    },
    log_limit::LogLimit,
};

/// How long a listener that closes waits for its sockets to end.
const GRACE: Duration = Duration::from_secs(2);
/// The same for idle sockets. Requests that were sent before the listener closed arrive in this
/// time.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Maximum time for the workers' runtimes to end.
const THREADS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    /// New connections are not accepted.
    Closed,
    /// Remaining connections are dropped.
    Ended,
}

/// A running listener. Dropping it ends its workers.
pub struct Listener {
    phase: watch::Sender<Phase>,
    budget: SocketBudget,
    workers: Vec<oneshot::Receiver<()>>,
}

impl Listener {
    /// Starts `workers` threads; each calls `service` once. `name` is the prefix of the threads'
    /// names.
    ///
    /// # Errors
    /// A thread or a descriptor could not be created.
    pub fn start<F>(
        name: &str,
        socket: &TcpListener,
        budget: SocketBudget,
        workers: usize,
        service: impl Fn() -> F + Clone + Send + 'static,
    ) -> io::Result<Self>
    where
        F: ServiceFactory<
                ClientTcp,
                Config = (),
                Response = (),
                Error = Infallible,
                InitError = (),
            >,
        F::Service: 'static,
    {
        let (phase, phases) = watch::channel(Phase::Serving);
        let log = Arc::new(LogLimit::new(LOG_INTERVAL_MS));
        let started = Instant::now();
        let worker = |(number, load): (usize, WorkerLoad)| {
            let (socket, service) = (socket.try_clone()?, service.clone());
            let (budget, log, phases) = (budget.clone(), log.clone(), phases.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (ended, end) = oneshot::channel();
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                let served = LocalSet::new().block_on(&runtime, async {
                    let acceptor = Acceptor::new(socket, budget, load, log, started)?;
                    serve(acceptor, service(), phases).await
                });
                if let Err(error) = served {
                    tracing::error!(%error, "a worker could not start");
                }
                let _ = ended.send(());
            })?;
            Ok(end)
        };
        let loads = WorkerLoad::of_workers(workers).into_iter().enumerate();
        let workers = loads.map(worker).collect::<io::Result<_>>()?;
        Ok(Self { phase, budget, workers })
    }

    /// Stops accepting, waits up to two seconds for the open sockets, and ends the workers.
    pub async fn stop(self) {
        self.phase.send_replace(Phase::Closed);
        let closed = Instant::now();
        while self.budget.open() > 0 && closed.elapsed() < GRACE {
            if closed.elapsed() > IDLE_GRACE {
                self.budget.idle.close_all();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.phase.send_replace(Phase::Ended);
        let all_ended = async {
            for worker in self.workers {
                let _ = worker.await;
            }
        };
        if tokio::time::timeout(THREADS, all_ended).await.is_err() {
            tracing::warn!("a worker is still busy");
        }
    }
}

/// Runs one worker.
async fn serve<F>(
    acceptor: Acceptor,
    service: F,
    mut phases: watch::Receiver<Phase>,
) -> io::Result<()>
where
    F: ServiceFactory<ClientTcp, Config = (), Response = (), Error = Infallible, InitError = ()>,
    F::Service: 'static,
{
    let service = service.new_service(()).await;
    let service = service.map_err(|()| io::Error::other("the app could not be built"))?;
    let mut ends = phases.clone();
    // A dropped sender ends the worker, too.
    let closed = async { drop(phases.wait_for(|phase| *phase >= Phase::Closed).await) };
    let call = |socket| {
        let served = service.call(socket);
        tokio::task::spawn_local(async move {
            let Ok(()) = served.await;
        });
    };
    acceptor.run(closed, call).await;
    let _ = ends.wait_for(|phase| *phase >= Phase::Ended).await;
    Ok(())
}
