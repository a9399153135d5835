//! Runs a scenario, or a load as one: places calls when they are due, takes calls that
//! arrive, lets bad actors in, watches itself, and adds up what came of it all.
//!
//! The path: [`ScenarioRun::run`] -> `driver.rs` (what is due) -> `leg.rs` (one task for each end
//! of a call, signalling only) and `engine/` (the media of all) -> `outcome.rs` (adds up, judges).

mod actors;
mod board;
mod browser;
mod driver;
mod leg;
mod outcome;
mod own;
mod raw;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use audio::Codec;
use base::limit::LOADGEN_MEDIA_THREADS;
use base::{Clock as _, Secret, SeededRandom};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use self::board::Board;
pub use self::board::Sample;
pub use self::outcome::{
    ActorReport, Judged, KindTotals, OwnLoad, RunReport, ScenarioSummary, Through, Verdict,
};
use crate::config::{Target, Tls, Transport};
use crate::engine::clip::Clips;
use crate::engine::stamp::Role;
use crate::engine::{Engine, Totals};
use crate::line::{Arrival, Far};
use crate::listen::Listener;
use crate::load::{Cancellation, Lines, LoadError, far_of};
use crate::os::{OsClock, process_time, raise_descriptors};
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::{Called, Callee, Says, Scenario, TOKEN_DIGITS};
use crate::tls::{self, TlsError};

/// Calls of bad actors are numbered from here; above every number of an ordinary call.
const ACTOR_TOKENS: u32 = 5_000_000;
/// Numbers of each bad actor.
const TOKENS_PER_ACTOR: u32 = 50_000;

/// A scenario that is ready to run.
pub struct ScenarioRun {
    scenario: Scenario,
    sounds: Vec<Arc<[i16]>>,
    progress: watch::Sender<Progress>,
    cancellation: Cancellation,
}

/// A run that is over.
struct Ran {
    shared: Arc<Shared>,
    driven: outcome::Driven,
    totals: Totals,
    frame: outcome::Frame,
}

/// What every part of a run looks at.
pub(crate) struct Shared {
    pub(crate) scenario: Scenario,
    pub(crate) clips: Arc<Clips>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) board: Board,
    /// The ways out, by where they lead.
    ways: Vec<(SocketAddr, Transport, Arc<Lines>)>,
    /// For each kind of caller: whom it calls, and which way.
    routes: Vec<Option<(Called, usize)>>,
    /// Where bad actors go that say nothing else.
    pub(crate) target: Option<Far>,
    /// Calls that were not meant to be answered.
    planned: Mutex<BTreeSet<u32>>,
}

impl Shared {
    /// Whom a kind calls, and on which lines.
    fn way_of(&self, kind: usize, token: u32) -> Result<(Target, Arc<Lines>), &'static str> {
        let route = self.routes.get(kind).and_then(Option::as_ref).ok_or("load.no_target")?;
        let (called, way) = route;
        let (.., lines) = self.ways.get(*way).ok_or("load.no_target")?;
        Ok((called.of(token), Arc::clone(lines)))
    }

    /// Randomness of one end of a call: it follows from the seed.
    fn random(&self, token: u32, role: Role) -> SeededRandom {
        let side = if role == Role::Caller { 0 } else { 1u64 << 40 };
        SeededRandom::new(self.scenario.seed.wrapping_add(side).wrapping_add(u64::from(token) << 8))
    }

    fn from(&self) -> Option<&String> {
        self.scenario.outward.as_ref()?.from.as_ref()
    }

    fn token(&self) -> Option<&Secret<String>> {
        self.scenario.outward.as_ref()?.token.as_ref()
    }

    fn media_address(&self) -> Option<IpAddr> {
        self.scenario.outward.as_ref()?.media_address
    }

    /// Whether both ends of this call may be here, so that they stamp their packets.
    fn is_paired(&self, token: u32) -> bool {
        token != u32::MAX && self.scenario.callee.is_some() && self.has_tokens()
    }

    /// Whether called numbers tell which call it is. Where nothing is called, another instance may
    /// have put its numbers there, which pair with nothing here.
    fn has_tokens(&self) -> bool {
        self.routes.iter().flatten().any(|(called, _)| called.has_token())
    }

    fn note_planned(&self, token: u32) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
    }

    fn is_planned(&self, token: u32) -> bool {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).contains(&token)
    }
}

