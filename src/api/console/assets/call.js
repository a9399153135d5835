// A call's page: the player and the transcript on one axis, and what is said in a call that goes on.
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

if (seen.dataset.live === "yes") {
  const events = new EventSource(`/console/calls/${encodeURIComponent(seen.dataset.call)}/events`);
  const on = (name, act) => events.addEventListener(name, (it) => act(JSON.parse(it.data)));
  on("turn", ({ role, text, start_ms: start, interrupted, latency_ms: latency }) => {
    if (turns().some((it) => Number(it.dataset.start) === start && it.classList.contains(role))) return;
    const silent = document.getElementById("silent");
    if (silent) silent.hidden = true;
    const line = document.createElement("li");
    line.className = `turn ${role === "caller" ? "caller" : "agent"}`;
    line.dataset.start = start;
    const put = (name, words) => {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = words;
      line.append(part);
    };
    const seconds = Math.floor(start / 1000);
    put("when", `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`);
    put("role", role === "caller" ? "Caller" : "Agent");
    put("text", interrupted ? `${text} (interrupted)` : text);
    if (typeof latency === "number") put("latency", `answered after ${latency} ms`);
    list.append(line);
  });
  // What was left out is in the store.
  on("missed", () => location.reload());
  on("answered", () => location.reload());
  on("ended", () => {
    events.close();
    setTimeout(() => location.reload(), 1500);
  });
}
