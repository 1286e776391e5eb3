// The ten main tasks, by keyboard alone (docs/console.md lists them), and what a newcomer does.

import { readFileSync } from "node:fs";
import type { APIRequestContext, Page } from "@playwright/test";
import { PASSWORD } from "./setup";
import { city, expect, test } from "./support";

/** Presses Tab until what matches has the focus. */
async function tabTo(page: Page, selector: string, most = 120) {
  for (let tries = 0; tries < most; tries += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) return;
  }
  throw new Error(`Tab never came to ${selector}`);
}

const type = (page: Page, text: string) => page.keyboard.type(text);
const press = (page: Page, key: string) => page.keyboard.press(key);

test.describe("by keyboard alone", () => {
  test("1 sign in", async ({ as }) => {
    const { page } = await as(null, "/");
    await tabTo(page, "input[autocomplete=username]");
    await type(page, "crisis");
    await tabTo(page, "input[autocomplete=current-password]");
    await type(page, PASSWORD);
    await press(page, "Enter");
    await expect(page.locator("h1")).toHaveText("City now");
    await expect(page.locator("tbody tr").first()).toBeVisible();
  });

  test("2 declare a purpose with a reason", async ({ as }) => {
    const { page } = await as("crisis", "/#/city");
    await expect(page.locator("tbody tr").first()).toBeVisible();
    await tabTo(page, "button.purpose");
    await press(page, "Enter");
    await tabTo(page, "dialog select");
    await type(page, "Warn");
    await tabTo(page, "dialog input");
    await type(page, "exercise of today");
    await press(page, "Enter");
    await expect(page.locator("button.purpose")).toContainText("Warn, evacuate");
    await expect(page.locator("main .note")).not.toContainText("EvacuationAssistance");
  });

  test("3 find a thing and open it", async ({ as }) => {
    const { page } = await as("crisis", "/#/city");
    await expect(page.locator("tbody tr").first()).toBeVisible();
    await tabTo(page, "input[type=search]");
    await type(page, "gauge 1");
    await expect(page.locator("tbody tr")).toHaveCount(1);
    await tabTo(page, "tbody a");
    await press(page, "Enter");
    await expect(page.locator("h1")).toHaveText("gauge 1 (simulated)");
  });

  test("4 see a history, closer, and as a table", async ({ as }) => {
    const { page } = await as("crisis", "/#/entity/urn%3Angsi-ld%3AFloodMonitoring%3Agauge-0001");
    await expect(page.locator("figure canvas")).toBeVisible();
    await tabTo(page, "[aria-label='A shorter time']");
    await press(page, "Enter");
    await tabTo(page, "figure button[aria-expanded]");
    await press(page, "Enter");
    await expect(page.locator("figure table tbody tr").first()).toBeVisible();
  });

  test("5 change a dataset after seeing who gains and who loses", async ({ as }) => {
    const { page } = await as("steward", "/#/datasets/pipes");
    await expect(page.locator("details").first()).toBeVisible();
    await tabTo(page, "p.noprint > button");
    await press(page, "Enter");
    await tabTo(page, "form.panel textarea");
    await press(page, "End");
    await type(page, " (revised)");
    await tabTo(page, "form.panel button.main");
    await press(page, "Enter");
    await expect(page.locator("form.panel [role=status]")).toContainText("Who gains");
    await tabTo(page, "form.panel button.main");
    await press(page, "Enter");
    await expect(page.locator(".note.good")).toContainText("second person");
  });

  test("6 agree to what another asked for", async ({ as }) => {
    const { page } = await as("admin", "/#/people");
    await expect(page.locator("h2")).toHaveText("Waiting for a second person");
    await tabTo(page, "table button");
    await press(page, "Enter");
    await expect(page.locator(".note.good")).toContainText("recorded");
  });

  test("7 enrol a device and get its code", async ({ as }) => {
    const { page } = await as("steward", "/#/people");
    await expect(page.locator("tbody tr").first()).toBeVisible();
    await tabTo(page, "p.noprint > button.main");
    await press(page, "Enter");
    await type(page, "gauge-by-hand");
    await tabTo(page, "dialog input[required]:not([pattern])");
    await type(page, "rivers");
    await press(page, "Tab");
    await type(page, "urn:ngsi-ld:FloodMonitoring:by-hand");
    await press(page, "Enter");
    await expect(page.locator("dialog code.big")).toHaveText(/^[A-Z0-9-]{10,}$/);
    await expect(page.locator("dialog svg[role=img]")).toBeVisible();
    await press(page, "Escape");
    await expect(page.locator("dialog")).toHaveCount(0);
  });

  test("8 revoke a device", async ({ as }) => {
    const { page } = await as("steward", "/#/people");
    await expect(page.locator("tbody tr").first()).toBeVisible();
    await tabTo(page, "input[type=search]");
    await type(page, "gauge-by-hand");
    await tabTo(page, "[aria-label='Revoke gauge-by-hand']");
    await press(page, "Enter");
    await tabTo(page, "dialog button.main");
    await press(page, "Enter");
    await expect(page.locator("tbody .revoked")).toHaveText("Revoked");
  });

  test("9 find an act in the journal and check it", async ({ as }) => {
    const { page } = await as("auditor", "/#/journal");
    await expect(page.locator("tbody tr").first()).toBeVisible();
    await tabTo(page, "input[list=people]");
    await type(page, "steward");
    await press(page, "Enter");
    await tabTo(page, "tbody button");
    await press(page, "Enter");
    await expect(page.locator(".checks li.live")).toHaveCount(3);
  });

  test("10 find out why a colleague was refused", async ({ as }) => {
    const { page } = await as("admin", "/#/why");
    await tabTo(page, "input[list=logins]");
    await press(page, "Control+A");
    await type(page, "crisis");
    await press(page, "Tab");
    await press(page, "Tab");
    await type(page, "People");
    await expect(page.locator("h2 .refused")).toBeVisible();
    await expect(page.locator("main")).toContainText("flood-response");
    await tabTo(page, "main ul button");
    await press(page, "Enter");
    await expect(page.locator("h2 .allowed")).toBeVisible();
  });
});

