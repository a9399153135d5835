//! CPU of the server's side of a full DTLS handshake, beside OpenSSL's in a program of its own
//! (`openssl_dtls.c`): the same machine, cipher suite and curve, certificates of P-256, both sides
//! asked for one, keys exported, no socket. What the client does is not counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base::{Instant, SeededRandom, SessionId, WallTime};
use benches::rig::cpu;
use benches::rig::ratio::interleave;
use media::{DtlsBackend, DtlsRole};
use relay::dtls::{Association, Backends, Identity, Keys, Output, Setup, Wake};
use rtp::sdes::Suite;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::figure::{Bar, Figure};
use crate::media::{Bench, TESTED_CORE};

/// Handshakes of a turn.
const COUNT: u32 = 300;
/// Before them, not counted.
const FIRST: u32 = 20;
/// Turns of the runtime in which nothing came, after which nothing will.
const QUIET: u32 = 24;
/// Flights of a handshake, with some to spare.
const FLIGHTS: u32 = 12;
/// The cipher suite that WebRTC agrees on with certificates of ECDSA.
const SUITE: (u16, &str) = (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256");
/// Curves that a key exchange may have: number, what OpenSSL is to be told, and what it calls it.
/// The certificates' own curve has to stand behind another one.
const GROUPS: [(u16, &str, &str); 2] = [(23, "P-256", "secp256r1"), (29, "X25519:P-256", "x25519")];

impl Bench {
    /// Both back ends against OpenSSL.
    pub(crate) fn handshake(&self) -> anyhow::Result<Vec<Figure>> {
        eprintln!("DTLS handshakes");
        let folder = tempfile::tempdir()?;
        let program = compile(folder.path())?;
        // A thread of its own, since this one belongs on the generator's core.
        let work = || {
            cpu::pin(None, TESTED_CORE)?;
            let backends =
                [(DtlsBackend::Dimpl, Bar::AtMost(0.5)), (DtlsBackend::WebrtcDtls, Bar::None)];
            let mut figures = backends
                .into_iter()
                .map(|(backend, bar)| self.over_openssl(&program, backend, bar))
                .collect::<anyhow::Result<Vec<_>>>()?;
            figures.push(self.over_the_former_version()?);
            Ok(figures)
        };
        let done = std::thread::scope(|scope| scope.spawn(work).join());
        done.ok().context("the thread of the handshakes has panicked")?
    }

    fn over_openssl(
        &self,
        program: &Path,
        backend: DtlsBackend,
        bar: Bar,
    ) -> anyhow::Result<Figure> {
        let mut world = World::new(backend)?;
        let curve = world.learn_curve()?;
        let group = GROUPS.iter().find(|it| it.0 == curve).context("an unknown curve")?;
        let ours = || {
            let spent = world.run(COUNT)?;
            eprintln!("  {backend:?} {:.1} us", spent * 1e6);
            Ok(spent * 1e6)
        };
        let theirs = || {
            let spent = openssl(program, group)?;
            eprintln!("  OpenSSL {:.1} us", spent * 1e6);
            anyhow::Ok(spent * 1e6)
        };
        let pairs = interleave(self.pairs, ours, theirs)?;
        let what = format!("CPU per DTLS handshake, server side, {}", name(backend));
        let note = format!("{}, {}, {} handshakes a turn", SUITE.1, group.2, COUNT);
        Ok(Figure::ratio(what, "us", bar, "OpenSSL", &pairs).note(note))
    }
}

impl Bench {
    /// DTLS 1.3, which OpenSSL does not have, over 1.2, both with a client of `dimpl`.
    fn over_the_former_version(&self) -> anyhow::Result<Figure> {
        let world = |has_13| {
            let mut world = World::new(DtlsBackend::Dimpl)?;
            (world.asks_by, world.has_13) = (DtlsBackend::Dimpl, has_13);
            ensure!(world.is_13()? == has_13, "another version than {has_13} is spoken");
            anyhow::Ok(world)
        };
        let (mut new, mut former) = (world(true)?, world(false)?);
        let turn = |world: &mut World, version: &str| {
            let spent = world.run(COUNT)?;
            eprintln!("  DTLS {version} {:.1} us", spent * 1e6);
            anyhow::Ok(spent * 1e6)
        };
        let pairs = interleave(self.pairs, || turn(&mut new, "1.3"), || turn(&mut former, "1.2"))?;
        let what = "CPU per handshake of DTLS 1.3, server side, dimpl".to_owned();
        let note = format!("a client of dimpl, {COUNT} handshakes a turn");
        Ok(Figure::ratio(what, "us", Bar::None, "DTLS 1.2", &pairs).note(note))
    }
}

const fn name(backend: DtlsBackend) -> &'static str {
    match backend {
        DtlsBackend::Dimpl => "dimpl",
        DtlsBackend::WebrtcDtls => "webrtc-dtls",
    }
}

