// Checking a record and its receipt here, in the browser: nothing is asked of the hub but what is
// checked. C2SP `tlog-proof` and signed notes; RFC 9162 clause 2.1.3.2; RFC 8032 by WebCrypto.

export interface Receipt {
  commitment: Uint8Array<ArrayBuffer>;
  index: number;
  proof: Uint8Array<ArrayBuffer>[];
  /** The signed text, and the lines under it. */
  signed: string;
  signatures: string[];
  origin: string;
  size: number;
  root: Uint8Array<ArrayBuffer>;
}

/** What was checked, and how it ended. */
export interface Check {
  step: "record" | "proof" | "signature";
  /** None: it could not be checked here. */
  holds: boolean | null;
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function fromHex(text: string): Uint8Array<ArrayBuffer> {
  const pairs = text.match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => Number.parseInt(pair, 16));
}

/** Reads a receipt; throws when it has another form. */
export function parse(text: string): Receipt {
  const cut = text.indexOf("\n\n");
  const [header, extra = "", index = "", ...proof] = text.slice(0, cut).split("\n");
  const note = text.slice(cut + 2);
  const end = note.lastIndexOf("\n\n");
  if (cut < 0 || end < 0 || header !== "c2sp.org/tlog-proof@v1") throw new Error("form");
  const signed = note.slice(0, end + 1);
  const [origin = "", size = "", root = ""] = signed.split("\n");
  if (!/^extra \S+$/.test(extra) || !/^index \d+$/.test(index) || !/^\d+$/.test(size)) throw new Error("form");
  return {
    commitment: fromBase64(extra.slice(6)),
    index: Number(index.slice(6)),
    proof: proof.map(fromBase64),
    signed,
    signatures: note
      .slice(end + 2)
      .split("\n")
      .filter(Boolean),
    origin,
    size: Number(size),
    root: fromBase64(root),
  };
}

async function sha256(...parts: Uint8Array<ArrayBuffer>[]): Promise<Uint8Array<ArrayBuffer>> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** Whether the proof leads from the leaf at `index` to the root of a tree of `size` leaves. */
export async function included(receipt: Receipt): Promise<boolean> {
  if (receipt.index >= receipt.size) return false;
  let first = receipt.index;
  let last = receipt.size - 1;
  let hash = await sha256(LEAF, receipt.commitment);
  // No `>>`: a log may have more than 2^31 records.
  const half = (value: number) => Math.floor(value / 2);
  for (const sibling of receipt.proof) {
    if (last === 0) return false;
    if (first % 2 === 1 || first === last) {
      hash = await sha256(NODE, sibling, hash);
      while (first % 2 === 0 && first !== 0) {
        first = half(first);
        last = half(last);
      }
    } else {
      hash = await sha256(NODE, hash, sibling);
    }
    first = half(first);
    last = half(last);
  }
  return last === 0 && same(hash, receipt.root);
}

/** Whether the log's key signed the checkpoint; none where the browser knows no Ed25519. */
export async function signed(receipt: Receipt, vkey: string): Promise<boolean | null> {
  const [name = "", id = "", encoded = ""] = splitKey(vkey.trim());
  const key = fromBase64(encoded);
  if (name !== receipt.origin || key[0] !== 1 || key.length !== 33) return false;
  let imported: CryptoKey;
  try {
    imported = await crypto.subtle.importKey("raw", key.slice(1), "Ed25519", false, ["verify"]);
  } catch {
    return null;
  }
  for (const line of receipt.signatures) {
    const match = /^\u2014 (\S+) (\S+)$/.exec(line);
    if (!match || match[1] !== name) continue;
    const blob = fromBase64(match[2] ?? "");
    if (!same(blob.slice(0, 4), fromHex(id))) continue;
    const text = new TextEncoder().encode(receipt.signed);
    return crypto.subtle.verify("Ed25519", imported, blob.slice(4), text);
  }
  return false;
}

/** `name+id+key`; a key in Base64 may hold `+` itself. */
function splitKey(vkey: string): string[] {
  const first = vkey.indexOf("+");
  const second = vkey.indexOf("+", first + 1);
  return [vkey.slice(0, first), vkey.slice(first + 1, second), vkey.slice(second + 1)];
}

/** Checks all there is to check: the record against its commitment, the proof, the signature. */
export async function check(
  text: string,
  vkey: string,
  record?: { salt: string; text: string },
): Promise<{ receipt: Receipt; checks: Check[] }> {
  const receipt = parse(text);
  const checks: Check[] = [];
  if (record) {
    const commitment = await sha256(fromHex(record.salt), new TextEncoder().encode(record.text));
    checks.push({ step: "record", holds: same(commitment, receipt.commitment) });
  }
  checks.push({ step: "proof", holds: await included(receipt) });
  checks.push({ step: "signature", holds: await signed(receipt, vkey) });
  return { receipt, checks };
}
