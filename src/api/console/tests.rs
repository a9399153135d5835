//! Stories about the console, through its routes.

use std::time::Duration;

use axum::body::Body;
use base::{Event, Personal, Reason, SeededRandom, TrunkName, VoiceAgentName};
use http::header::{
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, ETAG, HOST, IF_NONE_MATCH,
    LOCATION, ORIGIN, RANGE, SET_COOKIE,
};
use http::{HeaderMap, Method, Request};
use tower::ServiceExt as _;
use vault::{
    CallPersonal, CallRecord, Channel, Direction, KeyTerms, LadderEntry, Record, RecordingId, Role,
    Turn,
};

use super::*;
use crate::auth::VaultCredentials;
use crate::auth::tests::{NOW, Place as Ground, StoppedClock};
use crate::guard::Peer;
use crate::live::{LiveEvent, LiveKind};
use crate::server::IceLogin;

struct Edge(Mutex<Vec<CallId>>);

/// Two legs, one of which had a bad spell.
const QUALITY: &str = r#"{"received":450,"lost":50,"mos":4.1,"sent":500,"series":{"from_ms":0,
    "until_ms":[5000,10000],"received":[250,200],"lost":[0,50],"late":[0,1],"concealed":[0,50],
    "jitter_ms":[2.0,31.4],"round_trip_ms":[null,12.5],"mos":[4.4,2.2]},
    "legs":{"1":{"received":9,"lost":0,"sent":9}}}"#;

impl Backstage for Edge {
    fn agents(&self) -> Vec<AgentLine> {
        let description = "Greets <everybody> & says \"hello\"".to_owned();
        vec![AgentLine { name: "reception".to_owned(), description }]
    }

    fn hang_up(&self, call: CallId) -> HungUp {
        let mut calls = self.0.lock().unwrap();
        let place = calls.iter().position(|it| *it == call);
        place.map(|place| calls.remove(place));
        Box::pin(std::future::ready(place.is_some()))
    }

    fn quality(&self, call: CallId) -> Option<Personal<String>> {
        let calls = self.0.lock().unwrap();
        calls.contains(&call).then(|| Personal::new(QUALITY.to_owned()))
    }

    fn development_authority(&self) -> Option<String> {
        Some("certs/dev/ca.pem".to_owned())
    }
}

struct World {
    ground: Ground,
    router: Router,
    live: Live,
    key: String,
}

struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Told {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What a page asks for.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    cookie: Option<&'a str>,
    origin: Option<&'a str>,
    body: &'a str,
}

const OWN: &str = "https://edge.example:8443";

async fn world() -> World {
    let ground = Ground::new();
    let keys = ground.keys();
    let key = keys.first_key().await.unwrap().unwrap().secret.expose().clone();
    let credentials = Arc::new(VaultCredentials::new(keys.clone()));
    let guard = Guard::new(credentials, Arc::new(StoppedClock), Arc::new(|_: Event| {}));
    let live = Live::default();
    let router = routes(Stage {
        guard: Arc::new(guard),
        keys,
        backstage: Arc::new(Edge(Mutex::new(vec![id(1)]))),
        ice_servers: vec![IceServer {
            url: "turn:turn.example".to_owned(),
            login: Some(IceLogin::new(|now| {
                (now.unix_millis().to_string(), Secret::new("p".to_owned()))
            })),
        }],
        live: live.clone(),
        reader: Reader::open(&ground.config).await.unwrap(),
        vault: ground.vault.handle(),
        random: Box::new(SeededRandom::new(7)),
    });
    World { ground, router, live, key }
}

fn id(number: u8) -> CallId {
    CallId::from_bytes([number; 12])
}

