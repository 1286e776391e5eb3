import { defineConfig } from "@playwright/test";

// Debian's Chromium against the real program with the demo city; nothing is fetched from anywhere.
export default defineConfig({
  testDir: "tests",
  outputDir: "test-output/results",
  reporter: [["list"]],
  workers: 1,
  fullyParallel: false,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  globalSetup: "./tests/setup.ts",
  use: {
    browserName: "chromium",
    ignoreHTTPSErrors: true,
    locale: "en-GB",
    timezoneId: "Asia/Jakarta",
    viewport: { width: 1440, height: 900 },
    launchOptions: {
      executablePath: process.env.TANGGUL_CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
});
