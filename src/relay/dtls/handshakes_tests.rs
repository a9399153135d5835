//! The thread, and what it does where no library of ours would do it.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use media::{DtlsBackend, DtlsRole};

use super::super::association::{Backend, Choice, Made};
use super::super::association_tests::{BACKENDS, identities, identity, setup};
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

impl DtlsSink for Crossing {
    fn deliver(&mut self, of: HandshakeId, news: News) -> Result<(), News> {
        assert_eq!(of.number, 1);
        let told = match news {
            News::Datagram(bytes) => {
                if let Some(other) = self.other.get() {
                    // Where there is no room it is lost, as on any way.
                    let _ = other.datagram(of.session, &bytes);
                }
                return Ok(());
            }
            News::Keys(keys) => Told::Keys(of.session, keys),
            News::Failed(failure) => Told::Failed(of.session, failure),
            News::Closed => Told::Closed(of.session),
            News::Identity(_) => return Ok(()),
        };
        self.told.send(told).unwrap();
        Ok(())
    }
    fn rotated(&mut self, _: &Identity) -> bool {
        true
    }
}

const fn first(session: SessionId) -> HandshakeId {
    HandshakeId { session, number: 1 }
}

fn started(sink: Box<dyn DtlsSink>) -> Handshakes {
    Handshakes::start(sink, identities(), 1).unwrap()
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
    let (a, b) = (started(sink_a), started(sink_b));
    to_b.set(b.handle()).unwrap();
    to_a.set(a.handle()).unwrap();
    let (ours, theirs) = (identity(1), identity(2));
    let sessions: Vec<_> = (0..24).map(|stem| SessionId::new(stem, 1)).collect();
    for (index, session) in sessions.iter().enumerate() {
        let (client, server) = (BACKENDS[index % 2], BACKENDS[index / 2 % 2]);
        let server = setup(server, DtlsRole::Passive, &theirs, ours.fingerprint());
        b.handle().begin(first(*session), server).unwrap();
        let client = setup(client, DtlsRole::Active, &ours, theirs.fingerprint());
        a.handle().begin(first(*session), client).unwrap();
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
        a.handle().end(first(*session)).unwrap();
        assert_eq!(next(&told_b), Told::Closed(*session));
    }
    let counted =
        DtlsCounters { begun: 24, completed: 24, completed_13: 0, failed: 0, lost: 0, unsent: 0 };
    assert_eq!((a.handle().counts().read(), b.handle().counts().read()), (counted, counted));
    drop((to_a, told_a));
    // b's sink holds a handle to a: a session that b no longer has is all that it would send to.
    for session in &sessions[12..] {
        a.handle().end(first(*session)).unwrap();
    }
    let mut closed: Vec<_> = (12..24).map(|_| next(&told_b)).collect();
    closed.sort_by_key(|it| if let Told::Closed(it) = it { *it } else { panic!("{it:?}") });
    assert_eq!(closed, sessions[12..].iter().map(|it| Told::Closed(*it)).collect::<Vec<_>>());
}

#[test]
fn a_thread_without_handles_ends() {
    let (sink, _, telling) = sink();
    let thread = started(sink);
    thread.handle().begin(first(SessionId::new(1, 0)), passive(DtlsBackend::WebrtcDtls)).unwrap();
    thread.join();
    assert_eq!(telling.recv().ok(), None, "a session that is ended is told nothing");
}

#[test]
fn more_handshakes_than_the_limit_are_refused_and_an_end_makes_room() {
    let (sink, _, telling) = sink();
    let thread = started(sink);
    let begin = |at: usize| {
        let session = SessionId::new(at as u64, 0);
        while thread.handle().begin(first(session), passive(DtlsBackend::Dimpl)).is_err() {
            std::thread::yield_now();
        }
        session
    };
    let most = limit::DTLS_HANDSHAKES.get();
    let sessions: Vec<_> = (0..=most).map(begin).collect();
    assert_eq!(next(&telling), Told::Failed(sessions[most], Failure::Full));
    thread.handle().end(first(sessions[0])).unwrap();
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
    assert_eq!(handle.counts().read().lost, 10_000 - taken as u64);
    assert_eq!(handle.datagram(session, &[22; 3_000]), Err(Lost), "larger than any");
    handle.begin(first(session), passive(DtlsBackend::Dimpl)).unwrap();
    handle.end(first(session)).unwrap();
    drop(waiting);
    assert_eq!(handle.end(first(session)), Err(Lost));
}

/// A library that breaks when it gets a message.
struct Broken {
    made: Vec<Made>,
}

impl Backend for Broken {
    fn form(&self) -> GuardForm {
        GuardForm { overhead: 24, has_13: false }
    }
    fn prefer(&mut self, _: Choice) {}
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
        undelivered: VecDeque::new(),
        again: None,
        rotate: Instant::from_nanos(u64::MAX),
        identities: identities(),
        random: SeededRandom::new(1),
    }
}