impl World {
    async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        let source = "192.0.2.7:5000".parse().unwrap();
        let mut request = request;
        request.extensions_mut().insert(Peer { source, local: source });
        let response = self.router.clone().oneshot(request).await.unwrap();
        crate::problem::finish(response, "req_1")
    }

    fn request(ask: &Ask<'_>) -> Request<Body> {
        let mut request = Request::builder().method(ask.method.clone()).uri(ask.path);
        request = request.header(HOST, "edge.example:8443");
        if let Some(cookie) = ask.cookie {
            request = request.header(COOKIE, cookie);
        }
        if let Some(origin) = ask.origin {
            request = request.header(ORIGIN, origin);
        }
        request.body(Body::from(ask.body.to_owned())).unwrap()
    }

    async fn ask(&self, ask: Ask<'_>) -> Told {
        told(self.send(Self::request(&ask)).await).await
    }

    async fn get(&self, path: &str, cookie: &str) -> Told {
        let (method, body) = (Method::GET, "");
        self.ask(Ask { method, path, cookie: Some(cookie), origin: None, body }).await
    }

    async fn post(&self, path: &str, cookie: &str, body: &str) -> Told {
        let (method, origin) = (Method::POST, Some(OWN));
        self.ask(Ask { method, path, cookie: Some(cookie), origin, body }).await
    }

    /// Signs in and gives the cookie.
    async fn enter(&self, key: &str) -> String {
        let told = self.post("/console/sign-in", "", &format!("key={key}&to=")).await;
        assert_eq!(told.status, StatusCode::SEE_OTHER, "{}", told.text());
        let cookie = told.headers[SET_COOKIE].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// A call with two turns, two messages, and a recording of a second of a tone.
    async fn store(&self, number: u8, said: &str) -> RecordingId {
        let vault = self.ground.vault.handle();
        vault.submit(Record::Call(Box::new(call(number, said)))).unwrap();
        for (index, role) in [(0, Role::Agent), (1, Role::Caller)] {
            let text = Personal::new(said.to_owned());
            let start_ms = u64::from(index) * 400;
            let latency = (index == 0).then(|| Duration::from_millis(312));
            let (end_ms, interrupted) = (start_ms + 300, false);
            let turn = Turn { index, role, text, start_ms, end_ms, interrupted, latency };
            vault.submit(Record::Turn { call: id(number), turn }).unwrap();
        }
        let message = |index, leg, text: &str| LadderEntry {
            index,
            at_ms: u64::from(index) * 12,
            leg,
            sent: index == 1,
            message: Personal::new(text.to_owned()),
        };
        let invite =
            format!("INVITE sip:reception@edge.example SIP/2.0\r\nSubject: {said}\r\n\r\n");
        let entries = vec![message(0, 0, &invite), message(1, 0, "SIP/2.0 200 OK\r\n\r\n")];
        vault.submit(Record::Ladder { call: id(number), entries }).unwrap();
        let recording = vault.record(id(number)).unwrap();
        for frame in 0..50_u64 {
            let pcm: Vec<i16> = (frame * 320..frame * 320 + 320)
                .map(|at| (at as f64 * 440.0 * std::f64::consts::TAU / 16_000.0).sin() * 9_000.0)
                .map(|sample| sample as i16)
                .collect();
            let at = frame * 320;
            recording.push(Channel::Caller, at, &pcm).unwrap();
            recording.push(Channel::Agent, at, &[0; 320]).unwrap();
        }
        let recording_id = recording.id();
        recording.finish();
        for _ in 0..500 {
            vault.flush().await.unwrap();
            let reader = Reader::open(&self.ground.config).await.unwrap();
            let detail = reader.call(id(number)).await.unwrap();
            if detail.recordings.first().is_some_and(|it| it.state.as_str() == "complete") {
                return recording_id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the recording was not finished within five seconds");
    }
}

async fn told(response: http::Response<Body>) -> Told {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap().to_vec();
    Told { status: parts.status, headers: parts.headers, body }
}

fn call(number: u8, said: &str) -> CallRecord {
    let at = |seconds| NOW + Duration::from_secs(u64::from(number) * 60 + seconds);
    CallRecord {
        id: id(number),
        direction: Direction::Incoming,
        trunk: Some(TrunkName::new("browsers")),
        voice_agent: Some(VoiceAgentName::new("reception")),
        started: at(0),
        answered: Some(at(0)),
        ended: Some(at(2)),
        reason: Some(Reason::CallerHungUp),
        setup: Some(Duration::from_millis(180)),
        talked: Some(Duration::from_secs(2)),
        transport: "whip",
        protection: "AEAD_AES_128_GCM",
        codec: "opus",
        keys_exposed: false,
        unrecorded: "",
        recording: true,
        transcript: true,
        personal: CallPersonal {
            caller: Personal::new(said.to_owned()),
            callee: Personal::new("reception".to_owned()),
            decision: Personal::new(format!("{{\"trunk\":{said:?},\"route\":1}}")),
            quality: Personal::new("{\"received\":99,\"lost\":1,\"mos\":4.3,\"sent\":100}".into()),
            ..CallPersonal::default()
        },
    }
}

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>";

#[tokio::test]
async fn only_a_key_opens_the_console_and_its_session_ends_when_told() {
    let world = world().await;
    let page = world.get("/console", "").await;
    assert!(page.text().contains("type=\"password\"") && page.status == StatusCode::OK);
    let away = world.get("/console/calls?live=1", "").await;
    assert_eq!(away.headers[LOCATION], "/console?to=%2Fconsole%2Fcalls%3Flive%3D1");
    for path in ["/console/talk", "/console/calls", "/console/calls/call_1"] {
        assert_eq!(world.get(path, "__Host-callgate=0000").await.status, StatusCode::SEE_OTHER);
    }
    let wrong = world.post("/console/sign-in", "", "key=sk_call2me_no&to=").await;
    assert!(wrong.status == StatusCode::FORBIDDEN && wrong.text().contains("role=\"alert\""));
    assert!(!wrong.headers.contains_key(SET_COOKIE) && !wrong.text().contains("sk_call2me_no"));

    let cookie = world.enter(&world.key).await;
    assert_eq!(world.get("/console/talk", &cookie).await.status, StatusCode::OK);
    assert_eq!(world.get("/console", &cookie).await.headers[LOCATION], "/console/talk");
    let out = world.post("/console/sign-out", &cookie, "").await;
    assert!(out.headers[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(world.get("/console/talk", &cookie).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn whoever_guesses_keys_is_held_back() {
    let world = world().await;
    for _ in 0..limit::API_WRONG_TRIES.value {
        world.post("/console/sign-in", "", "key=sk_call2me_guess").await;
    }
    let body = format!("key={}", world.key);
    let told = world.post("/console/sign-in", "", &body).await;
    assert_eq!(told.status, StatusCode::TOO_MANY_REQUESTS, "even with the right key");
}

#[tokio::test]
async fn somebody_is_led_to_a_page_of_the_console_and_nowhere_else() {
    let world = world().await;
    for (to, place) in [
        ("%2Fconsole%2Fcalls%3Flive%3D1", "/console/calls?live=1"),
        ("https%3A%2F%2Fevil.example", "/console/talk"),
        ("%2F%2Fevil.example", "/console/talk"),
        ("%2Fconsole%2F..%2F%2Fevil.example", "/console/talk"),
        ("%2Fconsole%2F%0d%0aX%3A", "/console/talk"),
    ] {
        let body = format!("key={}&to={to}", world.key);
        let told = world.post("/console/sign-in", "", &body).await;
        assert_eq!(told.headers[LOCATION], place, "{to}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let world = world().await;
    let cookie = world.enter(&world.key).await;
    let hang_up = format!("/console/calls/{}/hang-up", id(1));
    let paths = ["/console/sign-in", "/console/sign-out", "/console/talk/token", &hang_up];
    for path in paths {
        for origin in
            [None, Some("https://evil.example"), Some("null"), Some("http://edge.example:8443")]
        {
            let body = format!("key={}", world.key);
            let cookie = Some(cookie.as_str());
            let told =
                world.ask(Ask { method: Method::POST, path, cookie, origin, body: &body }).await;
            assert_eq!(told.status, StatusCode::FORBIDDEN, "{path} from {origin:?}");
            assert!(!told.headers.contains_key(SET_COOKIE));
        }
    }
    let ask = Ask {
        method: Method::POST,
        path: "/console/sign-out",
        cookie: Some(&cookie),
        origin: Some(OWN),
        body: "",
    };
    let mut request = World::request(&ask);
    request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(world.send(request).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.get("/console/talk", &cookie).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_page_has_a_policy_that_runs_nothing_of_others() {
    let world = world().await;
    let recording = world.store(1, HOSTILE).await;
    let cookie = world.enter(&world.key).await;
    let call = format!("/console/calls/{}", id(1));
    let wave = format!("/console/recordings/{recording}/waveform");
    let pages = [
        "/console",
        "/console/talk",
        "/console/calls",
        &call,
        &wave,
        "/console/calls/x",
        "/console/assets/talk.js",
        "/console/assets/style.css",
    ];
    for path in pages {
        let told = world.get(path, &cookie).await;
        let policy = told.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.split("; ").any(|it| it == part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && told.headers["x-content-type-options"] == "nosniff");
        let text = told.text();
        if told.headers.get(CONTENT_TYPE).is_some_and(|it| it.to_str().unwrap().contains("html")) {
            for banned in ["<script>", " style=", " onclick", " onerror='", "<style", "javascript:"]
            {
                assert!(!text.contains(banned), "{banned} in {path}");
            }
        }
    }
}

#[tokio::test]
async fn what_strangers_say_is_text_on_every_page() {
    let world = world().await;
    world.store(1, HOSTILE).await;
    let cookie = world.enter(&world.key).await;
    let escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;";
    for path in ["/console/calls".to_owned(), format!("/console/calls/{}", id(1))] {
        let page = world.get(&path, &cookie).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text().contains(escaped) && !page.text().contains("<img src=x"), "{path}");
    }
    let search = "/console/calls?number=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    assert!(world.get(search, &cookie).await.text().contains(escaped));
    let talk = world.get("/console/talk", &cookie).await;
    assert!(talk.text().contains("Greets &lt;everybody&gt; &amp; says &quot;hello&quot;"));
    assert!(talk.text().contains("certs/dev/ca.pem"), "what to do about the certificate");
}

#[tokio::test]
async fn a_call_is_shown_with_words_waveform_ladder_decision_and_quality() {
    let world = world().await;
    let recording = world.store(1, "good morning").await;
    let cookie = world.enter(&world.key).await;
    let page = world.get(&format!("/console/calls/{}", id(1)), &cookie).await;
    for part in [
        "good morning",
        "answered after 312 ms",
        "INVITE sip:reception@edge.example SIP/2.0",
        "Caller → Edge",
        "Edge → Caller",
        "MOS 4.3 (good)",
        "<b>Caller hung up</b>",
        "<p>The caller sent BYE.</p>",
        "<code data-copy=\"the reason\">call.caller_hung_up</code>",
        "<dt>route</dt><dd>1</dd>",
        &format!("/console/recordings/{recording}/waveform"),
        &format!("/console/recordings/{recording}/audio"),
    ] {
        assert!(page.text().contains(part), "no {part:?} in {}", page.text());
    }
    assert!(!page.text().contains("hang-up"), "it is over");
    let wave = world.get(&format!("/console/recordings/{recording}/waveform"), &cookie).await;
    assert_eq!(wave.headers[CONTENT_TYPE], "image/svg+xml");
    assert!(wave.text().matches("<path").count() == 2);
    assert_eq!(
        world.get(&format!("/console/calls/{}", id(9)), &cookie).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_recording_is_played_in_parts_and_only_to_who_is_signed_in() {
    let world = world().await;
    let recording = world.store(1, "hello").await;
    let path = format!("/console/recordings/{recording}/audio");
    assert_eq!(world.get(&path, "").await.status, StatusCode::UNAUTHORIZED);
    let cookie = world.enter(&world.key).await;
    let whole = world.get(&path, &cookie).await;
    assert_eq!((whole.status, &whole.body[..4]), (StatusCode::OK, &b"OggS"[..]));
    let part = async |range: &'static str| {
        let (method, cookie, path) = (Method::GET, Some(&*cookie), &*path);
        let mut request = World::request(&Ask { method, path, cookie, origin: None, body: "" });
        request.headers_mut().insert(RANGE, range.parse().unwrap());
        told(world.send(request).await).await
    };
    let told = part("bytes=10-19").await;
    assert_eq!((told.status, &told.body[..]), (StatusCode::PARTIAL_CONTENT, &whole.body[10..20]));
    let length = whole.body.len();
    assert_eq!(told.headers[CONTENT_RANGE], format!("bytes 10-19/{length}"));
    assert_eq!(part("bytes=-5").await.body, whole.body[length - 5..]);
    let beyond = part("bytes=9999999-").await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let unknown = format!("/console/recordings/rec_{}/audio", "0".repeat(32));
    assert_eq!(world.get(&unknown, &cookie).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn calls_are_listed_by_page_and_found_by_agent_and_number() {
    let world = world().await;
    let vault = world.ground.vault.handle();
    for number in 1..=52 {
        vault
            .submit(Record::Call(Box::new(call(number, &format!("+1555010{number:04}")))))
            .unwrap();
    }
    let cookie = world.enter(&world.key).await;
    let rows = |told: &Told| told.text().matches("<th scope=\"row\"").count();
    let first = world.get("/console/calls?agent=reception", &cookie).await;
    assert_eq!(rows(&first), limit::API_CALLS_PER_PAGE.get());
    let text = first.text();
    let next = text.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let next = next.replace("&amp;", "&");
    assert!(next.contains("agent=reception") && next.contains("after="), "{next}");
    let second = world.get(&next, &cookie).await;
    assert_eq!(rows(&second), 2);
    assert!(second.text().contains("Newest calls") && !second.text().contains("rel=\"next\""));
    assert_eq!(rows(&world.get("/console/calls?number=15550100007", &cookie).await), 1);
    assert_eq!(rows(&world.get("/console/calls?agent=nobody", &cookie).await), 0);
    for (outcome, wanted) in [("call.caller_hung_up", 50), ("failed", 0), ("trunk.busy", 0)] {
        let path = format!("/console/calls?outcome={outcome}");
        assert_eq!(rows(&world.get(&path, &cookie).await), wanted, "{outcome}");
    }
    assert_eq!(rows(&world.get("/console/calls?outcome=in_progress", &cookie).await), 0);
}

#[tokio::test]
async fn a_page_gets_a_token_for_one_agent_of_its_own_origin() {
    let world = world().await;
    let cookie = world.enter(&world.key).await;
    let told = world.post("/console/talk/token", &cookie, r#"{"agent":"reception"}"#).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text());
    let body: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    let token = world.ground.keys().token(body["token"].as_str().unwrap(), NOW).unwrap();
    assert_eq!((token.called.as_deref(), token.origin.as_deref()), (Some("reception"), Some(OWN)));
    assert_eq!(body["whip"], "/whip/reception");
    let user = NOW.unix_millis().to_string();
    let server = serde_json::json!({
        "urls": "turn:turn.example", "username": user, "credential": "p",
    });
    assert_eq!(body["ice_servers"], serde_json::json!([server]), "before the offer");
    let unknown = world.post("/console/talk/token", &cookie, r#"{"agent":"nobody"}"#).await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
    let signed_out = world.post("/console/talk/token", "", r#"{"agent":"reception"}"#).await;
    assert_eq!(signed_out.status, StatusCode::UNAUTHORIZED);

    let terms = KeyTerms { read_only: true, ..KeyTerms::named("eyes") };
    let eyes = world.ground.keys().create_key(terms, "edge".into()).await.unwrap();
    let cookie = world.enter(eyes.secret.expose()).await;
    let refused = world.post("/console/talk/token", &cookie, r#"{"agent":"reception"}"#).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let talk = world.get("/console/talk", &cookie).await;
    assert!(talk.text().contains("may only look") && talk.text().contains("data-can=\"no\""));
}

#[tokio::test]
async fn the_transcript_of_a_token_s_call_is_streamed_to_its_page() {
    let world = world().await;
    let cookie = world.enter(&world.key).await;
    let told = world.post("/console/talk/token", &cookie, r#"{"agent":"reception"}"#).await;
    let body: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    let (path, token) = (body["events"].as_str().unwrap(), body["id"].as_str().unwrap());
    assert_eq!(world.get(path, "").await.status, StatusCode::UNAUTHORIZED);
    let (method, cookie) = (Method::GET, Some(&*cookie));
    let request = World::request(&Ask { method, path, cookie, origin: None, body: "" });
    let response = world.send(request).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let push = |kind| world.live.push(LiveEvent { call: id(1), kind });
    push(LiveKind::Began { token: Some(token.to_owned()) });
    let text = Personal::new("welcome".to_owned());
    push(LiveKind::Turn {
        role: Role::Agent,
        text,
        start_ms: 0,
        end_ms: 900,
        interrupted: false,
        latency_ms: None,
    });
    push(LiveKind::Ended { reason: "caller.hung_up" });
    let told = told_events(response).await;
    let names: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["following", "began", "turn", "ended"], "{told}");
    assert!(told.contains("\"text\":\"welcome\"") && told.contains(&id(1).to_string()));
}

async fn told_events(response: http::Response<Body>) -> String {
    told(response).await.text().to_owned()
}

#[tokio::test]
async fn a_call_that_goes_on_is_hung_up_once() {
    let world = world().await;
    let going = CallRecord { ended: None, reason: None, talked: None, ..call(1, "+15550100") };
    world.ground.vault.handle().submit(Record::Call(Box::new(going))).unwrap();
    let cookie = world.enter(&world.key).await;
    let path = format!("/console/calls/{}", id(1));
    let page = world.get(&path, &cookie).await;
    assert!(page.text().contains("Hang up this call") && page.text().contains("data-live=\"yes\""));
    assert!(
        world
            .get("/console/calls?outcome=in_progress", &cookie)
            .await
            .text()
            .contains("in progress")
    );
    let hang_up = format!("{path}/hang-up");
    assert_eq!(world.post(&hang_up, &cookie, "").await.status, StatusCode::SEE_OTHER);
    let told = world.post(&hang_up, &cookie, "").await;
    assert!(told.status == StatusCode::CONFLICT && told.text().contains("The call is over</h1>"));
    let away = world.post(&hang_up, "", "").await;
    assert_eq!(away.headers[LOCATION], format!("/console?to=%2Fconsole%2Fcalls%2F{}", id(1)));
}

#[tokio::test]
async fn a_call_that_failed_says_why_at_the_top_and_who_is_to_look() {
    let world = world().await;
    let vault = world.ground.vault.handle();
    let refused = CallRecord {
        reason: Some(Reason::NoRoute),
        answered: None,
        talked: None,
        recording: false,
        ..call(1, "+15550100")
    };
    vault.submit(Record::Call(Box::new(refused))).unwrap();
    let cookie = world.enter(&world.key).await;
    let page = world.get(&format!("/console/calls/{}", id(1)), &cookie).await;
    for part in [
        "<span class=\"badge failed\">failed</span> <b>No route</b>",
        "No route matched; run `callgate explain` for the closest one.",
        "To be looked at: this edge&#39;s policy.",
        "This call was not recorded.",
    ] {
        assert!(page.text().contains(part), "no {part:?} in {}", page.text());
    }
    let listed = world.get("/console/calls?outcome=failed", &cookie).await;
    assert!(listed.text().contains("<b>no route</b>"), "{}", listed.text());
    let well = world.get("/console/calls?outcome=call.cancelled", &cookie).await;
    assert!(well.text().contains("No call is like that."));
}

#[tokio::test]
async fn the_media_of_a_call_is_plotted_over_time_while_it_goes_on_and_after() {
    let world = world().await;
    let vault = world.ground.vault.handle();
    let going = CallRecord { ended: None, reason: None, talked: None, ..call(1, "+15550100") };
    vault.submit(Record::Call(Box::new(going))).unwrap();
    let mut over = call(2, "+15550100");
    over.personal.quality = Personal::new(QUALITY.to_owned());
    vault.submit(Record::Call(Box::new(over))).unwrap();
    vault.submit(Record::Call(Box::new(call(3, "+15550100")))).unwrap();
    let cookie = world.enter(&world.key).await;
    let fragment = format!("/console/calls/{}/quality", id(1));
    for path in
        [format!("/console/calls/{}", id(1)), fragment.clone(), format!("/console/calls/{}", id(2))]
    {
        let told = world.get(&path, &cookie).await;
        assert_eq!(told.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        let text = told.text();
        assert!(text.contains("median 4.4, worst 2.2 at 0:05.0"), "{path}: {text}");
        assert_eq!(text.matches("class=\"line\"").count(), 4, "{path}");
        assert!(text.contains("<td>1000 ms</td><td>31.4 ms</td><td>12.5 ms</td>"), "{path}");
        assert!(text.contains("<h3>Leg 1</h3>"));
    }
    let old = world.get(&format!("/console/calls/{}", id(3)), &cookie).await;
    assert!(old.text().contains("MOS 4.3") && !old.text().contains("class=\"curves\""));
    assert_eq!(world.get(&fragment, "").await.status, StatusCode::UNAUTHORIZED);
    let ended = format!("/console/calls/{}/quality", id(2));
    assert_eq!(world.get(&ended, &cookie).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_turn_that_was_cut_before_a_word_says_so_and_a_place_that_is_none_is_a_page() {
    let world = world().await;
    let vault = world.ground.vault.handle();
    vault.submit(Record::Call(Box::new(call(1, "+15550100")))).unwrap();
    for (index, text) in [(0, ""), (1, "Hello")] {
        let text = Personal::new(text.to_owned());
        let (role, start_ms, end_ms) = (Role::Agent, 0, 300);
        let (interrupted, latency) = (true, None);
        let turn = Turn { index, role, text, start_ms, end_ms, interrupted, latency };
        vault.submit(Record::Turn { call: id(1), turn }).unwrap();
    }
    let cookie = world.enter(&world.key).await;
    let page = world.get(&format!("/console/calls/{}", id(1)), &cookie).await;
    assert!(page.text().contains("<em class=\"cut\">(interrupted before a word)</em></span>"));
    assert!(page.text().contains("Hello <em class=\"cut\">(interrupted)</em>"));
    let nowhere = world.get("/console/nowhere/at/all", &cookie).await;
    assert!(nowhere.status == StatusCode::NOT_FOUND && nowhere.text().contains("<h1>Not found"));
    assert_eq!(world.get("/console/nowhere", "").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn files_are_asked_for_once() {
    let world = world().await;
    let first = world.get("/console/assets/style.css", "").await;
    let (method, path) = (Method::GET, "/console/assets/style.css");
    let mut request = World::request(&Ask { method, path, cookie: None, origin: None, body: "" });
    request.headers_mut().insert(IF_NONE_MATCH, first.headers[ETAG].clone());
    let again = told(world.send(request).await).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(world.get("/console/assets/mod.rs", "").await.status, StatusCode::NOT_FOUND);
    let above = world.get("/console/assets/../mod.rs", "").await;
    assert_eq!(above.headers[LOCATION], "/console?to=%2Fconsole%2Fassets%2F..%2Fmod.rs");
}
