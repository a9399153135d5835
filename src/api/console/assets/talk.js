// Talks with a voice agent: WHIP (RFC 9725) for the audio, server-sent events for what is said.
import { clock, line } from "./turns.js";

const $ = (id) => document.getElementById(id);
const ui = {
  start: $("start"), agent: $("agent"), about: $("about"), call: $("call"), state: $("state"), mute: $("mute"),
  end: $("end"), keypad: $("keypad"), transcript: $("transcript"), silent: $("silent"),
  details: $("details"), more: $("more"), voice: $("voice"), me: $("me"), other: $("other"),
  clock: $("clock"), log: $("log"), sent: $("sent"),
};
const SPEAKS = 0.02; // Above it somebody is heard.
const LINGERS = 400; // Milliseconds of silence within a sentence.
const BEARS = 3000; // Milliseconds without a way to the edge, after which another one is looked for.
const TRIES_AGAIN = 4000; // Milliseconds after which it is looked for once more.
const GIVES_UP = 40000; // Longer than the edge keeps a call whose caller it does not hear.
const NAMES = { caller: "You", agent: "Agent" };
// Why a call ended, to who was in it.
const ENDS = {
  "call.caller_hung_up": "You hung up.",
  "call.agent_hung_up": "The agent hung up.",
  "call.operator_hung_up": "An operator ended the call.",
  "call.caller_silent": "The agent ended the call: it heard nothing from you.",
  "call.maximum_duration": "The call reached the longest time that is allowed.",
  "call.transferred": "The call was carried to somebody else.",
  "edge.draining": "The edge is shutting down.",
};
// Why there is no microphone.
const DEAF = {
  NotAllowedError: "The microphone is not allowed for this page. Allow it beside the address, then press Call again.",
  NotFoundError: "There is no microphone. Connect one, then press Call again.",
  NotReadableError: "The microphone cannot be used: another program may hold it.",
};
// Why a call is not taken.
const FULL = /_limit$|_full$|no_media_port$|flood$/;
const REFUSALS = {
  "token.used": "This page has made its call already. Press Call again.",
  "agent.unavailable": "The voice agent could not start. Its reason is in the edge's log.",
  "edge.draining": "The edge is shutting down, and takes no more calls.",
  "policy.no_route": "The policy sends calls for this voice agent nowhere.",
};
const LEFT = "left"; // The call that this tab left, in the store of its session.
const cannot = ui.start.dataset.can !== "yes"; // There is no agent, or the key may only look.
let now = null; // The call that goes on.

function link(call) {
  ui.more.href = `/console/calls/${encodeURIComponent(call)}`;
  ui.more.hidden = false;
}

function say(text, isWrong = false) {
  if (ui.state.textContent === text) return;
  ui.state.textContent = text;
  ui.state.classList.toggle("wrong", isWrong);
}

function offer(isIn) {
  ui.call.disabled = isIn || cannot;
  ui.agent.disabled = isIn;
  ui.mute.disabled = ui.end.disabled = ui.keypad.disabled = !isIn;
  ui.mute.setAttribute("aria-pressed", "false");
}

// A network's failure has other words in every browser, and none that help.
async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The edge cannot be reached: it does not run, or the network is gone.");
  }
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await reach(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.status === 401) {
    now?.close("You are signed out.", true);
    location.assign("/console?to=/console/talk");
    throw new Error("You are signed out.");
  }
  if (!answer.ok) throw new Error(await why(answer));
  return answer.json();
}

// What a problem says (RFC 9457), to somebody who wants to talk.
async function why(answer) {
  const { code, detail } = await answer.json().catch(() => ({}));
  const text = Array.isArray(detail) ? detail.map((it) => it.msg).join("; ") : detail;
  const told = text ? ` (${text})` : "";
  if (FULL.test(code)) return `There is no room for another call now. Try again in a moment.${told}`;
  if (answer.status === 401) return `The edge does not know this page any more. Load it again.${told}`;
  return REFUSALS[code] ? `${REFUSALS[code]}${told}` : text || `The edge answered ${answer.status}.`;
}

// STUN and TURN servers of the owner's, from the beginning. The edge checks no candidate of ours, so
// that none has to be waited for.
function connection(iceServers) {
  try {
    return new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers });
  } catch (error) {
    console.warn(`The edge's ice_servers are of no use to this browser: ${error.message}`);
    return new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  }
}

class Call {
  constructor() {
    this.heard = { me: null, other: null };
    this.timers = [];
    this.isOver = false;
  }

