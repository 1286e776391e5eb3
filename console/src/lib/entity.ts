// Entities as the hub writes them (NGSI-LD, normalized), and how they are.

import { now } from "./session.svelte";

export interface Attribute {
  type: string;
  value?: unknown;
  object?: unknown;
  languageMap?: Record<string, string>;
  unitCode?: string;
  observedAt?: string;
  [more: string]: unknown;
}

export interface Entity {
  id: string;
  type: string | string[];
  [name: string]: unknown;
}

/** How an entity is, the worst first. */
export const CONDITIONS = ["alarm", "quarantined", "missing", "stale", "live", "withheld", "kept"] as const;
export type Condition = (typeof CONDITIONS)[number];

const STALE_MS = 15 * 60_000;
const MISSING_MS = 24 * 3_600_000;
const FRAME = new Set(["id", "type", "scope", "@context", "createdAt", "modifiedAt", "deletedAt"]);

/** Names and values of attributes; of several values of one, the first. */
export function attributes(entity: Entity): [string, Attribute][] {
  const found: [string, Attribute][] = [];
  for (const [name, value] of Object.entries(entity)) {
    if (FRAME.has(name)) continue;
    const first = Array.isArray(value) ? value[0] : value;
    if (first && typeof first === "object") found.push([name, first as Attribute]);
  }
  return found;
}

export function attribute(entity: Entity, name: string): Attribute | undefined {
  return attributes(entity).find(([own]) => own === name)?.[1];
}

export function plain(one: Attribute | undefined): unknown {
  return one?.value ?? one?.object ?? one?.languageMap;
}

function numeric(entity: Entity, name: string): number | undefined {
  const value = plain(attribute(entity, name));
  return typeof value === "number" ? value : undefined;
}

export function title(entity: Entity): string {
  const name = plain(attribute(entity, "name"));
  return typeof name === "string" && name ? name : entity.id.replace(/^urn:ngsi-ld:[^:]+:/, "");
}

export function typeOf(entity: Entity): string {
  return Array.isArray(entity.type) ? (entity.type[0] ?? "") : entity.type;
}

export function newest(entity: Entity): number | undefined {
  let latest: number | undefined;
  for (const [, one] of attributes(entity)) {
    const at = one.observedAt ? Date.parse(one.observedAt) : Number.NaN;
    if (!Number.isNaN(at) && (latest === undefined || at > latest)) latest = at;
  }
  return latest;
}

/** What a list shows first of an entity: the numbers and words that were observed last. */
export function headline(entity: Entity): [string, Attribute][] {
  const observed = attributes(entity).filter(([, one]) => one.observedAt && typeof plain(one) !== "object");
  return observed.slice(0, 3);
}

/** The mark that an alarm is about; none when there is no alarm. */
export function alarm(entity: Entity): "danger" | "alert" | undefined {
  const level = numeric(entity, "currentLevel");
  if (level === undefined) return undefined;
  if (level >= (numeric(entity, "dangerLevel") ?? Number.POSITIVE_INFINITY)) return "danger";
  if (level >= (numeric(entity, "alertLevel") ?? Number.POSITIVE_INFINITY)) return "alert";
  return undefined;
}

/** How an entity is; `sensing` says whether its type measures, and whether that may be seen. */
export function condition(
  entity: Entity,
  apart: ReadonlySet<string>,
  sensing: "seen" | "withheld" | undefined,
): Condition {
  if (alarm(entity)) return "alarm";
  if (apart.has(entity.id)) return "quarantined";
  const at = newest(entity);
  if (at === undefined) return sensing === "seen" ? "missing" : (sensing ?? "kept");
  const age = now() - at;
  if (age > MISSING_MS) return "missing";
  return age > STALE_MS ? "stale" : "live";
}

/** A point as longitude and latitude. */
export function point(entity: Entity): [number, number] | undefined {
  const value = plain(attribute(entity, "location")) as { type?: string; coordinates?: unknown } | undefined;
  if (value?.type !== "Point" || !Array.isArray(value.coordinates)) return undefined;
  const [lon, lat] = value.coordinates as unknown[];
  return typeof lon === "number" && typeof lat === "number" ? [lon, lat] : undefined;
}

/** A place as people write it: degrees of latitude and longitude. */
export function written(value: unknown): string | undefined {
  const place = value as { type?: string; coordinates?: [number, number] } | null;
  if (typeof place !== "object" || !place?.type || !Array.isArray(place.coordinates)) return undefined;
  if (place.type !== "Point") return place.type;
  const [lon, lat] = place.coordinates;
  const degrees = (at: number, positive: string, negative: string) =>
    `${Math.abs(at).toFixed(5)}° ${at < 0 ? negative : positive}`;
  return `${degrees(lat, "N", "S")}, ${degrees(lon, "E", "W")}`;
}

export type Ring = [number, number][];

/** Outer and inner rings of polygons. */
export function polygons(entity: Entity): Ring[][] {
  const value = plain(attribute(entity, "location")) as { type?: string; coordinates?: unknown } | undefined;
  if (value?.type === "Polygon") return [value.coordinates as Ring[]];
  if (value?.type === "MultiPolygon") return value.coordinates as Ring[][];
  return [];
}

/** Whether a point lies within polygons (even-odd rule). */
export function within([x, y]: [number, number], areas: Ring[][]): boolean {
  const inRing = (ring: Ring) => {
    let inside = false;
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
      const [xi, yi] = ring[i] ?? [0, 0];
      const [xj, yj] = ring[j] ?? [0, 0];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
    return inside;
  };
  return areas.some((rings) => rings.filter(inRing).length % 2 === 1);
}

/** Units by UN/CEFACT common code, as people write them. */
const UNITS: Record<string, string> = {
  CMT: "cm",
  MTR: "m",
  CEL: "°C",
  MMT: "mm",
  MTS: "m/s",
  KMH: "km/h",
  KWH: "kWh",
  GQ: "µg/m³",
  MQH: "m³/h",
  G51: "L/min",
  P1: "%",
  C62: "",
};

export function unit(code: string | null | undefined): string {
  return code ? (UNITS[code] ?? code) : "";
}
