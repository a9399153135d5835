//! One load: places each call when it is due, within its bounds, and adds up what came of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, Instant};
use rustls_pki_types::ServerName;
use sip::Host;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;

use crate::call::{self, Plan};
use crate::config::{Config, ConfigError, Target, Transport};
use crate::line::{Far, Line};
use crate::os::{OsClock, wake_at};
use crate::progress::Progress;
use crate::report::{CallOutcome, CallReport, Frame, Report, Tally};
use crate::tls::{self, TlsError};

/// A call begun later than this after its turn is counted.
const LATE_START: Duration = Duration::from_millis(10);
/// What a call may need beyond its own times: connecting, CANCEL or BYE, the last answers.
const SLACK: Duration = Duration::from_secs(20);

/// Why a load did not even begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The configuration asks for what cannot be done.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Where callees are to listen, nobody can.
    #[error("nobody can listen at {address}: {why}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// The threads that carry media cannot be started.
    #[error("the media threads do not start: {0}")]
    Engine(String),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The target's name has no address.
    #[error("the address of {host} cannot be found: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system says.
        why: String,
    },
}

/// Ends a load early: calls that ring get CANCEL, calls that talk get BYE, and the report comes.
#[derive(Clone, Debug)]
pub struct Cancellation(Arc<watch::Sender<bool>>);

impl Cancellation {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Ends the load.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn listen(&self) -> Cancelled {
        Cancelled(self.0.subscribe())
    }
}

/// One listener of a [`Cancellation`].
pub(crate) struct Cancelled(watch::Receiver<bool>);

impl Cancelled {
    /// Returns once the load is to end.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|it| *it).await.is_err() {
            // Nobody is left who could cancel.
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps the progress.
pub(crate) struct Tracker {
    progress: watch::Sender<Progress>,
    started: Instant,
}

impl Tracker {
    fn change(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(|progress| {
            change(progress);
            progress.elapsed = OsClock.now().since(self.started);
        });
    }

    pub(crate) fn placed(&self) {
        self.change(|it| (it.placed, it.ringing) = (it.placed + 1, it.ringing + 1));
    }

    pub(crate) fn answered(&self) {
        self.change(|it| {
            it.ringing = it.ringing.saturating_sub(1);
            (it.answered, it.talking) = (it.answered + 1, it.talking + 1);
        });
    }

    pub(crate) fn over(&self, report: &CallReport) {
        let was_answered = report.setup_ms.is_some();
        self.change(|it| {
            it.over += 1;
            it.failed += u32::from(report.outcome == CallOutcome::Failed);
            let count = if was_answered { &mut it.talking } else { &mut it.ringing };
            *count = count.saturating_sub(1);
        });
    }
}

/// A load that is ready to run.
pub struct Load {
    config: Config,
    tls: Option<Arc<rustls::ClientConfig>>,
    progress: watch::Sender<Progress>,
    cancellation: Cancellation,
}

/// What the loop of a load woke up for.
enum Wake {
    Place(tokio::sync::OwnedSemaphorePermit),
    Over(Box<CallReport>),
    Stop,
}

impl Load {
    /// Checks the configuration and reads the certificates.
    ///
    /// # Errors
    /// An absurd configuration, or certificates that cannot be used.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        config.check()?;
        let is_tls = config.target.transport == Transport::Tls;
        let tls = is_tls.then(|| tls::client(&config.tls)).transpose()?;
        let progress = Progress { planned: config.calls, ..Progress::default() };
        Ok(Self {
            config,
            tls,
            progress: watch::Sender::new(progress),
            cancellation: Cancellation::new(),
        })
    }

    /// Tells where the load stands, each time that it changes; ends with the load.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What ends the load early, at Ctrl-C for instance.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    /// Places the calls and waits for their end. It needs a tokio runtime with I/O and time, one
    /// of several threads for more than a few calls; dropping it drops the calls without BYE.
    ///
    /// # Errors
    /// The target's name has no address. Calls that fail are in the report.
    pub async fn run(self) -> Result<Report, LoadError> {
        let Self { config, tls, progress, cancellation } = self;
        let far = far_of(&config.target, tls, config.tls.server_name.as_deref()).await?;
        let (started, wall) = (OsClock.now(), OsClock.wall());
        let deadline = started + config.deadline.unwrap_or_else(|| longest(&config));
        let plan = Arc::new(Plan { tracker: Tracker { progress, started }, config });
        let lines = Lines::new(far, plan.config.connections);
        let mut tally = Tally::default();
        let is_cut_short =
            place_all(&plan, &lines, &cancellation, started, deadline, &mut tally).await;
        lines.close().await;
        let config = &plan.config;
        Ok(tally.finish(Frame {
            target: config.target.uri.to_string(),
            transport: config.target.transport,
            started_at: wall.to_string(),
            elapsed: OsClock.now().since(started),
            is_cut_short,
            planned: config.calls,
        }))
    }
}

