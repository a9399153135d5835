//! One load: calls of one kind with a script, run as a scenario; and what loads and scenarios
//! share: how they end early, and their connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::limit::LOADGEN_MEDIA_THREADS;
use rustls_pki_types::ServerName;
use sip::Host;
use tokio::sync::{Mutex, watch};

use crate::config::{Config, ConfigError, Target, Transport};
use crate::line::{Far, Line};
use crate::progress::Progress;
use crate::report::Report;
use crate::run::ScenarioRun;
use crate::scenario::{
    Called, CallerKind, Limits, Outward, Says, Scenario, Stage, Talk, Times, Voice,
};
use crate::tls::{self, TlsError};

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

/// A load that is ready to run: a scenario of one kind of caller, with a script.
pub struct Load(ScenarioRun);

impl Load {
    /// Checks the configuration and the certificates.
    ///
    /// # Errors
    /// An absurd configuration, or certificates that cannot be used.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        config.check()?;
        if matches!(config.target.transport, Transport::Tls | Transport::Whip) {
            tls::client(&config.tls)?;
        }
        Ok(Self(ScenarioRun::new(scenario(config), Vec::new())))
    }

    /// Tells where the load stands, each time that it changes; ends with the load.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress()
    }

    /// What ends the load early, at Ctrl-C for instance.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        self.0.cancellation()
    }

    /// Places the calls and waits for their end. It needs a tokio runtime with I/O and time;
    /// dropping it drops the calls without BYE.
    ///
    /// # Errors
    /// The target's name has no address. Calls that fail are in the report.
    pub async fn run(self) -> Result<Report, LoadError> {
        self.0.run_callers().await
    }
}

/// The load as a scenario.
fn scenario(config: Config) -> Scenario {
    let duration = config.deadline.unwrap_or_else(|| longest(&config));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Scripts encode and decode, which takes every core where there are many calls.
    let threads = u32::try_from(cores.min(LOADGEN_MEDIA_THREADS.get())).unwrap_or(1);
    let voice = Voice {
        codecs: config.codecs,
        ptime_ms: 20,
        every_ms: None,
        protection: config.protection,
        suites: config.suites,
        rtcp_mux: config.rtcp_mux,
        says: Says::Script(Arc::new(Talk {
            script: config.script,
            save: config.save,
            is_one_of_many: config.calls > 1,
        })),
    };
    let caller = CallerKind {
        name: "caller".to_owned(),
        weight: 1,
        to: None,
        from: None,
        voice,
        offer: config.offer,
        talk: Times::Fixed(config.hold),
        waits: true,
        cause: None,
        cancel_after: None,
        keys: None,
        on_hold: None,
    };
    let time = offset(config.calls, config.rate);
    Scenario {
        name: "load".to_owned(),
        description: String::new(),
        seed: 1,
        outward: Some(Outward {
            to: Called { text: config.target.uri.to_string(), target: config.target },
            from: config.from.map(|it| it.to_string()),
            tls: config.tls,
            connections: config.connections,
            token: config.token,
            media_address: config.media_address,
        }),
        limits: Limits {
            calls: config.calls,
            concurrency: config.concurrency,
            duration,
            setup_timeout: config.setup_timeout,
            media_threads: Some(threads.min(config.concurrency).max(1)),
        },
        stages: vec![Stage { from: config.rate, to: config.rate, time }],
        callers: vec![caller],
        callee: None,
        actors: Vec::new(),
        expectations: Vec::new(),
        sounds: Vec::new(),
    }
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

    /// Where they lead.
    pub(crate) const fn far(&self) -> &Far {
        &self.far
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