  async open(agent) {
    say("Asking for the microphone …");
    if (!navigator.mediaDevices) {
      throw new Error("The browser gives no microphone here: open this page by HTTPS with a certificate that it trusts.");
    }
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    this.mine = await navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
      throw new Error(DEAF[error.name] ?? `The microphone cannot be used: ${error.message}`);
    });
    if (this.isOver) return this.release();
    this.hush();
    say("Calling …");
    const terms = await ask("/console/talk/token", { agent });
    if (this.isOver) return this.release();
    this.token = terms.token;
    await this.follow(terms.events);
    this.peer = connection(terms.ice_servers);
    this.peer.addEventListener("connectionstatechange", () => this.changed());
    this.peer.addEventListener("iceconnectionstatechange", () => this.moved());
    this.peer.addEventListener("track", (event) => this.hears(event));
    const [track] = this.mine.getAudioTracks();
    track.addEventListener("ended", () => this.close("The microphone is gone."));
    this.sender = this.peer.addTrack(track, this.mine);
    await this.peer.setLocalDescription();
    const headers = { "Content-Type": "application/sdp", Authorization: `Bearer ${this.token}` };
    const body = this.peer.localDescription.sdp;
    this.asking = new AbortController();
    const { signal } = this.asking;
    const answer = await reach(terms.whip, { method: "POST", headers, body, signal });
    if (answer.status !== 201) throw new Error(await why(answer));
    this.place = new URL(answer.headers.get("Location"), location.href).href;
    this.answer = await answer.text();
    if (this.isOver) return this.release();
    if (this.reason) return this.ended();
    await this.peer.setRemoteDescription({ type: "answer", sdp: this.answer });
    this.meter("me", this.mine);
    this.timers.push(setInterval(() => this.look(), 1000));
  }

  // Follows what is said; waits until nothing is missed any more.
  follow(path) {
    const events = new EventSource(path);
    this.events = events;
    const on = (name, act) => events.addEventListener(name, (it) => act(JSON.parse(it.data)));
    on("began", ({ call }) => this.known(call));
    on("answered", ({ call }) => this.known(call));
    on("turn", (turn) => this.said(turn));
    on("missed", () => this.said({ role: "edge", text: "Some of the transcript was left out here." }));
    on("ended", ({ reason }) => {
      this.reason = reason;
      // Of a call that was refused, the answer to our offer says more.
      if (this.place) this.ended();
    });
    events.addEventListener("error", () => {
      const text = "The transcript cannot be followed any more.";
      if (events.readyState === EventSource.CLOSED) this.said({ role: "edge", text });
    });
    return new Promise((done) => {
      on("following", done);
      // Without it one can still talk.
      setTimeout(done, 3000);
    });
  }

  ended() {
    this.close(ENDS[this.reason] ?? `The call ended: ${this.reason}.`, !(this.reason in ENDS));
  }

  known(call) {
    this.id = call;
    link(call);
  }

  said(turn) {
    ui.silent.hidden = true;
    ui.transcript.append(line(turn, NAMES));
    ui.log.scrollTop = ui.log.scrollHeight;
  }

  hears({ track, streams }) {
    const stream = streams[0] ?? new MediaStream([track]);
    ui.voice.srcObject = stream;
    ui.voice.play().catch(() => say("The browser plays no sound: press Call again.", true));
    this.meter("other", stream);
  }

  changed() {
    const { connectionState: state, iceConnectionState: way } = this.peer;
    if (state === "connected") return this.mended();
    if (state === "connecting" && !this.broken) return say("Connecting …");
    // The way is there, and what is encrypted on it is not understood.
    if (state === "failed" && way !== "failed") this.close("The encryption failed.", true);
  }

  // The way to the edge is gone, or another one is there.
  moved() {
    const way = this.peer.iceConnectionState;
    if (way === "disconnected" || way === "failed") this.breaks(way === "failed" ? 0 : BEARS);
    if (way === "connected" || way === "completed") this.mended();
  }

  mended() {
    clearTimeout(this.again);
    if (this.peer.connectionState !== "connected") return;
    this.count();
    say(this.broken ? "Connected and encrypted again." : "Connected and encrypted.");
    this.broken = null;
  }

  // How long the talk is.
  count() {
    if (this.began) return;
    this.began = performance.now();
    const show = () => {
      ui.clock.textContent = clock(performance.now() - this.began).slice(0, -2);
      ui.clock.hidden = false;
    };
    show();
    this.timers.push(setInterval(show, 500));
  }

  breaks(wait) {
    if (this.isOver) return;
    this.broken ??= performance.now();
    say("The connection is interrupted. Reconnecting …", true);
    clearTimeout(this.again);
    this.again = setTimeout(() => this.restart(), wait);
  }

  // Restarts ICE (RFC 9725 section 4.3.3) until there is a way again, or none is to be hoped for.
  async restart() {
    if (this.isOver || !this.broken || this.isTrying) return;
    if (performance.now() - this.broken > GIVES_UP) {
      return this.close("The connection could not be restored. Press Call to begin anew.", true);
    }
    this.isTrying = true;
    try {
      await this.tries();
    } catch { /* Nobody is reached: the next try may find somebody. */ }
    this.isTrying = false;
    if (this.isOver || !this.broken) return;
    clearTimeout(this.again);
    this.again = setTimeout(() => this.restart(), TRIES_AGAIN);
  }

  async tries() {
    const { peer } = this;
    // An offer that nobody has answered.
    if (peer.signalingState !== "stable") await peer.setLocalDescription({ type: "rollback" });
    peer.restartIce();
    await peer.setLocalDescription();
    const wanted = /^a=(ice-ufrag|ice-pwd|mid|candidate)|^m=/;
    const lines = peer.localDescription.sdp.split("\r\n").filter((it) => wanted.test(it));
    const answer = await fetch(this.place, {
      method: "PATCH",
      headers: {
        "Content-Type": "application/trickle-ice-sdpfrag",
        Authorization: `Bearer ${this.token}`,
        "If-Match": "*",
      },
      body: `${lines.join("\r\n")}\r\n`,
      signal: AbortSignal.timeout(8000),
    });
    if (answer.status === 404) {
      return this.close("The call ended while the connection was interrupted.", true);
    }
    if (answer.status === 401 || answer.status === 403) {
      return this.close(`The call cannot go on: ${await why(answer)}`, true);
    }
    if (answer.status !== 200) throw new Error(await why(answer));
    const fresh = await answer.text();
    if (this.isOver) return;
    for (const name of ["ice-ufrag", "ice-pwd"]) {
      const own = new RegExp(`^a=${name}:.*$`, "gm");
      const [value] = fresh.match(own) ?? [];
      if (value) this.answer = this.answer.replace(own, () => value.trimEnd());
    }
    await peer.setRemoteDescription({ type: "answer", sdp: this.answer });
  }

  meter(who, stream) {
    this.sound ??= new AudioContext();
    const ear = this.sound.createAnalyser();
    ear.fftSize = 1024;
    this.sound.createMediaStreamSource(stream).connect(ear);
    this.sound.resume();
    const samples = new Float32Array(ear.fftSize);
    const place = ui[who];
    const [bar, word] = [place.querySelector("meter"), place.querySelector(".word")];
    let last = -Infinity;
    this.timers.push(setInterval(() => {
      ear.getFloatTimeDomainData(samples);
      const loud = Math.sqrt(samples.reduce((sum, it) => sum + it * it, 0) / samples.length);
      bar.value = Math.min(1, Math.sqrt(loud) * 1.6);
      if (loud > SPEAKS) last = performance.now();
      const is = who === "me" && this.isMuted ? "muted"
        : performance.now() - last < LINGERS ? "speaking" : "silent";
      if (is !== this.heard[who]) {
        this.heard[who] = is;
        place.classList.toggle("speaks", is === "speaking");
        word.textContent = is;
      }
    }, 60));
  }

  // The facts of the connection, as the browser sees them.
  async look() {
    const stats = await this.peer.getStats();
    const all = [...stats.values()];
    const one = (type, is = () => true) => all.find((it) => it.type === type && is(it));
    const wire = one("transport");
    const pair = stats.get(wire?.selectedCandidatePairId)
      ?? one("candidate-pair", (it) => it.nominated && it.state === "succeeded");
    const [near, far] = [stats.get(pair?.localCandidateId), stats.get(pair?.remoteCandidateId)];
    const heard = one("inbound-rtp", (it) => it.kind === "audio");
    const told = one("remote-inbound-rtp", (it) => it.kind === "audio");
    const codec = stats.get(heard?.codecId) ?? one("codec");
    const end = (it) => it && `${it.address ?? "hidden"}:${it.port} (${it.candidateType})`;
    const milliseconds = (it) => it === undefined ? undefined : `${(it * 1000).toFixed(1)} ms`;
    const trip = told?.roundTripTime ?? pair?.currentRoundTripTime;
    const lost = heard && heard.packetsLost / Math.max(1, heard.packetsLost + heard.packetsReceived);
    const tls = { FEFD: "DTLS 1.2", FEFC: "DTLS 1.3", "0304": "DTLS 1.3" };
    this.show([
      ["State", this.peer.connectionState],
      ["Way", near && `${near.protocol.toUpperCase()}: ${end(near)} to ${end(far)}`],
      ["Handshake", wire && `${tls[wire.tlsVersion] ?? "DTLS"}, ${wire.dtlsCipher ?? wire.dtlsState}`],
      ["Media encryption", wire?.srtpCipher && `SRTP, ${wire.srtpCipher}`],
      ["Codec", codec && `${codec.mimeType.replace("audio/", "")} ${codec.clockRate / 1000} kHz`],
      ["Round trip", milliseconds(trip)],
      ["Jitter", milliseconds(heard?.jitter)],
      ["Lost", heard && `${(lost * 100).toFixed(1)} % of ${heard.packetsReceived + heard.packetsLost}`],
    ]);
  }

  show(facts) {
    ui.details.replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }));
  }

  mute() {
    this.isMuted = !this.isMuted;
    this.hush();
    ui.mute.setAttribute("aria-pressed", String(this.isMuted));
  }

  // Also of a microphone that was muted before it was there.
  hush() {
    for (const track of this.mine?.getAudioTracks() ?? []) track.enabled = !this.isMuted;
  }

  press(key) {
    const tones = this.sender?.dtmf;
    if (!tones?.canInsertDTMF) return;
    tones.insertDTMF(tones.toneBuffer + key, 120, 70);
    ui.sent.textContent = `${ui.sent.textContent || "Sent:"} ${key}`;
  }

  close(text, isWrong = false) {
    if (this.isOver) return;
    this.isOver = true;
    this.release();
    if (now === this) now = null;
    // Who was at a control of the call is not left nowhere.
    const wasThere = [ui.mute, ui.end, ui.keypad].some((it) => it.contains(document.activeElement));
    offer(false);
    say(text, isWrong);
    if (wasThere) ui.call.focus();
  }

  release() {
    this.timers.forEach(clearInterval);
    clearTimeout(this.again);
    this.asking?.abort();
    this.events?.close();
    if (this.place) {
      const headers = { Authorization: `Bearer ${this.token}` };
      // The page may be on its way out.
      fetch(this.place, { method: "DELETE", headers, keepalive: true }).catch(() => {});
      this.place = null;
    }
    this.peer?.close();
    this.mine?.getTracks().forEach((track) => track.stop());
    this.sound?.close();
    this.sound = null;
    ui.voice.srcObject = null;
    for (const who of ["me", "other"]) {
      ui[who].classList.remove("speaks");
      ui[who].querySelector("meter").value = 0;
      ui[who].querySelector(".word").textContent = "silent";
    }
  }
}