/// Makes the program of OpenSSL's side.
fn compile(folder: &Path) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare/openssl_dtls.c");
    let program = folder.join("openssl_dtls");
    let done = Command::new("cc")
        .arg("-O2")
        .arg("-o")
        .args([&program, &source])
        .args(["-lssl", "-lcrypto"])
        .status()
        .context("no C compiler (deploy/compare.sh installs what is needed)")?;
    ensure!(done.success(), "openssl_dtls.c does not compile; is libssl-dev installed?");
    Ok(program)
}

/// Seconds of OpenSSL for each handshake.
fn openssl(program: &Path, group: &(u16, &str, &str)) -> anyhow::Result<f64> {
    let done = Command::new(program).args([&COUNT.to_string(), group.1]).output()?;
    ensure!(done.status.success(), "OpenSSL: {}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout)?;
    let [suite, curve, nanos] = said.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!("OpenSSL's program says something else: {said}")
    };
    ensure!((suite, curve) == (SUITE.1, group.2), "OpenSSL agrees on something else: {said}");
    Ok(nanos.parse::<f64>()? / 1e9)
}

/// One side, as the thread of handshakes has it.
struct Side {
    backends: Backends,
    identity: Identity,
    /// `webrtc-dtls` lives in one; each side has its own, so that only the server's is counted.
    runtime: Runtime,
    wake: Wake,
    woken: mpsc::Receiver<SessionId>,
}

impl Side {
    fn new(seed: u64) -> anyhow::Result<Self> {
        let wall = WallTime::from_unix_millis(1_795_392_000_000);
        let (queue, woken) = mpsc::channel(64);
        Ok(Self {
            backends: Backends::new()?,
            identity: Identity::generate(&mut SeededRandom::new(seed), wall)?,
            runtime: Builder::new_current_thread().enable_time().build()?,
            wake: Wake { queue, session: SessionId::new(1, 0) },
            woken,
        })
    }

    fn begin(
        &self,
        backend: DtlsBackend,
        role: DtlsRole,
        has_13: bool,
        peer: &Identity,
    ) -> anyhow::Result<Association> {
        let setup = Setup {
            backend,
            role,
            identity: self.identity.clone(),
            fingerprint: peer.fingerprint().clone(),
            suites: Suite::PREFERENCE.to_vec(),
            has_cookie: false,
            has_13,
        };
        let _entered = self.runtime.enter();
        Ok(self.backends.begin(now(), setup, self.wake.clone())?)
    }

    /// Lets tasks run until none has anything to say, as the thread of handshakes does.
    fn settle(&mut self, association: &mut Association) {
        self.runtime.block_on(async {
            let mut quiet = 0;
            while quiet < QUIET {
                tokio::task::yield_now().await;
                quiet += 1;
                while self.woken.try_recv().is_ok() {
                    association.handle_timeout(now());
                    quiet = 0;
                }
            }
        });
    }
}

/// Nothing is ever late here: all happens at one moment.
fn now() -> Instant {
    Instant::ZERO + Duration::from_secs(1)
}

/// A client, and the server that is measured.
struct World {
    client: Side,
    server: Side,
    backend: DtlsBackend,
    /// The client's.
    asks_by: DtlsBackend,
    has_13: bool,
}

/// What came of a side's turn.
#[derive(Default)]
struct Turn {
    datagrams: Vec<Vec<u8>>,
    keys: Option<Keys>,
}

impl World {
    fn new(backend: DtlsBackend) -> anyhow::Result<Self> {
        // As a client this one offers one cipher suite with ECDSA.
        let asks_by = DtlsBackend::WebrtcDtls;
        let (client, server) = (Side::new(1)?, Side::new(2)?);
        Ok(Self { client, server, backend, asks_by, has_13: false })
    }

    /// Whether the server protects its records as DTLS 1.3 does (RFC 9147 section 4).
    fn is_13(&mut self) -> anyhow::Result<bool> {
        let mut is_13 = false;
        self.shake(&mut |datagram| {
            is_13 |= datagram.first().is_some_and(|byte| byte & 0xe0 == 0x20);
        })?;
        Ok(is_13)
    }