/// Places every call and collects what came of it; tells whether it was cut short.
async fn place_all(
    plan: &Arc<Plan>,
    lines: &Arc<Lines>,
    cancellation: &Cancellation,
    started: Instant,
    deadline: Instant,
    tally: &mut Tally,
) -> bool {
    let config = &plan.config;
    let room = Arc::new(Semaphore::new(config.concurrency as usize));
    let mut stop = cancellation.listen();
    let mut calls = JoinSet::new();
    let mut next = 0;
    let mut is_cut_short = false;
    loop {
        let can_place = next < config.calls && !is_cut_short;
        if !can_place && calls.is_empty() {
            return is_cut_short;
        }
        let due = started + offset(next, config.rate);
        let turn = async {
            tokio::time::sleep_until(wake_at(due)).await;
            Arc::clone(&room).acquire_owned().await
        };
        let wake = tokio::select! {
            // In this order, so that no call begins once the load is to end.
            biased;
            () = stop.wait(), if !is_cut_short => Wake::Stop,
            () = tokio::time::sleep_until(wake_at(deadline)), if !is_cut_short => Wake::Stop,
            Some(over) = calls.join_next(), if !calls.is_empty() => {
                // A call ends its own task but by a panic, which tokio has caught.
                Wake::Over(Box::new(over.unwrap_or_else(|_| panicked())))
            }
            Ok(permit) = turn, if can_place => Wake::Place(permit),
        };
        match wake {
            Wake::Place(permit) => {
                let mut report = CallReport { index: next, ..CallReport::default() };
                let late = OsClock.now().since(due);
                report.saturation.late_starts = u64::from(late > LATE_START);
                let (plan, lines) = (Arc::clone(plan), Arc::clone(lines));
                let cancelled = cancellation.listen();
                calls.spawn(async move {
                    let line = lines.get(next).await;
                    call::place(plan, line, cancelled, report, permit).await
                });
                next += 1;
            }
            Wake::Over(report) => tally.add(*report),
            Wake::Stop => {
                is_cut_short = true;
                cancellation.cancel();
            }
        }
    }
}

fn panicked() -> CallReport {
    CallReport { reason: Some("load.panicked".into()), ..CallReport::default() }
}

/// When call `index` is due.
fn offset(index: u32, rate: f64) -> Duration {
    Duration::try_from_secs_f64(f64::from(index) / rate).unwrap_or(Duration::MAX)
}

/// What the calls of a load can need at most.
fn longest(config: &Config) -> Duration {
    let waves = config.calls.div_ceil(config.concurrency.max(1));
    let call = config.setup_timeout.saturating_add(config.hold).saturating_add(SLACK);
    let calls = call.checked_mul(waves).unwrap_or(Duration::MAX);
    offset(config.calls, config.rate).saturating_add(calls)
}

pub(crate) async fn far_of(
    target: &Target,
    tls: Option<Arc<rustls::ClientConfig>>,
    server_name: Option<&str>,
) -> Result<Far, LoadError> {
    let Target { host, port, transport, .. } = target;
    let name = match host {
        Host::Name(name) => name.to_string(),
        other => other.ip().map(|ip| ip.to_string()).unwrap_or_default(),
    };
    let resolve = |why: String| LoadError::Resolve { host: name.clone(), why };
    let address = match host.ip() {
        Some(ip) => SocketAddr::new(ip, *port),
        None => tokio::net::lookup_host((name.as_str(), *port))
            .await
            .map_err(|error| resolve(error.to_string()))?
            .next()
            .ok_or_else(|| resolve("it has none".into()))?,
    };
    let server_name = server_name.map_or_else(|| name.clone(), str::to_owned);
    let tls = match tls {
        Some(tls) => {
            let name = ServerName::try_from(server_name)
                .map_err(|_| resolve("it is no name that a certificate can have".into()))?;
            Some((tls, name))
        }
        None => None,
    };
    Ok(Far { address, transport: *transport, tls })
}

/// The signalling connections, opened when first needed and again where one was lost.
pub(crate) struct Lines {
    far: Far,
    lines: Vec<Mutex<Option<Arc<Line>>>>,
}

impl Lines {
    pub(crate) fn new(far: Far, count: u32) -> Arc<Self> {
        Arc::new(Self { far, lines: (0..count).map(|_| Mutex::new(None)).collect() })
    }

    /// The line of call `index`.
    pub(crate) async fn get(&self, index: u32) -> Result<Arc<Line>, &'static str> {
        let slot = &self.lines[index as usize % self.lines.len()];
        let mut slot = slot.lock().await;
        if let Some(line) = slot.as_ref().filter(|line| !line.is_closed()) {
            return Ok(Arc::clone(line));
        }
        let line = Arc::new(Line::open(&self.far).await.map_err(|error| error.0)?);
        *slot = Some(Arc::clone(&line));
        Ok(line)
    }

    pub(crate) async fn close(&self) {
        for slot in &self.lines {
            if let Some(line) = slot.lock().await.take() {
                line.close().await;
            }
        }
    }
}