ui.agent.addEventListener("change", () => {
  ui.about.textContent = ui.agent.selectedOptions[0]?.dataset.about ?? "";
});
ui.start.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (now) return;
  const call = now = new Call();
  ui.transcript.replaceChildren();
  ui.silent.hidden = false;
  ui.more.hidden = ui.clock.hidden = true;
  ui.sent.textContent = "";
  offer(true);
  ui.end.focus();
  try {
    await call.open(ui.agent.value);
  } catch (error) {
    call.close(error.message, true);
    ui.call.focus();
  }
});
ui.end.addEventListener("click", () => {
  now?.close("You hung up.");
  ui.call.focus();
});
ui.mute.addEventListener("click", () => now?.mute());
ui.keypad.addEventListener("click", ({ target }) => target.dataset.key && now?.press(target.dataset.key));
ui.keypad.addEventListener("keydown", (event) => {
  if (now && /^[0-9*#]$/.test(event.key) && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    now.press(event.key);
  }
});
// Another network is there.
addEventListener("online", () => now?.broken && now.restart());
// Somebody who leaves, or loads the page again, ends the call, and is asked before.
addEventListener("beforeunload", (event) => now && event.preventDefault());
addEventListener("pagehide", () => {
  if (!now) return;
  sessionStorage.setItem(LEFT, now.id ?? "");
  now.close("You left the page, and the call has ended.");
});
offer(false);
const left = sessionStorage.getItem(LEFT);
sessionStorage.removeItem(LEFT);
if (left !== null) say("You left the page, and the call has ended. Press Call to begin anew.");
if (left) link(left);
