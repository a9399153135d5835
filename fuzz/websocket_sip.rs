//! The door of a WebSocket: whatever its frames hold, nothing of an unproved sender passes, nothing
//! passes with credentials in it, and every answer can be read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::auth::{Credentials, Hashes, Who};
use api::{Door, Guard, House, Verdict};
use base::{Clock, Instant, Personal, Secret, SeededRandom, WallTime};
use bytes::Bytes;
use sip::digest::{Challenge, Login, Session};
use sip::{Message, Name, Response, Status};
use transport::{Flow, FlowId, Transport};

const START: Instant = Instant::from_nanos(1_000_000_000);
const WALL: WallTime = WallTime::from_unix_millis(1_795_392_000_000);
const PASSWORD: &str = "wonderland";

/// A list of `(kind, length, bytes)`, kind one byte and length two: frames as they are, frames to
/// which the right credentials are added, and time.
pub fn websocket_sip(data: &[u8]) {
    let mut world = World::new();
    let mut rest = data;
    while let [kind, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let taken = if kind & 3 == 3 { 0 } else { length };
        let (bytes, after) = after.split_at(taken.min(after.len()));
        rest = after;
        let goes_on = match kind & 3 {
            0 | 1 => world.frame(&Bytes::copy_from_slice(bytes)),
            2 => world.proved(bytes),
            _ => {
                world.now += Duration::from_millis(length as u64 * 10);
                true
            }
        };
        if !goes_on {
            return;
        }
    }
}

struct World {
    door: Door,
    now: Instant,
    challenge: Option<Challenge>,
}

impl World {
    fn new() -> Self {
        let clock: api::SharedClock = Arc::new(Still);
        let guard = Guard::new(Arc::new(Known), clock, Arc::new(drop));
        let host = sip::Host::Name("edge.example".into());
        let house = House::new(Arc::new(guard), host, Box::new(SeededRandom::new(1)));
        let flow = Arc::new(Flow {
            id: FlowId(1),
            transport: Transport::Wss,
            source: ([192, 0, 2, 1], 5_000).into(),
            local: ([192, 0, 2, 2], 8_443).into(),
            certificates: Arc::default(),
            outgoing: false,
            reusable: false,
        });
        let door = Door::new(Arc::new(house), flow, None, START);
        Self { door, now: START, challenge: None }
    }

    /// Sends a frame; returns whether the WebSocket stays open.
    fn frame(&mut self, frame: &Bytes) -> bool {
        match self.door.handle_frame(self.now, WALL, frame) {
            Verdict::Nothing => true,
            Verdict::Reply(answer) => {
                self.read(&answer);
                true
            }
            Verdict::Deliver(message) => {
                assert!(self.door.is_proved(), "nobody has proved anything");
                let read = sip::parse::stream(&message);
                assert!(read.is_ok(), "what is handed on cannot be read: {read:?}");
                let Ok(message) = read else { return true };
                let hidden = [Name::Authorization, Name::ProxyAuthorization];
                let is_request = matches!(message, Message::Request(_));
                assert!(!is_request || hidden.iter().all(|name| !message.headers().has(*name)));
                true
            }
            Verdict::Close(_, answer) => {
                answer.iter().for_each(|answer| self.read(answer));
                false
            }
        }
    }

    fn read(&mut self, answer: &Bytes) {
        if &**answer == sip::PONG {
            return;
        }
        // What was malformed is given back in the answer, so that it need not be valid.
        let read = sip::parse::syntax(answer, sip::parse::Delivery::Stream);
        assert!(matches!(read, Ok(Message::Response(_))), "no answer: {read:?}");
        let Ok(Message::Response(Response { status, headers, .. })) = read else { return };
        if status == Status::UNAUTHORIZED {
            self.challenge = Challenge::all(&headers).pop();
        }
    }

    /// Sends a request with the credentials that the latest challenge asks for.
    fn proved(&mut self, bytes: &[u8]) -> bool {
        let parsed = sip::parse::datagram(&Bytes::copy_from_slice(bytes));
        let (Ok(Message::Request(mut request)), Some(challenge)) = (parsed, &self.challenge) else {
            return true;
        };
        let password = Secret::new(PASSWORD.to_owned());
        let login = Login { user: "alice".to_owned(), password, realm: None };
        let mut session = Session::new(challenge.clone(), &login, &mut SeededRandom::new(2));
        let field = session.authorize(&request.method, request.uri.as_str());
        request.headers.push_header(field);
        self.frame(&request.to_bytes())
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        START
    }
    fn wall(&self) -> WallTime {
        WALL
    }
}

struct Known;

impl Credentials for Known {
    fn bearer(&self, _secret: &str, _now: WallTime) -> Option<Who> {
        None
    }

    fn digest(&self, user: &str, realm: &str, _now: WallTime) -> Option<(Who, Hashes)> {
        static HASHES: OnceLock<Hashes> = OnceLock::new();
        let hashes = HASHES.get_or_init(|| Hashes::of("alice", realm, PASSWORD));
        let name = Personal::new("alice".to_owned());
        let who = Who::Account { name, display: None, caller: None };
        (user == "alice").then(|| (who, hashes.clone()))
    }
}
