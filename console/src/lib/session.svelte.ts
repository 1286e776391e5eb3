// Who is here, for what, and whether the hub can be reached.

import type { components } from "../generated/api";

export const session = $state({
  /** None until it is known. */
  who: null as components["schemas"]["Session"] | null,
  purpose: stored(),
  /** The sign-in ended while somebody was at work. */
  expired: false,
});

export const connection = $state({
  lost: false,
  /** Milliseconds that the hub's clock is ahead of this machine's. */
  skew: 0,
  /** Counted up whenever everything is to be asked for again. */
  epoch: 0,
});

function stored(): string {
  try {
    return sessionStorage.getItem("purpose") ?? "";
  } catch {
    return "";
  }
}

export function setPurpose(purpose: string) {
  session.purpose = purpose;
  connection.epoch += 1;
  try {
    sessionStorage.setItem("purpose", purpose);
  } catch {
    // Then it holds until the page is loaded anew.
  }
}

export function isOfficial(): boolean {
  return session.who !== null && session.who.kind !== "public";
}

export function noteExpired() {
  if (isOfficial()) session.expired = true;
}

export function noteClock(date: string | null) {
  const there = date ? Date.parse(date) : Number.NaN;
  // A header has whole seconds.
  if (!Number.isNaN(there)) connection.skew = Math.abs(there - Date.now()) < 2_000 ? 0 : there - Date.now();
}

/** The hub's clock. */
export function now(): number {
  return Date.now() + connection.skew;
}

/** Tries until the hub answers again, then has everything asked for anew. */
export function watchConnection() {
  let wait = 1_000;
  const look = async () => {
    if (!connection.lost) {
      wait = 1_000;
    } else {
      try {
        const answer = await fetch("/readyz", { cache: "no-store" });
        if (answer.ok) {
          connection.lost = false;
          connection.epoch += 1;
        }
      } catch {
        wait = Math.min(wait * 1.5, 10_000);
      }
    }
    setTimeout(look, wait);
  };
  setTimeout(look, wait);
  addEventListener("online", () => (wait = 1_000));
  addEventListener("offline", () => (connection.lost = true));
}
