import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

/** Leaflet asks at its start whether the browser can do what all can, by text that would become a
 * document; the policy for trusted types forbids that. */
const leafletProbes: Plugin = {
  name: "leaflet-probes",
  enforce: "pre",
  transform(code, id) {
    if (!/leaflet-src(\.esm)?\.js$/.test(id.split("?")[0] ?? "")) return;
    const svg = "div.appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'svg'));";
    const changed = code
      .replace("div.innerHTML = '<svg/>';", svg)
      .replace(`div.innerHTML = '<v:shape adj="1"/>';`, "return false;");
    if (changed.includes("'<svg/>'") || changed.includes("'<v:shape")) throw new Error("Leaflet's probes have changed");
    return changed;
  },
};

// The hub serves files at /console/; nothing is inlined, for no policy would let it run.
export default defineConfig({
  base: "/console/",
  plugins: [leafletProbes, svelte()],
  build: {
    target: "es2022",
    assetsDir: "",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
});
