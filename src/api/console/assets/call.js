// A call's page: the player and the transcript on one axis, and what is said in a call that goes on.
import { line } from "./turns.js";

const seen = document.getElementById("seen");
const list = document.getElementById("transcript");
const turns = () => [...list.querySelectorAll(".turn[data-start]")];

for (const axis of document.querySelectorAll(".axis")) {
  const player = axis.querySelector("audio");
  const lanes = axis.querySelector(".lanes");
  const head = axis.querySelector(".head");
  const offset = Number(axis.dataset.offset);
  const length = Number(axis.dataset.length);
  const seek = (millis) => {
    player.currentTime = Math.max(0, millis - offset) / 1000;
    player.play().catch(() => {});
  };
  lanes.addEventListener("click", (event) => {
    const box = lanes.getBoundingClientRect();
    seek(offset + (event.clientX - box.left) / box.width * length);
  });
  player.addEventListener("timeupdate", () => {
    const at = player.currentTime * 1000;
    head.hidden = false;
    head.style.left = `${Math.min(100, at / length * 100)}%`;
    const passed = turns().filter((it) => Number(it.dataset.start) <= at + offset).at(-1);
    for (const turn of turns()) turn.classList.toggle("now", turn === passed);
  });
  for (const turn of turns()) {
    const start = Number(turn.dataset.start);
    const when = turn.querySelector(".when");
    if (start < offset || start > offset + length || when.tagName === "BUTTON") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "when";
    button.textContent = when.textContent;
    button.setAttribute("aria-label", `Play from ${when.textContent}`);
    button.addEventListener("click", () => seek(start));
    when.replaceWith(button);
  }
}

const names = { caller: "Caller", agent: "Agent" };

// The plots anew, unless somebody reads in them just now; what was opened stays open.
async function look(call) {
  const place = document.getElementById("media");
  if (!place || place.contains(document.activeElement)) return;
  const answer = await fetch(`/console/calls/${encodeURIComponent(call)}/quality`);
  if (!answer.ok) return;
  const fresh = await answer.text();
  if (place.contains(document.activeElement)) return;
  const open = [...place.querySelectorAll("details")].map((it) => it.open);
  place.innerHTML = fresh;
  place.querySelectorAll("details").forEach((it, number) => { it.open = open[number] ?? false; });
}

// Says what happened, with a link to the page as it is then; nobody's place on it is lost.
function tell(text) {
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "Load the page again";
  document.getElementById("news").replaceChildren(`${text} `, again);
}

if (seen.dataset.live === "yes") {
  const call = seen.dataset.call;
  const events = new EventSource(`/console/calls/${encodeURIComponent(call)}/events`);
  const on = (name, act) => events.addEventListener(name, (it) => act(JSON.parse(it.data)));
  on("turn", (turn) => {
    const { role, start_ms: start } = turn;
    if (turns().some((it) => Number(it.dataset.start) === start && it.classList.contains(role))) return;
    const silent = document.getElementById("silent");
    if (silent) silent.hidden = true;
    list.append(line(turn, names));
  });
  on("media", () => look(call).catch(() => {}));
  // What was left out is in the store.
  on("missed", () => tell("Some of this call was left out here."));
  on("answered", () => tell("The call was answered."));
  on("ended", () => {
    events.close();
    tell("The call ended.");
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) tell("This page does not follow the call any more.");
  });
}