    /// Seconds of the server for each of so many handshakes.
    fn run(&mut self, count: u32) -> anyhow::Result<f64> {
        for _ in 0..FIRST {
            self.shake(&mut |_| {})?;
        }
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            spent += self.shake(&mut |_| {})?;
        }
        Ok(spent.as_secs_f64() / f64::from(count))
    }

    /// The curve that is agreed on, after a look at the cipher suite.
    fn learn_curve(&mut self) -> anyhow::Result<u16> {
        let mut agreed = Agreed::default();
        self.shake(&mut |datagram| agreed.read(datagram))?;
        ensure!(agreed.suite == Some(SUITE.0), "not the suite of WebRTC: {agreed:?}");
        agreed.curve.context("no curve in what the server says")
    }

    /// One handshake; the server's time. `look` sees what the server sends.
    fn shake(&mut self, look: &mut dyn FnMut(&[u8])) -> anyhow::Result<Duration> {
        let Self { client, server, backend, asks_by, has_13 } = self;
        let mut asking = client.begin(*asks_by, DtlsRole::Active, *has_13, &server.identity)?;
        let began = cpu::own_thread();
        let mut answering = server.begin(*backend, DtlsRole::Passive, *has_13, &client.identity)?;
        let mut spent = cpu::own_thread() - began;
        let (mut sent, mut asked, mut answered) = (Vec::new(), None, None);
        for _ in 0..FLIGHTS {
            let turn = turn(client, &mut asking, &sent)?;
            asked = asked.or(turn.keys);
            if asked.is_some() && answered.is_some() {
                break;
            }
            let began = cpu::own_thread();
            let heard = self::turn(server, &mut answering, &turn.datagrams)?;
            spent += cpu::own_thread() - began;
            heard.datagrams.iter().for_each(|it| look(it));
            answered = answered.or(heard.keys);
            sent = heard.datagrams;
        }
        let (Some(asked), Some(answered)) = (asked, answered) else {
            bail!("a handshake came to no end")
        };
        ensure!(asked.send == answered.receive, "the two sides have different keys");
        let began = cpu::own_thread();
        drop(answering);
        Ok(spent + cpu::own_thread() - began)
    }
}

fn turn(side: &mut Side, it: &mut Association, datagrams: &[Vec<u8>]) -> anyhow::Result<Turn> {
    {
        let _entered = side.runtime.enter();
        datagrams.iter().for_each(|datagram| it.handle_datagram(now(), datagram));
    }
    let mut turn = Turn::default();
    let mut drain = |it: &mut Association| {
        while let Some(output) = it.poll_output() {
            match output {
                Output::Datagram(datagram) => turn.datagrams.push(datagram),
                Output::Keys(keys) => turn.keys = Some(keys),
                Output::Failed(failure) => bail!("a handshake failed: {failure}"),
                Output::Closed => bail!("a handshake was closed"),
            }
        }
        Ok(())
    };
    drain(it)?;
    side.settle(it);
    drain(it)?;
    Ok(turn)
}

/// What a server's plaintext messages say was agreed on.
#[derive(Debug, Default)]
struct Agreed {
    suite: Option<u16>,
    curve: Option<u16>,
}

impl Agreed {
    /// Reads the records of a datagram (RFC 6347 section 4.1) and the messages in them.
    fn read(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((head, body)) = rest.split_at_checked(13) {
            let length = usize::from(u16::from_be_bytes([head[11], head[12]]));
            let Some((record, next)) = body.split_at_checked(length) else { return };
            // Handshake messages before anything is encrypted.
            if head[0] == 22 && head[3..5] == [0, 0] {
                self.read_messages(record);
            }
            rest = next;
        }
    }

    fn read_messages(&mut self, mut rest: &[u8]) {
        while let Some((head, body)) = rest.split_at_checked(12) {
            let length = usize::from(u16::from_be_bytes([head[10], head[11]]));
            let Some((message, next)) = body.split_at_checked(length) else { return };
            let word = |at: usize| {
                let bytes = message.get(at..at + 2)?;
                Some(u16::from_be_bytes([bytes[0], bytes[1]]))
            };
            let is_first_piece = head[6..9] == [0, 0, 0];
            match head[0] {
                // A ServerHello: version, random, session, cipher suite (RFC 5246 section 7.4.1.3).
                2 if is_first_piece => {
                    let session = message.get(34).copied().unwrap_or_default();
                    self.suite = word(35 + usize::from(session));
                }
                // A ServerKeyExchange: a named curve, its number (RFC 8422 section 5.4).
                12 if is_first_piece && message.first() == Some(&3) => self.curve = word(1),
                _ => {}
            }
            rest = next;
        }
    }
}
