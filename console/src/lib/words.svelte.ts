// What the console says. Each text stands in both languages side by side: one without the other does
// not compile. `one|more` is chosen by the language's plural rule for {n}.

import { WORDS } from "./dictionary";

export type Language = "en" | "id";
export type Key = keyof typeof WORDS;
export type Zone = "Asia/Jakarta" | "Asia/Makassar" | "Asia/Jayapura";

/** Indonesia's three zones, by the name people use. */
export const ZONES: Record<Zone, string> = {
  "Asia/Jakarta": "WIB",
  "Asia/Makassar": "WITA",
  "Asia/Jayapura": "WIT",
};

function kept<T extends string>(key: string, allowed: readonly T[], otherwise: T): T {
  try {
    const found = localStorage.getItem(key);
    return allowed.find((one) => one === found) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(key: string, value: string) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing is asked again next time.
  }
}

const preferred: Language = navigator.language.startsWith("id") ? "id" : "en";
const zones = Object.keys(ZONES) as Zone[];
const own = Intl.DateTimeFormat().resolvedOptions().timeZone as Zone;

/** What the reader chose, kept in this browser. */
export const reader = $state({
  language: kept<Language>("language", ["en", "id"], preferred),
  zone: kept<Zone>("zone", zones, zones.includes(own) ? own : "Asia/Jakarta"),
  theme: kept("theme", ["auto", "light", "dark"], "auto") as "auto" | "light" | "dark",
});

export function choose<K extends keyof typeof reader>(key: K, value: (typeof reader)[K]) {
  reader[key] = value;
  keep(key, value);
}

type Fill = Record<string, string | number>;

/** A text in the reader's language; `{name}` is filled in, numbers as the language writes them. */
export function t(key: Key, fill: Fill = {}): string {
  const language = reader.language;
  const text: string = WORDS[key][language === "en" ? 0 : 1];
  const forms = text.split("|");
  const plural = forms.length > 1 && new Intl.PluralRules(language).select(Number(fill.n ?? 0)) !== "one";
  const form = forms[plural ? 1 : 0] ?? text;
  return form.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = fill[name];
    return typeof value === "number" ? number(value) : (value ?? "");
  });
}

/** A word that the hub uses, such as a role; itself where it is not known. */
export function word(kind: string, value: string): string {
  const key = `${kind}.${value}`;
  return key in WORDS ? t(key as Key) : value;
}

export function number(value: number, digits = 2): string {
  return new Intl.NumberFormat(reader.language, { maximumFractionDigits: digits }).format(value);
}

export function percent(share: number): string {
  return new Intl.NumberFormat(reader.language, { style: "percent", maximumFractionDigits: 0 }).format(share);
}

export function bytes(value: number): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"] as const;
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  const unit = units[at] ?? "byte";
  const style = { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: 1 } as const;
  return new Intl.NumberFormat(reader.language, style).format(value);
}

/** A moment in the reader's zone, with the zone's name. */
export function moment(iso: string | number, seconds = true): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return String(iso);
  const options: Intl.DateTimeFormatOptions = {
    timeZone: reader.zone,
    year: "numeric",
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
  };
  if (seconds) options.second = "2-digit";
  const text = new Intl.DateTimeFormat(reader.language === "en" ? "en-GB" : "id-ID", options).format(date);
  return `${text} ${ZONES[reader.zone]}`;
}

/** How long ago, in the largest unit that fits. */
export function ago(milliseconds: number, style: "long" | "narrow" = "long"): string {
  const format = new Intl.RelativeTimeFormat(reader.language, { numeric: "always", style });
  const seconds = Math.round(milliseconds / 1000);
  const steps: [Intl.RelativeTimeFormatUnit, number][] = [
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
  ];
  for (const [unit, length] of steps) {
    if (Math.abs(seconds) >= length) return format.format(-Math.round(seconds / length), unit);
  }
  return format.format(-seconds, "second");
}
