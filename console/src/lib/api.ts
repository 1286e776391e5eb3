// The hub's API: one way to ask, with the session, the purpose and the reader's language.

import type { components } from "../generated/api";
import { connection, noteClock, noteExpired, session } from "./session.svelte";
import { reader } from "./words.svelte";

type Schemas = components["schemas"];
export type Session = Schemas["Session"];
export type Purpose = Schemas["Purpose"];
export type DatasetSummary = Schemas["DatasetSummary"];
export type Dataset = Schemas["Dataset"];
export type AttributeModel = Schemas["AttributeModel"];
export type Sensitivity = Schemas["Sensitivity"];
export type Health = Schemas["Health"];
export type Version = Schemas["Version"];
export type Quarantined = Schemas["Quarantined"];
export type Possible = Schemas["Possible"];
export type Principal = Schemas["Principal"];
export type JournalRecord = Schemas["Record"];
export type Answered = Schemas["Answered"];
export type Pending = Schemas["Pending"];
export type ActReport = Schemas["ActReport"];
export type Rehearsal = Schemas["Rehearsal"];
export type ChartData = Schemas["Chart"];
export type HubState = Schemas["State"];

/** Why the hub did not do something (RFC 9457). */
export type ProblemBody = Schemas["Problem"] & {
  why?: {
    action: string;
    dataset: string;
    purpose: string | null;
    purposes_that_would_do: string[];
    grantor: string;
  };
};

/** A problem as an error. */
export class Problem extends Error {
  constructor(
    readonly body: ProblemBody,
    readonly retryAfter: number | null = null,
  ) {
    super(body.detail);
  }
}

/** The hub does not answer. */
export class Unreachable extends Error {}

export interface Asked {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** A 401 is the answer, and does not end the session. */
  quiet?: boolean;
}

/** Asks, and gives the answer as it comes; problems are thrown. */
export async function ask(path: string, asked: Asked = {}): Promise<Response> {
  const headers: Record<string, string> = {
    "Tanggul-Console": "1",
    "Accept-Language": reader.language,
    ...asked.headers,
  };
  if (session.purpose && !("Tanggul-Purpose" in headers)) headers["Tanggul-Purpose"] = session.purpose;
  const init: RequestInit = { method: asked.method ?? "GET", headers, signal: asked.signal ?? null };
  if (asked.body !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(asked.body);
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (asked.signal?.aborted) throw error;
    connection.lost = true;
    throw new Unreachable();
  }
  connection.lost = false;
  noteClock(response.headers.get("date"));
  if (response.ok) return response;
  if (response.status === 401 && !asked.quiet) noteExpired();
  let body: ProblemBody;
  try {
    body = await response.json();
  } catch {
    body = { type: "about:blank", title: response.statusText, status: response.status, detail: "" };
  }
  throw new Problem(body, Number(response.headers.get("retry-after")) || null);
}

/** Asks for JSON. */
export async function get<T>(path: string, asked: Asked = {}): Promise<T> {
  return (await ask(path, asked)).json();
}

export async function post<T>(path: string, body: unknown, asked: Asked = {}): Promise<T> {
  return (await ask(path, { ...asked, method: "POST", body })).json();
}

export function act(name: string, body: unknown): Promise<ActReport> {
  return post("/api/v1/acts", { act: name, body });
}

/** Says what an act would do, and does nothing. */
export function rehearse(name: string, body: unknown): Promise<Rehearsal> {
  return post("/api/v1/acts?dryRun=true", { act: name, body });
}

/** A query string of what is given. */
export function query(parts: Record<string, string | number | undefined | null>): string {
  const given = Object.entries(parts).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.map(([key, value]) => `${key}=${encodeURIComponent(String(value))}`).join("&");
}

/** Hands a text to the reader as a file. */
export function download(name: string, text: string, kind = "text/plain") {
  const url = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** One field of CSV (RFC 4180); what a spreadsheet would take for a formula stays text. */
export function csvField(value: unknown): string {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^[=+@\t\r]/.test(text) || /^-[^\d.]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(rows: unknown[][]): string {
  return rows.map((row) => row.map(csvField).join(",")).join("\r\n") + "\r\n";
}
