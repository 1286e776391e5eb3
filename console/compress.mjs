// Writes each file of the console once more, compressed as browsers take it.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { brotliCompressSync, constants } from "node:zlib";

for (const name of readdirSync("dist")) {
  if (name.endsWith(".br")) continue;
  const bytes = readFileSync(`dist/${name}`);
  const small = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
  writeFileSync(`dist/${name}.br`, small);
}