/** A level of a gauge that the simulated devices do not know. */
function measured(request: APIRequestContext, gauge: string, level: number) {
  return request.post(`${city().https}/ngsi-ld/v1/entityOperations/upsert?options=update`, {
    ignoreHTTPSErrors: true,
    headers: { Authorization: `Bearer ${city().tokens.device}` },
    data: [
      {
        id: `urn:ngsi-ld:FloodMonitoring:${gauge}`,
        type: "FloodMonitoring",
        currentLevel: { value: level, observedAt: new Date().toISOString(), unitCode: "CMT" },
        dangerLevel: { value: 500, unitCode: "CMT" },
      },
    ],
  });
}

test("a value that changes is seen within a second, without reload", async ({ as, request }) => {
  const { page } = await as("crisis", "/#/city");
  await expect(page.getByText("● Live")).toBeVisible();
  expect((await measured(request, "demo-live", 77)).status()).toBeLessThan(300);
  await expect(page.getByText("77 cm")).toBeVisible();
  await measured(request, "demo-live", 501);
  const since = Date.now();
  await expect(page.getByText("501 cm")).toBeVisible();
  expect(Date.now() - since).toBeLessThan(1_500);
  await expect(page.locator("tr", { hasText: "501 cm" }).locator(".alarm").first()).toHaveText("Alarm");
});

test("a change that comes while everything is asked for is not hidden by an older answer", async ({ as, request }) => {
  const { page } = await as("crisis", "/#/datasets");
  expect((await measured(request, "demo-race", 41)).status()).toBeLessThan(300);
  let asked = 0;
  await page.route(/entities\?.*type=FloodMonitoring/, async (route) => {
    const answer = await route.fetch();
    asked += 1;
    // The answer is on its way while the level changes, and the stream is faster.
    expect((await measured(request, "demo-race", 43)).status()).toBeLessThan(300);
    await new Promise((done) => setTimeout(done, 1_500));
    await route.fulfill({ response: answer });
  });
  await page.goto("/#/city");
  await expect(page.getByText("43 cm")).toBeVisible();
  await expect(page.getByText("41 cm")).toHaveCount(0);
  expect(asked).toBe(1);
});

