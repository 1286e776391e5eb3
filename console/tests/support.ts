// What tests share: the city, and pages of officials who are signed in.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test as base, expect, type Page } from "@playwright/test";
import { OUTPUT, type Ready, type Role } from "./setup";

export { expect };

export function city(): Ready {
  return JSON.parse(readFileSync(join(OUTPUT, "city.json"), "utf8"));
}

export interface Seen {
  language?: "en" | "id";
  theme?: "light" | "dark";
  width?: number;
  purpose?: string;
}

export interface Opened {
  page: Page;
  /** What the browser complained about. */
  complaints: string[];
  /** Hosts that were asked for anything. */
  hosts: Set<string>;
}

type As = (role: Role | null, path: string, seen?: Seen) => Promise<Opened>;

export const test = base.extend<{ as: As }>({
  as: async ({ browser }, use) => {
    const contexts: { close(): Promise<void> }[] = [];
    await use(async (role, path, seen = {}) => {
      const { language = "en", theme = "light", width = 1440, purpose = "" } = seen;
      const context = await browser.newContext({
        ignoreHTTPSErrors: true,
        baseURL: city().https,
        viewport: { width, height: width < 500 ? 720 : 900 },
        colorScheme: theme,
        locale: language === "en" ? "en-GB" : "id-ID",
        timezoneId: "Asia/Jakarta",
        reducedMotion: "reduce",
        ...(role ? { storageState: join(OUTPUT, `${role}.json`) } : {}),
      });
      contexts.push(context);
      await context.addInitScript(
        ([language, theme, purpose]) => {
          localStorage.setItem("language", language ?? "en");
          localStorage.setItem("theme", theme ?? "light");
          if (purpose && !sessionStorage.getItem("purpose")) sessionStorage.setItem("purpose", purpose);
        },
        [language, theme, purpose],
      );
      const page = await context.newPage();
      const complaints: string[] = [];
      const hosts = new Set<string>();
      page.on("console", (message) => {
        const expected = /Failed to load resource: the server responded with a status of (400|401|403|404)/;
        if (message.type() === "error" && !expected.test(message.text())) complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("request", (request) => hosts.add(new URL(request.url()).host));
      await page.goto(path);
      return { page, complaints, hosts };
    });
    for (const context of contexts) await context.close();
  },
});
