//! The thread, and what it does where no library of ours would do it.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use media::{DtlsBackend, DtlsRole};

use super::super::association::{Backend, Made};
use super::super::association_tests::{BACKENDS, identity, setup};
use super::super::guard::GuardForm;
use super::*;

/// What a sink was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Keys(SessionId, Keys),
    Failed(SessionId, Failure),
    Closed(SessionId),
}

/// A sink that hands datagrams to another thread of handshakes.
struct Crossing {
    other: Arc<OnceLock<DtlsHandle>>,
    told: SyncSender<Told>,
}

impl Crossing {
    fn tell(&self, told: Told) {
        self.told.send(told).unwrap();
    }
}

impl DtlsSink for Crossing {
    fn datagram(&mut self, session: SessionId, bytes: &[u8]) {
        if let Some(other) = self.other.get() {
            // Where there is no room it is lost, as on any way.
            let _ = other.datagram(session, bytes);
        }
    }
    fn keys(&mut self, session: SessionId, keys: Keys) {
        self.tell(Told::Keys(session, keys));
    }
    fn failed(&mut self, session: SessionId, failure: Failure) {
        self.tell(Told::Failed(session, failure));
    }
    fn closed(&mut self, session: SessionId) {
        self.tell(Told::Closed(session));
    }
}

type Other = Arc<OnceLock<DtlsHandle>>;

fn sink() -> (Box<dyn DtlsSink>, Other, Receiver<Told>) {
    let (told, telling) = sync_channel(10_000);
    let other = Other::default();
    (Box::new(Crossing { other: other.clone(), told }), other, telling)
}

fn next(telling: &Receiver<Told>) -> Told {
    telling.recv_timeout(Duration::from_secs(30)).unwrap()
}

fn passive(backend: DtlsBackend) -> Setup {
    let (ours, theirs) = (identity(2), identity(1));
    setup(backend, DtlsRole::Passive, &ours, theirs.fingerprint())
}

#[test]
fn two_threads_agree_for_many_sessions_and_one_hears_the_other_leave() {
    let (sink_a, to_b, told_a) = sink();
    let (sink_b, to_a, told_b) = sink();
    let (a, b) = (Handshakes::start(sink_a).unwrap(), Handshakes::start(sink_b).unwrap());
    to_b.set(b.handle()).unwrap();
    to_a.set(a.handle()).unwrap();
    let (ours, theirs) = (identity(1), identity(2));
    let sessions: Vec<_> = (0..24).map(|stem| SessionId::new(stem, 1)).collect();
    for (index, session) in sessions.iter().enumerate() {
        let (client, server) = (BACKENDS[index % 2], BACKENDS[index / 2 % 2]);
        let server = setup(server, DtlsRole::Passive, &theirs, ours.fingerprint());
        b.handle().begin(*session, server).unwrap();
        let client = setup(client, DtlsRole::Active, &ours, theirs.fingerprint());
        a.handle().begin(*session, client).unwrap();
    }
    let all = |telling: &Receiver<Told>| -> BTreeMap<SessionId, Keys> {
        let told = sessions.iter().map(|_| match next(telling) {
            Told::Keys(session, keys) => (session, keys),
            other => panic!("{other:?}"),
        });
        told.collect()
    };
    let (keys_a, keys_b) = (all(&told_a), all(&told_b));
    for session in &sessions {
        assert_eq!(keys_a[session].send, keys_b[session].receive);
        assert_eq!(keys_a[session].receive, keys_b[session].send);
    }
    // Half leave one by one, the others with their thread.
    for session in &sessions[..12] {
        a.handle().end(*session).unwrap();
        assert_eq!(next(&told_b), Told::Closed(*session));
    }
    let counted = DtlsCounters { begun: 24, completed: 24, failed: 0, lost: 0 };
    assert_eq!((a.handle().counters(), b.handle().counters()), (counted, counted));
    drop((to_a, told_a));
    // b's sink holds a handle to a: a session that b no longer has is all that it would send to.
    for session in &sessions[12..] {
        a.handle().end(*session).unwrap();
    }
    let mut closed: Vec<_> = (12..24).map(|_| next(&told_b)).collect();
    closed.sort_by_key(|it| if let Told::Closed(it) = it { *it } else { panic!("{it:?}") });
    assert_eq!(closed, sessions[12..].iter().map(|it| Told::Closed(*it)).collect::<Vec<_>>());
}

#[test]
fn a_thread_without_handles_ends() {
    let (sink, _, telling) = sink();
    let thread = Handshakes::start(sink).unwrap();
    thread.handle().begin(SessionId::new(1, 0), passive(DtlsBackend::WebrtcDtls)).unwrap();
    thread.join();
    assert_eq!(telling.recv().ok(), None, "a session that is ended is told nothing");
}