test("a reading that did not fit is mended and accepted", async ({ as, request }) => {
  const sent = await request.post(`${city().https}/ngsi-ld/v1/entityOperations/upsert?options=update`, {
    ignoreHTTPSErrors: true,
    headers: { Authorization: `Bearer ${city().tokens.device}` },
    data: [{ id: "urn:ngsi-ld:FloodMonitoring:demo-mend", type: "FloodMonitoring", currentLevel: { value: 99999 } }],
  });
  expect(sent.status()).toBeLessThan(300);
  const { page } = await as("steward", "/#/datasets/rivers", { purpose: "water-management" });
  const row = page.locator("tr", { hasText: "demo-mend" });
  await row.locator("button").click();
  await page.getByRole("button", { name: "Accept it as it stands here" }).click();
  await expect(page.locator("dialog [role=alert]")).toContainText("99999");
  const text = await page.locator("dialog textarea").inputValue();
  await page.locator("dialog textarea").fill(text.replace("99999", "99"));
  await page.getByRole("button", { name: "Accept it as it stands here" }).click();
  await expect(row).toHaveCount(0);
  await page.goto("/#/entity/urn%3Angsi-ld%3AFloodMonitoring%3Ademo-mend");
  await expect(page.getByText("99 cm").or(page.getByRole("cell", { name: "99", exact: true })).first()).toBeVisible();
});

test("a file of people is tried before it is taken", async ({ as }) => {
  const { page } = await as("admin", "/#/people");
  await expect(page.locator("tbody tr").first()).toBeVisible();
  const file = (text: string) => ({ name: "people.csv", mimeType: "text/csv", buffer: Buffer.from(text) });
  const head = "kind,login,name,department,roles\n";
  await page.locator("input[type=file]").setInputFiles(file(`${head}official,new.one,"One, New",water,department\nofficial,crisis,Twice,crisis,crisis\n`));
  await expect(page.locator("dialog [role=alert]")).toContainText("crisis");
  await page.keyboard.press("Escape");
  await page.locator("input[type=file]").setInputFiles([]);
  await page.locator("input[type=file]").setInputFiles(file(`${head}official,new.one,"One, New",water,department\n`));
  await expect(page.locator("dialog .note.good")).toContainText("All 1 fit");
});

test("what is downloaded is what is shown, and no formula", async ({ as }) => {
  const { page } = await as("crisis", "/#/entity/urn%3Angsi-ld%3AFloodMonitoring%3Agauge-0001");
  const waiting = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download CSV" }).click();
  const rows = readFileSync(await (await waiting).path(), "utf8").trim().split("\r\n");
  expect(rows[0]).toBe("time,currentLevel");
  expect(rows[1]).toMatch(/^\d{4}-\d\d-\d\dT.*Z,-?\d/);
});

test("first start: the link, a password, and the city", async ({ as, request }) => {
  const headers = { Authorization: `Bearer ${city().tokens.admin}` };
  const act = (name: string, body: object) =>
    request.post(`${city().https}/api/v1/acts`, { ignoreHTTPSErrors: true, headers, data: { act: name, body } });
  const asked = await (
    await act("principal.enrol", { kind: "official", login: "newcomer", name: "Newcomer", department: "water", roles: ["department"] })
  ).json();
  // Nobody else governs the hub in this city, so one is enough.
  const code: string = asked.answer.code;
  const since = Date.now();
  const { page } = await as(null, `/#signin=${code}`);
  await page.getByLabel("New password").fill(PASSWORD);
  await page.getByLabel("The same again").fill(PASSWORD);
  await page.getByRole("button", { name: "Set the password" }).click();
  await expect(page.locator("h1")).toHaveText("City now");
  expect(Date.now() - since).toBeLessThan(60_000);
  expect(page.url()).not.toContain(code);
});
