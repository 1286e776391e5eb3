// Changes as they happen: server-sent events over a request of our own, for it carries the purpose.

import { ask, query } from "./api";
import type { Entity } from "./entity";
import { connection } from "./session.svelte";

export interface Listener {
  changed(entities: Entity[]): void;
  gone(ids: string[]): void;
  /** Something was left out, or the stream began anew: ask for everything again. */
  missed(): void;
  /** Whether changes come. */
  open(open: boolean): void;
}

/** Longest silence: the hub says every ten seconds that it lives. */
const SILENCE_MS = 25_000;

/** Listens until the function it gives is called; a stream that breaks is opened again. */
export function listen(filter: Record<string, string>, listener: Listener): () => void {
  const stop = new AbortController();
  const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));
  const run = async () => {
    let first = true;
    let wait = 500;
    while (!stop.signal.aborted) {
      const part = new AbortController();
      const end = () => part.abort();
      stop.signal.addEventListener("abort", end);
      let silence = setTimeout(end, SILENCE_MS);
      try {
        const response = await ask(`/api/v1/watch?${query(filter)}`, { signal: part.signal });
        const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
        listener.open(true);
        if (!first) listener.missed();
        first = false;
        let text = "";
        while (reader) {
          const { value, done } = await reader.read();
          if (done) break;
          wait = 500;
          clearTimeout(silence);
          silence = setTimeout(end, SILENCE_MS);
          text += value;
          const events = text.split("\n\n");
          text = events.pop() ?? "";
          for (const event of events) tell(event, listener);
        }
      } catch {
        // Said elsewhere: the connection is lost, or the session has ended.
      }
      clearTimeout(silence);
      stop.signal.removeEventListener("abort", end);
      listener.open(false);
      if (stop.signal.aborted) return;
      await sleep(connection.lost ? 1_000 : wait);
      wait = Math.min(wait * 2, 15_000);
    }
  };
  void run();
  return () => stop.abort();
}

function tell(event: string, listener: Listener) {
  const field = (name: string) =>
    event
      .split("\n")
      .find((line) => line.startsWith(`${name}: `))
      ?.slice(name.length + 2);
  const data = field("data");
  switch (field("event")) {
    case "changes":
      return listener.changed(JSON.parse(data ?? "[]"));
    case "gone":
      return listener.gone(JSON.parse(data ?? "[]"));
    case "missed":
      return listener.missed();
  }
}
