// Every page, in both languages, light and dark: axe finds nothing, the browser complains of nothing, no other
// host is asked, and nothing is wider than the screen. A screenshot of each is kept.

import { AxeBuilder } from "@axe-core/playwright";
import type { Page } from "@playwright/test";
import { OUTPUT, type Role } from "./setup";
import { city, expect, type Seen, test } from "./support";

const GAUGE = "urn%3Angsi-ld%3AFloodMonitoring%3Agauge-0001";
interface Where {
  name: string;
  as: Role | null;
  path: string;
  /** What is there once the page is. */
  shows: string;
  purpose?: string;
  /** Done before looking. */
  then?: (page: Page) => Promise<void>;
}
const PAGES: Where[] = [
  { name: "sign-in", as: null, path: "/", shows: "form" },
  { name: "first-start", as: null, path: "/#signin=ABCD-EFGH", shows: "form" },
  { name: "city", as: "crisis", path: "/#/city", shows: "tbody tr", purpose: "flood-response" },
  { name: "entity", as: "crisis", path: `/#/entity/${GAUGE}`, shows: "figure canvas", purpose: "flood-response" },
  { name: "person", as: "crisis", path: "/#/entity/urn%3Angsi-ld%3AEvacuationAssistance%3A001", shows: ".note", purpose: "flood-response" },
  { name: "refused", as: "crisis", path: "/#/entity/urn%3Angsi-ld%3ASmartMeteringObservation%3Ameter-0001", shows: "[role=alert]" },
  { name: "datasets", as: "crisis", path: "/#/datasets", shows: "tbody tr" },
  { name: "dataset", as: "steward", path: "/#/datasets/rivers", shows: "details" },
  {
    name: "dataset-change",
    as: "steward",
    path: "/#/datasets/rivers",
    shows: "form.panel [role=status]",
    then: async (page) => {
      await page.locator("p.noprint > button").click();
      await page.locator("form.panel .levels select").first().selectOption("confidential");
      await page.locator("form.panel button.main").click();
    },
  },
  { name: "people", as: "admin", path: "/#/people", shows: "tbody tr" },
  {
    name: "enrol",
    as: "admin",
    path: "/#/people",
    shows: "dialog[open] form",
    then: (page) => page.locator("p.noprint > button.main").click(),
  },
  { name: "journal", as: "auditor", path: "/#/journal", shows: "tbody tr" },
  {
    name: "record",
    as: "auditor",
    path: "/#/journal",
    shows: ".checks li:nth-child(3)",
    then: (page) => page.locator("tbody button").last().click(),
  },
  { name: "why", as: "admin", path: "/#/why?dataset=evacuation&login=crisis&action=read", shows: "h2 .refused" },
  { name: "hub", as: "admin", path: "/#/hub", shows: "meter" },
  {
    name: "purpose",
    as: "crisis",
    path: "/#/datasets",
    shows: "dialog[open] select",
    then: (page) => page.locator("button.purpose").click(),
  },
  { name: "public", as: null, path: "/public/", shows: "tbody tr" },
  { name: "public-dataset", as: null, path: "/public/datasets/rivers", shows: "pre" },
  { name: "public-log", as: null, path: "/public/log", shows: "pre" },
  { name: "public-receipt", as: null, path: "/public/receipt", shows: "textarea" },
];

const LOOKS: Seen[] = [
  { language: "en", theme: "light", width: 1440 },
  { language: "id", theme: "dark", width: 1440 },
  { language: "id", theme: "light", width: 320 },
  { language: "en", theme: "dark", width: 768 },
];

for (const where of PAGES) {
  for (const look of LOOKS) {
    test(`${where.name} ${look.language} ${look.theme} ${look.width}`, async ({ as }) => {
      const { page, complaints, hosts } = await as(where.as, where.path, { ...look, purpose: where.purpose ?? "" });
      if (where.then) {
        await expect(page.locator("h1")).toBeVisible();
        await where.then(page);
      }
      await expect(page.locator(where.shows).first()).toBeVisible();
      await page.evaluate(() => document.fonts.ready);
      const file = `${OUTPUT}/pages/${where.name}-${look.language}-${look.theme}-${look.width}.png`;
      await page.screenshot({ path: file, fullPage: !where.shows.includes("dialog") });
      const found = await new AxeBuilder({ page }).analyze();
      const shown = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
      expect(shown).toEqual([]);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(look.width ?? 0);
      expect(await page.evaluate(() => document.documentElement.lang)).toBe(look.language);
      expect(complaints).toEqual([]);
      expect([...hosts]).toEqual([new URL(city().https).host]);
    });
  }
}

test("twice the size works as half the width does", async ({ as }) => {
  // 200 % zoom of 1280 pixels leaves 640 (WCAG 2.2, 1.4.10).
  const { page } = await as("crisis", "/#/city", { width: 640, purpose: "flood-response" });
  await expect(page.locator("tbody tr").first()).toBeVisible();
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(640);
});

test("what is printed is the report, not its tools", async ({ as }) => {
  const { page } = await as("auditor", "/#/journal");
  await expect(page.locator("tbody tr").first()).toBeVisible();
  await page.emulateMedia({ media: "print" });
  await expect(page.locator("tbody tr").first()).toBeVisible();
  await expect(page.locator("nav").first()).toBeHidden();
  await expect(page.locator("button.purpose")).toBeHidden();
});

test("one thing alone is shown on the map, and so is one that comes before the map has a size", async ({ as }) => {
  const { page, complaints } = await as("crisis", "/#/datasets", { purpose: "flood-response" });
  await page.route("**/ngsi-ld/v1/entities?*", async (route) => {
    const [first] = new URL(route.request().url()).searchParams.get("type") === "FloodMonitoring" ? [GAUGE] : [];
    const answer = first ? await page.request.get(`/ngsi-ld/v1/entities/${first}`, { headers: route.request().headers() }) : null;
    await route.fulfill({ json: answer ? [await answer.json()] : [] });
  });
  // What it shows comes by the first answer alone.
  await page.route("**/api/v1/watch*", (route) => route.fulfill({ contentType: "text/event-stream", body: "event: open\ndata: []\n\n" }));
  await page.goto("/#/city");
  await expect(page.locator("tbody tr").first()).toBeVisible();
  await page.locator(".tools button").first().click();
  await page.goto("/#/datasets");
  await page.setViewportSize({ width: 40, height: 600 });
  await page.goto("/#/city");
  await expect(page.locator("tbody tr").first()).toBeAttached();
  await expect(page.locator(".map canvas")).toHaveCount(1);
  await page.setViewportSize({ width: 1024, height: 600 });
  await expect(page.locator(".map canvas")).toBeVisible();
  await page.locator(".tools button").last().click();
  expect(complaints).toEqual([]);
});
