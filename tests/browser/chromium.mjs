// Chromium, by playwright-core: the commands of drive.mjs.
import { chromium } from "playwright-core";
import { looks } from "./console.mjs";

export function commands({ executablePath, origin }) {
  const pages = new Map();
  let browser;
  return {
    // A browser whose microphone plays `microphone` over and over.
    launch: async ({ microphone, flags = [] }) => {
      browser = await chromium.launch({
        executablePath,
        args: [
          "--headless=new",
          "--use-fake-ui-for-media-stream",
          "--use-fake-device-for-media-stream",
          ...(microphone ? [`--use-file-for-fake-audio-capture=${microphone}`] : []),
          "--autoplay-policy=no-user-gesture-required",
          "--disable-features=WebRtcHideLocalIpsWithMdns",
          ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
          ...flags,
        ],
      });
      return browser.version();
    },
    // A page of its own context, at `url` or at that of this folder.
    open: async ({ page, url, viewport, dark, lax = true, zone }) => {
      const context = await browser.newContext({
        ignoreHTTPSErrors: true,
        bypassCSP: lax,
        permissions: ["microphone"],
        timezoneId: zone,
        viewport: viewport ?? { width: 1280, height: 800 },
        colorScheme: dark ? "dark" : "light",
      });
      const opened = await context.newPage();
      const log = [];
      opened.on("console", (it) => log.push(`${it.type()}: ${it.text()}`));
      opened.on("response", (it) => {
        if (it.status() >= 400) log.push(`status ${it.status()}: ${it.url()}`);
      });
      // A page is told no more than "Failed to fetch".
      opened.on("requestfailed", (it) => {
        log.push(`failed, ${it.failure()?.errorText}: ${it.method()} ${it.url()}`);
      });
      opened.on("pageerror", (it) => log.push(`error: ${it.message}`));
      opened.on("dialog", (it) => {
        log.push(`dialog: ${it.type()}`);
        it.accept().catch(() => {});
      });
      pages.set(page, { page: opened, log });
      await opened.goto(url ?? origin, { waitUntil: "load" });
      return opened.url();
    },
    // An expression, since a page's content security policy forbids functions made of text. A page
    // that is being left is asked again.
    run: async ({ page, code, argument }) => {
      const expression = `(async (argument) => {${code}})(${JSON.stringify(argument ?? null)})`;
      for (let tries = 0; ; tries += 1) {
        try {
          return await pages.get(page).page.evaluate(expression);
        } catch (error) {
          if (tries > 20 || !/navigation|context was destroyed/.test(error.message)) {
            const why = pages.get(page).log.filter((it) => it.startsWith("failed, ")).at(-1);
            if (why && /Failed to fetch/.test(error.message)) error.message += `; ${why}`;
            throw error;
          }
          await new Promise((done) => setTimeout(done, 100));
        }
      }
    },
    click: ({ page, selector }) => pages.get(page).page.click(selector, { timeout: 5000 }),
    fill: ({ page, selector, text }) => pages.get(page).page.fill(selector, text),
    press: ({ page, key }) => pages.get(page).page.keyboard.press(key),
    text: ({ page, selector }) => pages.get(page).page.innerText(selector, { timeout: 5000 }),
    reload: ({ page }) => pages.get(page).page.reload().then(() => null),
    offline: ({ page, offline }) => pages.get(page).page.context().setOffline(offline),
    goto: ({ page, url }) => pages.get(page).page.goto(url, { waitUntil: "load" }).then(() => null),
    // Another window or colour scheme.
    look: async ({ page, viewport, dark }) => {
      const { page: shown } = pages.get(page);
      await shown.setViewportSize(viewport ?? { width: 1280, height: 800 });
      await shown.emulateMedia({ colorScheme: dark ? "dark" : "light" });
    },
    url: ({ page }) => pages.get(page).page.url(),
    log: ({ page }) => pages.get(page).log,
    screenshot: ({ page, path, whole = true }) =>
      pages.get(page).page.screenshot({ path, fullPage: whole }).then(() => null),
    ...looks(pages),
    shut: ({ page }) => pages.get(page).page.context().close(),
    end: () => browser?.close(),
  };
}
