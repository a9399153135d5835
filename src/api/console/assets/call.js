// A call's page: the player and the transcript on one axis, and what goes on in a call that is not over.
import { clock, line } from "./turns.js";

const $ = (id) => document.getElementById(id);
const seen = $("seen");
const NAMES = { caller: "Caller", agent: "Agent" };
const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
let isLive = seen.dataset.live === "yes"; // Whether the call goes on.
let events = null;
const turns = () => [...document.querySelectorAll("#transcript .turn[data-start]")];

// One recording: its waveform is a slider, and each turn within it a place to go to.
function play(axis) {
  const player = axis.querySelector("audio");
  const lanes = axis.querySelector(".lanes");
  const head = axis.querySelector(".head");
  const offset = Number(axis.dataset.offset);
  const length = Number(axis.dataset.length);
  const move = (millis) => {
    player.currentTime = Math.min(length, Math.max(0, millis - offset)) / 1000;
    show();
  };
  const seek = (millis) => {
    move(millis);
    player.play().catch(() => {});
  };
  const show = () => {
    const at = player.currentTime * 1000;
    head.hidden = false;
    head.style.left = `${Math.min(100, at / length * 100)}%`;
    lanes.setAttribute("aria-valuenow", Math.round(at / 1000));
    lanes.setAttribute("aria-valuetext", `${clock(at + offset)} of ${clock(length + offset)}`);
    const passed = turns().filter((it) => Number(it.dataset.start) <= at + offset).at(-1);
    for (const turn of turns()) turn.classList.toggle("now", turn === passed);
  };
  const about = {
    role: "slider", tabindex: 0, "aria-label": "Place in the recording", "aria-valuemin": 0,
    "aria-valuemax": Math.round(length / 1000), "aria-valuenow": 0, "aria-valuetext": clock(offset),
  };
  for (const [name, value] of Object.entries(about)) lanes.setAttribute(name, value);
  lanes.addEventListener("click", (event) => {
    const box = lanes.getBoundingClientRect();
    seek(offset + (event.clientX - box.left) / box.width * length);
  });
  lanes.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " || event.key === "Enter") {
      if (player.paused) player.play().catch(() => {});
      else player.pause();
    } else if (event.key === "Home") move(offset);
    else if (event.key === "End") move(offset + length);
    else if (STEPS[event.key]) move(offset + player.currentTime * 1000 + STEPS[event.key] * 1000);
    else return;
    event.preventDefault();
  });
  player.addEventListener("timeupdate", show);
  for (const turn of turns()) {
    const start = Number(turn.dataset.start);
    const when = turn.querySelector(".when");
    // The first words may be there some moments before the recording.
    if (start < offset - 1000 || start > offset + length || when.tagName === "BUTTON") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "when";
    button.textContent = when.textContent;
    button.setAttribute("aria-label", `Play from ${when.textContent}`);
    button.addEventListener("click", () => seek(start));
    when.replaceWith(button);
  }
}

// What somebody will want elsewhere, with a button that takes it there.
function copies(place) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${place.dataset.copy}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(place.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(place);
      button.textContent = "Selected";
    }
    $("told").textContent = `${button.textContent}: ${place.dataset.copy}`;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  place.after(" ", button);
}

// A time of the edge's in the reader's own zone as well.
function local(time) {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  if (timeZone === "UTC") return;
  const here = new Date(time.dateTime).toLocaleString("sv-SE", { timeZone });
  const word = document.createElement("span");
  word.className = "hint";
  word.textContent = ` (${here} ${timeZone})`;
  time.after(word);
}

// Makes a part of the page work.
function bind(part) {
  part.querySelectorAll(".axis").forEach(play);
  part.querySelectorAll("[data-copy]").forEach(copies);
  part.querySelectorAll("time").forEach(local);
}

// As the edge made them, to see what is new.
const parts = () => [...document.querySelectorAll(".part")];
const made = new Map(parts().map((it) => [it.id, it.outerHTML]));
copies(document.querySelector("h1 [data-copy]"));
parts().forEach(bind);

