// Starts the demo city once for all tests, and gives its officials passwords and sessions.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { request } from "@playwright/test";

export const PASSWORD = "kuda meja awan tujuh belas";
export const OUTPUT = join(import.meta.dirname, "../test-output");
export const ROLES = ["admin", "crisis", "steward", "auditor"] as const;
export type Role = (typeof ROLES)[number];

export interface Ready {
  https: string;
  tokens: Record<string, string>;
  signin: string;
}

/** A program that was started, with its ready file and what it printed. */
export interface Started {
  process: ChildProcess;
  ready: Ready;
  printed: string;
}

export const PROGRAM = process.env.TANGGUL_PROGRAM ?? join(import.meta.dirname, "../../target/debug/tanggul");

/** Starts a demo city in a directory. */
export async function start(directory: string, more: string[] = []): Promise<Started> {
  const file = join(directory, "ready.json");
  rmSync(file, { force: true });
  const listen = more.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
  const args = ["demo", "--data", join(directory, "data"), "--ready-file", file, "--mqtt", "127.0.0.1:0", ...listen, ...more];
  const child = spawn(PROGRAM, args, { stdio: ["ignore", "pipe", "inherit"] });
  const started: Started = { process: child, ready: { https: "", tokens: {}, signin: "" }, printed: "" };
  child.stdout?.on("data", (data) => (started.printed += data));
  for (let tries = 0; tries < 600; tries += 1) {
    if (existsSync(file) && started.printed.includes("Stop with Ctrl-C")) {
      started.ready = JSON.parse(readFileSync(file, "utf8"));
      return started;
    }
    if (child.exitCode !== null) throw new Error(`the program ended with ${child.exitCode}`);
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error("the city did not start");
}

export function stop(of: ChildProcess): Promise<void> {
  return new Promise((done) => {
    of.once("exit", () => done());
    of.kill("SIGTERM");
  });
}

export default async function setup() {
  mkdirSync(OUTPUT, { recursive: true });
  const directory = mkdtempSync(join(tmpdir(), "tanggul-console-"));
  const city = await start(directory, ["--devices", "60"]);
  const { https } = city.ready;
  for (const role of ROLES) {
    const link = new RegExp(`as ${role}: \\S+#signin=(\\S+)`).exec(city.printed)?.[1];
    const code = link ?? city.ready.signin.split("signin=")[1];
    const browser = await request.newContext({
      baseURL: https,
      ignoreHTTPSErrors: true,
      extraHTTPHeaders: { "Tanggul-Console": "1" },
    });
    const answer = await browser.post("/api/v1/redeem", { data: { code, password: PASSWORD } });
    if (answer.status() !== 201) throw new Error(`${role}: ${await answer.text()}`);
    await browser.storageState({ path: join(OUTPUT, `${role}.json`) });
    await browser.dispose();
  }
  writeFileSync(join(OUTPUT, "city.json"), JSON.stringify(city.ready));
  return async () => {
    await stop(city.process);
    rmSync(directory, { recursive: true, force: true });
  };
}
