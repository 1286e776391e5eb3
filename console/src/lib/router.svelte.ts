// Where we are: the part of the address behind `#`, which no server ever sees.

import { untrack } from "svelte";

export const PAGES = ["city", "entity", "datasets", "people", "journal", "why", "hub"] as const;
export type PageName = (typeof PAGES)[number];

function read() {
  const text = location.hash.replace(/^#\/?/, "");
  const [path = "", search = ""] = text.split("?");
  const [first = "", ...rest] = path.split("/").map(decodeURIComponent);
  const page = PAGES.find((name) => name === first) ?? "city";
  return { page, rest, search };
}

export const place = $state(read());

addEventListener("hashchange", () => Object.assign(place, read()));

/** A parameter of the page. */
export function parameter(name: string): string {
  return new URLSearchParams(place.search).get(name) ?? "";
}

/** The address of a page. */
export function link(page: PageName, rest: string[] = [], search: Record<string, string> = {}): string {
  const path = [page, ...rest.map(encodeURIComponent)].join("/");
  const given = new URLSearchParams(Object.entries(search).filter(([, value]) => value));
  return `#/${path}${given.size ? `?${given}` : ""}`;
}

/** Changes the page's parameters without a new entry in the history. */
export function setParameters(search: Record<string, string>) {
  untrack(() => {
    history.replaceState(null, "", link(place.page, place.rest, search));
    Object.assign(place, read());
  });
}
