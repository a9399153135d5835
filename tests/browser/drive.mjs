// Drives a browser for tests/harness/browser.py: commands as lines of JSON on standard input,
// answers likewise on standard output. `node drive.mjs chromium|firefox EXECUTABLE`.
import { createServer } from "node:http";
import { build } from "esbuild";
import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const [kind, executablePath] = process.argv.slice(2);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const { commands } = await import(`./${kind}.mjs`);

const bundled = await build({
  entryPoints: [here("agents.js")],
  bundle: true,
  write: false,
  format: "iife",
  platform: "browser",
  logLevel: "error",
});
const files = {
  "/": ["text/html", () => readFile(here("page.html"))],
  "/agents.js": ["text/javascript", () => bundled.outputFiles[0].contents],
};
const server = createServer(async (request, answer) => {
  const file = files[request.url];
  if (!file) return answer.writeHead(404).end();
  const [type, contents] = file;
  answer.writeHead(200, { "content-type": type });
  answer.end(await contents());
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = commands({
  executablePath,
  origin,
  // For a browser that plays no file as its microphone: the page fetches it.
  serve: (path, type, file) => (files[path] = [type, () => readFile(file)]),
});
const does = {
  ...browser,
  // Where the page of this folder is served from.
  origin: () => origin,
  end: async () => {
    await browser.end();
    server.close();
    setTimeout(() => process.exit(0), 50);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, does: what, ...rest } = JSON.parse(line);
  // Answered in any order: one page may wait while another one acts.
  Promise.resolve()
    .then(() => does[what](rest))
    .then((value) => ({ id, value: value ?? null }), (error) => ({ id, error: `${error.message}` }))
    .then((answer) => process.stdout.write(JSON.stringify(answer) + "\n"));
}
await does.end();
