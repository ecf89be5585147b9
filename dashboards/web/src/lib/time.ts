// Times as Grafana writes them: `now-15m`, or a moment in RFC 3339.

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** Unix milliseconds, or undefined where the text is no time. */
export function toMillis(text: string, now = Date.now()): number | undefined {
  if (text === 'now') return now;
  const relative = /^now-(\d+)([smhdw])$/.exec(text);
  if (relative) return now - Number(relative[1]) * (UNITS[relative[2] ?? ''] ?? 0) * 1000;
  const moment = Date.parse(text);
  return Number.isNaN(moment) ? undefined : moment;
}

/** As the log API takes it. */
export function toParam(text: string): string {
  if (text === 'now' || /^now-\d+[smhdw]$/.test(text)) return text;
  const millis = toMillis(text);
  return millis === undefined ? text : new Date(millis).toISOString();
}

export const RANGES = [
  ['now-5m', 'Last 5 minutes'],
  ['now-15m', 'Last 15 minutes'],
  ['now-1h', 'Last hour'],
  ['now-6h', 'Last 6 hours'],
  ['now-24h', 'Last 24 hours'],
  ['now-7d', 'Last 7 days'],
  ['now-30d', 'Last 30 days'],
] as const;

const two = (n: number) => String(n).padStart(2, '0');

/** Local time of day with milliseconds. */
export function clock(iso: string): string {
  const at = new Date(iso);
  const ms = String(at.getMilliseconds()).padStart(3, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

/** Local date and time. */
export function stamp(millis: number): string {
  const at = new Date(millis);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export const nsToMillis = (ns: string) => Number(BigInt(ns) / 1_000_000n);
