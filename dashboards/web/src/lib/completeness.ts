// What collectors say of the files that they read, and what of it is worth a look.

export interface Sums {
  bytes: number;
  acknowledged: number;
  gap: number;
  lost: number;
  /** By the store, for good. */
  refused: number;
  behind_seconds: number;
}

export interface Container extends Sums {
  namespace: string;
  pod: string;
  container: string;
  files: number;
}

export interface Journal {
  files: number;
  entries: number;
  acknowledged: number;
  gap: number;
  lost: number;
  refused: number;
  behind_seconds: number;
}

export interface Node {
  node: string;
  input: number;
  age_seconds: number;
  is_silent: boolean;
  /** It said that it ends. */
  is_stopped: boolean;
  started: string;
  spool_bytes: number;
  containers: Container[];
  journal: Journal | null;
}

export interface Completeness {
  total: Sums;
  namespaces: (Sums & { namespace: string })[];
  nodes: Node[];
}

/** A store that is so far behind is worth a look; below it a gap is what was just written. */
export const BEHIND_SECONDS = 60;

/** From the worst to the best. */
export type State = 'lost' | 'silent' | 'behind' | 'well';
const ORDER: State[] = ['lost', 'silent', 'behind', 'well'];

export interface Row extends Container {
  key: string;
  node: string;
  state: State;
}

export interface Group extends Sums {
  namespace: string;
  nodes: number;
  state: State;
  rows: Row[];
}

const sumOf = (rows: Sums[]): Sums => ({
  bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
  acknowledged: rows.reduce((sum, row) => sum + row.acknowledged, 0),
  gap: rows.reduce((sum, row) => sum + row.gap, 0),
  lost: rows.reduce((sum, row) => sum + row.lost, 0),
  refused: rows.reduce((sum, row) => sum + row.refused, 0),
  behind_seconds: rows.reduce((most, row) => Math.max(most, row.behind_seconds), 0),
});

export function stateOf(of: { lost: number; refused: number; behind_seconds: number }, silent: boolean): State {
  if (of.lost + of.refused > 0) return 'lost';
  if (silent) return 'silent';
  return of.behind_seconds > BEHIND_SECONDS ? 'behind' : 'well';
}

const worst = (states: State[]): State => ORDER.find((state) => states.includes(state)) ?? 'well';

/** The worst first. What is equally well is by name, so that nothing jumps from one answer to the next. */
function byNeed(a: Sums & { state: State }, b: Sums & { state: State }): number {
  const order = ORDER.indexOf(a.state) - ORDER.indexOf(b.state);
  const lag = (of: Sums) => (of.behind_seconds > BEHIND_SECONDS ? of.behind_seconds : 0);
  return order || b.lost + b.refused - a.lost - a.refused || lag(b) - lag(a);
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** Containers of which namespace, pod, name or node has every word, by namespace. */
export function groups(nodes: Node[], filter: string): Group[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const found = new Map<string, Row[]>();
  for (const node of nodes) {
    for (const container of node.containers) {
      const name = [container.namespace, container.pod, container.container, node.node].join(' ').toLowerCase();
      if (!words.every((word) => name.includes(word))) continue;
      const row = {
        ...container,
        key: [node.node, node.input, container.pod, container.container].join('/'),
        node: node.node,
        state: stateOf(container, node.is_silent),
      };
      const rows = found.get(container.namespace);
      if (rows) rows.push(row);
      else found.set(container.namespace, [row]);
    }
  }
  const all = [...found].map(([namespace, rows]) => ({
    namespace,
    ...sumOf(rows),
    nodes: new Set(rows.map((row) => row.node)).size,
    state: worst(rows.map((row) => row.state)),
    rows: rows.sort((a, b) => byNeed(a, b) || compare(a.pod, b.pod) || compare(a.key, b.key)),
  }));
  return all.sort((a, b) => byNeed(a, b) || compare(a.namespace, b.namespace));
}

/** Where the lines of a container are shown. */
export function logsOf(row: Row): string {
  const name = row.namespace ? 'container' : 'service';
  const labels = { namespace: row.namespace, pod: row.pod, [name]: row.container, node: row.node };
  const conditions = Object.entries(labels).filter(([, value]) => value);
  const q = conditions.map(([label, value]) => `${label}:"${value.replace(/["\\]/g, '\\$&')}"`).join(' ');
  return `/?${new URLSearchParams({ q })}`;
}

const SIZES = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Such as `734 B` and `12.3 MiB`. */
export function size(bytes: number): string {
  let [value, unit] = [bytes, 'B'];
  for (const next of SIZES) {
    if (value < 1023.95) break;
    [value, unit] = [value / 1024, next];
  }
  return unit === 'B' ? `${value} B` : `${value.toFixed(1)} ${unit}`;
}

/** Such as `0.4 s`, `3 min` and `2.5 h`. */
export function span(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`;
}

export const count = (number: number) => number.toLocaleString('en');
