//! What happens in calls, for pages that look on: turns, who speaks, how the media is.
//!
//! The edge pushes, from any thread, and never waits; each page has a bounded queue, and one that
//! is too slow is told that it missed something. Nothing is kept: who comes late reads the vault.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use base::{CallId, Personal, limit};
use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use vault::Role;

/// Something that happened in a call.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// The call.
    pub call: CallId,
    /// What happened.
    pub kind: LiveKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum LiveKind {
    /// It arrived.
    Began {
        /// The browser token that its caller came with, by its id: a page that was given a token
        /// does not know its call yet.
        token: Option<String>,
    },
    /// It was answered; times of turns are from here.
    Answered,
    /// Its media flows as it must: keys are there.
    Secured,
    /// Somebody began to speak, or stopped.
    Speaking {
        /// Who.
        role: Role,
        /// Whether they speak from now on.
        speaks: bool,
    },
    /// Somebody has said something.
    Turn {
        /// Who.
        role: Role,
        /// What.
        text: Personal<String>,
        /// When it began, in milliseconds after the answer.
        start_ms: u64,
        /// When it ended, in milliseconds after the answer.
        end_ms: u64,
        /// Whether the other side cut it short.
        interrupted: bool,
        /// From the end of the caller's speech to the first audio, in milliseconds.
        latency_ms: Option<u64>,
    },
    /// How its caller's media is at present.
    Media {
        /// Lost of those that were to arrive, 0 to 1.
        loss: f64,
        /// In milliseconds.
        jitter_ms: f64,
        /// In milliseconds, where the peer reports it.
        round_trip_ms: Option<f64>,
    },
    /// It ended.
    Ended {
        /// The code of why.
        reason: &'static str,
    },
}

/// What somebody follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A call.
    Call(CallId),
    /// The calls that a browser token opens, by its id.
    Token(String),
}

/// The hub; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    hub: Mutex<Hub>,
    /// Followers, so that nothing is locked where nobody looks on.
    followers: AtomicUsize,
}

#[derive(Debug, Default)]
struct Hub {
    followers: BTreeMap<u64, Follower>,
    next: u64,
    /// The tokens of the calls in progress that came with one.
    tokens: BTreeMap<CallId, String>,
    is_closed: bool,
}

#[derive(Debug)]
struct Follower {
    topic: Topic,
    events: mpsc::Sender<LiveEvent>,
    missed: Arc<AtomicBool>,
}

/// There are too many followers (limit `api.live_followers`), or the edge stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many pages look on")]
pub struct FollowError;

impl Live {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who follow the call. Never waits.
    pub fn push(&self, event: LiveEvent) {
        let names = match &event.kind {
            LiveKind::Began { token } => token.is_some(),
            LiveKind::Ended { .. } => true,
            _ => false,
        };
        if !names && self.0.followers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut hub = self.hub();
        if let LiveKind::Began { token: Some(token) } = &event.kind
            && hub.tokens.len() < limit::CALL_CONCURRENT.get()
        {
            hub.tokens.insert(event.call, token.clone());
        }
        for follower in hub.followers.values().filter(|it| hub.is_about(it, event.call)) {
            if follower.events.try_send(event.clone()).is_err() {
                follower.missed.store(true, Ordering::Relaxed);
            }
        }
        if matches!(event.kind, LiveKind::Ended { .. }) {
            hub.tokens.remove(&event.call);
        }
    }

    /// Follows a call, or what a token opens.
    ///
    /// # Errors
    /// There are too many followers.
    pub fn follow(&self, topic: Topic) -> Result<Following, FollowError> {
        let (events, received) = mpsc::channel(limit::API_LIVE_EVENTS.get());
        let missed = Arc::new(AtomicBool::new(false));
        let mut hub = self.hub();
        if hub.is_closed || hub.followers.len() >= limit::API_LIVE_FOLLOWERS.get() {
            return Err(FollowError);
        }
        let number = hub.next;
        hub.next = hub.next.wrapping_add(1);
        hub.followers.insert(number, Follower { topic, events, missed: Arc::clone(&missed) });
        self.0.followers.store(hub.followers.len(), Ordering::Relaxed);
        Ok(Following { number, events: received, missed, live: Arc::downgrade(&self.0) })
    }

