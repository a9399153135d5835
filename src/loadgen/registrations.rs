//! People who are registered by SIP over WSS (RFC 7118) and do nothing: each opens a WebSocket,
//! proves by digest who it is, and keeps both alive.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::limit::{CALL_DURATION_MS, LOADGEN_CALLS_PER_SECOND, LOADGEN_REGISTRATIONS};
use base::{Clock as _, Random as _};
use serde::Serialize;
use sip::digest::{Challenge, Login, Session};
use sip::{Message, Method, Name, NameAddr, Request, Status, Uri, ids};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::config::{ConfigError, Target, Tls, within};
use crate::line::Far;
use crate::load::{Cancellation, Cancelled, LoadError};
use crate::os::{OsClock, OsRandom, raise_descriptors, wake_at};
use crate::report::{Spread, millis};
use crate::websocket::{Frame, WebSocket};

/// How long a WebSocket and its registration may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two pings of ours.
const PING_EVERY: Duration = Duration::from_secs(50);
/// What is asked for; half of what is granted later it is asked for again.
const EXPIRES: u32 = 600;
/// Refusals that may follow each other: none, a stale nonce.
const CHALLENGES: u32 = 3;

/// Who registers, where, and for how long.
#[derive(Clone, Debug)]
pub struct RegistrationsConfig {
    /// The WebSocket; see [`Target::parse`] (`wss://127.0.0.1:8443/sip`).
    pub target: Target,
    /// How many there are.
    pub count: u32,
    /// How many come each second.
    pub rate: f64,
    /// How long they stay once the last has come.
    pub hold: Duration,
    /// Who they are, in turns.
    pub logins: Vec<Login>,
    /// Our addresses, in turns; empty: what the system chooses. An edge takes so many connections
    /// of one (limit `transport.browsers_per_source`).
    pub sources: Vec<IpAddr>,
    /// How TLS connections are made.
    pub tls: Tls,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Registered now.
    pub registered: u32,
    /// Not registered, or no longer, against their will.
    pub failed: u32,
}

/// What it amounted to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegistrationsReport {
    /// Where.
    pub target: String,
    /// How many were to register.
    pub planned: u32,
    /// How many were registered at some time.
    pub registered: u32,
    /// How many were registered until the end.
    pub kept: u32,
    /// Why the others were not, by stable codes.
    pub failures: BTreeMap<String, u32>,
    /// From the connection to the 200.
    pub registered_ms: Option<Spread>,
}

impl fmt::Display for RegistrationsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, planned, registered, kept, .. } = self;
        writeln!(f, "{target}: {registered} of {planned} registered, {kept} until the end")?;
        for (why, count) in &self.failures {
            writeln!(f, "  {count:>7}  {why}")?;
        }
        if let Some(Spread { p50, p95, p99, max, .. }) = self.registered_ms {
            writeln!(f, "registered after p50 {p50:.1} p95 {p95:.1} p99 {p99:.1} max {max:.1} ms")?;
        }
        Ok(())
    }
}

/// Registrations that are ready to begin.
pub struct Registrations {
    config: RegistrationsConfig,
    held: watch::Sender<Held>,
    cancellation: Cancellation,
}

/// What one of them says.
enum Said {
    Registered(Duration),
    Gone(Result<(), &'static str>),
}

impl Registrations {
    /// Checks the configuration.
    ///
    /// # Errors
    /// An absurd one.
    pub fn new(config: RegistrationsConfig) -> Result<Self, LoadError> {
        within("registrations", f64::from(config.count), 1.0, &LOADGEN_REGISTRATIONS)?;
        within("rate", config.rate, f64::MIN_POSITIVE, &LOADGEN_CALLS_PER_SECOND)?;
        within("hold (ms)", millis(config.hold), 0.0, &CALL_DURATION_MS)?;
        if config.logins.is_empty() {
            return Err(ConfigError::Empty("logins").into());
        }
        Ok(Self { config, held: watch::Sender::default(), cancellation: Cancellation::new() })
    }

