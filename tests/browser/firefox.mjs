// Firefox, by its own Marionette protocol (what geckodriver speaks to it): the commands of
// drive.mjs that its cases need, of one page. No package drives a Firefox of Debian's as it is.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";

// Values that a person would not set: what asks, what calls home, what wants a screen or speakers.
const PREFERENCES = {
  "app.update.disabledForTesting": true,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "devtools.console.stdout.content": true,
  "dom.disable_beforeunload": true,
  "extensions.systemAddon.update.enabled": false,
  "marionette.port": 0,
  "media.autoplay.block-webaudio": false,
  "media.autoplay.blocking_policy": 0,
  "media.autoplay.default": 0,
  // Without speakers no AudioContext runs; with these, which nobody hears, it does.
  "media.cubeb.force_mock_context": true,
  "media.navigator.permission.disabled": true,
  "media.peerconnection.ice.loopback": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "data:,",
  "toolkit.telemetry.reportingpolicy.firstRun": false,
};

// One connection: a command, its answer, the next command.
class Marionette {
  constructor(socket) {
    this.socket = socket;
    this.buffer = Buffer.alloc(0);
    this.waiting = new Map();
    this.last = 0;
    socket.on("data", (bytes) => this.#read(bytes));
    socket.on("close", () => {
      for (const { reject } of this.waiting.values()) reject(new Error("Firefox has gone"));
      this.waiting.clear();
    });
  }

  // Messages are JSON behind their length in bytes: `17:[0,1,"Name",{}]`.
  #read(bytes) {
    this.buffer = Buffer.concat([this.buffer, bytes]);
    for (;;) {
      const colon = this.buffer.indexOf(":");
      const end = colon + 1 + Number(this.buffer.subarray(0, Math.max(colon, 0)));
      if (colon < 0 || this.buffer.length < end) return;
      const message = JSON.parse(this.buffer.subarray(colon + 1, end));
      this.buffer = this.buffer.subarray(end);
      if (!Array.isArray(message)) continue; // the greeting
      const [, id, error, result] = message;
      const { resolve, reject } = this.waiting.get(id) ?? {};
      this.waiting.delete(id);
      if (error) reject?.(new Error(`${error.error}: ${error.message}`));
      else resolve?.(result);
    }
  }

  ask(name, parameters = {}) {
    const id = (this.last += 1);
    const text = JSON.stringify([0, id, name, parameters]);
    this.socket.write(`${Buffer.byteLength(text)}:${text}`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}

export function commands({ executablePath, origin, serve }) {
  const log = [];
  let profile, firefox, marionette, microphone;

  const start = async (preferences) => {
    profile = await mkdtemp(join(process.env.HOME, "firefox-"));
    const lines = Object.entries({ ...PREFERENCES, ...preferences }).map(
      ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`,
    );
    await writeFile(join(profile, "user.js"), lines.join("\n"));
    const options = ["--headless", "--marionette", "--remote-allow-system-access", "--no-remote"];
    firefox = spawn(executablePath, [...options, "--profile", profile, "about:blank"], {
      stdio: ["ignore", "pipe", "inherit"],
      // Containers have no name spaces for its sandbox.
      env: { ...process.env, MOZ_DISABLE_CONTENT_SANDBOX: "1", MOZ_CRASHREPORTER_DISABLE: "1" },
    });
    const keep = (text) => log.push(...text.trim().split("\n"));
    firefox.stdout.setEncoding("utf8").on("data", keep);
    // It says which port it has taken once it listens.
    const said = join(profile, "MarionetteActivePort");
    for (;;) {
      const port = Number(await readFile(said, "utf8").catch(() => ""));
      if (port) return new Promise((done, failed) => {
        const socket = connect(port, "127.0.0.1", () => done(socket)).on("error", failed);
      });
      if (firefox.exitCode !== null) throw new Error(`Firefox ended with ${firefox.exitCode}`);
      await new Promise((done) => setTimeout(done, 100));
    }
  };

  // Within the page's own realm, as JSON, since what a sandbox holds is not the page's.
  const run = async ({ code, argument }) => {
    const expression = `(async (argument) => {${code}})(${JSON.stringify(argument ?? null)})
      .then((value) => JSON.stringify(value ?? null))`;
    const script = "return window.eval(arguments[0])";
    const { value } = await marionette.ask("WebDriver:ExecuteScript", {
      script,
      args: [expression],
      sandbox: null,
    });
    return JSON.parse(value);
  };
  // Whose page may listen is told all of its addresses, that of this machine alone too, as somebody
  // who has said yes to the question for the microphone would have it.
  const allow = async () => {
    await marionette.ask("Marionette:SetContext", { value: "chrome" });
    await marionette.ask("WebDriver:ExecuteScript", {
      script: `const uri = Services.io.newURI(arguments[0]);
        const principal = Services.scriptSecurityManager.createContentPrincipal(uri, {});
        Services.perms.addFromPrincipal(principal, "microphone", Services.perms.ALLOW_ACTION);`,
      args: [origin],
    });
    await marionette.ask("Marionette:SetContext", { value: "content" });
  };
  const goto = async ({ url }) => {
    await marionette.ask("WebDriver:Navigate", { url });
    if (microphone) await run({ code: "Voice.becomeMicrophone(argument)", argument: microphone });
  };

  return {
    // A browser whose pages take `microphone` for what getUserMedia gives, over and over.
    launch: async ({ microphone: file, preferences = {} }) => {
      if (file) {
        microphone = "/microphone.wav";
        serve(microphone, "audio/wav", file);
      }
      marionette = new Marionette(await start(preferences));
      const session = await marionette.ask("WebDriver:NewSession", {
        acceptInsecureCerts: true,
        timeouts: { script: 120_000 },
      });
      await allow();
      return session.capabilities.browserVersion;
    },
    open: ({ url }) => goto({ url: url ?? origin }),
    goto,
    run,
    reload: async () => goto({ url: await run({ code: "return location.href" }) }),
    url: () => run({ code: "return location.href" }),
    log: () => log,
    screenshot: async ({ path, whole = true }) => {
      const { value } = await marionette.ask("WebDriver:TakeScreenshot", { full: whole });
      await writeFile(path, Buffer.from(value, "base64"));
    },
    end: async () => {
      if (!firefox) return;
      const ended = new Promise((done) => firefox.once("exit", done));
      await marionette?.ask("Marionette:Quit", { flags: ["eForceQuit"] }).catch(() => null);
      if (!marionette) firefox.kill();
      await ended;
      await rm(profile, { recursive: true, force: true });
    },
  };
}