    /// Ends all that follow; the edge stops.
    pub fn close(&self) {
        let mut hub = self.hub();
        hub.is_closed = true;
        hub.followers.clear();
        self.0.followers.store(0, Ordering::Relaxed);
    }
}

impl Hub {
    fn is_about(&self, follower: &Follower, call: CallId) -> bool {
        match &follower.topic {
            Topic::Call(followed) => *followed == call,
            Topic::Token(token) => self.tokens.get(&call) == Some(token),
        }
    }
}

/// The receiving end of a follower.
#[derive(Debug)]
pub struct Following {
    number: u64,
    events: mpsc::Receiver<LiveEvent>,
    missed: Arc<AtomicBool>,
    live: Weak<Inner>,
}

/// What a follower gets to know.
#[derive(Clone, Debug)]
pub enum Heard {
    /// Something happened.
    Event(LiveEvent),
    /// Some of it was left out.
    Missed,
}

impl Following {
    /// The next thing; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        match self.events.poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(Some(Heard::Event(event))),
            Poll::Ready(None) => Poll::Ready(None),
            // What was left out came after what has just been handed out.
            Poll::Pending if self.missed.swap(false, Ordering::Relaxed) => {
                Poll::Ready(Some(Heard::Missed))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let Some(inner) = self.live.upgrade() else { return };
        let mut hub = inner.hub.lock().unwrap_or_else(PoisonError::into_inner);
        hub.followers.remove(&self.number);
        inner.followers.store(hub.followers.len(), Ordering::Relaxed);
    }
}

/// What a follower hears as server-sent events (HTML, section 9.2), until the call ends.
pub(crate) struct EventStream {
    following: Following,
    alive: Interval,
    state: Stream,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Opening,
    Open,
    Over,
}

