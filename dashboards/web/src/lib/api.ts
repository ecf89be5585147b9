// The server's answers, and how to ask for them.

export interface Entry {
  id?: string;
  time: string;
  time_ns: string;
  received_ns: string;
  level: string;
  message: string;
  stream: Record<string, string>;
  fields: Record<string, string | number | boolean>;
  file: string;
  offset: number;
}

export interface LogPage {
  total: number;
  entries: Entry[];
  cursor: string | null;
  hint: string | null;
  highlights: string[];
}

export interface Bars {
  bars: { start_ns: string; counts: Record<string, number> }[];
  total: number;
  start_ns: string;
  end_ns: string;
}

/** A native histogram; its buckets are not shown yet. */
export interface NativeHistogram {
  count: string;
  sum: string;
}

export interface Series {
  metric: Record<string, string>;
  values?: [number, string][];
  value?: [number, string];
  histograms?: [number, NativeHistogram][];
  histogram?: [number, NativeHistogram];
}

export interface QueryData {
  resultType: 'matrix' | 'vector' | 'scalar' | 'string';
  result: Series[] | [number, string];
}

export interface Alert {
  labels: Record<string, string>;
  annotations: Record<string, string>;
  state: string;
  activeAt: string;
  value: string;
}

export interface Rule {
  name: string;
  query: string;
  type: 'alerting' | 'recording';
  state?: 'firing' | 'pending' | 'inactive';
  health: string;
  lastError?: string;
  duration?: number;
  labels: Record<string, string>;
  annotations?: Record<string, string>;
  alerts?: Alert[];
}

export interface RuleGroup {
  name: string;
  file: string;
  interval: number;
  rules: Rule[];
}

export interface Notification {
  id: number;
  receiver: string;
  status: string;
  alerts: number;
  groupLabels: Record<string, string>;
  commonAnnotations: Record<string, string>;
  state: string;
  attempts: number;
  lastError: string;
  created: string;
}

/** `data`, and what the server has to say of it. */
export interface Answer<T> {
  data: T;
  notes: string[];
}

/** Parameters of a request; those that are undefined are left out, each of several values is one. */
type Params = Record<string, string | string[] | undefined>;

/** Asks and answers `data`; an error has the server's own words. */
export async function ask<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return (await askWithNotes<T>(path, params, signal)).data;
}

/** As `ask`, with warnings and infos. */
export async function askWithNotes<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<Answer<T>> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) if (one !== undefined) query.append(name, one);
  }
  const response = await fetch(`${path}?${query}`, { signal });
  let body: { status?: string; error?: string; data?: T; warnings?: string[]; infos?: string[] };
  try {
    body = await response.json();
  } catch {
    throw new Error(`The server answered ${response.status} ${response.statusText}`);
  }
  if (!response.ok || body.status !== 'success') {
    throw new Error(body.error ?? `The server answered ${response.status}`);
  }
  return { data: body.data as T, notes: [...(body.warnings ?? []), ...(body.infos ?? [])] };
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

export function words(error: unknown): string {
  if (error instanceof TypeError) return 'The server cannot be reached.';
  return error instanceof Error ? error.message : String(error);
}