    /// Tells how many are registered; ends with the run.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// What ends it early.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    /// Registers them all, keeps them, and lets them go. It needs a tokio runtime with I/O and
    /// time.
    ///
    /// # Errors
    /// The target's name has no address, or TLS cannot be set up.
    pub async fn run(self) -> Result<RegistrationsReport, LoadError> {
        raise_descriptors();
        let Self { config, held, cancellation } = self;
        let far = crate::run::far(&config.target, &config.tls).await?;
        let (say, mut said) = mpsc::channel(64);
        let (leave, mut is_over) = (Cancellation::new(), false);
        let place = Arc::new(Place { far, target: config.target.clone(), leave: leave.clone() });
        let mut stop = cancellation.listen();
        let mut it = Tally::new(&config);
        let started = OsClock.now();
        let (mut placed, mut end) = (0, None);
        let never = started + Duration::from_secs(86_400);
        while placed < config.count || it.here > 0 || it.coming > 0 {
            let due = started + Duration::from_secs_f64(f64::from(placed) / config.rate);
            if placed == config.count && it.coming == 0 && end.is_none() {
                end = Some(OsClock.now() + config.hold);
            }
            let wake = if placed < config.count { due } else { end.unwrap_or(never) };
            tokio::select! {
                Some(one) = said.recv() => it.note(one),
                () = stop.wait(), if !is_over => {
                    (placed, is_over) = (config.count, true);
                    leave.cancel();
                }
                () = sleep_until(wake_at(wake)), if !is_over => {
                    if placed < config.count {
                        let login = config.logins[placed as usize % config.logins.len()].clone();
                        let source = config.sources.iter().cycle().nth(placed as usize).copied();
                        let who = (login, source);
                        tokio::spawn(Client::live(Arc::clone(&place), who, say.clone()));
                        (placed, it.coming) = (placed + 1, it.coming + 1);
                    } else {
                        // Those who have stayed until now have stayed until the end.
                        (it.report.kept, is_over) = (it.here, true);
                        leave.cancel();
                    }
                }
            }
            held.send_replace(Held {
                registered: it.here,
                failed: it.report.failures.values().sum(),
            });
        }
        it.report.registered_ms = Spread::of(it.took);
        Ok(it.report)
    }
}

/// What is known of all.
struct Tally {
    coming: u32,
    here: u32,
    took: Vec<f64>,
    report: RegistrationsReport,
}

impl Tally {
    fn new(config: &RegistrationsConfig) -> Self {
        let report = RegistrationsReport {
            target: format!(
                "wss://{}:{}{}",
                config.target.host, config.target.port, config.target.path
            ),
            planned: config.count,
            registered: 0,
            kept: 0,
            failures: BTreeMap::new(),
            registered_ms: None,
        };
        Self { coming: 0, here: 0, took: Vec::new(), report }
    }

    fn note(&mut self, said: (bool, Said)) {
        match said {
            (_, Said::Registered(took)) => {
                self.took.push(millis(took));
                self.report.registered += 1;
                (self.coming, self.here) = (self.coming - 1, self.here + 1);
            }
            (was_here, Said::Gone(how)) => {
                let count = if was_here { &mut self.here } else { &mut self.coming };
                *count -= 1;
                if let Err(why) = how {
                    *self.report.failures.entry(why.to_owned()).or_default() += 1;
                }
            }
        }
    }
}

/// What all look at.
struct Place {
    far: Far,
    target: Target,
    leave: Cancellation,
}

/// Who it is, and from where it comes.
type Who = (Login, Option<IpAddr>);

/// One of them.
struct Client<S> {
    socket: WebSocket<S>,
    login: Login,
    session: Option<Session>,
    aor: NameAddr,
    registrar: Uri,
    contact: String,
    host: String,
    call_id: String,
    cseq: u32,
}

impl Client<()> {
    /// From the connection to the goodbye.
    async fn live(place: Arc<Place>, who: Who, say: mpsc::Sender<(bool, Said)>) {
        let began = OsClock.now();
        let mut leaving = place.leave.listen();
        let mut is_here = false;
        let left = async {
            let coming = timeout(PATIENCE, Self::come(&place, who));
            let (mut client, expires) = coming.await.unwrap_or(Err("setup.timeout"))?;
            // Nobody listens any more where the run was given up.
            let _ = say.send((true, Said::Registered(OsClock.now().since(began)))).await;
            is_here = true;
            client.stay(expires, &mut leaving).await
        };
        let how = left.await;
        let _ = say.send((is_here, Said::Gone(how))).await;
    }

    async fn come(
        place: &Place,
        (login, source): Who,
    ) -> Result<(Client<impl Stream>, u32), &'static str> {
        let (stream, _) = place.far.open(source).await.map_err(|error| error.0)?;
        let authority = format!("{}:{}", place.target.host, place.target.port);
        let socket = WebSocket::open(stream, &authority, &place.target.path).await?;
        let host = format!("{:016x}.invalid", OsRandom.u64());
        let uri = |user: Option<&str>| Uri::sip(user, &place.target.host, None);
        let contact = format!(
            "<sip:{:08x}@{host};transport=ws>;+sip.instance=\"<urn:uuid:{}>\";reg-id=1",
            OsRandom.u32(),
            uuid()
        );
        let mut client = Client {
            socket,
            aor: NameAddr::new(uri(Some(&login.user))),
            registrar: uri(None),
            login,
            session: None,
            contact,
            host,
            call_id: ids::new_call_id(&mut OsRandom),
            cseq: 0,
        };
        let expires = client.register().await?;
        Ok((client, expires))
    }
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid() -> String {
    let word = (OsRandom.u32(), OsRandom.u32(), OsRandom.u32(), OsRandom.u32());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:04x}{:08x}",
        word.0,
        word.1 >> 16,
        word.1 & 0xfff,
        word.2 & 0xfff,
        word.2 >> 16,
        word.3
    )
}

