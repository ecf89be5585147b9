// A search that is under way: the newest slice of time is there first, and the rest fills in.

import { ask, isAbort, words, type Bars, type Entry, type LogPage } from './api';
import { pieces, type Question, type SearchEnd } from './logs';

const PAGE = 200;

export class LogSearch {
  entries = $state.raw<Entry[]>([]);
  bars = $state.raw<Bars | undefined>();
  /** Matches that are counted so far. */
  total = $state(0);
  /** The part of the time that was searched, from 0 to 1. */
  progress = $state(0);
  /** Back to this moment everything was searched, in nanoseconds. */
  reached = $state<string | undefined>();
  end = $state.raw<SearchEnd | undefined>();
  error = $state('');
  warnings = $state.raw<string[]>([]);
  busy = $state(false);
  cancelled = $state(false);
  took = $state(0);
  /** The question with its moments, once it was answered. */
  settled = $state.raw<Question | undefined>();

  #stop = new AbortController();
  #cursor: string | null = null;
  #loading = false;
  #question: Question | undefined;

  /** Begins anew. What is shown stays until the first piece comes. */
  run(question: Question, span: [number, number]) {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#question = question;
    this.#cursor = null;
    this.busy = true;
    this.cancelled = false;
    this.error = '';
    this.progress = 0;
    this.reached = undefined;
    void this.#search(question, span, this.#stop.signal);
  }

  async #search(question: Question, span: [number, number], signal: AbortSignal) {
    const began = performance.now();
    const counted = this.count(question, signal);
    try {
      let isFirst = true;
      for await (const piece of pieces(question, PAGE, signal)) {
        if (signal.aborted) return;
        this.total = piece.total;
        if (piece.type === 'end') {
          this.end = piece;
          this.warnings = piece.warnings;
          this.#cursor = piece.cursor;
          this.settled = { q: question.q, start: piece.start_ns, end: piece.end_ns };
          break;
        }
        if (isFirst) this.end = undefined;
        this.entries = isFirst ? piece.entries : [...this.entries, ...piece.entries];
        isFirst = false;
        this.reached = piece.start_ns;
        const done = span[1] - Number(BigInt(piece.start_ns) / 1_000_000n);
        this.progress = Math.min(1, Math.max(0, done / Math.max(1, span[1] - span[0])));
      }
      await counted;
    } catch (reason) {
      if (!isAbort(reason) && !signal.aborted) this.error = words(reason);
    } finally {
      if (!signal.aborted) {
        this.busy = false;
        this.took = Math.round(performance.now() - began);
      }
    }
  }

  /** The histogram, of all matches. */
  async count(question: Question, signal?: AbortSignal) {
    try {
      this.bars = await ask<Bars>('/api/logs/histogram', { ...question, bars: '90' }, signal);
    } catch (reason) {
      if (!isAbort(reason)) this.error = words(reason);
    }
  }

  /** Ends the search; what was found stays. */
  cancel() {
    if (!this.busy) return;
    this.#stop.abort();
    this.busy = false;
    this.cancelled = true;
  }

  /** Frees the server of it when the page goes. */
  close() {
    this.#stop.abort();
  }

  /** The entries behind the last one. */
  async more() {
    if (!this.#cursor || this.#loading || this.busy || !this.settled) return;
    this.#loading = true;
    const asked = this.#question;
    try {
      const params = { ...this.settled, limit: String(PAGE), cursor: this.#cursor, total: 'false' };
      const page = await ask<LogPage>('/api/logs/search', params, this.#stop.signal);
      if (asked !== this.#question) return;
      this.entries = [...this.entries, ...page.entries];
      this.#cursor = page.cursor;
    } catch (reason) {
      if (!isAbort(reason)) this.error = words(reason);
    } finally {
      this.#loading = false;
    }
  }
}