impl EventStream {
    pub(crate) fn new(following: Following) -> Self {
        let mut alive = interval(limit::API_LIVE_ALIVE_MS.millis());
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and says nothing.
        alive.reset();
        Self { following, alive, state: Stream::Opening }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let stream = self.get_mut();
        let frame = |text: String| Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))));
        match stream.state {
            Stream::Over => return Poll::Ready(None),
            Stream::Opening => {
                // The page knows that nothing is missed from now on.
                stream.state = Stream::Open;
                return frame("event: following\ndata: {}\n\n".to_owned());
            }
            Stream::Open => {}
        }
        match stream.following.poll_next(cx) {
            Poll::Ready(Some(Heard::Event(event))) => {
                if matches!(event.kind, LiveKind::Ended { .. }) {
                    stream.state = Stream::Over;
                }
                let (name, data) = told(&event);
                frame(format!("event: {name}\ndata: {data}\n\n"))
            }
            Poll::Ready(Some(Heard::Missed)) => frame("event: missed\ndata: {}\n\n".to_owned()),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match stream.alive.poll_tick(cx) {
                // A comment, so that a peer that is gone is noticed.
                Poll::Ready(_) => frame(":\n\n".to_owned()),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

/// An event's name and what it says. JSON has no line breaks of its own here.
fn told(event: &LiveEvent) -> (&'static str, Value) {
    let call = event.call.to_string();
    match &event.kind {
        LiveKind::Began { .. } => ("began", json!({ "call": call })),
        LiveKind::Answered => ("answered", json!({ "call": call })),
        LiveKind::Secured => ("secured", json!({ "call": call })),
        LiveKind::Speaking { role, speaks } => {
            ("speaking", json!({ "role": role.as_str(), "speaks": speaks }))
        }
        LiveKind::Turn { role, text, start_ms, end_ms, interrupted, latency_ms } => {
            let turn = json!({
                "role": role.as_str(),
                "text": text.expose(),
                "start_ms": start_ms,
                "end_ms": end_ms,
                "interrupted": interrupted,
                "latency_ms": latency_ms,
            });
            ("turn", turn)
        }
        LiveKind::Media { loss, jitter_ms, round_trip_ms } => {
            let media = json!({
                "loss": loss,
                "jitter_ms": jitter_ms,
                "round_trip_ms": round_trip_ms,
            });
            ("media", media)
        }
        LiveKind::Ended { reason } => ("ended", json!({ "call": call, "reason": reason })),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn call(number: u8) -> CallId {
        CallId::from_bytes([number; 12])
    }

    fn turn(number: u8, text: &str) -> LiveEvent {
        let text = Personal::new(text.to_owned());
        let kind = LiveKind::Turn {
            role: Role::Agent,
            text,
            start_ms: 10,
            end_ms: 20,
            interrupted: false,
            latency_ms: Some(300),
        };
        LiveEvent { call: call(number), kind }
    }

    fn event(number: u8, kind: LiveKind) -> LiveEvent {
        LiveEvent { call: call(number), kind }
    }

    async fn next(stream: &mut EventStream) -> Option<String> {
        let frame = poll_fn(|cx| Pin::new(&mut *stream).poll_frame(cx)).await?;
        let Ok(frame) = frame;
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    async fn heard(following: &mut Following) -> Option<Heard> {
        poll_fn(|cx| following.poll_next(cx)).await
    }

    #[tokio::test]
    async fn a_page_hears_its_own_call_only_until_it_ends() {
        let live = Live::default();
        let mut stream = EventStream::new(live.follow(Topic::Call(call(1))).unwrap());
        live.push(turn(2, "not for you"));
        live.push(turn(1, "a \"quoted\"\nline"));
        live.push(event(1, LiveKind::Ended { reason: "caller.hung_up" }));
        assert_eq!(next(&mut stream).await.unwrap(), "event: following\ndata: {}\n\n");
        let told = next(&mut stream).await.unwrap();
        assert!(told.starts_with("event: turn\ndata: {") && told.contains(r#"a \"quoted\"\nline"#));
        assert_eq!(told.lines().count(), 3, "no line of its own in the data: {told}");
        assert!(next(&mut stream).await.unwrap().contains("caller.hung_up"));
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn whoever_was_given_a_token_hears_the_call_that_it_opens() {
        let live = Live::default();
        let mut before = live.follow(Topic::Token("bt_1".into())).unwrap();
        live.push(event(1, LiveKind::Began { token: Some("bt_1".into()) }));
        let mut late = live.follow(Topic::Token("bt_1".into())).unwrap();
        live.push(event(2, LiveKind::Began { token: Some("bt_2".into()) }));
        live.push(event(1, LiveKind::Answered));
        for (following, count) in [(&mut before, 2), (&mut late, 1)] {
            for _ in 0..count {
                let Some(Heard::Event(event)) = heard(following).await else { panic!() };
                assert_eq!(event.call, call(1));
            }
        }
        live.push(event(1, LiveKind::Ended { reason: "" }));
        assert_eq!(live.hub().tokens.len(), 1);
    }

    #[tokio::test]
    async fn a_slow_page_is_told_that_it_missed_something_and_holds_nobody_up() {
        let live = Live::default();
        let mut following = live.follow(Topic::Call(call(1))).unwrap();
        for _ in 0..limit::API_LIVE_EVENTS.get() + 3 {
            live.push(turn(1, "on and on"));
        }
        for _ in 0..limit::API_LIVE_EVENTS.get() {
            assert!(matches!(heard(&mut following).await, Some(Heard::Event(_))));
        }
        assert!(matches!(heard(&mut following).await, Some(Heard::Missed)));
        live.push(turn(1, "again"));
        assert!(matches!(heard(&mut following).await, Some(Heard::Event(_))));
    }

    #[tokio::test]
    async fn pages_are_bounded_leave_no_trace_and_end_with_the_edge() {
        let live = Live::default();
        let follow = || live.follow(Topic::Call(call(1)));
        let all: Vec<_> = (0..limit::API_LIVE_FOLLOWERS.get()).map(|_| follow().unwrap()).collect();
        assert_eq!(follow().unwrap_err(), FollowError);
        drop(all);
        let mut last = follow().unwrap();
        assert_eq!(live.hub().followers.len(), 1);
        live.close();
        assert!(heard(&mut last).await.is_none());
        assert!(follow().is_err());
    }
}
