// Live tail: lines as they are written, drawn a few times a second, however many they are.

import type { Entry } from './api';

/** Entries that are kept; older ones are found by a search. */
export const KEPT = 5000;
const DRAW_EVERY_MS = 200;
const RATE_SECONDS = 5;

export class Tail {
  connected = $state(false);
  paused = $state(false);
  /** Lines that came while it was paused. */
  waiting = $state.raw<Entry[]>([]);
  /** Lines that were left out, by the server because it was too slow to send them, or here. */
  dropped = $state(0);
  /** Lines in a second. */
  rate = $state(0);
  failed = $state('');

  #onfresh: (fresh: Entry[]) => void;

  constructor(onfresh: (fresh: Entry[]) => void) {
    this.#onfresh = onfresh;
  }

  /** Follows a query; answers how to end it. */
  follow(q: string): () => void {
    this.dropped = 0;
    this.failed = '';
    this.waiting = [];
    const source = new EventSource(`/api/logs/tail?${new URLSearchParams({ q })}`);
    let batch: Entry[] = [];
    let counts: number[] = [];
    source.addEventListener('open', () => (this.connected = true));
    source.addEventListener('error', () => (this.connected = false));
    source.addEventListener('dropped', (event) => (this.dropped += Number((event as MessageEvent).data)));
    source.addEventListener('failed', (event) => (this.failed = JSON.parse((event as MessageEvent).data) as string));
    source.addEventListener('entry', (event) => batch.push(JSON.parse((event as MessageEvent).data) as Entry));
    const timer = setInterval(() => {
      counts = [...counts, batch.length].slice((-RATE_SECONDS * 1000) / DRAW_EVERY_MS);
      this.rate = Math.round((counts.reduce((a, b) => a + b, 0) * 1000) / (counts.length * DRAW_EVERY_MS));
      if (batch.length === 0) return;
      const all = [...batch.reverse(), ...this.waiting];
      batch = [];
      this.waiting = all.slice(0, KEPT);
      this.dropped += all.length - this.waiting.length;
      if (!this.paused) this.show();
    }, DRAW_EVERY_MS);
    return () => {
      clearInterval(timer);
      source.close();
      this.connected = false;
    };
  }

  /** Hands out what waits. */
  show() {
    if (this.waiting.length === 0) return;
    const fresh = this.waiting;
    this.waiting = [];
    this.#onfresh(fresh);
  }

  pause() {
    this.paused = !this.paused;
    if (!this.paused) this.show();
  }
}
