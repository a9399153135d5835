// What the cases about the console ask of a page besides the commands of chromium.mjs.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

export const looks = (pages) => ({
  // What axe-core finds wrong with a page, and what it could not decide about contrast.
  axe: async ({ page }) => {
    const { page: shown } = pages.get(page);
    if (!(await shown.evaluate("'axe' in globalThis"))) await shown.evaluate(axe);
    const options = JSON.stringify({ runOnly: TAGS, resultTypes: ["violations", "incomplete"] });
    const { violations, incomplete } = await shown.evaluate(`axe.run(document, ${options})`);
    const unsure = incomplete.filter((it) => it.id === "color-contrast");
    return [...violations, ...unsure].flatMap(({ id, impact, nodes }) =>
      nodes.map((it) => `${impact} ${id}: ${it.target.join(" ")} ${it.failureSummary ?? ""}`));
  },
  // The tree that a screen reader reads.
  aria: ({ page, selector = "body" }) => pages.get(page).page.locator(selector).ariaSnapshot(),
  cookies: ({ page }) => pages.get(page).page.context().cookies(),
  // Takes a permission away, as somebody who says no, or gives it back.
  allow: async ({ page, permissions }) => {
    const context = pages.get(page).page.context();
    await context.clearPermissions();
    await context.grantPermissions(permissions);
  },
  motion: ({ page, reduced }) =>
    pages.get(page).page.emulateMedia({ reducedMotion: reduced ? "reduce" : "no-preference" }),
  // A click at a part of an element's width.
  point: async ({ page, selector, x }) => {
    const place = pages.get(page).page.locator(selector);
    await place.scrollIntoViewIfNeeded();
    const box = await place.boundingBox();
    await place.click({ position: { x: box.width * x, y: box.height / 2 }, timeout: 5000 });
  },
});