/// What a WebSocket may run over.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

impl<S: Stream> Client<S> {
    /// Registers, or does so again; the seconds that it holds.
    async fn register(&mut self) -> Result<u32, &'static str> {
        for _ in 0..CHALLENGES {
            let request = self.request();
            self.socket.send(&request.to_bytes()).await.map_err(|_| "connect.lost")?;
            let message = loop {
                match self.socket.read().await {
                    Some(Frame::Message(bytes)) => break bytes,
                    Some(Frame::Ping(said)) => {
                        self.socket.pong(&said).await.map_err(|_| "connect.lost")?;
                    }
                    Some(Frame::Pong) => {}
                    Some(Frame::Close(_)) | None => return Err("connect.lost"),
                }
            };
            let Ok(Message::Response(response)) = sip::parse::datagram(&message) else {
                return Err("register.malformed");
            };
            if response.status == Status::OK {
                let expires = expires(&response.headers);
                return Ok(expires.unwrap_or(EXPIRES));
            }
            if response.status != Status::UNAUTHORIZED {
                return Err("register.refused");
            }
            let mut challenges = Challenge::all(&response.headers).into_iter();
            let challenge = challenges.find(|it| it.is_for(&self.login));
            let challenge = challenge.ok_or("register.no_challenge")?;
            if self.session.is_some() && !challenge.is_stale() {
                return Err("register.wrong_password");
            }
            self.session = Some(Session::new(challenge, &self.login, &mut OsRandom));
        }
        Err("register.wrong_password")
    }

    fn request(&mut self) -> Request {
        self.cseq += 1;
        let from = self.aor.clone().with_param("tag", Some(&ids::new_tag(0, &mut OsRandom)));
        let (method, uri) = (Method::Register, self.registrar.clone());
        let mut request = Request::outside_dialog(
            method.clone(),
            uri,
            &from,
            &self.aor,
            &self.call_id,
            self.cseq,
        );
        let branch = ids::new_branch(0, &mut OsRandom);
        let headers = &mut request.headers;
        headers.prepend(Name::Via, format!("SIP/2.0/WSS {};branch={branch}", self.host));
        headers.push(Name::Contact, &self.contact);
        headers.push(Name::Expires, EXPIRES.to_string());
        headers.push(Name::Supported, "path, outbound, gruu");
        if let Some(session) = &mut self.session {
            let uri = self.registrar.to_string();
            headers.push_header(session.authorize(&method, &uri));
        }
        request
    }

    /// Keeps the WebSocket and the registration alive until it is time to leave.
    async fn stay(
        &mut self,
        mut expires: u32,
        leaving: &mut Cancelled,
    ) -> Result<(), &'static str> {
        let half = |seconds: u32| OsClock.now() + Duration::from_secs(u64::from(seconds / 2));
        let (mut again, mut ping) = (half(expires), OsClock.now() + PING_EVERY);
        loop {
            let wake = again.min(ping);
            tokio::select! {
                () = leaving.wait() => {
                    // Whoever is gone already is not told.
                    let _ = self.socket.close().await;
                    return Ok(());
                }
                frame = self.socket.read() => match frame {
                    Some(Frame::Ping(said)) => {
                        self.socket.pong(&said).await.map_err(|_| "connect.lost")?;
                    }
                    Some(Frame::Message(_) | Frame::Pong) => {}
                    Some(Frame::Close(_)) => return Err("websocket.closed"),
                    None => return Err("connect.lost"),
                },
                () = sleep_until(wake_at(wake)) => {
                    if OsClock.now() >= again {
                        let granted = timeout(PATIENCE, self.register()).await;
                        expires = granted.unwrap_or(Err("register.timeout"))?;
                        again = half(expires);
                    } else {
                        self.socket.ping().await.map_err(|_| "connect.lost")?;
                        ping = OsClock.now() + PING_EVERY;
                    }
                }
            }
        }
    }
}

/// How long a registration holds, by its Contact or else for all (RFC 3261 section 10.2.4).
fn expires(headers: &sip::Headers) -> Option<u32> {
    let contact = headers.text(Name::Contact).and_then(|it| {
        let (_, value) = it.split_once(";expires=")?;
        value.split([';', ',', ' ']).next()?.parse().ok()
    });
    contact.or_else(|| headers.text(Name::Expires)?.trim().parse().ok())
}
