// The log API: what is asked of it, and its answers.

import { ask, type Entry } from './api';

/** A query and its time, as the API takes them. */
export interface Question {
  q: string;
  start: string;
  end: string;
}

export interface Hint {
  column: number;
  text: string;
}

/** A piece of a search: the entries of a slice of time, and how many matches there are up to here. */
export interface Slice {
  type: 'slice';
  start_ns: string;
  end_ns: string;
  entries: Entry[];
  total: number;
}

export interface SearchEnd {
  type: 'end';
  total: number;
  cursor: string | null;
  more: boolean;
  highlights: string[];
  warnings: string[];
  hints: Hint[];
  hint: string | null;
  start_ns: string;
  end_ns: string;
}

type Piece = Slice | SearchEnd | { type: 'error'; error: string };

export interface FacetValue {
  value: string;
  count: number;
}

export interface Facet {
  field: string;
  values: FacetValue[];
  distinct: number;
  missing: number;
  total: number;
  /** Then counts are lower bounds: there were too many values to count all of them. */
  approximate: boolean;
}

export interface Field {
  name: string;
  entries: number;
  types: ('text' | 'number' | 'bool')[];
}

export interface Pattern {
  pattern: string;
  level: string;
  total: number;
  counts: number[];
  example: string;
  first_seen_ns: string;
}

export interface Patterns {
  patterns: Pattern[];
  distinct: number;
  total: number;
  warnings: string[];
  start_ns: string;
  end_ns: string;
}

export interface Neighbours {
  before: Entry[];
  entry: Entry | null;
  after: Entry[];
  warnings: string[];
}

/** The pieces of a search, the newest slice of time first. */
export async function* pieces(
  question: Question,
  limit: number,
  signal: AbortSignal,
): AsyncGenerator<Slice | SearchEnd> {
  const query = new URLSearchParams({ ...question, limit: String(limit), stream: 'true' });
  const response = await fetch(`/api/logs/search?${query}`, { signal });
  if (!response.ok || !response.body) {
    const body: { error?: string } = await response.json().catch(() => ({}));
    throw new Error(body.error ?? `The server answered ${response.status}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? '')).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const piece = JSON.parse(line) as Piece;
      if (piece.type === 'error') throw new Error(piece.error);
      yield piece;
      if (piece.type === 'end') return;
    }
    if (done) throw new Error('The answer broke off.');
  }
}

/** The most frequent values of each field. */
export async function facets(
  question: Question,
  fields: string[],
  limit: number,
  signal: AbortSignal,
): Promise<{ facets: Facet[]; warnings: string[] }> {
  return ask('/api/logs/facets', { ...question, limit: String(limit), field: fields }, signal);
}

export const exportUrl = (question: Question, format: 'ndjson' | 'csv' | 'text', columns: string[]): string => {
  const query = new URLSearchParams({ ...question, format });
  if (format === 'csv' && columns.length > 0) query.set('columns', ['time', 'level', ...columns, 'message'].join(','));
  return `/api/logs/export?${query}`;
};

/** Where an entry stands: in its file, or, if it came by no file, in its stream. */
export function placeOf(entry: Entry): string {
  return entry.file ? `${entry.offset}@${entry.file}` : `${entry.id ?? ''}~${streamQuery(entry.stream)}`;
}

/** What finds the lines of a stream. */
function streamQuery(stream: Record<string, string>): string {
  return Object.entries(stream)
    .filter(([, value]) => value)
    .map(([name, value]) => `${name}:${JSON.stringify(value)}`)
    .join(' ');
}

const NS = 1_000_000n;
/** How far from an entry lines of its stream are looked for. */
const STREAM_SPAN = 86_400_000n * NS;

/** Lines before and after a place, so many of each. */
export async function neighbours(place: string, before: number, after: number, signal: AbortSignal): Promise<Neighbours> {
  const inFile = /^(\d+)@(.+)$/s.exec(place);
  if (inFile) {
    const [, offset, file] = inFile;
    return ask<Neighbours>('/api/logs/context', { file, offset, before: String(before), after: String(after) }, signal);
  }
  const inStream = /^((-?\d+)\.[^~]*)~(.*)$/s.exec(place);
  if (!inStream) throw new Error('The address names no line.');
  const [, id, time, q] = inStream as unknown as [string, string, string, string];
  const at = BigInt(time);
  const span = { q, start: String(at - STREAM_SPAN), end: String(at + STREAM_SPAN), total: 'false' };
  type Page = { entries: Entry[]; warnings: string[] };
  const page = (order: string, limit: number) =>
    limit > 0
      ? ask<Page>('/api/logs/search', { ...span, order, cursor: id, limit: String(limit) }, signal)
      : Promise.resolve<Page>({ entries: [], warnings: [] });
  const moment = { ...span, start: String(at), end: String(at + 1n), limit: '1000' };
  const [older, newer, own] = await Promise.all([
    page('newest', before),
    page('oldest', after),
    ask<Page>('/api/logs/search', moment, signal),
  ]);
  return {
    before: older.entries.reverse(),
    entry: own.entries.find((one) => one.id === id) ?? null,
    after: newer.entries,
    warnings: [...new Set([...older.warnings, ...newer.warnings])],
  };
}
