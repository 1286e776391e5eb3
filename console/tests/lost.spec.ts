// What goes wrong on the way: each is said plainly, what was typed is kept, and it recovers by itself.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { request } from "@playwright/test";
import { PASSWORD, type Started, start, stop } from "./setup";
import { city, expect, test } from "./support";

test("a sign-in that ends asks again, and the form behind stays", async ({ as }) => {
  const { page } = await as(null, "/");
  await page.getByLabel("Login").fill("steward");
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("link", { name: "Datasets", exact: true }).click();
  await page.locator("a[href='#/datasets/rivers']").click();
  await page.getByRole("button", { name: "Change this dataset" }).click();
  await page.getByLabel("Legal basis").fill("typed before the session ended");
  const token = (await page.context().cookies()).find((one) => one.name === "__Host-tanggul")?.value ?? "";
  await page.request.delete("/api/v1/session", { headers: { Authorization: `Bearer ${token}` } });
  await page.getByRole("button", { name: "Show who gains" }).click();
  await expect(page.getByRole("heading", { name: "Your sign-in has ended" })).toBeVisible();
  await page.locator("dialog").getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.locator("dialog").getByRole("button", { name: "Sign in" }).click();
  await expect(page.locator("dialog")).toHaveCount(0);
  await expect(page.getByLabel("Legal basis")).toHaveValue("typed before the session ended");
  await page.getByRole("button", { name: "Show who gains" }).click();
  await expect(page.locator("form.panel [role=status]")).toBeVisible();
});

test("of two pages asked for, the later one is shown, however late the earlier one comes", async ({ as }) => {
  const { page } = await as(null, "/");
  let free = () => {};
  const held = new Promise<void>((done) => (free = done));
  await page.route(/\/City-[^/]*\.js/, async (route) => {
    await held;
    await route.continue();
  });
  await page.getByLabel("Login").fill("steward");
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("link", { name: "Datasets", exact: true }).click();
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("Datasets");
  const arrived = page.waitForResponse(/\/City-[^/]*\.js/);
  free();
  await (await arrived).finished();
  await page.waitForTimeout(200);
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("Datasets");
});

test("a hub that is busy signs nobody out", async ({ as }) => {
  const { page } = await as("steward", "/#/datasets");
  await expect(page.getByRole("heading", { level: 1 })).toBeVisible();
  const asked: string[] = [];
  page.on("request", (request) => asked.push(`${request.method()} ${new URL(request.url()).pathname}`));
  const busy = { status: 503, contentType: "application/problem+json", body: '{"title":"Busy","status":503,"detail":"Try again."}' };
  await page.route("**/api/v1/session", (route) => route.fulfill(busy));
  await page.reload();
  await expect(page.getByRole("alert")).toBeVisible();
  expect(asked).not.toContain("DELETE /api/v1/session");
  await page.unroute("**/api/v1/session");
  await page.getByRole("alert").getByRole("button").click();
  await expect(page.locator("tbody tr").first()).toBeVisible();
});

test("a right that is taken away is said, with why", async ({ as }) => {
  const { page } = await as("crisis", "/#/entity/urn%3Angsi-ld%3AEvacuationAssistance%3A001", { purpose: "flood-response" });
  await expect(page.locator("tbody tr").first()).toBeVisible();
  await page.locator("button.purpose").click();
  await page.locator("dialog select").selectOption("");
  await page.locator("dialog button.main").click();
  await expect(page.getByRole("alert")).toContainText("Not found");
  const { page: other } = await as("crisis", "/#/entity/urn%3Angsi-ld%3ASmartMeteringObservation%3Ameter-0001", { language: "id" });
  await expect(other.getByRole("alert")).toContainText("Tidak diizinkan");
});

test("a clock that is wrong is said", async ({ as }) => {
  const { page } = await as("crisis", "/#/datasets");
  await expect(page.locator("tbody tr").first()).toBeVisible();
  await page.clock.install({ time: Date.now() + 3 * 3_600_000 });
  await page.goto("/?again#/city");
  await expect(page.getByText("This machine's clock is wrong")).toBeVisible();
});

test.describe("a hub that goes away", () => {
  let own: Started;
  let directory: string;
  test.beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "tanggul-lost-"));
    own = await start(directory, ["--devices", "10"]);
  });
  test.afterAll(async () => {
    await stop(own.process);
    rmSync(directory, { recursive: true, force: true });
  });

  test("is said, work is kept, and it goes on when the hub is there again", async ({ browser }) => {
    const { https } = own.ready;
    const address = new URL(https);
    const api = await request.newContext({ baseURL: https, ignoreHTTPSErrors: true });
    const code = /as steward: \S+#signin=(\S+)/.exec(own.printed)?.[1];
    await api.post("/api/v1/redeem", { data: { code, password: PASSWORD } });
    const context = await browser.newContext({ ignoreHTTPSErrors: true, baseURL: https });
    const page = await context.newPage();
    await page.goto("/");
    await page.getByLabel("Login").fill("steward");
    await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page.locator("h1")).toHaveText("City now");
    await page.goto("/#/datasets/rivers");
    await page.getByRole("button", { name: "Change this dataset" }).click();
    await page.getByLabel("Legal basis").fill("typed before the hub went away");
    await stop(own.process);
    await page.getByRole("button", { name: "Show who gains" }).click();
    await expect(page.getByText("The hub cannot be reached.").first()).toBeVisible();
    own = await start(directory, ["--devices", "10", "--listen", `127.0.0.1:${address.port}`]);
    // Sign-ins end with the hub: it asks again by itself.
    await expect(page.getByRole("heading", { name: "Your sign-in has ended" })).toBeVisible({ timeout: 30_000 });
    await page.locator("dialog").getByLabel("Password", { exact: true }).fill(PASSWORD);
    await page.locator("dialog").getByRole("button", { name: "Sign in" }).click();
    await expect(page.locator("dialog")).toHaveCount(0);
    await expect(page.getByText("The hub cannot be reached.")).toHaveCount(0);
    await expect(page.getByLabel("Legal basis")).toHaveValue("typed before the hub went away");
    await context.close();
    await api.dispose();
  });
});

test("a language or zone that is chosen holds at once", async ({ as }) => {
  const { page } = await as("crisis", "/#/entity/urn%3Angsi-ld%3AFloodMonitoring%3Agauge-0001");
  await expect(page.locator("tbody").first()).toContainText("WIB");
  await page.getByRole("button", { name: "crisis" }).click();
  await page.getByLabel("Time zone").selectOption("Asia/Jayapura");
  await page.getByLabel("Language").selectOption("id");
  await expect(page.getByRole("heading", { name: "Pengaturan" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.locator("tbody").first()).toContainText("WIT");
  await expect(page.getByRole("link", { name: "Himpunan data" }).first()).toBeVisible();
  expect(city().https).toContain("localhost");
});