#[test]
fn more_handshakes_than_the_limit_are_refused_and_an_end_makes_room() {
    let (sink, _, telling) = sink();
    let thread = Handshakes::start(sink).unwrap();
    let begin = |at: usize| {
        let session = SessionId::new(at as u64, 0);
        while thread.handle().begin(session, passive(DtlsBackend::Dimpl)).is_err() {
            std::thread::yield_now();
        }
        session
    };
    let most = limit::DTLS_HANDSHAKES.get();
    let sessions: Vec<_> = (0..=most).map(begin).collect();
    assert_eq!(next(&telling), Told::Failed(sessions[most], Failure::Full));
    thread.handle().end(sessions[0]).unwrap();
    begin(most + 1);
    let last = begin(most + 2);
    assert_eq!(next(&telling), Told::Failed(last, Failure::Full));
}

#[test]
fn datagrams_leave_room_for_commands() {
    let (commands, waiting) = mpsc::channel(limit::DTLS_COMMANDS.get());
    let handle = DtlsHandle { commands, counts: Arc::default() };
    let session = SessionId::new(1, 0);
    let taken = (0..10_000).filter(|_| handle.datagram(session, &[22; 100]).is_ok()).count();
    assert_eq!(taken, limit::DTLS_COMMANDS.get() * 3 / 4);
    assert_eq!(handle.counters().lost, 10_000 - taken as u64);
    assert_eq!(handle.datagram(session, &[22; 3_000]), Err(Lost), "larger than any");
    handle.begin(session, passive(DtlsBackend::Dimpl)).unwrap();
    handle.end(session).unwrap();
    drop(waiting);
    assert_eq!(handle.end(session), Err(Lost));
}

/// A library that breaks when it gets a message.
struct Broken {
    made: Vec<Made>,
}

impl Backend for Broken {
    fn form(&self) -> GuardForm {
        GuardForm { overhead: 24, has_13: false }
    }
    fn handle_datagram(&mut self, _: Instant, _: &[u8]) {
        assert!(self.made.len() > 100, "this breaks");
    }
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn poll_made(&mut self) -> Option<Made> {
        self.made.pop()
    }
    fn close(&mut self) {}
}

/// A table without a thread, and a way to put broken associations into it.
fn table(sink: Box<dyn DtlsSink>) -> Table {
    Table {
        backends: Backends::new().unwrap(),
        sink,
        wake: mpsc::channel(10).0,
        counts: Arc::default(),
        entries: BTreeMap::new(),
        timers: BTreeSet::new(),
        handshaking: 0,
    }
}

fn put_broken(table: &mut Table, session: SessionId, is_complete: bool) {
    let peer = identity(1);
    let mut made = vec![];
    if is_complete {
        let material = base::Secret::new(vec![1; 56]);
        made.push(Made::Complete { suite: rtp::sdes::Suite::AeadAes128Gcm, material });
        made.push(Made::Certificate(peer.certificate().to_vec()));
    }
    let setup = setup(DtlsBackend::Dimpl, DtlsRole::Passive, &identity(2), peer.fingerprint());
    let association = Association::new(now(), Box::new(Broken { made }), setup);
    let entry = Entry { association, is_counted: true, timer: None, ending: None };
    table.entries.insert(session, entry);
    table.handshaking += 1;
    table.step(session, |association, now| association.handle_timeout(now));
}

#[test]
fn a_panic_ends_one_association_only() {
    let (sink, _, telling) = sink();
    let mut table = table(sink);
    let sessions: Vec<_> = (0..3).map(|at| SessionId::new(at, 0)).collect();
    for (session, is_complete) in sessions.iter().zip([false, true, true]) {
        put_broken(&mut table, *session, is_complete);
    }
    assert_eq!(table.handshaking, 1);
    assert!((1..3).all(|at| matches!(next(&telling), Told::Keys(it, _) if it == sessions[at])));
    // A change of ciphers passes any guard; a protected alert passes a complete one.
    let change = [20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    let alert = [&[21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 26][..], &[1; 26]].concat();
    table.command((sessions[0], Command::Datagram(change.to_vec())));
    assert_eq!(next(&telling), Told::Failed(sessions[0], Failure::Fault));
    table.command((sessions[1], Command::Datagram(alert)));
    assert_eq!(next(&telling), Told::Closed(sessions[1]));
    assert_eq!(table.entries.keys().collect::<Vec<_>>(), [&sessions[2]]);
    assert_eq!((table.handshaking, table.timers.len()), (0, 0));
}

#[test]
fn an_ended_session_is_forgotten_even_when_nothing_says_goodbye() {
    let (sink, _, _telling) = sink();
    let mut table = table(sink);
    let session = SessionId::new(1, 0);
    put_broken(&mut table, session, true);
    table.end(session);
    assert_eq!(table.entries.len(), 1);
    table.fire(now() + GOODBYE);
    assert_eq!((table.entries.len(), table.timers.len(), table.handshaking), (0, 0, 0));
}
