// A turn of a conversation as a line of a transcript, as the edge writes them too.
export const clock = (millis) =>
  `${Math.floor(millis / 60000)}:${String(Math.floor(millis / 1000) % 60).padStart(2, "0")}.${Math.floor(millis / 100) % 10}`;

export function line({ role, text, start_ms: start, interrupted, latency_ms: latency }, names) {
  const line = document.createElement("li");
  line.className = `turn ${role === "caller" ? "caller" : "agent"}`;
  if (start !== undefined) line.dataset.start = start;
  const put = (name, words) => {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = words;
    line.append(part);
    return part;
  };
  put("when", start === undefined ? "" : clock(start));
  put("role", names[role] ?? "Edge");
  const said = put("text", text);
  if (interrupted) {
    const cut = document.createElement("em");
    cut.className = "cut";
    // Somebody spoke before the first word was out.
    cut.textContent = text ? "(interrupted)" : "(interrupted before a word)";
    said.append(text ? " " : "", cut);
  }
  if (typeof latency === "number") put("latency", `answered after ${latency} ms`);
  return line;
}
