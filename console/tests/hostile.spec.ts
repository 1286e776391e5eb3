// Whoever means harm: through names and values, from other sites, by framing.

import { createServer } from "node:http";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { city, expect, test } from "./support";

const EVIL = `<img src=x onerror="window.evil=1"><script>window.evil=1</script>{{constructor.constructor('window.evil=1')()}}"'>`;

test("names, values and labels are text, whatever they hold", async ({ as, request }) => {
  const sent = await request.post(`${city().https}/ngsi-ld/v1/entityOperations/upsert`, {
    ignoreHTTPSErrors: true,
    headers: { Authorization: `Bearer ${city().tokens.device}` },
    data: [
      {
        id: "urn:ngsi-ld:FloodMonitoring:demo-evil",
        type: "FloodMonitoring",
        name: { value: EVIL },
        currentLevel: { value: 1, observedAt: new Date().toISOString(), unitCode: "CMT" },
        location: { type: "GeoProperty", value: { type: "Point", coordinates: [107.6, -6.9] } },
      },
    ],
  });
  expect(sent.status()).toBeLessThan(300);
  for (const path of ["/#/city", "/#/entity/urn%3Angsi-ld%3AFloodMonitoring%3Ademo-evil", `/#/entity/${encodeURIComponent(EVIL)}`, `/#/why?login=${encodeURIComponent(EVIL)}&dataset=rivers`]) {
    const { page, complaints } = await as("crisis", path);
    await page.waitForTimeout(1_500);
    expect(await page.evaluate(() => (window as unknown as { evil?: number }).evil)).toBeUndefined();
    expect(await page.locator("img").count()).toBe(0);
    expect(complaints).toEqual([]);
  }
  const { page } = await as("crisis", "/#/city");
  await expect(page.getByText("onerror").first()).toBeVisible();
  const answer = await request.get(`${city().https}/public/?lang=${encodeURIComponent(EVIL)}`, { ignoreHTTPSErrors: true });
  expect(await answer.text()).not.toContain("<img");
});

test("the policy lets no script in but the console's own, and none from text", async ({ as }) => {
  const { page } = await as("crisis", "/#/datasets");
  const answer = await page.request.get(`${city().https}/`);
  const policy = answer.headers()["content-security-policy"] ?? "";
  expect(policy).toContain("script-src 'self'");
  expect(policy).toContain("require-trusted-types-for 'script'");
  expect(policy).not.toContain("unsafe");
  const blocked = await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.text = "window.evil = 1";
    } catch {
      return "refused";
    }
    document.head.append(script);
    return (window as unknown as { evil?: number }).evil === undefined ? "refused" : "run";
  });
  expect(blocked).toBe("refused");
  // The session lies where no script reaches it.
  expect(await page.evaluate(() => document.cookie)).toBe("");
  expect(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }))).not.toContain("tgs_");
});

test("another site can neither act in an official's name nor frame the console", async ({ as }) => {
  const { page } = await as("admin", "/#/people");
  await expect(page.locator("tbody tr").first()).toBeVisible();
  const { https } = city();
  const server = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end(`<form method="post" enctype="text/plain" action="${https}/api/v1/acts"><input name='{"act":"principal.revoke","body":{"login":"steward"},"x":"' value='"}'></form><iframe src="${https}/"></iframe>`);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  await page.goto(`http://localhost:${port}/`);
  const outcome = await page.evaluate(async (hub) => {
    const body = JSON.stringify({ act: "principal.revoke", body: { login: "steward" } });
    const tries: RequestInit[] = [
      { method: "POST", body, credentials: "include", mode: "no-cors", headers: { "Content-Type": "text/plain" } },
      { method: "POST", body, credentials: "include", headers: { "Tanggul-Console": "1", "Content-Type": "application/json" } },
    ];
    const ended = [];
    for (const one of tries) ended.push(await fetch(`${hub}/api/v1/acts`, one).then((answer) => answer.type, () => "refused"));
    return ended;
  }, https);
  // Sent without what makes a session of a cookie, or not sent at all; no answer is handed over.
  expect(outcome).toEqual(["refused", "refused"]);
  expect(page.frames().slice(1).map((frame) => new URL(frame.url()).protocol)).toEqual(["chrome-error:"]);
  await Promise.all([page.waitForNavigation(), page.evaluate(() => document.forms[0]?.submit())]);
  server.close();
  const who = await page.request.get(`${https}/api/v1/principals`, { headers: { Authorization: `Bearer ${city().tokens.admin}` } });
  const all: { login: string; status: string }[] = await who.json();
  expect(all.find((one) => one.login === "steward")?.status).toBe("active");
});

test("the console is as small as it says", async ({ as }) => {
  const dist = join(import.meta.dirname, "../dist");
  const files = readdirSync(dist).filter((name) => !name.endsWith(".br"));
  const whole = readdirSync(dist).reduce((sum, name) => sum + readFileSync(join(dist, name)).length, 0);
  expect(whole).toBeLessThan(1_500_000);
  const small = new Map(files.map((name) => [name, brotliCompressSync(readFileSync(join(dist, name))).length]));
  const loaded = async (role: "crisis" | null, path: string) => {
    const asked = new Set<string>();
    const { page } = await as(role, "about:blank");
    page.on("request", (request) => asked.add(new URL(request.url()).pathname.split("/").pop() || "index.html"));
    await page.goto(path);
    await page.waitForTimeout(2_000);
    return [...asked].reduce((sum, name) => sum + (small.get(name) ?? 0), 0);
  };
  const first = await loaded(null, "/");
  const map = await loaded("crisis", "/#/city");
  console.log(`first page ${first} bytes, map page ${map - first} more, whole console ${whole}`);
  expect(first).toBeGreaterThan(5_000);
  expect(first).toBeLessThan(80_000);
  expect(map - first).toBeLessThan(480_000);
});

test("pages for citizens are small, and need neither script nor sign-in", async ({ browser }) => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: false, baseURL: city().https, locale: "id-ID" });
  const page = await context.newPage();
  for (const path of ["/public/", "/public/datasets/rivers", "/public/log", "/public/receipt"]) {
    const answer = await page.goto(path);
    expect((await answer?.body())?.length).toBeLessThan(50_000);
    await expect(page.locator("html")).toHaveAttribute("lang", "id");
  }
  const { https } = city();
  const records = await page.request.get(`${https}/api/v1/records?limit=1&before=20`, { headers: { Authorization: `Bearer ${city().tokens.auditor}` } });
  const [{ index }] = await records.json();
  const receipt = await (await page.request.get(`${https}/api/v1/receipts/${index}`)).text();
  await page.goto("/public/receipt?lang=en");
  await page.locator("textarea").fill(receipt);
  await page.locator("button").click();
  await expect(page.locator(".good")).toContainText("It holds");
  await page.locator("textarea").fill(receipt.replace(/^index \d+$/m, "index 3"));
  await page.locator("button").click();
  await expect(page.locator(".bad")).toContainText("It does not hold");
  await context.close();
});
