// Changes as they happen: server-sent events over a request of our own, for it carries the purpose.

import { ask, query } from "./api";
import type { Entity } from "./entity";
import { connection } from "./session.svelte";

export interface Listener {
  /** Asks for everything there is. What changes meanwhile is told when it is done, so that no answer of
   * before hides it; changes of before are in it, for it is asked once the stream is there.
   * It says itself what goes wrong. */
  load(): Promise<void>;
  changed(entities: Entity[]): void;
  gone(ids: string[]): void;
  /** Whether changes come. */
  open(open: boolean): void;
}

/** Longest silence: the hub says every ten seconds that it lives. */
const SILENCE_MS = 25_000;
/** When more changes than a stream is told of, a look at all now and then is enough. */
const LOOK_AGAIN_MS = 10_000;

/** Listens until the function it gives is called; a stream that breaks is opened again. */
export function listen(filter: Record<string, string>, listener: Listener): () => void {
  const stop = new AbortController();
  const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));
  let held: (() => void)[] | null = null;
  let waiting: ReturnType<typeof setTimeout> | undefined;
  const look = async () => {
    if (held) return later();
    held = [];
    await listener.load();
    const told: (() => void)[] = held;
    held = null;
    if (!stop.signal.aborted) told.forEach((tell) => tell());
  };
  const later = () => {
    waiting ??= setTimeout(() => {
      waiting = undefined;
      void look();
    }, LOOK_AGAIN_MS);
  };
  stop.signal.addEventListener("abort", () => clearTimeout(waiting));
  const tell = (event: string) => {
    const field = (name: string) =>
      event
        .split("\n")
        .find((line) => line.startsWith(`${name}: `))
        ?.slice(name.length + 2);
    const data = JSON.parse(field("data") || "[]");
    const kind = field("event");
    if (kind === "missed") return later();
    const told = () => {
      if (kind === "changes") listener.changed(data);
      if (kind === "gone") listener.gone(data);
    };
    if (held) held.push(told);
    else told();
  };
  const run = async () => {
    let looked = false;
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
        looked = true;
        void look();
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
          events.forEach(tell);
        }
      } catch {
        // Said elsewhere: the connection is lost, or the session has ended.
      }
      // Without a stream, things are shown as they are now.
      if (!looked && !stop.signal.aborted) void look();
      looked = true;
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