/// The number of the call that an INVITE to this user belongs to.
fn token_of(user: &str) -> Option<u32> {
    let digits = user.len().checked_sub(TOKEN_DIGITS).and_then(|at| user.get(at..))?;
    digits.bytes().all(|it| it.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl ScenarioRun {
    /// With the sounds that [`crate::scenario_sounds`] made of it.
    #[must_use]
    pub fn new(scenario: Scenario, sounds: Vec<Arc<[i16]>>) -> Self {
        let (planned, planned_time) = (scenario.planned(), scenario.time());
        let progress = Progress { planned, planned_time, ..Progress::default() };
        Self {
            scenario,
            sounds,
            progress: watch::Sender::new(progress),
            cancellation: Cancellation::new(),
        }
    }

    /// Tells where the run stands; ends with the run.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What ends the run early: calls hang up, and the report comes.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    /// Runs it to its end. It needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Nobody can be reached or listen, or TLS cannot be set up. Calls that fail are in the report.
    pub async fn run(self) -> Result<RunReport, LoadError> {
        let Ran { shared, driven, totals, frame } = self.drive().await?;
        let series = (shared.board.samples(), shared.board.signalling_lag());
        Ok(driven.report(&shared.scenario, series, totals, frame))
    }

    /// The same of callers of one kind, with their side alone.
    pub(crate) async fn run_callers(self) -> Result<Report, LoadError> {
        let Ran { shared, driven, frame, .. } = self.drive().await?;
        Ok(driven.load_report(&shared.scenario, frame))
    }

    async fn drive(self) -> Result<Ran, LoadError> {
        raise_descriptors();
        let Self { scenario, sounds, progress, cancellation } = self;
        let clips = Arc::new(Clips::new(sounds));
        let (encoded, wanted) = (Arc::clone(&clips), wanted(&scenario));
        let encoding = tokio::task::spawn_blocking(move || {
            for (sound, codec, ptime_ms) in wanted {
                // What cannot be had is found missing by the call that needs it.
                let _ = encoded.clip(sound, codec, ptime_ms);
            }
        });
        // It ends otherwise by a panic only; calls then encode for themselves.
        let _ = encoding.await;
        let (wall, started, cpu) = (OsClock.wall(), OsClock.now(), process_time());
        let (listener, arrivals) = match &scenario.callee {
            Some(callee) => listen(callee).await.map(|(listener, it)| (Some(listener), it))?,
            None => (None, mpsc::channel(1).1),
        };
        let (ways, routes, target) = ways(&scenario).await?;
        let threads = scenario.limits.media_threads.unwrap_or_else(default_threads);
        let (engine, running) = Engine::start(threads as usize)
            .map_err(|error| LoadError::Engine(error.to_string()))?;
        let board = Board::new(started, progress);
        let shared = Arc::new(Shared {
            clips,
            engine,
            board,
            ways,
            routes,
            target,
            planned: Mutex::default(),
            scenario,
        });
        let driven = driver::drive(&shared, &cancellation, arrivals, started).await;
        let process = process_time().saturating_sub(cpu);
        let elapsed = OsClock.now().since(started);
        if shared.ways.iter().any(|(_, transport, _)| !transport.is_reliable()) {
            // The last calls still answer what the far end repeats.
            tokio::time::sleep(leg::LINGER).await;
        }
        for (.., lines) in &shared.ways {
            lines.close().await;
        }
        let listens = listener.as_ref().map(|it| it.local().to_string());
        drop(listener);
        let frame = outcome::Frame { wall: wall.to_string(), elapsed, listens, process };
        shared.engine.stop().await;
        let totals = running.join();
        Ok(Ran { shared, driven, totals, frame })
    }
}

/// What calls will say, in each codec and packet time that they may agree on: encoded before the
/// first of them, which would otherwise wait for it.
fn wanted(scenario: &Scenario) -> Vec<(usize, Codec, u16)> {
    let callers = scenario.callers.iter().map(|kind| (&kind.voice, kind.keys.as_ref()));
    let callees = scenario.callee.iter().flat_map(|it| &it.kinds).map(|kind| (&kind.voice, None));
    let voices: Vec<_> = callers.chain(callees).collect();
    let times: BTreeSet<u16> = voices.iter().map(|(voice, _)| voice.ptime_ms).collect();
    let mut wanted = Vec::new();
    for (voice, keys) in &voices {
        let said = match voice.says {
            Says::Sound { index, .. } => Some(index),
            Says::Script(_) => None,
        };
        let sounds = [said, keys.and_then(|keys| keys.sound)];
        for sound in sounds.into_iter().flatten() {
            for codec in &voice.codecs {
                wanted.extend(times.iter().map(|ptime_ms| (sound, *codec, *ptime_ms)));
            }
        }
    }
    wanted
}

fn default_threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = LOADGEN_MEDIA_THREADS.get();
    u32::try_from((cores / 2).clamp(1, most)).unwrap_or(1)
}

async fn listen(callee: &Callee) -> Result<(Listener, mpsc::Receiver<Arrival>), LoadError> {
    let acceptor = match callee.transport {
        Transport::Tls => Some(acceptor(callee)?),
        Transport::Tcp | Transport::Udp | Transport::Whip | Transport::Wss => None,
    };
    let opened = Listener::open(callee.listen, callee.transport, acceptor).await;
    opened.map_err(|error| LoadError::Listen { address: callee.listen, why: error.to_string() })
}

fn acceptor(callee: &Callee) -> Result<TlsAcceptor, LoadError> {
    let identity = callee.identity.as_ref().map(|(one, other)| (one.as_path(), other.as_path()));
    let names = vec![callee.listen.ip().to_string(), "localhost".to_owned()];
    let (config, made) = tls::server(identity, names)?;
    if let (Some(pem), Some(path)) = (made, &callee.authority) {
        std::fs::write(path, pem).map_err(|error| {
            LoadError::Tls(TlsError::Make(format!("{}: {error}", path.display())))
        })?;
    }
    Ok(TlsAcceptor::from(config))
}

type Ways = (Vec<(SocketAddr, Transport, Arc<Lines>)>, Vec<Option<(Called, usize)>>, Option<Far>);

/// Finds where each kind of caller goes; those that go to one place share its lines.
async fn ways(scenario: &Scenario) -> Result<Ways, LoadError> {
    let Some(outward) = &scenario.outward else { return Ok((Vec::new(), Vec::new(), None)) };
    let mut ways: Vec<(SocketAddr, Transport, Arc<Lines>)> = Vec::new();
    let mut routes = Vec::new();
    for kind in &scenario.callers {
        let called = kind.to.as_ref().unwrap_or(&outward.to);
        let far = far(&called.target, &outward.tls).await?;
        let known =
            ways.iter().position(|(at, how, _)| (*at, *how) == (far.address, far.transport));
        let way = known.unwrap_or_else(|| {
            let lines = Lines::new(far.clone(), outward.connections);
            ways.push((far.address, far.transport, lines));
            ways.len() - 1
        });
        routes.push(Some((called.clone(), way)));
    }
    let target = far(&outward.to.target, &outward.tls).await?;
    Ok((ways, routes, Some(target)))
}

/// Where a target is, with what it takes to connect.
pub(crate) async fn far(target: &Target, tls: &Tls) -> Result<Far, LoadError> {
    let is_tls = !matches!(target.transport, Transport::Tcp | Transport::Udp);
    let client = is_tls.then(|| tls::client(tls)).transpose()?;
    far_of(target, client, tls.server_name.as_deref()).await
}
