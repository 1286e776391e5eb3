// The operator's own map: a PMTiles file of vector tiles, drawn under the marks.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { request } from "@playwright/test";
import { PASSWORD, type Started, start, stop } from "./setup";
import { expect, test } from "./support";

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}
const field = (number: number, bytes: number[]) => [...varint(number * 8 + 2), ...varint(bytes.length), ...bytes];
const zigzag = (value: number) => varint(value < 0 ? -2 * value - 1 : 2 * value);

/** A vector tile (Mapbox Vector Tile 2.1) that is all of one layer. */
function tile(layer: string): number[] {
  const corners = [...varint(9), ...zigzag(0), ...zigzag(0), ...varint(26)];
  const lines = [4096, 0, 0, 4096, -4096, 0].flatMap(zigzag);
  const geometry = [...corners, ...lines, ...varint(15)];
  const feature = [...varint(3 * 8), 3, ...field(4, geometry)];
  const body = [...field(1, [...Buffer.from(layer)]), ...field(2, feature), ...varint(5 * 8), ...varint(4096), ...varint(15 * 8), 2];
  return field(3, body);
}

/** An archive (PMTiles 3) whose four tiles at zoom 1 are this one, nothing compressed. */
function archive(tile: number[]): Buffer {
  const directory = [1, 1, 4, ...varint(tile.length), 1];
  const metadata = [...Buffer.from("{}")];
  const head = Buffer.alloc(127);
  head.write("PMTiles");
  head[7] = 3;
  const at = (place: number, value: number) => head.writeBigUInt64LE(BigInt(value), place);
  at(8, 127);
  at(16, directory.length);
  at(24, 127 + directory.length);
  at(32, metadata.length);
  at(40, 127 + directory.length + metadata.length);
  at(56, 127 + directory.length + metadata.length);
  at(64, tile.length);
  for (const place of [72, 80, 88]) at(place, 1);
  head[96] = 1;
  head[97] = 1;
  head[98] = 1;
  head[99] = 1;
  head[100] = 1;
  head[101] = 1;
  head.writeInt32LE(-1_800_000_000, 102);
  head.writeInt32LE(-850_000_000, 106);
  head.writeInt32LE(1_800_000_000, 110);
  head.writeInt32LE(850_000_000, 114);
  return Buffer.concat([head, Buffer.from(directory), Buffer.from(metadata), Buffer.from(tile)]);
}

let own: Started;
let directory: string;
test.beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "tanggul-map-"));
  writeFileSync(join(directory, "city.pmtiles"), archive(tile("water")));
  writeFileSync(join(directory, "hub.toml"), `[console]\nmap = "${join(directory, "city.pmtiles")}"\n`);
  own = await start(directory, ["--devices", "10", "--config", join(directory, "hub.toml")]);
});
test.afterAll(async () => {
  await stop(own.process);
  rmSync(directory, { recursive: true, force: true });
});

test("is drawn, and only it is asked for", async ({ browser }) => {
  const { https } = own.ready;
  const context = await browser.newContext({ ignoreHTTPSErrors: true, baseURL: https });
  const code = /as crisis: \S+#signin=(\S+)/.exec(own.printed)?.[1];
  await context.request.post("/api/v1/redeem", { data: { code, password: PASSWORD }, headers: { "Tanggul-Console": "1" } });
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  const hosts = new Set<string>();
  page.on("request", (asked) => hosts.add(new URL(asked.url()).host));
  await page.goto("/#/city");
  const tiles = page.locator("canvas.leaflet-tile");
  await expect(tiles.first()).toBeAttached();
  // Water, as the light map paints it, under the city's districts.
  await expect
    .poll(() =>
      tiles.first().evaluate((canvas: HTMLCanvasElement) => {
        const data = canvas.getContext("2d")?.getImageData(10, 10, 1, 1).data;
        return data ? [...data.slice(0, 3)] : [];
      }),
    )
    .toEqual([128, 222, 234]);
  expect([...hosts]).toEqual([new URL(https).host]);
  expect(complaints.filter((text) => !/40[13]/.test(text))).toEqual([]);
  const api = await request.newContext({ baseURL: https, ignoreHTTPSErrors: true });
  const part = await api.get("/map.pmtiles", { headers: { Range: "bytes=0-6" } });
  expect([part.status(), await part.text()]).toEqual([206, "PMTiles"]);
  expect((await api.get("/map.pmtiles", { headers: { Range: "bytes=999999999-" } })).status()).toBe(416);
  await api.dispose();
  await context.close();
});