fn put_broken(table: &mut Table, session: SessionId, is_complete: bool) {
    let peer = identity(1);
    let mut made = vec![];
    if is_complete {
        let material = base::Secret::new(vec![1; 56]);
        let suite = rtp::sdes::Suite::AeadAes128Gcm;
        made.push(Made::Complete { suite, material, is_13: false });
        made.push(Made::Certificate(peer.certificate().to_vec()));
    }
    let setup = setup(DtlsBackend::Dimpl, DtlsRole::Passive, &identity(2), peer.fingerprint());
    let association = Association::new(now(), Box::new(Broken { made }), setup);
    let entry = Entry { number: 1, association, is_counted: true, timer: None, ending: None };
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
fn a_certificate_that_finds_no_room_is_tried_again_and_each_is_another() {
    let (told, telling) = sync_channel(10);
    let mut table = table(Box::new(Narrow { left: 2, told: told.clone() }));
    table.command((SessionId::new(1, 0), Command::Identify));
    assert!(telling.try_recv().is_err());
    table.deliver_again(table.again.unwrap());
    table.sink = Box::new(Narrow { left: 1, told });
    table.command((SessionId::new(2, 0), Command::Identify));
    let made: Vec<_> = telling.try_iter().flatten().collect();
    let [News::Identity(Some(one)), News::Identity(Some(other))] = &made[..] else { panic!() };
    assert!(one != other && *one != table.identities.present());
}

/// A sink without room, for so many attempts.
struct Narrow {
    left: usize,
    told: SyncSender<Option<News>>,
}

impl Narrow {
    fn has_room(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

impl DtlsSink for Narrow {
    fn deliver(&mut self, _: HandshakeId, news: News) -> Result<(), News> {
        if self.has_room() {
            self.told.send(Some(news)).unwrap();
            return Ok(());
        }
        Err(news)
    }
    fn rotated(&mut self, _: &Identity) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.told.send(None).unwrap();
        }
        has_room
    }
}

#[test]
fn keys_that_find_no_room_are_tried_again_and_datagrams_are_not() {
    let (told, telling) = sync_channel(10);
    let mut table = table(Box::new(Narrow { left: 5, told }));
    let session = SessionId::new(1, 0);
    table.tell(first(session), News::Datagram(vec![1]));
    assert_eq!(table.counts.unsent.load(Ordering::Relaxed), 1);
    put_broken(&mut table, session, true);
    for _ in 0..2 {
        table.deliver_again(table.again.unwrap());
        assert!(telling.try_recv().is_err());
    }
    table.deliver_again(table.again.unwrap() - Duration::from_nanos(1));
    assert!(telling.try_recv().is_err(), "not before its time");
    table.deliver_again(table.again.unwrap());
    assert!(matches!(telling.try_recv(), Ok(Some(News::Keys(_)))));
    assert_eq!((table.again, table.undelivered.len()), (None, 0));
}

#[test]
fn news_of_an_ended_session_are_not_tried_again() {
    let (told, telling) = sync_channel(10);
    let mut table = table(Box::new(Narrow { left: 2, told }));
    let session = SessionId::new(1, 0);
    table.failed(first(session), Failure::Full);
    table.end(session, 1);
    table.deliver_again(table.again.unwrap());
    assert!(telling.try_recv().is_err());
}

#[test]
fn an_end_of_a_former_handshake_is_not_that_of_the_present_one() {
    let (sink, _, _telling) = sink();
    let mut table = table(sink);
    put_broken(&mut table, SessionId::new(1, 0), true);
    table.end(SessionId::new(1, 0), 7);
    assert!(table.entries.values().all(|entry| entry.ending.is_none()));
}

#[test]
fn a_new_certificate_is_told_until_it_is_heard() {
    let (told, telling) = sync_channel(10);
    let mut table = table(Box::new(Narrow { left: 2, told }));
    let before = table.identities.present().fingerprint().clone();
    table.rotate = table.identities.poll_timeout();
    let at = table.rotate;
    table.rotate(at - Duration::from_nanos(1), wall());
    assert_eq!(*table.identities.present().fingerprint(), before);
    table.rotate(at, wall());
    assert_ne!(*table.identities.present().fingerprint(), before);
    assert!(telling.try_recv().is_err());
    table.rotate(table.rotate, wall());
    assert_eq!(telling.try_recv(), Ok(None));
    assert_eq!(table.rotate, at + limit::DTLS_IDENTITY_MS.millis());
}

#[test]
fn an_ended_session_is_forgotten_even_when_nothing_says_goodbye() {
    let (sink, _, _telling) = sink();
    let mut table = table(sink);
    let session = SessionId::new(1, 0);
    put_broken(&mut table, session, true);
    table.end(session, 1);
    assert_eq!(table.entries.len(), 1);
    table.fire(now() + GOODBYE);
    assert_eq!((table.entries.len(), table.timers.len(), table.handshaking), (0, 0, 0));
}