const ending = $("ending");
const sure = $("sure");
ending?.addEventListener("submit", (event) => {
  event.preventDefault();
  sure.showModal();
});
sure?.addEventListener("close", () => {
  if (sure.returnValue === "yes") ending.submit();
});

// Says what happened. Where somebody is in the middle of what would change, they decide when.
function tell(text, isWhole = true) {
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "Load the page again";
  $("news").replaceChildren(...(isWhole ? [text] : [`${text} `, again]));
}

const isHere = (place) => place.contains(document.activeElement);

// The page as the edge would make it now, part by part; whether all of it is.
async function renew() {
  const answer = await fetch(location.href);
  if (!answer.ok || answer.redirected) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  let isWhole = true;
  let before = null;
  for (const fresh of page.querySelectorAll(".part")) {
    const old = $(fresh.id);
    const text = fresh.outerHTML;
    if (old && isHere(old) && made.get(fresh.id) !== text) isWhole = false;
    else if (!old || made.get(fresh.id) !== text) {
      const open = [...(old?.querySelectorAll("details") ?? [])].map((it) => it.open);
      made.set(fresh.id, text);
      if (old) old.replaceWith(fresh);
      else before.after(fresh);
      fresh.querySelectorAll("details").forEach((it, number) => { it.open = open[number] ?? false; });
      bind(fresh);
    }
    before = $(fresh.id);
  }
  // It may have ended before this page began to follow it.
  if (page.getElementById("seen")?.dataset.live === "no") end();
  return isWhole;
}

// The plots anew, unless somebody reads in them just now; what was opened stays open.
async function look(call) {
  const place = $("media");
  if (!place) return renew();
  if (isHere(place)) return;
  const answer = await fetch(`/console/calls/${encodeURIComponent(call)}/quality`);
  if (!answer.ok) return;
  const fresh = await answer.text();
  if (isHere(place)) return;
  const open = [...place.querySelectorAll("details")].map((it) => it.open);
  place.innerHTML = fresh;
  place.querySelectorAll("details").forEach((it, number) => { it.open = open[number] ?? false; });
}

// There is nothing to hang up any more.
function over() {
  if (sure?.open) sure.close("no");
  const wasThere = ending && isHere(ending);
  ending?.remove();
  if (wasThere) $("main").focus();
}

async function change(text) {
  const isWhole = await renew().catch(() => false);
  tell(text, isWhole);
}

// A recording is there some moments after its call has ended.
async function end() {
  if (!isLive) return;
  isLive = false;
  events?.close();
  over();
  await change("The call ended.");
  for (const wait of [500, 1000, 2000, 4000]) {
    if (document.querySelector(".axis")) return;
    await new Promise((done) => setTimeout(done, wait));
    await change("The call ended.");
  }
}

function follow(call) {
  events = new EventSource(`/console/calls/${encodeURIComponent(call)}/events`);
  const on = (name, act) => events.addEventListener(name, (it) => act(JSON.parse(it.data)));
  on("turn", (turn) => {
    const { role, start_ms: start } = turn;
    if (turns().some((it) => Number(it.dataset.start) === start && it.classList.contains(role))) return;
    const silent = $("silent");
    if (silent) silent.hidden = true;
    $("transcript").append(line(turn, NAMES));
  });
  on("speaking", ({ role, speaks }) => {
    const voice = $(`${role}-voice`);
    if (!voice) return;
    voice.textContent = speaks ? "speaking" : "silent";
    voice.classList.toggle("speaks", speaks);
  });
  on("media", () => look(call).catch(() => {}));
  // What happened between the page and this stream, or was left out of it, is in the store.
  on("following", () => renew().catch(() => {}));
  on("missed", () => change("Some of this call was left out here."));
  on("answered", () => change("The call was answered."));
  on("ended", end);
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) tell("This page does not follow the call any more.", false);
  });
}

// How long it goes on.
setInterval(() => {
  for (const it of document.querySelectorAll("[data-since]")) {
    it.textContent = `${clock(Math.max(0, Date.now() - new Date(it.dataset.since))).slice(0, -2)} ago`;
  }
}, 1000);
if (isLive) follow(seen.dataset.call);
